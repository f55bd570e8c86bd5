"""Bounds over several keys: connections of one host over all its versions, and of a whole runtime. Pure.

Shared by the managers of one runtime, which run on one thread. A key that finds no room waits here, first come first
served; room is made by closing the connection that has been idle longest, be it of another key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from turbopool.clock import NEVER
from turbopool.stats import PoolKey


class Host(NamedTuple):
    """What ``max_conns_per_host`` counts together."""

    scheme: str
    host: str
    port: int


def host_of(key: PoolKey) -> Host:
    """Return the host of a key: its version and TLS configuration do not matter."""
    return Host(key.scheme, key.host, key.port)


class Quota:
    """Counts connections, those being dialed included.

    Args:
        per_host: the most of one host, or None.
        total: the most of the runtime, or None.

    Attributes:
        wanted_since: since when the first key in line wants room; NEVER if none does.
        is_reported: whether the supervisor has been told of a change and not looked yet: one message will do.
    """

    def __init__(self, per_host: int | None, total: int | None) -> None:
        self.is_bounded = bool(per_host or total)
        self._per_host = per_host or None
        self._total = total or None
        self._taken: dict[Host, int] = {}
        self._all = 0
        self._by_key: dict[PoolKey, int] = {}
        self._wanting: OrderedDict[PoolKey, float] = OrderedDict()
        self._idle: OrderedDict[Hashable, PoolKey] = OrderedDict()
        self.wanted_since = NEVER
        self.is_reported = False

    def has_room(self, key: PoolKey) -> bool:
        """Whether a connection of this key may be opened."""
        if self._total is not None and self._all >= self._total:
            return False
        return self._per_host is None or self._taken.get(host_of(key), 0) < self._per_host

    def take(self, key: PoolKey) -> bool:
        """Count a connection, if there is room and no other key stands before this one in line for it."""
        if not self.has_room(key) or self._is_behind(key):
            return False
        self.forget(key)
        host = host_of(key)
        self._taken[host] = self._taken.get(host, 0) + 1
        self._by_key[key] = self._by_key.get(key, 0) + 1
        self._all += 1
        return True

    def give(self, key: PoolKey, count: int = 1) -> None:
        """Count connections that are gone."""
        self._all -= count
        for counts, name in ((self._taken, host_of(key)), (self._by_key, key)):
            counts[name] -= count  # type: ignore[index]  # each dict with its own kind of name
            if not counts[name]:  # type: ignore[index]
                del counts[name]  # type: ignore[arg-type]

    def reset(self, key: PoolKey) -> None:
        """Count none of a key any more: its manager crashed, and all its connections were closed."""
        if key in self._by_key:
            self.give(key, self._by_key[key])
        self.forget(key)

    def want(self, key: PoolKey, now: float) -> None:
        """Wait for room, last in line unless in line already."""
        self._wanting.setdefault(key, now)
        self._refresh()

    def wanted_by_others(self, key: PoolKey) -> float:
        """Since when the first other key in line wants the room of one of this key's connections; NEVER if none."""
        for other, since in self._wanting.items():
            if other != key and not self.has_room(other) and self._has_host_room(other, host_of(key)):
                return since
        return NEVER

    def served(self) -> list[PoolKey]:
        """Return the keys in line for which there is room now; each stays in line until it takes it."""
        served: list[PoolKey] = []
        for key in self._wanting:
            if self._total is not None and self._all + len(served) >= self._total:
                break
            if self.has_room(key):
                served.append(key)
        return served

    def forget(self, key: PoolKey) -> None:
        """Leave the line."""
        if self._wanting.pop(key, None) is not None:
            self._refresh()

    def rested(self, connection: Hashable, key: PoolKey) -> None:
        """Note that a connection went idle."""
        if self.is_bounded:
            self._idle[connection] = key

    def roused(self, connection: Hashable) -> None:
        """Note that a connection is idle no more."""
        if self.is_bounded:
            self._idle.pop(connection, None)

    def victim(self) -> tuple[Hashable, PoolKey] | None:
        """Return the connection whose closing makes room for the first in line that it can help, and its key."""
        for wanting in self._wanting:
            for idle, key in self._idle.items():
                if self._has_host_room(wanting, host_of(key)):
                    return idle, key
        return None

    def _has_host_room(self, key: PoolKey, closing: Host) -> bool:
        """Whether its host's own bound allows another connection of this key, once one of ``closing`` is closed."""
        host = host_of(key)
        return self._per_host is None or self._taken.get(host, 0) - (host == closing) < self._per_host

    def _is_behind(self, key: PoolKey) -> bool:
        for other in self._wanting:
            if other == key:
                return False
            if self.has_room(other) and (self._total is not None or host_of(other) == host_of(key)):
                return True
        return False

    def _refresh(self) -> None:
        self.wanted_since = next(iter(self._wanting.values()), NEVER)
