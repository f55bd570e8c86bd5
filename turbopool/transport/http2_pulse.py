"""Whether the peer of an HTTP/2 connection lives: what silence means, and when it is asked. Pure; time is an argument.

- Nothing heard for the keep-alive interval while requests wait: it is asked, by PING.
- A request timed out: the connection is suspect. It is asked, and takes no requests until it has answered.
- Suspect, and no answer for :data:`SUSPECT_FOR`: it never takes another (OkHttp's "degraded" connections).
- No answer within the keep-alive timeout: it is dead.
- No SETTINGS, or ours not acknowledged, within :data:`SETTLES_WITHIN`: it is unsettled (RFC 9113 section 6.5.3).

It is never asked while an answer is due.
"""

from __future__ import annotations

from enum import Enum, auto

from turbopool.clock import NEVER

SETTLES_WITHIN = 10.0
"""Seconds."""
SUSPECT_FOR = 1.0
"""Seconds."""


class Sign(Enum):
    """What is to be done about a connection."""

    FINE = auto()
    ASK = auto()
    """Send a PING."""
    DOUBTFUL = auto()
    """Lend it no more."""
    DEAD = auto()
    """End it."""
    UNSETTLED = auto()
    """End it: the peer never said what a connection begins with."""


class Pulse:
    """The signs of life of one connection.

    Args:
        interval: seconds of silence after which the peer is asked; None or 0 is never.
        timeout: seconds it has to answer.
        now: when the connection was established.

    Attributes:
        is_suspect: whether it is not to be lent until the peer has answered.
        asked_at: since when an answer is due; NEVER if none is.
    """

    __slots__ = ("_heard_at", "_interval", "_settles_by", "_timeout", "asked_at", "is_suspect")

    def __init__(self, interval: float | None, timeout: float, now: float) -> None:
        self._interval = interval or NEVER
        self._timeout = timeout
        self._heard_at = now
        self._settles_by = now + SETTLES_WITHIN
        self.asked_at = NEVER
        self.is_suspect = False

    def hear(self, now: float) -> None:
        """Something has arrived; or silence begins to mean something, because a request waits."""
        self._heard_at = now

    def settle(self) -> None:
        """Both sides' SETTINGS have been acknowledged."""
        self._settles_by = NEVER

    def suspect(self) -> None:
        """A request has timed out."""
        self.is_suspect = True

    def ping(self, now: float) -> None:
        """A PING goes out."""
        self.asked_at = now

    def answer(self) -> None:
        """The PING was answered."""
        self.asked_at = NEVER
        self.is_suspect = False

    def sign(self, now: float, *, waiting: bool) -> Sign:
        """Say what is to be done; ``waiting`` is whether any request waits for the peer."""
        if now >= self._settles_by:
            return Sign.UNSETTLED
        if now >= self.asked_at + self._timeout:
            return Sign.DEAD
        if self.is_suspect and now >= self.asked_at + SUSPECT_FOR:
            return Sign.DOUBTFUL
        if self.asked_at == NEVER and (self.is_suspect or (waiting and now >= self._heard_at + self._interval)):
            return Sign.ASK
        return Sign.FINE

    def due(self, now: float, *, waiting: bool) -> float:
        """When to call :meth:`sign` again."""
        due = min(self._settles_by, self.asked_at + self._timeout)
        if self.asked_at == NEVER:
            return min(due, self._heard_at + self._interval) if waiting else due
        doubtful = self.asked_at + SUSPECT_FOR
        return min(due, doubtful) if self.is_suspect and now < doubtful else due
