"""What exists of one key whether or not its manager lives: its settings, its books, its counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pykka

from turbopool.actors.ledger import Ledger
from turbopool.stats import PoolKey, PoolStats
from turbopool.transport.connection import ConnectionSettings, Http1Connection
from turbopool.transport.exchange import Exchange
from turbopool.transport.interfaces import Dial

RETIRE_AFTER = 60.0
"""Seconds without connections and requests after which a manager retires, so that thousands of hosts stay bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """What a manager is told of the client's options."""

    limit: int
    max_pending: int
    connect_timeout: float | None
    connection: ConnectionSettings
    retire_after: float = RETIRE_AFTER


@dataclass(slots=True, kw_only=True)
class Pool:
    """What exists of a key outside its manager, so that it outlives a crash, and so that callers can read it."""

    key: PoolKey
    settings: PoolSettings
    ledger: Ledger[Http1Connection, Dial, Exchange]
    ref: pykka.ActorRef[Any] = field(init=False)
    opened: int = 0
    closed: int = 0
    requests: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

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
            failed=self.failed, cancelled=self.cancelled, **self.counts(),
        )  # fmt: skip
