"""May this request be sent again? One predicate, and the budget that keeps recovery from becoming a storm.

RFC 9110 section 9.2.2 and RFC 9113 section 8.7; the conditions on the connection are Go's (``shouldRetryRequest``).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_REPLAYS = 3
"""Of a request that provably was not processed."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of an attempt that ended without a response."""

    sent: bool
    """Whether a byte of it was handed to the kernel, or to the TLS layer."""
    answered: bool
    """Whether a byte of a response came, 1xx included."""
    proven_server: bool
    """Whether the connection carried requests before, or another of its key did."""
    idempotent: bool
    rewindable: bool
    replays: int
    """How often it was sent again already; for one that was sent, attempts of which nothing was do not count."""


def may_replay(attempt: Attempt) -> bool:
    """Decide for a connection that the peer closed or broke; timeouts, limits and cancels never come here."""
    if attempt.answered or not attempt.rewindable:
        return False
    if not attempt.sent:
        return attempt.replays < MAX_REPLAYS
    return attempt.idempotent and attempt.proven_server and attempt.replays == 0


class ReplayBudget:
    """How many ambiguous replays a key may have: a share of its requests and a few a second (Finagle's rule)."""

    __slots__ = ("_balance", "_seen", "_since")

    SHARE = 0.2
    PER_SECOND = 10.0
    MOST = 100.0

    def __init__(self, now: float) -> None:
        self._balance = self.PER_SECOND
        self._since = now
        self._seen = 0

    def spend(self, now: float, requests: int) -> bool:
        """Take one replay, if there is one. ``requests`` counts those of the key since its birth."""
        earned = (now - self._since) * self.PER_SECOND + (requests - self._seen) * self.SHARE
        self._balance = min(self._balance + earned, self.MOST)
        self._since, self._seen = now, requests
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
