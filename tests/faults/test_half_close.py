"""FLT-N11: a server that has said all and closed its half; what is complete is delivered, and nothing spins."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.aftermath import NEXT, assert_recovered, healthy
from tests.faults.busy import assert_at_peace
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer
from tests.servers.wire import chunked, respond
from tests.waiting import eventually
from turbopool import Client
from turbopool.transport import download

BODY = bytes(range(250)) * 200
"""More than is read at once, and less than a peer may send unread."""
SIZED = respond(BODY)
CHUNKED = respond(chunked(BODY, 5000), headers=[("Transfer-Encoding", "chunked")])
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
ANSWERS = {"sized": SIZED, "chunked": CHUNKED, "unframed": UNFRAMED}


def has_half_closed(server: RawServer) -> bool:
    """Whether the server's FIN has come to a connection that the client keeps."""
    mine = psutil.Process().net_connections("tcp")
    return any(one.status == psutil.CONN_CLOSE_WAIT and one.raddr[1:] == (server.port,) for one in mine)


def half_closes(answer: bytes) -> Handler:
    """A handler that reads a request, answers, sends FIN and waits for the client's."""

    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(answer)
        conn.shutdown_write()
        conn.hold()

    return handler


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_complete_response_is_delivered_and_the_connection_closed(
    authority: Authority,
    kind: str,
    secure: bool,  # noqa: FBT001
) -> None:
    """FLT-N11, BEH-R5: by the client as well, though the server would go on reading."""
    context = authority.server_context() if secure else None
    with (
        RawServer([half_closes(ANSWERS[kind]), healthy], ssl_context=context) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        assert client.post("/x", content=BODY).content == BODY
        server.wait_until(lambda server: server.connections[0].peer_closed_at)
        assert_recovered(client, server, connections=2)
        assert client.stats().replays == 0


@pytest.mark.parametrize(
    ("kind", "secure"), [("sized", False), ("chunked", False), ("unframed", False), ("sized", True)]
)
def test_nothing_spins_while_a_half_closed_stream_stands_unread(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    secure: bool,  # noqa: FBT001
) -> None:
    """FLT-N11: the end has come, but not all of what is before it was read."""
    monkeypatch.setattr(download, "HIGH_WATER", 1)
    context = authority.server_context() if secure else None
    body = BODY * 2 if secure else BODY  # until a record is whole, reading goes on
    with (
        RawServer([half_closes(respond(body) if secure else ANSWERS[kind]), healthy], ssl_context=context) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        with client.stream("GET", "/x") as response:
            eventually(lambda: has_half_closed(server))
            assert client.stats().leased == 1
            assert_at_peace()
            assert response.read() == body
        assert_recovered(client, server, connections=2)


def test_nothing_spins_while_an_upload_waits_whose_response_is_there() -> None:
    """FLT-N11, N17: the response is delivered at once; the caller's iterator ends when it comes back."""
    drawn, gate, closed = threading.Event(), threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            yield b"first"
            drawn.set()
            assert gate.wait(30)
            yield b"second"
        finally:
            closed.set()

    def early(conn: Conn) -> None:
        conn.read_head()
        assert drawn.wait(30)
        conn.send(respond(NEXT))
        conn.shutdown_write()
        conn.hold()

    with RawServer([early, healthy]) as server, Client(base_url=server.url) as client:
        assert client.post("/x", content=pieces()).content == NEXT
        assert_at_peace()
        assert not closed.is_set()
        gate.set()
        assert closed.wait(30)
        assert_recovered(client, server, connections=2)


def test_nothing_spins_while_a_response_is_awaited() -> None:
    """FLT-N11: neither before its first byte nor between two, with and without a body under way."""
    go = threading.Event()

    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(SIZED[:1000])
        assert go.wait(30)
        conn.send(SIZED[1000:])
        conn.shutdown_write()
        conn.hold()

    with RawServer([handler, healthy]) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        server.wait_for_requests(1)
        assert_at_peace()
        go.set()
        assert future.result(30).content == BODY
        eventually(lambda: client.stats().closed == 1)
        assert_recovered(client, server, connections=2)
