"""The end of a client: what finishes, what fails and how, and that nothing is left."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from types import FrameType

import pytest

from tests.face.handlers import Echoed, Gate, echo, silent
from tests.face.remains import assert_nothing_left, our_threads, sockets_to
from tests.servers.blackhole import Blackhole
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import Client, ClientDisposed, ClientFactory, ClientOptions, Response, ResponseFuture, Timeout
from turbopool.actors.hub import live_hubs
from turbopool.runtime import Runtime
from turbopool.transport.download import BodyStream

SOON = 0.1
"""Seconds to drain where something is meant to be left."""


class Endings:
    """Counts how often each future completes."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._lock = threading.Lock()

    def follow(self, future: ResponseFuture) -> ResponseFuture:
        """Count the completions of a future."""
        future.add_done_callback(self._note)
        return future

    def of(self, future: ResponseFuture) -> int:
        """Return how often it has completed."""
        with self._lock:
            return self._counts[id(future)]

    def _note(self, future: object) -> None:
        with self._lock:
            self._counts[id(future)] += 1


def disposed_error(future: ResponseFuture) -> ClientDisposed:
    """Return what a future failed with; it is done, and that was the disposal."""
    error = future.exception(0)
    assert isinstance(error, ClientDisposed)
    return error


# -- what is under way ---------------------------------------------------------------------------------------


def test_what_is_in_flight_and_queued_finishes() -> None:
    """BEH-C11, C13, FLT-P12: by default there is time until the requests' own deadlines."""
    gate = Gate()
    with RawServer(gate) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url, max_conns_per_host=2)
        futures = [client.send_async("GET", f"/{n}") for n in range(10)]
        server.wait_for_requests(2)
        disposed = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)
        gate.opened.set()

        disposed.result(30)
        assert [Echoed.of(future.result(0)).target for future in futures] == [f"/{n}" for n in range(10)]
        assert server.peak == 2
        assert_nothing_left(server.port)


@with_short_times
def test_a_drain_ends_with_the_deadline_of_the_last_request(short: float) -> None:
    """BEH-C11: without a drain_timeout the requests' own deadlines bound it."""
    with RawServer(silent) as server:
        client = Client(base_url=server.url)
        future = client.send_async("GET", "/x", timeout=short)
        eventually(lambda: future.done() or server.requests)
        reached(not future.done())
        began = time.monotonic()

        client.dispose()

        assert isinstance(future.exception(0), TimeoutError)
        assert time.monotonic() - began < SPENT
        assert_nothing_left(server.port)


def test_what_is_left_after_the_drain_timeout_fails_and_says_what_is_known_of_it() -> None:
    """BEH-C11, P22, P23: what was sent may have been processed, what waited was not."""
    with RawServer(silent) as server:
        client = Client(base_url=server.url, max_conns_per_host=1)
        sent, queued = (client.send_async("POST", f"/{n}", content=b"x") for n in range(2))
        server.wait_for_requests(1)

        client.dispose(drain_timeout=SOON)

        under_way, waited = disposed_error(sent), disposed_error(queued)
        assert (under_way.processed, under_way.request_sent, under_way.may_retry) == ("maybe", True, False)
        assert (waited.processed, waited.request_sent, waited.may_retry) == ("no", False, True)
        assert under_way.origin == waited.origin == server.url
        assert "under way" in str(under_way)
        assert "queue" in str(waited)
        assert isinstance(under_way, RuntimeError)
        assert len(server.requests) == 1
        assert_nothing_left(server.port)


def test_the_queue_fails_at_once_when_that_is_asked_for_and_the_rest_finishes() -> None:
    """BEH-C11, P23: ``queued="fail"``."""
    gate = Gate()
    with RawServer(gate) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url, max_conns_per_host=1)
        sent, *queued = (client.send_async("GET", f"/{n}") for n in range(4))
        server.wait_for_requests(1)

        disposed = pool.submit(client.dispose, queued="fail")

        assert wait(queued, 20).not_done == set()
        assert {disposed_error(future).processed for future in queued} == {"no"}
        assert not sent.done()
        gate.opened.set()
        disposed.result(30)
        assert Echoed.of(sent.result(0)).target == "/0"
        assert len(server.requests) == 1
        assert_nothing_left(server.port)


def test_a_key_that_gave_up_while_in_line_for_room_holds_up_no_other_in_a_drain() -> None:
    """BEH-C13: one connection in all; the second key is cancelled, the third gets its turn."""
    gate = Gate()
    with RawServer(gate) as one, RawServer(gate) as two, RawServer(gate) as three, ThreadPoolExecutor(1) as pool:
        client = Client(max_total_connections=1, request_timeout=30)
        first = client.send_async("GET", one.url)
        one.wait_for_requests(1)
        second, third = client.send_async("GET", two.url), client.send_async("GET", three.url)
        eventually(lambda: client.stats().waiting == 2)
        disposed = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)
        second.cancel()
        eventually(lambda: len(client.stats().pools) == 2)
        gate.opened.set()

        assert first.result(30).is_success
        assert third.result(30).is_success
        disposed.result(30)
        assert two.connections == []
        assert_nothing_left(one.port, two.port, three.port)


@pytest.mark.parametrize("arguments", [{"drain_timeout": SOON}, {"drain_timeout": 0}, {"queued": "fail"}])
def test_every_future_completes_exactly_once_wherever_its_request_is(arguments: dict[str, float | str]) -> None:
    """BEH-C13, P38, FLT-P12: waiting for an answer, in the queue, behind a connect, and cancelled before."""
    endings = Endings()
    with Blackhole() as hole, RawServer(silent) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url, max_conns_per_host=2, request_timeout=30)
        sent = [endings.follow(client.send_async("GET", f"/{n}")) for n in range(2)]
        server.wait_for_requests(2)
        waiting = [endings.follow(client.send_async("GET", f"/{n}")) for n in range(20)]
        connecting = [endings.follow(client.send_async("GET", hole.url)) for _ in range(20)]
        cancelled = waiting.pop()
        cancelled.cancel()
        eventually(lambda: client.stats().waiting == 39 and client.stats().connecting == 2)

        disposed = pool.submit(client.dispose, **arguments)  # type: ignore[arg-type]  # of mixed types
        wait([*waiting, *connecting], 20)
        if "queued" in arguments:
            client.cancel_pending_requests()
        disposed.result(30)

        for future in (*waiting, *connecting):
            assert disposed_error(future).processed == "no"
        for future in sent:
            assert future.cancelled() if "queued" in arguments else disposed_error(future).processed == "maybe"
        everyone = [*sent, *waiting, *connecting, cancelled]
        eventually(lambda: all(endings.of(future) for future in everyone))
        assert [endings.of(future) for future in everyone] == [1] * 42
        assert sockets_to(hole.port) == 1  # that keeps it full
        assert_nothing_left(server.port)


def test_a_connect_under_way_is_given_up_and_its_socket_closed() -> None:
    """BEH-P38: what would connect late finds nobody."""
    with Blackhole() as hole:
        client = Client(connect_timeout=30)
        client.warm_up(hole.url, connections=4)
        eventually(lambda: client.stats().connecting == 4)
        began = time.monotonic()

        client.dispose()

        assert time.monotonic() - began < SPENT
        assert sockets_to(hole.port) == 1  # that keeps it full
        assert_nothing_left()


def test_a_blocking_send_ends_with_the_disposal() -> None:
    """BEH-C13."""
    with RawServer(silent) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url)
        blocking = pool.submit(client.get, "/x")
        server.wait_for_requests(1)

        client.dispose(drain_timeout=0)

        assert isinstance(blocking.exception(30), ClientDisposed)
        assert_nothing_left(server.port)


def test_a_request_that_was_in_a_tls_handshake_fails_and_leaves_no_socket(authority: Authority) -> None:
    """BEH-P38: connected, but not established."""
    with RawServer(silent) as server:  # it speaks no TLS: the handshake hangs
        client = Client(verify=str(authority.ca_file))
        future = client.send_async("GET", f"https://127.0.0.1:{server.port}/x")
        server.wait_for_connections(1)

        client.dispose(drain_timeout=0.05)

        assert disposed_error(future).processed == "no"
        assert_nothing_left(server.port)
    server.faults.clear()  # a client's hello is no request


# -- after it ------------------------------------------------------------------------------------------------


def test_idle_connections_close_at_once_and_the_server_is_told(server: RawServer) -> None:
    """BEH-P22, FLT-P12."""
    client = Client(base_url=server.url)
    wait([client.send_async("GET", f"/{n}") for n in range(4)], 20)
    assert sockets_to(server.port) > 0

    client.dispose()

    assert_nothing_left(server.port)
    server.wait_until(lambda server: all(conn.peer_closed_at for conn in server.connections))


def test_work_after_disposal_is_refused_in_the_caller_and_starts_nothing(server: RawServer) -> None:
    """BEH-P33, FLT-P12."""
    client = Client(base_url=server.url)
    client.get("/x")
    client.dispose()

    calls: list[Callable[[], object]] = [
        lambda: client.send_async("GET", "/x"),
        lambda: client.get("/x"),
        lambda: client.stream("GET", "/x").__enter__(),
        lambda: client.warm_up(server.url),
    ]
    for call in calls:
        with pytest.raises(ClientDisposed, match="disposed"):
            call()

    assert len(server.requests) == 1
    assert_nothing_left(server.port)


def test_disposing_again_and_again_does_nothing(server: RawServer) -> None:
    """BEH-C4: idempotent, used before or not."""
    for used in (True, False):
        client = Client(base_url=server.url)
        if used:
            client.get("/x")
        for _ in range(3):
            client.dispose()
            client.close()
            client.cancel_pending_requests()
            assert client.is_disposed
            assert client.stats().pools == {}
    assert_nothing_left(server.port)


def test_a_client_of_a_few_hosts_closes_them_all() -> None:
    """BEH-P22."""
    with RawServer(always(echo)) as one, RawServer(always(echo)) as two, RawServer(always(echo)) as three:
        servers = (one, two, three)
        client = Client()
        for server in servers:
            client.get(server.url)

        client.dispose()

        assert_nothing_left(*(server.port for server in servers))


# -- from anywhere -------------------------------------------------------------------------------------------


def test_a_done_callback_may_dispose_the_client_and_waits_for_the_others() -> None:
    """BEH-C13, FLT-P12: a thread of ours that does not join itself."""
    fast, slow, ended = threading.Event(), threading.Event(), threading.Event()
    after: list[object] = []

    def handler(conn: Conn) -> None:
        request = conn.read_request()
        (fast if request.target == "/fast" else slow).wait(30)
        conn.send(echo(request))

    with RawServer(handler) as server:
        client = Client(base_url=server.url)
        other = client.send_async("GET", "/slow")

        def dispose(_: object) -> None:
            client.dispose()
            after.append(other.done())
            ended.set()

        client.send_async("GET", "/fast").add_done_callback(dispose)
        fast.set()
        eventually(lambda: client.is_disposed)
        slow.set()

        assert ended.wait(30)
        assert after == [True]
        assert Echoed.of(other.result(0)).target == "/slow"
        eventually(lambda: not our_threads())
        assert_nothing_left(server.port)


def test_a_done_callback_may_dispose_while_another_thread_does() -> None:
    """BEH-C13, FLT-P12: neither waits for the other for ever."""
    gate = Gate()
    with RawServer(gate) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url)
        future = client.send_async("GET", "/x")
        ended = threading.Event()

        def dispose(_: object) -> None:
            client.dispose()
            ended.set()

        future.add_done_callback(dispose)
        server.wait_for_requests(1)
        disposed = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)

        gate.opened.set()

        disposed.result(4)
        assert ended.wait(4)
        eventually(lambda: not our_threads())
        assert_nothing_left(server.port)


def test_a_second_disposal_waits_for_the_first() -> None:
    """BEH-C13, FLT-P12."""
    gate = Gate()
    with RawServer(gate) as server, ThreadPoolExecutor(2) as pool:
        client = Client(base_url=server.url)
        future = client.send_async("GET", "/x")
        server.wait_for_requests(1)
        first = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)

        def dispose_too() -> tuple[bool, list[str]]:
            client.dispose()
            return future.done(), our_threads()

        second = pool.submit(dispose_too)
        assert not wait([first], 0.2).done
        assert not second.done()
        gate.opened.set()

        assert second.result(30) == (True, [])
        first.result(30)
        assert_nothing_left(server.port)


def test_a_second_disposal_may_be_in_more_of_a_hurry_than_the_first() -> None:
    """BEH-C11."""
    with RawServer(silent) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url)
        future = client.send_async("GET", "/x")
        server.wait_for_requests(1)
        patient = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)

        client.dispose(drain_timeout=SOON)

        assert disposed_error(future).processed == "maybe"
        patient.result(30)
        assert_nothing_left(server.port)


@pytest.mark.concurrency
def test_eight_threads_may_dispose_at_once_and_all_return_when_it_is_over() -> None:
    """BEH-C4, FLT-P12."""
    with RawServer(always(echo)) as server, ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            client = Client(base_url=server.url)
            futures = [client.send_async("GET", f"/{n}") for n in range(10)]
            barrier = threading.Barrier(8)

            def dispose(client: Client = client, barrier: threading.Barrier = barrier) -> list[str]:
                barrier.wait(30)
                client.dispose()
                return our_threads()

            after = [done.result(30) for done in [pool.submit(dispose) for _ in range(8)]]

            assert after == [[]] * 8
            assert [Echoed.of(future.result(0)).target for future in futures] == [f"/{n}" for n in range(10)]
            assert_nothing_left(server.port)


@pytest.mark.concurrency
def test_what_races_the_disposal_completes_and_never_denies_what_was_sent() -> None:
    """BEH-C13, P33: refused in the caller, answered, or failed; "not processed" is never said of what arrived."""
    for _ in range(15):
        with RawServer(always(echo)) as server:
            client = Client(base_url=server.url)
            client.get("/first")
            made: dict[str, ResponseFuture] = {}
            ready = threading.Barrier(5)

            def submit(
                thread: int,
                client: Client = client,
                made: dict[str, ResponseFuture] = made,
                ready: threading.Barrier = ready,
            ) -> int:
                ready.wait(30)
                for n in range(1000):
                    try:
                        made[f"/{thread}/{n}"] = client.send_async("GET", f"/{thread}/{n}")
                    except ClientDisposed:
                        return n
                return 1000

            with ThreadPoolExecutor(4) as pool:
                counts = [pool.submit(submit, thread) for thread in range(4)]
                ready.wait(30)
                eventually(lambda made=made: len(made) > 5)  # type: ignore[misc]  # bound here
                client.dispose()
                total = sum(count.result(30) for count in counts)

            assert len(made) == total
            assert wait(made.values(), 5).not_done == set()
            arrived = {request.target for request in server.requests}
            for target, future in made.items():
                error = future.exception(0)
                assert error is None or isinstance(error, ClientDisposed)
                assert target not in arrived if error is not None and error.processed == "no" else target in arrived
            assert_nothing_left(server.port)


# -- without being asked -------------------------------------------------------------------------------------


def test_a_forgotten_client_is_disposed_and_what_it_has_under_way_finishes() -> None:
    """BEH-C13, FLT-P12: by the garbage collector, also out of a cycle."""
    gate = Gate()
    with RawServer(gate) as server:
        client: Client | None = Client(base_url=server.url, max_conns_per_host=1)
        assert client is not None
        futures = [client.send_async("GET", f"/{n}") for n in range(3)]
        server.wait_for_requests(1)
        circle: list[object] = [client]
        circle.append(circle)
        gone = weakref.ref(client)

        client = None
        del circle
        gc.collect()
        assert gone() is None
        gate.opened.set()

        assert [Echoed.of(future.result(30)).target for future in futures] == ["/0", "/1", "/2"]
        eventually(lambda: not our_threads())
        assert_nothing_left(server.port)


def test_forgotten_handles_of_a_factory_end_their_runtime_when_the_last_is_gone(server: RawServer) -> None:
    """BEH-C11, C13, FLT-P12: as if each had been disposed."""
    factory = ClientFactory().add("api", base_url=server.url)
    handles = [factory.create_client("api") for _ in range(3)]
    for handle in handles:
        handle.get("/x")
    del handle

    while len(handles) > 1:
        handles.pop()
        gc.collect()
        assert handles[0].get("/x").is_success
    handles.clear()
    gc.collect()

    eventually(lambda: not our_threads())
    assert_nothing_left(server.port)


def test_a_forgotten_factory_ends_nothing_that_a_handle_still_uses(server: RawServer) -> None:
    """BEH-C11."""
    client = ClientFactory().add("api", base_url=server.url).create_client("api")
    gc.collect()

    assert client.get("/x").is_success
    client.dispose()
    assert_nothing_left(server.port)


def test_a_client_collected_while_a_thread_for_a_callback_is_made_harms_nobody(server: RawServer) -> None:
    """FLT-P12: the collector may run anywhere, also where its finalizer's own lock is held."""
    called = threading.Event()

    def collect(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is threading.Thread.__init__.__code__:
            gc.collect()

    threading.setprofile(collect)  # of threads to come: the dispatcher
    gc.disable()
    try:
        with Client(base_url=server.url) as client:
            client.get("/x")
            circle: list[object] = [Client(base_url=server.url)]
            circle.append(circle)
            forgotten = weakref.ref(circle[0])
            circle[0].get("/y")  # type: ignore[attr-defined]  # it is a client
            del circle
            client.send_async("GET", "/x").add_done_callback(lambda _: called.set())

            assert called.wait(30)
            assert forgotten() is None
    finally:
        gc.enable()
        threading.setprofile(None)
    eventually(lambda: not our_threads())
    assert_nothing_left(server.port)


@pytest.mark.filterwarnings("ignore:a streamed response was dropped:ResourceWarning")
def test_a_stream_collected_while_bytes_come_for_it_harms_nobody() -> None:
    """FLT-P12: forgotten in a cycle without leaving its block; the collector runs as the dispatcher feeds it."""
    forgotten = threading.Event()
    collected: list[int] = []

    def handler(conn: Conn) -> None:
        while conn.read_request().target != "/stream":
            conn.send(respond(b"x"))
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        forgotten.wait(30)
        conn.send(b"678")
        conn.hold()

    def collect(frame: FrameType, event: str, _: object) -> None:
        if event == "c_call" and frame.f_code is BodyStream.feed.__code__ and forgotten.is_set():
            collected.append(gc.collect())

    threading.setprofile(collect)  # of threads to come: the dispatcher
    gc.disable()
    try:
        with RawServer(handler) as server, Client(base_url=server.url) as client:
            circle: list[object] = [client.stream("GET", "/stream")]
            circle.append(circle)
            circle.append(circle[0].__enter__())  # type: ignore[attr-defined]  # it is a context manager
            del circle
            forgotten.set()

            server.wait_until(lambda server: server.connections[0].peer_closed_at)
            assert client.get("/x", timeout=20).content == b"x"
            assert collected
    finally:
        gc.enable()
        threading.setprofile(None)


# -- streams -------------------------------------------------------------------------------------------------

SIZE = 3_000_000
"""More than a stream holds, so that it needs its connection to the end."""


def test_a_stream_that_is_read_on_finishes_during_a_disposal() -> None:
    """BEH-C13: it is in flight."""
    with RawServer(always(respond(bytes(SIZE)))) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url)
        with client.stream("GET", "/big") as response:
            pieces = response.iter_bytes(1000)
            received = len(next(pieces))
            disposed = pool.submit(client.dispose)
            eventually(lambda: client.is_disposed)
            received += sum(map(len, pieces))

            assert received == SIZE
        disposed.result(30)
        assert_nothing_left(server.port)


def test_a_stream_that_is_left_unread_lets_the_disposal_end() -> None:
    """BEH-C13: leaving its block gives the connection up."""
    with RawServer(always(respond(bytes(SIZE)))) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url)
        with client.stream("GET", "/big") as response:
            assert response.status_code == 200
            disposed = pool.submit(client.dispose)
            eventually(lambda: client.is_disposed)
            assert not disposed.done()
        disposed.result(30)
        assert_nothing_left(server.port)


def test_disposing_within_its_own_unread_stream_ends_with_the_read_timeout() -> None:
    """BEH-C13: a stream has no deadline after its head, so a drain without one must not wait for it for ever."""
    with RawServer(always(respond(bytes(SIZE)))) as server:
        client = Client(base_url=server.url)
        with client.stream("GET", "/big", timeout=Timeout(20.0, read=0.2)) as response:
            client.dispose()  # by the very thread that would have to read

            assert_nothing_left(server.port)
            with pytest.raises(ClientDisposed):
                response.read()


def test_a_reader_learns_that_the_client_was_disposed_under_its_stream() -> None:
    """BEH-C13: what has come is delivered, then the error; nobody waits for ever."""

    def half(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        conn.hold()

    with RawServer(half) as server:
        client = Client(base_url=server.url)
        with client.stream("GET", "/x") as response:
            pieces = response.iter_bytes()
            assert next(pieces) == b"12345"

            client.dispose(drain_timeout=0.05)

            with pytest.raises(ClientDisposed) as caught:
                next(pieces)
            assert (caught.value.processed, caught.value.request_sent) == ("maybe", True)
            assert_nothing_left(server.port)


def test_a_body_that_has_come_whole_can_be_read_after_the_disposal(server: RawServer) -> None:
    """BEH-C13."""
    responses: list[Response] = []
    client = Client(base_url=server.url)
    with client.stream("GET", "/x") as response:
        eventually(lambda: client.stats().idle == 1)
        client.dispose()
        responses.append(response)

        assert b"".join(response.iter_bytes())
    later = Client(base_url=server.url)
    buffered = later.get("/y")
    later.dispose()
    assert Echoed.of(buffered).target == "/y"
    assert_nothing_left(server.port)


# -- the others ----------------------------------------------------------------------------------------------


def test_disposing_one_client_leaves_another_alone() -> None:
    """BEH-C7, FLT-P12: they share a dispatcher, and nothing else."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url) as stays:
        goes = Client(base_url=server.url)
        theirs = stays.send_async("GET", "/stays")
        ours = goes.send_async("GET", "/goes")
        server.wait_for_requests(2)

        goes.dispose(drain_timeout=0)

        assert disposed_error(ours).processed == "maybe"
        assert not theirs.done()
        gate.opened.set()
        assert Echoed.of(theirs.result(30)).target == "/stays"
        assert Echoed.of(stays.get("/again")).connection == theirs.result(0).json()["connection"]
        assert len(live_hubs()) == 1


def test_a_client_may_have_a_dispatcher_of_its_own_which_ends_with_it(server: RawServer) -> None:
    """FLT-P12: ``own_dispatcher``."""
    with Client(base_url=server.url) as shared:
        shared.get("/x")
        own, other = (Client(base_url=server.url, own_dispatcher=True) for _ in range(2))
        own.get("/x")
        other.get("/x")
        assert len(live_hubs()) == 3

        own.dispose()

        assert len(live_hubs()) == 2
        assert other.get("/y").is_success
        other.dispose()
        assert len(live_hubs()) == 1
        assert shared.get("/y").is_success
        assert our_threads() == ["turbopool-dispatcher"]
    assert_nothing_left(server.port)


def test_the_next_client_starts_afresh_after_the_last_was_disposed(server: RawServer) -> None:
    """BEH-C13."""
    for round_ in range(20):
        with Client(base_url=server.url) as client:
            assert Echoed.of(client.get("/x")).connection == round_
    assert_nothing_left(server.port)


def test_cancelling_what_drains_ends_the_disposal() -> None:
    """BEH-C4, C13."""
    with RawServer(silent) as server, ThreadPoolExecutor(1) as pool:
        client = Client(base_url=server.url, max_conns_per_host=1)
        futures = [client.send_async("GET", "/x") for _ in range(5)]
        server.wait_for_requests(1)
        disposed = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)

        client.cancel_pending_requests()

        for future in futures:
            with pytest.raises(CancelledError):
                future.result(0)
        disposed.result(30)
        assert_nothing_left(server.port)


def test_callbacks_of_a_request_that_is_refused_after_the_end_are_still_called() -> None:
    """FLT-P2: a submit may race a dispose; its refusal then comes when no worker threads are left."""
    called = threading.Event()
    runtime = Runtime(ClientOptions())
    runtime.dispose()

    runtime.run_callback(called.set)

    assert called.wait(30)
