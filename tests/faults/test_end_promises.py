"""What is promised of the end of a client, wherever it stands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.face.handlers import echo, silent
from tests.face.remains import assert_nothing_left
from tests.faults import process
from tests.faults.perils import answers_once
from tests.integration.gone import NEVER_SOON, SOON, backs_off, pool, warm
from tests.servers.blackhole import Blackhole
from tests.servers.certs import Authority
from tests.servers.raw import RawServer, always
from tests.waiting import eventually
from turbopool import Client, ClientDisposed, ReconnectOptions, ResponseFuture

SOON_DONE = 10.0
"""Seconds an end may take on a busy machine; to be waited for there would be a minute."""
GIVES_UP = ReconnectOptions(wait=wait_fixed(0.01), stop=stop_after_attempt(2))

Stage = Callable[[], AbstractContextManager[tuple[Client, list[ResponseFuture]]]]


# -- wherever a client stands when it is disposed of --------------------------------------------------------


@contextmanager
def _backing_off() -> Iterator[tuple[Client, list[ResponseFuture]]]:
    with warm(NEVER_SOON, request_timeout=60) as (client, _):
        futures = [client.send_async("GET", "/x") for _ in range(20)]
        eventually(lambda: backs_off(client))
        yield client, futures


@contextmanager
def _reconnecting_all_the_time() -> Iterator[tuple[Client, list[ResponseFuture]]]:
    with warm(SOON, request_timeout=60) as (client, _):
        futures = [client.send_async("GET", "/x") for _ in range(20)]
        eventually(lambda: pool(client).reconnects > 2)
        yield client, futures


@contextmanager
def _failing() -> Iterator[tuple[Client, list[ResponseFuture]]]:
    with warm(GIVES_UP, request_timeout=60) as (client, _):
        futures = [client.send_async("GET", "/x") for _ in range(20)]
        eventually(lambda: pool(client).state == "failing")
        yield client, futures


@contextmanager
def _connecting() -> Iterator[tuple[Client, list[ResponseFuture]]]:
    with Blackhole() as hole, Client(request_timeout=60, connect_timeout=60) as client:
        futures = [client.send_async("GET", hole.url) for _ in range(20)]
        eventually(lambda: client.stats().connecting)
        yield client, futures


@contextmanager
def _under_way_and_queued() -> Iterator[tuple[Client, list[ResponseFuture]]]:
    with RawServer(silent) as server, Client(base_url=server.url, request_timeout=60) as client:
        futures = [client.send_async("GET", "/x") for _ in range(20)]
        server.wait_for_requests(6)
        yield client, futures


@contextmanager
def _never_used() -> Iterator[tuple[Client, list[ResponseFuture]]]:
    with Client() as client:
        yield client, []


STAGES = [_backing_off, _reconnecting_all_the_time, _failing, _connecting, _under_way_and_queued, _never_used]


@pytest.mark.parametrize("stage", STAGES)
def test_a_disposal_ends_in_time_from_several_threads_and_again(stage: Stage) -> None:
    """I15, I16, FLT-P12: nobody is raised at, each request has an outcome, and nothing is left when they return."""
    with stage() as (client, futures):
        ready = threading.Barrier(4)

        def dispose(n: int) -> float:
            ready.wait(30)
            began = time.monotonic()
            client.dispose(drain_timeout=0.1 * n, queued="fail" if n % 2 else "finish")
            client.dispose()
            return time.monotonic() - began

        with ThreadPoolExecutor(4) as threads:
            took = [done.result(30) for done in [threads.submit(dispose, n) for n in range(4)]]

        assert max(took) < SOON_DONE
        assert all(future.done() for future in futures)
        assert all(isinstance(future.exception(), ClientDisposed) or stage is _failing for future in futures)
        assert client.stats().pools == {}
        with pytest.raises(ClientDisposed):
            client.get("http://127.0.0.1:9/")
        assert_nothing_left()


@pytest.mark.parametrize("stage", [_backing_off, _failing, _connecting])
def test_a_patient_disposal_is_bounded_by_the_deadlines_of_those_who_wait(stage: Stage) -> None:
    """I15, I16: without a drain_timeout; a server that is gone, or never was there, does not prolong it."""
    with stage() as (client, futures):
        client.cancel_pending_requests()
        (key,) = client.stats().pools
        late = client.send_async("GET", key.origin, timeout=0.5)
        began = time.monotonic()

        client.dispose()

        assert time.monotonic() - began < SOON_DONE
        assert late.exception(0) is not None
        assert all(future.done() for future in futures)
        assert_nothing_left()


def test_nothing_of_a_client_outlives_its_disposal(authority: Authority) -> None:
    """I14: no thread, descriptor, actor and dispatcher when it returns; no object, timer and finalizer once let go.

    In a process of its own, whose first client has made what is made once and kept.
    """
    script = """
        import gc, weakref
        from concurrent.futures import wait
        from tenacity import wait_fixed
        from tests.chaos.remains import living
        from tests.face.remains import assert_nothing_left
        from turbopool.actors.hub import live_hubs

        echo, silent, hole, gone, secure, ca = sys.argv[1:]

        def use():
            client = Client(reconnect=ReconnectOptions(wait=wait_fixed(60)), verify=ca, request_timeout=60)
            client.get(echo)
            client.get(secure)
            client.get(gone + "/answer")
            futures = [client.send_async("GET", url) for url in (echo, silent, hole, gone, secure) for _ in range(10)]
            futures[0].add_done_callback(lambda _: None)
            futures[10].cancel()
            with client.stream("GET", echo) as response:
                pass
            unread = client.stream("GET", secure).__enter__()
            eventually(lambda: client.stats().connecting and client.stats().waiting)
            eventually(lambda: "reconnecting" in [pool.state for pool in client.stats().pools.values()])
            client.dispose(drain_timeout=0.1)
            assert_nothing_left()
            assert all(future.done() for future in futures)
            unread.close()

        use()
        before, objects, finalizers = Held.now(), living(), len(weakref.finalize._registry)
        for _ in range(3):
            use()
            assert not Held.now().beyond(before), Held.now().beyond(before)
        left = living() - objects
        assert not left, left
        assert len(weakref.finalize._registry) == finalizers
        print("nothing")
    """

    with ExitStack() as stack:
        plain = stack.enter_context(RawServer(always(echo)))
        secure = stack.enter_context(RawServer(always(echo), ssl_context=authority.server_context()))
        mute = stack.enter_context(RawServer(silent))
        hole = stack.enter_context(Blackhole())
        flaps = stack.enter_context(RawServer(answers_once))

        urls = [plain.url, mute.url, hole.url, flaps.url, secure.url]
        assert process.run(script, *urls, str(authority.ca_file)) == "nothing\n"
