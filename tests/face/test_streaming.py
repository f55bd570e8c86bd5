"""Streamed responses: drawn as they are read, bounded in memory, and given back in every case."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from tests.face.handlers import Echoed, Gate, echo, first_ended, first_left, half, silent
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import chunked, respond
from tests.waiting import eventually, not_too_soon, reached, with_short_times
from turbopool import (
    Client,
    DeadlineExceeded,
    HTTPStatusError,
    IncompleteRead,
    ReadTimeout,
    Response,
    StreamClosed,
    Timeout,
    TurboPoolError,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Frame one chunk; of nothing, the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Steps:
    """A chunked body that the test sends piece by piece."""

    def __init__(self, head: bytes = CHUNKED) -> None:
        self._head = head
        self._conn: Conn | None = None
        self._begun, self._ended = threading.Event(), threading.Event()

    def __call__(self, conn: Conn) -> None:
        """Serve one connection."""
        conn.read_request()
        conn.send(self._head)
        self._conn = conn
        self._begun.set()
        while not self._ended.wait(0.01):
            if not conn.is_open():
                return

    def send(self, data: bytes) -> None:
        """Send a chunk; nothing is the last one."""
        assert self._begun.wait(30)
        assert self._conn is not None
        self._conn.send(chunk(data))
        if not data:
            self._ended.set()


@contextmanager
def _opened(client: Client, timeout: float | Timeout) -> Iterator[Response]:
    """A stream whose head came before a short time was up."""
    with ExitStack() as stack:
        with not_too_soon(DeadlineExceeded, ReadTimeout):
            response = stack.enter_context(client.stream("GET", "/x", timeout=timeout))
        yield response


# -- drawn as it is read -------------------------------------------------------------------------------------


def test_the_block_gets_the_response_with_its_head_and_each_piece_as_it_comes() -> None:
    steps = Steps()
    with RawServer(steps) as server, Client(base_url=server.url) as client, client.stream("GET", "/x") as response:
        assert response.status_code == 200
        assert response.headers["transfer-encoding"] == "chunked"
        pieces = response.iter_bytes()
        for piece in (b"first", b"second"):
            steps.send(piece)
            assert next(pieces) == piece
        assert response.num_bytes_downloaded == 11
        steps.send(b"")
        assert list(pieces) == []


def test_a_coded_body_is_decoded_as_it_comes() -> None:
    engine = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    steps = Steps(CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n")
    with RawServer(steps) as server, Client(base_url=server.url) as client, client.stream("GET", "/x") as response:
        pieces = response.iter_bytes()
        for piece in (b"first", b"second"):
            steps.send(engine.compress(piece) + engine.flush(zlib.Z_SYNC_FLUSH))
            assert next(pieces) == piece
        steps.send(engine.flush())
        steps.send(b"")
        assert list(pieces) == []


def test_lines_are_given_as_soon_as_they_end() -> None:
    steps = Steps()
    with RawServer(steps) as server, Client(base_url=server.url) as client, client.stream("GET", "/x") as response:
        lines = response.iter_lines()
        steps.send(b"one\ntw")
        assert next(lines) == "one"
        steps.send(b"o\n")
        assert next(lines) == "two"
        steps.send(b"")
        assert list(lines) == []


def test_every_way_of_framing_can_be_streamed() -> None:
    """BEH-H4, H6."""
    body = bytes(n % 251 for n in range(300_000))
    fields = [("Transfer-Encoding", "chunked")]
    answers = [respond(body), respond(chunked(body, 5000), headers=fields), b"HTTP/1.1 200 OK\r\n\r\n" + body]

    def handler(conn: Conn) -> None:
        for answer in answers:
            conn.read_request()
            conn.send(answer)

    with RawServer(handler) as server, Client(base_url=server.url) as client:
        for _ in answers:
            with client.stream("GET", "/x") as response:
                assert b"".join(response.iter_bytes()) == body
        assert len(server.connections) == 1


def test_an_error_status_is_streamed_like_any_other() -> None:
    with (
        RawServer(always(respond(b"why", 500))) as server,
        Client(base_url=server.url) as client,
        client.stream("GET", "/x") as response,
    ):
        with pytest.raises(HTTPStatusError):
            response.raise_for_status()
        assert response.read() == b"why"


# -- memory --------------------------------------------------------------------------------------------------


def test_a_reader_that_is_slow_slows_the_server_down() -> None:
    """Backpressure: what is not read is not taken from the network."""
    size, piece = 256, bytes(1 << 18)
    sent: list[int] = []

    def flood(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size * len(piece)))
        for _ in range(size):
            conn.send(piece)
            sent.append(1)

    with RawServer(flood) as server, Client(base_url=server.url) as client, client.stream("GET", "/x") as response:
        seen: list[int] = []

        def stalled() -> bool:
            seen.append(len(sent))
            return len(seen) > 60 and seen[-60] == seen[-1] > 0

        eventually(stalled)
        assert len(sent) < size / 2  # kernel buffers and half a megabyte of ours; not 64 MB

        assert sum(map(len, response.iter_bytes())) == size * len(piece)
        assert len(sent) == size


def test_a_stream_nobody_reads_holds_up_no_other_request() -> None:
    def flood(conn: Conn) -> None:
        request = conn.read_request()
        conn.send(respond(bytes(8 << 20)) if request.target == "/flood" else echo(request))
        always(echo)(conn)

    with RawServer(flood) as server, Client(base_url=server.url) as client, client.stream("GET", "/flood") as response:
        for n in range(20):
            assert Echoed.of(client.get(f"/{n}")).target == f"/{n}"
        assert len(response.read()) == 8 << 20
        assert len(server.connections) == 2


# -- given back ----------------------------------------------------------------------------------------------


def test_a_connection_whose_body_was_read_is_used_again() -> None:
    """BEH-P44."""
    with RawServer(always(respond(b"x" * 100_000))) as server, Client(base_url=server.url) as client:
        for _ in range(20):
            with client.stream("GET", "/x") as response:
                assert len(response.read()) == 100_000
        assert len(server.connections) == 1
        assert client.stats().idle == 1


@pytest.mark.parametrize("read", ["nothing", "a piece", "an iterator given up"])
def test_a_body_that_was_not_read_to_its_end_closes_the_connection(read: str) -> None:
    """BEH-H9: the rest is never taken for another answer."""
    steps = Steps()
    with RawServer([steps, always(echo)]) as server, Client(base_url=server.url) as client:
        with client.stream("GET", "/first") as response:
            steps.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            if read != "nothing":
                pieces = response.iter_bytes()
                assert next(pieces).endswith(b"poison")
                if read == "an iterator given up":
                    del pieces
        server.wait_until(first_ended)

        assert Echoed.of(client.get("/second")).connection == 1
        eventually(lambda: client.stats().closed == 1)


def test_an_exception_in_the_block_gives_the_connection_back_and_goes_on() -> None:
    with RawServer(half) as server, Client(base_url=server.url) as client:
        with pytest.raises(ZeroDivisionError), client.stream("GET", "/x"):
            raise ZeroDivisionError

        server.wait_until(first_left)
        eventually(lambda: client.stats().leased == 0)


def test_closing_is_idempotent_and_ends_reading() -> None:
    with RawServer(half) as server, Client(base_url=server.url) as client, client.stream("GET", "/x") as response:
        pieces = response.iter_bytes()
        assert next(pieces) == b"12345"
        response.close()
        response.close()

        with pytest.raises(StreamClosed, match="closed"):
            next(pieces)
        server.wait_until(first_left)


def test_a_response_cannot_be_read_after_its_block() -> None:
    with RawServer(half) as server, Client(base_url=server.url) as client:
        with client.stream("GET", "/x") as response:
            pass

        for read in (response.read, lambda: next(response.iter_bytes())):
            with pytest.raises(TurboPoolError, match=r"closed|read before"):
                read()
        assert response.status_code == 200


def test_another_thread_may_close_what_one_is_reading() -> None:
    steps = Steps()
    with (
        RawServer(steps) as server,
        ThreadPoolExecutor(1) as pool,
        Client(base_url=server.url) as client,
        client.stream("GET", "/x") as response,
    ):
        begun = threading.Event()

        def read() -> int:
            count = 0
            for piece in response.iter_bytes():
                count += len(piece)
                begun.set()
            return count

        reading = pool.submit(read)
        steps.send(b"12345")
        assert begun.wait(30)
        response.close()

        with pytest.raises(StreamClosed):
            reading.result(30)


def test_a_stream_may_be_read_in_another_thread(client: Client) -> None:
    with ThreadPoolExecutor(1) as pool, client.stream("GET", "/x") as response:
        assert b"/x" in pool.submit(response.read).result(30)


# -- what goes wrong -----------------------------------------------------------------------------------------


def test_a_body_that_is_cut_gives_what_came_and_then_an_error() -> None:
    """BEH-H7."""

    def cut(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")

    with RawServer(cut) as server, Client(base_url=server.url) as client, client.stream("GET", "/x") as response:
        pieces = response.iter_bytes()
        assert next(pieces) == b"12345"
        with pytest.raises(IncompleteRead) as caught:
            next(pieces)

    assert (caught.value.facts["received"], caught.value.facts["expected"]) == (5, 10)
    assert caught.value.processed == "yes"


def test_a_chunked_body_that_breaks_the_rules_gives_what_came_and_then_an_error() -> None:
    """BEH-H7."""
    steps = Steps()
    with RawServer(steps) as server, Client(base_url=server.url) as client, client.stream("GET", "/x") as response:
        pieces = response.iter_bytes()
        steps.send(b"fine")
        assert next(pieces) == b"fine"
        conn = server.connections[0]
        conn.send(b"no size at all\r\n")
        with pytest.raises(TurboPoolError) as caught:
            next(pieces)
        assert caught.value.origin == server.url
        server.wait_until(first_ended)


@with_short_times
def test_the_head_is_bounded_by_the_total(short: float) -> None:
    with RawServer(silent) as server, Client(base_url=server.url) as client:
        stream = client.stream("GET", "/x", timeout=short)
        with pytest.raises(DeadlineExceeded):
            stream.__enter__()

        reached(server.requests)
        server.wait_until(first_left)


@with_short_times
def test_the_total_ends_with_the_head(short: float) -> None:
    """From then on only each wait for bytes is bounded."""
    steps = Steps()
    with (
        RawServer(steps) as server,
        Client(base_url=server.url, request_timeout=short) as client,
        _opened(client, Timeout(short, read=40)) as response,
    ):
        with RawServer(silent) as clock, pytest.raises(DeadlineExceeded):
            client.get(clock.url)  # so that the same time has passed
        steps.send(b"late")
        steps.send(b"")

        assert response.read() == b"late"


@pytest.mark.parametrize("timeout", [lambda short: Timeout(60, read=short), lambda short: short, Timeout])
@with_short_times
def test_each_wait_for_bytes_is_bounded_by_default_as_the_total_was(
    timeout: Callable[[float], float | Timeout], short: float
) -> None:
    with RawServer(half) as server, Client(base_url=server.url) as client:
        with _opened(client, timeout(short)) as response:
            pieces = response.iter_bytes()
            assert next(pieces) == b"12345"
            with pytest.raises(ReadTimeout) as caught:
                next(pieces)
        server.wait_until(first_left)

    assert caught.value.facts["timeout"] == short
    assert (caught.value.origin, caught.value.request_sent) == (server.url, True)


@with_short_times
def test_a_reader_that_takes_its_time_is_not_timed_out(short: float) -> None:
    """Only waiting for the server counts, not what the reader does between two pieces."""
    answer = CHUNKED + chunk(b"one") + chunk(b"two") + chunk(b"")
    with (
        RawServer(always(answer)) as server,
        Client(base_url=server.url) as client,
        _opened(client, Timeout(60, read=short)) as response,
    ):
        with RawServer(silent) as clock, pytest.raises(DeadlineExceeded):
            client.get(clock.url, timeout=1.5 * short)

        assert response.read() == b"onetwo"


def test_no_timeout_waits_as_long_as_it_takes() -> None:
    steps = Steps()
    with (
        RawServer(steps) as server,
        Client(base_url=server.url, request_timeout=0.05) as client,
        client.stream("GET", "/x", timeout=None) as response,
    ):
        with RawServer(silent) as clock, pytest.raises(DeadlineExceeded):
            client.get(clock.url)
        steps.send(b"late")
        steps.send(b"")

        assert response.read() == b"late"


# -- both ways at once ---------------------------------------------------------------------------------------


def test_a_response_may_begin_while_the_body_is_still_being_sent() -> None:
    answered = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"question"
        assert answered.wait(30)
        yield b" and more"

    def converse(conn: Conn) -> None:
        request = conn.read_head()
        conn.send(CHUNKED + chunk(b"answer"))
        conn.read_body(request)
        conn.send(chunk(request.body) + chunk(b""))

    with (
        RawServer(converse) as server,
        Client(base_url=server.url) as client,
        client.stream("POST", "/x", content=body()) as response,
    ):
        pieces = response.iter_bytes()
        assert next(pieces) == b"answer"
        answered.set()
        assert b"".join(pieces) == b"question and more"


def test_a_body_that_fails_while_the_response_is_read_fails_the_reading() -> None:
    answered = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"question"
        answered.wait(30)
        raise ZeroDivisionError

    def converse(conn: Conn) -> None:
        conn.read_head()
        conn.send(CHUNKED + chunk(b"answer"))
        while conn.recv():
            pass

    with (
        RawServer(converse) as server,
        Client(base_url=server.url) as client,
        client.stream("POST", "/x", content=body()) as response,
    ):
        pieces = response.iter_bytes()
        assert next(pieces) == b"answer"
        answered.set()
        with pytest.raises(TurboPoolError, match="body"):
            next(pieces)
        server.wait_until(first_ended)


def test_many_streams_at_once_each_get_their_own_bytes() -> None:
    def numbered(conn: Conn) -> None:
        while True:
            request = conn.read_request()
            body = request.target.encode() * 20_000
            conn.send(respond(chunked(body, 7000), headers=[("Transfer-Encoding", "chunked")]))

    with RawServer(numbered) as server, ThreadPoolExecutor(8) as pool, Client(base_url=server.url) as client:

        def read(n: int) -> bool:
            with client.stream("GET", f"/{n}") as response:
                return b"".join(response.iter_bytes(1000)) == f"/{n}".encode() * 20_000

        assert all(pool.map(read, range(40)))
        assert server.peak <= 6


def test_a_stream_is_one_request_of_the_pool() -> None:
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        with client.stream("GET", "/fast") as response:
            queued = client.send_async("GET", "/fast/second")
            response.read()
            assert Echoed.of(queued.result(30)).target == "/fast/second"

        (pool,) = client.stats().pools.values()
        assert (pool.requests, pool.completed, pool.failed, pool.opened) == (2, 2, 0, 1)
