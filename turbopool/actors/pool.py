"""What exists of one key whether or not its manager lives: its settings, its books, its counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pykka

from turbopool.actors.ledger import Ledger
from turbopool.actors.recovery import Recovery
from turbopool.config import ReconnectOptions
from turbopool.errors import TurboPoolError
from turbopool.stats import PoolKey, PoolStats
from turbopool.transport.connection import Http1Connection
from turbopool.transport.exchange import Exchange
from turbopool.transport.interfaces import Dial
from turbopool.transport.landlord import ConnectionSettings

RETIRE_AFTER = 60.0
"""Seconds without connections and requests after which a manager retires, so that thousands of hosts stay bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """What a manager is told of the client's options."""

    limit: int
    max_pending: int
    connect_timeout: float | None
    connection: ConnectionSettings
    reconnect: ReconnectOptions = field(default_factory=ReconnectOptions)
    min_idle: int = 0
    retire_after: float = RETIRE_AFTER


@dataclass(slots=True, kw_only=True)
class Pool:
    """What exists of a key outside its manager, so that it outlives a crash, and so that callers can read it.

    ``crash`` is what its manager died of, while it may not be replaced yet.
    """

    key: PoolKey
    settings: PoolSettings
    ledger: Ledger[Http1Connection, Dial, Exchange]
    ref: pykka.ActorRef[Any] = field(init=False)
    recovery: Recovery = field(init=False)
    crash: BaseException | None = None
    opened: int = 0
    closed: int = 0
    requests: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    replays: int = 0

    def __post_init__(self) -> None:
        self.recovery = Recovery(self.settings.reconnect)

    def bury(self, crash: Callable[[bool], TurboPoolError]) -> list[Exchange]:
        """Close and fail all that a dead manager left on connections; return those who waited, in order.

        Args:
            crash: the error for a request, by whether a byte of it was sent.
        """
        books, self.ledger = self.ledger, Ledger(self.settings.limit)
        waiting = books.empty_queue()
        for connection, lessee in list(books.leased.items()):
            error = crash(lessee.was_sent)
            connection.kill(error)
            if not lessee.done:  # the manager died before it had put it on the connection
                lessee.refused(error)
        for connection in list(books.idle):
            connection.close()
        for dial in list(books.dialing):
            dial.cancel()
        self.recovery.orphaned()
        self.closed = self.opened
        return waiting

    def forsake(self, crash: Callable[[bool], TurboPoolError]) -> None:
        """Fail all requests, and touch nothing else: the thread that owns the books ended or is stuck. Any thread.

        What a stuck thread holds it closes itself, should it ever go on; a descriptor closed under its feet might be
        another's by then.
        """
        books = self.ledger
        for connection, lessee in _copy(books.leased.items()):
            error = crash(lessee.was_sent)
            connection.forsake(error)
            lessee.fail(error)
        for lessee in [*_copy(books.returned), *_copy(books.waiting)]:
            lessee.fail(crash(lessee.was_sent))

    def counts(self) -> dict[str, int]:
        """Return the numbers that errors carry."""
        books = self.ledger
        return {
            "limit": books.limit,
            "leased": len(books.leased),
            "idle": len(books.idle),
            "connecting": len(books.dialing),
            "waiting": books.queued,
        }

    def snapshot(self) -> PoolStats:
        """Return the pool's figures. Any thread."""
        return PoolStats(
            opened=self.opened, closed=self.closed, requests=self.requests, completed=self.completed,
            failed=self.failed, cancelled=self.cancelled, replays=self.replays,
            reconnects=self.recovery.reconnects, state=self.recovery.state.value, **self.counts(),
        )  # fmt: skip


T = TypeVar("T")


def _copy(items: Iterable[T]) -> list[T]:
    """Copy what another thread may be changing, in the moment in which it does not."""
    while True:
        try:
            return list(items)
        except RuntimeError:
            continue
