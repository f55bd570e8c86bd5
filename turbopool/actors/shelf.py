"""How callers' threads help themselves to idle connections, and stand in line when there are none. Any thread.

The other side of what :mod:`turbopool.actors.ledger` says of the shelf and the demand. Each function is written so that
it may be preempted, or killed, between any two lines: what a killed thread leaves claimed, the manager's patrol brings
back; and whoever changes what the other side relies on does so before it looks at what the other side does.
"""

from __future__ import annotations

from turbopool.actors.base import leave, tell
from turbopool.actors.ledger import Ledger
from turbopool.actors.messages import Abandon, BackUp, EvictIdle, Joined, Release, Shelved, TakeOver
from turbopool.actors.pool import Pool
from turbopool.clock import SystemClock
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange, Raft, unmoor
from turbopool.transport.interfaces import END_EDGE, Dial

Shelf = Ledger[ClaimableConnection, Dial, Exchange]
"""The books of a key whose connections may be claimed."""

clock = SystemClock.now


def drive(pool: Pool, exchange: Exchange) -> bool:
    """Run a request in the calling thread, over an idle connection; its future has the outcome then, or will have it.

    Return False if there is no such connection, or the request is not one to be sent in one go.
    """
    books = _books(pool, exchange)
    if books is None:
        return False
    try:
        connection = _claim(pool, books, exchange)
        if connection is None:
            return False
        _end(pool, books, connection, exchange, is_plain=connection.drive(exchange, exchange.asked_at))
    except BaseException:
        _give_up(pool, exchange)
        _clean_up(pool, exchange)
        raise
    return True


def launch(pool: Pool, exchange: Exchange) -> bool:
    """Send a request in the calling thread, over an idle connection; whoever waits for it first receives its response.

    The dispatcher does if nobody has come for a few milliseconds. Return False as :func:`drive` does.
    """
    books = _books(pool, exchange)
    if books is None:
        return False
    try:
        connection = _claim(pool, books, exchange)
        if connection is None:
            return False
        if not connection.send(exchange):
            _hand_in(pool, connection, TakeOver(connection, exchange))
            return True
        exchange.raft = [(pool, books, connection, exchange)]
        pool.has_launched = True
        pool.afloat.launch(exchange.asked_at, exchange.raft)
        if connection.is_orphaned:  # and its future may have failed, so that nobody comes to receive
            land(exchange.raft)
    except BaseException:
        _give_up(pool, exchange)
        _clean_up(pool, exchange)
        pool.afloat.watch()  # others may rely on that
        raise
    return True


def receive(exchange: Exchange, timeout: float | None) -> None:
    """Receive the response of a launched request in the calling thread, for ``timeout`` seconds at most.

    Unless somebody else does already.
    """
    launched = unmoor(exchange.raft)
    if launched is None:
        return
    pool, books, connection, _ = launched
    try:
        now = clock()
        patience = exchange.deadline if timeout is None else min(exchange.deadline, now + timeout)
        _end(pool, books, connection, exchange, is_plain=connection.receive(exchange, now, patience))
    except BaseException:
        _clean_up(pool, exchange)
        raise


def land(raft: Raft) -> None:
    """Have the dispatcher receive the response of the request on a raft, unless somebody does already."""
    launched = unmoor(raft)
    if launched is None:
        return
    pool, _, connection, exchange = launched
    try:
        _hand_in(pool, connection, TakeOver(connection, exchange))
    except BaseException:
        _clean_up(pool, exchange)
        raise


def _end(pool: Pool, books: Shelf, connection: ClaimableConnection, exchange: Exchange, *, is_plain: bool) -> None:
    """Complete the exchange and put its connection back, or leave it all to the dispatcher."""
    if not is_plain or pool.is_shut():
        _hand_in(pool, connection, TakeOver(connection, exchange))
    elif connection.conclude(exchange):
        _put_back(pool, books, connection, exchange)
    else:  # cancelled or failed from outside, and hung up
        _hand_in(pool, connection, Release(connection, exchange, reusable=False))


def _give_up(pool: Pool, exchange: Exchange) -> None:
    """Cancel a request whose caller was interrupted."""
    if exchange.completion.cancel_now():
        tell(pool.ref, Abandon(exchange))  # which counts it


def _clean_up(pool: Pool, exchange: Exchange) -> None:
    """Leave nothing behind after an interrupt, wherever it struck; what was not stamped yet is found by a patrol."""
    connection = exchange.connection
    if isinstance(connection, ClaimableConnection) and connection.claimed and connection.exchange is exchange:
        unmoor(exchange.raft)
        _hand_in(pool, connection, TakeOver(connection, exchange))
    tell(pool.ref, EvictIdle())


def join(pool: Pool, exchange: Exchange) -> list[Exchange]:
    """Stand in line for a connection; return those whom the supervisor has to be told of: the manager is gone."""
    books = pool.ledger
    try:
        is_heard = not books.join(exchange) or tell(pool.ref, Joined())
    except BaseException:
        tell(pool.ref, Joined())  # others may rely on that
        raise
    if is_heard and pool.ledger is books:
        return []
    return books.drain()  # its own, and those who relied on its word; unless a replacement has them already


def _books(pool: Pool, exchange: Exchange) -> Shelf | None:
    """Return the books, if a connection may be claimed of them, and the request is one for a caller's thread."""
    books = pool.ledger
    if not books.idle or exchange.wire.whole is None or not exchange.in_memory:
        return None
    return books if isinstance(books, Ledger) else None


def _claim(pool: Pool, books: Shelf, exchange: Exchange) -> ClaimableConnection | None:
    """Claim an idle connection that is fit for use, which the dispatcher watches for its end alone meanwhile."""
    while not pool.is_shut():
        connection = books.claim()
        if connection is None:
            return None
        connection.stamp(exchange)
        if pool.ledger is not books or pool.is_shut() or exchange.done:  # before the stamp could be seen
            _hand_in(pool, connection, Release(connection, exchange, reusable=True))
            return None
        if connection.is_fit(exchange.asked_at) and connection.attend(END_EDGE):
            if not connection.is_backed_up(exchange):
                tell(pool.ref, BackUp(connection, exchange))
            return connection
        _hand_in(pool, connection, Release(connection, exchange, reusable=False))
    return None


def _put_back(pool: Pool, books: Shelf, connection: ClaimableConnection, exchange: Exchange) -> None:
    """Make a connection idle again, then look whether anybody has to know."""
    connection.give_back()
    is_awaited = books.put_back(connection)
    is_lost = connection.is_hung_up or connection.is_orphaned or pool.ledger is not books
    if is_lost and books.take(connection):
        connection.stamp(exchange)
        _hand_in(pool, connection, Release(connection, exchange, reusable=False))
    elif is_awaited or connection.idle_until < pool.looks_at or pool.is_shut():
        _tell(pool, Shelved())


def _hand_in(pool: Pool, connection: ClaimableConnection, message: Release | TakeOver) -> None:
    """Hand a claimed connection in."""
    _tell(pool, message)
    if connection.is_orphaned:
        connection.abandon()


def _tell(pool: Pool, message: Release | TakeOver | Shelved) -> None:
    """Tell the manager, whether or not it lives: what a dead one is told is cleaned up."""
    if not tell(pool.ref, message):
        leave(pool.ref, message)
