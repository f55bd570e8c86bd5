"""What the threads of a chaos run saw: counts, latencies, one example of each error, and every rule that was broken."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from turbopool import ReadError, RemoteProtocolError, TurboPoolError, WriteError

_EDGES = [0.0001 * 1.1**step for step in range(140)]
"""Upper ends of the latency buckets, 0.1 ms to a minute, each a tenth longer than the one before."""

_TOLD = 5
"""How many examples of a broken rule are kept."""

OK = "response"
CANCELLED = "cancelled"


class Rule(StrEnum):
    """What must never happen."""

    NONCE = "nonce mismatches"
    SHORT = "short bodies"
    DOUBLE = "double POSTs"
    UNRESOLVED = "futures unresolved"
    LEAKED = "leaked"
    UNSENT = "seen by the server though processed was no"
    RESENT = "requests seen more than twice"
    LATE = "callers kept beyond deadline + 6 s"
    UNDOCUMENTED = "errors that are no TurboPoolError, or without processed"
    UNASKED = "cancelled though nobody cancelled"
    STATUS = "unexpected status codes"
    VERSION = "answers in another version of HTTP"
    NEEDLESS = "failed by a lost connection though nothing was sent"
    UNREPLAYED = "GETs that failed at their first attempt, unanswered"
    MISSED = "requests that the pools' counters miss"
    RECOVERY = "threads not served again within 31 s of calm"
    RELAPSE = "errors after recovery"
    BUSY = "pools not at rest after all callers ended"
    GROWTH = "memory still growing"
    HARNESS = "failures of the run itself"


class Outcome(NamedTuple):
    """How a request ended."""

    method: str
    kind: str
    """:data:`OK`, :data:`CANCELLED`, or the error's class."""
    processed: str
    """What the error said of it; empty otherwise."""


@dataclass(slots=True)
class Record:
    """What one thread saw; records add up."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    examples: dict[Outcome, str] = field(default_factory=dict)
    broken: Counter[Rule] = field(default_factory=Counter)
    told: dict[Rule, list[str]] = field(default_factory=dict)
    latencies: list[int] = field(default_factory=lambda: [0] * (len(_EDGES) + 1))
    longest: float = 0.0
    """Seconds of the slowest success."""
    latest: float = 0.0
    """The most seconds by which a call ended after its deadline."""
    recovered: float = 0.0
    """Seconds from calm until this thread was served by every server."""
    lost: Counter[str] = field(default_factory=Counter)
    """GETs that failed because their connections broke before an answer, by origin."""
    visits: int = 0
    """Clients that were made, used and disposed of."""
    never_sent: list[int] = field(default_factory=list)
    """Nonces of failed requests that were, so their errors say, not processed."""

    def answered(self, method: str, seconds: float | None) -> None:
        """Count a success; None if nobody saw how long it took."""
        self.outcomes[Outcome(method, OK, "")] += 1
        if seconds is not None:
            self.latencies[bisect_left(_EDGES, seconds)] += 1
            self.longest = max(self.longest, seconds)

    def cancelled(self, method: str) -> None:
        """Count a request that its caller took back."""
        self.outcomes[Outcome(method, CANCELLED, "")] += 1

    def failed(self, method: str, nonce: int, error: BaseException, *, rewindable: bool) -> None:
        """Count an error, and judge what it says of itself."""
        processed = getattr(error, "processed", "")
        if not isinstance(error, TurboPoolError) or processed not in ("no", "maybe", "yes"):
            self.violate(Rule.UNDOCUMENTED, describe(error))
        elif isinstance(error, ReadError | WriteError | RemoteProtocolError) and processed != "yes":
            self._judge_loss(method, error, rewindable=rewindable)
        outcome = Outcome(method, type(error).__name__, processed)
        self.outcomes[outcome] += 1
        if outcome not in self.examples:
            self.examples[outcome] = describe(error)
        if processed == "no":
            self.never_sent.append(nonce)

    def _judge_loss(self, method: str, error: TurboPoolError, *, rewindable: bool) -> None:
        """Judge a request whose connection broke before an answer: could it not have been sent again?"""
        if error.processed == "no" and rewindable:
            self.violate(Rule.NEEDLESS, f"{method}: {describe(error)}")
        elif method == "GET" and error.phase != "recv":
            self.lost[error.origin or ""] += 1
            if error.attempts == 1:
                self.violate(Rule.UNREPLAYED, describe(error))

    def violate(self, rule: Rule, what: str) -> None:
        """Count a broken rule, and keep what happened."""
        self.broken[rule] += 1
        told = self.told.setdefault(rule, [])
        if len(told) < _TOLD:
            told.append(f"{what} (in {threading.current_thread().name})")

    def add(self, other: Record) -> None:
        """Take in what another thread saw."""
        self.outcomes += other.outcomes
        self.broken += other.broken
        self.examples = other.examples | self.examples
        for rule, told in other.told.items():
            self.told[rule] = (self.told.get(rule, []) + told)[:_TOLD]
        self.latencies = [mine + theirs for mine, theirs in zip(self.latencies, other.latencies, strict=True)]
        self.longest = max(self.longest, other.longest)
        self.latest = max(self.latest, other.latest)
        self.recovered = max(self.recovered, other.recovered)
        self.lost += other.lost
        self.visits += other.visits
        self.never_sent += other.never_sent

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the successes came, at most a tenth too many."""
        wanted = share * sum(self.latencies)
        for edge, count in zip(_EDGES, self.latencies, strict=False):
            wanted -= count
            if wanted <= 0:
                return edge
        return self.longest


def describe(error: BaseException | None) -> str:
    """An error and its causes, in one line."""
    told: list[str] = []
    while error is not None and len(told) < _TOLD:
        attempts = f" in {error.attempts} attempts" if isinstance(error, TurboPoolError) else ""
        told.append(f"{type(error).__name__}{attempts}: {error}")
        error = error.__cause__
    return " <- ".join(told)
