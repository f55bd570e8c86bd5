"""One key's dealings with the bounds over all keys: taking room, giving it back, standing in line for it.

Thread: the dispatcher's. The counting is the :class:`Quota`'s; the supervisor tells the keys in line when there is
room, and is told here, once for all that changed.
"""

from __future__ import annotations

from collections.abc import Callable

from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.messages import RoomChanged, RoomWanted
from turbopool.actors.pool import Pool
from turbopool.actors.quota import Quota
from turbopool.clock import NEVER
from turbopool.transport.exchange import Exchange
from turbopool.transport.landlord import Lendable


class Room:
    """What a manager knows of the quota.

    Args:
        quota: the bounds over all keys.
        pool: whose room it is.
        dispatcher: tells the time.
        tell: tells the supervisor.
    """

    __slots__ = ("_dispatcher", "_key", "_pool", "_quota", "_tell")

    def __init__(
        self, quota: Quota, pool: Pool, dispatcher: Dispatcher, tell: Callable[[RoomWanted | RoomChanged], None]
    ) -> None:
        self._quota = quota
        self._pool = pool
        self._key = pool.key
        self._dispatcher = dispatcher
        self._tell = tell

    def take(self) -> bool:
        """Count a connection, if there is room."""
        return self._quota.take(self._key)

    def wait(self, now: float) -> None:
        """Stand in line for room."""
        self._quota.want(self._key, now)
        self._report(RoomWanted(self._key))

    def give(self) -> None:
        """Count a connection that is gone."""
        self._quota.give(self._key)
        self.changed()

    def rested(self, connection: Lendable) -> None:
        """Note that a connection went idle: it can be closed to make room for another key."""
        self._quota.rested(connection, self._key)
        self.changed()

    def roused(self, connection: Lendable) -> None:
        """Note that a connection is idle no more."""
        self._quota.roused(connection)

    def is_owed_by(self, first: Exchange | None) -> bool:
        """Whether another key waits for room longer than the first in this key's queue waits for a connection."""
        if self._quota.wanted_since == NEVER or first is None:
            return False
        return first.asked_at > self._quota.wanted_by_others(self._key)

    def changed(self) -> None:
        """Tell those in line that something closed or went idle, unless it was for this key alone."""
        if self._quota.wanted_since == NEVER:
            return
        if not (self._pool.ledger.wants_dial and self._pool.recovery.may_dial(self._dispatcher.now)):
            self._quota.forget(self._key)
        if self._quota.wanted_since != NEVER:
            self._report(RoomChanged())

    def _report(self, change: RoomWanted | RoomChanged) -> None:
        """Have the supervisor look at who wants room: once for all that changed, or the messages would multiply."""
        if not self._quota.is_reported:
            self._quota.is_reported = True
            self._tell(change)
