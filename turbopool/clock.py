"""The only module that reads time: everything else is handed ``now`` or a :class:`Clock`.

All moments are float seconds on a clock that never goes backwards; a wall clock that jumps changes nothing.
"""

from __future__ import annotations

import time
from typing import Protocol

NEVER = float("inf")
"""The moment that never comes: the deadline of whatever has none."""


class Clock(Protocol):
    """Where the runtime takes the time from; tests bring their own."""

    def now(self) -> float:
        """Return the present moment, in seconds. Callable from any thread."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    now = staticmethod(time.monotonic)
