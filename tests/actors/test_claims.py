"""Launched requests that nobody comes to receive: when the dispatcher takes them over."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from turbopool.actors.claims import AFLOAT, Claims
from turbopool.actors.ledger import Ledger
from turbopool.clock import NEVER
from turbopool.transport.exchange import unmoor

STEP = AFLOAT / 50


class Harbour:
    """A key whose callers launch requests, and a dispatcher that does nothing but its timer."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due = NEVER
        self.told = 0
        self.taken_over: dict[int, float] = {}
        self.pool = SimpleNamespace(afloat=deque(), is_swept=False, ledger=Mock(spec=Ledger))
        self.fire: Callable[[], None] = lambda: None
        self.claims = Claims(self.pool, self, lambda _: None, lambda _: None)  # type: ignore[arg-type]

    def timer(self, callback: Callable[[], None], _: object) -> Harbour:
        """Be the timer, too."""
        self.fire = callback
        return self

    def arm(self, due: float) -> None:
        """Fire at that moment."""
        self.due = due

    def launch(self, number: int) -> list[Any]:
        """Do as a caller does."""
        connection = Mock()
        connection.take_over.side_effect = lambda _: self.taken_over.setdefault(number, self.now)
        raft = [(None, connection, Mock())]
        self.pool.afloat.append((self.now, raft))
        if not self.pool.is_swept:
            self.pool.is_swept = True
            self.told += 1
            self.claims.launched()
        return raft

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            if self.now >= self.due:
                self.due = NEVER
                self.fire()


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


def test_while_callers_launch_more_the_manager_need_not_be_told_again(harbour: Harbour) -> None:
    for number in range(1_000):
        unmoor(harbour.launch(number))
        harbour.passes(AFLOAT / 3)
    assert harbour.told == 1
    assert not harbour.taken_over
    assert len(harbour.pool.afloat) < 10


def test_every_look_lies_ahead_of_the_one_before(harbour: Harbour) -> None:
    """In floating point, too, whatever the clock says: or the dispatcher would do nothing but look."""
    for _ in range(5_000):
        before = harbour.due if harbour.due != NEVER else harbour.now
        harbour.now = before
        harbour.launch(0)
        harbour.fire()
        assert harbour.due > before


def test_it_stops_looking_when_nothing_is_launched_any_more(harbour: Harbour) -> None:
    unmoor(harbour.launch(0))
    harbour.passes(5 * AFLOAT)
    assert harbour.due == NEVER
    assert not harbour.pool.is_swept
    harbour.launch(1)
    assert harbour.told == 2


def test_nothing_of_a_received_response_is_kept(harbour: Harbour) -> None:
    class Response:
        pass

    response = Response()
    seen = weakref.ref(response)
    raft: list[Any] = [(None, None, response)]
    harbour.pool.afloat.append((harbour.now, raft))
    gc.disable()
    try:
        unmoor(raft)
        del response
        assert seen() is None
    finally:
        gc.enable()
