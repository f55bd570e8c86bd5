"""Looks before sleeping: what the spinner tries, measures and settles for."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopool.transport import spinning
from turbopool.transport.channel import TcpChannel
from turbopool.transport.spinning import ENOUGH, LONGEST, SETTLED, SPIN, TRIAL, Phase, Spinner

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
        spinner.note(phase, time.now - before, time.now)
        time.passes(10 * US)  # for something else
    return looked / (time.now - began)


# -- a look --------------------------------------------------------------------------------------------------


def test_a_look_lets_others_go_first_and_then_asks(time: Time) -> None:
    happened: list[str] = []

    def receive() -> bytes:
        happened.append("asked")
        return b"HTTP/1.1"

    assert Spinner(time, lambda: happened.append("yielded")).look(receive, time.now) == b"HTTP/1.1"
    assert happened == ["yielded", "asked"]


def test_a_look_goes_on_until_something_has_come(spinner: Spinner, time: Time) -> None:
    arrives = time.now + SPIN / 2
    assert spinner.look(lambda: b"x" if time.now >= arrives else None, time.now) == b"x"
    assert time.now - arrives < 3 * US


def test_a_look_ends_after_a_moment(spinner: Spinner, time: Time) -> None:
    began = time.now
    assert spinner.look(lambda: None, began) is None
    assert SPIN <= time.now - began < SPIN + 3 * US


def test_a_look_asks_once_however_late_its_turn_came(time: Time) -> None:
    spinner = Spinner(time, lambda: time.passes(10 * SPIN))
    assert spinner.look(lambda: b"x", time.now) == b"x"


def test_the_end_of_the_stream_is_an_answer(spinner: Spinner, time: Time) -> None:
    assert spinner.look(lambda: b"", time.now) == b""


def test_what_receiving_raises_is_the_callers(spinner: Spinner, time: Time) -> None:
    def receive() -> bytes:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        spinner.look(receive, time.now)


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
        spinner.note(first, 50 * US, time.now)
        assert spinner.phase is first
    spinner.note(first, 50 * US, time.now)
    assert spinner.phase is not first
    assert not spinner.phase.looks


def test_a_phase_lasts_its_time(spinner: Spinner, time: Time) -> None:
    first = spinner.phase
    for _ in range(10 * ENOUGH):
        spinner.note(first, 50 * US, time.now)
    assert spinner.phase is first
    time.passes(TRIAL)
    spinner.note(first, 50 * US, time.now)
    assert spinner.phase is not first


def test_a_wait_counts_for_the_phase_in_which_it_began(spinner: Spinner, time: Time) -> None:
    first = spinner.phase
    time.passes(TRIAL)
    for _ in range(ENOUGH):
        spinner.note(first, 50 * US, time.now)
    trial = spinner.phase
    for _ in range(10 * ENOUGH):  # of threads that began to wait before
        spinner.note(first, 1.0, time.now + TRIAL)
    assert spinner.phase is trial
    assert trial.rival == pytest.approx(50 * US)


@given(
    waits=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 10)), min_size=1, max_size=300),
)
def test_after_a_trial_comes_a_long_phase_and_after_that_a_trial(waits: list[tuple[float, float]]) -> None:
    time = Time()
    spinner = Spinner(time, lambda: None)
    spinner.note(spinner.phase, 0.0, time.now)
    seen = [spinner.phase]
    for wait, pause in waits:
        time.passes(pause)
        phase = spinner.phase
        spinner.note(phase, wait, time.now)
        if spinner.phase is not phase:
            seen.append(spinner.phase)
    for before, after in pairwise(seen):
        if before.rival is None:
            assert after.rival is not None
            assert after.looks is not before.looks
        else:
            assert after.rival is None


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

    def look(receive: Callable[[], bytes | None], now: float) -> bytes | None:
        del now
        asked.append(receive())
        return asked[-1]

    monkeypatch.setattr(spinning.spinner, "look", look)
    server.send(b"hello")
    assert channel.await_bytes(5.0) == b"hello"
    assert asked == [b"hello"] * looks


def test_what_came_in_time_is_counted(
    pair: tuple[TcpChannel, socket.socket], *, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, server = pair
    noted: list[tuple[bool, float]] = []
    monkeypatch.setattr(
        spinning.spinner, "note", lambda phase, seconds, now: noted.append((phase.looks, now > seconds >= 0))
    )
    assert channel.await_bytes(0.05) is None
    server.send(b"hello")
    channel.await_bytes(5.0)
    server.close()
    assert channel.await_bytes(5.0) == b""
    assert noted == [(looks, True)]
