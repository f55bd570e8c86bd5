"""FLT-P11: the caller's own code, called by us, raises or blocks: only its own request or key is harmed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, cast

import pytest
from tenacity import RetryCallState, stop_after_attempt, wait_fixed

from tests.face.handlers import Gate
from tests.face.remains import our_threads
from tests.faults.aftermath import NEXT, assert_recovered, healthy
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer, always
from tests.servers.wire import respond
from tests.waiting import PATIENCE, SPENT, eventually, reached, with_short_times
from turbopool import Client, ConnectError, DeadlineExceeded, ReconnectOptions, TurboPoolError, WriteError
from turbopool.actors.hub import MAX_CALLBACK_THREADS

ERRORS = [ValueError, KeyboardInterrupt, SystemExit, MemoryError]


# -- done-callbacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS)
def test_a_callback_that_raises_anything_harms_nobody(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """FLT-P11: over and over, and those after it are called all the same."""
    called = threading.Semaphore(0)
    go_on = threading.Event()
    rounds = 20

    def answers(conn: Conn) -> None:
        while True:
            conn.read_request()
            assert go_on.wait(PATIENCE)  # not before the callbacks are there: later ones run in the calling thread
            conn.send(respond(NEXT))

    def bad(_: Future[Any]) -> None:
        raise error("mine")

    with RawServer(answers) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        for _ in range(rounds):
            go_on.clear()
            future = client.send_async("GET", "/x")
            future.add_done_callback(bad)
            future.add_done_callback(lambda _: called.release())
            go_on.set()
            assert future.result(30).content == NEXT

        assert all(called.acquire(timeout=30) for _ in range(rounds))
        assert_recovered(client, server, connections=1)
    assert caplog.text.count("a done-callback raised") == rounds


def test_callbacks_that_block_hold_up_callbacks_and_nothing_else() -> None:
    """FLT-P11: more of them than there are threads for them; requests of their own client and of others go on."""
    release, called = threading.Event(), threading.Semaphore(0)
    more = MAX_CALLBACK_THREADS + 20

    def blocks(_: Future[Any]) -> None:
        release.wait(PATIENCE)
        called.release()

    gate = Gate(respond(NEXT))
    with RawServer(gate) as server, Client(base_url=server.url) as client, Client(base_url=server.url) as other:
        try:
            futures = [client.send_async("GET", "/x") for _ in range(more)]
            for future in futures:
                future.add_done_callback(blocks)
            gate.opened.set()
            assert [future.result(30).content for future in futures] == [NEXT] * more
            began = time.monotonic()
            for one in (client, other):
                assert one.get("/x", timeout=20).content == NEXT
                one.send_async("GET", "/x").cancel()

            assert time.monotonic() - began < 2 * SPENT
            assert sum("callback" in name for name in our_threads()) == MAX_CALLBACK_THREADS
        finally:
            release.set()
        assert all(called.acquire(timeout=30) for _ in range(more))


def test_a_callback_that_blocks_does_not_hold_up_the_disposal_for_ever() -> None:
    """FLT-P11, P12: its thread is a daemon, and is left behind."""
    release = threading.Event()
    gate = Gate()
    with RawServer(gate) as server:
        client = Client(base_url=server.url)
        client.send_async("GET", "/x").add_done_callback(lambda _: release.wait(PATIENCE))
        gate.opened.set()
        eventually(lambda: client.stats().idle == 1)
        began = time.monotonic()
        client.dispose()

        assert time.monotonic() - began < 2 * SPENT
        server.wait_until(lambda server: server.open == 0)
        release.set()


# -- body iterators --------------------------------------------------------------------------------------


def _raises(at: int, error: type[BaseException]) -> Iterator[bytes]:
    for _ in range(at):
        yield bytes(50_000)
    raise error("mine")


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("at", [0, 1, 20])
def test_a_body_that_raises_anything_fails_its_own_request(error: type[BaseException], at: int) -> None:
    """FLT-P11: those beside it and behind it are served, and the half-sent one is never taken for a whole."""

    def reads(conn: Conn) -> None:
        while True:
            request = conn.read_request()
            whole.append(request.target)
            conn.send(respond(NEXT))

    whole: list[str] = []
    with RawServer(reads) as server, Client(base_url=server.url, max_conns_per_host=2) as client:
        beside = client.send_async("GET", "/beside")
        bad = client.send_async("POST", "/bad", content=_raises(at, error))
        behind = client.send_async("GET", "/behind")
        problem = bad.exception(30)

        assert isinstance(problem, WriteError)
        assert type(problem.__cause__) is error
        assert (problem.phase, problem.processed) == ("send", "maybe" if problem.request_sent else "no")
        assert beside.result(30).content == behind.result(30).content == NEXT
        assert "/bad" not in whole
        assert client.get("/next").content == NEXT
        assert client.stats().leased == client.stats().waiting == 0


@with_short_times
def test_bodies_that_block_hold_up_nothing_but_themselves(short: float) -> None:
    """FLT-P11: each ends at its own deadline, its place is free, and its thread ends when it is let go."""
    release, blocked = threading.Event(), Counter[str]()

    def blocks() -> Iterator[bytes]:
        yield b"begun"
        blocked["bodies"] += 1
        release.wait(PATIENCE)

    def reads(conn: Conn) -> None:
        while True:
            request = conn.read_head()
            if request.target == "/blocked":
                conn.hold()
            conn.send(respond(NEXT))

    try:
        with RawServer(reads) as server, Client(base_url=server.url, max_conns_per_host=4) as client:
            futures = [client.send_async("POST", "/blocked", content=blocks(), timeout=5 * short) for _ in range(3)]
            eventually(lambda: blocked["bodies"] == 3 or any(future.done() for future in futures))
            reached(not any(future.done() for future in futures))
            assert client.get("/x", timeout=20).content == NEXT
            for future in futures:
                error = cast("DeadlineExceeded", future.exception(30))
                assert type(error) is DeadlineExceeded
                assert (error.phase, error.processed) == ("send", "maybe")

            waits = [client.send_async("GET", f"/{n}") for n in range(8)]
            assert [one.result(30).content for one in waits] == [NEXT] * 8
            assert client.stats().leased == 0
    finally:
        release.set()


def test_a_body_whose_end_blocks_and_raises_harms_nobody() -> None:
    """FLT-P11: what it does in its ``finally``, when its request was cancelled, is its own thread's business."""
    release, begun, ending = threading.Event(), threading.Event(), threading.Event()

    def stubborn() -> Iterator[bytes]:
        begun.set()
        try:
            while True:
                yield bytes(50_000)
        finally:
            ending.set()
            release.wait(PATIENCE)
            raise ValueError("and again")

    def deaf(conn: Conn) -> None:
        conn.read_head()
        conn.hold()

    try:
        with (
            RawServer([deaf, healthy]) as server,
            Client(base_url=server.url, max_conns_per_host=1) as client,
        ):
            future = client.send_async("POST", "/x", content=stubborn())
            server.wait_for_requests(1)
            assert begun.wait(30)  # one that was never drawn from has no end
            assert future.cancel()
            assert ending.wait(30)

            assert client.get("/x", timeout=20).content == NEXT
    finally:
        release.set()


# -- reconnect strategies --------------------------------------------------------------------------------


_closes_after_one: Handler = always(respond(NEXT, headers=[("Connection", "close")]))


class Strategy:
    """A caller's own, which goes wrong in its own way."""

    def __init__(self, does: Callable[[], object]) -> None:
        """Args: does: what it does each time."""
        self._does = does
        self.asked = 0

    def __call__(self, state: RetryCallState) -> Any:  # noqa: ANN401 - not what tenacity wants of it
        """Be asked for a wait, or whether to stop."""
        del state
        self.asked += 1
        return self._does()


def _raising(error: BaseException) -> Callable[[], object]:
    def does() -> object:
        raise error

    return does


WRONG: dict[str, Callable[[], object]] = {
    "ValueError": _raising(ValueError("mine")),
    "SystemExit": _raising(SystemExit("mine")),
    "KeyboardInterrupt": _raising(KeyboardInterrupt("mine")),
    "no number": lambda: "soon",
    "nothing": lambda: None,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("which", ["wait", "stop"])
def test_a_strategy_that_goes_wrong_harms_its_own_key_alone(wrong: str, which: str) -> None:
    """FLT-P11: whoever waits for that key has a typed error at once, and other keys go on."""
    if which == "stop" and not wrong[0].isupper():
        return  # anything has a truth value
    strategy = Strategy(WRONG[wrong])
    options = (
        ReconnectOptions(wait=strategy, stop=stop_after_attempt(100))
        if which == "wait"
        else ReconnectOptions(wait=wait_fixed(0.01), stop=strategy)
    )
    with RawServer(_closes_after_one) as gone, RawServer(healthy) as other, Client(reconnect=options) as client:
        assert client.get(f"{gone.url}/first").content == NEXT
        assert client.get(f"{other.url}/first").content == NEXT
        gone.refuse()
        futures = [client.send_async("GET", f"{gone.url}/{n}", timeout=10) for n in range(3)]
        for _ in range(20):
            assert client.get(f"{other.url}/x", timeout=20).content == NEXT

        # Not an Exception, it may be meant for the manager: that dies of it, and is replaced.
        kind = TurboPoolError if wrong in ("SystemExit", "KeyboardInterrupt") else ConnectError
        for future in futures:
            assert isinstance(future.exception(30), kind)
        assert strategy.asked
        assert len(other.connections) == 1
        assert client.stats().waiting == client.stats().leased == 0


def test_a_strategy_that_blocks_delays_what_shares_its_thread_and_loses_nothing() -> None:
    """FLT-P11: it runs on the dispatcher, as it says of itself; so what it costs is its own time, once an attempt."""
    pause = 0.3
    asked = threading.Event()

    def ponder(_: RetryCallState) -> float:
        asked.set()
        threading.Event().wait(pause)
        return 0.05

    options = ReconnectOptions(wait=ponder, stop=stop_after_attempt(100))
    with RawServer(_closes_after_one) as gone, RawServer(healthy) as other, Client(reconnect=options) as client:
        assert client.get(f"{gone.url}/first").content == NEXT
        gone.refuse()
        future = client.send_async("GET", f"{gone.url}/x", timeout=10)
        assert asked.wait(30)
        began = time.monotonic()
        assert client.get(f"{other.url}/x", timeout=20).content == NEXT

        assert time.monotonic() - began < 2 * pause + SPENT
        with RawServer(healthy, port=gone.port):
            assert future.result(30).content == NEXT
