from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    RemoteSettingsChanged,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame, RstStreamFrame

from tests.infrastructure.h2client import H2Client
from tests.servers.h2conn import H2Conn
from tests.servers.h2peer import Behaviour, H2Peer
from tests.servers.h2send import raw_frame
from tests.servers.h2serve import serve
from tests.servers.wire import BadRequest, PeerClosed


def _answers(conn: H2Conn) -> None:
    conn.handshake()
    while True:
        request = conn.read_request()
        conn.respond(request.stream_id, 200, [("x-method", request.method)], bytes(request.body) or b"empty")


@contextlib.contextmanager
def _saying(words: bytes, peer: H2Peer) -> Iterator[None]:
    with socket.create_connection(peer.address) as sock:
        sock.sendall(words)
        yield


def test_another_thread_orders_frames_and_an_event_lets_a_behaviour_go_on() -> None:
    go = threading.Event()

    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        conn.read_until(go.is_set)
        conn.respond(conn.read_request().stream_id)
        conn.drain()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        stream_id = client.ask("/")
        peer.wait_for_requests(1)
        (conn,) = peer.connections
        conn.do(conn.send_goaway, stream_id)
        client.wait(ConnectionTerminated)
        with pytest.raises(ZeroDivisionError):
            conn.do(lambda: 1 / 0)
        go.set()
        peer.wait_until(lambda peer: peer.requests[0].ended)
        client.socket.close()
        peer.wait_until(lambda peer: peer.connections[0].raw.closed_at)
        with pytest.raises(ConnectionError):
            conn.do(conn.send_ping)


@pytest.mark.parametrize("behaviour", [serve, _answers, H2Conn.hold])
@pytest.mark.parametrize("end", ["close", "cut", "reset"])
def test_another_thread_ends_a_connection_without_fault(behaviour: Behaviour, end: str) -> None:
    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        peer.wait_for_connections(1)
        (conn,) = peer.connections
        if end == "close" and behaviour is not H2Conn.hold:
            conn.do(conn.close)
        else:
            getattr(conn.raw, "reset" if end == "reset" else "cut")()
        with contextlib.suppress(ConnectionResetError):
            client.rest()
        peer.wait_until(lambda _: conn.raw.closed_at)

    assert conn.raw.peer_closed_at is None


def test_fault_of_a_behaviour_fails_the_test_and_a_client_that_leaves_does_not() -> None:
    def wrong(conn: H2Conn) -> None:
        conn.handshake()
        raise ValueError("the behaviour's own")

    with pytest.raises(ValueError, match="the behaviour's own"), H2Peer(wrong) as peer, H2Client(peer.address):
        peer.wait_until(lambda peer: peer.faults)
    with H2Peer(_answers) as peer, H2Client(peer.address):
        peer.wait_for_connections(1)


def test_what_is_not_http2_is_a_fault_of_the_client() -> None:
    with (
        pytest.raises(BadRequest, match="preface"),
        H2Peer(_answers) as peer,
        _saying(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", peer),
    ):
        peer.wait_until(lambda peer: peer.faults)


def test_wait_for_a_frame_that_does_not_come_ends_and_says_what_came() -> None:
    gave_up = threading.Event()

    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        conn.settings_acked()
        with pytest.raises(AssertionError, match="SettingsFrame"):
            conn.expect(RstStreamFrame, timeout=0.01)
        gave_up.set()
        with pytest.raises(PeerClosed):
            conn.read_frame()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        client.wait(RemoteSettingsChanged)
        assert gave_up.wait(20)
        client.socket.close()
        peer.wait_until(lambda peer: peer.connections[0].raw.closed_at)


def test_client_says_goaway_in_a_flood_and_is_heard() -> None:
    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        conn.flood(raw_frame(0, 0, 2, b"data of no stream"), 1000)

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        with pytest.raises(ProtocolError):
            client.wait(ConnectionTerminated)
        client.flush()
        client.socket.close()
        peer.wait_until(lambda peer: peer.connections[0].raw.closed_at)

    assert peer.connections[0].expect(GoAwayFrame).error_code == ErrorCodes.PROTOCOL_ERROR


def test_what_was_written_before_leaving_arrives() -> None:
    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        conn.send_goaway(0, ErrorCodes.NO_ERROR, b"bye")
        conn.leave()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        client.ask("/never-read")
        assert client.rest().endswith(b"bye")
