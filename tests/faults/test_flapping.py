"""FLT-N19: a server that answered once, and then accepts every connection only to end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.faults.aftermath import NEXT, healthy
from tests.faults.busy import dispatcher_time
from tests.integration.gone import pool
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import (
    Client,
    ConnectError,
    DeadlineExceeded,
    ReadError,
    ReconnectOptions,
    RemoteProtocolError,
    WriteError,
)
from turbopool.transport.replay import MAX_REPLAYS

PAUSE = 0.1
LIMIT = 4


class Flapping:
    """Answers its first request, then ends whatever it accepts, until it is healed."""

    def __init__(self, end: Callable[[Conn], object]) -> None:
        self._end = end
        self.healed = threading.Event()

    def __call__(self, conn: Conn) -> None:
        """Serve one connection."""
        if self.healed.is_set():
            healthy(conn)
        elif conn.number == 0:
            conn.read_request()
            conn.send(respond(NEXT, headers=[("Connection", "close")]))
        else:
            self._end(conn)


def reads_and_resets(conn: Conn) -> None:
    """End it when the request has come."""
    conn.read_request()
    conn.reset()


ENDS = {"reset at once": Conn.reset, "closed at once": Conn.close, "reset when asked": reads_and_resets}


@pytest.mark.parametrize("end", ENDS)
@with_short_times
def test_a_flapping_server_is_connected_to_at_the_pace_of_the_backoff(end: str, short: float) -> None:
    """FLT-N19, BEH-R13, I22: every error is typed, nobody outlives its deadline, and all is well after an answer."""
    flapping = Flapping(ENDS[end])
    timeout = min(10 * short, 10.0)
    options = ReconnectOptions(wait=wait_fixed(PAUSE), stop=stop_after_attempt(1000))
    with (
        RawServer(flapping) as server,
        Client(base_url=server.url, reconnect=options, max_conns_per_host=LIMIT) as client,
    ):
        client.get("/first")
        began, spent = time.monotonic(), dispatcher_time()
        futures = [client.send_async(("GET", "POST")[n % 2], f"/{n}", timeout=timeout) for n in range(60)]
        for future in futures:
            error = future.exception(30)
            assert isinstance(error, DeadlineExceeded | ReadError | WriteError | RemoteProtocolError)
            assert error.processed == ("maybe" if error.request_sent else "no")
            assert error.attempts <= MAX_REPLAYS + 1
        elapsed = time.monotonic() - began

        reached(len(server.connections) - 1 > LIMIT)
        assert timeout <= elapsed < timeout + SPENT
        # The pool's fill broke, the first attempt had its fill as well, and from then on there was one a pause.
        assert len(server.connections) - 1 <= 2 * LIMIT + elapsed / PAUSE + 1
        assert dispatcher_time() - spent < 0.3 * elapsed
        assert pool(client).state == "reconnecting"
        flapping.healed.set()
        assert client.get("/next").content == NEXT
        assert pool(client).state == "open"
        eventually(lambda: server.open == pool(client).idle == pool(client).opened - pool(client).closed)


@pytest.mark.parametrize("end", ENDS)
def test_a_connect_alone_is_no_success_and_the_attempts_end(end: str) -> None:
    """FLT-N19, BEH-R3, R15: they are counted through to the end, and the server is looked for at intervals."""
    flapping = Flapping(ENDS[end])
    options = ReconnectOptions(wait=wait_fixed(PAUSE / 2), stop=stop_after_attempt(4))
    with RawServer(flapping) as server, Client(base_url=server.url, reconnect=options, max_conns_per_host=1) as client:
        client.get("/first")
        futures = [client.send_async("GET", f"/{n}") for n in range(20)]
        errors = [future.exception(30) for future in futures]
        waited = [error for error in errors if type(error) is ConnectError]
        assert len(waited) >= 17  # the others were on their way, two of them twice
        assert {error.attempts for error in waited} == {4}
        assert {(error.request_sent, error.processed) for error in waited} <= {(False, "no"), (True, "maybe")}
        assert isinstance(waited[0].__cause__, OSError | RemoteProtocolError)
        assert 5 <= len(server.connections) <= 6

        began = time.monotonic()
        later = [cast("ConnectError", client.send_async("GET", "/later").exception(30)) for _ in range(200)]
        elapsed = time.monotonic() - began
        assert elapsed < 2 * SPENT
        assert {type(error) for error in later} == {ConnectError}
        assert len(server.connections) <= 8 + elapsed / (PAUSE / 2)

        flapping.healed.set()
        eventually(lambda: pool(client).state != "failing")
        assert client.get("/next").content == NEXT
        assert pool(client).state == "open"
