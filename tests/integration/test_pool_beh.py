"""BEH-P: what the pool promises, seen from the caller's side and from the server's at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import ExitStack

import pytest

from tests.face.handlers import Echoed, Gate, echo, silent
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, respond
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import Client, Http1Options, ResponseFuture, TurboPoolError

"""Seconds a timer may fire late on a busy machine."""


@pytest.fixture
def server() -> Iterator[RawServer]:
    """A server that answers every request with what it saw."""
    with RawServer(always(echo)) as running:
        yield running


def targets(server: RawServer) -> list[str]:
    """Return what was asked for, in order."""
    return [request.target for request in server.requests]


# -- P13, P29, P44: keys and reuse ---------------------------------------------------------------------------


def test_different_hosts_keep_separate_pools_each_reusing_its_own_connection(server: RawServer) -> None:
    """BEH-P13, P34."""
    with RawServer(always(echo)) as other, Client() as client:
        for n in range(10):
            for one in (server, other):
                assert Echoed.of(client.get(f"{one.url}/{n}")).connection == 0

        pools = {key.port: pool for key, pool in client.stats().pools.items()}
        assert set(pools) == {server.port, other.port}
        for one in (server, other):
            assert targets(one) == [f"/{n}" for n in range(10)]
            assert (pools[one.port].opened, pools[one.port].requests, pools[one.port].idle) == (1, 10, 1)


def test_one_host_under_two_names_is_two_keys(server: RawServer) -> None:
    """BEH-P13, P42: connections go by what was asked for, not by where it led."""
    with Client() as client:
        client.get(f"http://127.0.0.1:{server.port}/")
        client.get(f"http://localhost:{server.port}/")

        assert sorted(key.host for key in client.stats().pools) == ["127.0.0.1", "localhost"]
        assert len(server.connections) == 2


@pytest.mark.parametrize("count", [2, 200])
def test_sequential_requests_use_one_connection(server: RawServer, count: int) -> None:
    """BEH-P44, P2: however many, and of whatever method."""
    with Client(base_url=server.url) as client:
        for n in range(count):
            assert Echoed.of(client.request(("GET", "POST")[n % 2], f"/{n}")).connection == 0

        assert client.stats().opened == 1
        assert client.stats().idle == 1
    assert len(server.connections) == 1


def test_sequential_requests_of_many_threads_in_turn_use_one_connection(server: RawServer) -> None:
    """BEH-P44: whose thread it is does not matter."""
    with Client(base_url=server.url) as client:
        for _ in range(10):
            with ThreadPoolExecutor(1) as pool:
                assert Echoed.of(pool.submit(client.get, "/x").result(30)).connection == 0
    assert len(server.connections) == 1


def test_256_queued_requests_drain_without_deadlock() -> None:
    """BEH-P29, P26."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url) as client:
        futures = [client.send_async("GET", f"/{n}") for n in range(256)]
        eventually(lambda: (client.stats().leased, client.stats().waiting) == (6, 250))
        gate.opened.set()

        assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}" for n in range(256)]
        assert server.peak == len(server.connections) == 6
        assert (client.stats().idle, client.stats().requests) == (6, 256)


def test_several_keys_work_in_parallel_whatever_one_of_them_does() -> None:
    """BEH-P29: a full queue of one key holds up no other."""
    with ExitStack() as stack:
        stuck = stack.enter_context(RawServer(silent))
        servers = [stack.enter_context(RawServer(always(echo))) for _ in range(4)]
        client = stack.enter_context(Client(http1=Http1Options(max_connections_per_server=2)))
        hung = [client.send_async("GET", stuck.url) for _ in range(50)]
        eventually(lambda: client.stats().waiting == 48)

        futures = [client.send_async("GET", f"{servers[n % 4].url}/{n}") for n in range(256)]

        assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}" for n in range(256)]
        assert all(server.peak <= 2 for server in servers)
        assert not any(future.done() for future in hung)
        client.cancel_pending_requests()


# -- P31: HTTP/1.0 -------------------------------------------------------------------------------------------


def test_http_1_0_takes_a_new_connection_each_time_and_disposes_of_it(server: RawServer) -> None:
    """BEH-P31, H10: also when the server would keep it."""
    with Client(base_url=server.url, http_version="1.0") as client:
        assert [Echoed.of(client.get(f"/{n}")).connection for n in range(5)] == [0, 1, 2, 3, 4]

        (pool,) = client.stats().pools.values()
        assert (pool.opened, pool.closed, pool.idle) == (5, 5, 0)
        server.wait_until(lambda server: all(conn.peer_closed_at for conn in server.connections))
        assert {request.version for request in server.requests} == {"HTTP/1.0"}


def test_http_1_0_obeys_the_limit_too() -> None:
    """BEH-P31, P35."""
    gate = Gate()
    with (
        RawServer(gate) as server,
        Client(base_url=server.url, http_version="1.0", http1=Http1Options(max_connections_per_server=2)) as client,
    ):
        futures = [client.send_async("GET", f"/{n}") for n in range(9)]
        server.wait_for_requests(2)
        gate.opened.set()

        assert sorted(Echoed.of(future.result(30)).connection for future in futures) == list(range(9))
        assert server.peak <= 2


# -- P35: the limit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "limit"),
    [
        ({}, 6),
        ({"http1": Http1Options(max_connections_per_server=1)}, 1),
        ({"http1": Http1Options(max_connections_per_server=9)}, 9),
        ({"max_conns_per_host": 3}, 3),
        ({"max_conns_per_host": 3, "http1": Http1Options(max_connections_per_server=9)}, 3),
        ({"max_total_connections": 2}, 2),
    ],
)
def test_no_more_connections_are_open_than_the_limit_allows(knobs: dict[str, object], limit: int) -> None:
    """BEH-P35: 6 by default; the limit is reached, and never passed."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, **knobs) as client:
        futures = [client.send_async("GET", f"/{n}") for n in range(3 * limit)]
        server.wait_for_requests(limit)
        eventually(lambda: client.stats().waiting == 2 * limit)
        assert client.stats().leased == limit
        gate.opened.set()

        assert all(future.result(30).is_success for future in futures)
        assert server.peak == len(server.connections) == limit


@pytest.mark.parametrize("value", [-1, 0, -6])
def test_a_limit_below_one_is_refused_by_name(value: int) -> None:
    """BEH-P35."""
    with pytest.raises(ValueError, match="max_connections_per_server"):
        Http1Options(max_connections_per_server=value)


@with_short_times
def test_a_release_frees_exactly_one_place_however_the_exchange_ended(short: float) -> None:
    """BEH-P35, P24: the count never drifts, up or down."""

    def handler(conn: Conn) -> None:
        request = conn.read_request()
        if request.target == "/close":
            conn.send(respond(b"x", headers=[("Connection", "close")]))
        elif request.target == "/reset":
            conn.reset()
        elif request.target == "/garbage":
            conn.send(b"garbage\r\n\r\n")
        elif request.target == "/silent":
            conn.hold()
        else:
            conn.send(respond(b"x"))
            conn.hold()

    with RawServer(handler) as server, Client(base_url=server.url, max_conns_per_host=2) as client:
        for _ in range(5):
            for target in ("/close", "/reset", "/garbage", "/silent"):
                future = client.send_async("POST", target, content=b"x", timeout=short if target == "/silent" else 20)
                future.exception(30)
        reached(len(server.requests) == 20)
        last = client.send_async("POST", "/silent", content=b"x")
        server.wait_for_requests(21)
        last.cancel()
        eventually(lambda: client.stats().leased == client.stats().waiting == client.stats().connecting == 0)

        (pool,) = client.stats().pools.values()
        assert (pool.opened - pool.closed, pool.idle) == (0, 0)
        assert client.get("/ok").content == b"x"
        assert server.peak <= 2
        server.wait_until(lambda server: server.open == 1)


def test_the_case_of_a_host_does_not_matter(server: RawServer) -> None:
    """BEH-P35, L6: one pool, one limit, one connection."""
    with Client() as client:
        for host in ("localhost", "LOCALHOST", "LocalHost", "localhost."):
            assert Echoed.of(client.get(f"http://{host}:{server.port}/")).connection == 0

        assert [key.host for key in client.stats().pools] == ["localhost"]


# -- P36: the idle timeout -----------------------------------------------------------------------------------


@with_short_times
def test_the_idle_timeout_closes_the_socket_and_is_measured_from_the_release(short: float) -> None:
    """BEH-P36, P6: a request that takes longer than the timeout keeps its connection."""
    idle_timeout = 2.5 * short
    answered: list[float] = []

    def handler(conn: Conn) -> None:
        for delay in (0.0, 2 * idle_timeout):
            conn.read_request()
            peer.closing.wait(delay)
            answered.append(time.monotonic())
            conn.send(respond(b"x"))
        conn.hold()

    with RawServer(handler) as peer, Client(base_url=peer.url, idle_timeout=idle_timeout) as client:
        client.get("/first")
        client.get("/long")
        idle = client.stats().idle
        reached(time.monotonic() - answered[-1] < idle_timeout)
        reached(peer.requests[1].at - answered[0] < idle_timeout)
        assert len(peer.connections) == 1
        assert idle == 1

        peer.wait_until(lambda peer: peer.connections[0].peer_closed_at)

        closed_at = peer.connections[0].peer_closed_at
        assert closed_at is not None
        assert idle_timeout <= closed_at - answered[-1] < idle_timeout + SPENT
        eventually(lambda: client.stats().idle == 0 and client.stats().closed == 1)


def test_each_connection_is_evicted_at_its_own_time_and_those_in_use_are_kept() -> None:
    """BEH-P36, P7: an idle connection beside a busy one goes, the busy one stays."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, idle_timeout=0.15) as client:
        busy = client.send_async("GET", "/busy")
        server.wait_for_requests(1)
        client.get("/fast")

        server.wait_until(lambda server: len(server.connections) == 2)
        eventually(lambda: client.stats().closed == 1)

        assert not busy.done()
        assert (client.stats().leased, client.stats().idle) == (1, 0)
        assert server.connections[0].is_open()
        gate.opened.set()
        assert Echoed.of(busy.result(30)).connection == 0


@pytest.mark.parametrize("never", [None, 0])
def test_without_an_idle_timeout_nothing_is_evicted(server: RawServer, never: float | None) -> None:
    """BEH-P36, P10: beside a client of the same server whose connection is."""
    with (
        Client(base_url=server.url, idle_timeout=never) as patient,
        Client(base_url=server.url, idle_timeout=0.1) as hasty,
    ):
        patient.get("/patient")
        hasty.get("/hasty")

        server.wait_until(lambda server: server.connections[1].peer_closed_at)

        assert Echoed.of(patient.get("/again")).connection == 0


# -- P37: first come, first served ---------------------------------------------------------------------------


def test_those_who_wait_are_served_in_the_order_they_came() -> None:
    """BEH-P37, P26: seen at the server, over one connection."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        futures = [client.send_async("GET", f"/{n}") for n in range(100)]
        server.wait_for_requests(1)
        for cancelled in futures[10:90:10]:
            cancelled.cancel()
        gate.opened.set()
        served = [n for n in range(100) if n not in range(10, 90, 10)]
        for n in served:
            futures[n].result(30)

        assert targets(server) == [f"/{n}" for n in served]


@pytest.mark.concurrency
def test_a_late_request_never_overtakes_one_that_waits() -> None:
    """BEH-P37: each newcomer asks the moment a connection is released, while others wait for it."""
    with RawServer(always(echo)) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        asked: list[str] = []
        order = threading.Lock()

        def work(thread: int) -> None:
            for n in range(40):
                with order:  # what is asked for under one lock has an order of its own
                    asked.append(f"/{thread}/{n}")
                    future = client.send_async("GET", f"/{thread}/{n}")
                future.result(30)

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, thread) for thread in range(8)]:
                done.result(30)

        assert targets(server) == asked
        assert len(server.connections) == 1


# -- P45, P46: nothing grows, nothing is lost ----------------------------------------------------------------


def test_a_cancelled_waiter_is_gone_at_once() -> None:
    """BEH-P45: the queue does not grow under cancels, and its bound counts the living alone."""
    with (
        RawServer(silent) as server,
        Client(base_url=server.url, max_conns_per_host=1, max_pending_requests=10) as client,
    ):
        holder = client.send_async("GET", "/holder")
        server.wait_for_requests(1)
        for _ in range(50):
            futures = [client.send_async("GET", "/x") for _ in range(10)]
            eventually(lambda: client.stats().waiting == 10)
            for future in futures:
                assert future.cancel()
            eventually(lambda: client.stats().waiting == 0)

        (pool,) = client.stats().pools.values()
        assert (pool.leased, pool.failed, pool.cancelled, pool.opened) == (1, 0, 500, 1)
        assert not holder.done()
        assert len(server.requests) == 1
        holder.cancel()


def storm_of(seed: int, clients: list[Client], urls: list[str], count: int) -> tuple[int, int]:
    """Send and cancel at random; return how many were answered and how many were not."""
    chance = random.Random(seed)  # noqa: S311  # the same storm every time
    futures: list[ResponseFuture] = []
    for _ in range(count):
        path = chance.choice(["/keep", "/keep", "/keep", "/close", "/reset", "/cut"])
        futures.append(chance.choice(clients).send_async("GET", chance.choice(urls) + path, timeout=20))
        if chance.random() < 0.25:
            chance.choice(futures).cancel()
        if chance.random() < 0.05:
            wait([chance.choice(futures)], 20)
    answered = 0
    for future in futures:
        try:
            answered += future.result(30).is_success
        except (CancelledError, TurboPoolError):
            continue
    return answered, count - answered


@pytest.mark.concurrency
def test_no_connection_is_lost_in_a_storm_of_requests_cancels_and_broken_connections() -> None:
    """BEH-P46: leased, idle and connecting are the open sockets, per key and in all; the limits hold throughout."""
    totals: list[int] = []
    servers: list[RawServer] = []

    def handler(conn: Conn) -> None:
        totals.append(sum(server.open for server in servers))
        while True:
            target = conn.read_request().target
            if target == "/reset":
                conn.reset()
                return
            if target == "/cut":
                conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                return
            conn.send(respond(b"x", headers=[("Connection", "close")] if target == "/close" else []))
            if target == "/close":
                return

    with ExitStack() as stack:
        servers.extend(stack.enter_context(RawServer(handler)) for _ in range(3))
        client = stack.enter_context(Client(max_conns_per_host=3, max_total_connections=5))
        pool = stack.enter_context(ThreadPoolExecutor(6))
        urls = [server.url for server in servers]

        outcomes = [done.result(40) for done in [pool.submit(storm_of, seed, [client], urls, 80) for seed in range(6)]]

        assert sum(answered for answered, _ in outcomes) > 100
        eventually(lambda: client.stats().leased == client.stats().waiting == client.stats().connecting == 0)
        stats = {key.port: one for key, one in client.stats().pools.items()}
        for server in servers:
            one = stats[server.port]
            assert one.opened - one.closed == one.idle
            server.wait_until(lambda server, one=one: server.open == one.idle)  # type: ignore[misc]  # bound here
            assert server.peak <= 3
        assert max(totals) <= 5
        assert sum(one.completed + one.failed + one.cancelled for one in stats.values()) == 480
        for url in urls:
            assert client.get(url + "/keep").content == b"x"


# -- P47: half-closed connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", [Conn.shutdown_write, Conn.close, Conn.reset])
def test_an_idle_connection_that_the_server_closed_is_not_lent(method: str, end: object) -> None:
    """BEH-P47, P17, R11: no request is spent on finding out."""
    ended = threading.Event()

    def first(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(b"first"))
        assert released.wait(30)
        end(conn)  # type: ignore[operator]  # one of the ways
        ended.set()
        if conn.closed_at is None:
            conn.hold()

    released = threading.Event()
    with RawServer([first, always(respond(b"second"))]) as server, Client(base_url=server.url) as client:
        assert client.request(method, "/1", content=b"x").content == b"first"
        released.set()
        assert ended.wait(30)

        assert client.request(method, "/2", content=b"x").content == b"second"

        assert [request.connection for request in server.requests] == [0, 1]
        (pool,) = client.stats().pools.values()
        assert (pool.requests, pool.closed, pool.failed) == (2, 1, 0)


@pytest.mark.concurrency
def test_a_connection_that_closes_the_moment_it_was_released_costs_no_idempotent_request() -> None:
    """BEH-P47, R10, R11: whether the close is seen before the hand-out, or the request after it is sent again."""

    def handler(conn: Conn) -> None:
        for _ in range(10):  # so rarely that the replays stay within their budget, a fifth of the requests
            conn.read_request()
            conn.send(respond(b"x"))

    with RawServer(handler) as server, Client(base_url=server.url, max_conns_per_host=2) as client:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(client.get, f"/{n}") for n in range(200)]
            assert [future.result(30).content for future in futures] == [b"x"] * 200

        assert sorted(set(targets(server))) == sorted(f"/{n}" for n in range(200))
        assert len(server.requests) == 200
        assert server.peak <= 2


def test_bytes_nobody_asked_for_make_an_idle_connection_unfit() -> None:
    """BEH-P47: they must never become the answer of the next request."""
    said = threading.Event()

    def first(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(b"first"))
        assert released.wait(30)
        conn.send(respond(b"POISON"))
        said.set()
        conn.hold()

    def answer(request: RawRequest) -> bytes:
        return respond(request.target.encode())

    released = threading.Event()
    with RawServer([first, always(answer)]) as server, Client(base_url=server.url) as client:
        client.get("/1")
        released.set()
        assert said.wait(30)

        assert client.post("/2", content=b"x").content == b"/2"
        assert [request.connection for request in server.requests] == [0, 1]
