"""FLT-P8: the one thread that drives everything dies; callers notice at once, and go on with another."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager

import pytest

from tests.face.handlers import Echoed, echo, silent
from tests.faults.actors import assert_says_what_is_known, client_of
from tests.faults.aftermath import NEXT
from tests.faults.dispatchers import BreakablePoller, breakable_pollers, dispatchers
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from tests.waiting import SPENT, eventually
from turbopool import Client, ManagerCrashed, ResponseFuture
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange


@pytest.fixture
def pollers(monkeypatch: pytest.MonkeyPatch) -> list[BreakablePoller]:
    """The pollers of all dispatchers that the test starts."""
    return breakable_pollers(monkeypatch)


def breaks(death: type[BaseException]) -> Callable[[BreakablePoller], None]:
    """A way to die: the poller raises."""

    def kill(poller: BreakablePoller) -> None:
        poller.fault = death("the poller broke")

    kill.__name__ = f"poll raises {death.__name__}"
    return kill


def thrown(poller: BreakablePoller) -> None:
    """A way to die: somebody throws an exception into the thread, as debuggers and time limits do."""
    eventually(lambda: poller.is_polling)
    (thread,) = dispatchers()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))


# -- dead --------------------------------------------------------------------------------------------------


# Traced, CPython 3.11 spins in every other thread until the one that something was thrown into takes it: run untraced.
THROWN = pytest.param(thrown, marks=pytest.mark.concurrency)


@pytest.mark.parametrize("kill", [breaks(OSError), breaks(MemoryError), THROWN], ids=lambda kill: kill.__name__)
def test_everything_on_a_thread_that_dies_fails_at_once(
    pollers: list[BreakablePoller], kill: Callable[[BreakablePoller], None]
) -> None:
    """FLT-P8, I5, I27: long before any deadline; streams end too; all clients on it go on, on one new thread."""
    told: list[ResponseFuture] = []
    with (
        RawServer(_gone_at_first) as server,
        Client(base_url=server.url, max_conns_per_host=2) as client,
        Client(base_url=server.url) as other,
        client.stream("GET", "/stream", timeout=30) as response,
    ):
        pieces = response.iter_bytes()
        assert next(pieces) == b"12345"
        running, elsewhere = client.send_async("POST", "/running"), other.send_async("GET", "/elsewhere")
        server.wait_for_requests(3)
        waiting = client.send_async("GET", "/waiting")
        waiting.add_done_callback(told.append)
        eventually(lambda: client.stats().waiting == 1)
        (thread,) = dispatchers()

        kill(pollers[0])
        began = time.monotonic()
        nudge = other.send_async("GET", "/next")  # what wakes it up kills it, unless it is dead by then
        assert not wait([running, elsewhere, waiting, nudge], 20).not_done
        with pytest.raises(ManagerCrashed):
            next(pieces)
        assert time.monotonic() - began < SPENT

        for future in (running, elsewhere):
            assert_says_what_is_known(future.exception(), ManagerCrashed, sent=True)
        assert_says_what_is_known(waiting.exception(), ManagerCrashed, sent=False)
        eventually(lambda: told == [waiting])
        thread.join(30)
        assert not thread.is_alive()
        server.wait_until(lambda server: server.open == 0)
        for one in (client, other):
            assert_begins_afresh(one, server)
        assert len(dispatchers()) == 1


@contextmanager
def _at_ease() -> Iterator[tuple[RawServer, Client, Client]]:
    """A client with an idle connection, and another one beside it."""
    with (
        RawServer(always(respond(NEXT))) as server,
        Client(base_url=server.url) as client,
        Client(base_url=server.url) as other,
    ):
        for _ in range(2):
            client.get("/next")
        yield server, client, other


def _kill(poller: BreakablePoller, other: Client) -> None:
    """Let the thread die, and wait until it has."""
    (thread,) = dispatchers()
    poller.fault = OSError("the poller broke")
    nudge = other.send_async("GET", "/next")
    thread.join(30)
    assert isinstance(nudge.exception(30), ManagerCrashed)


@pytest.mark.parametrize("moment", ["give_back", "rest"])
def test_a_connection_that_is_put_back_as_the_thread_dies_is_closed(
    pollers: list[BreakablePoller], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLT-P8: before or after it counts as claimed no more; its caller has the response."""
    with _at_ease() as (server, client, other):
        ending = getattr(ClaimableConnection, moment)

        def end_late(connection: ClaimableConnection, *moments: float) -> None:
            monkeypatch.undo()
            _kill(pollers[0], other)
            ending(connection, *moments)

        monkeypatch.setattr(ClaimableConnection, moment, end_late)
        assert client.get("/next").content == NEXT
        server.wait_until(lambda server: server.open == 0)
        assert_begins_afresh(client, server)


@pytest.mark.parametrize("is_afloat", [False, True])
def test_a_connection_whose_request_was_launched_as_the_thread_dies_is_closed(
    pollers: list[BreakablePoller], *, is_afloat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLT-P8: its request has failed, so nobody comes to receive the response."""
    with _at_ease() as (server, client, other):
        send = ClaimableConnection.send

        def send_and_kill(connection: ClaimableConnection, exchange: Exchange) -> bool:
            monkeypatch.undo()
            is_sent = send(connection, exchange)
            _kill(pollers[0], other)
            return is_sent

        if not is_afloat:
            monkeypatch.setattr(ClaimableConnection, "send", send_and_kill)
        future = client.send_async("GET", "/next")
        if is_afloat:
            _kill(pollers[0], other)
        assert_says_what_is_known(future.exception(30), ManagerCrashed, sent=True)
        server.wait_until(lambda server: server.open == 0)
        assert_begins_afresh(client, server)


def _gone_at_first(conn: Conn) -> None:
    """Begin to answer /stream, answer whatever begins with /next, and hold the rest."""
    while (target := conn.read_request().target).startswith("/next"):
        conn.send(respond(NEXT))
    if target == "/stream":
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    conn.hold()


def assert_begins_afresh(client: Client, server: RawServer) -> None:
    """The next request of a client has a connection of its own, and the books are true from there on."""
    before = len(server.connections)
    assert client.get("/next", timeout=10).content == NEXT
    assert len(server.connections) == before + 1
    (pool,) = client.stats().pools.values()
    assert (pool.opened, pool.closed, pool.idle, pool.completed, pool.failed) == (1, 0, 1, 1, 0)


@pytest.mark.concurrency
def test_threads_that_die_under_load_harm_only_what_was_under_way(pollers: list[BreakablePoller]) -> None:
    """FLT-P8, I5, I7, I9: each answer is the asker's own, nobody hangs, and no POST is seen twice."""
    over = threading.Event()
    outcomes: list[tuple[str, ManagerCrashed | None]] = []

    with RawServer(always(echo)) as server, client_of(server, 2) as client:

        def send(thread: int) -> None:
            n = 0
            while not over.is_set():
                target, n = f"/{thread}/{n}", n + 1
                try:
                    assert Echoed.of(client.post(target)).target == target
                except ManagerCrashed as error:
                    outcomes.append((target, error))
                else:
                    outcomes.append((target, None))

        threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            before = len(outcomes)
            eventually(lambda before=before: len(outcomes) > before + 20)  # type: ignore[misc]
            pollers[-1].fault = OSError("the poller broke")
        over.set()
        for thread in threads:
            thread.join(30)

        assert not any(thread.is_alive() for thread in threads)
        seen = Counter(request.target for request in server.requests)
        assert max(seen.values()) == 1
        for target, error in outcomes:
            if error is None or error.processed == "no":
                assert seen[target] == (error is None), error
        assert client.get("/after").is_success
        server.wait_until(lambda server: server.open == client.stats().idle)


def test_disposing_of_a_client_whose_thread_died_ends_at_once(pollers: list[BreakablePoller]) -> None:
    """FLT-P12, I15: whether or not anybody noticed."""
    with RawServer(silent) as server:
        client, other = Client(base_url=server.url), Client(base_url=server.url)
        futures = [one.send_async("GET", "/x") for one in (client, other)]
        server.wait_for_requests(2)
        (thread,) = dispatchers()
        pollers[0].fault = OSError("the poller broke")
        began = time.monotonic()
        client.cancel_pending_requests()
        thread.join(30)

        client.dispose()
        other.dispose()

        assert time.monotonic() - began < SPENT
        assert all(future.done() for future in futures)
        assert dispatchers() == []
