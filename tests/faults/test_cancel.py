"""FLT-P2: requests that are cancelled wherever they are, one by one and in a storm."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from tests.faults.aftermath import NEXT, POISON, assert_balanced, assert_recovered, healthy
from tests.faults.phases import PHASES, Phase, shared_hub
from tests.servers.blackhole import Blackhole
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import RawRequest, respond
from tests.waiting import PATIENCE, SPENT, eventually
from turbopool import Client, ResponseFuture, RuntimeStats, StreamClosed, Timeout

# -- one by one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_what_a_cancelled_request_holds_is_given_back_at_once(phase: Phase, authority: Authority) -> None:
    """FLT-P2: in the queue, dialing, sending, waiting, reading; nobody is given its late bytes."""
    with phase(authority, 30.0) as stuck:
        began = time.monotonic()

        assert stuck.future.cancel()

        with pytest.raises(CancelledError):
            stuck.future.result()
        eventually(lambda: stuck.client.stats().waiting == 0)
        assert time.monotonic() - began < SPENT
        stuck.assert_given_back()
        (pool,) = stuck.client.stats().pools.values()
        assert (pool.cancelled, pool.failed) == (1, 0)


@pytest.mark.parametrize("phase", PHASES[1:])  # in the queue, whom it waits for would be cancelled as well
def test_cancelling_everything_ends_what_is_stuck_anywhere(phase: Phase, authority: Authority) -> None:
    """FLT-P2: ``cancel_pending_requests``, which returns when it is done."""
    with phase(authority, 30.0) as stuck:
        stuck.client.cancel_pending_requests()

        assert stuck.future.cancelled()
        stuck.assert_given_back()


def test_a_request_cancelled_before_the_dispatcher_has_read_of_it_is_never_dialed_for() -> None:
    """FLT-P2: its order stands in the mailbox, and the manager finds it settled."""
    reading = threading.Event()
    with shared_hub() as hub, RawServer(healthy) as server, Client(base_url=server.url) as client:
        hub.dispatcher.post(lambda: _wait_for(reading))
        future = client.send_async("GET", "/never")
        assert future.cancel()
        reading.set()

        assert client.get("/next").content == NEXT
        assert [request.target for request in server.requests] == ["/next"]
        assert len(server.connections) == 1


def test_a_request_cancelled_between_its_assignment_and_the_connect_leaves_its_dial_to_others() -> None:
    """FLT-P2: the dial is noted and has not begun; what it connects is parked."""
    cancelled: list[bool] = []
    with shared_hub() as hub, RawServer(healthy) as server, Client(base_url=server.url) as client:
        reading = threading.Event()
        hub.dispatcher.post(lambda: _wait_for(reading))
        future = client.send_async("GET", "/never")
        hub.dispatcher.post(lambda: cancelled.append(future.cancel()))  # read after the order, before the dial's start
        reading.set()

        eventually(lambda: client.stats().idle == 1)
        assert cancelled == [True]
        assert server.requests == []
        assert_recovered(client, server, connections=1, never_sent=1)


def test_a_connect_whose_request_was_cancelled_goes_to_the_next_waiter() -> None:
    """FLT-P2: it hangs, its request goes, another comes, and then it is established."""
    with Blackhole() as hole, Client(base_url=hole.url, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first")
        eventually(lambda: client.stats().connecting == 1)
        assert first.cancel()
        second = client.send_async("GET", "/second")
        hole.heal()

        eventually(second.running, 10)
        assert (client.stats().connecting, client.stats().opened) == (0, 1)
        assert second.cancel()
        eventually(lambda: client.stats().closed == 1)


def test_a_connect_that_nobody_waits_for_any_more_is_parked() -> None:
    """FLT-P2: and serves whoever comes later."""
    with Blackhole() as hole, Client(base_url=hole.url, max_conns_per_host=1) as client:
        future = client.send_async("GET", "/first")
        eventually(lambda: client.stats().connecting == 1)
        assert future.cancel()
        hole.heal()

        eventually(lambda: client.stats().idle == 1, 10)
        later = client.send_async("GET", "/later")
        eventually(later.running)
        assert client.stats().opened == 1
        assert later.cancel()
        eventually(lambda: client.stats().closed == 1)


def test_a_stream_whose_head_is_awaited_is_cancelled_with_all_the_rest() -> None:
    """FLT-P2: the thread that waits is woken, the connection is closed."""

    def silent(conn: Conn) -> None:
        conn.read_request()
        conn.hold()

    with (
        RawServer([silent, healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        entered = pool.submit(client.stream("GET", "/x").__enter__)
        server.wait_for_requests(1)
        client.cancel_pending_requests()

        with pytest.raises(CancelledError):
            entered.result(30)
        assert_recovered(client, server, connections=2)


def test_a_stream_that_is_closed_while_it_is_read_gives_its_place_to_the_next_at_once() -> None:
    """FLT-P2: the thread that reads is woken, and what the server sends late reaches nobody."""
    go_on = threading.Event()

    def stops(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        assert go_on.wait(PATIENCE)
        conn.send(b"67890" + POISON)

    with (
        RawServer([stops, healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
        ThreadPoolExecutor(1) as pool,
        client.stream("GET", "/x", timeout=Timeout(20, read=20)) as response,
    ):
        pieces = response.iter_bytes()
        assert next(pieces) == b"12345"
        waits = pool.submit(next, pieces)
        following = client.send_async("GET", "/following")
        response.close()

        assert following.result(30).content == NEXT
        with pytest.raises(StreamClosed):
            waits.result(30)
        go_on.set()
        assert_recovered(client, server, connections=2)


def _wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


# -- a storm ---------------------------------------------------------------------------------------------

THREADS = 32
EACH = 150


class Storm:
    """What one thread does: requests of all kinds, one in ten of which it cancels at some moment."""

    def __init__(self, client: Client, thread: int) -> None:
        """Args: thread: seeds it."""
        self._client = client
        self._chance = random.Random(thread)  # noqa: S311 - the same storm every time
        self._name = f"{thread}"
        self.problems: list[str] = []
        self.cancelled = 0

    def run(self) -> None:
        """Send everything, cancel some, and look at every outcome."""
        under_way: list[tuple[str, bool, ResponseFuture]] = []
        for n in range(EACH):
            nonce = f"{self._name}-{n}"
            under_way.append((nonce, self._chance.random() < 0.1, self._send(nonce)))
            if len(under_way) >= self._chance.randrange(1, 8):
                self._end(*under_way.pop(self._chance.randrange(len(under_way))))
        for one in under_way:
            self._end(*one)

    def _send(self, nonce: str) -> ResponseFuture:
        if self._chance.random() < 0.5:
            return self._client.send_async("GET", f"/{nonce}")
        return self._client.send_async("POST", f"/{nonce}", content=bytes(self._chance.choice([0, 10, 150_000])))

    def _end(self, nonce: str, victim: bool, future: ResponseFuture) -> None:  # noqa: FBT001 - of a tuple
        if victim:
            threading.Event().wait(self._chance.choice([0.0, 0.0005, 0.003]))  # so that some are further than others
            self.cancelled += future.cancel()
        try:
            said = future.result(30).headers.get("x-target")
            if said != f"/{nonce}":
                self.problems.append(f"{nonce} was answered {said}")
        except CancelledError:
            if not victim:
                self.problems.append(f"{nonce} was cancelled by nobody")


@pytest.mark.concurrency
def test_a_storm_of_cancels_loses_no_place_and_mixes_up_no_answers() -> None:
    """FLT-P2: 32 threads, 3 places, one request in ten cancelled, some answers slow, some connections closed."""

    def answer(conn: Conn) -> None:
        chance = random.Random(conn.number)  # noqa: S311 - the same storm every time
        while True:
            request = conn.read_request()
            body = bytes(chance.choice([0, 100, 100_000]))
            if chance.random() < 0.05:
                server.closing.wait(0.005)
            last = chance.random() < 0.02
            conn.send(respond(body, headers=[*_named(request), *([("Connection", "close")] if last else [])]))
            if last:
                return

    room = 1 << 20  # for a whole upload: else the FIN after a cancelled one waits in line, and counts as an open one
    with (
        RawServer(answer, receive_buffer=room) as server,
        Client(base_url=server.url, max_conns_per_host=3) as client,
    ):
        storms = [Storm(client, thread) for thread in range(THREADS)]
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(storm.run) for storm in storms]:
                done.result(50)

        assert [problem for storm in storms for problem in storm.problems] == []
        assert server.peak <= 3
        (pool_stats,) = _at_rest(client).pools.values()
        assert pool_stats.failed == 0
        assert pool_stats.cancelled == sum(storm.cancelled for storm in storms) > THREADS
        assert pool_stats.completed + pool_stats.cancelled == THREADS * EACH
        served = [request.target for request in server.requests]
        assert len(served) == len(set(served))  # not one was sent twice
        server.wait_until(lambda server: server.open == client.stats().idle)
        assert client.get("/after").headers["x-target"] == "/after"


def _at_rest(client: Client) -> RuntimeStats:
    """Wait until nothing is under way."""
    eventually(lambda: client.stats().leased == client.stats().waiting == client.stats().connecting == 0)
    return client.stats()


def _named(request: RawRequest) -> list[tuple[str, str]]:
    return [("X-Target", request.target)]


@pytest.mark.concurrency
def test_requests_cancelled_while_their_connections_are_made_leave_only_what_is_idle() -> None:
    """FLT-P2: over and over, from a cold start to the first answer; the dial finds another, or is parked."""
    with RawServer(healthy) as server:
        for n in range(60):
            with Client(base_url=server.url, max_conns_per_host=4) as client:
                futures = [client.send_async("GET", f"/{n}") for n in range(8)]
                threading.Event().wait((n % 10) * 0.0002)
                for future in futures[n % 2 :: 2]:
                    future.cancel()
                for future in futures[1 - n % 2 :: 2]:
                    assert future.result(30).content == NEXT

                stats = _at_rest(client)
                assert stats.waiting == 0
                assert stats.idle == stats.opened - stats.closed
        server.wait_until(lambda server: server.open == 0)


def test_the_books_balance_after_everything_was_cancelled_over_and_over() -> None:
    """FLT-P2: as often as there are phases to be caught in, no more."""
    with RawServer(healthy) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        asked = 0
        for n in range(200):
            futures = [client.send_async("GET", f"/{n}") for _ in range(3)]
            asked += len(futures)
            if n % 3:
                threading.Event().wait(0.0003 * (n % 3))
            client.cancel_pending_requests()
            assert all(future.done() for future in futures)
        client.get("/next")

        (pool,) = _at_rest(client).pools.values()
        assert pool.completed + pool.cancelled == asked + 1
        assert_balanced(client, server, connections=pool.opened, never_sent=asked + 1 - pool.requests)
