"""How callers' threads help themselves to idle connections, and stand in line when there are none. Any thread.

The other side of what :mod:`turbopool.actors.ledger` says of the shelf and the demand. Each function is written so that
it may be preempted, or killed, between any two lines: what a killed thread leaves claimed, the manager's patrol brings
back; and whoever changes what the other side relies on does so before it looks at what the other side does.
"""

from __future__ import annotations

from turbopool.actors.base import leave, tell
from turbopool.actors.ledger import Ledger
from turbopool.actors.messages import EvictIdle, Joined, Release, Shelved, TakeOver
from turbopool.actors.pool import Pool
from turbopool.bodies import Body
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange
from turbopool.transport.interfaces import END_EDGE, READ

MOST_SENT = 65_536
"""Bytes of a request that a caller's thread sends by itself: they fit the send buffer of a connection that is idle."""


def drive(pool: Pool, exchange: Exchange) -> bool:
    """Run a request in the calling thread, over an idle connection; its future has the outcome then, or will have it.

    Return False if there is no such connection, or the request is not one to be sent in one go.
    """
    try:
        connection = _claim(pool, exchange, END_EDGE)
        if connection is None:
            return False
        if not connection.drive(exchange, exchange.asked_at) or not pool.is_open:
            _hand_in(pool, connection, TakeOver(connection, exchange))
        elif connection.conclude(exchange):
            _put_back(pool, connection, exchange)
        else:  # cancelled or failed from outside, and hung up
            _hand_in(pool, connection, Release(connection, exchange, reusable=False))
    except BaseException:
        _clean_up(pool, exchange)
        raise
    return True


def launch(pool: Pool, exchange: Exchange) -> bool:
    """Send a request in the calling thread, over an idle connection; the dispatcher brings its response.

    Return False as :func:`drive` does.
    """
    try:
        connection = _claim(pool, exchange, READ)
        if connection is None:
            return False
        if not connection.launch(exchange):
            _hand_in(pool, connection, TakeOver(connection, exchange))
    except BaseException:
        _clean_up(pool, exchange)
        raise
    return True


def _clean_up(pool: Pool, exchange: Exchange) -> None:
    """Leave nothing behind after an interrupt, wherever it struck; what was not stamped yet is found by a patrol."""
    connection = exchange.connection
    if isinstance(connection, ClaimableConnection) and connection.claimed and connection.exchange is exchange:
        exchange.completion.cancel_now()
        _hand_in(pool, connection, TakeOver(connection, exchange))
    tell(pool.ref, EvictIdle())


def join(pool: Pool, exchange: Exchange) -> list[Exchange]:
    """Stand in line for a connection; return those whom the supervisor has to be told of: the manager is gone."""
    books = pool.ledger
    is_heard = not books.join(exchange) or tell(pool.ref, Joined())
    if is_heard and pool.ledger is books:
        return []
    return books.drain()  # its own, and those who relied on its word; unless a replacement has them already


def _claim(pool: Pool, exchange: Exchange, mask: int) -> ClaimableConnection | None:
    """Claim an idle connection that is fit for use, and have the dispatcher watch it for ``mask`` meanwhile."""
    books = pool.ledger
    if not isinstance(books, Ledger) or not pool.is_open or not exchange.in_memory or not _fits(exchange.wire.body):
        return None
    while True:
        connection: ClaimableConnection | None = books.claim()
        if connection is None:
            return None
        connection.stamp(exchange)
        if _has_closed(pool, books) or exchange.done:  # before the stamp could be seen
            _hand_in(pool, connection, Release(connection, exchange, reusable=True))
            return None
        if connection.is_fit(exchange.asked_at) and connection.attend(mask):
            return connection
        _hand_in(pool, connection, Release(connection, exchange, reusable=False))


def _has_closed(pool: Pool, books: object) -> bool:
    """Whether the key has closed since, or its books were replaced."""
    return pool.ledger is not books or not pool.is_open


def _fits(body: bytes | Body | None) -> bool:
    return body is None or (isinstance(body, bytes) and len(body) <= MOST_SENT)


def _put_back(pool: Pool, connection: ClaimableConnection, exchange: Exchange) -> None:
    """Make a connection idle again, then look whether anybody has to know."""
    books = pool.ledger
    assert isinstance(books, Ledger)  # noqa: S101  # it was claimed of one
    connection.give_back()
    is_awaited = books.put_back(connection)
    if (connection.is_hung_up or pool.ledger is not books) and books.take(connection):
        connection.stamp(exchange)
        _hand_in(pool, connection, Release(connection, exchange, reusable=False))
    elif is_awaited or connection.idle_until < pool.looks_at or not pool.is_open:
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
