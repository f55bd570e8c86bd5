"""The dispatcher: turns, sleep and waking, readiness, timers, faults, the end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.waiting import eventually
from turbopool.actors.base import DispatchedActor
from turbopool.actors.dispatcher import MESSAGES_A_TURN, Dispatcher
from turbopool.actors.poller import system_poller, system_waker
from turbopool.clock import SystemClock
from turbopool.transport.interfaces import READ, WRITE
from turbopool.transport.memory import FakeClock, MemoryChannel, MemoryPoller, MemoryWaker


class Stub:
    """A handler that notes what it is told, and may fail."""

    def __init__(self, on_ready: Callable[[int], None] | None = None, on_crash: BaseException | None = None) -> None:
        self.ready: list[int] = []
        self.crashes: list[BaseException] = []
        self.abandoned = 0
        self._on_ready = on_ready
        self._on_crash = on_crash

    def on_ready(self, mask: int) -> None:
        self.ready.append(mask)
        if self._on_ready is not None:
            self._on_ready(mask)

    def on_crash(self, error: BaseException) -> None:
        self.crashes.append(error)
        if self._on_crash is not None:
            raise self._on_crash

    def abandon(self) -> None:
        self.abandoned += 1

    let_go = abandon


def fail(_: object = None) -> None:
    """Have a bug."""
    msg = "scripted bug"
    raise SystemExit(msg)


def in_turn(*steps: Callable[[], object]) -> Callable[..., None]:
    """Do one thing after the other, whatever it is called with."""

    def run(*_: object) -> None:
        for step in steps:
            step()

    return run


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def poller() -> MemoryPoller:
    return MemoryPoller()


@pytest.fixture
def waker(poller: MemoryPoller) -> MemoryWaker:
    return MemoryWaker(poller)


@pytest.fixture
def dispatcher(clock: FakeClock, poller: MemoryPoller, waker: MemoryWaker) -> Dispatcher:
    return Dispatcher(clock, poller, waker)


@pytest.fixture
def channel(poller: MemoryPoller) -> MemoryChannel:
    return MemoryChannel(poller)


@pytest.fixture
def running() -> Iterator[Dispatcher]:
    """A dispatcher with a thread of its own."""
    dispatcher = Dispatcher(SystemClock(), system_poller(), system_waker())
    dispatcher.start()
    yield dispatcher
    dispatcher.stop()


# -- turns -------------------------------------------------------------------------------


def test_calls_run_in_the_order_they_were_posted(dispatcher: Dispatcher) -> None:
    log: list[int] = []
    for number in range(10):
        dispatcher.post(lambda number=number: log.append(number))  # type: ignore[misc]
    assert log == []

    dispatcher.turn()

    assert log == list(range(10))


def test_what_a_message_causes_waits_for_the_next_turn(dispatcher: Dispatcher) -> None:
    log: list[str] = []
    dispatcher.post(in_turn(lambda: log.append("first"), lambda: dispatcher.post(lambda: log.append("second"))))

    dispatcher.turn()
    assert log == ["first"]
    dispatcher.turn()

    assert log == ["first", "second"]


def test_turn_handles_a_bounded_number_of_messages_and_does_not_sleep_before_the_rest(
    dispatcher: Dispatcher, poller: MemoryPoller
) -> None:
    log: list[int] = []
    for number in range(MESSAGES_A_TURN + 10):
        dispatcher.post(lambda number=number: log.append(number))  # type: ignore[misc]

    dispatcher.turn(-1)
    assert len(log) == MESSAGES_A_TURN
    assert poller.timeout == 0
    dispatcher.turn(-1)

    assert len(log) == MESSAGES_A_TURN + 10
    assert poller.timeout < 0


def test_flood_of_messages_starves_neither_descriptors_nor_timers(
    dispatcher: Dispatcher, clock: FakeClock, channel: MemoryChannel
) -> None:
    """One key's burst must not hold up another's responses and deadlines."""
    fired: list[float] = []

    def flood() -> None:
        dispatcher.post(flood)

    for _ in range(10 * MESSAGES_A_TURN):
        flood()
    handler = Stub()
    dispatcher.watch(channel.fd, handler, READ)
    dispatcher.timer(lambda: fired.append(clock.now()), fail).arm(clock.now() + 1.0)
    dispatcher.turn()
    channel.feed(b"x")
    clock.advance(1.0)

    dispatcher.turn()

    assert handler.ready == [READ]
    assert fired == [clock.now()]


def test_now_is_the_moment_of_this_turn(dispatcher: Dispatcher, clock: FakeClock) -> None:
    moments: list[float] = []
    clock.advance(5.0)
    dispatcher.post(lambda: moments.append(dispatcher.now))

    dispatcher.turn()

    assert moments == [clock.now()]
    assert dispatcher.clock_now() == dispatcher.polled_at == clock.now()


def test_outcomes_are_announced_at_the_end_of_the_turn_in_their_order(
    dispatcher: Dispatcher, channel: MemoryChannel
) -> None:
    log: list[str] = []
    dispatcher.post(lambda: dispatcher.announce(log.append, "from a message"))
    on_ready = in_turn(lambda: log.append("handled"), lambda: dispatcher.announce(log.append, "from a descriptor"))
    dispatcher.watch(channel.fd, Stub(on_ready), READ)
    channel.feed(b"x")

    dispatcher.turn(-1)

    assert log == ["handled", "from a message", "from a descriptor"]


def test_announcement_does_not_wait_for_the_next_event(dispatcher: Dispatcher, poller: MemoryPoller) -> None:
    log: list[str] = []
    dispatcher.post(lambda: dispatcher.announce(log.append, "outcome"))

    dispatcher.turn(-1)

    assert log == ["outcome"]
    assert poller.timeout == 0


# -- sleep and waking --------------------------------------------------------------------


def test_sleep_ends_exactly_at_the_next_timer(dispatcher: Dispatcher, clock: FakeClock, poller: MemoryPoller) -> None:
    dispatcher.turn(-1)
    assert poller.timeout < 0
    dispatcher.timer(fail, fail).arm(clock.now() + 2.5)
    dispatcher.timer(fail, fail).arm(clock.now() + 7.0)

    dispatcher.turn(-1)
    assert poller.timeout == 2.5
    clock.advance(1.0)
    dispatcher.turn(-1)
    assert poller.timeout == 1.5
    dispatcher.turn(0.25)

    assert poller.timeout == 0.25


def test_nobody_is_woken_who_does_not_sleep(dispatcher: Dispatcher, waker: MemoryWaker) -> None:
    """A wake-up is a system call."""
    for _ in range(10):
        dispatcher.post(lambda: None)
    dispatcher.turn(-1)

    assert waker.wakes == 0


class Interrupted(MemoryPoller):
    """A poller during whose next wait another thread does something."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = None

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().poll(timeout)


def test_sleeper_is_woken_once_by_the_first_message(clock: FakeClock) -> None:
    poller = Interrupted()
    waker = MemoryWaker(poller)
    dispatcher = Dispatcher(clock, poller, waker)
    log: list[int] = []

    def meanwhile() -> None:
        for number in range(5):
            dispatcher.post(lambda number=number: log.append(number))  # type: ignore[misc]

    poller.meanwhile = meanwhile
    dispatcher.turn(-1)
    assert waker.wakes == 1
    assert log == []
    poller.settle(dispatcher.turn)

    assert log == [0, 1, 2, 3, 4]
    assert waker.wakes == 1


class Announcing(float):
    """A moment that lets another thread act when a dispatcher looks at it on its way to sleep."""

    meanwhile: Callable[[], None]

    __hash__ = float.__hash__

    def __eq__(self, other: object) -> bool:
        return float(self) == other

    def __ne__(self, other: object) -> bool:
        self.meanwhile()
        return float(self) != other


def test_message_that_comes_just_before_the_sleep_is_not_slept_over(
    dispatcher: Dispatcher, clock: FakeClock, poller: MemoryPoller, waker: MemoryWaker
) -> None:
    """Its sender found nobody asleep and woke nobody; so the sleeper looks once more."""
    moment = Announcing(clock.now() + 60.0)
    moment.meanwhile = lambda: dispatcher.post(lambda: None)
    dispatcher.timer(fail, fail).arm(moment)

    dispatcher.turn(-1)

    assert waker.wakes == 0
    assert poller.timeout == 0


def test_waker_is_drained_so_that_the_next_sleep_is_one(clock: FakeClock) -> None:
    poller = Interrupted()
    dispatcher = Dispatcher(clock, poller, MemoryWaker(poller))
    poller.meanwhile = lambda: dispatcher.post(lambda: None)
    dispatcher.turn(-1)
    dispatcher.turn(-1)

    dispatcher.turn(-1)

    assert poller.rested


# -- descriptors -------------------------------------------------------------------------


def test_handler_is_told_what_its_descriptor_is_ready_for(dispatcher: Dispatcher, channel: MemoryChannel) -> None:
    handler = Stub()
    dispatcher.watch(channel.fd, handler, READ)
    dispatcher.turn()
    assert handler.ready == []

    channel.feed(b"x")
    dispatcher.turn()
    dispatcher.rewatch(channel.fd, READ | WRITE)
    dispatcher.turn()
    dispatcher.rewatch(channel.fd, 0)
    dispatcher.turn()

    assert handler.ready == [READ, READ | WRITE]


def test_handler_that_another_closed_in_the_same_turn_is_not_called(
    dispatcher: Dispatcher, poller: MemoryPoller
) -> None:
    first, second = MemoryChannel(poller), MemoryChannel(poller)
    victim = Stub()
    dispatcher.watch(first.fd, Stub(lambda _: dispatcher.unwatch(second.fd)), READ)
    dispatcher.watch(second.fd, victim, READ)
    dispatcher.turn()
    for channel in (first, second):
        channel.feed(b"x")

    dispatcher.turn()

    assert victim.ready == []


def test_event_of_a_closed_descriptor_is_not_taken_for_one_of_its_successor(
    dispatcher: Dispatcher, poller: MemoryPoller
) -> None:
    """The system gives the number out again at once; the event in hand is the old one's."""
    first, second = MemoryChannel(poller), MemoryChannel(poller)
    successor = Stub()

    def replace(_: int) -> None:
        dispatcher.unwatch(second.fd)
        dispatcher.watch(second.fd, successor, READ)

    dispatcher.watch(first.fd, Stub(replace), READ)
    dispatcher.watch(second.fd, Stub(), READ)
    dispatcher.turn()
    for channel in (first, second):
        channel.feed(b"x")

    dispatcher.turn()
    assert successor.ready == []
    dispatcher.unwatch(first.fd)
    dispatcher.turn()

    assert successor.ready == [READ]


def test_forgetting_a_descriptor_nobody_watches_is_harmless(dispatcher: Dispatcher, channel: MemoryChannel) -> None:
    dispatcher.unwatch(channel.fd)

    assert dispatcher.census() == (0, 0)


def test_census_counts_descriptors_and_armed_timers(
    dispatcher: Dispatcher, clock: FakeClock, channel: MemoryChannel
) -> None:
    dispatcher.watch(channel.fd, Stub(), READ)
    timer = dispatcher.timer(fail, fail)
    assert dispatcher.census() == (1, 0)
    timer.arm(clock.now() + 1.0)
    assert dispatcher.census() == (1, 1)

    timer.close()
    dispatcher.unwatch(channel.fd)

    assert dispatcher.census() == (0, 0)


# -- faults ------------------------------------------------------------------------------


def test_fault_of_a_handler_is_reported_to_it_and_the_others_are_served(
    dispatcher: Dispatcher, poller: MemoryPoller
) -> None:
    """BEH-P40: even if the report fails as well."""
    handlers = [Stub(fail), Stub(fail, SystemExit("and again")), Stub()]
    for handler in handlers:
        channel = MemoryChannel(poller)
        dispatcher.watch(channel.fd, handler, READ)
        channel.feed(b"x")
    dispatcher.turn()

    assert [len(handler.ready) for handler in handlers] == [1, 1, 1]
    assert [len(handler.crashes) for handler in handlers] == [1, 1, 0]
    assert isinstance(handlers[0].crashes[0], SystemExit)


def test_fault_of_a_timer_is_reported_and_the_others_fire(dispatcher: Dispatcher, clock: FakeClock) -> None:
    """BEH-P40: even if the report fails as well."""
    crashes: list[BaseException] = []
    fired: list[str] = []
    dispatcher.timer(fail, crashes.append).arm(clock.now())
    dispatcher.timer(fail, fail).arm(clock.now())
    dispatcher.timer(lambda: fired.append("other"), fail).arm(clock.now())

    dispatcher.turn()
    dispatcher.turn()

    assert len(crashes) == 1
    assert fired == ["other"]


def test_fault_of_a_posted_call_is_reported_and_the_others_run(dispatcher: Dispatcher) -> None:
    """BEH-P40: even if the report fails as well."""
    crashes: list[BaseException] = []
    log: list[str] = []
    dispatcher.post(fail, crashes.append)
    dispatcher.post(fail, fail)
    dispatcher.post(fail)
    dispatcher.post(lambda: log.append("other"))

    dispatcher.turn()

    assert len(crashes) == 1
    assert log == ["other"]


def test_fault_of_an_announcement_does_not_keep_the_others_from_their_outcome(dispatcher: Dispatcher) -> None:
    log: list[str] = []
    dispatcher.announce(fail, "broken")
    dispatcher.announce(log.append, "other")

    dispatcher.turn()

    assert log == ["other"]


# -- the end -----------------------------------------------------------------------------


def test_outcomes_that_a_stuck_thread_has_in_hand_are_announced_when_it_is_given_up(dispatcher: Dispatcher) -> None:
    """FLT-P8."""
    log: list[str] = []
    dispatcher.announce(log.append, "read in the turn that never ends")

    dispatcher.give_up()

    assert log == ["read in the turn that never ends"]


def test_what_was_told_before_the_end_is_still_handled(
    dispatcher: Dispatcher, poller: MemoryPoller, channel: MemoryChannel
) -> None:
    log: list[str] = []
    handler = Stub()
    dispatcher.watch(channel.fd, handler, READ)
    dispatcher.post(fail)
    dispatcher.post(lambda: dispatcher.announce(log.append, "told"))

    dispatcher.stop()

    assert log == ["told"]
    assert handler.abandoned == 1
    assert dispatcher.census() == (0, 0)
    assert poller.closed


def test_forked_child_gives_everything_up_without_touching_what_it_shares(
    dispatcher: Dispatcher, poller: MemoryPoller, channel: MemoryChannel
) -> None:
    handler = Stub()
    dispatcher.watch(channel.fd, handler, READ)
    dispatcher.post(fail)

    dispatcher.abandon()

    assert handler.abandoned == 1
    assert (dispatcher.census(), poller.closed) == ((0, 0), True)


# -- with a thread -----------------------------------------------------------------------


class Counting(DispatchedActor):
    """Notes what it is told, and by which thread it runs."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(dispatcher)
        self.seen: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def on_receive(self, message: tuple[int, int]) -> None:
        self.threads.add(threading.get_ident())
        self.seen.append(message)


@pytest.mark.concurrency
def test_messages_of_many_threads_are_all_handled_in_each_ones_order(running: Dispatcher) -> None:
    """No wake-up is lost, whoever comes between the look at the queue and the sleep."""
    refs = [Counting.start(running) for _ in range(4)]
    actors = [ref._actor_weakref() for ref in refs]  # noqa: SLF001 - to look at what they noted

    def tell_all(thread: int) -> None:
        for number in range(300):
            refs[number % 4].tell((thread, number))

    threads = [threading.Thread(target=tell_all, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: sum(len(actor.seen) for actor in actors if actor is not None) == 2400)

    for actor in actors:
        assert actor is not None
        assert len(actor.threads) == 1
        for number in range(8):
            mine = [message for thread, message in actor.seen if thread == number]
            assert mine == sorted(mine)
    assert len({thread for actor in actors if actor is not None for thread in actor.threads}) == 1
    for ref in refs:
        ref.stop()


@pytest.mark.concurrency
def test_one_message_at_a_time_always_wakes_the_sleeper(running: Dispatcher) -> None:
    """The dispatcher has gone to sleep between any two of them, or is about to."""
    answered = threading.Event()
    for _ in range(500):
        running.post(answered.set)
        assert answered.wait(30)
        answered.clear()


def test_socket_timer_and_message_are_waited_for_at_once(running: Dispatcher) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        told, ready, fired = threading.Event(), threading.Event(), threading.Event()
        on_ready = in_turn(lambda: running.unwatch(ours.fileno()), ready.set)

        def begin() -> None:
            running.watch(ours.fileno(), Stub(on_ready), READ)
            running.timer(fired.set, fail).arm(running.now + 0.02)
            told.set()

        running.post(begin)
        assert told.wait(30)
        theirs.send(b"x")

        assert ready.wait(30)
        assert fired.wait(30)


def test_fault_does_not_end_the_thread(running: Dispatcher) -> None:
    """BEH-P40."""
    done = threading.Event()
    running.post(fail, fail)
    running.post(done.set)

    assert done.wait(30)
    assert running.is_alive


def test_thread_is_a_daemon_and_knows_itself(running: Dispatcher) -> None:
    """A process that forgets to dispose still exits."""
    found: list[tuple[bool, bool]] = []
    done = threading.Event()
    running.post(lambda: found.append((running.is_current, threading.current_thread().daemon)))
    running.post(done.set)

    assert done.wait(30)
    assert found == [(True, True)]
    assert not running.is_current


def test_stop_on_its_own_thread_does_not_wait_for_itself() -> None:
    """A finalizer may run anywhere."""
    dispatcher = Dispatcher(SystemClock(), system_poller(), system_waker())
    dispatcher.start()
    dispatcher.post(dispatcher.stop)

    eventually(lambda: not dispatcher.is_alive)
    dispatcher.stop()


def test_stop_is_idempotent_and_may_come_from_many_threads() -> None:
    dispatcher = Dispatcher(SystemClock(), system_poller(), system_waker())
    dispatcher.start()
    threads = [threading.Thread(target=dispatcher.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not dispatcher.is_alive
    dispatcher.post(fail)  # nobody is left to run it
