"""FLT-S9, S13, N17: bodies on their way up, of all kinds, when the server reads, answers early, or resets."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from io import BytesIO
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame

from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    assert_answered,
    assert_recovered,
    error_of,
    figures,
    resets,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2serve import pattern
from tests.waiting import eventually
from turbopool import DeadlineExceeded, RemoteProtocolError, Timeout, WriteError, WriteTimeout

SIZE = 400_000
BODY = pattern(SIZE)


def _pieces(size: int = SIZE) -> Iterator[bytes]:
    yield from (BODY[at : at + 10_007] for at in range(0, size, 10_007))


def _file(folder: Path) -> object:
    path = folder / "body"
    path.write_bytes(BODY)
    return path.open("rb")


KINDS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda _: BODY,
    "iterator": lambda _: _pieces(),
    "buffer": lambda _: BytesIO(BODY),
    "file": _file,
    "by byte": lambda _: (BODY[at : at + 1] for at in range(2000)),
}


@SCHEMES
@pytest.mark.parametrize("kind", KINDS)
def test_bodies_larger_than_the_windows_arrive_whole(
    kind: str, scheme: str, authority: Authority, tmp_path: Path
) -> None:
    """BEH-M9, BEH-M7: at the pace of the server's credit, with END_STREAM at their end, and once."""
    content = KINDS[kind](tmp_path)
    with scene(authority=authority, scheme=scheme) as (client, peer):
        assert client.post("/next", content=content).content == NEXT  # type: ignore[arg-type]  # one of them

        expected = BODY[:2000] if kind == "by byte" else BODY
        assert bytes(peer.requests[0].body) == expected
        lengths = {"bytes": str(SIZE), "buffer": str(SIZE), "file": str(SIZE)}
        assert peer.requests[0].header("content-length") == lengths.get(kind)
        ends = [frame for frame in peer.connections[0].frames
                if isinstance(frame, DataFrame) and "END_STREAM" in frame.flags]  # fmt: skip
        assert len(ends) == 1
        assert_recovered(client, peer, connections=1)
    if hasattr(content, "close"):
        content.close()


@pytest.mark.parametrize("content", [b"", iter([b""]), BytesIO()])
def test_a_body_of_nothing_ends_its_stream(content: object) -> None:
    """BEH-M9: whether or not that is known beforehand."""
    with scene() as (client, peer):
        assert client.post("/next", content=content).content == NEXT  # type: ignore[arg-type]  # one of them
        assert (peer.requests[0].ended, bytes(peer.requests[0].body)) == (True, b"")
        assert_recovered(client, peer, connections=1)


def test_an_answer_before_the_upload_has_ended_is_the_answer() -> None:
    """FLT-N17, FLT-S9: END_STREAM, and no reset from the server: we end the stream; others do not notice."""
    with scene() as (client, peer):
        (sibling,) = sent_all(client, peer, "/sibling")
        drawn = threading.Event()

        def body() -> Iterator[bytes]:
            try:
                while True:
                    yield bytes(10_000)
            finally:
                drawn.set()

        (future,) = sent_all(client, peer, ("POST", "/early"), content=body())
        peer.wait_until(lambda peer: peer.requests[1].body)
        conn = peer.connections[0]
        conn.do(conn.respond, 3, 401, body=b"who are you?")

        response = future.result(PATIENCE)
        assert (response.status_code, response.content) == (401, b"who are you?")
        assert drawn.wait(PATIENCE)
        peer.wait_until(lambda _: resets(conn))
        assert resets(conn) == [(3, ErrorCodes.NO_ERROR)]
        assert not peer.requests[1].ended
        conn.do(conn.respond, 1)
        assert_answered([sibling])
        assert_recovered(client, peer, connections=1)


def test_a_streamed_answer_goes_on_while_the_upload_does() -> None:
    """FLT-N17: the head comes first, the rest of the body after the request's end: both ways at once."""
    go_on = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"first"
        assert go_on.wait(PATIENCE)
        yield b"last"

    with scene() as (client, peer):
        future = client.stream("POST", "/both", content=body())
        opener: list[bytes] = []

        def read() -> None:
            with future as response:
                pieces = response.iter_bytes()
                opener.append(next(pieces))
                go_on.set()
                opener.append(b"".join(pieces))

        reader = threading.Thread(target=read)
        reader.start()
        peer.wait_for_requests(1)
        conn = peer.connections[0]
        conn.do(conn.respond, 1, body=b"half", end=False)
        assert go_on.wait(PATIENCE)
        conn.do(conn.read_body, peer.requests[0])
        conn.do(conn.send_data, 1, b"whole", end_stream=True)
        reader.join(PATIENCE)

        assert opener == [b"half", b"whole"]
        assert peer.requests[0].body == b"firstlast"
        assert_recovered(client, peer, connections=1)


@pytest.mark.parametrize("code", [ErrorCodes.REFUSED_STREAM, ErrorCodes.INTERNAL_ERROR])
def test_a_reset_in_the_middle_of_an_upload_stops_it(code: ErrorCodes) -> None:
    """FLT-S7, FLT-S8: bytes are sent again if they were refused; an iterator that has begun cannot be."""
    with scene() as (client, peer):
        (drawn,) = sent_all(client, peer, ("PUT", "/drawn"), content=itertools.repeat(bytes(1000)))
        conn = peer.connections[0]
        eventually(lambda: len(peer.requests[0].body) > 0, PATIENCE)
        conn.do(conn.send_rst, 1, code)
        refused = code == ErrorCodes.REFUSED_STREAM

        error_of(drawn, RemoteProtocolError, "no" if refused else "maybe", may_retry=False, phase="send")
        assert_recovered(client, peer, connections=1)


def test_a_cancel_in_the_middle_of_an_upload_ends_the_stream_and_the_iterator() -> None:
    """BEH-M13, PEER-P37: RST_STREAM(CANCEL); the iterator is closed on its own thread; the sibling is answered."""
    closed = threading.Event()

    def body() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(50_000)
        finally:
            closed.set()

    with scene() as (client, peer):
        (sibling,) = sent_all(client, peer, "/sibling")
        (future,) = sent_all(client, peer, ("POST", "/up"), content=body())
        conn = peer.connections[0]
        peer.wait_until(lambda peer: len(peer.requests[1].body) > 100_000)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()

        assert closed.wait(PATIENCE)
        peer.wait_until(lambda _: resets(conn))
        assert resets(conn) == [(3, ErrorCodes.CANCEL)]
        conn.do(conn.respond, 1)
        assert_answered([sibling])
        assert_recovered(client, peer, connections=1)


def test_an_iterator_that_raises_ends_its_stream_alone() -> None:
    """FLT-P11: its error is the cause; the server is told by RST_STREAM, and takes nothing for a whole body."""

    def body() -> Iterator[bytes]:
        yield b"a part"
        raise KeyError("the caller's own")

    with scene() as (client, peer):
        (sibling,) = sent_all(client, peer, "/sibling")
        future = client.send_async("POST", "/up", content=body())
        error = future.exception(PATIENCE)
        assert isinstance(error, WriteError)
        assert isinstance(error.__cause__, KeyError)
        conn = peer.connections[0]
        conn.do(conn.respond, 1)
        assert_answered([sibling])
        conn.do(conn.sync)
        assert not [request for request in peer.requests if request.path == "/up" and request.ended]
        assert_recovered(client, peer, connections=1)


def test_a_slow_iterator_is_the_servers_fault_in_no_way() -> None:
    """FLT-S13: the write timeout bounds the server's part; nothing blocks others meanwhile."""
    go_on = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"first"
        assert go_on.wait(PATIENCE)
        yield b"last"

    with scene() as (client, peer):
        phases = Timeout(PATIENCE, write=0.05, read=5)
        future = client.send_async("POST", "/next", content=body(), timeout=phases)
        peer.wait_until(lambda peer: peer.requests and peer.requests[0].body)
        late = client.send_async("GET", "/late", timeout=0.15)
        assert isinstance(late.exception(PATIENCE), DeadlineExceeded)  # so long at least
        assert not future.done()
        go_on.set()

        assert future.result(PATIENCE).content == NEXT
        assert_recovered(client, peer, connections=1)


def test_a_server_that_reads_nothing_from_the_socket_at_all_meets_the_write_timeout() -> None:
    """FLT-N15, FLT-S13: windows are wide, the kernel's buffers are full; the request has no way out but the end."""
    stuck = threading.Event()

    def deaf(conn: H2Conn) -> None:
        conn.handshake({"initial_window_size": 1 << 30})
        conn.send_window_update(0, 1 << 30)
        conn.settings_acked()
        stuck.set()
        conn.hold()

    with scene(deaf) as (client, _):
        client.warm_up("/", 1)
        assert stuck.wait(PATIENCE)
        eventually(lambda: client.stats().idle == 1)
        future = client.send_async("POST", "/up", content=bytes(32 << 20), timeout=Timeout(PATIENCE, write=0.2))

        error_of(future, WriteTimeout, "maybe", may_retry=False, phase="send")
        eventually(lambda: figures(client) == (0, 0, 0))
