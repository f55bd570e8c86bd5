"""Who holds which connection of one key, who waits for the next one, and whether another may be dialed. Pure.

:class:`Books` is what all ledgers have in common: the queue and the dials. :class:`Ledger` lends a whole connection at
a time, as HTTP/1 needs it; :class:`turbopool.actors.stream_ledger.StreamLedger` lends streams.

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


class Books(Generic[C, D, W]):
    """The queue and the dials of one key.

    Args:
        limit: the most connections at once, those being dialed included.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.idle: dict[C, None] = {}
        """In the order they went idle: the newest is taken from the end, the oldest expires at the front."""
        self.dialing: dict[D, W | None] = {}
        """With whoever caused the dial."""
        self.waiting: Line[W] = Line()
        self.returned: Line[W] = Line()
        """Those to be sent again, ahead of all others. Who ``needs_fresh`` takes only a connection that carried
        nothing before: a restart kills all old ones."""
        self._held = False

    # -- each kind of ledger has its own ---------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """Connections that carry something."""
        raise NotImplementedError

    @property
    def lent(self) -> int:
        """Lessees that have what they asked for."""
        raise NotImplementedError

    @property
    def open(self) -> int:
        """Connections that count against the limit, those being dialed apart."""
        raise NotImplementedError

    @property
    def opening(self) -> int:
        """How many who wait are not really queued: the connections that are being dialed, or may be, are for them."""
        raise NotImplementedError

    @property
    def wants_dial(self) -> bool:
        """Rule 3: whether another connection should be dialed now."""
        raise NotImplementedError

    def carriers(self) -> list[C]:
        """Return the connections that carry something."""
        raise NotImplementedError

    def lessees(self) -> list[W]:
        """Return those that have what they asked for."""
        raise NotImplementedError

    def has_lent(self, connection: C, lessee: W) -> bool:
        """Whether the lessee is on this connection."""
        raise NotImplementedError

    def release(self, connection: C, lessee: W) -> W | None:
        """Take back what was lent; return whoever has it now, or None."""
        raise NotImplementedError

    def discard(self, connection: C) -> None:
        """Strike out a connection that is gone, wherever it is."""
        raise NotImplementedError

    def settle(self, dial: D, connection: C) -> W | None:
        """A dial succeeded."""
        raise NotImplementedError

    # -- asking ----------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Those that exist or are being dialed."""
        return len(self.idle) + self.busy + len(self.dialing)

    @property
    def is_live(self) -> bool:
        """Whether any connection is open."""
        return bool(self.idle) or self.busy > 0

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.open + len(self.dialing) >= self.limit

    @property
    def queued(self) -> int:
        """Those that wait."""
        return len(self.waiting) + len(self.returned)

    def holds(self, lessee: W) -> bool:
        """Whether it waits or has a connection; in proportion to their number, so for rare use."""
        return lessee in self.waiting or lessee in self.returned or lessee in self.lessees()

    # -- waiting ---------------------------------------------------------------------------------------------

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

    def next_expiry(self) -> float:
        """When the next waiter's time is up; NEVER if nobody waits or none has a deadline."""
        return min(self.waiting.next_expiry(), self.returned.next_expiry())

    def expire(self, now: float) -> list[W]:
        """Strike out and return those whose time is up."""
        return [*self.returned.expire(now), *self.waiting.expire(now)]

    def empty_queue(self) -> list[W]:
        """Strike out and return all that wait, in order."""
        return [*self.returned.disperse(), *self.waiting.disperse()]

    def _serve_old(self) -> W | None:
        """Strike out and return the first who waits and does not need a fresh connection."""
        for lessee in self.returned:
            if not lessee.needs_fresh and not lessee.done:
                self.returned.leave(lessee)
                return lessee
        return self.waiting.serve()

    def _serve_fresh(self) -> W | None:
        """Strike out and return the first who waits."""
        return self.returned.serve() or self.waiting.serve()

    # -- dialing ---------------------------------------------------------------------------------------------

    def dial(self, dial: D, culprit: W | None = None) -> None:
        """Note a dial, and the lessee whose arrival caused it, if one did."""
        self.dialing[dial] = culprit

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


class Ledger(Books[C, D, W]):
    """The books of a key whose connections are lent whole: one lessee a connection."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.leased: dict[C, W] = {}

    @property
    def busy(self) -> int:
        """Connections that are lent."""
        return len(self.leased)

    @property
    def lent(self) -> int:
        """Lessees that have a connection."""
        return len(self.leased)

    @property
    def open(self) -> int:
        """Connections, those being dialed apart."""
        return len(self.idle) + len(self.leased)

    @property
    def opening(self) -> int:
        """How many who wait are not really queued."""
        return self.limit - len(self.idle) - len(self.leased)

    @property
    def wants_dial(self) -> bool:
        """Rule 3: whether another connection should be dialed now."""
        return (
            not self._held
            and len(self.waiting) + len(self.returned) > len(self.dialing)
            and len(self.idle) + len(self.leased) + len(self.dialing) < self.limit
        )

    def carriers(self) -> list[C]:
        """Return the connections that are lent."""
        return list(self.leased)

    def lessees(self) -> list[W]:
        """Return those that have a connection."""
        return list(self.leased.values())

    def has_lent(self, connection: C, lessee: W) -> bool:
        """Whether the connection is lent to this lessee."""
        return self.leased.get(connection) is lessee

    def lease(self, lessee: W) -> C | None:
        """Lend the newest idle connection, or queue the lessee and return None."""
        if self.idle and not self.waiting:
            connection, _ = self.idle.popitem()
            self.leased[connection] = lessee
            return connection
        self.enqueue(lessee)
        return None

    def release(self, connection: C, lessee: W | None = None) -> W | None:
        """Hand the connection to the first who waits and return it, or make it idle and return None.

        There is but one lessee: it need not be named.
        """
        del lessee
        del self.leased[connection]
        return self._lend(connection, self._serve_old())

    def discard(self, connection: C) -> None:
        """Strike out a connection that is gone, wherever it is."""
        if self.idle.pop(connection, self) is self:
            self.leased.pop(connection, None)
        self._held = False

    def settle(self, dial: D, connection: C) -> W | None:
        """A dial succeeded: hand the connection to the first who waits and return it, or make it idle."""
        del self.dialing[dial]
        return self.adopt(connection)

    def adopt(self, connection: C) -> W | None:
        """Hand a connection that carried nothing to the first who waits and return it, or make it idle."""
        self._held = False
        return self._lend(connection, self._serve_fresh())

    def _lend(self, connection: C, lessee: W | None) -> W | None:
        if lessee is None:
            self.idle[connection] = None
        else:
            self.leased[connection] = lessee
        return lessee
