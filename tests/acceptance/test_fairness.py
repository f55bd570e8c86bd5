"""One dispatcher thread serves all keys: none of them makes another one wait.

Small requests and large downloads go to two nginx, because one that is busy with a GiB makes its other clients wait.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from tests.servers.blackhole import blackholes
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.nginx import SMALL, Nginx
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import eventually
from turbopool import Client, DeadlineExceeded, ResponseFuture

BOUND = 60.0
"""Seconds nothing here may take; a hang ends as an error."""
GIB = 1 << 30
PAUSE = 0.003
"""Seconds between two requests whose times are taken."""
ROUNDS = 5
"""How often times are taken, at most, until they are good: the machine may be busy for a while."""


def seconds_of(client: Client, url: str) -> float:
    """Return how long a small GET takes."""
    begun = time.perf_counter()
    assert client.get(url, timeout=BOUND).content == SMALL
    return time.perf_counter() - begun


def percentile(values: list[float], share: int) -> float:
    """Return the value that ``share`` percent of ``values`` do not exceed."""
    return statistics.quantiles(values, n=100)[share - 1]


# -- hosts that do not answer --------------------------------------------------------------------------------


@contextlib.contextmanager
def stuck_requests(client: Client, urls: list[str], *, each: int) -> Iterator[list[ResponseFuture]]:
    """Keep ``each`` requests to every one of ``urls`` in flight, and send more that give up soon, all the time."""
    enough = threading.Event()

    def give_up_again_and_again() -> None:
        while not enough.is_set():
            for future in [client.send_async("GET", url, timeout=0.02) for url in urls * 4]:
                with contextlib.suppress(DeadlineExceeded):
                    future.result()

    futures = [client.send_async("GET", url) for url in urls for _ in range(each)]
    with ThreadPoolExecutor(1) as threads:
        given_up = threads.submit(give_up_again_and_again)
        try:
            eventually(lambda: client.stats().connecting == 6 * len(urls))
            yield futures
        finally:
            enough.set()
        given_up.result(BOUND)


def test_first_request_to_a_healthy_host_does_not_wait_for_twenty_dead_ones(nginx: Nginx, path: str) -> None:
    """BEH-P48, FLT-N2: each takes less than 100 ms more than such a first request takes otherwise."""
    hosts = [host + path for host in nginx.hosts(15 + 40 * ROUNDS)]
    late: list[float] = []
    with Client(request_timeout=BOUND, connect_timeout=BOUND) as client, blackholes(20) as holes:
        normal = statistics.median(seconds_of(client, url) for url in hosts[:15])
        with stuck_requests(client, [hole.url for hole in holes], each=8) as stuck:
            while len(late) < ROUNDS and min(late, default=1.0) >= 0.1:
                beside = []
                for number, url in enumerate(hosts[15 + 40 * len(late) :][:40]):
                    with contextlib.nullcontext(client) if number % 2 else Client() as client_or_fresh_one:
                        beside.append(seconds_of(client_or_fresh_one, url))
                    threading.Event().wait(PAUSE)  # so that they fall into different moments of that load
                late.append(percentile(beside, 95) - normal)  # one in twenty may meet a stall of the machine's own
            assert not any(future.done() for future in stuck)

        client.cancel_pending_requests()
        assert all(future.cancelled() for future in stuck)
        with pytest.raises(CancelledError):
            stuck[0].result()

    assert min(late) < 0.1, late


# -- a large download ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory, nginx: Nginx, authority: Authority) -> Iterator[Nginx]:
    """A second nginx, for the GiB."""
    del nginx  # where it is missing, so is this one
    with Nginx(tmp_path_factory.mktemp("depot"), authority) as server:
        yield server


def test_small_requests_beside_a_gigabyte_over_tls_stay_fast(
    nginx: Nginx, depot: Nginx, authority: Authority, path: str
) -> None:
    """FLT-H22: the 99th percentile stays below 50 ms."""
    urls = [host + path for host in nginx.hosts(10)]

    def download(under_way: threading.Event, done: threading.Event) -> int:
        try:
            with client.stream("GET", f"{depot.tls_url}/bytes/1g", timeout=BOUND) as response:
                under_way.set()
                return sum(map(len, response.iter_bytes()))
        finally:
            done.set()

    slow: list[float] = []
    with Client(verify=str(authority.ca_file)) as client, ThreadPoolExecutor(1) as threads:
        while len(slow) < ROUNDS and min(slow, default=1.0) >= 0.05:
            under_way, done = threading.Event(), threading.Event()
            length = threads.submit(download, under_way, done)
            under_way.wait(BOUND)
            seconds: list[float] = []
            while not done.wait(PAUSE):
                seconds.append(seconds_of(client, urls[len(seconds) % len(urls)]))
            assert length.result(BOUND) == GIB
            assert len(seconds) > 100
            slow.append(percentile(seconds, 99))

    assert min(slow) < 0.05, slow


# -- queues --------------------------------------------------------------------------------------------------


def test_long_queues_of_several_keys_drain_beside_one_that_stands_still(nginx: Nginx, path: str) -> None:
    """BEH-P29: 256 requests in the queues of four keys."""
    go_on = threading.Event()

    def stand_still(conn: Conn) -> None:
        while True:
            conn.read_request()
            assert go_on.wait(BOUND)
            conn.send(respond(SMALL))

    with RawServer(stand_still) as server, Client(max_conns_per_host=2) as client:
        urls = [server.url + path, *(host + path for host in nginx.hosts(3))]
        still, *others = ([client.send_async("GET", url) for _ in range(64)] for url in urls)

        assert {future.result().content for queue in others for future in queue} == {SMALL}
        assert not any(future.done() for future in still)
        go_on.set()
        assert {future.result().content for future in still} == {SMALL}
        assert {pool.opened for pool in client.stats().pools.values()} == {2}

    assert len(nginx.connections(path, at_least=192)) == 6
    assert len(server.connections) == 2
