"""Who holds which connection of one key, who waits for the next one, and whether another may be dialed. Pure.

1. Reuse the connection that went idle *last*: the server is least likely to have closed it, and those below it are
   left to expire.
2. Otherwise wait, first come first served; whoever cancels or expires leaves at once, wherever it stands.
3. Dial while more wait than are being dialed for and the limit allows. Whichever comes first, a release or a dial,
   serves whoever waits first; a dial nobody waits for any more is parked idle.
4. A failed dial fails the one that caused it, and if it was the last one, those who need a fresh connection; it
   fails everybody only if the key has nothing else, neither a connection nor another dial. (A key that answered
   before reconnects instead, and its queue waits: :mod:`turbopool.actors.recovery`.)

A connection is in exactly one of ``idle`` and ``leased``, a dial in ``dialing``, a lessee that waits in ``waiting``
or ``returned``. Every operation is O(1), or O(log n) in the number that wait for the deadlines' sake.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from turbopool.actors.line import Line, W

C = TypeVar("C")
"""A connection."""
D = TypeVar("D")
"""A dial."""


class Ledger(Generic[C, D, W]):
    """The books of one key.

    Args:
        limit: the most connections at once, those being dialed included.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.idle: dict[C, None] = {}
        """In the order they went idle: the newest is taken from the end, the oldest expires at the front."""
        self.leased: dict[C, W] = {}
        self.dialing: dict[D, W | None] = {}
        """With whoever caused the dial."""
        self.waiting: Line[W] = Line()
        self.returned: Line[W] = Line()
        """Those to be sent again, ahead of all others. Who ``needs_fresh`` takes only a connection that carried
        nothing before: a restart kills all old ones."""
        self._held = False

    # -- asking ----------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Those that are open or being dialed."""
        return len(self.idle) + len(self.leased) + len(self.dialing)

    @property
    def is_live(self) -> bool:
        """Whether any connection is open."""
        return bool(self.idle or self.leased)

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.connections >= self.limit

    @property
    def queued(self) -> int:
        """Those that wait."""
        return len(self.waiting) + len(self.returned)

    def holds(self, lessee: W) -> bool:
        """Whether it waits or has a connection; in proportion to their number, so for rare use."""
        return lessee in self.waiting or lessee in self.returned or lessee in self.leased.values()

    @property
    def opening(self) -> int:
        """How many who wait are not really queued: the connections that are being dialed, or may be, are for them."""
        return self.limit - len(self.idle) - len(self.leased)

    @property
    def wants_dial(self) -> bool:
        """Rule 3: whether another connection should be dialed now."""
        return (
            not self._held
            and len(self.waiting) + len(self.returned) > len(self.dialing)
            and len(self.idle) + len(self.leased) + len(self.dialing) < self.limit
        )

    # -- lease and release -----------------------------------------------------------------------------------

    def lease(self, lessee: W) -> C | None:
        """Lend the newest idle connection, or queue the lessee and return None."""
        if self.idle and not self.waiting:
            connection, _ = self.idle.popitem()
            self.leased[connection] = lessee
            return connection
        self.enqueue(lessee)
        return None

    def release(self, connection: C) -> W | None:
        """Hand the connection to the first who waits and return it, or make it idle and return None."""
        del self.leased[connection]
        for lessee in self.returned:
            if not lessee.needs_fresh and not lessee.done:
                self.returned.leave(lessee)
                return self._lend(connection, lessee)
        return self._lend(connection, self.waiting.serve())

    def enqueue(self, lessee: W) -> None:
        """Wait, last in line."""
        self.waiting.join(lessee)
        self._held = False

    def take_back(self, lessee: W) -> None:
        """Wait again, ahead of those that were never sent."""
        self.returned.join(lessee)
        self._held = False

    def withdraw(self, lessee: W) -> bool:
        """Leave the queue; return whether the lessee stood in it."""
        return self.waiting.leave(lessee) or self.returned.leave(lessee)

    def discard(self, connection: C) -> None:
        """Strike out a connection that is gone, wherever it is."""
        if self.idle.pop(connection, self) is self:
            self.leased.pop(connection, None)
        self._held = False

    # -- dialing ---------------------------------------------------------------------------------------------

    def dial(self, dial: D, culprit: W | None = None) -> None:
        """Note a dial, and the lessee whose arrival caused it, if one did."""
        self.dialing[dial] = culprit

    def settle(self, dial: D, connection: C) -> W | None:
        """A dial succeeded: hand the connection to the first who waits and return it, or make it idle."""
        del self.dialing[dial]
        self._held = False
        return self._serve(connection)

    def call_off(self, dial: D) -> bool:
        """A dial ended, and those who wait go on waiting; return whether it was under way."""
        self._held = False  # when the next one follows is another's to say
        return self.dialing.pop(dial, self) is not self

    def fail(self, dial: D) -> list[W]:
        """A dial failed: return those that fail with it (rule 4), struck from the queue."""
        culprit = self.dialing.pop(dial)
        if self.connections:
            self._held = True  # no hot loop: the next dial waits for another reason
            is_queued = culprit in self.waiting or culprit in self.returned
            failed = [culprit] if culprit is not None and is_queued else []
            if not self.dialing:  # an old connection is of no use to those who need a fresh one
                failed += [lessee for lessee in self.returned if lessee.needs_fresh and lessee is not culprit]
        else:
            failed = [*self.returned, *self.waiting]
        for lessee in failed:
            self.withdraw(lessee)
        return [lessee for lessee in failed if not lessee.done]

    # -- deadlines -------------------------------------------------------------------------------------------

    def next_expiry(self) -> float:
        """When the next waiter's time is up; NEVER if nobody waits or none has a deadline."""
        return min(self.waiting.next_expiry(), self.returned.next_expiry())

    def expire(self, now: float) -> list[W]:
        """Strike out and return those whose time is up."""
        return [*self.returned.expire(now), *self.waiting.expire(now)]

    def empty_queue(self) -> list[W]:
        """Strike out and return all that wait, in order."""
        return [*self.returned.disperse(), *self.waiting.disperse()]

    def _serve(self, connection: C) -> W | None:
        return self._lend(connection, self.returned.serve() or self.waiting.serve())

    def _lend(self, connection: C, lessee: W | None) -> W | None:
        if lessee is None:
            self.idle[connection] = None
        else:
            self.leased[connection] = lessee
        return lessee
