"""What a connection is told when it is made, what it offers to be lent, and whom it tells what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from typing import Protocol, TypeVar

from turbopool.clock import NEVER
from turbopool.config import Http2Options
from turbopool.errors import TurboPoolError
from turbopool.transport.exchange import Exchange
from turbopool.transport.head import Limits
from turbopool.transport.sender import Spawn

LIFETIME_JITTER = 0.1

Lent_contra = TypeVar("Lent_contra", contravariant=True)
"""The kind of connection."""

Ending = Callable[[bool], TurboPoolError]
"""The error of a request that is ended from outside, by whether a byte of it was sent."""


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
    http2: Http2Options = field(default_factory=Http2Options)


def expiry(lifetime: float | None, now: float) -> float:
    """Return when a connection that is opened now is to be used no more."""
    return NEVER if lifetime is None else now + lifetime * (1.0 - LIFETIME_JITTER * random())  # noqa: S311


class Lendable(Protocol):
    """A connection, as far as whoever lends it goes."""

    requests: int
    driven: int
    completed: int
    expires_at: float
    idle_since: float
    idle_until: float

    @property
    def is_closed(self) -> bool:
        """Whether the descriptor is gone."""
        ...

    @property
    def has_answered(self) -> bool:
        """Whether a response has begun: of the present or last exchange, or of any on a shared connection."""
        ...

    def is_usable(self, now: float, *, careful: bool) -> bool:
        """Whether it may be lent now; it is looked at closely for a ``careful`` lessee, who cannot be sent again."""
        ...

    def run(self, exchange: Exchange) -> None:
        """Send a request and deliver its response."""
        ...

    def is_quiet(self) -> bool:
        """Whether its peer has not begun to end it."""
        ...

    def rest(self, now: float) -> None:
        """Begin to stand idle."""
        ...

    def stay(self, now: float) -> bool:
        """Stand idle beyond the idle timeout; return whether the server lets it."""
        ...

    def drain(self) -> None:
        """Learn that the owner stops."""
        ...

    def kill(self, ending: Ending) -> None:
        """End all it carries with an error, and close, without telling the landlord."""
        ...

    def forsake(self, ending: Ending) -> None:
        """End the readers of its streams, and touch nothing else. Any thread."""
        ...

    def close(self) -> None:
        """Close the descriptor. Idempotent; does not tell the landlord."""
        ...

    def __hash__(self) -> int: ...


class Landlord(Protocol[Lent_contra]):
    """Whoever owns a connection and lends it: the manager."""

    def on_released(self, connection: Lent_contra, lessee: Exchange, *, reusable: bool) -> None:
        """Take back what was lent for an exchange that ended."""
        ...

    @property
    def has_answered(self) -> bool:
        """Whether the server ever answered, over whichever connection."""
        ...

    def on_answered(self, connection: Lent_contra) -> None:
        """Learn that a response has begun whose end may be far away."""
        ...

    def on_broken(self, connection: Lent_contra, error: Exception) -> None:
        """Learn that the connection died before a byte of a response; it is released or returned next."""
        ...

    def on_lost(self, connection: Lent_contra, error: Exception | None) -> None:
        """Learn that a connection that carries nothing was closed by its peer, or broke."""
        ...

    def on_stirred(self, connection: Lent_contra) -> bool:
        """Learn that an idle connection has something to read; return whether it is claimed for that."""
        ...

    def on_calmed(self, connection: Lent_contra) -> None:
        """Take back what was claimed by :meth:`on_stirred`: it was nothing."""
        ...

    def on_bug(self, error: BaseException) -> None:
        """Learn that code of ours raised what it should not."""
        ...

    def on_returned(self, connection: Lent_contra, lessee: Exchange, error: TurboPoolError) -> None:
        """Queue a request anew, which ended with ``error`` and may be sent again."""
        ...


class SharedLandlord(Landlord[Lent_contra], Protocol[Lent_contra]):
    """Whoever owns a connection that carries many requests at once."""

    def on_room(self, connection: Lent_contra) -> None:
        """Learn that the connection may take more, or less, than before."""
        ...

    def on_retired(self, connection: Lent_contra) -> None:
        """Learn that the connection takes no more requests; those it carries go on."""
        ...

    def on_lowered(self, connection: Lent_contra, lessees: list[Exchange], error: TurboPoolError) -> None:
        """Learn that the server wants these requests over HTTP/1.1; they have been taken off the connection."""
        ...
