"""Snapshots of what a runtime's pools hold. Plain data, taken without stopping anything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class PoolKey(NamedTuple):
    """What requests must have in common to share connections: equal keys share a pool, others never do.

    A tuple, because one is looked up for every request: hashing and comparing run in C.
    """

    scheme: str
    host: str
    port: int
    version: str
    identity: Hashable = None
    """The TLS configuration: a client that verifies never meets a connection of one that does not."""

    @classmethod
    def of(
        cls, scheme: str, host: str, port: int | None = None, version: str = "1.1", identity: Hashable = None
    ) -> PoolKey:
        """Build a key from what a person writes: case does not matter, the port may be left to the scheme."""
        scheme = scheme.lower()
        return cls(scheme, host.lower().rstrip("."), port or _DEFAULT_PORTS[scheme], version, identity)

    @property
    def origin(self) -> str:
        """``scheme://host:port``, as error messages name it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """One key's pool at one moment. Counters are since the pool's birth."""

    limit: int
    """The most connections the key may have."""
    leased: int
    """Connections that carry a request now."""
    in_flight: int
    """Requests on connections now; over HTTP/2 one connection carries many."""
    idle: int
    """Connections that wait for a request."""
    connecting: int
    """Connections being established."""
    waiting: int
    """Requests in the queue."""
    opened: int
    """Connections ever established."""
    closed: int
    """Connections closed since, by either side."""
    requests: int
    """Requests handed to a connection."""
    completed: int
    """Requests answered with a response."""
    failed: int
    """Requests ended by an error."""
    cancelled: int
    """Requests taken back by their caller."""
    replays: int
    """Requests sent again, because their connection died and it was safe."""
    reconnects: int
    """Dials made to come back after a drop."""
    state: str
    """``cold``: never answered; ``open``: answered last; ``reconnecting``: requests wait until the server is back;
    ``failing``: the attempts have ended, requests fail at once while the server is looked for."""


@dataclass(frozen=True, slots=True)
class RuntimeStats:
    """All pools of one runtime at one moment."""

    pools: Mapping[PoolKey, PoolStats] = field(default_factory=dict)
    pools_are_ours: bool = True
    """False with ``http_client=``: that client pools for itself, and nothing here speaks of it."""

    def _sum(self, name: str) -> int:
        return sum(getattr(pool, name) for pool in self.pools.values())

    @property
    def leased(self) -> int:
        """Connections that carry a request now."""
        return self._sum("leased")

    @property
    def in_flight(self) -> int:
        """Requests on connections now."""
        return self._sum("in_flight")

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return self._sum("idle")

    @property
    def connecting(self) -> int:
        """Connections being established."""
        return self._sum("connecting")

    @property
    def waiting(self) -> int:
        """Requests in the queues."""
        return self._sum("waiting")

    @property
    def opened(self) -> int:
        """Connections ever established, by the pools that still exist."""
        return self._sum("opened")

    @property
    def closed(self) -> int:
        """Connections closed since, by the pools that still exist."""
        return self._sum("closed")

    @property
    def requests(self) -> int:
        """Requests handed to a connection, by the pools that still exist."""
        return self._sum("requests")

    @property
    def replays(self) -> int:
        """Requests sent again, by the pools that still exist."""
        return self._sum("replays")

    @property
    def reconnects(self) -> int:
        """Dials made to come back after a drop, by the pools that still exist."""
        return self._sum("reconnects")
