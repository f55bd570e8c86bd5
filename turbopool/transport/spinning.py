"""Look before you sleep: a caller's thread that waits for a response lets others go first, and looks once more.

To fall asleep in the kernel and be woken takes two changes of thread; with a core that fell asleep as well, and in a
virtual machine above all, that is longer than a near server takes to answer. So a thread that has sent its request
gives the interpreter and its core to whoever wants them (``sched_yield``), and looks whether the answer has come. With
other threads at work it has, nearly always, and nobody fell asleep; a thread by itself looks for :data:`SPIN` seconds.

That is in vain when servers are far away, and where others compute at length, in this process or beside it, what is
given away comes back late. No rule foresees all of that, so it is measured: a small part of the time all threads do
the other thing, and they look only as long as it makes their requests shorter.

OpenSSL lets go of the interpreter in each of its calls, so that threads that are awake together keep waking each other.
Over TLS two at a time look, by turns, and the others sleep meanwhile.

Benchmark: ``make bench``, rows ``turbopool-send``.
"""

from __future__ import annotations

import os
import sys
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable

from turbopool.clock import SystemClock

SPIN = 50e-6
"""Seconds for which a thread looks, at least once."""
TRIAL = 0.05
"""Seconds that a trial lasts at least."""
SETTLED = 1.0
"""Seconds between two trials, at least."""
ENOUGH = 16
"""Requests that a trial lasts at least; between two there are as many more as :data:`SETTLED` is longer."""
LONGEST = 0.01
"""Seconds that a request counts at most: beyond that it was the server's time."""
WORTH_IT = 0.95
"""By what factor looks have to shorten the requests."""
TURN = 0.3e-3
"""Seconds after which one who waits at a turnstile is let in for one who leaves and would be back at once."""
AT_MOST = 0.02
"""Seconds after which who waits there goes in all the same."""


class Phase:
    """A while in which all threads do the same, and how long their requests took.

    Args:
        looks: whether they look before they sleep.
        until: when it may end.
        least: requests after which it may end.
        rival: if this is a trial, the seconds that they took on average in the phase before; else None.
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
        """Count a request; return whether there were enough. Any thread: one that is lost changes nothing."""
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


class Turnstile:
    """Lets few threads in at a time. It is advice: nothing but time is lost if it errs, and it recovers by itself.

    Who leaves lets the next one in if hardly anybody is in, or if a turn has passed since that was done: until then it
    may come back before the others, who need not be woken for each request.

    Args:
        clock: returns seconds.
        places: how many may be in, 2 or more.
    """

    __slots__ = ("_clock", "_inside", "_let_in_at", "_places", "_queue")

    def __init__(self, clock: Callable[[], float], places: int) -> None:
        self._clock = clock
        self._places = places
        self._inside: dict[LockType, bool] = {}
        self._queue: deque[LockType] = deque()
        self._let_in_at = 0.0

    def enter(self, ticket: LockType) -> None:
        """Go in, or wait for a place. Blocks for :data:`AT_MOST`; :meth:`leave` has to follow, whatever happens."""
        inside, queue = self._inside, self._queue
        if len(inside) < self._places:
            inside[ticket] = True
            return
        ticket.acquire()
        queue.append(ticket)
        if len(inside) < self._places:  # all left before they could see it
            self._let_in()
        if ticket.acquire(timeout=AT_MOST):
            return
        if not self._give_up(ticket):
            ticket.acquire(timeout=AT_MOST)  # another thread is just about to let it in
        else:
            for forgotten in list(inside)[:1]:  # a fork or an interrupt may have left it in there for ever
                inside.pop(forgotten, None)
            inside[ticket] = True

    def leave(self, ticket: LockType) -> None:
        """Go out, or give up to wait."""
        if not self._inside.pop(ticket, False):
            self._give_up(ticket)
        elif self._queue and (len(self._inside) < self._places - 1 or self._clock() > self._let_in_at + TURN):
            self._let_in()

    def __len__(self) -> int:
        """Return how many are in, or wait."""
        return len(self._inside) + len(self._queue)

    def _let_in(self) -> None:
        try:
            ticket = self._queue.popleft()
        except IndexError:
            return
        self._let_in_at = self._clock()
        self._inside[ticket] = True
        ticket.release()

    def _give_up(self, ticket: LockType) -> bool:
        try:
            self._queue.remove(ticket)
        except ValueError:
            return False
        return True


class Spinner:
    """Looks, for all threads of the process.

    Args:
        clock: returns seconds.
        let_others_go: gives away the interpreter and the core, and returns when it has them again.
        places: how many threads may look at a time; None for all.

    Attributes:
        phase: the present one.
        turnstile: what they go through.
    """

    def __init__(
        self, clock: Callable[[], float], let_others_go: Callable[[], None], places: int | None = None
    ) -> None:
        self._clock = clock
        self._let_others_go = let_others_go
        self.turnstile = None if places is None else Turnstile(clock, places)
        self.phase = Phase(clock() + TRIAL, looks=True)

    def look(self, receive: Callable[[], bytes | None]) -> bytes | None:
        """Return the first that ``receive`` returns, asked for a moment, else None."""
        turnstile = self.turnstile
        if turnstile is None:
            return self._look(receive)
        ticket = allocate_lock()
        try:
            turnstile.enter(ticket)
            return self._look(receive)
        finally:
            turnstile.leave(ticket)

    def _look(self, receive: Callable[[], bytes | None]) -> bytes | None:
        until = self._clock() + SPIN
        while True:
            self._let_others_go()
            data = receive()
            if data is not None or self._clock() >= until:
                return data

    def note(self, seconds: float, now: float) -> None:
        """Count the time that a request took a thread, from the call to the response."""
        phase = self.phase
        if phase.note(seconds) and now >= phase.until:
            self.phase = phase.next(now)  # a thread that was preempted here brings back an old trial, which soon ends


spinner: Spinner | None = None
"""Of connections in clear; None where nobody has measured that it pays."""
tls_spinner: Spinner | None = None
"""Of those over TLS."""
if sys.platform == "linux":
    spinner = Spinner(SystemClock.now, os.sched_yield)
    tls_spinner = Spinner(SystemClock.now, os.sched_yield, places=2)
