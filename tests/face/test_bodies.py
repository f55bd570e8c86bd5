"""Request bodies: every form a caller may hand over, as the server gets it."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import UserDict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.face.handlers import AnyForm, Echoed, echo, first_ended, first_left, silent
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from tests.waiting import eventually, reached, with_short_times
from turbopool import Client, Http1Options, InvalidRequest, ReadError, RemoteProtocolError, Request, WriteError

# -- in memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ({"name": "ü", "n": [1, 2.5, None, True]}, '{"name":"ü","n":[1,2.5,null,true]}'.encode()),
        ([], b"[]"),
        ({}, b"{}"),
        ("", b'""'),
        (0, b"0"),
        (False, b"false"),
        ("\ud800", b'"\\ud800"'),
    ],
)
def test_json_is_compact_utf_8_also_when_it_is_falsy(client: Client, value: object, body: bytes) -> None:
    seen = Echoed.of(client.post("/x", json=value))

    assert (seen.body, seen.all("content-type")) == (body, ["application/json"])


@pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), float("inf"), b"bytes", {"a": {1: {(): 1}}}])
def test_what_json_cannot_say_is_refused(client: Client, server: RawServer, value: object) -> None:
    with pytest.raises(InvalidRequest, match="json=") as caught:
        client.post("/x", json=value)

    assert isinstance(caught.value.__cause__, TypeError | ValueError)
    assert server.connections == []


def test_json_that_contains_itself_is_refused(client: Client) -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    for value in (loop, deep):
        with pytest.raises(InvalidRequest, match="json="):
            client.post("/x", json=value)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ({"a": "1", "b": "x y&=ü"}, b"a=1&b=x+y%26%3D%C3%BC"),
        ([("a", "1"), ("a", "2")], b"a=1&a=2"),
        ({"a": [1, 2]}, b"a=1&a=2"),
        ({"a": True, "b": None, "c": 1.5}, b"a=true&c=1.5"),
        ([(b"a", b"\xff")], b"a=%FF"),
        (UserDict({"a": "1"}), b"a=1"),
        ({}, b""),
    ],
)
def test_a_mapping_or_pairs_become_a_form(client: Client, data: AnyForm, body: bytes) -> None:
    """Values mean what they mean in `params=`."""
    seen = Echoed.of(client.post("/x", data=data))

    assert (seen.body, seen.all("content-type")) == (body, ["application/x-www-form-urlencoded"])


@pytest.mark.parametrize("name", ["content", "data"])
@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"\0\xff", b"\0\xff"),
        ("ü", b"\xc3\xbc"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (b"", b""),
        ("", b""),
    ],
)
def test_bytes_and_text_are_sent_as_they_are(client: Client, name: str, value: AnyForm, body: bytes) -> None:
    seen = Echoed.of(client.send(Request("POST", "/x", **{name: value})))

    assert (seen.body, seen.all("content-length")) == (body, [str(len(body))])
    assert seen.all("content-type") == []


@pytest.mark.parametrize("parts", [{"content": "\ud800"}, {"data": "\ud800"}, {"data": {"a": "\ud800"}}])
def test_text_that_is_no_unicode_is_refused(client: Client, server: RawServer, parts: dict[str, AnyForm]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(parts))}="):
        client.send(Request("POST", "/x", **parts))

    assert server.connections == []


def test_what_a_caller_changes_afterwards_is_not_sent() -> None:
    """A body in memory is taken as it is at the call."""
    with RawServer(always(echo)) as server, Client(base_url=server.url) as client:
        buffer = bytearray(b"before")
        future = client.send_async("POST", "/x", content=buffer)
        buffer[:] = b"after!"

        assert Echoed.of(future.result()).body == b"before"


@pytest.mark.parametrize(
    "parts", [{"json": 1, "data": b"x"}, {"content": b"x", "json": {}}, {"data": b"", "content": b""}]
)
def test_a_request_has_one_body(client: Client, server: RawServer, parts: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=" and ".join(sorted(parts, reverse="json" in parts)[:1])) as caught:
        client.send(Request("POST", "/x", **parts))

    assert all(name in str(caught.value) for name in parts)
    assert server.connections == []


@pytest.mark.parametrize("value", [5, 1.5, object(), True])
@pytest.mark.parametrize("name", ["content", "data"])
def test_what_is_no_body_is_refused_by_name(client: Client, server: RawServer, name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"{name}=.*{type(value).__name__}"):
        client.send(Request("POST", "/x", **{name: value}))  # type: ignore[arg-type]  # that is the point

    assert server.connections == []


def test_a_mapping_as_content_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="content="):
        client.post("/x", content={"a": "b"})  # type: ignore[dict-item]  # that is the point


def test_a_large_body_in_memory_arrives_whole(client: Client) -> None:
    """BEH-H6."""
    body = bytes(n % 251 for n in range(1 << 20))

    assert Echoed.of(client.post("/x", content=body)).body == body


# -- files and iterators -------------------------------------------------------------------------------------


def test_a_file_is_sent_with_its_size_from_where_it_stands(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(bytes(range(256)) * 1000)
    with path.open("rb") as file:
        file.seek(100)

        seen = Echoed.of(client.post("/x", content=file))

    assert (seen.body, seen.all("content-length")) == (path.read_bytes()[100:], ["255900"])
    assert seen.all("transfer-encoding") == []


def test_a_file_may_be_empty(client: Client) -> None:
    seen = Echoed.of(client.post("/x", content=io.BytesIO()))

    assert (seen.body, seen.all("content-length")) == (b"", ["0"])


def test_a_file_that_does_not_know_its_size_is_sent_all_the_same(client: Client) -> None:
    """The files of /proc say that they are empty."""
    path = Path("/proc/self/cmdline")
    if not path.exists():
        pytest.skip("there is no /proc")
    with path.open("rb") as file:
        seen = Echoed.of(client.post("/x", content=file))

    assert seen.body == path.read_bytes() != b""


class Pipe:
    """What can be read but not measured."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next piece."""
        assert size > 0
        return self._pieces.pop(0) if self._pieces else b""


def test_what_can_be_read_but_not_measured_is_sent_in_chunks(client: Client) -> None:
    seen = Echoed.of(client.post("/x", content=Pipe(b"ab", b"cd")))

    assert (seen.body, seen.all("transfer-encoding"), seen.all("content-length")) == (b"abcd", ["chunked"], [])


def _generated() -> Generator[bytes, None, None]:
    yield b"ab"
    yield b""
    yield b"cd" * 50_000


@pytest.mark.parametrize(
    "content", [_generated(), iter([b"ab", b"cd" * 50_000]), (piece for piece in [b"ab", memoryview(b"cd" * 50_000)])]
)
def test_an_iterator_is_sent_in_chunks(client: Client, content: Iterator[bytes]) -> None:
    """BEH-H6: an empty piece does not end the body."""
    seen = Echoed.of(client.post("/x", content=content))

    assert (seen.body, seen.all("transfer-encoding")) == (b"ab" + b"cd" * 50_000, ["chunked"])


def test_a_list_of_bytes_is_sent_with_its_size_and_may_be_sent_again(client: Client) -> None:
    request = Request("POST", "/x", content=[b"ab", b"cd"])

    for _ in range(2):
        seen = Echoed.of(client.send(request))
        assert (seen.body, seen.all("content-length")) == (b"abcd", ["4"])


def test_an_empty_iterator_is_an_empty_body(client: Client, server: RawServer) -> None:
    for _ in range(2):
        assert Echoed.of(client.post("/x", content=iter(()))).body == b""
    assert len(server.connections) == 1


def test_the_callers_iterator_never_runs_on_the_dispatcher(client: Client) -> None:
    threads: list[str] = []

    def body() -> Iterator[bytes]:
        for _ in range(3):
            threads.append(threading.current_thread().name)
            yield b"x"
        threads.append(threading.current_thread().name)

    client.post("/x", content=body())

    assert len(threads) == 4
    assert len(set(threads)) == 1
    assert "dispatcher" not in threads[0]
    assert threads[0] != threading.current_thread().name


def test_many_bodies_are_drawn_at_once(server: RawServer) -> None:
    """An iterator that waits for another's progress must not wait for ever."""
    together = threading.Barrier(6, timeout=10)

    def body() -> Iterator[bytes]:
        together.wait()
        yield b"x"

    with Client(base_url=server.url) as client:
        futures = [client.send_async("POST", "/x", content=body()) for _ in range(6)]
        assert {Echoed.of(future.result()).body for future in futures} == {b"x"}


# -- bodies that go wrong ------------------------------------------------------------------------------------


class Strange(BaseException):
    """Not an Exception, like what ends threads and tasks."""


@pytest.mark.parametrize(
    "error", [OSError("the disk is gone"), ZeroDivisionError(), Strange(), asyncio.CancelledError()]
)
@pytest.mark.parametrize("sized", [False, True])
def test_an_iterator_that_raises_fails_its_request_at_once_with_its_error_as_cause(
    error: BaseException, *, sized: bool
) -> None:
    """The server must not take half a body for a whole one, and nobody waits for the deadline."""

    def body() -> Iterator[bytes]:
        yield b"half"
        raise error

    headers = {"Content-Length": "8"} if sized else {}
    with RawServer([silent, always(echo)]) as server, Client(base_url=server.url) as client:
        with pytest.raises(WriteError, match="body") as caught:
            client.post("/x", content=body(), headers=headers, timeout=60)

        assert caught.value.__cause__ is error
        assert (caught.value.origin, caught.value.phase) == (server.url, "send")
        server.wait_until(first_ended)
        assert client.get("/x").is_success


@pytest.mark.parametrize("size", [3, 5])
def test_a_body_of_another_length_than_announced_is_never_sent_as_whole(size: int) -> None:
    """More bytes would be a second request, fewer would swallow the next one."""
    with RawServer([silent, always(echo)]) as server, Client(base_url=server.url) as client:
        with pytest.raises(InvalidRequest, match="content-length") as caught:
            client.post("/x", content=iter([b"x"] * size), headers={"Content-Length": "4"}, timeout=60)

        assert caught.value.facts["expected"] == 4
        server.wait_until(first_ended)
        assert server.connections[0].received <= len(server.requests[0].head) + 4 + 4
        assert Echoed.of(client.get("/next")).target == "/next"


@pytest.mark.parametrize("content", [iter(["text"]), iter([5]), io.StringIO("text"), iter([None])])
def test_what_yields_no_bytes_is_refused(content: AnyForm) -> None:
    with RawServer([lambda conn: conn.hold(), always(echo)]) as server, Client(base_url=server.url) as client:
        with pytest.raises(InvalidRequest, match="yielded") as caught:
            client.post("/x", content=content, timeout=60)

        assert "bytes" in str(caught.value.advice)
        server.wait_until(first_ended)


def test_an_iterator_is_closed_when_the_request_ends_early() -> None:
    closed = threading.Event()

    def body() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65_536
        finally:
            closed.set()

    def refuse(conn: Conn) -> None:
        conn.read_head()
        assert conn.recv()  # one that has not begun is never drawn from, and so never closed
        conn.send(respond(b"too large", 413))
        conn.hold()

    with RawServer(refuse) as server, Client(base_url=server.url) as client:
        response = client.post("/x", content=body())

        assert (response.status_code, response.content) == (413, b"too large")
        assert closed.wait(30)


@pytest.mark.parametrize("content", [bytes(16 << 20), iter([b"x" * 65_536] * 256)], ids=["bytes", "iterator"])
def test_an_early_answer_ends_the_upload_and_the_connection_is_not_used_again(content: AnyForm) -> None:
    answered = threading.Event()

    def refuse(conn: Conn) -> None:
        conn.read_head()
        conn.send(respond(b"no", 413))
        answered.wait(30)
        while conn.recv():
            pass

    with RawServer([refuse, always(echo)]) as server, Client(base_url=server.url) as client:
        response = client.post("/x", content=content)
        answered.set()

        assert response.status_code == 413
        server.wait_until(first_ended)
        assert server.connections[0].received < 16 << 20
        assert Echoed.of(client.get("/next")).connection == 1


@pytest.mark.parametrize("end", ["cancel", "dispose", "deadline"])
@with_short_times
def test_a_cancelled_upload_stops_drawing(end: str, short: float) -> None:
    drawn: list[int] = []
    closed = threading.Event()

    def body() -> Iterator[bytes]:
        try:
            while True:
                drawn.append(1)
                yield bytes(65_536)
        finally:
            closed.set()

    def stop(future: AnyForm, client: Client) -> None:
        if end == "cancel":
            assert future.cancel()
        elif end == "dispose":
            client.dispose(drain_timeout=0)
        else:
            assert isinstance(future.exception(), TimeoutError)

    ended = threading.Event()

    def stall(conn: Conn) -> None:
        ended.wait(30)
        while conn.recv():
            pass

    with RawServer(stall, receive_buffer=4096) as server, Client(base_url=server.url) as client:
        future = client.send_async("POST", "/x", content=body(), timeout=5 * short if end == "deadline" else 60)
        eventually(lambda: server.connections or future.done())
        _until_stalled(drawn)
        if future.done():
            ended.set()
        reached(not future.done())
        before = len(drawn)

        stop(future, client)

        assert closed.wait(30)
        assert len(drawn) == before
        ended.set()
        server.wait_until(first_left)
    assert before < 1024  # 64 MiB: the pace is the server's


def _until_stalled(drawn: list[int]) -> None:
    """Wait until the iterator is not asked for more."""
    seen: list[int] = []

    def stalled() -> bool:
        seen.append(len(drawn))
        return len(seen) > 50 and drawn != [] and seen[-50] == seen[-1]

    eventually(stalled)


def test_a_thread_that_is_stuck_in_an_iterator_does_not_hold_up_dispose() -> None:
    release = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"x"
        release.wait(30)

    with RawServer(Conn.hold) as server:
        client = Client(base_url=server.url, http1=Http1Options(max_connections_per_server=20))
        futures = [client.send_async("POST", "/x", content=body()) for _ in range(12)]
        server.wait_for_connections(12)

        client.dispose(drain_timeout=0)  # a second for all of them, not for each

        assert all(future.done() for future in futures)
        release.set()


def test_a_rewindable_body_is_sent_again_on_a_connection_that_had_died(tmp_path: Path) -> None:
    """DESIGN's row 3: PUT is idempotent, a file and a list can be rewound, an iterator cannot."""
    path = tmp_path / "body"
    path.write_bytes(b"from a file")

    def once(conn: Conn) -> None:
        conn.send(echo(conn.read_request()))
        conn.read_request()  # and closes without an answer

    contents: list[tuple[Callable[[], Any], bytes]] = [
        (lambda: path.open("rb"), b"from a file"),
        (lambda: [b"from ", b"a list"], b"from a list"),
        (lambda: b"bytes", b"bytes"),
    ]
    for make, body in contents:
        with RawServer([once, always(echo)]) as server, Client(base_url=server.url) as client:
            client.get("/x")
            content = make()
            assert Echoed.of(client.put("/x", content=content)).body == body
            assert len(server.connections) == 2
            getattr(content, "close", lambda: None)()


def test_a_body_that_was_begun_and_cannot_be_rewound_is_not_sent_again() -> None:
    """DESIGN's row 5."""

    def once(conn: Conn) -> None:
        conn.send(echo(conn.read_request()))
        conn.read_request()

    with RawServer([once, always(echo)]) as server, Client(base_url=server.url) as client:
        client.get("/x")
        with pytest.raises((RemoteProtocolError, ReadError, WriteError)) as caught:
            client.put("/x", content=iter([b"once"]))

        assert caught.value.processed == "maybe"
        assert len(server.requests) == 2


def test_a_connection_is_used_again_after_a_body_was_drawn(client: Client, server: RawServer) -> None:
    """BEH-P44: an answer may come before the worker thread has looked whether there is more to draw."""
    for n in range(100):
        assert Echoed.of(client.post("/x", content=iter([b"a", b"b"]))).body == b"ab"
        assert Echoed.of(client.post("/x", content=io.BytesIO(b"ab" * n))).body == b"ab" * n

    assert len(server.connections) == 1


def test_no_more_is_read_than_was_announced(client: Client) -> None:
    """Reading on might block for ever: a WSGI server's input does."""

    class Endless:
        def __init__(self) -> None:
            self.left = 10

        def read(self, size: int = -1, /) -> bytes:
            assert 0 < size <= self.left
            self.left -= min(size, 4)
            return b"x" * min(size, 4)

    assert Echoed.of(client.post("/x", content=Endless(), headers={"Content-Length": "10"})).body == b"x" * 10
