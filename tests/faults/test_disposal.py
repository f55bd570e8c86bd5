"""FLT-P12: disposing while connections are lost and made anew. Quiet cases are in tests/face/test_dispose.py."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.face.remains import assert_nothing_left, our_threads
from tests.faults.aftermath import NEXT, healthy
from tests.faults.phases import slow_names
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, respond
from tests.transport.lookups import ScriptedLookup
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import (
    Client,
    ClientDisposed,
    ConnectError,
    DeadlineExceeded,
    ReconnectOptions,
    ResponseFuture,
    TurboPoolError,
)

_ASLEEP = ReconnectOptions(wait=wait_fixed(60), stop=stop_after_attempt(100))
_SOON = ReconnectOptions(wait=wait_fixed(0.05), stop=stop_after_attempt(1000))
_GIVES_UP = ReconnectOptions(wait=wait_fixed(0.01), stop=stop_after_attempt(2))


def _once(request: RawRequest) -> bytes:
    """Have the next request come on a new connection."""
    del request
    return respond(NEXT, headers=[("Connection", "close")])


def _state(client: Client) -> str:
    (pool,) = client.stats().pools.values()
    return pool.state


def _wait_for_the_backoff(client: Client) -> None:
    eventually(lambda: _state(client) == "reconnecting" and client.stats().connecting == 0)


@contextmanager
def _lost(options: ReconnectOptions, timeout: float = 60) -> Iterator[tuple[Client, RawServer, list[ResponseFuture]]]:
    """A client whose server went away, and three requests that wait for it to come back."""
    with RawServer(always(_once)) as gone:
        client = Client(base_url=gone.url, reconnect=options)
        try:
            assert client.get("/first").content == NEXT
            gone.refuse()
            futures = [client.send_async("GET", f"/{n}", timeout=timeout) for n in range(3)]
            _wait_for_the_backoff(client)
            reached(not any(future.done() for future in futures))
            yield client, gone, futures
        finally:
            client.dispose(drain_timeout=0)


def _assert_disposed(futures: list[ResponseFuture]) -> None:
    for future in futures:
        error = future.exception(30)
        assert isinstance(error, ClientDisposed)
        assert (error.processed, error.request_sent, error.may_retry) == ("no", False, True)


# -- in backoff ------------------------------------------------------------------------------------------


def _fails_the_queue(client: Client) -> None:
    client.dispose(queued="fail")


def _does_not_wait(client: Client) -> None:
    client.dispose(drain_timeout=0)


def _waits_a_moment(client: Client) -> None:
    client.dispose(drain_timeout=0.2)


def _twice(client: Client) -> None:
    client.dispose(queued="fail")
    client.dispose(queued="fail")


def _by_eight_threads(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(client.dispose, 0.1) for _ in range(8)]:
            done.result(30)


def _with_a_later_one_in_a_hurry(client: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)
        assert not patient.done()
        client.dispose(drain_timeout=0)
        patient.result(30)


HURRIES = [
    _fails_the_queue, _does_not_wait, _waits_a_moment, _twice, _by_eight_threads, _with_a_later_one_in_a_hurry,
]  # fmt: skip


@pytest.mark.parametrize("dispose", HURRIES)
def test_a_disposal_ends_a_backoff_at_once(dispose: Callable[[Client], None]) -> None:
    """FLT-P12: the next attempt would be in a minute; who waits for it has an own error, and nothing is left."""
    with _lost(_ASLEEP) as (client, gone, futures):
        began = time.monotonic()
        dispose(client)

        assert time.monotonic() - began < 0.2 + SPENT
        _assert_disposed(futures)
        assert len({id(future.exception()) for future in futures}) == 3
        assert_nothing_left(gone.port)
        with pytest.raises(ClientDisposed):
            client.get("/late")


def test_a_disposal_lets_those_in_a_backoff_finish_if_the_server_comes_back() -> None:
    """FLT-P12: by default there is time until their own deadlines, and attempts go on."""
    with _lost(_SOON) as (client, gone, futures), ThreadPoolExecutor(1) as pool:
        disposed = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)
        assert not disposed.done()
        with RawServer(healthy, port=gone.port) as back:
            assert [future.result(30).content for future in futures] == [NEXT] * 3
            disposed.result(30)
            assert_nothing_left(gone.port)
            assert len(back.requests) == 3


@with_short_times
def test_a_disposal_ends_with_the_deadlines_of_those_in_a_backoff(short: float) -> None:
    """FLT-P12: and they are told why they waited."""
    with _lost(_ASLEEP, timeout=5 * short) as (client, gone, futures):
        client.dispose()

        for future in futures:
            error = future.exception(0)
            assert isinstance(error, DeadlineExceeded)
            assert isinstance(error.__cause__, ConnectError)
        assert_nothing_left(gone.port)


def test_a_disposal_from_a_callback_ends_a_backoff() -> None:
    """FLT-P12: that of a request whose time was up."""
    with _lost(_ASLEEP) as (client, gone, futures):
        disposed = threading.Event()

        def dispose(_: object) -> None:
            client.dispose(queued="fail")
            disposed.set()

        client.send_async("GET", "/late", timeout=0.05).add_done_callback(dispose)
        assert disposed.wait(30)

        _assert_disposed(futures)
        eventually(lambda: not our_threads())
        assert_nothing_left(gone.port)


def test_a_client_forgotten_in_a_backoff_ends_with_its_last_request() -> None:
    """FLT-P12: its finalizer waits as a disposal does, without anybody to wait for it."""
    with RawServer(always(_once)) as gone:
        client = Client(base_url=gone.url, reconnect=_ASLEEP)
        client.get("/first")
        gone.refuse()
        future = client.send_async("GET", "/x", timeout=0.5)
        _wait_for_the_backoff(client)
        forgotten = weakref.ref(client)
        del client
        gc.collect()

        assert forgotten() is None
        assert isinstance(future.exception(30), DeadlineExceeded)
        eventually(lambda: not our_threads())
        assert_nothing_left(gone.port)


def test_a_disposal_ends_the_probing_of_a_host_that_was_given_up() -> None:
    """FLT-P12: nobody waits for it any more, so there is nothing to wait for."""
    with _lost(_GIVES_UP) as (client, gone, futures):
        assert all(isinstance(future.exception(30), ConnectError) for future in futures)
        assert _state(client) == "failing"
        began = time.monotonic()
        client.dispose()

        assert time.monotonic() - began < SPENT
        assert_nothing_left(gone.port)


# -- in a look-up ----------------------------------------------------------------------------------------


def test_a_disposal_does_not_wait_for_a_look_up_that_hangs() -> None:
    """FLT-P12, N5: its thread cannot be ended, and is left behind."""
    lookup = ScriptedLookup(hangs=True)
    with slow_names(lookup):
        client = Client(base_url="http://slow.invalid")
        futures = [client.send_async("GET", f"/{n}") for n in range(3)]
        lookup.wait_until_present(1)
        began = time.monotonic()
        client.dispose(queued="fail")

        assert time.monotonic() - began < 2 * SPENT
        _assert_disposed(futures)


# -- in a storm ------------------------------------------------------------------------------------------


@pytest.mark.concurrency
@pytest.mark.parametrize("hurry", [{"drain_timeout": 0.05}, {"drain_timeout": 2.0}, {"queued": "fail"}])
def test_a_disposal_in_the_midst_of_drops_and_reconnects_ends_everything_once(hurry: dict[str, object]) -> None:
    """FLT-P12: threads send, connections break at random, the server comes and goes, and then it is over."""

    def breaks(conn: Conn) -> None:
        for _ in range(conn.number % 5):
            conn.send(respond(conn.read_request().target.encode()))
        conn.read_request()
        conn.reset()

    outcomes: list[tuple[ResponseFuture, list[str]]] = []
    with RawServer(always(_once)) as first:
        client = Client(base_url=first.url, reconnect=_SOON, max_conns_per_host=4)
        client.get("/first")
        first.refuse()

    def work(thread: int) -> None:
        for n in range(10_000):
            calls: list[str] = []
            try:
                future = client.send_async("GET", f"/{thread}-{n}", timeout=10)
            except ClientDisposed:
                return
            future.add_done_callback(lambda _, calls=calls: calls.append("called"))  # type: ignore[misc]
            outcomes.append((future, calls))
            if n % 5 == 0:
                future.exception(30)

    with ThreadPoolExecutor(8) as pool:
        working = [pool.submit(work, thread) for thread in range(8)]
        for _ in range(3):
            with RawServer(breaks, port=first.port) as back:
                back.wait_for_connections(10)
        client.dispose(**hurry)  # type: ignore[arg-type]
        assert all(future.done() for future, _ in outcomes)
        assert_nothing_left(first.port)
        for done in working:
            done.result(30)
    eventually(lambda: all(calls == ["called"] for _, calls in outcomes))
    kinds = {type(future.exception()) for future, _ in outcomes}
    assert all(kind is type(None) or issubclass(kind, TurboPoolError) for kind in kinds), kinds
