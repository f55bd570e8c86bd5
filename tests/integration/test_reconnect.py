"""BEH-R1..R15: a server that answered and is gone for a while. The exact schedule is tested on a clock of its own."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from typing import cast

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.face.handlers import Echoed, Gate, echo
from tests.faults.aftermath import NEXT, assert_balanced, healthy
from tests.integration.gone import NEVER_SOON, SOON, Recorded, backs_off, pool, targets, warm
from tests.servers.blackhole import refusing_port
from tests.servers.raw import RawServer, always
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import (
    Client,
    ConnectError,
    DeadlineExceeded,
    PoolTimeout,
    ReconnectOptions,
    Timeout,
    TurboPoolError,
)

# -- the queue waits, and is replayed --------------------------------------------------------------------------


def test_the_queue_waits_for_the_server_and_is_replayed_in_order_with_later_requests_behind() -> None:
    """BEH-R1, R2, R9, R14."""
    with warm(max_conns_per_host=1) as (client, port):
        assert (pool(client).state, pool(client).reconnects) == ("open", 0)  # R4: nobody asked for anything
        futures = [client.send_async("POST", f"/{n}") for n in range(10)]
        eventually(lambda: pool(client).reconnects > 3)
        assert (pool(client).state, pool(client).waiting) == ("reconnecting", 10)
        futures += [client.send_async("POST", f"/{n}") for n in range(10, 20)]

        with RawServer(always(echo), port=port) as back:
            assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}" for n in range(20)]
            assert targets(back) == [f"/{n}" for n in range(20)]
            assert len(back.connections) == 1
            assert pool(client).state == "open"
            assert (pool(client).replays, pool(client).failed) == (0, 0)  # none was ever sent before


def test_what_was_in_flight_goes_first_if_it_may_be_repeated_and_fails_if_not() -> None:
    """BEH-R1, R2, R10: dropped in the middle, with a queue behind."""
    with ExitStack() as stack:
        server = stack.enter_context(RawServer(Gate()))
        with Client(base_url=server.url, reconnect=SOON, max_conns_per_host=2) as client:
            client.get("/fast")
            get = client.send_async("GET", "/get")
            server.wait_for_requests(2)
            post = client.send_async("POST", "/post")
            server.wait_for_requests(3)
            queued = [client.send_async("POST", f"/{n}") for n in range(5)]
            stack.close()
            error = cast("TurboPoolError", post.exception(30))
            assert (error.processed, error.may_retry, error.attempts) == ("maybe", False, 1)
            eventually(lambda: backs_off(client))
            assert not get.done()
            assert pool(client).waiting == 6

            with RawServer(always(echo), port=server.port) as back:
                assert all(future.result(30).is_success for future in (get, *queued))
                assert sorted(targets(back)) == ["/0", "/1", "/2", "/3", "/4", "/get"]
                assert "/get" in {conn.requests[0].target for conn in back.connections if conn.requests}
                assert (pool(client).replays, pool(client).failed) == (1, 1)


def test_a_drop_of_one_connection_among_several_is_made_good_at_once() -> None:
    """BEH-R1, R3: no backoff while the server answers."""
    gate = Gate()

    with RawServer(gate) as server, Client(base_url=server.url, reconnect=NEVER_SOON, max_conns_per_host=3) as client:
        client.get("/fast")
        futures = [client.send_async("GET", f"/{n}") for n in range(6)]
        server.wait_for_requests(4)
        server.connections[1].cut()
        server.wait_for_requests(5)  # the one that was dropped
        gate.opened.set()

        assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}" for n in range(6)]
        assert pool(client).state == "open"
        assert_balanced(client, server, connections=4, replays=1)


@with_short_times
def test_each_waiter_keeps_its_own_deadline_and_is_told_why_it_waited(short: float) -> None:
    """BEH-R1, I6: queue timeouts as well as totals."""
    with warm() as (client, _):
        began = time.monotonic()
        limits = [2 * short, 2.5 * short, 3 * short, 3.5 * short]
        totals = [client.send_async("GET", "/x", timeout=limit) for limit in limits]
        queues = [client.send_async("GET", "/x", timeout=Timeout(60, queue=limit)) for limit in limits]
        eventually(lambda: pool(client).state == "reconnecting" or totals[0].done() or queues[0].done())
        reached(not totals[0].done() and not queues[0].done())
        for limit, *futures in zip(limits, totals, queues, strict=True):
            errors = [future.exception(30) for future in futures]
            assert limit <= time.monotonic() - began < limit + SPENT
            assert [type(error) for error in errors] == [DeadlineExceeded, PoolTimeout]
            for error in errors:
                assert isinstance(error, TurboPoolError)
                assert (error.phase, error.processed, error.may_retry) == ("queue", "no", True)
                assert isinstance(error.__cause__, ConnectError)
                assert error.__cause__.errno == errno.ECONNREFUSED
        assert pool(client).waiting == 0


# -- the attempts end ------------------------------------------------------------------------------------------


def test_when_the_attempts_end_all_fail_with_one_cause_and_later_ones_at_once_until_a_probe_succeeds() -> None:
    """BEH-R3, R15: each has an error of its own."""
    with warm(ReconnectOptions(wait=wait_fixed(0.05), stop=stop_after_attempt(3))) as (client, port):
        futures = [client.send_async("GET", f"/{n}") for n in range(8)]
        errors = [cast("ConnectError", future.exception(30)) for future in futures]

        assert {type(error) for error in errors} == {ConnectError}
        assert len({id(error) for error in errors}) == 8
        assert len({id(error.__cause__) for error in errors}) == 1
        assert {(error.errno, error.attempts, error.processed) for error in errors} == {(errno.ECONNREFUSED, 3, "no")}
        assert (pool(client).state, pool(client).reconnects) == ("failing", 2)  # the first was a dial like any other

        began, later = time.monotonic(), [client.send_async("GET", "/later").exception(30) for _ in range(50)]
        elapsed = time.monotonic() - began
        assert elapsed < SPENT
        assert {type(error) for error in later} == {ConnectError}
        assert pool(client).reconnects <= 3 + elapsed / 0.05

        with RawServer(healthy, port=port) as back:
            eventually(lambda: pool(client).state != "failing")
            assert client.get("/x").content == NEXT
            assert pool(client).state == "open"
            assert targets(back) == ["/x"]


def test_the_count_of_attempts_begins_anew_after_an_answer() -> None:
    """BEH-R7, R13."""
    wait = Recorded()
    with warm(ReconnectOptions(wait=wait, stop=stop_after_attempt(1000))) as (client, port):
        for _ in range(2):
            wait.failed.clear()
            future = client.send_async("GET", "/x")
            eventually(lambda: len(wait.failed) >= 4)
            with RawServer(healthy, port=port):
                assert future.result(30).content == NEXT
            eventually(lambda: client.stats().idle == 0)
            assert wait.failed == list(range(1, len(wait.failed) + 1))


# -- the first connect -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("patient", [False, True])
def test_a_server_that_never_answered_is_waited_for_only_on_request(patient: bool) -> None:  # noqa: FBT001
    """BEH-R14: refused first, then up."""
    options = ReconnectOptions(wait=wait_fixed(0.05), stop=stop_after_attempt(1000), first_connect=patient)
    with refusing_port() as port, Client(base_url=f"http://127.0.0.1:{port}", reconnect=options) as client:
        futures = [client.send_async("GET", f"/{n}") for n in range(5)]
        if patient:
            eventually(lambda: pool(client).reconnects > 2)
            assert not any(future.done() for future in futures)
        else:
            assert {type(future.exception(30)) for future in futures} == {ConnectError}
            assert (pool(client).state, pool(client).reconnects) == ("cold", 0)
        assert pool(client).waiting == (5 if patient else 0)
        client.cancel_pending_requests()


def test_a_patient_first_connect_is_answered_when_the_server_comes() -> None:
    """BEH-R14: and each by what it asked for."""
    with RawServer(healthy) as server:
        server.refuse()
        options = ReconnectOptions(wait=wait_fixed(0.05), stop=stop_after_attempt(1000), first_connect=True)
        with Client(base_url=server.url, reconnect=options) as client:
            futures = [client.send_async("POST", f"/{n}") for n in range(20)]
            eventually(lambda: backs_off(client))
            with RawServer(always(echo), port=server.port) as late:
                assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}" for n in range(20)]
                assert len(late.requests) == 20
