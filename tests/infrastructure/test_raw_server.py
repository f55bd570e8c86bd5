from __future__ import annotations

import contextlib
import http.client
import select
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.servers.blackhole import refusing_port
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always, script
from tests.servers.wire import BadRequest, chunked, respond

_GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


@contextlib.contextmanager
def _connected(server: RawServer) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=10) as sock:
        yield sock


@contextlib.contextmanager
def _client(server: RawServer) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=10)) as client:
        yield client


def _read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_requests_are_recorded_for_the_server_and_for_each_connection() -> None:
    with RawServer(always(lambda request: respond(request.body))) as server:
        with _client(server) as first, _client(server) as second:
            for client, body in ((first, b"1"), (second, b"2"), (first, b"3")):
                client.request("POST", "/echo", body)
                assert client.getresponse().read() == body
        server.wait_until(lambda server: server.open == 0)

    assert [request.connection for request in server.requests] == [0, 1, 0]
    assert [len(conn.requests) for conn in server.connections] == [2, 1]
    assert server.peak == 2


def test_each_connection_gets_the_script_of_its_place_and_the_last_serves_the_rest() -> None:
    with RawServer([script(respond(b"first")), script(respond(b"later"))]) as server:
        bodies = []
        for _ in range(3):
            with _client(server) as client:
                client.request("GET", "/")
                bodies.append(client.getresponse().read())

    assert bodies == [b"first", b"later", b"later"]
    assert [conn.number for conn in server.connections] == [0, 1, 2]


def test_script_that_is_over_closes_the_connection() -> None:
    with RawServer(script(respond(b"only"))) as server, _connected(server) as sock:
        sock.sendall(_GET)

        assert _read_to_end(sock).endswith(b"\r\n\r\nonly")

    assert server.connections[0].closed_at is not None


def test_bytes_sent_slowly_arrive_complete() -> None:
    answer = respond(chunked(b"hello" * 50, 7), headers=[("Transfer-Encoding", "chunked")])

    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send_slowly(answer, size=3, delay=0.0005)

    with RawServer(handler) as server, _client(server) as client:
        client.request("GET", "/")

        assert client.getresponse().read() == b"hello" * 50


def test_close_of_the_client_is_seen_at_its_time_and_counted_at_once() -> None:
    with RawServer(always(respond())) as server:
        with _connected(server) as first:
            server.wait_for_connections(1)
            assert server.open == 1
            first.close()
            with _connected(server):
                server.wait_for_connections(2)
                assert server.peak == 1
        server.wait_until(lambda server: all(conn.peer_closed_at for conn in server.connections))

    assert server.connections[0].peer_closed_at is not None
    assert server.connections[0].peer_closed_at >= server.connections[0].accepted_at


def test_waiting_for_the_close_reads_nothing_and_tells_whether_it_came() -> None:
    seen: list[object] = []
    asked = threading.Event()

    def handler(conn: Conn) -> None:
        seen.append(conn.wait_closed(timeout=0.05))
        asked.set()
        seen.append(conn.wait_closed(timeout=10))
        seen.append(conn.recv())

    with RawServer(handler) as server:
        with _connected(server) as sock:
            sock.sendall(b"unread")
            assert asked.wait(30)
        server.wait_until(lambda server: server.connections[0].closed_at)

    assert seen == [False, True, b"unread"]


def test_reset_reaches_the_client_as_a_reset() -> None:
    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\n")
        conn.reset()

    with RawServer(handler) as server, _connected(server) as sock:
        sock.sendall(_GET)

        with pytest.raises(ConnectionResetError):
            _read_to_end(sock)


@pytest.mark.parametrize("way", ["reset", "cut"])
def test_idle_connection_can_be_ended_from_the_test(way: str) -> None:
    with RawServer(always(respond())) as server, _connected(server) as sock:
        server.wait_for_connections(1)
        conn = server.connections[0]

        conn.reset() if way == "reset" else conn.cut()
        server.wait_until(lambda _: conn.closed_at)

        if way == "reset":
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        else:
            assert sock.recv(1) == b""
    assert conn.peer_closed_at is None


def test_half_closed_connection_still_reads() -> None:
    def handler(conn: Conn) -> None:
        conn.shutdown_write()
        conn.read_request()

    with RawServer(handler) as server, _connected(server) as sock:
        assert sock.recv(1) == b""
        sock.sendall(_GET)
        server.wait_for_requests(1)

    assert server.requests[0].target == "/x"


def test_early_answer_can_be_sent_before_the_body_is_read() -> None:
    def handler(conn: Conn) -> None:
        request = conn.read_head()
        conn.send(respond(status=413))
        conn.read_body(request)

    with RawServer(handler) as server, _connected(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
        sock.sendall(b"abc")
        server.wait_until(lambda server: server.connections[0].closed_at)

    assert server.requests[0].body == b"abc"


def test_small_receive_buffer_stalls_an_upload() -> None:
    with RawServer(Conn.hold, receive_buffer=4096) as server, _connected(server) as sock:
        sock.settimeout(0)
        poller = select.poll()
        poller.register(sock, select.POLLOUT)
        sent = 0
        while poller.poll(100):
            sent += sock.send(bytes(65536))

    assert sent < 16 << 20


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_server_that_refuses_can_come_back_at_its_port(host: str) -> None:
    with RawServer(always(respond()), host=host) as server, _connected(server) as old:
        server.wait_for_connections(1)
        server.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address)
        old.sendall(_GET)
        assert old.recv(100).startswith(b"HTTP/1.1 200 ")

        with RawServer(always(respond()), host=host, port=server.port) as again, _connected(again) as new:
            new.sendall(_GET)
            assert new.recv(100).startswith(b"HTTP/1.1 200 ")


def test_refusing_port_refuses() -> None:
    with refusing_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_leaving_unblocks_handlers_in_whatever_they_wait_for() -> None:
    def upload(conn: Conn) -> None:
        conn.send(bytes(64 << 20))

    def trickle(conn: Conn) -> None:
        conn.send_slowly(b"xx", delay=60)

    handlers = [always(respond()), Conn.hold, upload, trickle, lambda conn: conn.hold()]
    with contextlib.ExitStack() as clients, RawServer(handlers) as server:
        for _ in handlers:
            clients.enter_context(_connected(server))
        server.wait_for_connections(len(handlers))

    assert all(conn.closed_at is not None for conn in server.connections)
    assert all(conn.peer_closed_at is None for conn in server.connections)


def test_client_that_goes_away_is_no_fault_but_a_bad_request_is() -> None:
    _send_and_leave(b"GET /half")

    with pytest.raises(BadRequest):
        _send_and_leave(b"GET / HTTP/9.9\r\n\r\n")


def test_fault_of_a_handler_is_a_note_when_the_test_fails_by_itself() -> None:
    def handler(conn: Conn) -> None:
        raise ValueError(conn.number)

    def fail() -> None:
        with RawServer(handler) as server, _connected(server):
            server.wait_until(lambda server: server.faults)
            raise KeyError

    with pytest.raises(KeyError) as caught:
        fail()

    assert "ValueError(0)" in caught.value.__notes__[0]


def _send_and_leave(data: bytes) -> None:
    """Send bytes, reset the connection, and leave the server, which reports its faults."""
    with RawServer(always(respond())) as server:
        with _connected(server) as sock:
            sock.sendall(data)
            server.wait_for_connections(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.wait_until(lambda server: server.connections[0].closed_at)
