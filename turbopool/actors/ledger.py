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

A connection is in exactly one of ``idle`` and ``leased``, or else a caller's thread has claimed it; a dial in
``dialing``, a lessee that waits in ``demand``, ``waiting`` or ``returned``. Every operation is O(1), or O(log n) in the
number that wait for the deadlines' sake.

Two parts are shared with callers' threads, without a lock: each step that is marked so below is one operation of the
interpreter. The *shelf* is ``idle``: to take a connection out of it is to claim it, and nobody touches one without
having claimed it, the dispatcher included. ``demand`` is where those stand who found nothing there.

- Who must wait joins the demand first, then tells the manager, which takes the demand in and looks at the shelf again.
- Callers take from the shelf only if nobody waits.
- Who puts a connection back looks afterwards whether somebody waits, and tells the manager if so.

So of a caller who joins and another who puts back, one sees the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
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
        self.demand: deque[W] = deque()
        """Those whom the manager has not taken in yet."""
        self.is_told = False
        """Whether a message is under way to the manager that somebody joined the demand."""
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
        """Return the connections that carry something, those that callers have claimed apart."""
        raise NotImplementedError

    def claimed(self) -> list[C]:
        """Return the connections that callers' threads have, or had a moment ago."""
        return []

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
        arrived = [lessee for lessee in self.drain() if not lessee.done]
        return [*self.returned.disperse(), *self.waiting.disperse(), *arrived]

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits. Any thread."""
        return bool(self.demand or self.waiting or self.returned)

    def join(self, lessee: W) -> bool:
        """Join the demand; return whether the manager must be told. Any thread."""
        self.demand.append(lessee)
        if self.is_told:
            return False
        self.is_told = True
        return True

    def hear(self) -> int:
        """Return how many have joined the demand; of those who come later the manager is told again. Its alone."""
        self.is_told = False
        return len(self.demand)

    def arrivals(self, most: int) -> Iterator[W]:
        """Yield those who joined the demand first. The manager's alone.

        Each is struck out only when the next is asked for: meanwhile it stands where callers see that somebody waits.
        """
        for _ in range(most):
            yield self.demand[0]
            self.demand.popleft()

    def drain(self) -> list[W]:
        """Strike out and return those who joined the demand. Any thread: nobody is returned twice."""
        self.is_told = False
        drained: list[W] = []
        with suppress(IndexError):
            while True:
                drained.append(self.demand.popleft())
        return drained

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

    # -- the shelf -------------------------------------------------------------------------------------------

    def grab(self) -> C | None:
        """Claim the newest idle connection. Any thread."""
        try:
            return self.idle.popitem()[0]
        except KeyError:
            return None

    def take(self, connection: C) -> bool:
        """Claim this very connection; return False if it is not idle. Any thread."""
        return self.idle.pop(connection, self) is not self

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
        self.members: dict[C, None] = {}
        """All that are open; the dispatcher's alone, so that what callers claim and put back changes no count."""

    @property
    def busy(self) -> int:
        """Connections that are lent or claimed."""
        return len(self.members) - len(self.idle)

    @property
    def lent(self) -> int:
        """Lessees that have a connection."""
        return len(self.members) - len(self.idle)

    @property
    def open(self) -> int:
        """Connections, those being dialed apart."""
        return len(self.members)

    @property
    def opening(self) -> int:
        """How many who wait are not really queued."""
        return self.limit - len(self.members)

    @property
    def wants_dial(self) -> bool:
        """Rule 3: whether another connection should be dialed now."""
        dialing = len(self.dialing)
        return (
            len(self.members) + dialing < self.limit
            and not self._held
            and len(self.waiting) + len(self.returned) > dialing
        )

    def carriers(self) -> list[C]:
        """Return the connections that are lent."""
        return list(self.leased)

    def lessees(self) -> list[W]:
        """Return those that have a connection."""
        return list(self.leased.values())

    def has_lent(self, connection: C, lessee: W) -> bool:
        """Whether the connection is lent to this lessee, or else claimed: then by whoever says so."""
        if connection in self.idle or connection not in self.members:
            return False
        return self.leased.get(connection, lessee) is lessee

    # -- the shelf, as callers' threads use it ---------------------------------------------------------------

    def claim(self) -> C | None:
        """Claim the newest idle connection, unless somebody waits for it. Any thread."""
        return None if self.is_wanted else self.grab()

    def put_back(self, connection: C) -> bool:
        """Make a claimed connection idle; return whether somebody waits, and must be told of it. Any thread."""
        self.idle[connection] = None
        return self.is_wanted

    def claimed(self) -> list[C]:
        """Return the connections that callers' threads have, or had a moment ago."""
        return [one for one in list(self.members) if one not in self.leased and one not in self.idle]

    def enter(self, connection: C, lessee: W) -> bool:
        """Count a claimed connection as lent; return False if it is not claimed, or none of ours."""
        if connection in self.leased or connection in self.idle or connection not in self.members:
            return False
        self.leased[connection] = lessee
        return True

    # -- lease and release -----------------------------------------------------------------------------------

    def lease(self, lessee: W) -> C | None:
        """Lend the newest idle connection, or return None if there is none, or somebody waits for one."""
        if self.waiting or (connection := self.grab()) is None:
            return None
        self.leased[connection] = lessee
        return connection

    def hand_on(self, connection: C) -> W | None:
        """Hand a claimed connection to the first who waits and return it, or make it idle and return None."""
        return self._lend(connection, self._serve_old())

    def release(self, connection: C, lessee: W | None = None) -> W | None:
        """Hand the connection to the first who waits and return it, or make it idle and return None.

        There is but one lessee: it need not be named.
        """
        del lessee
        self.leased.pop(connection, None)
        return self._lend(connection, self._serve_old())

    def discard(self, connection: C) -> None:
        """Strike out a connection that is gone, wherever it is."""
        if self.idle.pop(connection, self) is self:
            self.leased.pop(connection, None)
        self.members.pop(connection, None)
        self._held = False

    def settle(self, dial: D, connection: C) -> W | None:
        """A dial succeeded: hand the connection to the first who waits and return it, or make it idle."""
        del self.dialing[dial]
        return self.adopt(connection)

    def adopt(self, connection: C) -> W | None:
        """Hand a connection that carried nothing to the first who waits and return it, or make it idle."""
        self._held = False
        self.members[connection] = None
        return self._lend(connection, self._serve_fresh())

    def _lend(self, connection: C, lessee: W | None) -> W | None:
        if lessee is None:
            self.idle[connection] = None
        else:
            self.leased[connection] = lessee
        return lessee
