"""What a connection is told when it is made, and whom it tells what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from turbopool.errors import TurboPoolError
from turbopool.transport.exchange import Exchange
from turbopool.transport.http1 import Limits
from turbopool.transport.sender import Spawn

Lent_contra = TypeVar("Lent_contra", contravariant=True)
"""The kind of connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """What all connections of a runtime share."""

    limits: Limits
    lifetime: float | None
    """Seconds a connection may live, jittered by -10 %; None is for ever, 0 is for one request."""
    idle_timeout: float | None
    """Seconds a connection may stand idle; None is for ever."""
    spawn: Spawn
    """Runs a caller's body iterator on a thread of its own."""


class Landlord(Protocol[Lent_contra]):
    """Whoever owns a connection and lends it: the manager."""

    def on_released(self, connection: Lent_contra, *, reusable: bool) -> None:
        """Take back a connection whose exchange ended."""
        ...

    @property
    def has_answered(self) -> bool:
        """Whether the server ever answered, over whichever connection."""
        ...

    def on_answered(self, connection: Lent_contra) -> None:
        """Learn that a streamed response has begun."""
        ...

    def on_broken(self, connection: Lent_contra, error: Exception) -> None:
        """Learn that the connection died before a byte of a response; it is released or returned next."""
        ...

    def on_lost(self, connection: Lent_contra, error: Exception | None) -> None:
        """Learn that an idle connection was closed by its peer, or broke."""
        ...

    def on_bug(self, error: BaseException) -> None:
        """Learn that code of ours raised what it should not."""
        ...

    def on_returned(self, connection: Lent_contra, lessee: Exchange, error: TurboPoolError) -> None:
        """Strike out a connection that died of ``error``, and queue its request anew: it may be sent again."""
        ...
