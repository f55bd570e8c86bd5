"""Statistics: a snapshot that is true, and the key of a pool."""

from __future__ import annotations

import dataclasses
import pickle
import threading

import pytest

from tests.face.handlers import AnyForm, Gate, echo, silent
from tests.servers.blackhole import Blackhole, refusing_port
from tests.servers.certs import Authority
from tests.servers.raw import RawServer, always
from tests.waiting import eventually, reached, with_short_times
from turbopool import Client, ConnectError, DeadlineExceeded, PoolKey, PoolStats, RuntimeStats

# -- keys ----------------------------------------------------------------------------------------------------


def test_keys_are_equal_when_all_their_parts_are() -> None:
    """BEH-L6: reflexive, symmetric, transitive, equal hashes."""
    a, b, c = (PoolKey.of("http", "example.com", 8080, "1.1") for _ in range(3))

    assert a == a == b == c == a  # noqa: PLR0124  # reflexive
    assert b == a
    assert hash(a) == hash(b) == hash(c)
    assert {a: 1}[b] == 1


@pytest.mark.parametrize(
    "other",
    [
        PoolKey.of("https", "example.com", 8080, "1.1"),
        PoolKey.of("http", "example.org", 8080, "1.1"),
        PoolKey.of("http", "example.com", 8081, "1.1"),
        PoolKey.of("http", "example.com", 8080, "1.0"),
        PoolKey.of("http", "example.com", 8080, "1.1", identity="another"),
    ],
)
def test_keys_that_differ_in_one_part_are_different(other: PoolKey) -> None:
    """BEH-L6, P42."""
    assert PoolKey.of("http", "example.com", 8080, "1.1") != other


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (PoolKey.of("HTTP", "EXAMPLE.com"), PoolKey.of("http", "example.com", 80)),
        (PoolKey.of("https", "example.com."), PoolKey.of("https", "example.com", 443)),
        (PoolKey.of("http", "127.0.0.1"), PoolKey("http", "127.0.0.1", 80, "1.1")),
        (PoolKey.of("http", "::1", 81), PoolKey("http", "::1", 81, "1.1", None)),
        (PoolKey.of("wss", "example.com"), PoolKey.of("wss", "example.com", 443)),
        (PoolKey.of("ws", "example.com"), PoolKey.of("ws", "example.com", 80)),
    ],
)
def test_what_a_person_writes_becomes_the_same_key(one: PoolKey, same: PoolKey) -> None:
    """BEH-L6: case-insensitive host and scheme, default ports, IP addresses, wss."""
    assert one == same
    assert hash(one) == hash(same)


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        (PoolKey.of("http", "example.com"), "http://example.com:80"),
        (PoolKey.of("https", "::1", 444), "https://[::1]:444"),
    ],
)
def test_a_key_names_its_origin(key: PoolKey, origin: str) -> None:
    """BEH-L6."""
    assert key.origin == origin


@pytest.mark.parametrize(
    ("url", "count"),
    [
        ("http://LOCALHOST:{port}/x", 1),
        ("http://localhost.:{port}/x", 1),
        ("http://127.0.0.1:{port}/x", 2),
    ],
)
def test_urls_that_mean_the_same_server_share_a_pool(server: RawServer, url: str, count: int) -> None:
    """BEH-L6, P13, P34."""
    with Client() as client:
        client.get(f"http://localhost:{server.port}/x")
        client.get(url.format(port=server.port))

        assert len(client.stats().pools) == len(server.connections) == count


def test_versions_have_pools_of_their_own(client: Client) -> None:
    """BEH-P42."""
    for version in ("1.0", "1.1"):
        client.get("/x", http_version=version)

    assert sorted(key.version for key in client.stats().pools) == ["1.0", "1.1"]


def test_a_client_that_verifies_never_shares_with_one_that_does_not(authority: Authority) -> None:
    """BEH-P42, F2."""
    with RawServer(always(echo), ssl_context=authority.server_context()) as server:
        keys = set()
        for verify in (str(authority.ca_file), False):
            with Client(base_url=server.url, verify=verify) as client:
                client.get("/x")
                keys |= set(client.stats().pools)

    assert len(keys) == 2


# -- snapshots -----------------------------------------------------------------------------------------------


def only(client: Client) -> PoolStats:
    """Return the statistics of the only pool there is."""
    (pool,) = client.stats().pools.values()
    return pool


def test_a_client_that_did_nothing_has_no_pools() -> None:
    with Client() as client:
        stats = client.stats()

    assert stats == RuntimeStats()
    assert stats.pools_are_ours
    assert (stats.leased, stats.idle, stats.connecting, stats.waiting) == (0, 0, 0, 0)
    assert (stats.opened, stats.closed, stats.requests) == (0, 0, 0)


def test_a_request_is_seen_on_its_way_through_the_pool() -> None:
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, max_conns_per_host=2) as client:
        futures = [client.send_async("GET", f"/{n}") for n in range(5)]
        eventually(lambda: (client.stats().leased, client.stats().requests) == (2, 2))
        before = only(client)
        gate.opened.set()
        for future in futures:
            future.result()
        after = only(client)

    assert before == PoolStats(
        limit=2, leased=2, in_flight=2, idle=0, connecting=0, waiting=3, opened=2, closed=0, requests=2, completed=0,
        failed=0, cancelled=0, replays=0, reconnects=0, state="cold",
    )  # fmt: skip
    assert (after.leased, after.waiting, after.completed, after.requests, after.opened) == (0, 0, 5, 5, 2)
    assert after.idle + after.closed == 2


def test_whoever_sees_the_response_sees_its_connection_idle_and_its_request_counted(client: Client) -> None:
    for n in range(1, 50):
        client.get("/x")
        pool = only(client)

        assert (pool.leased, pool.idle, pool.requests, pool.completed) == (0, 1, n, n)


def test_connections_being_established_are_counted() -> None:
    with Blackhole() as hole, Client(base_url=hole.url, max_conns_per_host=3) as client:
        futures = [client.send_async("GET", "/x") for _ in range(5)]
        eventually(lambda: (client.stats().connecting, client.stats().waiting) == (3, 5))
        assert client.stats().opened == 0
        for future in futures:
            future.cancel()
        eventually(lambda: (only(client).waiting, only(client).cancelled) == (0, 5))


@with_short_times
def test_failures_and_cancels_are_counted_apart(short: float) -> None:
    with RawServer([silent, silent, always(echo)]) as server, Client(base_url=server.url) as client:
        with pytest.raises(DeadlineExceeded):
            client.get("/x", timeout=short)
        reached(server.requests)
        future = client.send_async("GET", "/x")
        server.wait_for_requests(2)
        future.cancel()
        client.get("/x")
        eventually(lambda: only(client).closed == 2)

        pool = only(client)
        assert (pool.requests, pool.completed, pool.failed, pool.cancelled) == (3, 1, 1, 1)
        assert (pool.opened, pool.closed, pool.idle, pool.leased) == (3, 2, 1, 0)


def test_a_refused_connect_is_a_failure_without_a_connection() -> None:
    with refusing_port() as port, Client(base_url=f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ConnectError):
            client.get("/x")

        pool = only(client)
        assert (pool.opened, pool.requests, pool.failed, pool.connecting, pool.waiting) == (0, 0, 1, 0, 0)


def test_totals_are_sums_over_the_pools() -> None:
    with RawServer(always(echo)) as one, RawServer(always(echo)) as two, Client() as client:
        for url in (one.url, two.url, two.url):
            client.get(url)
        stats = client.stats()

        assert (stats.idle, stats.opened, stats.requests, stats.leased) == (2, 2, 3, 0)
        assert {key.port: pool.requests for key, pool in stats.pools.items()} == {one.port: 1, two.port: 2}


def test_a_connection_the_server_closed_is_counted_as_closed() -> None:
    with RawServer(always(echo)) as server, Client(base_url=server.url) as client:
        client.get("/x")
        server.connections[0].cut()

        eventually(lambda: (only(client).idle, only(client).closed) == (0, 1))


def test_a_snapshot_does_not_change_and_can_be_kept(client: Client) -> None:
    client.get("/x")
    before = client.stats()
    client.get("/x")

    assert before.requests == 1
    assert client.stats().requests == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.pools_are_ours = False  # type: ignore[misc]  # that is the point
    assert pickle.loads(pickle.dumps(before)) == before  # noqa: S301  # bytes of our own


@pytest.mark.concurrency
def test_statistics_are_consistent_while_requests_run(client: Client) -> None:
    """Never more connections than the limit, never less than nothing."""
    end = threading.Event()
    seen: list[PoolStats] = []

    def look() -> None:
        while not end.is_set():
            seen.extend(client.stats().pools.values())

    looking = threading.Thread(target=look)
    looking.start()
    futures: list[AnyForm] = [client.send_async("GET", f"/{n}") for n in range(200)]
    for future in futures:
        assert future.result(30).is_success
    end.set()
    looking.join(30)

    assert seen
    for pool in seen:
        assert min(value for value in dataclasses.asdict(pool).values() if isinstance(value, int)) >= 0
        assert pool.leased + pool.connecting <= pool.limit
        assert pool.completed <= pool.requests <= 200
