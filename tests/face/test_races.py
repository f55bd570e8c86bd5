"""Races between threads that use, cancel, renew and dispose: nobody hears twice, and nothing is lost."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack
from unittest.mock import Mock

import pytest
from tenacity import stop_never, wait_fixed

from tests.face.handlers import AnyForm, Echoed, Gate, echo, silent
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, respond
from tests.waiting import PATIENCE, eventually
from turbopool import (
    Client,
    ClientDisposed,
    ClientFactory,
    ReconnectOptions,
    Response,
    ResponseFuture,
    Timeout,
    TurboPoolError,
)
from turbopool import future as future_module
from turbopool.clock import NEVER
from turbopool.future import _state_lock

pytestmark = pytest.mark.concurrency


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """Run ``work(n)`` in as many threads, all begun at once, and return what they return."""
    start = threading.Barrier(count)

    def begin(n: int) -> object:
        start.wait(30)
        return work(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count), timeout=50))


def assert_at_rest(client: Client, server: RawServer) -> None:
    """BEH-P46, P24: what the pool says is open is open at the server, and nothing is leased or waits."""

    def at_rest() -> bool:
        stats = client.stats()
        return (stats.leased, stats.waiting, stats.connecting) == (0, 0, 0) and (
            stats.opened - stats.closed == stats.idle == server.open
        )

    eventually(at_rest)


def test_a_future_that_is_cancelled_while_it_ends_is_heard_of_once(server: RawServer) -> None:
    """BEH-P45, P46, C4: by its callback, by as_completed, and by whoever asks."""
    calls: Counter[int] = Counter()
    lock = threading.Lock()

    def count(future: object) -> None:
        with lock:
            calls[id(future)] += 1

    with Client(base_url=server.url, max_conns_per_host=4) as client:
        futures: list[ResponseFuture] = []

        def work(n: int) -> tuple[int, int]:
            ours = []
            for turn in range(40):
                future = client.send_async("GET", f"/{n}/{turn}")
                future.add_done_callback(count)
                ours.append(future)
                if turn % 2:
                    ours[turn // 2].cancel()
            with lock:
                futures.extend(ours)
            yielded = list(as_completed(ours, 30))
            return len(yielded), len(set(map(id, yielded)))

        assert together(8, work) == [(40, 40)] * 8

        for future in futures:
            if future.cancelled():
                with pytest.raises(CancelledError):
                    future.result(0)
            else:
                assert future.result(0).is_success
        eventually(lambda: sum(calls.values()) == len(futures))
        assert set(calls.values()) == {1}
        assert Echoed.of(client.get("/after")).target == "/after"
        assert_at_rest(client, server)


def test_who_begins_to_wait_in_the_very_moment_of_the_end_hears_of_it_once() -> None:
    """BEH-C2: the standard library looks at the state and leaves a waiter under a lock that is made just then."""
    never_launched: AnyForm = Mock(raft=[])
    futures = [ResponseFuture(never_launched, Mock()) for _ in range(2_000)]
    response: AnyForm = object()
    barriers = [threading.Barrier(3) for _ in futures]

    def work(n: int) -> int:
        heard = 0
        for future, barrier in zip(futures, barriers, strict=True):
            barrier.wait(PATIENCE)
            if n == 0:
                heard += future.succeed(response)
            elif n == 1:
                heard += len(wait([future], PATIENCE).done)
            else:
                heard += len(list(as_completed([future, future], PATIENCE)))
        return heard

    assert together(3, work) == [len(futures)] * 3


def test_what_was_seen_under_the_lock_holds_until_it_is_let_go() -> None:
    """BEH-C2: who waits for several futures looks at all of them before it leaves a waiter with each."""
    never_launched: AnyForm = Mock(raft=[])
    future = ResponseFuture(never_launched, Mock())
    response: AnyForm = object()
    settling = threading.Thread(target=future.succeed, args=(response,))
    with future._condition:  # noqa: SLF001  # as the standard library does
        settling.start()
        settling.join(0.05)
        assert not future.settled
        assert settling.is_alive()
    settling.join(PATIENCE)
    assert future.result(0) is response


def test_a_destructor_never_runs_under_the_lock_of_all_futures() -> None:
    """BEH-C2: it may wait for anything, and other threads for that lock."""
    never_launched: AnyForm = Mock(raft=[], deadline=NEVER)
    host = Mock()
    owned: list[bool] = []

    class Dropped:
        def __init__(self) -> None:
            self.itself = self  # for the garbage collector to find, whenever it runs

        def __del__(self) -> None:
            owned.append(_state_lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001

    before = gc.get_threshold()
    try:
        for turn in range(4_000):
            future = ResponseFuture(never_launched, host)
            gc.set_threshold(1 + turn % 40)
            Dropped()
            with pytest.raises(TimeoutError):
                future.result(0)
            future.add_done_callback(repr)
            assert future._condition  # noqa: SLF001  # as the standard library asks for it
            future.succeed(never_launched)
    finally:
        gc.set_threshold(*before)
    assert owned
    assert not any(owned)


def test_a_sleeper_whom_nobody_woke_finds_out_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """BEH-C2: a thread may be interrupted between settling a future and waking those who wait for it."""
    monkeypatch.setattr(future_module, "PATROL", 0.05)
    never_launched: AnyForm = Mock(raft=[], deadline=NEVER, asked_at=0.0)
    future = ResponseFuture(never_launched, Mock())
    response: AnyForm = object()
    with ThreadPoolExecutor(1) as threads:
        sleeping = threads.submit(future.result)
        eventually(lambda: future._sleepers)  # noqa: SLF001
        with monkeypatch.context() as interrupted:
            interrupted.setattr(ResponseFuture, "_wake_sleepers", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                future.succeed(response)
        assert sleeping.result(PATIENCE) is response


def test_cancelling_everything_again_and_again_loses_nothing() -> None:
    """BEH-C4."""
    with RawServer(silent) as server, Client(base_url=server.url, max_conns_per_host=4) as client:

        def work(n: int) -> int:
            for turn in range(10):
                future = client.send_async("GET", f"/{n}/{turn}")
                client.cancel_pending_requests()
                with pytest.raises(CancelledError):
                    future.result(30)
            return n

        assert together(8, work) == list(range(8))
        assert_at_rest(client, server)


def test_two_threads_that_cancel_one_future_are_both_told_that_it_is() -> None:
    with RawServer(silent) as server, Client(base_url=server.url) as client:
        for _ in range(20):
            future = client.send_async("GET", "/x")

            def cancel(_: int, future: ResponseFuture = future) -> bool:
                return future.cancel()

            assert together(2, cancel) == [True, True]
            assert future.cancelled()


def test_disposing_from_many_threads_while_others_send(server: RawServer) -> None:
    """BEH-C11, C13."""
    client = Client(base_url=server.url)
    client.get("/x")

    def work(n: int) -> str:
        if n % 2:
            client.dispose()
            return "disposed"
        try:
            return Echoed.of(client.get(f"/{n}")).target
        except ClientDisposed:
            return f"/{n}"

    assert together(16, work) == ["disposed" if n % 2 else f"/{n}" for n in range(16)]


def test_handles_come_and_go_while_the_name_is_in_use(server: RawServer) -> None:
    """BEH-C6, C11."""
    with ClientFactory().add("api", base_url=server.url, max_conns_per_host=4) as factory:
        kept = factory.create_client("api")

        def work(n: int) -> list[str]:
            targets = []
            for turn in range(10):
                handle = factory.create_client("api")
                targets.append(Echoed.of(handle.get(f"/{n}/{turn}")).target)
                if turn % 2:
                    handle.dispose()
            return targets

        assert together(16, work) == [[f"/{n}/{turn}" for turn in range(10)] for n in range(16)]
        assert kept.stats().requests == 160
        assert server.peak <= 4


def test_a_header_that_is_renewed_meanwhile_is_never_outdated() -> None:
    """BEH-C5: a request carries the token of its moment or a later one, also a plain call that is remembered."""
    tokens: list[int] = [0]

    def answer(request: RawRequest) -> bytes:
        return respond((request.header("x-token") or "").encode())

    with RawServer(always(answer)) as server, Client(base_url=server.url, headers={"X-Token": "0"}) as client:

        def work(n: int) -> bool:
            if n == 0:
                for token in range(1, 200):
                    client.headers["X-Token"] = str(token)
                    tokens[0] = token
                return True
            fresh = True
            for _ in range(30):
                least = tokens[0]
                fresh = fresh and int(client.get("/x").text) >= least
            return fresh

        assert together(9, work) == [True] * 9
        assert [client.get("/x").text for _ in range(3)] == ["199"] * 3


def _moody(conn: Conn) -> None:
    """Answer, answer and close, close without an answer, or reset, as the target says."""
    while True:
        request = conn.read_request()
        mood = request.target.rsplit("/", 1)[-1]
        if mood == "cut":
            return
        if mood == "reset":
            conn.reset()
            return
        conn.send(respond(request.target.encode(), headers=[("Connection", "close")] if mood == "close" else []))
        if mood == "close":
            return


def _use(client: Client, way: str, target: str) -> Response | None:
    """Send a request in one of several ways; return the response if it is to be looked at."""
    match way:
        case "cancel":
            client.send_async("GET", target).cancel()
        case "hasty":
            return client.get(target, timeout=Timeout(10, queue=0.001))
        case "give up":
            with client.stream("GET", target):
                pass
        case "stream":
            with client.stream("GET", target) as response:
                response.read()
                return response
        case _:
            return client.request(way, target)
    return None


@pytest.mark.parametrize("seed", range(3))
def test_no_connection_is_lost_whatever_happens(seed: int) -> None:
    """BEH-P46: answers, closes, resets, cancels, timeouts and streams given up, in random order."""
    soon = ReconnectOptions(wait=wait_fixed(0.01), stop=stop_never)  # two requests in five are hung up on
    with RawServer(_moody) as server, Client(base_url=server.url, max_conns_per_host=5, reconnect=soon) as client:

        def work(n: int) -> list[str]:
            dice = random.Random(f"{seed}/{n}")  # noqa: S311  # no secret
            wrong = []
            for turn in range(15):
                target = f"/{n}/{turn}/" + dice.choice(["fine", "fine", "close", "cut", "reset"])
                way = dice.choice(["GET", "POST", "cancel", "hasty", "stream", "give up"])
                try:
                    response = _use(client, way, target)
                except TurboPoolError as error:
                    if not target.endswith(("cut", "reset")) and way != "hasty":
                        wrong.append(f"{way} {target}: {error!r}")
                else:
                    if response is not None and response.text != target:
                        wrong.append(f"{way} {target}: {response.text}")
            return wrong

        assert together(8, work) == [[]] * 8
        assert server.peak <= 5
        assert client.get("/last/fine").text == "/last/fine"
        assert_at_rest(client, server)


def test_each_thread_is_served_in_the_order_it_asked_from_the_first_request_of_a_key_on() -> None:
    """BEH-P26, P29, P37: 256 requests of 16 threads wait behind one connection that does not exist yet."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, max_conns_per_host=1) as client:

        def work(n: int) -> list[ResponseFuture]:
            return [client.send_async("GET", f"/{n}/{turn}") for turn in range(16)]

        sent = together(16, work)
        gate.opened.set()

        for n, futures in enumerate(sent):
            assert isinstance(futures, list)
            assert [Echoed.of(future.result(30)).target for future in futures] == [f"/{n}/{turn}" for turn in range(16)]
        order = [request.target.split("/")[1:] for request in server.requests]
        for n in range(16):
            assert [turn for thread, turn in order if thread == str(n)] == [str(turn) for turn in range(16)]
        assert len(server.connections) == 1


def test_clients_come_and_go_on_one_dispatcher(server: RawServer) -> None:
    """BEH-C13: the last one out stops it, the next one in starts another."""

    def work(n: int) -> list[str]:
        targets = []
        for turn in range(5):
            with Client(base_url=server.url) as client:
                targets.append(Echoed.of(client.get(f"/{n}/{turn}")).target)
        return targets

    assert together(8, work) == [[f"/{n}/{turn}" for turn in range(5)] for n in range(8)]


def test_servers_of_many_keys_are_never_mixed_up() -> None:
    """BEH-P13, P29: several keys at once."""
    with ExitStack() as stack:
        servers = [stack.enter_context(RawServer(always(echo))) for _ in range(6)]
        client = stack.enter_context(Client(max_conns_per_host=2))

        def work(n: int) -> list[list[str]]:
            return [Echoed.of(client.get(f"{server.url}/{n}")).all("host") for server in servers]

        assert together(16, work) == [[[f"127.0.0.1:{server.port}"] for server in servers]] * 16
        assert len(client.stats().pools) == 6
        assert all(server.peak <= 2 for server in servers)
