"""Look before you sleep: a caller's thread that waits for a response lets others go first, and looks once more.

To fall asleep in the kernel and be woken takes two changes of thread; with a core that fell asleep as well, and in a
virtual machine above all, that is longer than a near server takes to answer. So a thread that has sent its request
gives the interpreter and its core to whoever wants them (``sched_yield``), and looks whether the answer has come. With
other threads at work it has, nearly always, and nobody fell asleep; a thread by itself looks for :data:`SPIN` seconds.

That is in vain when servers are far away, and where others compute at length, in this process or beside it, what is
given away comes back late. No rule foresees all of that, so it is measured: a small part of the time all threads do
the other thing, and they look only as long as it makes them wait less.

Benchmark: ``make bench``, rows ``turbopool-send``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from turbopool.clock import SystemClock

SPIN = 50e-6
"""Seconds for which a thread looks, at least once."""
TRIAL = 0.05
"""Seconds that a trial lasts at least."""
SETTLED = 1.0
"""Seconds between two trials, at least."""
ENOUGH = 16
"""Waits that a trial lasts at least; between two there are as many more as :data:`SETTLED` is longer."""
LONGEST = 0.01
"""Seconds that a wait counts at most: beyond that it was the server's time."""
WORTH_IT = 0.95
"""By what factor looks have to make the waits shorter."""


class Phase:
    """A while in which all threads do the same, and how long it made them wait.

    Args:
        looks: whether they look before they sleep.
        until: when it may end.
        least: waits after which it may end.
        rival: if this is a trial, the seconds that they waited on average in the phase before; else None.
    """

    __slots__ = ("_count", "_least", "_total", "looks", "rival", "until")

    def __init__(self, until: float, least: int = ENOUGH, *, looks: bool, rival: float | None = None) -> None:
        self.until = until
        self.looks = looks
        self.rival = rival
        self._least = least
        self._count = 0
        self._total = 0.0

    def note(self, seconds: float) -> bool:
        """Count a wait; return whether there were enough. Any thread: one that is lost changes nothing."""
        self._count += 1
        self._total += min(LONGEST, seconds)
        return self._count >= self._least

    def next(self, now: float) -> Phase:
        """Return the phase that follows: a trial of the other, or what proved better."""
        mean = self._total / self._count
        if self.rival is None:
            return Phase(now + TRIAL, looks=not self.looks, rival=mean)
        looking, sleeping = (mean, self.rival) if self.looks else (self.rival, mean)
        return Phase(now + SETTLED, round(ENOUGH * SETTLED / TRIAL), looks=looking < sleeping * WORTH_IT)


class Spinner:
    """Looks, for all threads of the process.

    Args:
        clock: returns seconds.
        let_others_go: gives away the interpreter and the core, and returns when it has them again.

    Attributes:
        phase: the present one.
    """

    def __init__(self, clock: Callable[[], float], let_others_go: Callable[[], None]) -> None:
        self._clock = clock
        self._let_others_go = let_others_go
        self.phase = Phase(clock() + TRIAL, looks=True)

    def look(self, receive: Callable[[], bytes | None], now: float) -> bytes | None:
        """Return the first that ``receive`` returns, asked for a moment, else None."""
        until = now + SPIN
        while True:
            self._let_others_go()
            data = receive()
            if data is not None or self._clock() >= until:
                return data

    def note(self, phase: Phase, seconds: float, now: float) -> None:
        """Count a wait that began in this phase."""
        if phase.note(seconds) and now >= phase.until and phase is self.phase:
            self.phase = phase.next(now)  # of two threads that come here at once, both do the same


spinner = Spinner(SystemClock.now, os.sched_yield) if sys.platform == "linux" else None
"""None where nobody has measured that it pays."""
