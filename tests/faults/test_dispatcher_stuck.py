"""FLT-P8, P12, P19: the one thread that drives everything is stuck, or only looks like it; callers notice."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import wait

import pytest

from tests.face.handlers import Gate, silent
from tests.faults.actors import assert_says_what_is_known
from tests.faults.aftermath import NEXT, healthy
from tests.faults.dispatchers import breakable_pollers, dispatchers
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import PATIENCE, SPENT, eventually
from turbopool import Client, ManagerCrashed, ReconnectOptions, ResponseFuture, runtime
from turbopool import future as future_module
from turbopool.actors import dispatcher, hub
from turbopool.actors.dispatcher import LATE
from turbopool.actors.hub import CONFIRM
from turbopool.transport.connection import Http1Connection


class Blocking:
    """A wait strategy of the user's that never returns until it is released."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, state: object) -> float:
        """Block the thread that asks."""
        del state
        self.reached.set()
        self.released.wait(60)
        return 0.0


def _stick(client: Client, server: RawServer, blocking: Blocking) -> ResponseFuture:
    """Let a key of the client's lose its host, so that it asks when to try again; return what waits for that."""
    assert client.get("/fast").content == NEXT
    server.refuse()
    for conn in server.connections:
        conn.reset()
    eventually(lambda: client.stats().idle == 0)
    future = client.send_async("GET", "/stuck", timeout=60)
    assert blocking.reached.wait(30)
    return future


def test_a_stuck_thread_is_noticed_by_the_next_call_and_replaced() -> None:
    """FLT-P8, I5, I21, I25: after five seconds without a turn and one of silence; when let go, it leaves nothing."""
    blocking = Blocking()
    with (
        RawServer(Gate(respond(NEXT))) as gone,
        RawServer(Gate(respond(NEXT))) as server,
        Client(base_url=gone.url, reconnect=ReconnectOptions(wait=blocking)) as guilty,
        Client(base_url=server.url) as client,
    ):
        running = client.send_async("POST", "/running", timeout=60)
        server.wait_for_requests(1)
        began = time.monotonic()
        stuck = _stick(guilty, gone, blocking)
        (thread,) = dispatchers()
        early = client.send_async("POST", "/early", timeout=60)

        eventually(lambda: client.send_async("GET", "/fast", timeout=60).done() or running.done())

        assert LATE <= time.monotonic() - began < LATE + CONFIRM + SPENT
        assert not wait([running, stuck, early], 20).not_done
        assert_says_what_is_known(running.exception(), ManagerCrashed, sent=True)
        for future in (stuck, early):
            assert_says_what_is_known(future.exception(), ManagerCrashed, sent=False)
        assert client.get("/fast", timeout=20).content == NEXT
        assert thread.is_alive()
        with RawServer(healthy, port=gone.port) as back:
            blocking.released.set()
            thread.join(30)
            assert not thread.is_alive()
            assert guilty.get("/next", timeout=20).content == NEXT
            assert [request.target for request in back.requests] == ["/next"]
        assert len(dispatchers()) == 1
        server.wait_until(lambda server: server.open == client.stats().idle)
        assert "/early" not in {request.target for request in server.requests}


@pytest.mark.parametrize("who", ["waits", "disposes", "cancels"])
def test_a_stuck_thread_is_noticed_by_whoever(monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """FLT-P12, I6, I15: waits for a future, disposes of a client, or cancels what it sent."""
    monkeypatch.setattr(dispatcher, "LATE", 0.3)
    monkeypatch.setattr(hub, "CONFIRM", 0.5)
    monkeypatch.setattr(future_module, "PATROL", 0.5)
    monkeypatch.setattr(runtime, "_PATIENCE", 0.5)
    blocking = Blocking()
    with RawServer(Gate(respond(NEXT))) as gone, RawServer(silent) as server:
        guilty = Client(base_url=gone.url, reconnect=ReconnectOptions(wait=blocking))
        client = Client(base_url=server.url, request_timeout=30)
        running = client.send_async("GET", "/running")
        server.wait_for_requests(1)
        stuck = _stick(guilty, gone, blocking)
        began = time.monotonic()

        if who == "waits":
            assert isinstance(running.exception(), ManagerCrashed)
        elif who == "cancels":
            client.cancel_pending_requests()
        client.dispose()
        guilty.dispose()

        assert time.monotonic() - began < 2 * SPENT
        assert stuck.done()
        assert running.done()
        blocking.released.set()


def test_the_request_in_the_hand_of_a_stuck_thread_fails_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLT-P8, I1: it stands in no book and no inbox; what becomes of it, should the thread go on, nobody knows."""
    monkeypatch.setattr(dispatcher, "LATE", 0.3)
    monkeypatch.setattr(hub, "CONFIRM", 0.5)
    monkeypatch.setattr(future_module, "PATROL", 0.5)
    reached, released, usable = threading.Event(), threading.Event(), Http1Connection.is_usable

    def stuck(connection: Http1Connection, now: float, *, careful: bool) -> bool:
        reached.set()
        released.wait(60)
        return usable(connection, now, careful=careful)

    with RawServer(healthy) as server, Client(base_url=server.url) as client:
        assert client.get("/first").status_code == 200
        monkeypatch.setattr(Http1Connection, "is_usable", stuck)
        future = client.send_async("POST", "/in-hand", content=iter([b"x"]), timeout=None)  # not one that callers send
        assert reached.wait(30)

        assert_says_what_is_known(future.exception(30), ManagerCrashed, sent=True)

        monkeypatch.undo()
        assert client.get("/next").status_code == 200
        released.set()
        eventually(lambda: len(dispatchers()) == 1)


def test_a_thread_that_could_not_run_for_a_while_is_not_taken_for_a_stuck_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FLT-P19: somebody kept the interpreter to himself; what was in flight goes on, on the same thread."""
    monkeypatch.setattr(dispatcher, "LATE", 0.1)
    monkeypatch.setattr(hub, "CONFIRM", PATIENCE)
    pollers = breakable_pollers(monkeypatch)
    gate = Gate(respond(NEXT))
    with RawServer(gate) as server, Client(base_url=server.url, max_conns_per_host=4) as client:
        running = client.send_async("POST", "/running", timeout=20)
        server.wait_for_requests(1)
        before = dispatchers()
        for n in range(3):
            eventually(lambda: pollers[0].is_polling)
            futures = [client.send_async("GET", f"/fast/{n}")]
            _keep_the_interpreter(0.3)
            futures.append(client.send_async("GET", f"/fast/{n}"))
            assert [future.result(30).content for future in futures] == [NEXT] * 2
        gate.opened.set()
        assert running.result(30).content == NEXT
        assert dispatchers() == before


def _keep_the_interpreter(seconds: float) -> None:
    """Let no other thread run."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(100.0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    sys.setswitchinterval(before)
