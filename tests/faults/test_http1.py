"""FLT-H: what a server may get wrong in HTTP/1, through a real client."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Callable

import pytest

from tests.faults.aftermath import NEXT, POISON, assert_balanced, assert_recovered, healthy, says
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import chunked, respond
from tests.waiting import eventually
from turbopool import (
    Client,
    ClientOptions,
    IncompleteRead,
    LimitExceeded,
    RemoteProtocolError,
    Response,
    Timeout,
    TurboPoolError,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


# -- H1, H2, H3: bodies that end early, or with the connection -----------------------------------------------


@pytest.mark.parametrize(("answer", "received", "expected"), [
    (OK + b"Content-Length: 5\r\n\r\n", 0, 5),
    (OK + b"Content-Length: 5\r\n\r\nhell", 4, 5),
    (CHUNKED, 0, None),
    (CHUNKED + b"5\r\nhel", 3, None),
    (CHUNKED + b"5\r\nhello\r\n", 5, None),
    (CHUNKED + b"5\r\nhello\r\n0\r\n", 5, None),
    (CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n", 5, None),
    (CHUNKED + b"5\r\nhello\r\n0\r\n\r", 5, None),
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_cut_short_is_never_a_short_success(
    method: str, answer: bytes, received: int, expected: int | None
) -> None:
    """FLT-H1, H2, BEH-H7."""
    with RawServer([says(answer, Conn.close), healthy]) as server, Client(base_url=server.url) as client:
        with pytest.raises(IncompleteRead) as caught:
            client.request(method, "/x")

        error = caught.value
        assert (error.facts["received"], error.facts["expected"]) == (received, expected)
        assert (error.origin, error.phase, error.processed) == (server.url, "recv", "yes")
        assert (error.request_sent, error.attempts) == (True, 1)
        assert_recovered(client, server, connections=2)


def test_a_streamed_body_cut_short_is_delivered_and_then_an_error() -> None:
    """FLT-H1."""
    for answer in (OK + b"Content-Length: 9\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n"):
        with (
            RawServer([says(answer, Conn.close), healthy]) as server,
            Client(base_url=server.url) as client,
            client.stream("GET", "/x") as response,
        ):
            pieces = response.iter_bytes()
            assert next(pieces) == b"hello"
            with pytest.raises(IncompleteRead):
                next(pieces)

            assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_without_framing_ends_with_the_connection(stream: bool) -> None:  # noqa: FBT001
    """FLT-H3, BEH-H4."""
    with (
        RawServer([says(OK + b"\r\nhello", Conn.close), healthy]) as server,
        Client(base_url=server.url) as client,
    ):
        if stream:
            with client.stream("GET", "/x") as response:
                assert response.read() == b"hello"
        else:
            assert client.get("/x").content == b"hello"
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("before", [b"", b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_connection_closed_before_the_head_was_whole_is_an_error(before: bytes) -> None:
    """BEH-H7: on a fresh connection, no replay (FLT-N10)."""
    with RawServer([says(before, Conn.close), healthy]) as server, Client(base_url=server.url) as client:
        with pytest.raises(RemoteProtocolError) as caught:
            client.get("/x")

        assert caught.value.processed == "maybe"
        assert_recovered(client, server, connections=2)


# -- H4, H5, H6, H7: bytes nobody asked for --------------------------------------------------------------

UNASKED = {
    "sized": ("GET", respond(b"right"), b"right"),
    "chunked": ("GET", CHUNKED + chunked(b"right"), b"right"),
    "empty": ("GET", respond(b""), b""),
    "HEAD": ("HEAD", OK + b"Content-Length: 5\r\n\r\n", b""),
    "204": ("GET", respond(status=204), b""),
    "304": ("GET", respond(status=304), b""),
    "205": ("GET", respond(status=205), b""),
}


@pytest.mark.parametrize("kind", UNASKED)
@pytest.mark.parametrize("extra", [POISON, b"\r\n", b"x"], ids=["response", "newline", "byte"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_bytes_in_the_segment_of_a_response_are_never_the_next_response(
    kind: str,
    extra: bytes,
    stream: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    """FLT-H4, H6, M1: the response is right, the connection is closed, and the log says why."""
    method, answer, body = UNASKED[kind]
    with RawServer([says(answer + extra), healthy]) as server, Client(base_url=server.url) as client:
        with caplog.at_level(logging.DEBUG, "turbopool.connection"):
            if stream:
                with client.stream(method, "/x") as response:
                    assert response.read() == body
            else:
                assert client.request(method, "/x").content == body

            assert_recovered(client, server, connections=2)
        assert "unsolicited bytes" in caplog.text
        server.wait_until(lambda server: server.connections[0].peer_closed_at)


@pytest.mark.parametrize("kind", ["HEAD", "204", "304", "205"])
def test_a_body_where_none_belongs_is_never_the_next_response(kind: str) -> None:
    """FLT-H6: with the length that promises it."""
    status = 200 if kind == "HEAD" else int(kind)
    answer = b"HTTP/1.1 %d Odd\r\nContent-Length: %d\r\n\r\n" % (status, len(POISON)) + POISON
    method = "HEAD" if kind == "HEAD" else "GET"
    with RawServer([says(answer), healthy]) as server, Client(base_url=server.url) as client:
        response = client.request(method, "/x")

        assert (response.status_code, response.content) == (status, b"")
        assert_recovered(client, server, connections=2)


@pytest.mark.concurrency
@pytest.mark.parametrize("kind", UNASKED)
def test_many_waiting_requests_get_no_poison_either(kind: str) -> None:
    """FLT-H4: the connection is not handed to the next in the queue."""
    method, answer, body = UNASKED[kind]

    def poisons(conn: Conn) -> None:
        conn.read_request()
        conn.send(answer + POISON)
        conn.hold()

    with RawServer(poisons) as server, Client(base_url=server.url, max_conns_per_host=2) as client:
        futures = [client.send_async(method, f"/{n}") for n in range(20)]

        assert [future.result(30).content for future in futures] == [body] * 20
        assert_balanced(client, server, connections=20)


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.005, 0.05])
@pytest.mark.parametrize("late", [POISON, b"\r\n", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"],
                         ids=["response", "newline", "408"])  # fmt: skip
@pytest.mark.parametrize("closes", [False, True], ids=["stays", "closes"])
def test_bytes_on_an_idle_connection_end_it_and_are_never_a_response(
    delay: float,
    late: bytes,
    closes: bool,  # noqa: FBT001
) -> None:
    """FLT-H5, H7: from at once to long after; an unsolicited 408 is swallowed like everything else."""
    answered = threading.Event()

    def speaks_late(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(b"right"))
        assert answered.wait(30)
        server.closing.wait(delay)
        conn.send(late)
        if not closes:
            conn.hold()

    with RawServer([speaks_late, healthy]) as server, Client(base_url=server.url) as client:
        assert client.get("/x").content == b"right"
        answered.set()
        eventually(lambda: client.stats().closed == 1)

        assert client.stats().idle == 0
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bytes_on_an_idle_connection_are_seen_before_it_is_lent_again(method: str) -> None:
    """FLT-H5: over and over, the next request on the heels of the poison."""
    answered = threading.Semaphore(0)
    poisoned = threading.Semaphore(0)

    def speaks_late(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(b"right"))
        assert answered.acquire(timeout=30)
        conn.send(POISON)
        poisoned.release()
        conn.hold()

    with RawServer(speaks_late) as server, Client(base_url=server.url) as client:
        for _ in range(50):
            assert client.request(method, "/x").content == b"right"
            answered.release()
            assert poisoned.acquire(timeout=30)
        eventually(lambda: client.stats().closed == 50)

        assert len(server.connections) == 50
        assert all(len(conn.requests) == 1 for conn in server.connections)


# -- H8 to H18: what is refused --------------------------------------------------------------------------


def _table() -> list[tuple[str, bytes, type[TurboPoolError]]]:
    error = RemoteProtocolError
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    sized = b"Content-Length: 5\r\n\r\nhello"
    return [
        ("H8 flood of 1xx", hint * 20 + respond(b"x"), LimitExceeded),
        ("H8 101 unasked", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", error),
        ("H9 giant field", OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n", LimitExceeded),
        ("H9 100k fields", OK + b"A: b\r\n" * 100_000 + b"\r\n", LimitExceeded),
        ("H9 endless status", b"HTTP/1.1 200 " + b"x" * 100_000, LimitExceeded),
        ("H10 garbage", b"SSH-2.0-OpenSSH_9.2\r\n", error),
        ("H10 HTTP/0.9", b"<html>hello</html>", error),
        ("H10 HTTP/2.0", b"HTTP/2.0 200 OK\r\n" + sized, error),
        ("H10 099", b"HTTP/1.1 099 Low\r\n" + sized, error),
        ("H10 1000", b"HTTP/1.1 1000 High\r\n" + sized, error),
        ("H10 a TLS alert", b"\x15\x03\x03\x00\x02\x02\x28", error),
        ("H11 obs-fold", OK + b"A: b\r\n c\r\n" + sized, error),
        ("H11 a megabyte of folds", OK + b"A: b\r\n" + b" c\r\n" * 250_000 + b"\r\n", error),
        ("H12 NUL", OK + b"A: b\0\r\n" + sized, error),
        ("H12 bare CR", OK + b"A: b\rc\r\n" + sized, error),
        ("H12 space before colon", OK + b"A : b\r\n" + sized, error),
        ("H12 empty name", OK + b": b\r\n" + sized, error),
        ("H12 bare LF", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", error),
        ("H13 duplicate", OK + b"Content-Length: 5\r\n" + sized, error),
        ("H13 different", OK + b"Content-Length: 6\r\n" + sized, error),
        ("H13 sign", OK + b"Content-Length: +5\r\n\r\nhello", error),
        ("H13 space", OK + b"Content-Length: 5 \r\n\r\nhello", error),
        ("H13 10^30", OK + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\nhello", error),
        ("H13 list", OK + b"Content-Length: 5, 5\r\n\r\nhello", error),
        ("H14 both", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", error),
        ("H15 unknown", OK + b"Transfer-Encoding: gzip\r\n\r\nhello", error),
        ("H15 not last", OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", error),
        ("H15 in 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", error),
        ("H16 sign", CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", error),
        ("H16 overflow", CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n", error),
        ("H16 blank", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", error),
        ("H16 no CRLF", CHUNKED + b"5\r\nhello0\r\n\r\n", error),
        ("H17 endless extension", CHUNKED + b"5;" + b"x" * 100_000, LimitExceeded),
        ("H17 extensions", CHUNKED + (b"1;" + b"x" * 200 + b"\r\nx\r\n") * 1000, LimitExceeded),
        ("H18 flood of trailers", CHUNKED + b"0\r\n" + b"A: b\r\n" * 1000, LimitExceeded),
        ("H18 giant trailer", CHUNKED + b"0\r\nA: " + b"b" * 100_000, LimitExceeded),
        ("H18 length in trailers", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", error),
        ("H22 length over the bound", OK + b"Content-Length: 999999999999\r\n\r\n", LimitExceeded),
    ]


@pytest.mark.parametrize(("answer", "kind"), [row[1:] for row in _table()], ids=[row[0] for row in _table()])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_http_is_an_error_of_its_kind_and_ends_the_connection(
    method: str, answer: bytes, kind: type[TurboPoolError]
) -> None:
    """FLT-H8 to H18: the server keeps the connection open and hopes; nobody comes back to it."""
    extra = POISON if kind is RemoteProtocolError else b""
    with RawServer([says(answer + extra), healthy]) as server, Client(base_url=server.url) as client:
        with pytest.raises((kind, LimitExceeded) if len(answer) > 900_000 else kind) as caught:
            client.request(method, "/x")

        error = caught.value
        assert (error.origin, error.phase, error.request_sent) == (server.url, "recv", True)
        assert error.processed in ("maybe", "yes")
        assert (error.attempts, len(server.requests)) == (1, 1)
        assert len(str(error)) < 400
        assert str(error).isprintable()
        if kind is LimitExceeded:
            assert isinstance(error, LimitExceeded)
            assert str(error.option) in str(error)
            assert hasattr(ClientOptions(), str(error.option))
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("answer", [
    CHUNKED + b"5\r\nhello\r\n+5\r\nhello\r\n0\r\n\r\n",
    CHUNKED + b"5\r\nhello\r\n5;" + b"x" * 200_000,
    CHUNKED + b"5\r\nhello\r\n0\r\n" + b"A: b\r\n" * 1000,
])  # fmt: skip
def test_what_goes_wrong_within_a_streamed_body_is_an_error_in_the_reader(answer: bytes) -> None:
    """FLT-H16 to H18."""
    with RawServer([says(answer), healthy]) as server, Client(base_url=server.url) as client:
        with pytest.raises((RemoteProtocolError, LimitExceeded)), client.stream("GET", "/x") as response:
            response.read()

        assert_recovered(client, server, connections=2)


def test_limits_are_the_clients_own() -> None:
    """FLT-H9: what one client refuses another may take."""
    answer = OK + b"A: b\r\n" * 300 + b"B: " + b"x" * 70_000 + b"\r\nContent-Length: 4\r\n\r\nnext"
    with RawServer(always(answer)) as server:
        with Client(base_url=server.url) as client, pytest.raises(LimitExceeded):
            client.get("/next")
        with Client(base_url=server.url, max_response_headers=100_000, max_header_count=400) as client:
            assert len(client.get("/next").headers.get_list("a")) == 300


def test_informational_responses_within_the_limit_are_skipped() -> None:
    """FLT-H8, BEH-H5."""
    hints = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 15
    with RawServer(always(hints + respond(NEXT))) as server, Client(base_url=server.url) as client:
        response = client.get("/x")

        assert (response.status_code, "link" in response.headers) == (200, False)
        assert_recovered(client, server, connections=1)


def test_a_trailer_cannot_spoil_the_connection_it_came_on() -> None:
    """FLT-H18: not even by what it says of the connection."""
    bodies = [b"one", b"two", b"three"]
    answers = [CHUNKED + chunked(body, trailers=[("Connection", "close"), ("X-Sum", "1")]) for body in bodies]

    def chain(conn: Conn) -> None:
        for answer in answers:
            conn.read_request()
            conn.send(answer)
        healthy(conn)

    with RawServer(chain) as server, Client(base_url=server.url) as client:
        responses = [client.get("/x") for _ in bodies]

        assert [response.content for response in responses] == bodies
        assert responses[0].extensions["trailers"] == [(b"X-Sum", b"1")]
        assert_recovered(client, server, connections=1)


# -- H22: a body without end -----------------------------------------------------------------------------


class Endless:
    """Sends a body for as long as somebody takes it, and counts."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self._head = head
        self._piece = piece
        self.sent = 0

    def __call__(self, conn: Conn) -> None:
        """Serve one connection."""
        conn.read_request()
        conn.send(self._head)
        while True:
            conn.send(self._piece)
            self.sent += len(self._piece)


_MIB = bytes(1 << 20)
ENDLESS = {
    "unframed": (OK + b"\r\n", _MIB),
    "chunked": (CHUNKED, b"100000\r\n" + _MIB + b"\r\n"),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_body_kept_in_memory_is_bounded(kind: str) -> None:
    """FLT-H22."""
    endless = Endless(*ENDLESS[kind])
    with (
        RawServer([endless, healthy]) as server,
        Client(base_url=server.url, max_buffered_body=3_000_000) as client,
    ):
        with pytest.raises(LimitExceeded) as caught:
            client.get("/x")

        assert caught.value.option == "max_buffered_body"
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_streamed_body_has_no_bound_but_backpressure(kind: str) -> None:
    """FLT-H22: a reader that stops, stops the server; memory does not grow."""
    endless = Endless(*ENDLESS[kind])
    before = _peak_memory()
    with RawServer([endless, healthy]) as server, Client(base_url=server.url, max_buffered_body=1000) as client:
        with client.stream("GET", "/x") as response:
            pieces = response.iter_bytes()
            read = 0
            while read < 40 << 20:
                read += len(next(pieces))
            stopped_at = _stopped(endless)
            read += len(next(pieces))

            assert endless.sent - read < 128 << 20  # what the kernel holds on both sides, which it decides by itself
            while endless.sent == stopped_at:  # and it goes on when the reader does
                next(pieces)
        assert_recovered(client, server, connections=2)
    assert _peak_memory() - before < 64 << 20


def _stopped(endless: Endless) -> int:
    """Wait until the server has sent nothing for a tenth of a second; how much it sent."""
    never = threading.Event()
    sent, since = endless.sent, time.monotonic()
    while time.monotonic() - since < 0.1:
        never.wait(0.01)
        if endless.sent != sent:
            sent, since = endless.sent, time.monotonic()
    return sent


def _peak_memory() -> int:
    """The most bytes this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- H23, H24: who keeps the connection ------------------------------------------------------------------

KEPT = {
    "1.1": (b"HTTP/1.1", b"", True),
    "1.1 close": (b"HTTP/1.1", b"Connection: close\r\n", False),
    "1.1 CLOSE among others": (b"HTTP/1.1", b"Connection: x, CLOSE\r\n", False),
    "1.1 keep-alive": (b"HTTP/1.1", b"Connection: keep-alive\r\n", True),
    "1.1 timeout=1": (b"HTTP/1.1", b"Keep-Alive: timeout=1\r\n", False),
    "1.1 timeout=0": (b"HTTP/1.1", b"Keep-Alive: timeout=0\r\n", False),
    "1.1 timeout=9": (b"HTTP/1.1", b"Keep-Alive: timeout=9, max=100\r\n", True),
    "1.0": (b"HTTP/1.0", b"", False),
    "1.0 keep-alive": (b"HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
    "1.0 close": (b"HTTP/1.0", b"Connection: close\r\n", False),
}


@pytest.mark.parametrize("case", KEPT)
@pytest.mark.parametrize("chunks", [False, True], ids=["sized", "chunked"])
def test_a_connection_is_kept_if_both_sides_say_so(case: str, chunks: bool) -> None:  # noqa: FBT001
    """FLT-H23, BEH-H3, R12: 1.0 only explicitly; the server's own timeout, with a second to spare, wins over ours."""
    version, fields, kept = KEPT[case]
    if chunks and version == b"HTTP/1.0":
        return
    framing = (
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nnext\r\n0\r\n\r\n" if chunks else b"Content-Length: 4\r\n\r\nnext"
    )
    with (
        RawServer(always(version + b" 200 OK\r\n" + fields + framing)) as server,
        Client(base_url=server.url) as client,
    ):
        for _ in range(3):
            assert client.get("/x").content == NEXT

        assert_recovered(client, server, connections=1 if kept else 4)


def test_a_request_that_asks_to_close_is_the_last_of_its_connection() -> None:
    """FLT-H23, BEH-H3: whatever the server thinks."""
    with RawServer(healthy) as server, Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.get("/x", headers={"Connection": "close"}).content == NEXT

        assert_recovered(client, server, connections=4)


def test_http_1_0_uses_a_connection_once_and_says_nothing_of_1_1() -> None:
    """FLT-H23, BEH-H10: no Host, no chunks, one at a time."""
    with (
        RawServer(always(respond(NEXT, headers=[("Connection", "keep-alive")]))) as server,
        Client(base_url=server.url, http_version="1.0", max_conns_per_host=2) as client,
    ):
        futures = [client.send_async("POST", f"/{n}", content=b"hello") for n in range(6)]

        assert [future.result(30).content for future in futures] == [NEXT] * 6
        for request in server.requests:
            assert request.version == "HTTP/1.0"
            assert request.header("host") is None
            assert request.header("transfer-encoding") is None
            assert request.body == b"hello"
        assert server.peak <= 2
        assert_recovered(client, server, connections=7)


def test_a_server_that_answers_before_the_request_is_complete_is_not_used_again() -> None:
    """FLT-H24: though it reads the rest, and keeps the connection."""

    def hasty(conn: Conn) -> None:
        request = conn.read_head()
        conn.send(respond(b"hasty"))
        conn.read_body(request)
        conn.send(POISON)
        conn.hold()

    with RawServer([hasty, healthy]) as server, Client(base_url=server.url) as client:
        assert client.post("/x", content=iter([bytes(1 << 20)] * 8)).content == b"hasty"
        assert_recovered(client, server, connections=2)


# -- what is left of BEH-H -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, 262_144])
@pytest.mark.parametrize("chunks", [False, True], ids=["sized", "chunked"])
def test_bodies_of_all_sizes_pass_both_ways_on_one_connection(size: int, chunks: bool) -> None:  # noqa: FBT001
    """BEH-H6: empty ones do not hang."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    def echo(conn: Conn) -> None:
        while True:
            request = conn.read_request()
            if chunks:
                conn.send(CHUNKED + chunked(request.body, 10_000, [("X-Sum", "1")]))
            else:
                conn.send(respond(request.body))

    with RawServer(echo) as server, Client(base_url=server.url) as client:
        for content in (body, iter([body[: size // 2], body[size // 2 :]])):
            response = client.post("/x", content=content)

            assert response.content == body
            assert response.extensions.get("trailers") == ([(b"X-Sum", b"1")] if chunks else None)
        with client.stream("POST", "/x", content=body) as response:
            assert response.read() == body
            assert response.extensions.get("trailers") == ([(b"X-Sum", b"1")] if chunks else None)
        assert_balanced(client, server, connections=1)


@pytest.mark.parametrize("size", [1024, 4096, 60_000])
def test_large_fields_pass(size: int) -> None:
    """BEH-H6."""
    answer = respond(NEXT, headers=[("X-Large", "x" * size), ("X-Other", "y")])
    with RawServer(always(answer)) as server, Client(base_url=server.url) as client:
        response = client.get("/x", headers={"X-Large": "z" * size})

        assert response.headers["x-large"] == "x" * size
        assert server.requests[0].header("x-large") == "z" * size
        assert_recovered(client, server, connections=1)


def _reads_nothing(response: Response) -> None:
    assert response.status_code == 200


def _reads_some(response: Response) -> None:
    assert next(response.iter_bytes())


def _raises(response: Response) -> None:
    next(response.iter_bytes())
    raise KeyError(response.url)


@pytest.mark.parametrize("reader", [_reads_nothing, _reads_some, _raises])
def test_a_body_not_read_to_its_end_does_not_spoil_the_next_request(reader: Callable[[Response], None]) -> None:
    """BEH-H9, H5: its connection is closed, and the server sees it."""
    answer = OK + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000
    with RawServer([says(answer), healthy]) as server, Client(base_url=server.url) as client:
        try:
            with client.stream("GET", "/x") as response:
                reader(response)
        except KeyError:
            assert reader is _raises

        server.wait_until(lambda server: server.connections[0].peer_closed_at)
        assert_recovered(client, server, connections=2)


def test_a_body_read_to_its_end_gives_the_connection_back() -> None:
    """BEH-H9."""
    with RawServer(always(CHUNKED + chunked(b"x" * 100_000))) as server, Client(base_url=server.url) as client:
        for _ in range(3):
            with client.stream("GET", "/x") as response:
                assert sum(map(len, response.iter_bytes())) == 100_000

        assert_balanced(client, server, connections=1)


@pytest.mark.parametrize(("coding", "body"), [("gzip", b"no gzip at all"), ("deflate", b"\xff\xff")])
def test_a_corrupt_coding_is_an_error_of_the_response_and_not_of_the_connection(coding: str, body: bytes) -> None:
    """BEH-H7: it was transferred well."""
    answer = respond(body, headers=[("Content-Encoding", coding)])
    with RawServer(says(answer, healthy)) as server, Client(base_url=server.url) as client:
        response = client.get("/x")
        with pytest.raises(TurboPoolError, match=coding):
            response.read()

        assert_recovered(client, server, connections=1)


def test_requests_are_answered_in_their_order_on_one_connection() -> None:
    """BEH-H1, H11: never two at a time, whatever their methods."""
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "GET", "HEAD"] * 5

    def named(conn: Conn) -> None:
        while True:
            request = conn.read_request()
            body = b"" if request.method == "HEAD" else request.target.encode()
            conn.send(respond(body, headers=[("Content-Length", str(len(body))), ("X-Target", request.target)]))

    with RawServer(named) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        futures = [client.send_async(method, f"/{n}") for n, method in enumerate(methods)]

        for n, future in enumerate(futures):
            assert future.result(30).headers["x-target"] == f"/{n}"
        assert [request.target for request in server.requests] == [f"/{n}" for n in range(len(methods))]
        assert_balanced(client, server, connections=1)


def test_a_slow_response_within_its_timeout_is_no_fault() -> None:
    """BEH-H8."""

    def slowly(conn: Conn) -> None:
        conn.read_request()
        conn.send_slowly(respond(b"slow but whole"), size=4, delay=0.01)
        healthy(conn)

    with RawServer(slowly) as server, Client(base_url=server.url) as client:
        assert client.get("/x", timeout=Timeout(10, read=5)).content == b"slow but whole"
        assert_recovered(client, server, connections=1)
