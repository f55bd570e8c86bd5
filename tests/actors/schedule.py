"""A watch over when dials are begun: the schedule of reconnecting as a server would see it."""

from __future__ import annotations

from dataclasses import dataclass

from turbopool.stats import PoolKey
from turbopool.transport.memory import MemoryDial

_TINY = 1e-6


@dataclass
class _Run:
    """The failures in a row of one key."""

    rounds: int = 0
    failed_at: float = 0.0
    mark: int = 0
    """Dials begun before this one do not count: they are as old as the last failure."""
    vague: int = 0
    """Nor do, perhaps, those before this one: something broke while they were under way."""


class Schedule:
    """Knows the default schedule, and nothing of how it is kept: fails as soon as a dial comes too early.

    It is lenient: whatever may have set the count of failures back, does.
    """

    def __init__(self) -> None:
        self.begun: dict[MemoryDial, float] = {}
        """When each dial was begun."""
        self._order: dict[MemoryDial, int] = {}
        self._runs: dict[PoolKey, _Run] = {}

    def note(self, dials: list[MemoryDial], now: float) -> list[MemoryDial]:
        """Look at the dials that are new, and return them."""
        new = dials[len(self.begun) :]
        for dial in new:
            run = self._run(dial.key)
            if run.rounds:
                earliest = run.failed_at + min(2.0 ** (run.rounds - 1), 16.0)
                assert now >= earliest - _TINY, f"dialed {earliest - now} s too early after {run.rounds} failures"
                others = [one for one in self.begun if one.key == dial.key and one.is_pending]
                assert all(self._order[one] < run.mark for one in others), "two attempts at once"
            self.begun[dial] = now
            self._order[dial] = len(self._order)
        return new

    def failed(self, dial: MemoryDial, now: float) -> None:
        """A dial is about to fail, and reconnecting takes it seriously."""
        run = self._run(dial.key)
        if run.mark <= self._order[dial] < run.vague:
            run.vague = len(self._order)
        elif run.mark <= self._order[dial]:
            run.rounds += 1
            run.failed_at = now
            run.mark = len(self._order)

    def well(self, key: PoolKey) -> None:
        """A dial succeeded, or a response came."""
        self._run(key).rounds = 0

    def disturbed(self, key: PoolKey) -> None:
        """A connection broke: the dials under way are of the time before."""
        self._run(key).vague = len(self._order)

    def forget(self) -> None:
        """All that was known of the servers was lost."""
        self._runs.clear()

    def _run(self, key: PoolKey) -> _Run:
        return self._runs.setdefault(key, _Run())
