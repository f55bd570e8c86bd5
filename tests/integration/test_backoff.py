"""BEH-R6, R7, R13: what may happen while a key backs off, and what its backoff is to others: nothing."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from typing import cast

import pytest
from tenacity import stop_after_attempt

from tests.face.handlers import Echoed, Gate, echo
from tests.faults.aftermath import NEXT, healthy
from tests.integration.gone import NEVER_SOON, SOON, Recorded, backs_off, pool, targets, warm
from tests.servers.raw import RawServer, always
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import (
    Client,
    ClientDisposed,
    ConnectError,
    DeadlineExceeded,
    PoolFull,
    ReconnectOptions,
    ResponseFuture,
)


def test_a_cancel_during_the_backoff_returns_at_once() -> None:
    """BEH-R13: and nothing is left of the request; the others wait on."""
    with warm(NEVER_SOON) as (client, _):
        futures: list[ResponseFuture] = [client.send_async("GET", f"/{n}") for n in range(4)]
        eventually(lambda: backs_off(client))
        began = time.monotonic()
        assert all(future.cancel() for future in futures[1:])
        for future in futures[1:]:
            with pytest.raises(CancelledError):
                future.result(30)
        eventually(lambda: pool(client).waiting == 1)
        client.cancel_pending_requests()
        assert futures[0].cancelled()
        assert time.monotonic() - began < SPENT
        assert (pool(client).waiting, pool(client).cancelled) == (0, 4)


def test_a_disposal_during_the_backoff_ends_at_once_if_the_queue_is_to_fail() -> None:
    """BEH-R6, I16, I17: nothing is dialed afterwards."""
    with warm(NEVER_SOON) as (client, port):
        futures = [client.send_async("GET", f"/{n}") for n in range(4)]
        eventually(lambda: backs_off(client))
        with RawServer(healthy, port=port) as back:
            began = time.monotonic()
            client.dispose(queued="fail")

            assert time.monotonic() - began < SPENT
            errors = [cast("ClientDisposed", future.exception(0)) for future in futures]
            assert {(type(error), error.processed) for error in errors} == {(ClientDisposed, "no")}
            assert back.connections == []


def test_a_disposal_during_the_backoff_lets_the_queue_finish_up_to_its_deadlines() -> None:
    """BEH-R6, R2: what comes back in time is served, and the rest is told so."""
    with warm(max_conns_per_host=1) as (client, port):
        doomed = client.send_async("GET", "/doomed", timeout=0.2)
        futures = [client.send_async("GET", f"/{n}") for n in range(4)]
        eventually(lambda: backs_off(client))
        leaving = threading.Thread(target=client.dispose)
        leaving.start()
        assert isinstance(doomed.exception(30), DeadlineExceeded)
        assert leaving.is_alive()
        with RawServer(always(echo), port=port) as back:
            assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}" for n in range(4)]
            leaving.join(30)
            assert not leaving.is_alive()
            back.wait_until(lambda back: back.open == 0)


def test_the_queue_is_bounded_while_it_waits_and_takes_requests_again_afterwards() -> None:
    """BEH-R7."""
    with warm(max_pending_requests=3, max_conns_per_host=1) as (client, port):
        futures = [client.send_async("GET", f"/{n}") for n in range(10)]
        eventually(lambda: sum(future.done() for future in futures) >= 6)
        refused = [future for future in futures if future.done()]
        assert {type(future.exception(0)) for future in refused} == {PoolFull}
        assert refused == futures[10 - len(refused) :]

        with RawServer(always(echo), port=port) as back:
            kept = futures[: 10 - len(refused)]
            assert [Echoed.of(future.result(30)).target for future in kept] == targets(back)
            assert client.get("/again").is_success


def test_a_dead_host_delays_no_other() -> None:
    """BEH-R13, FLT-P20: one of five backs off for a minute."""
    with ExitStack() as stack, warm(NEVER_SOON) as (client, _):
        others = [stack.enter_context(RawServer(healthy)) for _ in range(4)]
        dead = [client.send_async("GET", f"/{n}") for n in range(20)]
        eventually(lambda: [one for one in client.stats().pools.values() if one.state == "reconnecting"])
        seconds = []
        for n in range(100):
            began = time.monotonic()
            assert client.get(others[n % 4].url).content == NEXT
            seconds.append(time.monotonic() - began)

        assert max(seconds) < SPENT
        assert statistics.median(seconds) < 0.1
        assert not any(future.done() for future in dead)
        client.cancel_pending_requests()


def test_a_dead_host_holds_no_room_that_another_could_use() -> None:
    """BEH-R13, P30: neither while it backs off, nor does it lose its turn when it is back."""
    with RawServer(healthy) as other, warm(max_total_connections=1) as (client, port):
        waits = [client.send_async("GET", f"http://127.0.0.1:{port}/{n}") for n in range(5)]
        eventually(lambda: client.stats().reconnects > 2)

        assert client.get(other.url).content == NEXT

        assert not any(future.done() for future in waits)
        with RawServer(always(echo), port=port) as back:
            assert [Echoed.of(future.result(30)).target for future in waits] == [f"/{n}" for n in range(5)]
            assert len(back.connections) == 1
            assert client.get(other.url).content == NEXT


def test_a_thousand_waiters_make_one_attempt_at_a_time_and_no_stampede() -> None:
    """FLT-P20, I1, I22: however many wait, the host is not overrun when it is back."""
    wait = Recorded()
    with warm(ReconnectOptions(wait=wait, stop=stop_after_attempt(1000)), max_conns_per_host=6) as (client, port):
        futures = [client.send_async("GET", f"/{n}") for n in range(1000)]
        eventually(lambda: len(wait.failed) >= 5)
        with RawServer(always(echo), port=port) as back:
            assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}" for n in range(1000)]
            assert back.peak <= len(back.connections) <= 6
            assert pool(client).reconnects <= len(wait.failed) + 6
            assert (pool(client).completed, pool(client).failed, pool(client).replays) == (1001, 0, 0)


# -- what waits to be sent again -------------------------------------------------------------------------------


@contextmanager
def dropped(timeout: float = 20) -> Iterator[tuple[Client, int, ResponseFuture]]:
    """A GET that was under way when the server went; it waits to be sent again."""
    with ExitStack() as stack:
        server = stack.enter_context(RawServer(Gate()))
        with Client(base_url=server.url, reconnect=SOON, max_conns_per_host=1) as client:
            client.get("/fast")
            future = client.send_async("GET", "/x", timeout=timeout)
            eventually(lambda: len(server.requests) == 2 or future.done())
            stack.close()
            eventually(lambda: backs_off(client) or future.done())
            reached(not future.done())
            yield client, server.port, future


def test_what_is_cancelled_while_it_waits_to_be_sent_again_is_not_sent_again() -> None:
    """BEH-R13, R10."""
    with dropped() as (client, port, future):
        assert future.cancel()
        eventually(lambda: pool(client).waiting == 0)
        with RawServer(always(echo), port=port) as back:
            assert client.get("/next").is_success
            assert targets(back) == ["/next"]


@with_short_times
def test_what_ends_while_it_waits_to_be_sent_again_may_have_been_processed(short: float) -> None:
    """BEH-R10, I27: it is late, but it was sent."""
    with dropped(timeout=5 * short) as (_, _, future):
        error = future.exception(30)
        assert isinstance(error, DeadlineExceeded)
        assert (error.phase, error.processed, error.request_sent, error.may_retry) == ("queue", "maybe", True, True)
        assert isinstance(error.__cause__, ConnectError)
