"""What pays is measured: a small part of the time all threads wait in another manner, and the better one is kept.

Pure: time comes as an argument. Thread: any; a count that is lost changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

TRIAL = 0.05
"""Seconds that a trial lasts at least."""
SETTLED = 1.0
"""Seconds between two trials, at least; at first :data:`SOON`, and then twice as many each time."""
SOON = 0.1
ENOUGH = 16
"""Requests that a trial lasts at least; between two there are as many more as :data:`SETTLED` is longer."""
LONGEST = 0.01
"""Seconds that a request counts at most: beyond that it was the server's time."""
WORTH_IT = 0.95
"""By what factor requests have to be shorter in a manner that costs more."""


class Manner(IntEnum):
    """How a thread waits for a response, the cheapest first."""

    SLEEPING = 0
    """It sleeps until it is woken."""
    LOOKING = 1
    """It looks for a moment before it sleeps."""
    HUDDLED = 2
    """It does what it can on the one core where the others are."""


SLEEPING, LOOKING, HUDDLED = Manner


class Phase:
    """A while in which all threads wait in the same manner, and how long their requests took.

    Args:
        manner: that of all threads.
        until: when it may end.
        least: requests after which it may end.
        incumbent: if this is a trial, the manner that it is to beat, and its seconds a request; else None.
    """

    __slots__ = ("_count", "_least", "_ticket", "_total", "incumbent", "manner", "until")

    def __init__(
        self, manner: Manner, until: float, least: int = ENOUGH, incumbent: tuple[Manner, float] | None = None
    ) -> None:
        self.manner = manner
        self.until = until
        self.incumbent = incumbent
        self._least = least
        self._count = 0
        self._total = 0.0
        self._ticket = [True]

    def end(self) -> bool:
        """Return whether it is for the calling thread to begin the next one: it is to one alone."""
        try:
            return self._ticket.pop()
        except IndexError:
            return False

    def note(self, seconds: float) -> bool:
        """Count a request; return whether there were enough."""
        self._count += 1
        self._total += min(LONGEST, seconds)
        return self._count >= self._least

    @property
    def mean(self) -> float:
        """Seconds that a request took."""
        return self._total / self._count

    def winner(self) -> Manner:
        """Return the better manner, at the end of a trial.

        The cheaper one has to be about as good, but for a huddle, which takes a while to come apart: one that is to end
        it has to be better at once. Where servers are slow, the cheapest is good enough.
        """
        if self.incumbent is None:
            return self.manner
        incumbent, mean = self.incumbent
        if min(self.mean, mean) >= LONGEST * WORTH_IT:
            return min(self.manner, incumbent)
        must_be_shorter = self.manner > incumbent or incumbent is HUDDLED
        is_won = self.mean < mean * (WORTH_IT if must_be_shorter else 1 / WORTH_IT)
        return self.manner if is_won else incumbent


class Trials:
    """A sequence of phases: a trial of each other manner in turn, and in between the one that proved best.

    Args:
        clock: returns seconds.
        manners: those that there are, two at least; the first is begun with, and they are tried in this order.
        on_change: called with each new phase by whichever thread notes the end of the one before.

    Attributes:
        phase: the present one.
    """

    __slots__ = ("_manners", "_on_change", "_pause", "_turn", "phase")

    def __init__(
        self, clock: Callable[[], float], manners: Sequence[Manner], on_change: Callable[[Phase], None]
    ) -> None:
        self._manners = manners
        self._on_change = on_change
        self._turn = 0
        self._pause = SOON
        self.phase = Phase(manners[0], clock() + TRIAL)

    def note(self, seconds: float, now: float) -> None:
        """Count the time that a request took a thread, from the call to the response."""
        phase = self.phase
        if phase.note(seconds) and now >= phase.until and phase.end():
            self.phase = following = self._next(phase, now)
            self._on_change(following)

    def _next(self, phase: Phase, now: float) -> Phase:
        if phase.incumbent is not None:
            pause, self._pause = self._pause, min(SETTLED, 2 * self._pause)
            return Phase(phase.winner(), now + pause, round(ENOUGH * pause / TRIAL))
        return Phase(self._another(phase.manner), now + TRIAL, incumbent=(phase.manner, phase.mean))

    def _another(self, present: Manner) -> Manner:
        """Return whose turn it is to be tried."""
        while True:
            self._turn = (self._turn + 1) % len(self._manners)
            if self._manners[self._turn] is not present:
                return self._manners[self._turn]
