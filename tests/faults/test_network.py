"""FLT-N: the network and its addresses, through a real client."""

from __future__ import annotations

import errno
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import cast

import pytest

from tests.faults.aftermath import NEXT, assert_balanced, assert_recovered, healthy, says
from tests.servers.blackhole import Blackhole
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.proxy import ChaosProxy, Faults
from tests.servers.raw import Handler, RawServer, always
from tests.servers.wire import RawRequest, chunked, respond
from tests.transport.scarcity import no_threads
from tests.waiting import SPENT, eventually, not_too_soon, with_short_times
from turbopool import (
    Client,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DnsError,
    IncompleteRead,
    ReadError,
    ReadTimeout,
    ResourceError,
    Timeout,
    TurboPoolError,
    WriteTimeout,
)

BODY = bytes(range(256)) * 20
SIZED = respond(BODY)
CHUNKED = respond(chunked(BODY, 999, [("X-Sum", "1")]), headers=[("Transfer-Encoding", "chunked")])
UNFRAMED = b"HTTP/1.1 200 OK\r\n\r\n" + BODY


# -- N1, N2, N3, N5: no connection -----------------------------------------------------------------------


@pytest.mark.concurrency
def test_a_refused_connect_is_an_error_of_its_own_for_everybody_and_the_host_may_come_back() -> None:
    """FLT-N1: one attempt for all that wait."""
    with RawServer(healthy) as gone:
        gone.refuse()
        with Client(base_url=gone.url) as client:
            futures = [client.send_async("GET", "/x") for _ in range(10)]
            errors = [cast("ConnectError", future.exception(30)) for future in futures]

            assert len({id(error) for error in errors}) == 10
            for error in errors:
                assert type(error) is ConnectError
                assert isinstance(error, OSError)
                assert error.errno == errno.ECONNREFUSED
                assert (error.origin, error.phase, error.processed) == (gone.url, "connect", "no")
                assert (error.request_sent, error.may_retry, error.attempts) == (False, True, 1)
            with RawServer(healthy, port=gone.port) as back:
                assert_recovered(client, back, connections=1, never_sent=10)


def test_each_waiter_for_a_blackholed_host_ends_at_its_own_deadline() -> None:
    """FLT-N2: N waiters, and a healthy host beside them that notices nothing."""
    with Blackhole() as hole, RawServer(healthy) as server, Client(connect_timeout=30) as client:
        began = time.monotonic()
        deadlines = [round(0.1 + 0.02 * n, 2) for n in range(12)]
        futures = [client.send_async("GET", f"{hole.url}/{n}", timeout=limit) for n, limit in enumerate(deadlines)]

        assert client.get(server.url).content == NEXT
        for deadline, future in zip(deadlines, futures, strict=True):
            error = future.exception(30)
            assert deadline <= time.monotonic() - began < deadline + SPENT
            assert isinstance(error, DeadlineExceeded)
            assert (error.phase, error.processed, error.may_retry) == ("queue", "no", True)
            assert deadline <= cast("float", error.facts["waited"]) < deadline + SPENT
        assert client.stats().waiting == 0
        assert len(server.connections) == 1


def test_waiters_on_a_blackholed_host_fail_together_after_one_connect_timeout() -> None:
    """FLT-N2, BEH-P48: not after one for each of them; and the host may come back."""
    with Blackhole() as hole, Client(base_url=hole.url, connect_timeout=0.2) as client:
        began = time.monotonic()
        errors = [future.exception(30) for future in [client.send_async("GET", "/x") for _ in range(30)]]

        assert 0.2 <= time.monotonic() - began < 0.2 + SPENT
        assert {type(error) for error in errors} == {ConnectTimeout}
        assert client.stats().connecting == client.stats().waiting == 0
        port = hole.port
        hole.__exit__(None, None, None)
        with RawServer(healthy, port=port) as back:
            assert_recovered(client, back, connections=1, never_sent=30)


def test_an_unreachable_network_is_an_error_at_once() -> None:
    """FLT-N3: a broadcast address is refused by the kernel with ENETUNREACH."""
    with RawServer(healthy) as server, Client(connect_timeout=30) as client:
        began = time.monotonic()
        with pytest.raises(ConnectError) as caught:
            client.get("http://127.255.255.255:9/")

        assert time.monotonic() - began < SPENT
        assert caught.value.errno == errno.ENETUNREACH
        assert client.get(server.url).content == NEXT
        assert client.stats().connecting == client.stats().waiting == 0


def test_a_name_that_does_not_exist_is_a_dns_error() -> None:
    """FLT-N5."""
    with RawServer(healthy) as server, Client() as client:
        for _ in range(2):
            with pytest.raises(DnsError, match=r"nowhere\.invalid") as caught:
                client.get("http://nowhere.invalid/")
            assert (caught.value.phase, caught.value.processed) == ("dns", "no")

        assert client.get(server.url).content == NEXT
        assert client.stats().connecting == client.stats().waiting == 0


@pytest.mark.parametrize("label", ["a" * 64, "a" * 300])
def test_a_name_that_no_resolver_takes_is_a_dns_error(label: str) -> None:
    """FLT-N5."""
    with Client() as client:
        for _ in range(2):
            with pytest.raises(TurboPoolError) as caught:
                client.get(f"http://{label}.invalid/")
            assert isinstance(caught.value, DnsError | ValueError)


def test_a_name_with_several_addresses_is_connected_to_where_somebody_listens() -> None:
    """FLT-N1, N4: localhost may be ::1 and 127.0.0.1, and only one of them answers."""
    for host in {str(found[4][0]) for found in socket.getaddrinfo("localhost", None)}:
        with RawServer(healthy, host=host) as server, Client() as client:
            assert client.get(f"http://localhost:{server.port}/").content == NEXT
            assert_balanced(client, server, connections=1)


# -- N7: a reset in the body -----------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, UNFRAMED], ids=["sized", "chunked", "unframed"])
def test_a_reset_within_the_body_is_an_error_and_the_next_request_has_a_new_connection(answer: bytes) -> None:
    """FLT-N7, BEH-H7: one that would end with the connection, too."""
    with RawServer([says(answer[:-500], Conn.reset), healthy]) as server, Client(base_url=server.url) as client:
        with pytest.raises(ReadError) as caught:
            client.get("/x")

        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert (caught.value.origin, caught.value.request_sent) == (server.url, True)
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, UNFRAMED], ids=["sized", "chunked", "unframed"])
def test_what_came_before_a_reset_is_delivered_to_a_stream_and_then_the_error(answer: bytes) -> None:
    """FLT-N7: a partial body is never a whole one."""
    read = threading.Event()

    def reset_once_read(conn: Conn) -> None:
        assert read.wait(30)
        conn.reset()

    with (
        RawServer([says(answer[:-500], reset_once_read), healthy]) as server,
        Client(base_url=server.url) as client,
        client.stream("GET", "/x") as response,
    ):
        pieces = response.iter_bytes()
        got = next(pieces)
        while len(got) < len(BODY) - 600:
            got += next(pieces)
        read.set()
        with pytest.raises(ReadError):
            b"".join(pieces)

        assert BODY.startswith(got)
        assert response.num_bytes_downloaded == len(got) < len(BODY)
        assert_recovered(client, server, connections=2)


# -- N13: bytes that keep coming, too slowly -------------------------------------------------------------


def _drips(start: bytes, drop: bytes) -> Handler:
    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(start)
        conn.send_slowly(drop * 10_000, size=len(drop), delay=0.005)

    return handler


@pytest.mark.parametrize(("start", "drop"), [
    (b"HTTP/1.1 200 ", b"O"),
    (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
], ids=["status", "header", "sized", "chunked", "unframed"])  # fmt: skip
def test_bytes_that_drip_do_not_extend_the_deadline(start: bytes, drop: bytes) -> None:
    """FLT-N13, BEH-H8: within 50 ms of the deadline, though no wait for a byte was long."""
    drips, healed = _drips(start, drop), threading.Event()

    def serve(conn: Conn) -> None:
        (healthy if healed.is_set() else drips)(conn)

    with RawServer(serve) as server, Client(base_url=server.url) as client:
        late: list[float] = []
        phases: list[str | None] = []
        while len(late) < 20 and ("recv" not in phases or min(late) >= 0.05):  # the machine may be busy
            with pytest.raises(DeadlineExceeded) as caught:
                client.get("/x", timeout=0.15)
            late.append(cast("float", caught.value.facts["waited"]) - 0.15)
            phases.append(caught.value.phase)

        assert "recv" in phases
        assert min(late) < 0.05
        assert 0 <= min(late) <= max(late) < SPENT
        healed.set()
        eventually(lambda: client.stats().connecting == 0)  # one may have come too late for its request
        assert_recovered(client, server, connections=len(late) + 1)


# -- N14: a stall at every byte --------------------------------------------------------------------------

_SHORT = respond(b"hello", headers=[("Server", "s")])
_SHORT_CHUNKED = respond(chunked(b"hello", 3, [("X-Sum", "1")]), headers=[("Transfer-Encoding", "chunked")])
_HINTED = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _SHORT


def _stalls(answer: bytes) -> Handler:
    """Say as many bytes of `answer` as the path names, and then nothing more."""

    def handler(conn: Conn) -> None:
        target = conn.read_request().target
        if target == "/next":
            conn.send(respond(NEXT))
        else:
            conn.send(answer[: int(target[1:])])
        conn.hold()

    return handler


@pytest.mark.parametrize("answer", [_SHORT, _SHORT_CHUNKED, _HINTED], ids=["sized", "chunked", "hinted"])
def test_a_stall_at_any_byte_is_a_read_timeout_and_the_connection_is_closed(answer: bytes) -> None:
    """FLT-N14: within status line, field, chunk size, data, trailers, and before the last byte of all."""
    offsets = range(len(answer))
    with RawServer(_stalls(answer)) as server, Client(base_url=server.url, max_conns_per_host=200) as client:
        futures = [client.send_async("GET", f"/{at}", timeout=Timeout(20, read=0.2)) for at in offsets]
        for at, future in zip(offsets, futures, strict=True):
            error = future.exception(30)
            assert isinstance(error, ReadTimeout), f"at byte {at}: {error!r}"
            assert error.phase in (("wait", "recv") if at else ("wait",))  # a busy server may not have begun
            assert cast("float", error.facts["waited"]) >= 0.2

        server.wait_until(lambda server: server.open == 0)
        assert_recovered(client, server, connections=len(answer) + 1)


@pytest.mark.concurrency
@pytest.mark.parametrize("answer", [_SHORT, _SHORT_CHUNKED], ids=["sized", "chunked"])
def test_a_stall_at_any_byte_can_be_cancelled(answer: bytes) -> None:
    """FLT-N14: cancel wakes who waits, and closes the connection."""
    offsets = range(len(answer))
    with RawServer(_stalls(answer)) as server, Client(base_url=server.url, max_conns_per_host=200) as client:
        futures = [client.send_async("GET", f"/{at}") for at in offsets]
        server.wait_for_requests(len(offsets))
        assert not any(future.done() for future in futures)

        assert all(future.cancel() for future in futures)

        for future in futures:
            with pytest.raises(CancelledError):
                future.result(30)
        server.wait_until(lambda server: server.open == 0)
        assert_recovered(client, server, connections=len(answer) + 1)


@with_short_times
def test_a_stall_within_a_streamed_body_is_a_read_timeout_in_the_reader(short: float) -> None:
    """FLT-N14, DESIGN 2: the total ended with the head."""
    with RawServer([says(SIZED[:-500]), healthy]) as server, Client(base_url=server.url) as client:
        with ExitStack() as stack:
            with not_too_soon(ReadTimeout):
                response = stack.enter_context(client.stream("GET", "/x", timeout=Timeout(60, read=short)))
            pieces = response.iter_bytes()
            got = next(pieces)
            with pytest.raises(ReadTimeout) as caught:
                b"".join(pieces)

            assert BODY.startswith(got)
            assert caught.value.origin == server.url
        assert_recovered(client, server, connections=2)


def test_a_stalled_server_does_not_hold_up_others_on_the_same_thread() -> None:
    """FLT-N14."""
    with RawServer(Conn.hold) as stalled, RawServer(healthy) as server, Client() as client:
        future = client.send_async("GET", stalled.url)
        stalled.wait_for_connections(1)

        assert all(client.get(server.url, timeout=20).content == NEXT for _ in range(20))

        assert not future.done()
        assert future.cancel()
        stalled.wait_until(lambda server: server.open == 0)


# -- N15: a server that does not read --------------------------------------------------------------------

_BIG = 16 << 20


def _endless(closed: threading.Event) -> Iterator[bytes]:
    try:
        while True:
            yield bytes(65_536)
    finally:
        closed.set()


def _drain(conn: Conn) -> None:
    """Read what is still to come; while a window is full, not even a FIN gets through."""
    while conn.recv():
        pass


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_an_upload_that_nobody_reads_is_a_write_timeout_that_counts_its_bytes(kind: str) -> None:
    """FLT-N15: the caller's iterator is closed as well."""
    closed, over = threading.Event(), threading.Event()
    content = bytes(_BIG) if kind == "bytes" else _endless(closed)

    def deaf(conn: Conn) -> None:
        assert over.wait(30)
        _drain(conn)

    with RawServer([deaf, healthy], receive_buffer=4096) as server, Client(base_url=server.url) as client:
        with pytest.raises(WriteTimeout) as caught:
            client.post("/x", content=content, timeout=Timeout(20, write=0.1))

        error = caught.value
        assert isinstance(error, TimeoutError)
        assert (error.phase, error.processed, error.may_retry) == ("send", "maybe", False)
        assert error.request_sent
        assert 0 < cast("int", error.facts["bytes_sent"]) < _BIG
        assert kind == "bytes" or closed.wait(30)
        over.set()
        server.wait_until(lambda server: server.open == 0)
        assert server.connections[0].received < _BIG
        assert_recovered(client, server, connections=2)


def test_a_body_that_no_thread_can_draw_is_an_error_of_resources() -> None:
    """FLT-N18: nothing of the request was sent."""
    with RawServer(healthy) as server, Client(base_url=server.url) as client:
        assert client.get("/x").content == NEXT
        with no_threads(), pytest.raises(ResourceError) as caught:
            client.post("/x", content=iter([b"hello"]))

        assert (caught.value.processed, caught.value.request_sent) == ("no", False)
        assert [request.method for request in server.requests] == ["GET"]
        client.get("/x")
        assert client.stats().leased == client.stats().waiting == 0


def test_an_upload_that_is_read_slowly_but_steadily_is_no_timeout() -> None:
    """FLT-N15: the write timeout is for each wait."""

    def slowly(conn: Conn) -> None:
        request = conn.read_head()
        left = int(request.header("content-length") or 0)
        while left:
            left -= len(conn.recv())
        conn.send(respond(NEXT))
        healthy(conn)

    with RawServer(slowly, receive_buffer=65_536) as server, Client(base_url=server.url) as client:
        assert client.post("/x", content=bytes(_BIG), timeout=Timeout(20, write=2)).content == NEXT
        assert_recovered(client, server, connections=1)


# -- N16: segments of one byte ---------------------------------------------------------------------------


def _echo(request: RawRequest) -> bytes:
    """Answer with the body's checksum in a trailer."""
    sums = [("X-Sum", str(zlib.crc32(request.body)))]
    return respond(chunked(request.body, 77, sums), headers=[("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
def test_segments_of_one_byte_change_nothing(authority: Authority, secure: bool) -> None:  # noqa: FBT001
    """FLT-N16: both ways, the TLS handshake included."""
    context = authority.server_context() if secure else None
    one = Faults(slice_bytes=1)
    body = BODY[:600]
    with (
        RawServer(always(_echo), ssl_context=context) as server,
        ChaosProxy(server.address, up=one, down=one) as proxy,
        Client(base_url=f"http{'s' if secure else ''}://127.0.0.1:{proxy.port}", verify=authority.ca_file) as client,
    ):
        for n in range(2):
            response = client.post(f"/{n}", content=body)

            assert response.content == body
            assert response.extensions["trailers"] == [(b"X-Sum", b"%d" % zlib.crc32(body))]
        assert [request.body for request in server.requests] == [body, body]
        assert proxy.counters.segments_down == proxy.counters.bytes_down > 2 * len(body)
        assert_balanced(client, server, connections=1)


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, UNFRAMED], ids=["sized", "chunked", "unframed"])
def test_a_response_sent_byte_by_byte_is_the_same(answer: bytes) -> None:
    """FLT-N16."""

    def slowly(conn: Conn) -> None:
        conn.read_request()
        conn.send_slowly(answer)
        if answer is UNFRAMED:
            return
        healthy(conn)

    with RawServer([slowly, healthy]) as server, Client(base_url=server.url) as client:
        assert zlib.crc32(client.get("/x").content) == zlib.crc32(BODY)
        assert_recovered(client, server, connections=2 if answer is UNFRAMED else 1)


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("make", [lambda data: data, lambda data: iter([data[:1], data[1:70_000], data[70_000:]])],
                         ids=["bytes", "pieces"])  # fmt: skip
def test_an_upload_in_partial_sends_arrives_whole(
    authority: Authority,
    make: Callable[[bytes], bytes],
    secure: bool,  # noqa: FBT001
) -> None:
    """FLT-N16: EAGAIN in the middle of everything."""
    body = bytes(range(256)) * 12_000
    context = authority.server_context() if secure else None

    def check(request: RawRequest) -> bytes:
        return respond(str(zlib.crc32(request.body)).encode())

    with (
        RawServer([always(check)], ssl_context=context, receive_buffer=4096) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        assert client.put("/x", content=make(body)).content == str(zlib.crc32(body)).encode()
        assert_balanced(client, server, connections=1)


# -- N17: an answer before the request is sent -----------------------------------------------------------


@pytest.mark.concurrency
@pytest.mark.parametrize("status", [413, 401, 200])
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("then", ["hold", "reset", "half-close"])
def test_an_answer_during_the_upload_is_delivered_and_the_upload_given_up(status: int, kind: str, then: str) -> None:
    """FLT-N17, N11: the response is seen, not a broken pipe; the connection is not used again."""
    closed, over = threading.Event(), threading.Event()
    content = bytes(_BIG) if kind == "bytes" else _endless(closed)

    def early(conn: Conn) -> None:
        conn.read_head()
        assert conn.recv()  # an iterator has begun: one that has not is never drawn from, and so never closed
        conn.send(respond(b"early", status))
        if then == "reset":  # by closing with bytes unread
            return
        if then == "half-close":
            conn.shutdown_write()
        assert over.wait(30)
        _drain(conn)

    with RawServer([early, healthy], receive_buffer=4096) as server, Client(base_url=server.url) as client:
        response = client.post("/x", content=content, timeout=10)

        assert (response.status_code, response.content) == (status, b"early")
        assert kind == "bytes" or closed.wait(30)
        over.set()
        assert_recovered(client, server, connections=2)
        assert server.connections[0].received < _BIG


def test_an_answer_before_the_body_was_drawn_at_all_is_delivered() -> None:
    """FLT-N17: a caller's iterator that waits for something does not hold up the response."""
    gate, begun, closed = threading.Event(), threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        begun.set()
        try:
            yield b"first"
            assert gate.wait(30)
            yield b"second"
        finally:
            closed.set()

    with RawServer([says_at_once(413), healthy]) as server, Client(base_url=server.url) as client:
        assert client.post("/x", content=pieces()).status_code == 413

        gate.set()
        eventually(lambda: closed.is_set() or not begun.is_set())  # one that has not begun is never drawn from
        assert_recovered(client, server, connections=2)


def says_at_once(status: int) -> Handler:
    """A handler that answers as soon as it has the head, and keeps the connection."""

    def handler(conn: Conn) -> None:
        conn.read_head()
        conn.send(respond(b"", status))
        conn.hold()

    return handler


def test_an_incomplete_answer_during_the_upload_is_an_error_of_the_answer() -> None:
    """FLT-N17."""
    over = threading.Event()

    def early(conn: Conn) -> None:
        conn.read_head()
        conn.send(respond(b"early")[:-1])
        conn.shutdown_write()
        assert over.wait(30)
        _drain(conn)

    with RawServer([early, healthy], receive_buffer=4096) as server, Client(base_url=server.url) as client:
        with pytest.raises(IncompleteRead):
            client.post("/x", content=bytes(_BIG))

        over.set()
        assert_recovered(client, server, connections=2)
