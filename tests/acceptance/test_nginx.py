"""The pools against a real nginx: connections are counted by its log and by the kernel, never by the client."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers.connection import Conn
from tests.servers.nginx import SMALL, Nginx
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import Client, Response

BOUND = 30.0
"""Seconds nothing here may take; a hang ends as an error."""


def run_threads(count: int, task: Callable[[int], object], patience: float = BOUND) -> None:
    """Call ``task`` with 0, 1, 2, ... on as many threads that all begin at once; raise what one of them raised."""
    begin = threading.Barrier(count)

    def run(number: int) -> None:
        begin.wait(BOUND)
        task(number)

    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(run, number) for number in range(count)]:
            done.result(patience)


# -- how many connections ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [Client.get, lambda client, url: client.send_async("GET", url).result()],
    ids=["send", "send_async"],
)
def test_thousand_sequential_requests_use_one_connection(
    nginx: Nginx, path: str, call: Callable[[Client, str], Response]
) -> None:
    """BEH-P44."""
    with Client(base_url=nginx.url) as client:
        assert {call(client, path).content for _ in range(1000)} == {SMALL}
        assert nginx.open_connections() == 1

    lines = nginx.log(path, at_least=1000)
    assert [line.nth for line in lines] == list(range(1, 1001))
    assert len({line.connection for line in lines}) == 1


@pytest.mark.concurrency
def test_sixty_four_threads_never_have_more_than_six_connections(nginx: Nginx, path: str) -> None:
    """BEH-P35, P46: the default limit."""
    open_now: list[int] = []
    with Client(base_url=nginx.url) as client, ThreadPoolExecutor(1) as aside:
        crowd = aside.submit(run_threads, 64, lambda _: [client.get(path) for _ in range(25)])
        while not crowd.done():
            looks = [nginx.open_connections() for _ in range(2)]  # one alone may see what never was at once
            open_now.append(min(looks))
            concurrent.futures.wait([crowd], timeout=0.001)
        crowd.result()

    assert 1 < max(open_now) <= 6
    assert 1 < len(nginx.connections(path, at_least=64 * 25)) <= 6


def test_http_1_0_opens_a_connection_for_each_request(nginx: Nginx, path: str) -> None:
    """BEH-P31, H10."""
    with Client(base_url=nginx.url, http_version="1.0") as client:
        run_threads(8, lambda _: [client.get(path) for _ in range(5)])
        eventually(lambda: nginx.open_connections() == 0)

    lines = nginx.log(path, at_least=40)
    assert len({line.connection for line in lines}) == 40
    assert {(line.protocol, line.nth, line.status) for line in lines} == {("HTTP/1.0", 1, 200)}


def test_mixed_methods_of_many_threads_share_the_connections(nginx: Nginx, path: str) -> None:
    """BEH-H11: GETs and POSTs in parallel, then twenty one after the other."""
    with Client(base_url=nginx.url) as client:

        def call(number: int) -> None:
            for method in ("GET", "POST", "HEAD", "DELETE", "PATCH"):
                body = b"x" * number if method in ("POST", "PATCH") else None
                response = client.request(method, f"/echo{path}{number}", content=body)
                said = response.raise_for_status().text.splitlines()
                assert said[:1] == ([] if method == "HEAD" else [f"{method} /echo{path}{number} HTTP/1.1"])
                assert method == "HEAD" or f"content-length: {len(body) if body is not None else ''}" in said

        run_threads(20, call)
        assert {client.get(f"/echo{path}burst").status_code for _ in range(20)} == {200}

    assert len(nginx.connections(f"/echo{path}", at_least=120)) <= 6


def test_three_hundred_keys_and_twenty_clients_live_on_one_dispatcher_thread(nginx: Nginx, path: str) -> None:
    """DESIGN: thousands of keys cost one thread, twenty clients are not twenty."""
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client()) for _ in range(20)]
        pairs = list(zip(itertools.cycle(clients), nginx.hosts(300), strict=False))
        for _ in range(3):
            futures = [client.send_async("GET", host + path) for client, host in pairs]
            assert {future.result().content for future in futures} == {SMALL}
            assert [thread.name for thread in set(threading.enumerate()) - before] == ["turbopool-dispatcher"]

        assert sum(len(client.stats().pools) for client in clients) == 300
        assert nginx.open_connections() == 300

    assert set(Counter(line.connection for line in nginx.log(path, at_least=900)).values()) == {3}


# -- how long a connection stays -----------------------------------------------------------------------------


@with_short_times
def test_connection_is_closed_when_it_was_idle_for_the_timeout(short: float) -> None:
    """BEH-P36, P6: as the server sees it, measured from the last release, and soon after."""
    idle = 4 * short
    with RawServer(always(respond(b"ok"))) as server, Client(base_url=server.url, idle_timeout=idle) as client:
        times = [time.monotonic()]
        while times[-1] < times[0] + 1.5 * idle:
            client.get("/")
            times.append(time.monotonic())
        reached(all(later - earlier < idle for earlier, later in itertools.pairwise(times)))
        released = times[-1]
        server.wait_until(lambda server: server.connections[0].peer_closed_at is not None)

    (conn,) = server.connections
    assert conn.peer_closed_at is not None
    assert conn.peer_closed_at - conn.requests[-1].at >= idle
    assert conn.peer_closed_at - released <= idle + SPENT


def test_leased_connection_is_not_closed_by_the_idle_timeout() -> None:
    """BEH-P36, P7: while another connection comes to its end by it."""
    answer_now = threading.Event()

    def late(conn: Conn) -> None:
        conn.read_request()
        assert answer_now.wait(BOUND)
        conn.send(respond(b"late"))
        conn.hold()

    with (
        RawServer([late, always(respond(b"ok"))]) as server,
        Client(base_url=server.url, idle_timeout=0.3) as client,
    ):
        leased = client.send_async("GET", "/late")
        server.wait_for_requests(1)
        client.get("/quick")
        server.wait_until(lambda server: server.connections[1].peer_closed_at is not None)

        assert server.connections[0].is_open()
        answer_now.set()
        assert leased.result().content == b"late"
        server.wait_until(lambda server: server.connections[0].peer_closed_at is not None)


@with_short_times
def test_nginx_sees_an_idle_connection_closed_at_the_timeout(nginx: Nginx, path: str, short: float) -> None:
    """BEH-P36."""
    idle = 5 * short
    with Client(base_url=nginx.url, idle_timeout=idle) as client:
        asked = time.monotonic()
        client.get(path)
        released = time.monotonic()
        is_open = nginx.open_connections()
        reached(time.monotonic() - asked < idle)
        assert is_open == 1
        eventually(lambda: nginx.open_connections() == 0)
        closed = time.monotonic()

    assert closed - asked >= idle
    assert closed - released <= idle + SPENT


def test_connection_is_replaced_at_the_end_of_its_lifetime(nginx: Nginx, path: str) -> None:
    """BEH-P18, L2: though it is busy all the time."""
    with Client(base_url=nginx.url, connection_lifetime=0.4) as client:
        begun = time.monotonic()
        while time.monotonic() < begun + 1.3 or client.stats().opened < 3:
            client.get(path)
        seconds = time.monotonic() - begun
        requests = client.stats().requests

    connections = nginx.connections(path, at_least=requests)
    assert 3 <= len(connections) <= 1 + seconds / (0.9 * 0.4)  # jittered by -10 %


def test_lifetime_of_zero_uses_each_connection_once(nginx: Nginx, path: str) -> None:
    """BEH-L2, P41: also when a request waits for the connection already."""
    with Client(base_url=nginx.url, connection_lifetime=0, max_conns_per_host=2) as client:
        for future in [client.send_async("GET", path) for _ in range(10)]:
            assert future.result().content == SMALL

    assert len(nginx.connections(path, at_least=10)) == 10


def test_lifetime_does_not_end_a_connection_during_a_request(nginx: Nginx, path: str) -> None:
    """BEH-L2: it is looked at when a connection is handed out."""
    with Client(base_url=nginx.url, connection_lifetime=0.1) as client:
        assert len(client.get("/slow/1m", params={"rate": "700k", "by": path}).content) == 1 << 20


# -- servers that close --------------------------------------------------------------------------------------


def test_every_request_succeeds_where_the_server_closes_after_three(nginx: Nginx, path: str) -> None:
    """BEH-R12."""
    with Client(base_url=nginx.few_url) as client:
        assert {client.get(path).content for _ in range(50)} == {SMALL}
        run_threads(16, lambda _: [client.get(path).raise_for_status() for _ in range(25)])

    served = Counter(line.connection for line in nginx.log(path, at_least=450))
    assert max(served.values()) == 3


def test_request_after_the_server_closed_the_idle_connection_succeeds(nginx: Nginx, path: str) -> None:
    """BEH-R11, P17, P47: the server waits for a second."""
    with Client(base_url=nginx.impatient_url) as client:
        for _ in range(2):
            assert client.get(path).content == SMALL
            eventually(lambda: nginx.open_connections(nginx.impatient_port) == 0)

    assert len(nginx.connections(path, at_least=2)) == 2


def test_request_in_the_moment_the_server_closes_the_idle_connection_succeeds(nginx: Nginx, path: str) -> None:
    """BEH-R11: from each of forty clients, at moments around that second."""
    pause = threading.Event()

    def call(number: int) -> None:
        with Client(base_url=nginx.impatient_url) as client:
            for _ in range(3):
                assert client.get(path).content == SMALL
                pause.wait(0.98 + 0.001 * number)

    run_threads(40, call)
    assert len(nginx.log(path, at_least=120)) == 120


def test_reload_under_load_fails_no_request(nginx: Nginx, path: str) -> None:
    """BEH-R12: old workers answer what they have and close the rest, new ones take over."""
    enough = threading.Event()
    statuses: Counter[int] = Counter()

    with Client(base_url=nginx.url) as client, ThreadPoolExecutor(1) as aside:

        def call(_: int) -> None:
            while not enough.is_set():
                statuses[client.get(path).status_code] += 1

        load = aside.submit(run_threads, 16, call)
        try:
            for n in range(1, 4):
                wanted = n * 500
                eventually(lambda wanted=wanted: load.done() or statuses.total() > wanted)  # type: ignore[misc]
                nginx.reload()
        finally:
            enough.set()
        load.result(BOUND)

    assert set(statuses) == {200}
    assert len(nginx.connections(path, at_least=statuses.total())) > 6
