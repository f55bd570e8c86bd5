"""Looks before sleeping: alone, in a huddle, over a socket, and few at a time."""

from __future__ import annotations

import os
import signal
import socket
import threading
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from tests.transport.machine import Cores
from tests.waiting import PATIENCE, eventually
from turbopool.transport import spinning
from turbopool.transport.channel import TcpChannel
from turbopool.transport.huddle import Huddle
from turbopool.transport.memory import FakeClock
from turbopool.transport.spinning import SPIN, TURN, Spinner, Turnstile, trials_of
from turbopool.transport.trials import HUDDLED, LOOKING, SLEEPING, Manner, Phase, Trials

US = 1e-6
NEVER = float("inf")


def a_huddle(cores: Cores, monkeypatch: pytest.MonkeyPatch) -> Huddle:
    """One at :data:`Cores.HOME`, for any thread."""
    monkeypatch.setattr("turbopool.transport.huddle._main", None)
    huddle = Huddle(cores)
    huddle.join("a test", NEVER)
    return huddle


@pytest.fixture
def time() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spinner(time: FakeClock) -> Spinner:
    return Spinner(time.now, lambda: time.advance(2 * US))


# -- a look --------------------------------------------------------------------------------------------------


def test_a_look_lets_others_go_first_and_then_asks(time: FakeClock) -> None:
    happened: list[str] = []

    def receive() -> bytes:
        happened.append("asked")
        return b"HTTP/1.1"

    assert Spinner(time.now, lambda: happened.append("yielded")).look(receive) == b"HTTP/1.1"
    assert happened == ["yielded", "asked"]


def test_a_look_goes_on_until_something_has_come(spinner: Spinner, time: FakeClock) -> None:
    arrives = time.moment + SPIN / 2
    assert spinner.look(lambda: b"x" if time.moment >= arrives else None) == b"x"
    assert time.moment - arrives < 3 * US


def test_a_look_ends_after_a_moment(spinner: Spinner, time: FakeClock) -> None:
    began = time.moment
    assert spinner.look(lambda: None) is None
    assert SPIN <= time.moment - began < SPIN + 3 * US


def test_a_look_asks_once_however_late_its_turn_came(time: FakeClock) -> None:
    spinner = Spinner(time.now, lambda: time.advance(10 * SPIN))
    assert spinner.look(lambda: b"x") == b"x"


def test_the_end_of_the_stream_is_an_answer(spinner: Spinner) -> None:
    assert spinner.look(lambda: b"") == b""


def test_what_receiving_raises_is_the_callers(spinner: Spinner) -> None:
    def receive() -> bytes:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        spinner.look(receive)


# -- in a huddle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", Manner)
def test_a_look_moves_home_after_it_let_others_go_while_that_is_what_pays(
    time: FakeClock, monkeypatch: pytest.MonkeyPatch, manner: Manner
) -> None:
    cores, asked_on = Cores(), list[int]()
    huddle = a_huddle(cores, monkeypatch)

    def let_others_go() -> None:
        cores.core = 3

    def receive() -> bytes:
        asked_on.append(cores.core)
        return b"x"

    spinner = Spinner(time.now, let_others_go, huddle=huddle)
    spinner.trials.phase = Phase(manner, NEVER)
    assert spinner.look(receive) == b"x"
    assert asked_on == [Cores.HOME if manner is HUDDLED else 3]
    assert cores.may == Cores.ALL


@pytest.mark.parametrize("with_huddle", [True, False])
def test_a_huddle_is_tried_where_there_is_one_and_is_joined_and_left_for_it(
    time: FakeClock, *, with_huddle: bool
) -> None:
    huddle = Huddle(Cores())
    trials = trials_of("party", (LOOKING, SLEEPING), time.now, huddle if with_huddle else None)
    assert trials.phase.manner is LOOKING
    tried = set()
    for _ in range(10_000):
        time.advance(1e-3)
        trials.note(50 * US, time.moment)
        manner = trials.phase.manner
        tried.add(manner)
        assert huddle.home == (Cores.HOME if manner is HUDDLED else None)
    assert tried == ({*Manner} if with_huddle else {LOOKING, SLEEPING})


# -- over a socket -------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[TcpChannel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = TcpChannel(ours)
    with theirs:
        yield channel, theirs
        channel.close()


@pytest.fixture
def the_spinner() -> Spinner:
    """The process's."""
    if spinning.spinner is None:
        pytest.skip("not on this platform")
    return spinning.spinner


@pytest.fixture(params=Manner)
def manner(request: pytest.FixtureRequest, the_spinner: Spinner, monkeypatch: pytest.MonkeyPatch) -> Manner:
    chosen = Manner(request.param)
    monkeypatch.setattr(the_spinner.trials, "phase", Phase(chosen, NEVER))
    return chosen


@pytest.mark.usefixtures("manner")
def test_what_has_arrived_is_returned(pair: tuple[TcpChannel, socket.socket]) -> None:
    channel, server = pair
    server.send(b"hello")
    assert channel.await_bytes(5.0) == b"hello"


@pytest.mark.usefixtures("manner")
def test_the_end_is_returned(pair: tuple[TcpChannel, socket.socket]) -> None:
    channel, server = pair
    server.close()
    assert channel.await_bytes(5.0) == b""


@pytest.mark.usefixtures("manner")
def test_patience_ends_by_itself(pair: tuple[TcpChannel, socket.socket]) -> None:
    channel, _ = pair
    assert channel.await_bytes(0.05) is None


def test_it_is_looked_for_only_in_such_a_phase(
    pair: tuple[TcpChannel, socket.socket], the_spinner: Spinner, manner: Manner, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, server = pair
    asked: list[bytes | None] = []

    def look(receive: Callable[[], bytes | None]) -> bytes | None:
        asked.append(receive())
        return asked[-1]

    monkeypatch.setattr(the_spinner, "look", look)
    server.send(b"hello")
    assert channel.await_bytes(5.0) == b"hello"
    assert asked == [b"hello"] * (manner is not SLEEPING)


def test_what_a_response_took_is_what_is_judged(
    pair: tuple[TcpChannel, socket.socket], the_spinner: Spinner, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[Trials, float, float]] = []
    monkeypatch.setattr(Trials, "note", lambda *what: noted.append(what))
    pair[0].note_answer(0.25, 100.0)
    assert noted == [(the_spinner.trials, 0.25, 100.0)]


# -- few at a time -------------------------------------------------------------------------------------------


class Visitor(threading.Thread):
    """Somebody who goes through a turnstile, and is inside until told to leave."""

    def __init__(self, turnstile: Turnstile) -> None:
        super().__init__(daemon=True)
        self.inside, self.leaves = threading.Event(), threading.Event()
        self._turnstile = turnstile
        self.start()

    def run(self) -> None:
        ticket = allocate_lock()
        self._turnstile.enter(ticket)
        self.inside.set()
        self.leaves.wait(PATIENCE)
        self._turnstile.leave(ticket)

    def goes(self) -> None:
        """Leave."""
        self.leaves.set()
        self.join(PATIENCE)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes in unasked."""
    monkeypatch.setattr(spinning, "AT_MOST", PATIENCE)


@pytest.fixture
def turnstile(time: FakeClock) -> Turnstile:
    return Turnstile(time.now, places=2)


def visitors(turnstile: Turnstile, count: int) -> list[Visitor]:
    """Let some come one after the other: two go in, the others wait."""
    came = []
    for n in range(count):
        came.append(Visitor(turnstile))
        if n < 2:
            assert came[-1].inside.wait(PATIENCE)
        else:
            eventually(lambda n=n: len(turnstile) == n + 1)  # type: ignore[misc]
    return came


@pytest.mark.usefixtures("patient")
def test_those_who_wait_are_let_in_by_the_last_who_leaves(turnstile: Turnstile, time: FakeClock) -> None:
    time.moment = 0.0  # no turn is over
    first, second, third = visitors(turnstile, 3)
    first.goes()
    assert not third.inside.is_set()
    second.goes()
    assert third.inside.wait(PATIENCE)
    third.goes()
    assert len(turnstile) == 0


@pytest.mark.usefixtures("patient")
def test_once_a_turn_whoever_leaves_lets_one_in_and_the_first_come_first(turnstile: Turnstile, time: FakeClock) -> None:
    came = visitors(turnstile, 5)
    for n in range(3):
        time.advance(2 * TURN)
        came[n].goes()
        assert came[n + 2].inside.wait(PATIENCE)
        assert not any(later.inside.is_set() for later in came[n + 3 :])
    for one in came[3:]:
        one.goes()
    assert len(turnstile) == 0


@pytest.mark.usefixtures("patient")
def test_who_comes_back_at_once_goes_in_before_those_who_wait(turnstile: Turnstile, time: FakeClock) -> None:
    time.moment = 0.0  # no turn is over
    first, second, third = visitors(turnstile, 3)
    first.goes()
    back = Visitor(turnstile)
    assert back.inside.wait(PATIENCE)
    assert not third.inside.is_set()
    for one in (back, second):
        one.goes()
    assert third.inside.wait(PATIENCE)
    third.goes()


def test_nobody_waits_for_long(turnstile: Turnstile) -> None:
    came = [Visitor(turnstile) for _ in range(6)]  # of whom none leaves
    assert all(one.inside.wait(PATIENCE) for one in came)
    for one in came:
        one.goes()
    assert len(turnstile) == 0


def test_who_never_leaves_keeps_no_place_for_ever(turnstile: Turnstile) -> None:
    for _ in range(2):
        turnstile.enter(allocate_lock())  # killed, or the parent's threads in a forked child
    came = [Visitor(turnstile) for _ in range(2)]
    assert all(one.inside.wait(PATIENCE) for one in came)
    for one in came:
        one.goes()
    assert len(turnstile) == 0


def test_those_who_wait_do_so_in_the_huddle(time: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Cores()
    turnstile, huddle = Turnstile(time.now, 2), a_huddle(cores, monkeypatch)
    for _ in range(2):
        turnstile.enter(allocate_lock(), huddle)
    assert cores.said == []
    turnstile.enter(allocate_lock(), huddle)
    assert cores.said == [{Cores.HOME}, Cores.ALL]
    turnstile.enter(allocate_lock())
    assert cores.said == [{Cores.HOME}, Cores.ALL]


@pytest.mark.usefixtures("patient")
def test_who_is_interrupted_while_waiting_waits_no_more(time: FakeClock) -> None:
    spinner = Spinner(time.now, lambda: None, places=2)
    gone = threading.Event()

    def held() -> bytes:
        gone.wait(PATIENCE)
        return b"x"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    busy = [threading.Thread(target=spinner.look, args=[held]) for _ in range(2)]
    for one in busy:
        one.start()
    assert spinner.turnstile is not None
    eventually(lambda: len(spinner.turnstile or ()) == 2)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            spinner.look(lambda: b"never asked")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(spinner.turnstile) == 2
    gone.set()
    for one in busy:
        one.join(PATIENCE)
    assert len(spinner.turnstile) == 0


@pytest.mark.concurrency
def test_a_crowd_goes_through_and_nobody_is_left() -> None:
    spinner = Spinner(monotonic, os.sched_yield, places=2)
    threads, times = 8, 200
    seen: list[bytes | None] = []

    def visit() -> None:
        for _ in range(times):
            seen.append(spinner.look(lambda: b"x"))  # noqa: PERF401  # others append meanwhile

    crowd = [threading.Thread(target=visit) for _ in range(threads)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(PATIENCE)
    assert seen == [b"x"] * (threads * times)
    assert spinner.turnstile is not None
    assert len(spinner.turnstile) == 0
