"""FLT-P20: one dead host among many, and one that comes back to a thousand who wait."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.faults.aftermath import NEXT, healthy
from tests.servers.blackhole import Blackhole, refusing_port
from tests.servers.connection import Conn
from tests.servers.nginx import Nginx
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, respond
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import Client, ConnectError, DeadlineExceeded, ReconnectOptions, TurboPoolError

_SOON = ReconnectOptions(wait=wait_fixed(0.1), stop=stop_after_attempt(1000))


def _named(request: RawRequest) -> bytes:
    return respond(request.target.encode())


def _once(request: RawRequest) -> bytes:
    """Have the next request come on a new connection."""
    del request
    return respond(NEXT, headers=[("Connection", "close")])


@contextmanager
def _blackholed() -> Iterator[str]:
    with Blackhole() as hole:
        yield hole.url


@contextmanager
def _refusing() -> Iterator[str]:
    with refusing_port() as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _silent() -> Iterator[str]:
    def silent(conn: Conn) -> None:
        conn.read_request()
        conn.hold()

    with RawServer(silent) as server:
        yield server.url


def _assert_undelayed(client: Client, urls: list[str], rounds: int) -> None:
    """Of many requests to each host in turn, none takes long, and most take no time at all."""
    seconds = []
    for _ in range(rounds):
        for url in urls:
            began = time.monotonic()
            assert client.get(f"{url}/bulkhead", timeout=30).is_success
            seconds.append(time.monotonic() - began)
    assert max(seconds) < SPENT
    assert statistics.median(seconds) < 0.1


@pytest.mark.parametrize("dead", [_blackholed, _refusing, _silent])
def test_one_dead_host_of_a_hundred_delays_no_other(dead: object, nginx: Nginx) -> None:
    """FLT-P20: requests keep coming for it all the time; those to the others take as long as ever."""
    assert callable(dead)
    urls = nginx.hosts(99)
    stop = threading.Event()
    outcomes: list[BaseException | None] = []
    with dead() as url, Client(connect_timeout=30) as client:

        def besiege() -> None:
            while not stop.is_set():
                futures = [client.send_async("GET", f"{url}/x", timeout=0.2) for _ in range(20)]
                outcomes.extend(future.exception(30) for future in futures)

        for one in urls:
            assert client.get(f"{one}/first").is_success
        besieging = threading.Thread(target=besiege)
        besieging.start()
        try:
            _assert_undelayed(client, urls, 3)
        finally:
            stop.set()
            besieging.join(30)

        assert {type(outcome) for outcome in outcomes} <= {DeadlineExceeded, ConnectError}
        assert len(outcomes) >= 20
        assert client.stats().waiting == 0


def test_a_host_with_a_thousand_waiters_comes_back_without_a_storm() -> None:
    """FLT-P20: looked for by one connect a step, then by as many as may be; all are answered, each its own."""
    with RawServer(_once_each) as gone, RawServer(healthy) as other, Client(reconnect=_SOON) as client:
        assert client.get(f"{gone.url}/first").content == NEXT
        gone.refuse()
        began = time.monotonic()
        futures = [client.send_async("POST", f"{gone.url}/{n}", timeout=60) for n in range(1000)]
        connects, elapsed = _connects_of(client, gone.url), time.monotonic() - began
        _assert_undelayed(client, [other.url], 200)

        assert not any(future.done() for future in futures)
        eventually(lambda: _connects_of(client, gone.url) >= 5)
        assert connects <= 2 + elapsed / 0.1
        with RawServer(always(_named), port=gone.port) as back:
            assert [future.result(30).text for future in futures] == [f"/{n}" for n in range(1000)]
            assert [request.target for request in back.requests].count("/0") == 1
            assert len(back.requests) == 1000
            assert len(back.connections) <= back.peak <= 6
            _assert_undelayed(client, [other.url], 20)
            assert len(other.connections) == 1


def _once_each(conn: Conn) -> None:
    always(_once)(conn)


def _connects_of(client: Client, url: str) -> int:
    (pool,) = [pool for key, pool in client.stats().pools.items() if key.origin == url]
    return pool.reconnects


@with_short_times
def test_attempts_to_reach_a_dead_host_do_not_grow_with_those_who_wait(short: float) -> None:
    """FLT-P20: one connect a step, whether ten wait or a thousand; and with their deadlines they are gone."""
    for waiters in (10, 1000):
        with RawServer(_once_each) as gone, Client(base_url=gone.url, reconnect=_SOON) as client:
            client.get("/first")
            gone.refuse()
            began = time.monotonic()
            futures = [client.send_async("GET", "/x", timeout=min(10 * short, 10)) for _ in range(waiters)]
            first = futures[0]
            eventually(lambda first=first: first.done() or client.stats().reconnects > 1)  # type: ignore[misc]
            reached(not first.done())
            errors = [future.exception(30) for future in futures]
            elapsed = time.monotonic() - began

            assert {type(error) for error in errors} == {DeadlineExceeded}
            assert all(isinstance(error and error.__cause__, ConnectError) for error in errors)
            assert client.stats().waiting == 0
            assert 1 <= _connects_of(client, gone.url) <= 5 + elapsed / 0.1


def test_a_host_that_accepts_and_hangs_up_is_besieged_by_nobody() -> None:
    """FLT-P20, N19: a connect is no proof; it takes an answer before the thousand may follow."""
    answers = threading.Event()

    def flaps(conn: Conn) -> None:
        if server.connections[0] is conn:
            conn.read_request()
            conn.send(_once(conn.requests[0]))
        elif answers.is_set():
            always(_named)(conn)

    with RawServer(flaps) as server, Client(base_url=server.url, reconnect=_SOON) as client:
        assert client.get("/first").content == NEXT
        futures = [client.send_async("GET", f"/{n}", timeout=60) for n in range(200)]
        eventually(lambda: len(server.connections) >= 19)
        times = [conn.accepted_at for conn in server.connections]
        answers.set()
        steady = times[14:19]  # before: the first, those of the drop, and those of the first attempt, which is free
        assert all(later - earlier > 0.05 for earlier, later in pairwise(steady)), times

        outcomes = [future.exception(30) for future in futures]
        assert sum(outcome is None for outcome in outcomes) >= 150  # but for those on connections that hung up twice
        assert all(outcome is None or isinstance(outcome, TurboPoolError) for outcome in outcomes)


def test_many_hosts_that_are_dead_at_once_cost_one_thread_and_no_host_the_others_time() -> None:
    """FLT-P20: fifty are being reconnected to, each at its own pace; a living one is served as ever."""
    with ExitStack() as stack, RawServer(healthy) as other, Client(reconnect=_SOON) as client:
        gone = [stack.enter_context(RawServer(_once_each)) for _ in range(50)]
        for server in gone:
            client.get(f"{server.url}/first")
            server.refuse()
        threads = threading.active_count()
        futures = [client.send_async("GET", f"{server.url}/x", timeout=60) for server in gone]
        _assert_undelayed(client, [other.url], 100)
        assert threading.active_count() <= threads + 1

        backs = [stack.enter_context(RawServer(healthy, port=server.port)) for server in gone]
        assert [future.result(30).content for future in futures] == [NEXT] * 50
        assert all(len(back.requests) == 1 for back in backs)
