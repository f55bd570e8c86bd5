"""Ctrl-C while the main thread waits: what it waited for is given up, and nothing is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from tests.face.handlers import Gate, echo, first_left, half
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.waiting import PATIENCE, eventually
from turbopool import Client, ClientDisposed, ClientFactory


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also in a run that a shell put into the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    """Send SIGINT to the main thread."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


def interrupting(conn: Conn) -> None:
    """Take a request, and interrupt whoever waits for its answer."""
    conn.read_request()
    if not conn.wait_closed(0.2):  # by now the main thread waits
        interrupt()
    conn.hold()


def test_an_interrupt_during_a_blocking_send_takes_the_request_back() -> None:
    with RawServer([interrupting, always(echo)]) as server, Client(base_url=server.url) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get("/x")

        server.wait_until(first_left)
        eventually(lambda: client.stats().leased == 0)
        assert client.get("/after").is_success


def test_an_interrupt_while_a_stream_is_awaited_takes_the_request_back() -> None:
    with RawServer(interrupting) as server, Client(base_url=server.url) as client:
        stream = client.stream("GET", "/x")
        with pytest.raises(KeyboardInterrupt):
            stream.__enter__()

        server.wait_until(first_left)


def test_an_interrupt_while_a_stream_is_read_gives_its_connection_back() -> None:
    def stalling(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        if not conn.wait_closed(0.2):
            interrupt()
        conn.hold()

    with RawServer([stalling, half]) as server, Client(base_url=server.url) as client:
        with pytest.raises(KeyboardInterrupt), client.stream("GET", "/x") as response:
            response.read()

        server.wait_until(first_left)
        eventually(lambda: client.stats().leased == 0)


def test_an_interrupt_while_a_future_is_awaited_leaves_its_request_alone() -> None:
    """Its caller still holds the future, and may wait again."""
    awaited = threading.Event()

    class Interrupting(Gate):
        def __call__(self, conn: Conn) -> None:
            assert awaited.wait(PATIENCE)
            timer = threading.Timer(0.2, interrupt)
            timer.start()
            super().__call__(conn)
            timer.join()

    gate = Interrupting()
    with RawServer(gate) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")

        def wait() -> None:
            awaited.set()
            future.result()

        with pytest.raises(KeyboardInterrupt):
            wait()
        gate.opened.set()

        assert future.result(30).is_success


@pytest.mark.parametrize("kind", ["client", "factory"])
def test_an_interrupt_during_a_disposal_ends_it_at_once_and_leaves_nothing(kind: str) -> None:
    """A second Ctrl-C must not be needed, nor a second disposal wait for the first for ever."""
    disposing = threading.Event()

    def interrupting_it(conn: Conn) -> None:
        conn.read_request()
        assert disposing.wait(PATIENCE)
        if not conn.wait_closed(0.2):
            interrupt()
        conn.hold()

    with RawServer(interrupting_it) as server:
        factory = ClientFactory().add("api", base_url=server.url)
        client = Client(base_url=server.url) if kind == "client" else factory.create_client("api")
        future = client.send_async("GET", "/x", timeout=None)
        server.wait_for_requests(1)

        def dispose() -> None:
            disposing.set()
            (client if kind == "client" else factory).dispose()

        with pytest.raises(KeyboardInterrupt):
            dispose()
        client.dispose()
        factory.dispose()

        assert isinstance(future.exception(0), ClientDisposed)
        server.wait_until(first_left)
