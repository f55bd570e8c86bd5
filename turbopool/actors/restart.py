"""How often a crashed manager is replaced: so many times in so many seconds, then no more for a while. Pure."""

from __future__ import annotations

from collections import deque

MAX_RESTARTS = 5
WITHIN = 10.0
"""Seconds."""


class RestartBudget:
    """Restarts of one key. Beyond the budget, what waits is failed; a later request makes a manager anew."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def spend(self, now: float) -> bool:
        """Take one restart, if there is one left."""
        while self._times and now - self._times[0] >= WITHIN:
            self._times.popleft()
        if len(self._times) >= MAX_RESTARTS:
            return False
        self._times.append(now)
        return True
