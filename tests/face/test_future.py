"""The future: a real `concurrent.futures.Future`, that can be cancelled at any phase and ends by itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager

import pytest

from tests.face.handlers import AnyForm, Echoed, Gate, echo, first_left, half, silent
from tests.servers.blackhole import Blackhole
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always, script
from tests.servers.wire import respond
from tests.waiting import PATIENCE, SPENT, eventually, reached, with_short_times
from turbopool import (
    Client,
    ConnectError,
    DeadlineExceeded,
    ManagerCrashed,
    ReadError,
    RemoteProtocolError,
    ResponseFuture,
)
from turbopool.actors.hub import live_hubs
from turbopool.future import GRACE

# -- the standard protocol -----------------------------------------------------------------------------------


def test_it_is_a_future_of_the_standard_library(client: Client) -> None:
    future = client.send_async("GET", "/x")

    assert isinstance(future, Future)
    assert future.result(timeout=30).is_success
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert future.exception() is None
    assert future.result() is future.result()
    assert "finished" in repr(future)


def test_wait_returns_when_all_or_the_first_are_done() -> None:
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url) as client:
        fast = client.send_async("GET", "/fast")
        slow = client.send_async("GET", "/slow")

        first = wait([fast, slow], return_when=FIRST_COMPLETED, timeout=20)
        assert (first.done, first.not_done) == ({fast}, {slow})
        assert wait([fast, slow], timeout=0.01).not_done == {slow}
        gate.opened.set()
        assert wait([fast, slow], timeout=20).done == {fast, slow}
        assert wait([fast, slow], timeout=20).not_done == set()


def test_as_completed_yields_each_future_once_in_the_order_they_end(client: Client) -> None:
    futures = [client.send_async("GET", f"/{n}") for n in range(50)]

    ended = list(as_completed(futures, timeout=10))

    assert len(ended) == 50
    assert set(ended) == set(futures)
    assert list(as_completed(futures, timeout=10)) != []


def test_ours_may_wait_together_with_those_of_an_executor(client: Client) -> None:
    with ThreadPoolExecutor(1) as pool:
        mixed: list[Future[AnyForm]] = [client.send_async("GET", "/x"), pool.submit(int)]

        assert set(as_completed(mixed, timeout=20)) == set(mixed)


def test_a_failure_reaches_result_exception_and_waiters() -> None:
    def reset(conn: Conn) -> None:
        conn.read_request()
        conn.reset()

    with RawServer(reset) as server, Client(base_url=server.url) as client:
        future = client.send_async("POST", "/x")
        assert wait([future], timeout=20).done == {future}

        error = future.exception()
        assert isinstance(error, ReadError | RemoteProtocolError)
        with pytest.raises(type(error)) as caught:
            future.result()
        assert caught.value is error


def test_result_and_exception_give_up_after_their_own_timeout_and_the_request_goes_on() -> None:
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        for call in (future.result, future.exception):
            for seconds in (0.01, 0, -1):
                with pytest.raises(concurrent.futures.TimeoutError):
                    call(timeout=seconds)
        assert not future.done()
        gate.opened.set()

        assert future.result(timeout=30).is_success
        assert future.exception(timeout=0) is None


def test_asking_again_and_again_holds_no_memory() -> None:
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        gc.collect()
        before = len(gc.get_objects()) + sum(len(held) for held in gc.get_objects() if type(held) is list)
        for _ in range(2000):
            with pytest.raises(TimeoutError):
                future.result(timeout=0)
        gc.collect()
        after = len(gc.get_objects()) + sum(len(held) for held in gc.get_objects() if type(held) is list)
        gate.opened.set()

        assert after - before < 1000
        assert future.result().is_success


def test_running_means_that_a_connection_carries_it() -> None:
    with RawServer(silent) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        carried = client.send_async("GET", "/carried")
        server.wait_for_requests(1)
        queued = client.send_async("GET", "/queued")
        eventually(lambda: client.stats().waiting == 1)

        assert (carried.running(), queued.running()) == (True, False)
        assert carried.cancel()
        eventually(queued.running)
        assert queued.cancel()
        assert not queued.running()


@pytest.mark.parametrize("count", [2, 8])
def test_several_threads_may_wait_for_one_future(count: int) -> None:
    gate = Gate()
    with RawServer(gate) as server, ThreadPoolExecutor(count) as pool, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        waiting = [pool.submit(future.result, 10) for _ in range(count)]
        gate.opened.set()

        assert {id(one.result(30)) for one in waiting} == {id(future.result())}


def test_a_future_that_nobody_keeps_completes_all_the_same(client: Client, server: RawServer) -> None:
    gone = weakref.ref(client.send_async("GET", "/x"))

    server.wait_for_requests(1)
    eventually(lambda: client.stats().idle == 1)
    eventually(lambda: gc.collect() >= 0 and gone() is None)


def test_a_response_that_nobody_keeps_is_freed_without_the_garbage_collector(client: Client) -> None:
    gc.disable()
    try:
        future = client.send_async("GET", "/x")
        future.result()
        gone = weakref.ref(future)
        del future
        eventually(lambda: gone() is None)
    finally:
        gc.enable()


# -- callbacks -----------------------------------------------------------------------------------------------


class Calls:
    """Notes calls of callbacks: which, on which thread."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._changed = threading.Condition()
        self.names: list[str] = []
        self.threads: list[str] = []
        self.futures: list[Future[AnyForm]] = []

    def __call__(self, name: str) -> AnyForm:
        """Return a callback of that name."""

        def callback(future: Future[AnyForm]) -> None:
            with self._changed:
                self.names.append(name)
                self.threads.append(threading.current_thread().name)
                self.futures.append(future)
                self._changed.notify_all()

        return callback

    def wait(self) -> None:
        """Wait until as many calls were made as expected."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.names) >= self._expected, 5), self.names


def test_callbacks_are_called_in_order_off_the_dispatcher_with_the_future() -> None:
    gate, calls = Gate(), Calls(5)
    with RawServer(gate) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        for name in "abcde":
            future.add_done_callback(calls(name))
        gate.opened.set()
        calls.wait()

    assert calls.names == list("abcde")
    assert calls.futures == [future] * 5
    assert len(set(calls.threads)) == 1
    assert "dispatcher" not in calls.threads[0]


def test_a_callback_of_a_failed_request_is_called_off_the_dispatcher() -> None:
    calls = Calls(1)
    with Blackhole() as hole, Client(base_url=hole.url) as client:
        future = client.send_async("GET", "/x", timeout=0.05)
        future.add_done_callback(calls("a"))
        calls.wait()

        assert isinstance(future.exception(), DeadlineExceeded)
    assert "dispatcher" not in calls.threads[0]


def test_a_callback_added_to_a_finished_future_is_called_at_once_and_here(client: Client) -> None:
    calls = Calls(1)
    future = client.send_async("GET", "/x")
    future.result()
    wait([future])

    future.add_done_callback(calls("late"))

    assert (calls.names, calls.threads) == (["late"], [threading.current_thread().name])


def test_a_callback_of_a_cancelled_future_is_called_once_by_whoever_cancels() -> None:
    calls = Calls(1)
    with RawServer(silent) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        future.add_done_callback(calls("a"))

        assert future.cancel()
        assert future.cancel()

        assert (calls.names, calls.threads) == (["a"], [threading.current_thread().name])
        assert calls.futures[0].cancelled()


class Strange(BaseException):
    """Not an Exception, like what ends threads and tasks."""


@pytest.mark.parametrize("error", [ValueError("mine"), Strange("mine"), asyncio.CancelledError("mine")])
def test_a_callback_that_raises_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    gate, calls = Gate(), Calls(2)

    def bad(_: Future[AnyForm]) -> None:
        raise error

    with RawServer(gate) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        future.add_done_callback(calls("before"))
        future.add_done_callback(bad)
        future.add_done_callback(calls("after"))
        gate.opened.set()
        calls.wait()

        assert future.result().is_success
        assert client.get("/next").is_success
    assert calls.names == ["before", "after"]
    assert "mine" in caplog.text


def test_a_callback_that_blocks_harms_nobody(client: Client) -> None:
    release, calls = threading.Event(), Calls(1)
    for _ in range(10):
        client.send_async("GET", "/x").add_done_callback(lambda _: release.wait(PATIENCE))
    try:
        other = client.send_async("GET", "/y")
        other.add_done_callback(calls("other"))

        assert Echoed.of(other.result(30)).target == "/y"
        calls.wait()
        assert client.get("/z").is_success
    finally:
        release.set()


def test_a_callback_may_send_and_wait_for_another_request(client: Client) -> None:
    found: Future[str] = Future()

    def follow(future: Future[AnyForm]) -> None:
        found.set_result(Echoed.of(client.get("/second")).target + Echoed.of(future.result()).target)

    client.send_async("GET", "/first").add_done_callback(follow)

    assert found.result(30) == "/second/first"


# -- asyncio -------------------------------------------------------------------------------------------------


def test_a_future_can_be_awaited(client: Client) -> None:
    async def main() -> list[str]:
        one = await client.send_async("GET", "/one")
        rest = await asyncio.gather(*(asyncio.wrap_future(client.send_async("GET", f"/{n}")) for n in range(20)))
        return [Echoed.of(response).target for response in (one, *rest)]

    assert asyncio.run(main()) == ["/one", *(f"/{n}" for n in range(20))]


def test_an_awaited_failure_is_raised_in_the_coroutine() -> None:
    async def main(url: str) -> None:
        with Client() as client:
            await client.send_async("GET", url, timeout=0.05)

    with Blackhole() as hole, pytest.raises(DeadlineExceeded):
        asyncio.run(main(hole.url))


def test_cancelling_the_task_that_waits_cancels_the_request() -> None:
    async def main(client: Client, server: RawServer) -> ResponseFuture:
        future = client.send_async("GET", "/x")

        async def waits() -> None:
            await future

        task = asyncio.create_task(waits())
        await asyncio.to_thread(server.wait_for_requests, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return future

    with RawServer(silent) as server, Client(base_url=server.url) as client:
        future = asyncio.run(main(client, server))

        assert future.cancelled()
        server.wait_until(first_left)


@with_short_times
def test_a_timeout_of_asyncio_cancels_the_request(short: float) -> None:
    async def main(client: Client) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(client.send_async("GET", "/x")), short)

    with RawServer(silent) as server, Client(base_url=server.url) as client:
        asyncio.run(main(client))
        reached(server.requests)
        server.wait_until(first_left)


def test_cancelling_all_pending_requests_ends_those_who_await() -> None:
    """BEH-C4."""

    async def main(client: Client, server: RawServer) -> None:
        waiting = asyncio.gather(
            *(asyncio.wrap_future(client.send_async("GET", f"/{n}")) for n in range(10)), return_exceptions=True
        )
        await asyncio.to_thread(server.wait_for_requests, 6)
        client.cancel_pending_requests()
        outcomes = await asyncio.wait_for(waiting, 5)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 10

    with RawServer(silent) as server, Client(base_url=server.url) as client:
        asyncio.run(main(client, server))


def test_a_loop_that_was_closed_meanwhile_harms_nobody() -> None:
    gate = Gate()

    async def main(client: Client) -> ResponseFuture:
        future = client.send_async("GET", "/x")
        asyncio.wrap_future(future)
        return future

    with RawServer(gate) as server, Client(base_url=server.url) as client:
        future = asyncio.run(main(client))
        gate.opened.set()

        assert future.result(30).is_success
        assert client.get("/next").is_success


# -- cancel, at every phase ----------------------------------------------------------------------------------


@contextmanager
def _queued() -> Iterator[tuple[Client, ResponseFuture]]:
    with RawServer(silent) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first")
        server.wait_for_requests(1)
        future = client.send_async("GET", "/second")
        eventually(lambda: client.stats().waiting == 1)
        yield client, future
        eventually(lambda: client.stats().waiting == 0)
        assert first.running()
        assert first.cancel()
        assert len(server.requests) == 1


@contextmanager
def _connecting() -> Iterator[tuple[Client, ResponseFuture]]:
    with Blackhole() as hole, Client(base_url=hole.url) as client:
        future = client.send_async("GET", "/x")
        eventually(lambda: client.stats().connecting == 1)
        yield client, future
        eventually(lambda: client.stats().waiting == 0)


@contextmanager
def _waiting_for_the_response() -> Iterator[tuple[Client, ResponseFuture]]:
    with RawServer(silent) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        server.wait_for_requests(1)
        yield client, future
        server.wait_until(first_left)
        eventually(lambda: client.stats().leased == client.stats().idle == 0)


@contextmanager
def _receiving() -> Iterator[tuple[Client, ResponseFuture]]:
    with RawServer(half) as server, Client(base_url=server.url) as client:
        future = client.send_async("GET", "/x")
        server.wait_for_requests(1)
        yield client, future
        server.wait_until(first_left)
        eventually(lambda: client.stats().leased == client.stats().idle == 0)


@contextmanager
def _just_sent() -> Iterator[tuple[Client, ResponseFuture]]:
    with RawServer(silent) as server, Client(base_url=server.url) as client:
        yield client, client.send_async("GET", "/x")
        eventually(lambda: client.stats().leased == client.stats().waiting == 0)


@pytest.mark.parametrize("phase", [_just_sent, _queued, _connecting, _waiting_for_the_response, _receiving])
def test_a_request_can_be_cancelled_at_any_phase_and_its_waiters_hear_of_it_once(phase: AnyForm) -> None:
    """BEH-P45 among others: what it holds is given back at once."""
    calls = Calls(1)
    with phase() as (client, future), ThreadPoolExecutor(3) as pool:
        future.add_done_callback(calls("called"))
        waits = pool.submit(wait, [future], 10)
        completes = pool.submit(lambda: list(as_completed([future], 10)))
        blocks = pool.submit(future.exception, 10)
        eventually(lambda: len(future._waiters) == 2)  # noqa: SLF001  # there is no public way to see who waits

        assert future.cancel()

        assert waits.result(30).done == {future}
        assert completes.result(30) == [future]
        with pytest.raises(CancelledError):
            blocks.result(30)
        assert future.cancel()
        assert (future.cancelled(), future.done(), future.running()) == (True, True, False)
        with pytest.raises(CancelledError):
            future.result()
        with pytest.raises(CancelledError):
            future.exception()
        eventually(lambda: sum(pool.cancelled for pool in client.stats().pools.values()) == 1)
    assert calls.names == ["called"]


def test_a_finished_request_cannot_be_cancelled(client: Client) -> None:
    answered = client.send_async("GET", "/x")
    answered.result()

    assert not answered.cancel()
    assert not answered.cancelled()
    assert answered.result().is_success


def test_a_failed_request_cannot_be_cancelled() -> None:
    with Client(base_url="http://127.0.0.1:1") as client:
        failed = client.send_async("GET", "/x")
        assert isinstance(failed.exception(), ConnectError)

        assert not failed.cancel()
        assert isinstance(failed.exception(), ConnectError)


def test_the_place_of_a_cancelled_request_is_taken_by_the_next() -> None:
    """BEH-P16, P45."""
    with RawServer([silent, always(echo)]) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first")
        server.wait_for_requests(1)
        others = [client.send_async("GET", f"/{n}") for n in range(4)]
        assert others[0].cancel()
        assert others[2].cancel()

        assert first.cancel()

        assert Echoed.of(others[1].result(30)).target == "/1"
        assert Echoed.of(others[3].result(30)).target == "/3"
        assert [request.target for request in server.requests] == ["/first", "/1", "/3"]


def test_cancelling_one_request_of_a_connection_about_to_be_reused_harms_no_other() -> None:
    """BEH-H9: the half-read answer of a cancelled request is never another's."""
    with RawServer([half, always(echo)]) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first")
        second = client.send_async("GET", "/second")
        server.wait_for_requests(1)
        assert first.cancel()

        assert Echoed.of(second.result(30)).target == "/second"
        assert len(server.connections) == 2


# -- the end that comes by itself ----------------------------------------------------------------------------


@contextmanager
def _stuck_dispatcher() -> Iterator[None]:
    """Hold the dispatcher's thread fast."""
    (hub,) = live_hubs()
    release = threading.Event()

    def stick() -> None:
        release.wait(PATIENCE)

    hub.dispatcher.post(stick)
    try:
        yield
    finally:
        release.set()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.send_async("POST", "/x", content=iter([b"x"]), timeout=0.1).result(),
        lambda client: client.send_async("POST", "/x", content=iter([b"x"]), timeout=0.1).result(timeout=60),
        lambda client: client.post("/x", content=iter([b"x"]), timeout=0.1),
    ],
)
def test_waiting_ends_at_the_deadline_and_a_grace_when_the_runtime_is_stuck(client: Client, call: AnyForm) -> None:
    """With a request that only the dispatcher can send."""
    client.get("/x")
    with _stuck_dispatcher():
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not answer") as caught:
            call(client)
        waited = time.monotonic() - began

    assert 0.1 + GRACE <= waited < 0.1 + GRACE + SPENT
    assert caught.value.processed == "maybe"
    assert client.get("/after").is_success


def test_a_callback_hears_of_the_end_that_came_by_itself(client: Client) -> None:
    calls = Calls(1)
    client.get("/x")
    with _stuck_dispatcher():
        future = client.send_async("GET", "/x", timeout=0.05)
        future.add_done_callback(calls("called"))

        assert isinstance(future.exception(), DeadlineExceeded)
        calls.wait()

    assert "dispatcher" not in calls.threads[0]


def test_a_dispatcher_that_died_is_replaced_and_what_it_held_ends() -> None:
    with RawServer([silent, always(echo)]) as server, Client(base_url=server.url) as client:
        held = client.send_async("GET", "/held", timeout=60)
        server.wait_for_requests(1)
        (hub,) = live_hubs()
        hub.dispatcher.stop()

        assert Echoed.of(client.get("/after")).connection == 1
        assert isinstance(error := held.exception(), ManagerCrashed)
        assert error.processed == "maybe"
        server.wait_until(first_left)
        assert live_hubs() != [hub]


def test_the_future_keeps_neither_the_client_nor_the_connection_alive() -> None:
    with RawServer(script(respond(b"kept"))) as server:
        client = Client(base_url=server.url)
        future = client.send_async("GET", "/x")
        future.result()
        gone = weakref.ref(client)
        del client

        eventually(lambda: gc.collect() >= 0 and gone() is None)
        assert future.result().content == b"kept"
