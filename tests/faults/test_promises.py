"""What is promised of every answer, and of everybody else's: its own, whole, and in time."""

from __future__ import annotations

import statistics
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeAlias

import pytest

from tests.face.handlers import silent
from tests.faults.aftermath import NEXT, healthy
from tests.faults.perils import CRC, NONCE, Perils, bodies_with_crc, dice_of, random_faults
from tests.integration.gone import SOON
from tests.servers.blackhole import refusing_port
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.proxy import ChaosProxy
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import eventually, reached, with_short_times
from turbopool import Client, Response, TurboPoolError

Neighbour: TypeAlias = Callable[[Client, threading.Event], AbstractContextManager[Callable[[int], None]]]

THREADS = 16
PATIENCE = 60.0
"""Seconds nothing here may take."""


def together(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in so many threads; what one of them raises is raised here."""
    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(work, n) for n in range(count)]:
            done.result(PATIENCE)


# -- a response belongs to its request -------------------------------------------------------------------


def _ask(client: Client, way: str, nonce: str, timeout: float) -> Response | None:
    """Send a request in one of several ways; return the response unless it is not waited for."""
    match way:
        case "stream":
            with client.stream("GET", nonce, timeout=timeout) as response:
                response.read()
                return response
        case "leave":
            with client.stream("GET", nonce, timeout=timeout) as response:
                return response
        case "cancel":
            client.send_async("GET", nonce).cancel()
            return None
        case _:
            return client.request(way, nonce, timeout=timeout)


@pytest.mark.concurrency
@with_short_times
def test_no_answer_is_ever_anothers(short: float) -> None:
    """I7, I9, I10: beside poison, cuts, resets, silence and cancels, each response carries its own request's nonce."""
    perils = Perils(seed=7)
    outcomes: Counter[str] = Counter()
    with RawServer(perils) as server, Client(base_url=server.url, max_conns_per_host=8) as client:

        def work(thread: int) -> None:
            dice = dice_of("ways", thread)
            for n in range(40):
                nonce = f"/{thread}/{n}"
                way = dice.choice(["GET", "GET", "GET", "POST", "HEAD", "stream", "leave", "cancel"])
                try:
                    response = _ask(client, way, nonce, min(3 * short, 5))
                except TurboPoolError as error:
                    outcomes[type(error).__name__] += 1
                    continue
                if response is not None:
                    outcomes["answered"] += 1
                    assert response.headers[NONCE] == nonce
                    has_body = way not in ("HEAD", "leave") and response.status_code == 200
                    assert not has_body or response.text == nonce

        together(THREADS, work)

        reached(outcomes["answered"] > THREADS * 40 / 3)
        assert len(perils.deeds) == 9, "each was done"
        seen = Counter((request.method, request.target) for request in server.requests)
        assert {count for (method, _), count in seen.items() if method == "POST"} == {1}
        assert max(seen.values()) <= 2
        eventually(lambda: not (client.stats().leased or client.stats().waiting or client.stats().connecting))


@pytest.mark.parametrize("scheme", ["http", "https"])
@with_short_times
def test_no_body_is_ever_short_without_a_word(scheme: str, authority: Authority, short: float) -> None:
    """I8, FLT-H1, H2, T5: through a proxy that slices, cuts and stalls, a body has its checksum or there is an error.

    Without a length and without TLS nobody can know, so there a body that ends with its connection is not asked for.
    """
    context = authority.server_context() if scheme == "https" else None
    outcomes: Counter[str] = Counter()

    with (
        RawServer(bodies_with_crc(to_close=context is not None), ssl_context=context) as server,
        ChaosProxy(server.address) as proxy,
        Client(base_url=f"{scheme}://127.0.0.1:{proxy.port}", verify=str(authority.ca_file), reconnect=SOON) as client,
    ):

        def work(thread: int) -> None:
            dice = dice_of(scheme, thread)
            for n in range(50):
                proxy.down = random_faults(dice)
                try:
                    if n % 2:
                        response = client.get(f"/{thread}/{n}", timeout=min(6 * short, 6))
                        body = response.content
                    else:
                        with client.stream("GET", f"/{thread}/{n}", timeout=min(6 * short, 6)) as response:
                            body = b"".join(response.iter_bytes())
                except TurboPoolError as error:
                    outcomes[type(error).__name__] += 1
                else:
                    outcomes["whole"] += 1
                    assert zlib.crc32(body) == int(response.headers[CRC])

        together(6, work)

        reached(outcomes["whole"] > 50)
        assert outcomes.total() - outcomes["whole"] > 10
        assert proxy.counters.cuts > 10
        assert proxy.counters.stalls > 0


# -- nobody is forgotten ---------------------------------------------------------------------------------


def test_who_was_held_back_until_the_server_answers_is_served_when_it_does() -> None:
    """I13: three lose their connections; the first is hung up on again, so the server must answer one before all dial.

    Both others need a connection that carried nothing before, so that of the second is of no use to the third.
    """
    cut = [threading.Event() for _ in range(3)]

    def handler(conn: Conn) -> None:
        while conn.read_request().target == "/warm":
            conn.send(respond(NEXT))
        if conn.number < len(cut):
            cut[conn.number].wait(PATIENCE)
        elif conn.number > len(cut):
            conn.send(respond(NEXT))
            healthy(conn)

    with RawServer(handler) as server, Client(base_url=server.url, max_conns_per_host=3, reconnect=SOON) as client:
        client.get("/warm")
        first, second, third = (client.send_async("GET", f"/{n}", timeout=20) for n in range(3))
        server.wait_for_connections(3)
        server.wait_for_requests(4)
        cut[next(request.connection for request in server.requests if request.target == "/0")].set()
        with pytest.raises(TurboPoolError):
            first.result()
        for event in cut:
            event.set()

        assert second.result().content == third.result().content == NEXT


# -- one bad neighbour slows nobody ----------------------------------------------------------------------


@contextmanager
def _refusing(client: Client, over: threading.Event) -> Iterator[Callable[[int], None]]:
    """A host that refuses connects, asked for all the time."""
    with refusing_port() as port:

        def ask(_: int) -> None:
            while not over.wait(0.002):
                with suppress(TurboPoolError):
                    client.get(f"http://127.0.0.1:{port}/", timeout=1)

        yield ask


@contextmanager
def _stalling(client: Client, over: threading.Event) -> Iterator[Callable[[int], None]]:
    """A host that never answers, with a long queue before it; those in it give up all the time."""
    with RawServer(silent) as server:

        def ask(_: int) -> None:
            while not over.wait(0.002):
                futures = [client.send_async("GET", server.url, timeout=0.05) for _ in range(50)]
                for future in futures:
                    future.exception()

        yield ask


@contextmanager
def _flooding(client: Client, over: threading.Event) -> Iterator[Callable[[int], None]]:
    """A host that sends without end: bodies, interim responses, fields."""
    floods = {
        "/body": (b"HTTP/1.1 200 OK\r\n\r\n", bytes(65_536)),
        "/interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500),
        "/fields": (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 500),
    }

    def flood(conn: Conn) -> None:
        head, more = floods[conn.read_request().target]
        conn.send(head)
        while True:
            conn.send(more)

    with RawServer(flood) as server:

        def ask(n: int) -> None:
            target = sorted(floods)[n % 3]
            while not over.wait(0.002):
                with suppress(TurboPoolError):
                    client.get(server.url + target, timeout=0.2)

        yield ask


@contextmanager
def _blocking(client: Client, over: threading.Event) -> Iterator[Callable[[int], None]]:
    """A host whose answers are met by callbacks that block, more than there are threads for them."""
    with RawServer(healthy) as server:

        def blocks(_: Future[Response]) -> None:
            over.wait(PATIENCE)

        def ask(_: int) -> None:
            for _ in range(100):
                client.send_async("GET", server.url, timeout=20).add_done_callback(blocks)
            over.wait(PATIENCE)

        yield ask


@pytest.mark.parametrize("neighbour", [_refusing, _stalling, _flooding, _blocking])
def test_a_bad_neighbour_slows_nobody(neighbour: Neighbour) -> None:
    """I25: 99 of 100 requests to a healthy host are answered at once, whatever another one does beside it."""
    over = threading.Event()
    with (
        RawServer(healthy) as server,
        Client(request_timeout=PATIENCE, max_buffered_body=1 << 20) as client,
        neighbour(client, over) as ask,
        ThreadPoolExecutor(3) as threads,
    ):
        assert client.get(server.url).content == NEXT
        asking = [threads.submit(ask, n) for n in range(3)]
        slowest: list[float] = []
        try:
            eventually(lambda: sum(pool.requests + pool.failed for pool in client.stats().pools.values()) > 20)
            while len(slowest) < 8 and min(slowest, default=1.0) >= 0.5:  # the machine may stall for a moment
                slowest.append(statistics.quantiles(_seconds_of_many(client, server), n=100)[98])
        finally:
            over.set()
        for done in asking:
            done.result(PATIENCE)

        assert min(slowest) < 0.5, slowest


def _seconds_of_many(client: Client, server: RawServer) -> list[float]:
    """How long each request took that was sent within a moment, one after the other."""
    seconds: list[float] = []
    until = time.monotonic() + 0.7
    while time.monotonic() < until or len(seconds) < 100:
        began = time.monotonic()
        assert client.get(server.url).content == NEXT
        seconds.append(time.monotonic() - began)
    return seconds
