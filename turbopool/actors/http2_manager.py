"""The manager of one key's HTTP/2 connections: a lease is a stream.

What :class:`TcpConnectionManagerActor` does, it does. Whether a connection has room is asked when a stream is to be
lent; what the server says of it later comes as a call, on the same thread, and the queue is looked at again.
"""

from __future__ import annotations

import errno
from functools import cached_property

from turbopool.actors import refusals
from turbopool.actors.messages import Confirmed, Lowered
from turbopool.actors.recovery import Verdict
from turbopool.actors.spoken import REMEMBERED_FOR
from turbopool.actors.stream_ledger import StreamLedger
from turbopool.actors.tcp_manager import TcpConnectionManagerActor
from turbopool.errors import ConnectError, TurboPoolError, UnsupportedVersion
from turbopool.transport.exchange import Exchange
from turbopool.transport.http2_connection import Http2Connection
from turbopool.transport.interfaces import Channel, Dial
from turbopool.transport.landlord import Lendable

HTTP2 = "h2"
"""As ALPN calls it."""


class Http2ConnectionManagerActor(TcpConnectionManagerActor):
    """Owns the connections of one HTTP/2 key."""

    _is_serving = False
    _lacks_until = 0.0
    _is_required = False
    """Whether the server speaks HTTP/2, and asks for HTTP/1.1 nevertheless."""

    @cached_property
    def _books(self) -> StreamLedger[Http2Connection, Dial, Exchange]:
        books = self._ledger
        assert isinstance(books, StreamLedger)  # noqa: S101  # the pool of an HTTP/2 key has this kind
        return books

    def _on_lease(self, lessee: Exchange) -> None:
        is_lacking = lessee.may_lower and self._dispatcher.now < self._lacks_until
        if is_lacking and not (lessee.done or self._pool.is_draining):
            self._lower([lessee], None, None)  # it was on its way while the server was found out
        else:
            super()._on_lease(lessee)

    def _grant_idle(self, lessee: Exchange) -> bool:
        """Lend a stream, if a connection has room and nobody else waits for it."""
        if self._ledger.waiting:
            return False
        self._make_way(lessee)
        connection = self._roomy(careful=lessee.replays > 0 or not lessee.wire.idempotent)
        if connection is None:
            return False
        self._lend(connection, lessee)
        return True

    def _roomy(self, *, careful: bool) -> Http2Connection | None:
        """Return a connection that has room, striking out those that have none."""
        books, now = self._books, self._dispatcher.now
        while (connection := books.candidate()) is not None:
            if connection.is_usable(now, careful=careful):
                return connection
            if connection.is_retired:
                books.retire(connection)
            else:
                books.fill(connection)
        for connection in list(reversed(books.idle)):
            if connection.is_usable(now, careful=careful):
                return connection
            if connection in books.idle and (connection.is_retired or now >= connection.idle_until):
                self._drop(connection)  # others take none at present: their server said so, or may be dead
        return None

    def _make_way(self, first: Exchange | None) -> None:
        """Retire a connection whose room another key has waited for longer: a shared one might never go idle."""
        books = self._books
        if books.leased and not books.retiring and self._room.is_owed_by(first):
            next(iter(books.leased)).retire()

    def _lend(self, connection: Http2Connection, lessee: Exchange) -> None:
        lessee.needs_fresh = False  # if it comes back, that is another story
        books = self._books
        if connection in books.idle:
            self._room.roused(connection)
        books.lend(connection, lessee)
        self._grant(connection, lessee)

    def _serve(self) -> None:
        """Lend streams to those who wait, in order, as long as there is room."""
        books = self._books
        if self._is_serving:  # a request that fails at once brings us here again
            return
        self._is_serving = True
        self._make_way(next(iter(books.waiting), None))
        while books.queued and (connection := self._roomy(careful=False)) is not None:
            if not self._fill(connection):
                break
        self._is_serving = False

    def _fill(self, connection: Http2Connection) -> bool:
        """Lend a connection's streams, as many as it has; return False if those who are left need a fresh one."""
        books, now = self._books, self._dispatcher.now
        while (lessee := books.next_waiter(fresh=books.open >= books.limit)) is not None:  # no fresher one will come
            self._lend(connection, lessee)
            if not (books.queued and connection.is_usable(now, careful=False)):
                return True
        return False

    # -- told by connections ---------------------------------------------------------------------------------

    def on_released(self, connection: Lendable, lessee: Exchange, *, reusable: bool) -> None:
        """Take a stream back. Called by the connection."""
        del reusable  # a connection says for itself that it takes no more
        books = self._books
        assert isinstance(connection, Http2Connection)  # noqa: S101  # this manager has no others
        if not books.leave(connection, lessee):
            return
        if connection.is_retired:
            books.retire(connection)
        if not connection.is_digesting:
            self.on_digested(connection)

    def on_digested(self, connection: Http2Connection) -> None:
        """Lend again what was taken back. Called by the connection."""
        books = self._books
        if books.queued:
            self._serve()
        if connection in books.idle:
            self._rest(connection)
        if books.wants_dial:
            self._dialing.begin()
        if self._pool.is_draining or not books.leased:
            self._end_if_empty()

    def on_answered(self, connection: Lendable) -> None:
        """Learn that a response has begun. Called by the connection."""
        if self._lacks_until and not self._is_required:  # somebody asked for nothing else, and it does speak it
            self._lacks_until = 0.0
            self._tell_supervisor(Confirmed(self._pool.key))
        if self._note_answer(connection):
            self._dialing.begin()

    def on_returned(self, connection: Lendable, lessee: Exchange, error: TurboPoolError) -> None:
        """Send a request again, or fail it if the budget for that is spent. Called by the connection."""
        books = self._books
        assert isinstance(connection, Http2Connection)  # noqa: S101  # this manager has no others
        books.release(connection, lessee)
        if connection.is_retired:
            books.retire(connection)
        if not self._may_return(lessee):
            lessee.fail(error)
        else:
            books.take_back(lessee)
            self._expiry.arm(min(self._expiry.due, lessee.queue_deadline))
        self._serve()
        if connection in books.idle:
            self._rest(connection)
        self._dialing.begin(lessee)

    def on_room(self, connection: Http2Connection) -> None:
        """Lend what a connection takes by now, and remember what its server allows. Called by the connection."""
        books = self._books
        books.streams = connection.allowed
        books.empty(connection)
        self._serve()
        self._dialing.begin()

    def on_retired(self, connection: Http2Connection) -> None:
        """Lend no more of a connection, and open another for those who wait. Called by the connection."""
        self._room.roused(connection)
        self._books.retire(connection)
        self._note_unused(connection, None)
        self._dialing.begin()

    def on_lost(self, connection: Lendable, error: Exception | None) -> None:
        """Strike out a connection that is gone. Called by the connection."""
        self._note_unused(connection, error)
        super().on_lost(connection, error)

    def _note_unused(self, connection: Lendable, error: Exception | None) -> None:
        """Count a connection that ends before it has carried anything, and for which somebody waits, as not made."""
        if connection.requests or not self._books.queued:
            return
        problem = ConnectError("the server hung up at once", origin=self._pool.key.origin, phase="connect",
                               may_retry=True, errno=errno.ECONNRESET)  # fmt: skip
        problem.__cause__ = error
        verdict = self._recovery.dial_failed(connection, problem, self._dispatcher.now)
        if verdict is Verdict.SHARE and not self._books.open:
            for lessee in self._books.empty_queue():
                lessee.refused(refusals.not_dialed(self._pool, problem))

    def on_lowered(self, connection: Http2Connection, lessees: list[Exchange], error: TurboPoolError) -> None:
        """Give requests to the manager of HTTP/1.1, which the server wants. Called by the connection."""
        self._is_required = not connection.is_closed
        for lessee in lessees:
            if self._books.has_lent(connection, lessee):
                self._books.release(connection, lessee)
        if connection.is_retired:
            self._books.retire(connection)
        queue = [*self._books.returned, *self._books.waiting]
        queue = [lessee for lessee in queue if lessee.may_lower or connection.is_closed]
        for lessee in queue:
            self._books.withdraw(lessee)
        self._lower([*lessees, *queue], None, error)
        self._serve()
        if connection in self._books.idle:
            self._rest(connection)
        self._dialing.begin()

    # -- told by the dialing part ----------------------------------------------------------------------------

    def connect(self, channel: Channel) -> Lendable | None:
        """Make a connection, or hand it on with all who wait: TLS has settled on another version."""
        pool = self._pool
        if pool.key.scheme == "https" and channel.version != HTTP2:
            self._lower(self._ledger.empty_queue(), channel, None)
            return None
        settings = pool.settings.connection
        assumed = self._books.streams
        if self._pool.is_draining or settings.lifetime == 0:  # it would be closed before the server says it takes one
            assumed = max(1, assumed)
        return Http2Connection(channel, pool.key, self._dispatcher, self, settings, assumed=assumed)

    def on_connected(self, connection: Lendable, lessee: Exchange | None) -> None:
        """Lend a new connection's streams, first to those who need a fresh one."""
        del lessee
        books = self._books
        assert isinstance(connection, Http2Connection)  # noqa: S101  # made above
        while books.queued and connection.has_room and (waiter := books.next_waiter(fresh=True)) is not None:
            self._lend(connection, waiter)
            if not connection.is_usable(self._dispatcher.now, careful=False):  # it may be meant for a single request
                break
        if connection.is_retired:
            books.retire(connection)
        self._serve()  # who needed a fresh one, if no further one is allowed
        if connection in books.idle:
            self._rest(connection)

    def _lower(self, lessees: list[Exchange], channel: Channel | None, error: TurboPoolError | None) -> None:
        self._lacks_until = self._dispatcher.now + REMEMBERED_FOR
        going = []
        for lessee in lessees:
            if error is not None and not lessee.rewindable:
                known = {"origin": lessee.origin, "phase": "wait", "processed": "no", "may_retry": False}
                lessee.fail(error.with_(**known, request_sent=lessee.was_sent))
            elif lessee.may_lower:
                lessee.lower()
                going.append(lessee)
            else:
                processed = "maybe" if lessee.resent else "no"  # by an attempt before
                lessee.fail(self._unsupported(error).with_(request_sent=lessee.was_sent, processed=processed))
        self._tell_supervisor(Lowered(self._pool.key, "1.1", tuple(going), channel))

    def _unsupported(self, cause: TurboPoolError | None) -> UnsupportedVersion:
        error = UnsupportedVersion(
            "the server does not speak HTTP/2", origin=self._pool.key.origin, phase="tls", version="2",
            advice="ask for http_version='1.1', or allow it with version_policy='or_lower'",
        )  # fmt: skip
        error.__cause__ = cause
        return error
