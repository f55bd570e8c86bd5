"""How much of what costs a peer little and us much is put up with on one HTTP/2 connection. Pure.

Each kind of frame has a budget: so many at once, so many a second from then on. The floods of CVE-2019-9511 to 9518
and CVE-2023-44487 go beyond any of them within a turn; no honest server comes near.
"""

from __future__ import annotations


class Budget:
    """A token bucket.

    Args:
        burst: the most at once.
        rate: how many more a second.
    """

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._since = now

    def spend(self, now: float) -> bool:
        """Take one, if there is one."""
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def earn(self, count: float) -> None:
        """Add some: the peer had reason."""
        self._left += count


class Conduct:
    """The budgets of one connection, by what is counted against them.

    Attributes:
        pings, settings: each of them asks for an answer.
        resets: RST_STREAM for streams that had ended before; a server that answers before it has read the request ends
            each of them so, and every stream is a reason for one.
        blanks: DATA without data, and without an end.
        windows: WINDOW_UPDATE; every DATA we send is a reason for some.
        strays: frames of streams that were cancelled, of priorities, and of kinds that nobody knows.
    """

    __slots__ = ("blanks", "pings", "resets", "settings", "strays", "windows")

    def __init__(self, now: float) -> None:
        self.pings = Budget(100, 10, now)
        self.settings = Budget(100, 10, now)
        self.resets = Budget(1_000, 100, now)
        self.blanks = Budget(1_000, 100, now)
        self.windows = Budget(10_000, 1_000, now)
        self.strays = Budget(10_000, 5_000, now)
