"""FLT-P5, P6: managers that die, whatever they die of, under real requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pykka
import pytest

from tests.face.handlers import Echoed, Gate, echo, silent
from tests.faults.actors import (
    assert_accounted,
    assert_says_what_is_known,
    client_of,
    kill,
    managers,
    outcomes_of,
    pool_of,
)
from tests.faults.aftermath import NEXT, assert_balanced, healthy
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer, always
from tests.servers.wire import respond
from tests.waiting import PATIENCE, SPENT, eventually, reached, with_short_times
from turbopool import Client, ManagerCrashed, TurboPoolError
from turbopool.actors import restart
from turbopool.actors.dialing import Dialing
from turbopool.actors.hub import live_hubs

DEATHS = [RuntimeError, MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
LIMIT = 2


class Theirs(pykka.ThreadingActor):
    """An actor of the application's."""

    use_daemon_thread = True

    def on_receive(self, message: object) -> object:
        """Say it again."""
        return message


# -- a manager that dies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("death", DEATHS)
def test_a_manager_may_die_of_anything(death: type[BaseException]) -> None:
    """FLT-P5, P6, BEH-P40, I1, I3, I26: what is in flight fails, what waits is served, and nobody else notices."""
    gate, elsewhere = Gate(respond(NEXT)), Gate(respond(NEXT))
    theirs = Theirs.start()
    with (
        RawServer(gate) as server,
        RawServer(elsewhere) as other,
        client_of(server, LIMIT) as client,
    ):
        running = [client.send_async(method, "/running") for method in ("GET", "POST")]
        server.wait_for_requests(LIMIT)
        waiting = [client.send_async("POST", f"/waiting/{n}") for n in range(3)]
        eventually(lambda: client.stats().waiting == 3)
        (manager,) = managers()
        neighbour = client.send_async("GET", f"{other.url}/neighbour")
        other.wait_for_requests(1)

        kill(manager, death("a bug"))

        for error in outcomes_of(running):
            assert_says_what_is_known(error, ManagerCrashed, sent=True)
            assert isinstance(error.__cause__ if error else None, death)
        gate.opened.set()
        elsewhere.opened.set()
        assert [future.result(30).content for future in (*waiting, neighbour)] == [NEXT] * 4
        assert_accounted(client, server.url, sent=5)
        assert_accounted(client, other.url, sent=1)
        assert server.peak <= LIMIT
        assert set(Counter(request.target for request in server.requests if request.method == "POST").values()) == {1}
        assert len(other.connections) == 1
        assert theirs.ask("still there", timeout=20) == "still there"
    theirs.stop()


def test_a_body_under_way_and_a_stream_being_read_end_with_their_manager() -> None:
    """FLT-P5, I5: a reader learns why at its next read, and no thread stays behind with the body."""
    drawn, over = threading.Event(), threading.Event()

    def handler(conn: Conn) -> None:
        request = conn.read_head()
        if request.target == "/stream":
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            conn.hold()
        conn.read_body(request)

    def body() -> Iterator[bytes]:
        yield b"one"
        drawn.set()
        over.wait(30)

    with (
        RawServer(handler) as server,
        client_of(server, LIMIT) as client,
    ):
        upload = client.send_async("PUT", "/upload", content=body())
        assert drawn.wait(30)
        with client.stream("GET", "/stream") as response:
            pieces = response.iter_bytes()
            assert next(pieces) == b"12345"
            (manager,) = managers()

            kill(manager)

            with pytest.raises(ManagerCrashed):
                next(pieces)
        assert_says_what_is_known(upload.exception(30), ManagerCrashed, sent=True)
        over.set()
        server.wait_until(lambda server: server.open == 0)
        assert pool_of(client, server.url).opened == pool_of(client, server.url).closed == LIMIT


@with_short_times
def test_a_manager_that_dies_again_and_again_is_not_replaced_for_ever(
    monkeypatch: pytest.MonkeyPatch, short: float
) -> None:
    """FLT-P5, BEH-P40, I27: its requests are refused until the budget recovers; no other key is."""
    monkeypatch.setattr(restart, "WITHIN", min(15 * short, 20.0))
    with (
        RawServer(silent) as server,
        RawServer(healthy) as other,
        client_of(server) as client,
    ):
        client.get(other.url)
        (neighbour,) = managers()
        began = time.monotonic()
        for n in range(restart.MAX_RESTARTS + 1):
            future = client.send_async("GET", "/x")
            server.wait_for_requests(n + 1)
            (manager,) = set(managers()) - {neighbour}
            kill(manager)
            assert_says_what_is_known(future.exception(30), ManagerCrashed, sent=True)

        errors = [client.send_async("GET", "/x", timeout=short).exception(30) for _ in range(20)]
        reached(time.monotonic() - began < restart.WITHIN)
        for error in errors:
            assert_says_what_is_known(error, ManagerCrashed, sent=False)
        assert len(server.connections) == restart.MAX_RESTARTS + 1
        assert client.get(other.url).content == NEXT
        assert managers() == [neighbour]
        eventually(lambda: _is_served(client, server), timeout=restart.WITHIN + SPENT + 1)
        assert client.get(other.url).content == NEXT
        assert len(other.connections) == 1


def _is_served(client: Client, server: RawServer) -> bool:
    """Whether a request gets as far as the server."""
    before = len(server.requests)
    future = client.send_async("GET", "/again")
    eventually(lambda: future.done() or len(server.requests) > before)
    served = not future.done()
    future.cancel()
    return served


@pytest.mark.concurrency
def test_managers_that_die_under_load_harm_only_what_they_had_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLT-P5, BEH-P40, I1, I5, I7, I9: each answer is the asker's own, and no POST is seen twice."""
    monkeypatch.setattr(restart, "MAX_RESTARTS", 1000)
    over = threading.Event()
    outcomes: list[tuple[str, TurboPoolError | None]] = []

    with (
        RawServer(always(echo)) as server,
        client_of(server, LIMIT) as client,
    ):

        def send(thread: int) -> None:
            n = 0
            while not over.is_set():
                target, n = f"/{thread}/{n}", n + 1
                try:
                    assert Echoed.of(client.post(target, timeout=10)).target == target
                except ManagerCrashed as error:
                    outcomes.append((target, error))
                else:
                    outcomes.append((target, None))

        threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            before = len(outcomes)
            eventually(lambda before=before: len(outcomes) > before + 10)  # type: ignore[misc]
            for manager in managers():
                kill(manager)
        over.set()
        for thread in threads:
            thread.join(30)

        assert not any(thread.is_alive() for thread in threads)
        assert_accounted(client, server.url, sent=len(outcomes))
        assert server.peak <= LIMIT
        seen = Counter(request.target for request in server.requests)
        assert max(seen.values()) == 1
        for target, error in outcomes:
            assert error is None or error.processed == ("maybe" if error.request_sent else "no")
            assert seen[target] or (error is not None and error.processed != "yes")


def test_a_request_whose_handling_is_fatal_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLT-P5, I5: it stands in no books yet; those that do are served by the replacement."""
    gate, faults = Gate(respond(NEXT)), [ZeroDivisionError("a bug")]

    def fails_once(self: Dialing) -> bool:
        del self
        if faults:
            raise faults.pop()
        return False

    with RawServer(gate) as server, client_of(server, 1) as client:
        running = client.send_async("GET", "/running")
        server.wait_for_requests(1)
        waiting = client.send_async("GET", "/waiting")
        (hub,) = live_hubs()
        assert hub.dispatcher.answers(PATIENCE)  # it stands in the books by now
        monkeypatch.setattr(Dialing, "is_hopeless", property(fails_once))
        error = client.send_async("GET", "/fatal").exception(30)

        assert_says_what_is_known(error, ManagerCrashed, sent=False)
        assert_says_what_is_known(running.exception(30), ManagerCrashed, sent=True)
        gate.opened.set()
        assert waiting.result(30).content == NEXT
        assert_accounted(client, server.url, sent=3)


# -- slots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Conn.cut, Conn.reset])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_an_abrupt_close_frees_the_place_for_whoever_waits(said: bytes, end: Handler) -> None:
    """BEH-P24: at whatever byte the server goes."""
    first = threading.Event()

    def breaks(conn: Conn) -> None:
        conn.read_request()
        assert first.wait(30)
        conn.send(said)
        end(conn)

    with (
        RawServer([breaks, healthy]) as server,
        client_of(server, 1) as client,
    ):
        broken = client.send_async("POST", "/broken")
        server.wait_for_requests(1)
        waiting = client.send_async("POST", "/waiting")
        eventually(lambda: client.stats().waiting == 1)
        first.set()

        assert isinstance(broken.exception(30), TurboPoolError)
        assert waiting.result(30).content == NEXT
        assert_balanced(client, server, connections=2)
        assert server.peak == 1
