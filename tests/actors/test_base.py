"""Actors on a dispatcher: handling, crashing, stopping, and what comes too late."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pykka
import pytest

from turbopool.actors.base import DispatchedActor, bury, tell
from turbopool.actors.dispatcher import Dispatcher, Runnable
from turbopool.transport.memory import FakeClock, MemoryPoller, MemoryWaker

Settle = Callable[[], None]


class Recorder(DispatchedActor):
    """Notes in `log` all that happens to it; a message that is an exception is raised."""

    def __init__(self, dispatcher: Dispatcher, log: list[object], start_error: BaseException | None = None) -> None:
        super().__init__(dispatcher)
        self.log = log
        self.start_error = start_error

    def on_start(self) -> None:
        self.log.append("start")
        if self.start_error is not None:
            raise self.start_error

    def on_stop(self) -> None:
        self.log.append("stop")

    def on_crash(self, error: BaseException) -> None:
        self.log.append(("crash", error))

    def undelivered(self, message: object) -> None:
        self.log.append(("late", message))

    def on_receive(self, message: object) -> object:
        self.log.append(message)
        if isinstance(message, BaseException):
            raise message
        return ("answer", message)


class Clumsy(Recorder):
    """Fails while it cleans up after a failure."""

    def on_crash(self, error: BaseException) -> None:
        super().on_crash(error)
        msg = "scripted bug in on_crash"
        raise SystemExit(msg) from error

    def undelivered(self, message: object) -> None:
        super().undelivered(message)
        msg = "scripted bug in undelivered"
        raise SystemExit(msg)


@pytest.fixture
def poller() -> MemoryPoller:
    return MemoryPoller()


@pytest.fixture
def dispatcher(poller: MemoryPoller) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(FakeClock(), poller, MemoryWaker(poller))
    yield dispatcher
    for ref in pykka.ActorRegistry.get_by_class(Recorder):
        ref.stop(block=False)
    poller.settle(dispatcher.turn)
    dispatcher.stop()


@pytest.fixture
def settle(poller: MemoryPoller, dispatcher: Dispatcher) -> Settle:
    return lambda: poller.settle(dispatcher.turn)


# -- handling ----------------------------------------------------------------------------


def test_actor_starts_on_the_dispatcher_before_its_first_message(dispatcher: Dispatcher, settle: Settle) -> None:
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    ref.tell("first")
    assert log == []

    settle()

    assert log == ["start", "first"]


def test_messages_are_handled_one_by_one_in_the_order_they_were_told(dispatcher: Dispatcher, settle: Settle) -> None:
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    for number in range(200):
        ref.tell(number)

    settle()

    assert log == ["start", *range(200)]


@pytest.mark.parametrize("is_queued", [False, True])
def test_an_interrupted_tell_leaves_the_actor_no_message_behind(
    dispatcher: Dispatcher, settle: Settle, monkeypatch: pytest.MonkeyPatch, *, is_queued: bool
) -> None:
    """FLT-P15: as it begins to tell the dispatcher, or when it has."""
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    settle()
    schedule = dispatcher.schedule

    def interrupt(inbox: Runnable) -> None:
        monkeypatch.undo()
        if is_queued:
            schedule(inbox)
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatcher, "schedule", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ref.tell("interrupted")
    settle()
    assert log == ["start", "interrupted"]

    ref.tell("next")
    settle()
    assert log == ["start", "interrupted", "next"]


def test_messages_of_several_actors_are_handled_in_the_order_they_were_told(
    dispatcher: Dispatcher, settle: Settle
) -> None:
    """A supervisor's orders and its managers' facts meet in this order."""
    log: list[object] = []
    first, second = Recorder.start(dispatcher, log), Recorder.start(dispatcher, log)
    settle()
    log.clear()
    for number in range(50):
        (first, second)[number % 2].tell(number)

    settle()

    assert log == list(range(50))


def test_question_from_outside_is_answered(dispatcher: Dispatcher, settle: Settle) -> None:
    ref = Recorder.start(dispatcher, [])
    future = ref.ask("question", block=False)

    settle()

    assert future.get(timeout=0) == ("answer", "question")


def test_live_actor_is_in_pykkas_registry_and_a_stopped_one_is_not(dispatcher: Dispatcher, settle: Settle) -> None:
    ref = Recorder.start(dispatcher, [])
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is ref

    ref.stop(block=False)
    settle()

    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is None


# -- crashing ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exception_of_any_kind_stops_its_own_actor_and_no_other(
    dispatcher: Dispatcher, settle: Settle, kind: type[BaseException]
) -> None:
    """BEH-P40: Pykka's own loop stops every actor of the process for a ``BaseException``."""
    log: list[object] = []
    bad, good = Recorder.start(dispatcher, log), Recorder.start(dispatcher, others := list[object]())
    error = kind("scripted")

    bad.tell(error)
    good.tell("message")
    settle()

    assert log == ["start", error, ("crash", error)]
    assert others == ["start", "message"]
    assert (bad.is_alive(), good.is_alive()) == (False, True)
    assert pykka.ActorRegistry.get_by_urn(bad.actor_urn) is None


def test_exception_under_a_question_reaches_whoever_asked_and_is_a_crash_all_the_same(
    dispatcher: Dispatcher, settle: Settle
) -> None:
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    error = ValueError("scripted")
    future = ref.ask(error, block=False)

    settle()

    with pytest.raises(ValueError, match="scripted"):
        future.get(timeout=0)
    assert log[-1] == ("crash", error)


def test_actor_that_fails_to_start_crashes_and_what_it_was_told_comes_late(
    dispatcher: Dispatcher, settle: Settle
) -> None:
    error = SystemExit("scripted")
    log: list[object] = []
    ref = Recorder.start(dispatcher, log, error)
    ref.tell("message")

    settle()

    assert log == ["start", ("crash", error), ("late", "message")]
    assert not ref.is_alive()


def test_messages_behind_the_fatal_one_come_late_and_are_not_lost(dispatcher: Dispatcher, settle: Settle) -> None:
    """BEH-P40: Pykka drops them."""
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    error = ValueError("scripted")
    ref.tell(error)
    ref.tell("one")
    ref.tell("two")

    settle()

    assert log[2:] == [("crash", error), ("late", "one"), ("late", "two")]


def test_actor_crashes_only_once(dispatcher: Dispatcher, settle: Settle) -> None:
    """Two of its connections may report a bug in one turn."""
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    settle()
    actor = ref._actor_weakref()  # noqa: SLF001 - what a connection of its own would hold
    assert actor is not None

    actor.crash(first := ValueError("first"))
    actor.crash(ValueError("second"))

    assert log[1:] == [("crash", first)]


def test_bug_in_cleaning_up_does_not_stop_the_dispatcher(dispatcher: Dispatcher, settle: Settle) -> None:
    """BEH-P40: one bad actor never stops the thread, however bad."""
    log: list[object] = []
    ref = Clumsy.start(dispatcher, log)
    good = Recorder.start(dispatcher, others := list[object]())
    ref.tell(error := ValueError("scripted"))
    ref.tell("late")
    good.tell("message")

    settle()

    assert log == ["start", error, ("crash", error), ("late", "late")]
    assert others == ["start", "message"]


def test_question_to_a_crashing_actor_is_answered_though_its_clean_up_fails(
    dispatcher: Dispatcher, settle: Settle
) -> None:
    future = Clumsy.start(dispatcher, []).ask(ValueError("scripted"), block=False)

    settle()

    with pytest.raises(ValueError, match="scripted"):
        future.get(timeout=0)


# -- stopping ----------------------------------------------------------------------------


def test_stop_is_handled_in_its_turn(dispatcher: Dispatcher, settle: Settle) -> None:
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    ref.tell("before")
    ref.stop(block=False)
    ref.tell("after")

    settle()

    assert log == ["start", "before", "stop", ("late", "after")]


def test_questions_to_a_stopped_actor_are_answered(dispatcher: Dispatcher, settle: Settle) -> None:
    """Nobody waits for ever: a stop that was asked for is done, everything else learns that the actor is dead."""
    ref = Recorder.start(dispatcher, [])
    first, second = ref.stop(block=False), ref.stop(block=False)
    question = ref.ask("question", block=False)

    settle()

    assert first.get(timeout=0)
    assert second.get(timeout=0) in (True, False)
    with pytest.raises(pykka.ActorDeadError, match="stopped before handling"):
        question.get(timeout=0)


def test_telling_says_whether_the_actor_lives_to_hear_it(dispatcher: Dispatcher, settle: Settle) -> None:
    log: list[object] = []
    ref = Recorder.start(dispatcher, log)
    assert tell(ref, "message")
    ref.stop(block=False)
    settle()

    assert not tell(ref, "too late")
    settle()
    assert log == ["start", "message", "stop"]


def test_buried_actors_count_as_stopped(dispatcher: Dispatcher, settle: Settle) -> None:
    """Their dispatcher is dead: they will never read anything again."""
    ref = Recorder.start(dispatcher, [])
    settle()

    bury(ref, None)

    assert not tell(ref, "message")
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is None


def test_inbox_tells_how_many_messages_wait(dispatcher: Dispatcher, settle: Settle) -> None:
    ref = Recorder.start(dispatcher, [])
    settle()
    assert ref.actor_inbox.empty()
    ref.tell("one")
    ref.tell("two")

    assert len(ref.actor_inbox) == 2  # type: ignore[arg-type]  # our own inbox
    assert ref.actor_inbox.get().message == "one"
    assert not ref.actor_inbox.empty()
