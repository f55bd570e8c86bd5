"""Cancels, disposals and interrupts, while a caller's own thread waits for a response.

Nobody but that thread looks at the connection then, so it must be woken.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.face.remains import assert_nothing_left
from tests.faults.aftermath import NEXT, assert_balanced, assert_recovered, healthy
from tests.faults.driven import SAID, after_one, driven, failure, held_dispatcher, idle, send
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import PATIENCE, SPENT, eventually
from turbopool import Client, ClientDisposed, ClientFactory, DeadlineExceeded, ReadError, Response
from turbopool.transport.channel import TcpChannel, TlsChannel
from turbopool.transport.http1 import ResponseParser

# -- cancels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", SAID)
def test_cancelling_everything_wakes_the_thread_that_drives(said: str) -> None:
    """BEH-C4, FLT-P2: at once; its connection is closed, its place is free, and late bytes reach nobody."""
    with driven(SAID[said]) as one:
        began = time.monotonic()
        one.client.cancel_pending_requests()
        with pytest.raises(CancelledError):
            one.result.result(PATIENCE)
        assert time.monotonic() - began < SPENT
        assert one.client.post(f"{one.server.url}/next").content == NEXT
        one.go_on.set()
        assert_balanced(one.client, one.server, connections=2)
        (pool,) = one.client.stats().pools.values()
        assert (pool.cancelled, pool.completed, pool.failed) == (1, 2, 0)


def test_a_cancel_ends_the_requests_of_its_own_handle_alone() -> None:
    """BEH-C4, C6: another handle's, over the same pool, goes on."""
    with (
        ClientFactory().add("one") as factory,
        driven(own=factory.create_client("one")) as one,
        factory.create_client("one") as other,
    ):
        other.cancel_pending_requests()
        assert other.get(one.server.url).content == NEXT
        one.go_on.set()
        assert one.result.result(PATIENCE).content == NEXT


def test_cancels_at_any_moment_lose_no_place() -> None:
    """FLT-P2, BEH-P46: while two threads drive, again and again."""
    over = threading.Event()
    outcomes: list[str] = []

    with idle(healthy, max_conns_per_host=2) as (server, client), ThreadPoolExecutor(2) as threads:

        def call() -> None:
            while not over.is_set():
                try:
                    assert client.get("/x", timeout=PATIENCE).content == NEXT
                    outcomes.append("answered")
                except CancelledError:
                    outcomes.append("cancelled")

        calling = [threads.submit(call) for _ in range(2)]
        while outcomes.count("cancelled") < 100:
            client.cancel_pending_requests()
            over.wait(0.001)
        over.set()
        for one in calling:
            one.result(PATIENCE)
        (pool,) = client.stats().pools.values()
        assert (pool.completed, pool.cancelled) == (outcomes.count("answered") + 1, outcomes.count("cancelled"))
        assert server.peak <= 2
        assert client.get("/x").content == NEXT
        eventually(lambda: client.stats().opened - client.stats().closed == client.stats().idle == server.open)


# -- the end of the client -------------------------------------------------------------------------------------


def _factory_of(name: str) -> tuple[Client, Callable[..., None]]:
    factory = ClientFactory().add(name)
    return factory.create_client(name), factory.dispose


def _client() -> tuple[Client, Callable[..., None]]:
    client = Client(max_conns_per_host=1)
    return client, client.dispose


MAKERS: dict[str, Callable[[], tuple[Client, Callable[..., None]]]] = {
    "client": _client,
    "factory": lambda: _factory_of("one"),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_disposal_waits_for_the_thread_that_drives(maker: str) -> None:
    """BEH-C13, FLT-P12: its response is delivered, and nothing is left."""
    client, dispose = MAKERS[maker]()
    with driven(own=client) as one, ThreadPoolExecutor(1) as threads:
        disposed = threads.submit(dispose)
        eventually(lambda: client.is_disposed)
        with pytest.raises(ClientDisposed):
            client.get(one.server.url)
        assert not disposed.done()
        assert not one.result.done()
        one.go_on.set()
        assert one.result.result(PATIENCE).content == NEXT
        disposed.result(PATIENCE)
        assert_nothing_left(one.server.port)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("said", SAID)
def test_a_disposal_whose_patience_ends_wakes_the_thread_that_drives(maker: str, said: str) -> None:
    """BEH-C13, P22, FLT-P12: with ClientDisposed; nothing is left."""
    client, dispose = MAKERS[maker]()
    with driven(SAID[said], own=client) as one:
        began = time.monotonic()
        dispose(drain_timeout=0.1)
        error = one.result.exception(PATIENCE)

        assert time.monotonic() - began < 0.1 + SPENT
        assert isinstance(error, ClientDisposed)
        assert (error.request_sent, error.processed) == (True, "maybe")
        one.go_on.set()
        assert_nothing_left(one.server.port)


def test_an_interrupted_disposal_wakes_the_thread_that_drives() -> None:
    """FLT-P12, P15: who waits no longer leaves nothing behind."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with driven() as one:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                one.client.dispose()
            assert isinstance(one.result.exception(PATIENCE), ClientDisposed)
            one.go_on.set()
            eventually(lambda: one.server.open == 0)
    finally:
        signal.signal(signal.SIGALRM, before)


# -- interrupts and other signals --------------------------------------------------------------------------------


def test_an_interrupt_wakes_the_thread_that_drives() -> None:
    """FLT-P15: forty times; the connection is closed, its place is given back, and it counts as cancelled."""
    delays = iter([0.0, 0.0005, 0.002, 0.01] * 10)
    main = threading.main_thread().ident
    assert main is not None
    armed = False

    def on_signal(number: int, frame: object) -> None:
        del number, frame
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def interrupts(conn: Conn) -> None:
        conn.read_request()
        patience = next(delays)
        while not conn.wait_closed(patience) and conn.is_open():  # one that comes between two steps wakes nobody
            signal.pthread_kill(main, signal.SIGINT)
            patience = 0.05

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        with RawServer(after_one(interrupts)) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
            for n in range(40):
                assert client.get("/first").content == NEXT
                armed = True
                with pytest.raises(KeyboardInterrupt):
                    client.post("/x", timeout=60)
                eventually(lambda n=n: not server.connections[n].is_open())  # type: ignore[misc]
                eventually(lambda: client.stats().leased == 0)
            assert server.peak == 1
            (pool,) = client.stats().pools.values()
            assert (pool.completed, pool.cancelled, pool.requests) == (40, 40, 80)
    finally:
        signal.signal(signal.SIGINT, before)


def interrupted(
    monkeypatch: pytest.MonkeyPatch, moment: str, future: Future[Response], error: type[BaseException]
) -> None:
    """Wait for a response, and be interrupted at that moment."""
    await_bytes = TcpChannel.await_bytes

    def begun(channel: TcpChannel, patience: float) -> bytes | None:
        del patience
        monkeypatch.setattr(TcpChannel, "await_bytes", ended)
        monkeypatch.setattr(TcpChannel, "receive", lambda _: None)  # the rest comes later
        with socket.socket(fileno=os.dup(channel.fd)) as same:
            data = same.recv(20)
        channel.taken += len(data)
        return data

    def ended(channel: TcpChannel, patience: float) -> bytes | None:
        if moment != "handed over twice":
            monkeypatch.undo()
        if moment.startswith("handed over"):  # by the kernel, and nobody has noted that yet
            with socket.socket(fileno=os.dup(channel.fd)) as behind_its_back:
                assert behind_its_back.recv(1000)
        elif moment == "received":
            assert await_bytes(channel, patience)
        raise error

    def again(_: TcpChannel) -> bool:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(TcpChannel, "await_bytes", begun if moment == "begun" else ended)
    if moment == "handed over twice":
        monkeypatch.setattr(TcpChannel, "has_lost_nothing", again)
    with pytest.raises(error):
        future.result(PATIENCE)


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("moment", ["waiting", "begun", "handed over", "handed over twice", "received"])
def test_a_wait_may_be_repeated_after_an_interrupt(
    moment: str, scheme: str, error: type[BaseException], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLT-P15: what had been received when it struck is lost; then the request is sent again, or fails, and at once.

    A part of a head or of a record, which is ``begun``, is kept. Many handlers of alarms raise a TimeoutError.
    """
    is_lost = moment not in {"waiting", "begun"}
    with idle(healthy, authority=authority if scheme == "https" else None) as (server, client):
        for method in ("GET", "POST"):
            with held_dispatcher():  # or it might receive before this thread does
                future = client.send_async(method, "/next", timeout=60)
                interrupted(monkeypatch, moment, future, error)
            if is_lost and method == "POST":
                failed = future.exception(PATIENCE)
                assert isinstance(failed, ReadError)
                assert failed.request_sent
                assert not failed.may_retry
                assert "an interrupt" in str(failed)
            else:
                assert future.result(PATIENCE).content == NEXT
        (pool,) = client.stats().pools.values()
        assert (pool.replays, pool.failed) == (is_lost, is_lost)
        assert (pool.state, pool.reconnects) == ("open", 0)  # it was not the server
        assert_recovered(client, server, connections=3 if is_lost else 1, replays=int(is_lost))


def test_an_interrupt_after_the_last_byte_was_parsed_loses_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLT-P15: what has been received is looked up once more then, and that can be interrupted."""
    taken = TlsChannel.taken

    def interrupt(channel: TlsChannel) -> int:
        if not any(complete):
            return taken.__get__(channel)  # type: ignore[no-any-return]
        monkeypatch.undo()
        raise KeyboardInterrupt

    complete: list[bool] = []
    with idle(healthy, authority=authority) as (server, client):
        receive = ResponseParser.receive

        def note(parser: ResponseParser, data: bytes | memoryview) -> None:
            receive(parser, data)
            complete.append(parser.complete)

        with held_dispatcher():
            future = client.send_async("POST", "/next", timeout=60)
            monkeypatch.setattr(ResponseParser, "receive", note)
            monkeypatch.setattr(TlsChannel, "taken", property(interrupt))
            with pytest.raises(KeyboardInterrupt):
                future.result(PATIENCE)
        assert future.result(PATIENCE).content == NEXT
        assert_recovered(client, server, connections=1)


def test_an_interrupt_between_two_parts_of_a_large_body_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLT-P15: which are received into where they are to be."""
    go_on, parts = threading.Event(), list[int]()
    await_into = TcpChannel.await_into

    def halves(conn: Conn) -> None:
        conn.read_request()
        data = respond(b"x" * 3_000_000)
        conn.send(data[:1_500_000])
        assert go_on.wait(PATIENCE)
        conn.send(data[1_500_000:])
        healthy(conn)

    def interrupt(channel: TcpChannel, room: memoryview, patience: float) -> bytes | memoryview | None:
        if sum(parts) > 1_000_000:
            monkeypatch.undo()
            raise KeyboardInterrupt
        part = await_into(channel, room, patience)
        parts.append(len(part or b""))
        return part

    with idle(halves) as (server, client):
        with held_dispatcher():
            future = client.send_async("POST", "/next", timeout=60)
            monkeypatch.setattr(TcpChannel, "await_into", interrupt)
            with pytest.raises(KeyboardInterrupt):
                future.result(PATIENCE)
        go_on.set()
        assert len(future.result(PATIENCE).content) == 3_000_000
        assert_recovered(client, server, connections=1)


def test_an_answer_that_waits_with_the_end_of_its_stream_outlives_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FLT-P15: nothing is lost, so that no POST fails."""

    def last(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(NEXT))

    with idle(last) as (server, client):
        with held_dispatcher():
            future = client.send_async("POST", "/next", timeout=60)
            server.wait_until(lambda server: server.open == 0)
            interrupted(monkeypatch, "waiting", future, KeyboardInterrupt)
        assert future.result(PATIENCE).content == NEXT
        assert_recovered(client, server, connections=2)


def test_what_a_handler_of_an_alarm_raises_ends_a_blocking_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error of the connection, though it is one of the system's kind: nothing is sent again."""

    def alarm(*_: object) -> bytes | None:
        monkeypatch.undo()
        raise TimeoutError

    for moment in ("send", "await_bytes"):
        with idle(healthy) as (server, client):
            monkeypatch.setattr(TcpChannel, moment, alarm)
            with pytest.raises(TimeoutError):
                client.get("/next")
            eventually(lambda server=server: server.open == 0)  # type: ignore[misc]
            (pool,) = client.stats().pools.values()
            assert (pool.replays, pool.cancelled) == (0, 1)


@contextmanager
def ticking(interval: float) -> Iterator[list[int]]:
    """Handle a signal so often, without raising anything, as an application may that looks at itself."""
    ticks: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: ticks.append(number))
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield ticks
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_signals_that_are_handled_disturb_no_response_in_many_pieces() -> None:
    """FLT-N16, P15: system calls are interrupted all the time."""

    def drips(conn: Conn) -> None:
        conn.read_request()
        conn.send_slowly(respond(b"0123456789" * 2), 1, 0.002)
        healthy(conn)

    with idle(drips) as (server, client), ticking(0.001) as ticks:
        assert client.get("/x", timeout=60).content == b"0123456789" * 2
        assert ticks
        assert_recovered(client, server, connections=1)


def test_signals_that_are_handled_put_off_no_deadline() -> None:
    """FLT-N13, P15: a signal every 50 ms, and a server that is silent."""

    def silent(conn: Conn) -> None:
        conn.read_request()
        conn.wait_closed(1.5)

    with idle(silent) as (_, client), ticking(0.05):
        error = failure(send, client, "GET", timeout=0.2)
        assert isinstance(error, DeadlineExceeded)
        assert error.request_sent
