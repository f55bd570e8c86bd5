"""One key's pure parts, what a manager does with them, and what is known of its server."""

from __future__ import annotations

from dataclasses import dataclass, field

from turbopool.actors.ledger import Ledger
from turbopool.actors.quota import Quota
from turbopool.actors.recovery import Recovery
from turbopool.config import ReconnectOptions
from turbopool.stats import PoolKey
from turbopool.transport.replay import ReplayBudget

TINY = 1e-6


@dataclass(eq=False)
class Request:
    """A lessee, and what its server saw of it."""

    number: int
    idempotent: bool
    rewindable: bool
    queue_deadline: float
    needs_fresh: bool = False
    replays: int = 0
    sent: int = 0
    outcomes: list[str] = field(default_factory=list)
    ended_at: float = -1.0

    @property
    def done(self) -> bool:
        """Whether it has an outcome."""
        return bool(self.outcomes)


@dataclass(eq=False)
class Link:
    """A connection, or the dial that it was."""

    carried: int = 0


class Desk:
    """One key's parts, what a manager does with them, and what is known of its server."""

    def __init__(self, key: PoolKey, limit: int, quota: Quota, options: ReconnectOptions) -> None:
        self.key = key
        self.quota = quota
        self.books: Ledger[Link, Link, Request] = Ledger(limit)
        self.recovery = Recovery(options)
        self.budget = ReplayBudget(0.0)
        self.granted = self.opened = self.closed = 0
        self.seen = 0
        """Failures, when last looked at."""
        self.since = self.failed_at = 0.0
        """The last of them, or the connect after it, if that one must be answered first."""
        self.trial: Link | None = None
        """The dial begun last: of those under way, only this one may be an attempt after the last failure."""
        self.is_reached = self.has_flapped = False

    def look(self, now: float, *, flapped: bool = False) -> None:
        """Note a failure that was counted, or that the count was set back."""
        if self.recovery.failures > self.seen:
            self.since, self.is_reached, self.trial = now, False, None
            self.failed_at = now
            self.has_flapped = self.has_flapped or flapped
        elif not self.recovery.failures:
            self.is_reached = self.has_flapped = False
        self.seen = self.recovery.failures

    def connect(self, link: Link, now: float) -> None:
        """A dial succeeds."""
        self.opened += 1
        self.recovery.established(link, link, now)
        self.is_reached = self.is_reached or not self.has_flapped
        self.since = now if self.has_flapped and link is self.trial else self.since
        self.lend(link, self.books.settle(link, link))

    def dial(self, now: float, culprit: Request | None) -> None:
        """Dial as far as it is wanted, due and allowed."""
        while self.books.wants_dial and self.recovery.may_dial(now):
            if not self.quota.take(self.key):
                self.quota.want(self.key, now)
                return
            self.begin(now, culprit)
        self.quota.forget(self.key)

    def begin(self, now: float, culprit: Request | None = None) -> None:
        """I22: once an attempt has failed, the next is made when the schedule says, and not before."""
        if self.seen and not self.is_reached:
            assert now >= self.since + min(2.0 ** (self.seen - 1), 16.0) - TINY, "too early"
            assert self.trial not in self.books.dialing, "two attempts at once"
        link = self.trial = Link()
        self.recovery.dialing(link)
        self.books.dial(link, culprit)

    def lend(self, link: Link, request: Request | None) -> None:
        """A request goes out on a connection."""
        if request is not None:
            self.granted += 1
            assert not request.needs_fresh or not link.carried, "a fresh one was needed"
            link.carried += 1

    def send_again(self, request: Request) -> None:
        """Lend an idle connection to who may have it, or put the request ahead of the queue."""
        if self.books.idle and not self.books.waiting and not request.needs_fresh:
            link = self.books.lease(request)
            assert link is not None
            self.lend(link, request)
        else:
            self.books.take_back(request)

    def drop(self, link: Link) -> None:
        """A connection is gone; if nothing was heard of it, that step need not be waited for."""
        self.since = min(self.since, self.failed_at) if link is self.trial else self.since
        self.books.discard(link)
        self.recovery.gone(link)
        self.quota.roused(link)
        self.closed += 1
        self.quota.give(self.key)
