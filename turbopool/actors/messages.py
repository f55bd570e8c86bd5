"""Every message of the runtime, grouped by who is told it. Orders are imperatives, facts are participles.

Immutable, and only ever told: whoever wants an answer is in the message, as a lessee or as an event.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from turbopool.stats import PoolKey
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange
from turbopool.transport.interfaces import Channel, Dial
from turbopool.transport.landlord import Lendable

# -- told to a manager ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """Ask for a connection. Answered by ``granted`` or ``refused`` of the lessee, perhaps much later."""

    lessee: Exchange


@dataclass(frozen=True, slots=True)
class Joined:
    """Somebody joined the demand: take in all who did."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A caller's thread made a connection idle while somebody waits, or while the manager is to look at it."""


@dataclass(frozen=True, slots=True)
class BackUp:
    """See to the deadline of a request that a caller's thread drives: no timer of its connection is armed."""

    connection: ClaimableConnection
    lessee: Exchange


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Go on with a request that a caller's thread began on a connection it had claimed."""

    connection: ClaimableConnection
    lessee: Exchange


@dataclass(frozen=True, slots=True)
class Release:
    """Give a connection back. One that is not leased to ``lessee`` is left alone: a release counts once."""

    connection: Lendable
    lessee: Exchange
    reusable: bool


@dataclass(frozen=True, slots=True)
class Abandon:
    """The caller wants nothing any more: leave the queue, or give the connection up."""

    lessee: Exchange


@dataclass(frozen=True, slots=True)
class AbandonAll:
    """Cancel all requests of a handle; the supervisor sees to it that ``done`` is set afterwards.

    It goes round twice: the first time, some may be on their way from one version's manager to another's.
    """

    owner: object
    done: threading.Event
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class EvictIdle:
    """Close what has stood idle too long; told by the manager's own timer. Or all that is idle: files ran out."""

    everything: bool = False


@dataclass(frozen=True, slots=True)
class ExpireWaiters:
    """Refuse those who waited too long. Told by the manager's own timer."""


@dataclass(frozen=True, slots=True)
class EvictOne:
    """Close this connection if it is idle: another key needs its room."""

    connection: Lendable


@dataclass(frozen=True, slots=True)
class Established:
    """A dial succeeded."""

    dial: Dial
    channel: Channel


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take over requests that another version's manager could not carry, in order, with the connection if there is one.

    The server chose this version when that connection was established, or asked for it since.
    """

    lessees: tuple[Exchange, ...]
    channel: Channel | None = None


@dataclass(frozen=True, slots=True)
class EstablishFailed:
    """A dial failed."""

    dial: Dial
    error: Exception


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Make the next attempt to come back. Told by the manager's own timer."""


@dataclass(frozen=True, slots=True)
class RoomMade:
    """There is room for a connection again."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Open connections ahead of requests, up to this many."""

    key: PoolKey
    connections: int
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new work, finish what is there, then stop."""

    queued: Literal["finish", "fail"]


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop now: what is left is failed, because the client is disposed."""


ManagerMessage = (
    Lease | Joined | Shelved | BackUp | TakeOver | Release | Abandon | AbandonAll | EvictIdle
    | ExpireWaiters | EvictOne | Established | Adopt | EstablishFailed | Reconnect | RoomMade | WarmUp | Drain | Halt
)  # fmt: skip

# -- told to the supervisor ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Set ``done``: all that was told before has been handled, because the dispatcher keeps the order of tells."""

    done: threading.Event


@dataclass(frozen=True, slots=True)
class ManagerIdled:
    """A manager has had nothing to do for a while and may retire."""

    key: PoolKey


@dataclass(frozen=True, slots=True)
class ManagerDrained:
    """A manager has nothing left and has stopped."""

    key: PoolKey


@dataclass(frozen=True, slots=True)
class ManagerCrashed:
    """A manager has died of a bug."""

    key: PoolKey
    error: BaseException


@dataclass(frozen=True, slots=True)
class RoomWanted:
    """A key has waiters and finds no room within the bounds over all keys."""

    key: PoolKey


@dataclass(frozen=True, slots=True)
class RoomChanged:
    """Something closed or went idle while a key wants room."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A server does not speak a key's version: its requests go on over another, with the connection if there is one."""

    key: PoolKey
    version: str
    lessees: tuple[Exchange, ...]
    channel: Channel | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A server speaks a key's version after all."""

    key: PoolKey


@dataclass(frozen=True, slots=True)
class Reclaim:
    """No descriptor is left for a dial: have all idle connections closed, then call ``go_on``."""

    go_on: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """All that was idle has been closed, because the dispatcher keeps the order of tells."""

    go_on: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Dispose:
    """Stop everything: drain until ``deadline``, then halt, then set ``done``."""

    queued: Literal["finish", "fail"]
    deadline: float
    done: threading.Event


SupervisorMessage = (
    Lease | Abandon | AbandonAll | Acknowledge | WarmUp | ManagerIdled | ManagerDrained | ManagerCrashed | RoomWanted
    | RoomChanged | Lowered | Confirmed | Reclaim | Reclaimed | Dispose
)  # fmt: skip
