"""FLT-P1, P4, P9, P10, P21: a pool that is full, flooded, given back to twice, and asked for much more at once."""

from __future__ import annotations

import ast
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import psutil
import pytest

import turbopool
from tests.face.handlers import Gate
from tests.faults.aftermath import NEXT, assert_balanced, assert_recovered, healthy
from tests.faults.phases import shared_hub
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, respond
from tests.waiting import PATIENCE, SPENT, eventually, reached, with_short_times
from turbopool import Client, PoolFull, PoolTimeout, StreamClosed, Timeout

_MIB = 1 << 20


def _named(request: RawRequest) -> bytes:
    return respond(request.target.encode())


# -- P1: all places are taken ----------------------------------------------------------------------------


@with_short_times
def test_those_who_wait_too_long_leave_and_the_rest_are_served_in_their_order(short: float) -> None:
    """FLT-P1: every other one has a bound on its wait; the queue is as short as those who still stand in it."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        holder = client.send_async("GET", "/held")
        server.wait_for_requests(1)
        waiters = [
            client.send_async("GET", f"/{n}", timeout=Timeout(60, queue=2 * short) if n % 2 else 60) for n in range(10)
        ]
        eventually(lambda: client.stats().waiting == 10 or any(waiter.done() for waiter in waiters))
        if any(waiter.done() for waiter in waiters):
            gate.opened.set()
        reached(not any(waiter.done() for waiter in waiters))
        began = time.monotonic()
        errors = [cast("PoolTimeout", waiter.exception(30)) for waiter in waiters[1::2]]

        assert time.monotonic() - began < 2 * short + SPENT
        for error in errors:
            assert type(error) is PoolTimeout
            assert (error.phase, error.processed, error.may_retry) == ("queue", "no", True)
            assert (error.facts["limit"], error.facts["leased"]) == (1, 1)
        assert client.stats().waiting == 5
        gate.opened.set()
        assert all(future.result(30).is_success for future in (holder, *waiters[::2]))
        assert [request.target for request in server.requests[1:]] == ["/0", "/2", "/4", "/6", "/8"]
        assert_balanced(client, server, connections=1, never_sent=5)


def test_a_place_that_becomes_free_the_moment_a_wait_ends_is_lost_to_nobody() -> None:
    """FLT-P1: releases and timeouts, over and over at the same moment."""

    def slow(conn: Conn) -> None:
        while True:
            conn.read_request()
            server.closing.wait(0.02)
            conn.send(respond(NEXT))

    with RawServer(slow) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        futures = [client.send_async("GET", "/x", timeout=Timeout(10, queue=0.02 * n)) for n in range(1, 30)]
        outcomes = [type(future.exception(30)) for future in futures]

        assert set(outcomes) <= {type(None), PoolTimeout}
        assert_recovered(client, server, connections=1, never_sent=outcomes.count(PoolTimeout))


# -- P4: given back twice --------------------------------------------------------------------------------


@pytest.mark.concurrency
def test_what_is_given_back_again_and_again_by_many_threads_counts_once() -> None:
    """FLT-P4: never more places than there are, never fewer; who reads on is told that it is closed."""

    def half(conn: Conn) -> None:
        while conn.read_request().target != "/stream":
            conn.send(respond(NEXT))
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        conn.hold()

    with (
        RawServer(half) as server,
        Client(base_url=server.url, max_conns_per_host=2) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        for _ in range(30):
            with client.stream("GET", "/stream") as response:
                pieces = response.iter_bytes()
                assert next(pieces) == b"12345"
                closes = [pool.submit(response.close) for _ in range(8)]
                others = [client.send_async("GET", "/whole") for _ in range(6)]
                for close in closes:
                    close.result(30)
                with pytest.raises(StreamClosed):
                    next(pieces)
            response.close()
            assert [other.result(30).content for other in others] == [NEXT] * 6

        assert server.peak <= 2
        assert_balanced(client, server, connections=client.stats().opened)


@pytest.mark.concurrency
def test_cancelling_what_is_done_gives_nothing_back_a_second_time() -> None:
    """FLT-P4: the connection of a finished request is another's by then."""
    with (
        RawServer(always(_named)) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        done = [client.send_async("GET", f"/{n}") for n in range(100)]
        for future in done:
            future.result(30)
        cancels = [pool.submit(lambda: [future.cancel() for future in done]) for _ in range(4)]
        later = [client.send_async("GET", f"/later/{n}") for n in range(100)]

        assert [future.result(30).text for future in later] == [f"/later/{n}" for n in range(100)]
        assert not any(any(cancel.result(30)) for cancel in cancels)
        assert_balanced(client, server, connections=1)


# -- P9: more than the queue takes -----------------------------------------------------------------------


def test_a_flood_is_refused_at_once_and_takes_no_memory() -> None:
    """FLT-P9: a hundred times what may wait, while nothing moves."""
    gate = Gate(respond(NEXT))
    with (
        RawServer(gate) as server,
        Client(base_url=server.url, max_conns_per_host=1, max_pending_requests=100) as client,
    ):
        held = [client.send_async("GET", f"/{n}") for n in range(101)]
        eventually(lambda: client.stats().waiting == 100)
        process = psutil.Process()
        _flood(client, 1000)  # what is allocated once
        before = process.memory_info().rss
        began = time.monotonic()
        _flood(client, 9000)

        assert process.memory_info().rss - before < 8 * _MIB
        assert time.monotonic() - began < 20
        assert client.stats().waiting == 100
        gate.opened.set()
        assert all(future.result(30).content == NEXT for future in held)
        assert_recovered(client, server, connections=1, never_sent=10_000)


def _flood(client: Client, count: int) -> None:
    refused = []
    for n in range(count):
        refused.append(client.send_async("GET", f"/{n}"))
        if len(refused) == 100:
            for future in refused:
                error = future.exception(30)
                assert isinstance(error, PoolFull)
                assert error.facts["option"] == "max_pending_requests"
            refused.clear()


@pytest.mark.parametrize("warm", [True, False], ids=["known", "new"])
def test_a_flood_while_the_dispatcher_is_busy_is_refused_down_to_the_bound(warm: bool) -> None:  # noqa: FBT001
    """FLT-P9: a known key's mailbox takes no more than may wait; a new one's requests are counted when it is made."""
    busy = threading.Event()
    with (
        shared_hub() as hub,
        RawServer(healthy) as server,
        Client(base_url=server.url, max_conns_per_host=2, max_pending_requests=100) as client,
    ):
        if warm:
            client.get("/first")
        hub.dispatcher.post(lambda: _wait_for(busy))
        try:
            futures = [client.send_async("GET", f"/{n}") for n in range(1000)]
            refused_at_once = sum(future.done() for future in futures)
        finally:
            busy.set()
        errors = [future.exception(30) for future in futures]

        assert not warm or refused_at_once >= 890
        assert {type(error) for error in errors} == {PoolFull, type(None)}
        assert errors[:100] == [None] * 100  # who came first is served
        assert errors.count(None) <= 103
        assert client.get("/next").content == NEXT


def _wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


# -- P10: nobody asks ------------------------------------------------------------------------------------


def test_no_code_of_ours_ever_asks_an_actor_or_waits_for_one_to_stop() -> None:
    """FLT-P10: an actor that asks another may wait for itself. Told is all they are."""
    offences = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path in Path(turbopool.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _waits_for_an_actor(node)
    ]

    assert offences == []


def _waits_for_an_actor(call: ast.Call) -> bool:
    function = cast("ast.Attribute", call.func)
    owner = ast.unparse(function.value).lower()
    if function.attr == "stop":  # of a reference it waits, unless told not to
        return owner.endswith("ref") and "block=False" not in ast.unparse(call)
    if function.attr == "get":  # of a future of Pykka's
        return "ask(" in owner or owner.endswith("reply_to")
    return function.attr in {"ask", "proxy", "stop_all"}


# -- P21: a spike ----------------------------------------------------------------------------------------


@pytest.mark.concurrency
def test_a_spike_opens_no_more_connections_than_the_limit_and_serves_everybody() -> None:
    """FLT-P21: from one request to 500 at once, of 50 threads."""
    with RawServer(always(_named)) as server, Client(base_url=server.url) as client, ThreadPoolExecutor(50) as pool:
        assert client.get("/first").text == "/first"
        start = threading.Barrier(50)

        def work(thread: int) -> None:
            start.wait(30)
            futures = [client.send_async("GET", f"/{thread}/{n}") for n in range(10)]
            assert [future.result(30).text for future in futures] == [f"/{thread}/{n}" for n in range(10)]

        for done in [pool.submit(work, thread) for thread in range(50)]:
            done.result(30)

        assert server.peak <= 6
        assert client.stats().opened == len(server.connections) <= 6
        assert_balanced(client, server, connections=client.stats().opened)


def test_a_request_takes_the_connection_that_is_free_first_and_not_the_one_made_for_it(authority: Authority) -> None:
    """FLT-P21: late binding: its dial hangs in the handshake when another is released."""
    held, secure = threading.Event(), threading.Event()

    def handler(conn: Conn) -> None:
        assert conn.number == 0 or secure.wait(PATIENCE)
        conn.start_tls(authority.server_context())
        while True:
            request = conn.read_request()
            assert request.target != "/held" or held.wait(PATIENCE)
            conn.send(_named(request))

    with RawServer(handler) as server:
        url = f"https://127.0.0.1:{server.port}"
        with Client(base_url=url, verify=authority.ca_file, max_conns_per_host=2) as client:
            first = client.send_async("GET", "/held")
            server.wait_for_requests(1)
            second = client.send_async("GET", "/second")
            server.wait_for_connections(2)
            held.set()

            assert [first.result(30).text, second.result(30).text] == ["/held", "/second"]
            assert [request.connection for request in server.requests] == [0, 0]
            assert (client.stats().idle, client.stats().connecting) == (1, 1)
            secure.set()
            eventually(lambda: client.stats().idle == 2)
            assert_balanced(client, server, connections=2)
