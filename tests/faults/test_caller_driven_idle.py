"""What happens to a connection while it stands idle is seen by the caller who would use it next, and by nobody else.

The dispatcher, which looks at all of them, is held fast meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.aftermath import NEXT, POISON, assert_recovered, healthy
from tests.faults.driven import WAYS, Way, held_dispatcher, idle
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import PATIENCE, eventually
from turbopool import Client, TurboPoolError


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> Authority | None:
    """The authority of a server that speaks TLS, or None."""
    return request.getfixturevalue("authority") if request.param == "https" else None


STIRS: dict[str, Callable[[Conn], None]] = {
    "a response": lambda conn: conn.send(POISON),
    "a byte": lambda conn: conn.send(b"\n"),
    "a 408": lambda conn: conn.send(respond(status=408, headers=[("Connection", "close")])),
    "FIN": Conn.shutdown_write,
    "cut": Conn.cut,
    "RST": Conn.reset,
}


@pytest.mark.parametrize("stir", STIRS)
@pytest.mark.parametrize("way", WAYS)
def test_a_connection_that_stirred_while_nobody_looked_is_not_used(
    way: Way, stir: str, scheme: Authority | None
) -> None:
    """BEH-R11, P17, P47, FLT-N8, H5, H7: the caller sees it by itself, and a POST is sent over another, once."""
    stirred, may_stir = threading.Event(), threading.Event()

    def stirs(conn: Conn) -> None:
        assert may_stir.wait(PATIENCE)
        STIRS[stir](conn)
        stirred.set()
        if conn.is_open():
            conn.hold()

    with idle(stirs, authority=scheme) as (server, client), ThreadPoolExecutor(1) as threads:
        with held_dispatcher():
            may_stir.set()
            assert stirred.wait(PATIENCE)
            sent = threads.submit(way, client, "POST", "/x")
            eventually(lambda: client.stats().waiting == 1)
        assert sent.result(30).content == NEXT

        assert [(request.target, request.connection) for request in server.requests] == [("/first", 0), ("/x", 1)]
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("knob", ["idle_timeout", "connection_lifetime"])
@pytest.mark.parametrize("way", WAYS[:2])
def test_a_connection_whose_time_is_up_is_not_used_though_nobody_closed_it_yet(way: Way, knob: str) -> None:
    """BEH-P9, P18, P36: the caller looks at the clock by itself."""
    with idle(healthy, authority=None, **{knob: 0.3}) as (server, client), ThreadPoolExecutor(1) as threads:
        with held_dispatcher():
            server.closing.wait(0.4)
            before = len(server.requests)
            sent = threads.submit(way, client, "POST", "/x")
            eventually(lambda: client.stats().waiting == 1 or len(server.requests) > before)
            assert len(server.requests) == before
        assert sent.result(30).content == NEXT
        assert server.requests[-1].connection == len(server.connections) - 1 > 0


def test_a_server_that_ends_its_idle_connections_harms_no_request() -> None:
    """BEH-R11, FLT-N8: it closes after each response, at once or a moment later; no GET ever fails."""

    def leaves(conn: Conn) -> None:
        for n in range(1 + conn.number % 3):
            conn.send(respond(conn.read_request().target.encode()))
            server.closing.wait(0.0005 * (n % 2))

    with RawServer(leaves) as server, Client(base_url=server.url, max_conns_per_host=2) as client:
        lost: list[TurboPoolError] = []
        for n in range(150):
            try:
                assert client.get(f"/{n}").content == f"/{n}".encode()
            except TurboPoolError as error:
                lost.append(error)
        assert not [error for error in lost if error.attempts < 2]  # a replay that met the same is the only end
        assert len(lost) < 15
        assert client.stats().replays >= len(lost)
