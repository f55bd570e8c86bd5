"""A line of lessees: first come first served, left from anywhere, and by itself when one's time is up. Pure.

Deadlines mostly come in order, because most requests have the same timeout: then the head of the line is the next to
expire, and nothing is kept beside the line. Only those whose deadline is earlier than one before them go to a heap.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import Protocol, TypeVar

from turbopool.clock import NEVER

_COMPACT_FROM = 64


class Waiter(Protocol):
    """What a line needs to know of who stands in it."""

    queue_deadline: float
    """When to leave."""
    needs_fresh: bool
    """Whether only a connection that carried nothing before will do."""

    @property
    def done(self) -> bool:
        """Whether it wants nothing any more."""
        ...


W = TypeVar("W", bound=Waiter)


class Line(OrderedDict[W, None]):
    """Those who wait, in order; an ordered dict, so that length, membership and taking the first run in C."""

    def __init__(self) -> None:
        super().__init__()
        self._latest = -NEVER
        self._early: list[tuple[float, int, W]] = []
        self._count = 0

    def join(self, waiter: W) -> None:
        """Stand last in line."""
        if not self:
            self._latest = -NEVER
            self._early.clear()
        self[waiter] = None
        deadline = waiter.queue_deadline
        if deadline >= self._latest:
            self._latest = deadline
        else:
            self._count += 1
            heappush(self._early, (deadline, self._count, waiter))
            if len(self._early) > _COMPACT_FROM and len(self._early) > 2 * len(self):  # most of them have left
                self._early = [entry for entry in self._early if entry[2] in self]
                heapify(self._early)

    def leave(self, waiter: W) -> bool:
        """Leave, wherever one stands; return whether the waiter stood here."""
        return self.pop(waiter, self) is None

    def serve(self) -> W | None:
        """Return the first who still wants something, struck from the line, or None."""
        while self:
            waiter, _ = self.popitem(last=False)
            if not waiter.done:
                return waiter
        return None

    def next_expiry(self) -> float:
        """When the next one's time is up; NEVER if nobody's is.

        The head, if it came in order, is the earliest of all that did; if it did not, it is earlier than those.
        """
        if not self:
            return NEVER
        early = self._early
        while early and early[0][2] not in self:
            heappop(early)
        head = next(iter(self)).queue_deadline
        return min(head, early[0][0]) if early else head

    def expire(self, now: float) -> list[W]:
        """Strike out and return those whose time is up, and who still want something."""
        late = []
        while self.next_expiry() <= now:
            head = next(iter(self))
            waiter = head if head.queue_deadline <= now else self._early[0][2]
            del self[waiter]
            if not waiter.done:
                late.append(waiter)
        return late

    def disperse(self) -> list[W]:
        """Strike out all, and return those who still want something, in order."""
        everybody = [waiter for waiter in self if not waiter.done]
        self.clear()
        self._early.clear()
        return everybody
