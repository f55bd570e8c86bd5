"""Files that the kernel sends, and everything that can go wrong meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.face.handlers import first_ended
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from tests.waiting import eventually
from turbopool import Client, InvalidRequest, ReadError, RemoteProtocolError, Timeout, WriteError, WriteTimeout

SIZE = 32 << 20
"""More than a socket takes from one end to the other."""
OK = respond(b"ok")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A large file, nearly all of it a hole."""
    path = tmp_path / "body"
    with path.open("wb") as file:
        file.write(b"first")
        file.truncate(SIZE - 4)
        file.seek(SIZE - 4)
        file.write(b"last")
    return path


@pytest.fixture(autouse=True)
def no_descriptor_is_left(path: Path) -> Iterator[None]:
    """Whatever happens, the copy of the file's descriptor is closed."""
    yield
    eventually(lambda: not copies(path))


def copies(path: Path) -> list[str]:
    """Return the descriptors that this process has of a file."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if entry.readlink() == path:
                found.append(entry.name)
        except FileNotFoundError:  # the one that lists the folder, or one that another thread closed
            continue
    return found


def digest(conn: Conn) -> tuple[int, bytes, bytes]:
    """Read a request; return the length of its body, and how it begins and ends."""
    body = conn.read_request().body
    return len(body), bytes(body[:5]), bytes(body[-4:])


def test_a_peer_that_closes_in_the_middle_is_an_error_and_a_post_is_not_sent_again(path: Path) -> None:
    def leave(conn: Conn) -> None:
        conn.read_head()
        conn.recv()

    with RawServer(leave) as server, Client(base_url=server.url) as client, path.open("rb") as file:
        with pytest.raises((WriteError, ReadError, RemoteProtocolError)) as caught:
            client.post("/x", content=file, timeout=60)

        assert caught.value.request_sent
        assert caught.value.processed == "maybe"
        assert len(server.requests) == 1


def test_a_file_is_sent_again_from_where_it_stood(path: Path) -> None:
    """A connection that is dropped in the middle: an idempotent request begins anew, on another one."""
    seen: list[tuple[int, bytes, bytes]] = []

    def leave(conn: Conn) -> None:
        conn.read_request()
        conn.send(OK)
        conn.read_head()
        conn.recv()

    def take(conn: Conn) -> None:
        seen.append(digest(conn))
        conn.send(OK)
        conn.hold()

    with RawServer([leave, take]) as server, Client(base_url=server.url) as client, path.open("rb") as file:
        client.get("/")
        assert client.put("/x", content=file, timeout=60).content == b"ok"

        assert seen == [(SIZE, b"first", b"last")]
        assert file.tell() == SIZE


def test_a_peer_that_stops_reading_runs_into_the_write_timeout(path: Path) -> None:
    with (
        RawServer(Conn.hold, receive_buffer=4096) as server,
        Client(base_url=server.url) as client,
        path.open("rb") as file,
    ):
        with pytest.raises(WriteTimeout) as caught:
            client.post("/x", content=file, timeout=Timeout(60, write=0.1))

        assert caught.value.phase == "send"
        assert caught.value.processed == "maybe"


def test_an_early_answer_ends_the_upload_and_the_connection(path: Path) -> None:
    answered = threading.Event()

    def refuse(conn: Conn) -> None:
        conn.read_head()
        conn.send(respond(b"too large", 413))
        answered.wait(30)
        while conn.recv():
            pass

    with (
        RawServer([refuse, always(OK)], receive_buffer=4096) as server,
        Client(base_url=server.url) as client,
        path.open("rb") as file,
    ):
        response = client.post("/x", content=file, timeout=60)
        answered.set()

        assert (response.status_code, response.content) == (413, b"too large")
        server.wait_until(first_ended)
        assert server.connections[0].received < SIZE
        assert client.get("/next").content == b"ok"


@pytest.mark.parametrize("end", ["cancel", "dispose"])
def test_an_upload_that_is_given_up_stops(path: Path, end: str) -> None:
    ended = threading.Event()

    def stall(conn: Conn) -> None:
        conn.read_head()
        ended.wait(30)
        while conn.recv():
            pass

    with (
        RawServer(stall, receive_buffer=4096) as server,
        Client(base_url=server.url) as client,
        path.open("rb") as file,
    ):
        future = client.send_async("POST", "/x", content=file, timeout=60)
        server.wait_until(lambda server: server.requests)

        if end == "cancel":
            assert future.cancel()
        else:
            client.dispose(drain_timeout=0)

        ended.set()
        server.wait_until(first_ended)
        assert server.connections[0].received < SIZE


def test_a_file_cut_short_meanwhile_is_an_error_and_is_never_filled_up(path: Path) -> None:
    cut = threading.Event()
    received = []

    def wait(conn: Conn) -> None:
        conn.read_head()
        cut.wait(30)
        received.append(0)
        while data := conn.recv():
            received[0] += len(data)

    with (
        RawServer([wait, always(OK)], receive_buffer=4096) as server,
        Client(base_url=server.url) as client,
        path.open("rb") as file,
    ):
        future = client.send_async("PUT", "/x", content=file, timeout=60)
        server.wait_until(lambda server: server.requests)
        os.truncate(path, SIZE - 1)
        cut.set()

        error = future.exception(30)
        assert isinstance(error, InvalidRequest)
        assert error.facts["expected"] == SIZE
        assert error.facts["received"] == SIZE - 1
        assert not error.may_retry
        server.wait_until(first_ended)
        assert received == [SIZE - 1]
        assert client.get("/next").content == b"ok"


def test_a_file_that_grew_meanwhile_sends_what_was_promised(path: Path) -> None:
    seen: list[tuple[int, bytes, bytes]] = []

    def grow(conn: Conn) -> None:
        with path.open("ab") as file:
            file.write(b"more")
        seen.append(digest(conn))
        conn.send(OK)
        conn.read_request()
        conn.send(OK)

    with RawServer(grow) as server, Client(base_url=server.url) as client, path.open("rb") as file:
        assert client.put("/x", content=file, timeout=60).content == b"ok"
        assert client.get("/next").content == b"ok", "nothing of it is left on the connection"

        assert seen == [(SIZE, b"first", b"last")]
