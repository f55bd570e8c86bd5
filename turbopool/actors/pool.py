"""What exists of one key whether or not its manager lives: its settings, its books, its counters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pykka

from turbopool.actors.afloat import Afloat
from turbopool.actors.ledger import Books, Ledger
from turbopool.actors.quota import Quota
from turbopool.actors.recovery import OPEN, Recovery
from turbopool.actors.stream_ledger import StreamLedger
from turbopool.clock import NEVER
from turbopool.config import ReconnectOptions
from turbopool.stats import PoolKey, PoolStats
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange, unmoor
from turbopool.transport.interfaces import Dial
from turbopool.transport.landlord import ConnectionSettings, Ending, Lendable

RETIRE_AFTER = 60.0
"""Seconds without connections and requests after which a manager retires, so that thousands of hosts stay bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """What a manager is told of the client's options."""

    limit: int
    """Connections."""
    max_pending: int
    connect_timeout: float | None
    connection: ConnectionSettings
    reconnect: ReconnectOptions = field(default_factory=ReconnectOptions)
    min_idle: int = 0
    streams: int = 1
    """Requests on one connection at once."""
    retire_after: float = RETIRE_AFTER


@dataclass(slots=True, kw_only=True)
class Pool:
    """What exists of a key outside its manager, so that it outlives a crash, and so that callers can read it.

    ``crash`` is what its manager died of, while it may not be replaced yet.
    """

    key: PoolKey
    settings: PoolSettings
    afloat: Afloat
    """Where callers launch their requests."""
    ledger: Books[Any, Dial, Exchange] = field(init=False)
    """Of connections as its manager makes them."""
    ref: pykka.ActorRef[Any] = field(init=False)
    recovery: Recovery = field(init=False)
    crash: BaseException | None = None
    quota: Quota = field(default_factory=lambda: Quota(None, None))
    """The bounds over all keys."""
    is_shared: bool = False
    """Whether callers' threads may drive connections on this platform."""
    is_draining: bool = False
    """Whether its manager ends."""
    early: deque[Exchange] = field(default_factory=deque)
    """On their way through the supervisor, though the pool was there when they were told of: who came later waits."""
    has_launched: bool = False
    """Whether callers have launched requests since the manager last took those over."""
    orphans: dict[ClaimableConnection, None] = field(default_factory=dict)
    """Claimed by callers when the manager died: they hand them in to its replacement, which closes them."""
    looks_at: float = NEVER
    """When its manager next looks at what is idle."""
    opened: int = 0
    closed: int = 0
    requests: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    replays: int = 0

    def __post_init__(self) -> None:
        self.ledger = self._new_ledger()
        self.recovery = Recovery(self.settings.reconnect)

    @property
    def most(self) -> int:
        """Requests that all connections carry at once, at best."""
        return self.settings.limit * self.settings.streams

    def is_shut(self) -> bool:
        """Whether callers may not help themselves to idle connections, nor put them back without a word. Any thread."""
        return (
            self.recovery.state is not OPEN
            or self.is_draining
            or self.quota.wanted_since != NEVER
            or not self.is_shared
            or len(self.early) > 0
        )

    def by_callers(self) -> tuple[int, int]:
        """Return how many requests callers put on the connections by themselves, and how many they got answered."""
        books = self.ledger
        if not isinstance(books, Ledger):
            return 0, 0
        members = _copy(lambda: books.members)
        return sum(one.driven for one in members), sum(one.completed for one in members)

    def count_out(self, connection: Lendable) -> None:
        """Count a connection that was closed, and keep what callers did over it."""
        self.closed += 1
        self.requests += connection.driven
        self.completed += connection.completed

    def _new_ledger(self) -> Books[Any, Dial, Exchange]:
        settings = self.settings
        if self.key.version == "2":
            return StreamLedger[Lendable, Dial, Exchange](settings.limit, settings.streams)
        return Ledger[Lendable, Dial, Exchange](settings.limit)

    def bury(self, crash: Ending) -> list[Exchange]:
        """Close and fail all that a dead manager left on connections; return those who waited, in order.

        Args:
            crash: the error for a request, by whether a byte of it was sent.
        """
        driven, completed = self.by_callers()
        self.requests += driven
        self.completed += completed
        books, self.ledger = self.ledger, self._new_ledger()
        self.closed = self.opened  # first, so that whoever sees one closed sees it counted
        waiting = books.empty_queue()
        lessees = books.lessees()
        while (connection := books.grab()) is not None:
            connection.kill(crash)
        for connection in books.carriers():
            connection.kill(crash)
        for connection in books.claimed():
            exchange = connection.exchange
            if connection.claimed and (exchange is None or unmoor(exchange.raft) is None):
                connection.revoke(crash)
                self.orphans[connection] = None
            else:
                connection.claimed = False
                connection.kill(crash)
        for lessee in lessees:
            if not lessee.done:  # the manager died before it had put it on the connection
                lessee.refused(crash(lessee.was_sent))
        for dial in list(books.dialing):
            dial.cancel()
        self.recovery.orphaned()
        return waiting

    def forsake(self, crash: Ending, *, is_taking_in: bool) -> None:
        """Fail all requests, and touch nothing else: the thread that owns the books ended or is stuck. Any thread.

        If the manager ``is_taking_in`` the demand, nobody knows how far it comes with the first of it.
        What a stuck thread holds it closes itself, should it ever go on; a descriptor closed under its feet might be
        another's by then.
        """
        books = self.ledger
        self.is_draining = True
        for connection in _copy(books.claimed):
            connection.revoke(crash)
        for connection in _copy(books.carriers):
            connection.forsake(crash)
        for at, lessee in enumerate(books.drain()):
            lessee.fail(crash(lessee.was_sent or (at == 0 and is_taking_in)))
        for lessee in [*_copy(books.lessees), *_copy(lambda: books.returned), *_copy(lambda: books.waiting)]:
            lessee.fail(crash(lessee.was_sent))

    def counts(self) -> dict[str, int]:
        """Return the numbers that errors carry."""
        books = self.ledger
        return {
            "limit": books.limit,
            "leased": books.busy,
            "idle": len(books.idle),
            "connecting": len(books.dialing),
            "waiting": books.queued + len(books.demand),
        }

    def snapshot(self) -> PoolStats:
        """Return the pool's figures. Any thread."""
        driven, completed = self.by_callers()
        return PoolStats(
            opened=self.opened, closed=self.closed, requests=self.requests + driven,
            completed=self.completed + completed,
            failed=self.failed, cancelled=self.cancelled, replays=self.replays,
            in_flight=self.ledger.lent,
            reconnects=self.recovery.reconnects, state=self.recovery.state.value, **self.counts(),
        )  # fmt: skip


T = TypeVar("T")


def _copy(items: Callable[[], Iterable[T]]) -> list[T]:
    """Copy what another thread may be changing, in the moment in which it does not."""
    while True:
        try:
            return list(items())
        except RuntimeError:
            continue
