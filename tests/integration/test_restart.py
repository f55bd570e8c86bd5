"""BEH-R16: servers that are killed and restarted while many threads use them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.face.handlers import Echoed, echo
from tests.integration.gone import SOON, pool
from tests.servers.nginx import SMALL, Nginx
from tests.servers.raw import RawServer, always
from tests.waiting import eventually
from turbopool import Client, TurboPoolError

THREADS = 6
RESTARTS = 3


class Load:
    """Threads that send GETs and POSTs in turn, and keep account of each."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self.over = threading.Event()
        self.answered: list[str] = []
        """Method and target of what was answered with itself."""
        self.lost: dict[str, TurboPoolError] = {}
        self.wrong: list[object] = []

    def work(self, thread: int) -> None:
        """Send until it is over."""
        n = 0
        while not self.over.is_set():
            n += 1
            method = "POST" if n % 4 == 0 else "GET"
            target = f"{self._prefix}/{thread}/{n}"
            try:
                response = self._client.request(method, target, timeout=20)
            except TurboPoolError as error:
                self.lost[f"{method} {target}"] = error
                continue
            if response.content == SMALL or Echoed.of(response).target == target:
                self.answered.append(f"{method} {target}")
            else:
                self.wrong.append(response.content)

    def assert_nobody_was_harmed_who_need_not_be(self) -> None:
        """Nobody got another's answer; what failed may have been processed, and a GET was sent twice before it did."""
        assert self.wrong == []
        for request, error in self.lost.items():
            is_get = request.startswith("GET")
            assert (error.processed, error.request_sent) == ("maybe", True), f"{request}: {error!r}"
            assert (error.may_retry, error.attempts) == (is_get, 1 + is_get), f"{request}: {error!r}"
        assert len(self.lost) <= 20  # those that were on their way, of some thousand
        assert len(self.answered) > 100 * RESTARTS


@contextmanager
def under_load(client: Client, prefix: str) -> Iterator[Load]:
    """Have the client used by many threads; it ends with all of them answered."""
    load = Load(client, prefix)
    with ThreadPoolExecutor(THREADS) as threads:
        running = [threads.submit(load.work, thread) for thread in range(THREADS)]
        try:
            yield load
        finally:
            load.over.set()
        for one in running:
            one.result(30)


def assert_at_rest(client: Client) -> None:
    """Nothing is under way, what was opened is closed or idle, and each request was answered, failed or sent again."""
    eventually(lambda: pool(client).leased == pool(client).waiting == pool(client).connecting == 0)
    one = pool(client)
    assert one.opened - one.closed == one.idle
    assert one.completed + one.failed + one.cancelled == one.requests - one.replays
    assert one.state == "open"


@pytest.mark.concurrency
def test_a_server_that_is_killed_and_restarted_under_load_harms_nobody_who_need_not_be() -> None:
    """BEH-R16, R10, I7, I9, I21: GETs are all answered; a POST is never seen twice."""
    seen: Counter[str] = Counter()
    with ExitStack() as stack:
        server = stack.enter_context(RawServer(always(echo)))
        with (
            Client(base_url=server.url, reconnect=SOON, max_conns_per_host=4) as client,
            under_load(client, "/load") as load,
        ):
            for _ in range(RESTARTS):
                server.wait_for_requests(200)
                stack.close()
                seen.update(f"{request.method} {request.target}" for request in server.requests)
                assert server.peak <= 4
                eventually(lambda: pool(client).state == "reconnecting")
                server = stack.enter_context(RawServer(always(echo), port=server.port))
            server.wait_for_requests(200)
            load.over.set()
        seen.update(f"{request.method} {request.target}" for request in server.requests)

    load.assert_nobody_was_harmed_who_need_not_be()
    assert len(load.lost) <= 4 * RESTARTS  # one a connection
    assert {count for request, count in seen.items() if request.startswith("POST")} == {1}
    assert max(seen.values()) <= 2
    assert set(load.answered) <= set(seen)


@pytest.mark.concurrency
def test_a_real_server_that_is_stopped_and_started_under_load(nginx: Nginx) -> None:
    """BEH-R16: nginx, ended at once with all its connections; twice, and reloaded in between."""
    prefix = f"/restarted-{time.monotonic_ns()}"  # the log knows the other runs of this test as well
    with Client(base_url=nginx.url, reconnect=SOON, max_conns_per_host=4) as client:
        with under_load(client, prefix) as load:
            for _ in range(2):
                eventually(lambda: len(load.answered) > 200)
                nginx.stop()
                eventually(lambda: pool(client).state == "reconnecting" and pool(client).reconnects > 0)
                nginx.start()
                load.answered.clear()
                eventually(lambda: len(load.answered) > 100)
                nginx.reload()
            eventually(lambda: len(load.answered) > 400)
        assert_at_rest(client)

    load.assert_nobody_was_harmed_who_need_not_be()
    logged = Counter(f"{line.method} {line.target}" for line in nginx.log(prefix))
    assert {count for request, count in logged.items() if request.startswith("POST")} == {1}
