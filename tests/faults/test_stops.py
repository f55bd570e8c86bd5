"""FLT-P7, P8: actors that are stopped while they are talked to, by us or by somebody else, or that never start."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pykka
import pytest

from tests.face.handlers import Echoed, echo
from tests.faults.actors import (
    Ref,
    assert_says_what_is_known,
    client_of,
    kill,
    managers,
    outcomes_of,
)
from tests.faults.aftermath import healthy
from tests.faults.driven import idle
from tests.servers.raw import RawServer, always
from tests.waiting import eventually
from turbopool import ManagerCrashed, TurboPoolError
from turbopool.actors import restart
from turbopool.actors.base import DispatchedActor
from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.poller import system_poller, system_waker
from turbopool.actors.supervisor import SupervisorActor
from turbopool.actors.tcp_manager import TcpConnectionManagerActor
from turbopool.clock import SystemClock
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange

# -- messages that race an end -----------------------------------------------------------------------------


@pytest.mark.concurrency
def test_whatever_races_the_stop_of_an_actor_is_answered() -> None:
    """FLT-P7: asked and told while another thread stops it or kills it; nobody waits for ever."""
    with RawServer(always(echo)) as server, client_of(server) as client:
        for n in range(150):
            assert client.get("/before").is_success
            (manager,) = managers()
            begin = threading.Barrier(3)

            def end(manager: Ref = manager, n: int = n, begin: threading.Barrier = begin) -> None:
                begin.wait(30)
                manager.stop(timeout=20) if n % 2 else pykka.ActorRegistry.stop_all(timeout=5)

            def ask(manager: Ref = manager, begin: threading.Barrier = begin) -> None:
                begin.wait(30)
                try:
                    manager.ask("what?", timeout=20)
                except (AssertionError, pykka.ActorDeadError):
                    pass  # it died of the question, or before it
                else:
                    pytest.fail("it understood")

            helpers = [threading.Thread(target=work) for work in (end, ask)]
            for helper in helpers:
                helper.start()
            begin.wait(30)
            error = client.send_async("GET", "/race").exception(30)
            for helper in helpers:
                helper.join(30)
            assert error is None or isinstance(error, ManagerCrashed), repr(error)
        assert client.get("/after").is_success


class Parrot(DispatchedActor):
    """Answers with what it was asked."""

    def on_receive(self, message: object) -> object:
        """Say it again."""
        return message


@pytest.mark.concurrency
def test_every_question_to_an_actor_that_is_being_stopped_is_answered() -> None:
    """FLT-P7: whether it comes before, in the middle of, or after the stop, and however the actor ends."""
    rounds = 500
    dispatcher = Dispatcher(SystemClock(), system_poller(), system_waker())
    dispatcher.start()
    actors = [Parrot.start(dispatcher) for _ in range(rounds)]
    begin = threading.Barrier(2)
    questions: list[pykka.Future[object]] = []
    stopping: list[pykka.Future[bool]] = []

    def ask() -> None:
        for actor in actors:
            begin.wait(30)
            with suppress(pykka.ActorDeadError):  # the stop was quicker
                questions.extend(actor.ask(n, block=False) for n in range(3))

    asker = threading.Thread(target=ask)
    asker.start()
    for actor in actors:
        begin.wait(30)
        stopping.append(actor.stop(block=False))
    asker.join(30)

    assert all(future.get(timeout=20) for future in stopping)
    for question in questions:
        with suppress(pykka.ActorDeadError):  # an answer, too
            assert question.get(timeout=20) in range(3)
    assert not any(actor.is_alive() for actor in actors)
    dispatcher.stop()


@pytest.mark.parametrize("step", ["__init__", "on_start"])
@pytest.mark.parametrize("faults", [1, 1000])
def test_a_manager_that_cannot_start_fails_its_requests_at_once(
    monkeypatch: pytest.MonkeyPatch, step: str, faults: int
) -> None:
    """FLT-P7: one that fails once is replaced, one that always fails is given up; nobody waits for either."""
    monkeypatch.setattr(restart, "WITHIN", 0.5)
    original, left = getattr(TcpConnectionManagerActor, step), [faults]

    def failing(self: TcpConnectionManagerActor, *arguments: object) -> None:
        original(self, *arguments)
        if left[0]:
            left[0] -= 1
            raise RuntimeError("it does not start")

    with (
        RawServer(healthy) as server,
        client_of(server) as client,
        monkeypatch.context() as patch,
    ):
        patch.setattr(TcpConnectionManagerActor, step, failing)
        for error in outcomes_of([client.send_async("GET", "/x") for _ in range(5)]):
            assert error is None or isinstance(error, ManagerCrashed)
        assert left[0] >= faults - 10 * (restart.MAX_RESTARTS + 1)
        left[0] = 0

        eventually(lambda: client.send_async("GET", "/x").exception(30) is None)
        server.wait_until(lambda server: server.open == client.stats().idle)


# -- somebody else's stop_all() ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_caller_that_is_slow_to_put_its_connection_back_keeps_no_manager_of_a_dead_supervisor(
    monkeypatch: pytest.MonkeyPatch, *, is_stopped: bool
) -> None:
    """FLT-P8: its dispatcher is stopped as soon as the next request finds that out, and may not leave it behind."""
    conclude, has_response, go_on = ClaimableConnection.conclude, threading.Event(), threading.Event()

    def slow(connection: ClaimableConnection, exchange: Exchange) -> bool:
        has_response.set()
        assert go_on.wait(30)
        return conclude(connection, exchange)

    with idle(healthy) as (_, client), ThreadPoolExecutor(1) as threads:
        with monkeypatch.context() as patch:
            patch.setattr(ClaimableConnection, "conclude", slow)
            held = threads.submit(client.get, "/held")
            assert has_response.wait(30)
        before = managers()
        (supervisor,) = pykka.ActorRegistry.get_by_class(SupervisorActor)
        supervisor.stop(timeout=20) if is_stopped else kill(supervisor)
        assert client.get("/next").is_success
        assert not any(manager.is_alive() for manager in before)
        go_on.set()
        assert_says_what_is_known(held.exception(30), ManagerCrashed, sent=True)
        assert client.get("/after").is_success


@pytest.mark.concurrency
def test_actors_stopped_by_somebody_else_under_load_are_made_anew() -> None:
    """FLT-P8, BEH-C2, I5, I7: futures fail with what is known of them, and the next call starts afresh."""
    over = threading.Event()
    outcomes: list[TurboPoolError | None] = []

    with (
        RawServer(always(echo)) as server,
        client_of(server, 2) as client,
    ):

        def send(thread: int) -> None:
            while not over.is_set():
                target = f"/{thread}/{len(outcomes)}"
                try:
                    assert Echoed.of(client.post(target, timeout=10)).target == target
                except ManagerCrashed as error:
                    outcomes.append(error)
                else:
                    outcomes.append(None)

        threads = [threading.Thread(target=send, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            before = len(outcomes)
            eventually(lambda before=before: outcomes[before:].count(None) > 5)  # type: ignore[misc]
            pykka.ActorRegistry.stop_all(timeout=20)
        over.set()
        for thread in threads:
            thread.join(30)

        assert not any(thread.is_alive() for thread in threads)
        for error in outcomes:
            assert error is None or error.processed == ("maybe" if error.request_sent else "no")
        assert client.get("/after").is_success
        assert not client.is_disposed
        assert client.stats().opened - client.stats().closed == client.stats().idle
        server.wait_until(lambda server: server.open == client.stats().idle)
        assert server.peak <= 2
