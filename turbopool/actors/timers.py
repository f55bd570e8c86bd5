"""The timers of a dispatcher: a heap of moments. Pure: time is an argument.

A timer is lazy: arming it for a later moment than it is armed for writes two fields and leaves the heap alone; it is
put back when the old moment comes. So a deadline that moves with every request costs one heap entry in a while.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from turbopool.clock import NEVER

_COMPACT_FROM = 64


class LazyTimer:
    """One moment to be called at.

    Attributes:
        due: when to call; NEVER when not armed.
        wakes: when its live heap entry comes up; NEVER when it has none.
    """

    __slots__ = ("_callback", "_timers", "due", "on_crash", "wakes")

    def __init__(self, timers: Timers, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> None:
        self._timers = timers
        self.on_crash = on_crash
        self._callback: Callable[[], None] | None = callback
        self.due = NEVER
        self.wakes = NEVER

    def arm(self, when: float) -> None:
        """Call at ``when`` instead of whenever it was to be; NEVER disarms."""
        self.due = when
        if when < self.wakes and self._callback is not None:
            self._timers.push(self, when)

    def postpone(self, when: float) -> bool:
        """Call at ``when`` if an earlier entry is pending, else return False: it must be armed. Any thread.

        :meth:`fire` takes the entry off before it looks at the moment: so either it sees ``when``, or this sees that.
        """
        self.due = when
        return self.wakes <= when

    def close(self) -> None:
        """Never call again, and let go of the callback."""
        self.due = NEVER
        if self._callback is not None:
            self._callback = None
            self._timers.discard(self)

    def fire(self, now: float) -> None:
        """Call if due, else go back to the heap."""
        self.wakes = NEVER
        if self._callback is None or self.due == NEVER:
            return
        if self.due > now:
            self._timers.push(self, self.due)
        else:
            self.due = NEVER
            self._callback()


class Timers:
    """All timers of one dispatcher."""

    __slots__ = ("_closed", "_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, LazyTimer]] = []
        self._count = 0
        self._closed = 0

    def timer(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> LazyTimer:
        """Return a timer, not armed. What ``callback`` lets out goes to ``on_crash``."""
        return LazyTimer(self, callback, on_crash)

    def next_due(self) -> float:
        """When to look again; NEVER if there is nothing to look for."""
        return self._heap[0][0] if self._heap else NEVER

    def fire(self, now: float) -> None:
        """Call whatever is due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            when, _, timer = heappop(heap)
            if timer.wakes != when:  # an entry that an earlier one replaced
                continue
            try:
                timer.fire(now)
            except BaseException as error:  # noqa: BLE001  # a bug: its owner is told, the others are called
                timer.on_crash(error)

    def push(self, timer: LazyTimer, when: float) -> None:
        """Wake ``timer`` at ``when``."""
        timer.wakes = when
        self._count += 1
        heappush(self._heap, (when, self._count, timer))

    def discard(self, timer: LazyTimer) -> None:
        """Count a closed timer, and drop all closed ones when they are most of the heap."""
        if timer.wakes == NEVER:
            return
        timer.wakes = NEVER
        self._closed += 1
        if self._closed > _COMPACT_FROM and self._closed * 2 > len(self._heap):
            self._heap[:] = [entry for entry in self._heap if entry[2].wakes == entry[0]]
            heapify(self._heap)
            self._closed = 0

    def __len__(self) -> int:
        return sum(entry[2].wakes == entry[0] for entry in self._heap)
