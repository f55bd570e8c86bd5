"""Many threads that help themselves to idle connections, and what must hold whoever is first: limits, times, books."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tenacity import wait_none

from tests.acceptance.test_nginx import run_threads
from tests.servers.connection import Conn
from tests.servers.nginx import SMALL, Nginx
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, respond
from tests.waiting import PATIENCE, SPENT, eventually
from turbopool import Client, ReconnectOptions, Response, RuntimeStats, TurboPoolError
from turbopool.stats import PoolStats

THREADS = 16


def mirror(request: RawRequest) -> bytes:
    """Answer with the target."""
    return respond(request.target.encode())


def at_rest(client: Client) -> RuntimeStats:
    """The figures, once nothing is under way."""
    eventually(lambda: client.stats().leased == client.stats().waiting == client.stats().connecting == 0)
    return client.stats()


def only(stats: RuntimeStats) -> PoolStats:
    """The figures of the only pool."""
    (pool,) = stats.pools.values()
    return pool


WAYS: list[Callable[[Client, str], Response]] = [
    Client.get,
    lambda client, url: client.send_async("GET", url).result(),
    lambda client, url: client.post(url, content=b"some"),
]


# -- counting --------------------------------------------------------------------------------------------------


@pytest.mark.concurrency
@pytest.mark.parametrize(("limit", "each"), [(1, 125), (4, 1250), (THREADS, 125)])
def test_not_one_of_many_requests_is_lost_or_counted_twice(nginx: Nginx, limit: int, each: int) -> None:
    """BEH-P29, P44, P46: of threads that outnumber the connections, or do not, calling and sending ahead in turn."""
    with Client(base_url=nginx.url, max_conns_per_host=limit) as client:

        def work(thread: int) -> None:
            chance = random.Random(thread)  # noqa: S311 - the same every time
            left = each
            while left:
                if chance.random() < 0.7:
                    assert client.get("/counted").content == SMALL
                    left -= 1
                else:
                    ahead = [client.send_async("GET", "/counted") for _ in range(min(left, chance.randrange(1, 4)))]
                    chance.shuffle(ahead)
                    assert {future.result(PATIENCE).content for future in ahead} == {SMALL}
                    left -= len(ahead)

        run_threads(THREADS, work, patience=2 * PATIENCE)

        pool = only(at_rest(client))
        assert pool.requests == pool.completed == THREADS * each
        assert (pool.failed, pool.cancelled, pool.replays) == (0, 0, 0)
        assert pool.opened - pool.closed == pool.idle <= limit
        assert pool.opened <= limit
        assert nginx.open_connections() == pool.idle


@pytest.mark.concurrency
def test_each_thread_gets_its_own_answers_whatever_way_it_asks() -> None:
    """BEH-H1, H11, P37: over few connections, some of which the server closes, and none beyond the limit."""

    def serves(conn: Conn) -> None:
        for _ in range(5 + conn.number % 40):
            conn.send(mirror(conn.read_request()))
        request = conn.read_request()
        conn.send(respond(request.target.encode(), headers=[("Connection", "close")]))

    with RawServer(serves) as server, Client(base_url=server.url, max_conns_per_host=3) as client:

        def work(thread: int) -> None:
            for n in range(60):
                target = f"/{thread}/{n}"
                assert WAYS[(thread + n) % 3](client, target).content == target.encode()

        run_threads(10, work)
        pool = only(at_rest(client))
        assert server.peak <= 3
        assert pool.requests == pool.completed == 600
        assert len(server.connections) == pool.opened


# -- limits over several keys ----------------------------------------------------------------------------------


def test_the_idle_connection_of_one_key_makes_room_for_another() -> None:
    """BEH-P13, FLT-P1: though only callers use it, and again and again."""
    with (
        RawServer(always(mirror)) as one,
        RawServer(always(mirror)) as other,
        Client(max_total_connections=1) as client,
    ):
        for n in range(20):
            for server in (one, other):
                for _ in range(3):
                    assert client.get(f"{server.url}/{n}").content == f"/{n}".encode()
                assert client.stats().idle == 1
        assert len(one.connections) == len(other.connections) == 20
        assert client.stats().requests == 120
        eventually(lambda: one.open + other.open == 1)


def test_a_key_that_needs_room_is_not_kept_waiting_by_callers_of_another() -> None:
    """BEH-P37, FLT-P1: who never lets a connection rest for long has to close one all the same."""
    over = threading.Event()
    with (
        RawServer(always(mirror)) as busy,
        RawServer(always(mirror)) as other,
        Client(max_total_connections=2) as client,
    ):

        def work(_: int) -> None:
            while not over.is_set():
                client.get(f"{busy.url}/x")

        with ThreadPoolExecutor(4) as threads:
            working = [threads.submit(work, n) for n in range(4)]
            busy.wait_for_requests(100)
            try:
                for n in range(10):
                    assert client.get(f"{other.url}/{n}", timeout=PATIENCE).content == f"/{n}".encode()
            finally:
                over.set()
            for one in working:
                one.result(PATIENCE)
        at_rest(client)
        assert client.stats().idle <= 2
        assert busy.peak <= 2


@pytest.mark.concurrency
def test_many_threads_of_three_keys_share_what_there_is() -> None:
    """BEH-P13, P29, P46: never more than allowed in all, each answer the asker's own, each request counted once."""
    with (
        RawServer(always(mirror)) as one,
        RawServer(always(mirror)) as two,
        RawServer(always(mirror)) as three,
        Client(max_total_connections=3, max_conns_per_host=2) as client,
    ):
        servers = [one, two, three]

        def work(thread: int) -> None:
            chance = random.Random(thread)  # noqa: S311 - the same every time
            for n in range(30):
                target = f"/{thread}/{n}"
                url = servers[chance.randrange(3)].url + target
                assert WAYS[chance.randrange(3)](client, url).content == target.encode()

        run_threads(9, work)
        stats = at_rest(client)
        assert stats.requests == 9 * 30 == sum(pool.completed for pool in stats.pools.values())
        assert stats.opened - stats.closed == stats.idle <= 3
        assert max(server.peak for server in servers) <= 2
        eventually(lambda: sum(server.open for server in servers) == client.stats().idle)


# -- times -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knob", ["idle_timeout", "connection_lifetime"])
def test_connections_that_only_callers_use_end_when_their_time_is_up(knob: str) -> None:
    """BEH-P6, P18, P36, P41, L2: while others come and go; no request fails, and at last none is open."""
    with RawServer(always(mirror)) as server, Client(base_url=server.url, **{knob: 0.1}) as client:

        def work(thread: int) -> None:
            chance = random.Random(thread)  # noqa: S311 - the same every time
            for n in range(8):
                target = f"/{thread}/{n}"
                assert client.post(target).content == target.encode()
                server.closing.wait(chance.choice([0.0, 0.03, 0.1, 0.11]))

        run_threads(8, work)
        server.wait_until(lambda server: all(conn.peer_closed_at for conn in server.connections))
        pool = only(at_rest(client))
        assert (pool.requests, pool.completed, pool.replays) == (64, 64, 0)
        assert pool.opened == pool.closed == len(server.connections) > 1
        for conn in server.connections:
            lasted = (conn.peer_closed_at or 0.0) - (conn.requests[-1].at if conn.requests else conn.accepted_at)
            assert lasted < 0.1 + SPENT


# -- never twice -----------------------------------------------------------------------------------------------


def _leaves(conn: Conn) -> None:
    """Go now and then, by FIN or RST: before, within or after an answer."""
    chance = random.Random(conn.number)  # noqa: S311 - the same every time
    fate = 1.0
    while fate > 0.25:
        answer, fate = mirror(conn.read_request()), chance.random()
        if fate < 0.12:
            answer = answer[: chance.randrange(1, len(answer))]
        if fate > 0.08:
            conn.send(answer)
    chance.choice([conn.close, conn.reset])()


@pytest.mark.concurrency
def test_no_post_is_seen_twice_whenever_the_server_closes() -> None:
    """BEH-R10, FLT-N8, N9, R7: before, within and after an answer; who is told that it was not sent is right."""
    told: list[tuple[str, str, TurboPoolError | None]] = []
    reconnect = ReconnectOptions(wait=wait_none())

    with (
        RawServer(_leaves) as server,
        Client(base_url=server.url, max_conns_per_host=6, reconnect=reconnect) as client,
    ):

        def work(thread: int) -> None:
            chance = random.Random(thread)  # noqa: S311 - the same every time
            for n in range(40):
                method, target = chance.choice(["POST", "POST", "GET"]), f"/{thread}/{n}"
                try:
                    assert client.send(method, target, timeout=PATIENCE).content == target.encode()
                except TurboPoolError as error:
                    told.append((method, target, error))
                else:
                    told.append((method, target, None))

        run_threads(THREADS, work, patience=2 * PATIENCE)

        seen = Counter(request.target for request in server.requests)
        assert len(told) == THREADS * 40
        for method, target, error in told:
            is_unsent = error is not None and error.processed == "no"
            least, most = (0, 0) if is_unsent else (error is None, 1 if method == "POST" else 2)
            assert least <= seen[target] <= most, (method, target, error)
        assert sum(error is None for _, _, error in told) > len(told) / 3
        assert server.peak <= 6
        pool = only(at_rest(client))
        assert pool.opened - pool.closed == pool.idle
        assert pool.completed + pool.failed == len(told)
