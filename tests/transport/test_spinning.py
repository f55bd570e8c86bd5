"""Looks before sleeping: what the spinner tries, measures and settles for."""

from __future__ import annotations

import os
import signal
import socket
import threading
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from itertools import pairwise
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import PATIENCE, eventually
from turbopool.transport import spinning
from turbopool.transport.channel import TcpChannel
from turbopool.transport.spinning import ENOUGH, LONGEST, SETTLED, SPIN, TRIAL, TURN, Phase, Spinner, Turnstile

US = 1e-6


class Time:
    """A clock that passes only as told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the present moment."""
        return self.now

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def spinner(time: Time) -> Spinner:
    return Spinner(time, lambda: time.passes(2 * US))


def work(spinner: Spinner, time: Time, seconds: float, wait: Callable[[Phase], float]) -> float:
    """Wait for answers one after the other; return the part of the time in which it was looked for them."""
    began, looked = time.now, 0.0
    while time.now < began + seconds:
        phase, before = spinner.phase, time.now
        time.passes(wait(phase))
        looked += (time.now - before) * phase.looks
        spinner.note(time.now - before, time.now)
        time.passes(10 * US)  # for something else
    return looked / (time.now - began)


# -- a look --------------------------------------------------------------------------------------------------


def test_a_look_lets_others_go_first_and_then_asks(time: Time) -> None:
    happened: list[str] = []

    def receive() -> bytes:
        happened.append("asked")
        return b"HTTP/1.1"

    assert Spinner(time, lambda: happened.append("yielded")).look(receive) == b"HTTP/1.1"
    assert happened == ["yielded", "asked"]


def test_a_look_goes_on_until_something_has_come(spinner: Spinner, time: Time) -> None:
    arrives = time.now + SPIN / 2
    assert spinner.look(lambda: b"x" if time.now >= arrives else None) == b"x"
    assert time.now - arrives < 3 * US


def test_a_look_ends_after_a_moment(spinner: Spinner, time: Time) -> None:
    began = time.now
    assert spinner.look(lambda: None) is None
    assert SPIN <= time.now - began < SPIN + 3 * US


def test_a_look_asks_once_however_late_its_turn_came(time: Time) -> None:
    spinner = Spinner(time, lambda: time.passes(10 * SPIN))
    assert spinner.look(lambda: b"x") == b"x"


def test_the_end_of_the_stream_is_an_answer(spinner: Spinner) -> None:
    assert spinner.look(lambda: b"") == b""


def test_what_receiving_raises_is_the_callers(spinner: Spinner) -> None:
    def receive() -> bytes:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        spinner.look(receive)


# -- what is settled for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("looking", "sleeping", "is_looked_for"),
    [
        pytest.param(40 * US, 90 * US, True, id="a server nearby"),
        pytest.param(90 * US, 90 * US, False, id="no difference"),
        pytest.param(88 * US, 90 * US, False, id="hardly any"),
        pytest.param(5_300 * US, 60 * US, False, id="a thread that computes takes the interpreter each time"),
        pytest.param(1_050 * US, 1_000 * US, False, id="a server in another town"),
        pytest.param(1.0, 1.0, False, id="a server that takes its time"),
    ],
)
def test_all_do_what_made_them_wait_less(
    spinner: Spinner, time: Time, looking: float, sleeping: float, *, is_looked_for: bool
) -> None:
    def wait(phase: Phase) -> float:
        return looking if phase.looks else sleeping

    work(spinner, time, 2 * (SETTLED + TRIAL) + 4 * ENOUGH * max(looking, sleeping), wait)
    part = work(spinner, time, 20 * SETTLED + 1_000 * sleeping, wait)
    assert part > 0.6 if is_looked_for else part < 0.2


def test_they_change_when_the_world_does(spinner: Spinner, time: Time) -> None:
    def quiet(phase: Phase) -> float:
        return 40 * US if phase.looks else 90 * US

    def crowded(phase: Phase) -> float:
        return 4_000 * US if phase.looks else 90 * US

    for _ in range(3):
        work(spinner, time, 2 * (SETTLED + TRIAL), quiet)
        assert work(spinner, time, 10 * SETTLED, quiet) > 0.6
        work(spinner, time, 2 * (SETTLED + TRIAL), crowded)
        assert work(spinner, time, 10 * SETTLED, crowded) < 0.2


def test_rare_waits_are_judged_too(spinner: Spinner, time: Time) -> None:
    def wait(phase: Phase) -> float:
        time.passes(1.0)
        return 5_000 * US if phase.looks else 500 * US

    work(spinner, time, 3.0 * ENOUGH, wait)
    looked = [spinner.phase.looks for _ in range(100) if work(spinner, time, 10.0, wait) >= 0]
    assert sum(looked) < 20


def test_a_very_long_wait_does_not_outweigh_all_others() -> None:
    phase = Phase(0.0, looks=True)
    phase.note(3_600.0)
    for _ in range(ENOUGH):
        phase.note(50 * US)
    trial = phase.next(1.0)
    assert trial.rival is not None
    assert trial.rival < LONGEST


def test_a_phase_lasts_until_there_is_enough_to_judge_by(spinner: Spinner, time: Time) -> None:
    first = spinner.phase
    time.passes(10 * SETTLED)
    for _ in range(ENOUGH - 1):
        spinner.note(50 * US, time.now)
        assert spinner.phase is first
    spinner.note(50 * US, time.now)
    assert spinner.phase is not first
    assert not spinner.phase.looks


def test_a_phase_lasts_its_time(spinner: Spinner, time: Time) -> None:
    first = spinner.phase
    for _ in range(10 * ENOUGH):
        spinner.note(50 * US, time.now)
    assert spinner.phase is first
    time.passes(TRIAL)
    spinner.note(50 * US, time.now)
    assert spinner.phase is not first


@given(stretches=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 0.01)), min_size=6, max_size=12))
def test_after_a_trial_comes_a_long_phase_and_after_that_a_trial(stretches: list[tuple[float, float]]) -> None:
    time = Time()
    spinner = Spinner(time, lambda: None)
    seen = [(time.now, spinner.phase)]
    for seconds, pause in stretches:
        for _ in range(400):
            time.passes(pause + 1e-3)
            spinner.note(seconds, time.now)
            if spinner.phase is not seen[-1][1]:
                seen.append((time.now, spinner.phase))
    assert len(seen) > 3
    for (began, before), (ended, after) in pairwise(seen):
        assert ended - began >= (TRIAL if before.rival is not None or before is seen[0][1] else SETTLED) - US
        assert (after.rival is None) is (before.rival is not None)
        assert before.rival is not None or after.looks is not before.looks


# -- over a socket -------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[TcpChannel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channel = TcpChannel(ours)
    with theirs:
        yield channel, theirs
        channel.close()


@pytest.fixture(params=[True, False], ids=["looks", "sleeps"])
def looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    spinner = spinning.spinner
    if spinner is None:
        pytest.skip("not on this platform")
    monkeypatch.setattr(spinner, "phase", Phase(float("inf"), looks=request.param))
    return bool(request.param)


@pytest.mark.usefixtures("looks")
def test_what_has_arrived_is_returned(pair: tuple[TcpChannel, socket.socket]) -> None:
    channel, server = pair
    server.send(b"hello")
    assert channel.await_bytes(5.0) == b"hello"


@pytest.mark.usefixtures("looks")
def test_the_end_is_returned(pair: tuple[TcpChannel, socket.socket]) -> None:
    channel, server = pair
    server.close()
    assert channel.await_bytes(5.0) == b""


@pytest.mark.usefixtures("looks")
def test_patience_ends_by_itself(pair: tuple[TcpChannel, socket.socket]) -> None:
    channel, _ = pair
    assert channel.await_bytes(0.05) is None


def test_it_is_looked_for_only_in_such_a_phase(
    pair: tuple[TcpChannel, socket.socket], *, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, server = pair
    asked: list[bytes | None] = []

    def look(receive: Callable[[], bytes | None]) -> bytes | None:
        asked.append(receive())
        return asked[-1]

    monkeypatch.setattr(spinning.spinner, "look", look)
    server.send(b"hello")
    assert channel.await_bytes(5.0) == b"hello"
    assert asked == [b"hello"] * looks


def test_what_a_response_took_is_what_is_judged(
    pair: tuple[TcpChannel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[float, float]] = []
    monkeypatch.setattr(spinning.spinner, "note", lambda seconds, now: noted.append((seconds, now)))
    pair[0].note_answer(0.25, 100.0)
    assert noted == [(0.25, 100.0)]


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
def turnstile(time: Time) -> Turnstile:
    return Turnstile(time, places=2)


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
def test_those_who_wait_are_let_in_by_the_last_who_leaves(turnstile: Turnstile, time: Time) -> None:
    time.now = 0.0  # no turn is over
    first, second, third = visitors(turnstile, 3)
    first.goes()
    assert not third.inside.is_set()
    second.goes()
    assert third.inside.wait(PATIENCE)
    third.goes()
    assert len(turnstile) == 0


@pytest.mark.usefixtures("patient")
def test_once_a_turn_whoever_leaves_lets_one_in_and_the_first_come_first(turnstile: Turnstile, time: Time) -> None:
    came = visitors(turnstile, 5)
    for n in range(3):
        time.passes(2 * TURN)
        came[n].goes()
        assert came[n + 2].inside.wait(PATIENCE)
        assert not any(later.inside.is_set() for later in came[n + 3 :])
    for one in came[3:]:
        one.goes()
    assert len(turnstile) == 0


@pytest.mark.usefixtures("patient")
def test_who_comes_back_at_once_goes_in_before_those_who_wait(turnstile: Turnstile, time: Time) -> None:
    time.now = 0.0  # no turn is over
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


@pytest.mark.usefixtures("patient")
def test_who_is_interrupted_while_waiting_waits_no_more(time: Time) -> None:
    spinner = Spinner(time, lambda: None, places=2)
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
