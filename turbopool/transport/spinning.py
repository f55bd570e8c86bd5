"""Look before you sleep: a caller's thread that waits for a response lets others go first, and looks once more.

To fall asleep in the kernel and be woken takes two changes of thread; with a core that fell asleep as well, and in a
virtual machine above all, that is longer than a near server takes to answer. So a thread that has sent its request
gives the interpreter and its core to whoever wants them (``sched_yield``), and looks whether the answer has come. With
other threads at work it has, nearly always, and nobody fell asleep; a thread by itself looks for :data:`SPIN` seconds.

That is in vain when servers are far away, and where others compute at length, in this process or beside it, what is
given away comes back late. No rule foresees all of that, so it is measured (:mod:`turbopool.transport.trials`): they
look, and do so where the others are, only as long as it makes their requests shorter.

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
from turbopool.transport.huddle import Huddle
from turbopool.transport.huddle import huddle as the_huddle
from turbopool.transport.trials import HUDDLED, LOOKING, SLEEPING, Manner, Phase, Trials

SPIN = 50e-6
"""Seconds for which a thread looks, at least once."""
TURN = 0.3e-3
"""Seconds after which one who waits at a turnstile is let in for one who leaves and would be back at once."""
AT_MOST = 0.02
"""Seconds after which who waits there goes in all the same."""


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

    def enter(self, ticket: LockType, huddle: Huddle | None = None) -> None:
        """Go in, or wait for a place, with those who ``huddle``. Blocks for :data:`AT_MOST`.

        :meth:`leave` has to follow, whatever happens.
        """
        inside, queue = self._inside, self._queue
        if len(inside) < self._places:
            inside[ticket] = True
            return
        ticket.acquire()
        queue.append(ticket)
        if len(inside) < self._places:  # all left before they could see it
            self._let_in()
        if ticket.acquire(timeout=AT_MOST) if huddle is None else huddle.acquire(ticket, AT_MOST):
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
        huddle: where they look while that is a manner that pays; None if there is none.

    Attributes:
        trials: whether they look, and where.
        turnstile: what they go through.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        let_others_go: Callable[[], None],
        places: int | None = None,
        huddle: Huddle | None = None,
    ) -> None:
        self._clock = clock
        self._let_others_go = let_others_go
        self._huddle = huddle
        self.turnstile = None if places is None else Turnstile(clock, places)
        self.trials = trials_of(self, (LOOKING, SLEEPING), clock, huddle)

    def look(self, receive: Callable[[], bytes | None]) -> bytes | None:
        """Return the first that ``receive`` returns, asked for a moment, else None."""
        turnstile = self.turnstile
        huddle = self._huddle if self.trials.phase.manner is HUDDLED else None
        if turnstile is None:
            return self._look(receive, huddle)
        ticket = allocate_lock()
        try:
            turnstile.enter(ticket, huddle)
            return self._look(receive, huddle)
        finally:
            turnstile.leave(ticket)

    def _look(self, receive: Callable[[], bytes | None], huddle: Huddle | None) -> bytes | None:
        until = self._clock() + SPIN
        while True:
            self._let_others_go()
            if huddle is not None:
                huddle.gather()
                huddle = None  # to move takes as long as a request
            data = receive()
            if data is not None or self._clock() >= until:
                return data


def trials_of(party: object, manners: tuple[Manner, ...], clock: Callable[[], float], huddle: Huddle | None) -> Trials:
    """Return the trials of these manners and of a huddle, if there is one, which ``party`` joins and leaves."""
    if huddle is None:
        return Trials(clock, manners, lambda _: None)

    def change(phase: Phase) -> None:
        huddle.join(party, phase.until) if phase.manner is HUDDLED else huddle.leave(party)

    return Trials(clock, (manners[0], HUDDLED, *manners[1:]), change)


spinner: Spinner | None = None
"""Of connections in clear; None where nobody has measured that it pays."""
tls_spinner: Spinner | None = None
"""Of those over TLS."""
sleepers: Trials | None = None
"""Of those who sleep until another thread has their response."""
if sys.platform == "linux":
    spinner = Spinner(SystemClock.now, os.sched_yield, huddle=the_huddle)
    tls_spinner = Spinner(SystemClock.now, os.sched_yield, places=2, huddle=the_huddle)
    if the_huddle is not None:
        sleepers = trials_of("sleepers", (SLEEPING,), SystemClock.now, the_huddle)
