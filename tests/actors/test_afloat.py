"""Launched requests that nobody comes to receive: when the dispatcher takes them over."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from turbopool.actors.afloat import AFLOAT, Afloat
from turbopool.clock import NEVER
from turbopool.transport.exchange import unmoor

STEP = AFLOAT / 50


class Raft(list[Any]):
    """Can be seen to be gone."""


class Harbour:
    """What is afloat, and a dispatcher that does nothing but its timer."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due = NEVER
        self.told = 0
        self.taken_over: dict[int, float] = {}
        self.fire: Callable[[], None] = lambda: None
        self.crash: Callable[[BaseException], None] = lambda _: None
        self.afloat = Afloat(self, self.land)  # type: ignore[arg-type]

    def timer(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> Harbour:
        """Be the timer, too."""
        self.fire, self.crash = callback, on_crash
        return self

    def schedule(self, told: Afloat) -> None:
        """Do at once what there is to do."""
        self.told += 1
        told.step()

    def land(self, raft: list[Any]) -> None:
        """Take over."""
        (number,) = raft.pop()
        assert number >= 0, "a bug"
        self.taken_over[number] = self.now

    def arm(self, due: float) -> None:
        """Fire at that moment."""
        self.due = due

    def launch(self, number: int) -> Raft:
        """Do as a caller does."""
        raft = Raft([(number,)])
        self.afloat.launch(self.now, raft)
        return raft

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            if self.now >= self.due:
                self.due = NEVER
                try:
                    self.fire()
                except AssertionError as bug:
                    self.crash(bug)


@pytest.fixture
def harbour() -> Harbour:
    return Harbour()


def test_what_nobody_receives_is_taken_over_within_twice_the_time_it_is_left_alone(harbour: Harbour) -> None:
    asked = {}
    for number in range(500):
        asked[number] = harbour.now
        harbour.launch(number)
        harbour.passes(AFLOAT * (0.13 if number % 100 else 5.7))
    harbour.passes(3 * AFLOAT)
    ages = [harbour.taken_over[number] - asked[number] for number in asked]
    assert min(ages) >= AFLOAT - STEP
    assert max(ages) <= 2 * AFLOAT + 2 * STEP


def test_while_callers_launch_more_the_dispatcher_need_not_be_told_again(harbour: Harbour) -> None:
    kept = []
    for number in range(1_000):
        raft = harbour.launch(number)
        kept.append(weakref.ref(raft))
        unmoor(raft)
        harbour.passes(AFLOAT / 3)
    del raft
    assert harbour.told == 1
    assert not harbour.taken_over
    assert sum(raft() is not None for raft in kept) < 10


def test_every_look_lies_ahead_of_the_one_before(harbour: Harbour) -> None:
    """In floating point, too, whatever the clock says: or the dispatcher would do nothing but look."""
    for _ in range(5_000):
        before = harbour.due if harbour.due != NEVER else harbour.now
        harbour.now = before
        harbour.launch(0)
        harbour.due = NEVER
        harbour.fire()
        assert harbour.due > before


def test_being_told_again_and_again_puts_no_look_off(harbour: Harbour) -> None:
    """As patrols of thousands of keys do."""
    harbour.launch(1)
    asked = harbour.now
    while not harbour.taken_over:
        harbour.afloat.watch()
        harbour.passes(AFLOAT / 3)
    assert harbour.taken_over[1] - asked <= 2 * AFLOAT + 2 * STEP


def test_it_stops_looking_when_nothing_is_launched_any_more(harbour: Harbour) -> None:
    unmoor(harbour.launch(0))
    harbour.passes(5 * AFLOAT)
    assert harbour.due == NEVER
    harbour.launch(1)
    assert harbour.told == 2


def test_what_cannot_be_taken_over_keeps_the_others_no_longer(
    harbour: Harbour, caplog: pytest.LogCaptureFixture
) -> None:
    harbour.launch(1)
    harbour.launch(-1)
    harbour.launch(2)
    harbour.passes(5 * AFLOAT)
    assert sorted(harbour.taken_over) == [1, 2]
    assert "could not be taken over" in caplog.text
    assert harbour.due == NEVER


def test_nothing_of_a_received_response_is_kept(harbour: Harbour) -> None:
    class Response:
        pass

    response = Response()
    seen = weakref.ref(response)
    raft: list[Any] = [(response,)]
    harbour.afloat.launch(harbour.now, raft)
    gc.disable()
    try:
        unmoor(raft)
        del response
        assert seen() is None
    finally:
        gc.enable()
