"""Who is on which connection of a key whose connections carry many requests at once. Pure.

What :mod:`turbopool.actors.ledger` says holds, with a stream in the place of a connection:

1. Fill the connections that carry something first, then the one that went idle last: others are left to expire.
2. Otherwise wait, first come first served.
3. Dial when somebody waits, no connection has room, no other dial is under way and the limit allows: whether one more
   connection is enough is known only when it is there, and has said how many streams it takes.
4. A failed dial is as there.

Whether a connection has room is asked when something is to be lent, and never counted beforehand: a server may change
its mind at any time. ``roomy`` holds those worth asking. A connection that takes no more (``retiring``) goes on until
its last stream ends, and counts against the limit no longer. Every operation is O(1) in connections and streams.
"""

from __future__ import annotations

from turbopool.actors.ledger import Books, C, D
from turbopool.actors.line import W

ASSUMED_STREAMS = 100
"""What a server is taken to allow before it says so (RFC 9113 section 6.5.2 recommends no less)."""


class StreamLedger(Books[C, D, W]):
    """The books of a key whose connections are shared.

    Args:
        limit: the most connections at once, those being dialed included.
        streams: the most requests on one that we want.

    Attributes:
        streams: what a new connection is taken to carry: the last that was heard of the server.
    """

    def __init__(self, limit: int, streams: int) -> None:
        super().__init__(limit)
        self.streams = min(streams, ASSUMED_STREAMS)
        self.leased: dict[C, dict[W, None]] = {}
        self.retiring: dict[C, dict[W, None]] = {}
        self.roomy: dict[C, None] = {}
        self._lent = 0

    @property
    def busy(self) -> int:
        """Connections that carry something."""
        return len(self.leased) + len(self.retiring)

    @property
    def lent(self) -> int:
        """Lessees that have a stream."""
        return self._lent

    @property
    def open(self) -> int:
        """Connections that take requests."""
        return len(self.idle) + len(self.leased)

    @property
    def opening(self) -> int:
        """How many who wait are not really queued."""
        return (self.limit - len(self.idle) - len(self.leased)) * self.streams

    @property
    def wants_dial(self) -> bool:
        """Rule 3; all connections were asked for room before anybody was left in the queue."""
        return bool(self.waiting or self.returned) and not (self._held or self.dialing) and self.open < self.limit

    def carriers(self) -> list[C]:
        """Return the connections that carry something."""
        return [*self.leased, *self.retiring]

    def lessees(self) -> list[W]:
        """Return those that have a stream."""
        return [lessee for books in (self.leased, self.retiring) for on in list(books.values()) for lessee in list(on)]

    def has_lent(self, connection: C, lessee: W) -> bool:
        """Whether the lessee is on this connection."""
        return lessee in (self.leased.get(connection) or self.retiring.get(connection) or ())

    # -- lease and release -----------------------------------------------------------------------------------

    def candidate(self) -> C | None:
        """Return the connection that is to be asked for room first, unless only idle ones are left."""
        return next(iter(self.roomy), None)

    def lend(self, connection: C, lessee: W) -> None:
        """Put a lessee on a connection that has room."""
        lessees = self.leased.get(connection)
        if lessees is None:
            del self.idle[connection]
            lessees = self.leased[connection] = {}
            self.roomy[connection] = None
        lessees[lessee] = None
        self._lent += 1

    def fill(self, connection: C) -> None:
        """Note that a connection has no room, until :meth:`empty` says otherwise."""
        self.roomy.pop(connection, None)

    def empty(self, connection: C) -> None:
        """Note that a connection may have room."""
        if connection in self.leased:
            self.roomy[connection] = None
        self._held = False

    def next_waiter(self, *, fresh: bool) -> W | None:
        """Strike out and return the first who waits for a connection that is ``fresh``, or that is not."""
        return self._serve_fresh() if fresh else self._serve_old()

    def release(self, connection: C, lessee: W) -> W | None:
        """Take a lessee off a connection; nobody is served. None, always."""
        self.leave(connection, lessee)
        return None

    def leave(self, connection: C, lessee: W) -> bool:
        """Take a lessee off a connection, which goes idle with its last; return whether it was on it."""
        lessees = self.leased.get(connection)
        on = self.retiring.get(connection) if lessees is None else lessees
        if not on or on.pop(lessee, self) is self:
            return False
        if lessees:
            self.roomy[connection] = None
        elif lessees is not None:
            del self.leased[connection]
            self.roomy.pop(connection, None)
            self.idle[connection] = None
        self._lent -= 1
        self._held = False
        return True

    def retire(self, connection: C) -> None:
        """Lend no more of a connection; it is kept until it is discarded."""
        self.roomy.pop(connection, None)
        if self.idle.pop(connection, self) is not self:
            self.retiring[connection] = {}
        elif connection in self.leased:
            self.retiring[connection] = self.leased.pop(connection)
        self._held = False

    def discard(self, connection: C) -> None:
        """Strike out a connection that is gone, wherever it is."""
        self.roomy.pop(connection, None)
        self.idle.pop(connection, None)
        for books in (self.leased, self.retiring):
            self._lent -= len(books.pop(connection, ()))
        self._held = False

    def settle(self, dial: D, connection: C) -> W | None:
        """A dial succeeded: the connection stands idle, and nobody is served yet. None, always."""
        del self.dialing[dial]
        self._held = False
        self.idle[connection] = None
        return None
