"""Many threads at once: every answer is the asker's own, limits hold, and the books balance afterwards."""

from __future__ import annotations

import random
import threading
import zlib
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import pytest

from tests.face.remains import assert_nothing_left
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, chunked, respond
from tests.waiting import eventually
from turbopool import Client, ClientDisposed, ClientFactory, Request, Response, ResponseFuture

pytestmark = pytest.mark.concurrency

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
THREADS = 64


def mirror(request: RawRequest) -> bytes:
    """Answer with the nonce, the method, the check sum of what was received, and a body that belongs to the nonce."""
    nonce = request.header("X-Nonce") or ""
    body = body_of(nonce)
    fields = [
        ("X-Nonce", nonce),
        ("X-Method", request.method),
        ("X-Received", f"{zlib.crc32(request.body):08x}"),
        ("X-Sum", f"{zlib.crc32(body):08x}"),
    ]
    if request.method == "HEAD":
        return respond(b"", headers=fields)
    if hash_of(nonce) % 3:
        return respond(body, headers=fields)
    return respond(chunked(body, 500), headers=[*fields, ("Transfer-Encoding", "chunked")])


def hash_of(nonce: str) -> int:
    """Return a number that belongs to a nonce, the same in every process."""
    return zlib.crc32(nonce.encode())


def body_of(nonce: str) -> bytes:
    """Return the bytes that belong to a nonce: from none to some thousands."""
    return nonce.encode() * (hash_of(nonce) % 300)


def request_of(nonce: str) -> Request:
    """Build a request of any method, with a body where the method has one."""
    method = METHODS[hash_of(nonce + "m") % len(METHODS)]
    content = body_of(nonce + "up") if method in ("POST", "PUT", "PATCH") else None
    return Request(method, f"/{nonce}", headers={"X-Nonce": nonce}, content=content)


def mismatch(request: Request, nonce: str, response: Response) -> str | None:
    """Say how an answer is not that of this request; None if it is."""
    sent = request.content if isinstance(request.content, bytes) else b""
    expected = {"X-Nonce": nonce, "X-Method": request.method, "X-Received": f"{zlib.crc32(sent):08x}"}
    for name, value in expected.items():
        if response.headers[name] != value:
            return f"{name} of {nonce} is {response.headers[name]}"
    if request.method != "HEAD" and f"{zlib.crc32(response.content):08x}" != response.headers["X-Sum"]:
        return f"the body of {nonce} is another's"
    return None


def assert_at_rest(client: Client, *, submitted: int) -> None:
    """Nothing is under way, every connection and every request is accounted for."""
    eventually(lambda: client.stats().leased == client.stats().waiting == client.stats().connecting == 0)
    (pool,) = client.stats().pools.values()
    assert pool.opened - pool.closed == pool.idle <= pool.limit
    assert pool.completed + pool.failed + pool.cancelled == submitted
    assert pool.completed + pool.failed <= pool.requests <= submitted


def test_every_one_of_many_threads_gets_its_own_answers_and_the_limit_holds() -> None:
    """BEH-H11, P46: mixed methods, bodies both ways, blocking, in flight and streamed; not one mismatch."""
    problems: list[str] = []

    def work(client: Client, thread: int) -> None:
        pending: list[tuple[Request, str, ResponseFuture]] = []
        for n in range(12):
            nonce = f"{thread}-{n}"
            request = request_of(nonce)
            if n % 3 == 0:
                pending.append((request, nonce, client.send_async(request)))
            elif n % 3 == 1:
                problems.extend(filter(None, [mismatch(request, nonce, client.send(request))]))
            else:
                with client.stream("GET", f"/{nonce}", headers={"X-Nonce": nonce}) as response:
                    streamed = b"".join(response.iter_bytes(700))
                if streamed != body_of(nonce):
                    problems.append(f"the stream of {nonce} is another's")
        for request, nonce, future in pending:
            problems.extend(filter(None, [mismatch(request, nonce, future.result())]))

    with RawServer(always(mirror)) as server, Client(base_url=server.url, max_conns_per_host=6) as client:
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(work, client, thread) for thread in range(THREADS)]:
                done.result(40)

        assert problems == []
        assert server.peak <= 6
        assert len(server.requests) == len({request.target for request in server.requests}) == THREADS * 12
        assert_at_rest(client, submitted=THREADS * 12)
        assert client.stats().opened <= 6


def test_a_storm_of_cancels_loses_no_connection_and_no_request() -> None:
    """BEH-P45, P46, C4: one in ten is cancelled at some moment; the rest get their own answers."""
    chance = random.Random(20)  # noqa: S311  # the same storm every time
    victims = {n for n in range(1200) if chance.random() < 0.1}
    moments = {n: chance.randrange(40) for n in victims}
    with RawServer(always(mirror)) as server, Client(base_url=server.url, max_conns_per_host=5) as client:

        def work(first: int) -> list[str]:
            problems: list[str] = []
            futures: dict[int, tuple[Request, ResponseFuture]] = {}
            for n in range(first, first + 150):
                request = request_of(str(n))
                futures[n] = request, client.send_async(request)
                for old in [old for old in futures if old in victims and old + moments[old] == n]:
                    futures[old][1].cancel()
            for n, (request, future) in futures.items():
                try:
                    problems.extend(filter(None, [mismatch(request, str(n), future.result())]))
                except CancelledError:
                    if n not in victims:
                        problems.append(f"{n} was cancelled by nobody")
            return problems

        with ThreadPoolExecutor(8) as pool:
            problems = [problem for found in pool.map(work, range(0, 1200, 150)) for problem in found]

        assert problems == []
        assert_at_rest(client, submitted=1200)
        assert server.peak <= 5
        server.wait_until(lambda server: server.open == client.stats().idle)
        (stats,) = client.stats().pools.values()
        assert stats.failed == 0
        assert 0 < stats.cancelled <= len(victims)
        assert client.stats().opened == len(server.connections)
        assert client.get("/after", headers={"X-Nonce": "after"}).headers["X-Nonce"] == "after"


def test_a_disposal_under_load_ends_every_request_and_leaves_nothing() -> None:
    """BEH-C13, P33, FLT-P12."""
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    with RawServer(always(mirror)) as server:
        client = Client(base_url=server.url, max_conns_per_host=4)
        busy = threading.Semaphore(0)

        def work(thread: int) -> None:
            for n in range(100_000):
                request = request_of(f"{thread}-{n}")
                try:
                    wrong = mismatch(request, f"{thread}-{n}", client.send(request))
                except ClientDisposed:
                    with lock:
                        outcomes["disposed"] += 1
                    return
                with lock:
                    outcomes["answered" if wrong is None else wrong] += 1
                busy.release()

        with ThreadPoolExecutor(16) as pool:
            working = [pool.submit(work, thread) for thread in range(16)]
            assert all(busy.acquire(timeout=30) for _ in range(50))

            client.dispose(drain_timeout=5)

            assert_nothing_left(server.port)
            for done in working:
                done.result(30)

        assert set(outcomes) == {"answered", "disposed"}
        assert outcomes["disposed"] == 16
        assert server.peak <= 4


def test_handles_asked_for_by_many_threads_are_distinct_and_of_one_runtime() -> None:
    """BEH-C6: each sends, half are disposed in between; one pool serves them all."""
    with RawServer(always(mirror)) as server, ThreadPoolExecutor(32) as pool:
        factory = ClientFactory().add("api", base_url=server.url, max_conns_per_host=3)
        start = threading.Barrier(32)

        def work(thread: int) -> Client:
            start.wait(30)
            client = factory.create_client("api")
            request = request_of(f"{thread}")
            assert mismatch(request, f"{thread}", client.send(request)) is None
            if thread % 2:
                client.dispose()
                with pytest.raises(ClientDisposed):
                    client.send(request)
            return client

        keeper = factory.create_client("api")
        handles = [done.result(30) for done in [pool.submit(work, thread) for thread in range(32)]]

        assert len({id(handle) for handle in handles}) == 32
        assert keeper.stats().requests == 32
        assert server.peak <= 3
        factory.dispose()
        assert all(handle.is_disposed for handle in handles)
        assert_nothing_left(server.port)


def test_cancelling_all_pending_requests_ends_the_blocking_sends_of_that_handle_alone() -> None:
    """BEH-C4, C11: under load of both."""
    opened = threading.Event()

    def handler(conn: Conn) -> None:
        while True:
            request = conn.read_request()
            while not opened.wait(0.01):
                if not conn.is_open():
                    return
            conn.send(mirror(request))

    with RawServer(handler) as server, ThreadPoolExecutor(40) as pool:
        factory = ClientFactory().add("api", base_url=server.url, max_conns_per_host=4)
        one, two = factory.create_client("api"), factory.create_client("api")
        requests = [request_of(str(n)) for n in range(40)]
        sends = [pool.submit((two if n % 2 else one).send, request) for n, request in enumerate(requests)]
        eventually(lambda: (one.stats().leased, one.stats().waiting) == (4, 36))

        one.cancel_pending_requests()

        assert wait(sends[::2], 20).not_done == set()
        for cancelled in sends[::2]:
            assert isinstance(cancelled.exception(0), CancelledError)
        assert not any(send.done() for send in sends[1::2])
        opened.set()
        for n in range(1, 40, 2):
            assert mismatch(requests[n], str(n), sends[n].result(30)) is None
        assert_at_rest(two, submitted=40)
        factory.dispose()
        assert_nothing_left(server.port)
