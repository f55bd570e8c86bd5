"""What callers of all keys have launched, and when the dispatcher takes over what nobody comes to receive.

A launched request is left to whoever waits for it. There is one line of them for all keys, and one timer: while callers
launch anything at all, the dispatcher looks every few milliseconds, and is told of nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from turbopool.actors.dispatcher import Dispatcher
from turbopool.transport.exchange import Raft

_log = logging.getLogger("turbopool.dispatcher")

AFLOAT = 2**-8
"""Seconds for which a launched request is left to whoever waits for it; within as many more, the dispatcher takes it
over. A power of two: its multiples are exact, or the next of them might not lie ahead."""


class Afloat:
    """The launched requests, the oldest first.

    A raft is empty once somebody has claimed what was on it, so this keeps no response alive.

    Args:
        dispatcher: on whose thread it looks.
        land: takes over what is on a raft, if anything still is.
    """

    __slots__ = ("_dispatcher", "_is_watched", "_land", "_rafts", "_timer")

    def __init__(self, dispatcher: Dispatcher, land: Callable[[Raft], None]) -> None:
        self._dispatcher = dispatcher
        self._land = land
        self._rafts: deque[tuple[float, Raft]] = deque()
        self._is_watched = False
        """Whether somebody looks at them before long."""
        self._timer = dispatcher.timer(self._on_look, self._on_crash)

    def launch(self, moment: float, raft: Raft) -> None:
        """Add what was asked for at this moment. Any thread."""
        self._rafts.append((moment, raft))
        if not self._is_watched:
            self.watch()

    def watch(self) -> None:
        """Have the dispatcher look, even if it is said to: who was to tell it may have been killed. Any thread."""
        self._is_watched = True
        self._dispatcher.schedule(self)

    def step(self) -> None:
        """Begin to look. Dispatcher's thread."""
        self._is_watched = False
        self._look_in(2)

    def _on_look(self) -> None:
        """Take over what was launched a while ago; look again, without being told to, while callers launch more."""
        self._is_watched = self._sweep(self._dispatcher.now - AFLOAT)
        self._look_in(1)

    def _look_in(self, ticks: int) -> None:
        if self._is_watched or self._rafts:  # some may have come before that
            self._is_watched = True
            moment = (self._dispatcher.now // AFLOAT + ticks) * AFLOAT
            self._timer.arm(min(moment, self._timer.due))

    def _sweep(self, until: float) -> bool:
        """Return whether anything that old had been launched, received or not."""
        rafts, found = self._rafts, False
        while rafts and rafts[0][0] <= until:
            _, raft = rafts.popleft()
            found = True
            if raft:
                self._land(raft)
        return found

    def _on_crash(self, error: BaseException) -> None:
        _log.error("a launched request could not be taken over", exc_info=error)
        self.watch()  # the others can
