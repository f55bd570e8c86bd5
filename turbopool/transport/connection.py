"""A connection that speaks HTTP/1.x, driven by the reactor: one exchange at a time, from request to release.

Thread: the reactor's alone. The connection owns its descriptor, its parser and one timer. It decides whether it may
be used again (RFC 9112 section 9.3); who uses it next is its landlord's business.

Phases of an exchange: sending -> waiting -> receiving; they overlap, because a server may answer early.
Benchmark of this path: ``make bench``, rows ``send_async``.
"""

from __future__ import annotations

import logging
from typing import Any

from turbopool.clock import NEVER
from turbopool.errors import (
    ClientDisposed,
    DeadlineExceeded,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    TurboPoolError,
    WriteError,
    WriteTimeout,
)
from turbopool.models import Response
from turbopool.stats import PoolKey
from turbopool.transport.account import accounted, body_failure, facts, late
from turbopool.transport.delivery import begin, patience
from turbopool.transport.download import BodyStream
from turbopool.transport.exchange import Exchange
from turbopool.transport.http1 import ResponseParser
from turbopool.transport.interfaces import READ, WRITE, Channel, Reactor
from turbopool.transport.landlord import ConnectionSettings, Ending, Landlord, expiry
from turbopool.transport.replay import Attempt, may_replay
from turbopool.transport.sender import BodyFailed, Sender

_log = logging.getLogger("turbopool.connection")

PROBE_AFTER = 0.001
"""Seconds unseen after which an idle connection is looked at before use: sooner nobody can have seen it close."""
HINT_MARGIN = 1.0
"""Seconds by which ``Keep-Alive: timeout=`` is undercut, for what is on its way."""


class Http1Connection:
    """One HTTP/1.x connection.

    Attributes:
        exchange: what runs on it now, or None.
        requests: how many it has been given.
        expires_at: when its lifetime ends.
        idle_since, idle_until: since when it stands idle, and when it is to be evicted.
        version: what the peer calls itself, once it answered.
    """

    driven = completed = 0
    """What callers' threads did over it; see :class:`turbopool.transport.claimable.ClaimableConnection`."""

    __slots__ = (
        "_channel", "_closed", "_draining", "_landlord", "_parser", "_reactor", "_read_deadline", "_sender",
        "_settings", "_stream", "_timer", "_watched", "exchange", "expires_at", "idle_since", "idle_until", "key",
        "requests",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        key: PoolKey,
        reactor: Reactor,
        landlord: Landlord[Http1Connection],
        settings: ConnectionSettings,
    ) -> None:
        self._channel = channel
        self.key = key
        self._reactor = reactor
        self._landlord = landlord
        self._settings = settings
        self._parser = ResponseParser(settings.limits)
        self._timer = reactor.timer(self._on_timer, self.on_crash)
        self._sender = Sender(channel, reactor, settings.spawn, self._go_on, self.on_crash)
        self._stream: BodyStream | None = None
        self._read_deadline = NEVER
        self._closed = False
        self._draining = False
        self._watched = READ
        self.exchange: Exchange | None = None
        self.requests = 0
        self.expires_at = expiry(settings.lifetime, reactor.now)
        self.idle_since = reactor.now
        self.idle_until = NEVER
        reactor.watch(channel.fd, self, READ)

    # -- the landlord's side ---------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the descriptor is gone."""
        return self._closed

    @property
    def has_answered(self) -> bool:
        """Whether the response of the present or last exchange has begun."""
        return self._parser.head is not None

    def is_usable(self, now: float, *, careful: bool) -> bool:
        """Whether an idle connection may be lent: in its time, and its peer quiet.

        The reactor looks at all idle connections in every turn, and closes those that stir. What happened since is
        looked for, with a system call, if it is long ago, and always for a ``careful`` lessee: it cannot be sent again.
        """
        if self._closed or now >= self.expires_at or now >= self.idle_until:
            return False
        if self._channel.buffered:
            return False
        seen_at = max(self.idle_since, self._reactor.polled_at) if self._watched == READ else self.idle_since
        is_fresh = now - seen_at < PROBE_AFTER
        return (is_fresh and not careful) or self._channel.is_quiet()

    def is_quiet(self) -> bool:
        """Whether its peer has not begun to end it: a look at the socket, for whoever cannot be sent again."""
        return not self._closed and self._channel.is_quiet()

    def rest(self, now: float) -> None:
        """Begin to stand idle."""
        self.idle_since = now
        head = self._parser.head
        until = self.expires_at if head is None or head.idle_hint is None else self._usable_until()
        timeout = self._settings.idle_timeout
        self.idle_until = now + timeout if timeout and now + timeout < until else until

    def stay(self, now: float) -> bool:
        """Stand idle beyond the idle timeout, as long as the server lets it; return whether that is still."""
        self.idle_until = self._usable_until()
        return now < self.idle_until

    def _usable_until(self) -> float:
        hint = self._parser.head.idle_hint if self._parser.head is not None else None
        return self.expires_at if hint is None else min(self.expires_at, self.idle_since + hint - HINT_MARGIN)

    def run(self, exchange: Exchange) -> None:
        """Send a request and deliver its response; the landlord hears of the end."""
        self.exchange = exchange
        self.requests += 1
        exchange.connection = self
        if self._watched != READ:  # a caller's thread had it
            self._watch(READ)
        wire = exchange.wire
        self._parser.start(wire.method, in_memory=exchange.in_memory)
        sender = self._sender
        try:
            sender.start(wire, exchange.write_timeout)
        except OSError as error:
            self._on_write_error(exchange, error)
            return
        except BodyFailed as error:
            self._on_body_failed(exchange, error)
            return
        exchange.sent = sender.sent or exchange.sent
        if sender.is_sending or exchange.read_timeout is not None:
            self._after_sending(exchange)
        else:
            self._timer.arm(exchange.deadline)

    def abort(self) -> None:
        """End the exchange now, because its caller wants it no more, and close."""
        self._finish(reusable=False)

    def drain(self) -> None:
        """Learn that the owner stops: a stream has no deadline of its own, so one that nobody reads is ended."""
        self._draining = True
        if self.exchange is not None and self._stream is not None:
            self._expect_reader(self.exchange)

    def kill(self, ending: Ending) -> None:
        """End the exchange now with an error, and close; the landlord is not told, because it is the one who asks."""
        exchange, self.exchange = self.exchange, None
        error = ending(exchange.was_sent if exchange is not None else False)
        self._stop_streams(error)
        self.close()
        if exchange is not None:
            exchange.connection = None
            exchange.fail(error)

    def forsake(self, ending: Ending) -> None:
        """End the reader of a stream, and touch nothing else: the reactor's thread is stuck. Any thread."""
        stream = self._stream
        if stream is not None:
            stream.finish(ending(True))  # noqa: FBT003  # a response came

    def close(self) -> None:
        """Close the descriptor. Idempotent; does not tell the landlord."""
        if not self._closed:
            self._closed = True
            try:
                self._reactor.unwatch(self._channel.fd)
            finally:  # a descriptor that stayed open would be reported for ever
                self._channel.close()
                self._timer.close()

    # -- the reactor's side ----------------------------------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Go on reading or writing."""
        if mask & WRITE and self.exchange is not None:
            self._go_on()
        if mask & ~WRITE and not self._closed:
            self._on_readable()

    def on_crash(self, error: BaseException) -> None:
        """Report a bug of ours; the landlord cleans up."""
        self._landlord.on_bug(error)

    def abandon(self) -> None:
        """Give up the descriptor in a forked child."""
        self._closed = True
        self._channel.abandon()

    let_go = abandon

    def _on_readable(self) -> None:
        try:
            room = self._parser.room
            data = self._channel.receive() if room is None else self._channel.receive_into(room)
        except OSError as error:
            self._on_broken(error)
            return
        if data is None:
            return
        exchange = self.exchange
        if exchange is None:
            self._on_idle_bytes(data)
            return
        parser = self._parser
        try:
            if data:
                parser.receive(data)
            if not data or (self._channel.ended and not parser.complete):
                self._on_end()
                return
        except TurboPoolError as error:
            self._fail(exchange, error)
            return
        if not exchange.in_memory:
            self._deliver(exchange)
        elif parser.complete:
            self._complete(exchange)
        elif exchange.read_timeout is not None:
            self._expect_bytes(exchange)

    def _on_timer(self) -> None:
        exchange, now = self.exchange, self._reactor.now
        if exchange is None:
            return
        if now >= exchange.deadline:
            if self._stream is not None:  # it has a deadline only while its owner drains
                self._fail(exchange, self._late(ClientDisposed, "the client was disposed and nobody read on", exchange))
            else:
                self._fail(exchange, self._late(DeadlineExceeded, "the deadline of the request passed", exchange))
        elif now >= self._sender.write_deadline:
            self._fail(exchange, self._late(WriteTimeout, "the server stopped reading the request", exchange))
        elif now >= self._read_deadline:
            self._fail(exchange, self._late(ReadTimeout, "the server stopped sending", exchange))
        else:
            self._rearm(exchange)

    def _rearm(self, exchange: Exchange) -> None:
        self._timer.arm(min(exchange.deadline, self._read_deadline, self._sender.write_deadline))

    # -- sending ---------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Send more of the request."""
        exchange, sender = self.exchange, self._sender
        assert exchange is not None  # noqa: S101  # nothing is sent without one
        try:
            sender.go_on()
        except OSError as error:
            self._on_write_error(exchange, error)
        except BodyFailed as error:
            self._on_body_failed(exchange, error)
        else:
            self._after_sending(exchange)

    def _after_sending(self, exchange: Exchange) -> None:
        """Watch and wait for what comes next."""
        sender = self._sender
        exchange.sent = sender.sent or exchange.sent
        self._watch(self._watched & READ | (WRITE if sender.is_blocked else 0))
        if not sender.is_sending:
            self._expect_bytes(exchange)
        self._rearm(exchange)

    def _expect_bytes(self, exchange: Exchange) -> None:
        if exchange.read_timeout is not None and self._stream is None:
            self._read_deadline = self._reactor.now + exchange.read_timeout
            self._rearm(exchange)

    def _on_body_failed(self, exchange: Exchange, failure: BodyFailed) -> None:
        """The caller's body raised, or no thread could be had to draw it."""
        exchange.sent = self._sender.sent or exchange.sent
        self._fail(exchange, body_failure(failure, exchange))

    def _on_write_error(self, exchange: Exchange, error: OSError) -> None:
        """Stop sending; the server may have answered before it closed, so its answer is looked for first."""
        exchange.sent = self._sender.sent or exchange.sent
        self._sender.stop(error)
        self._watch(READ)
        self._rearm(exchange)  # it may have nothing to say yet
        self._expect_bytes(exchange)
        if self._sender.sent == 0:
            self._on_broken(error)
        else:
            self._on_readable()

    # -- the end of an exchange ------------------------------------------------------------------------------

    def _complete(self, exchange: Exchange) -> None:
        # Released first, so that whoever sees the response sees the connection idle.
        self._reactor.announce(exchange.succeed, self._conclude(exchange, self._reactor.now))
        self._finish(reusable=self._is_reusable(exchange))

    def _conclude(self, exchange: Exchange, now: float) -> Response:
        """Make the response of what has been parsed."""
        parser = self._parser
        head = parser.head
        assert head is not None  # noqa: S101  # a complete response has one
        response = exchange.respond(head, parser.body, None, now)
        parser.pieces = []  # an idle connection keeps no body
        if parser.trailers:
            response.extensions["trailers"] = parser.trailers
        return response

    def _is_reusable(self, exchange: Exchange) -> bool:
        """The reuse rule: all was sent, all was read, nothing more came, and both sides keep the connection."""
        parser = self._parser
        if parser.leftover or self._channel.buffered:
            _log.debug("unsolicited bytes after a response of %s: connection closed", self.key.origin)
            return False
        return bool(
            parser.head is not None
            and parser.head.keep_alive
            and not exchange.wire.closes
            and not self._sender.is_sending
            and self._sender.error is None
            and not self._channel.ended
        )

    def _deliver(self, exchange: Exchange) -> None:
        """Hand a streamed response to its reader: first the head, then what comes of the body."""
        parser = self._parser
        if parser.head is None:
            self._expect_bytes(exchange)
            return
        stream = self._stream
        if stream is None:
            self._landlord.on_answered(self)
            stream = self._stream = begin(
                exchange, parser.head, self._reactor, self.on_crash, resume=self._resume, abort=self._abort_stream
            )
            self._read_deadline = NEVER
            if stream is None:
                self._finish(reusable=False)
                return
        if self._draining:
            self._expect_reader(exchange)
        pieces, parser.pieces = parser.pieces, []
        wants_more = stream.feed(pieces) if pieces else True
        if parser.complete:
            if parser.trailers:
                stream.extensions["trailers"] = parser.trailers
            self._finish(reusable=self._is_reusable(exchange))
        elif not wants_more:
            self._watch(self._watched & ~READ)

    def _resume(self, exchange: Exchange) -> None:
        if self.exchange is exchange:
            self._watch(self._watched | READ)
            if self._draining:
                self._expect_reader(exchange)

    def _expect_reader(self, exchange: Exchange) -> None:
        exchange.deadline = self._reactor.now + patience(exchange)
        self._rearm(exchange)

    def _abort_stream(self, exchange: Exchange) -> None:
        if self.exchange is exchange:
            self.abort()

    def _on_idle_bytes(self, data: bytes | memoryview) -> None:
        """An idle connection has nothing to say but good-bye: a late 408, stray bytes and the end are one."""
        if data:
            _log.debug("unsolicited bytes on an idle connection of %s: connection closed", self.key.origin)
        self.close()
        self._landlord.on_lost(self, None)

    def _on_end(self) -> None:
        """The peer closed in the middle of an exchange."""
        exchange, parser = self.exchange, self._parser
        assert exchange is not None  # noqa: S101  # callers looked
        if not parser.started:
            msg = "the server closed the connection without a response"
            self._die(exchange, RemoteProtocolError(msg, **self._facts(exchange, "wait")))
            return
        try:
            parser.receive_end(truncated=self._channel.truncated)
        except TurboPoolError as error:
            self._fail(exchange, error)
        else:
            self._complete(exchange) if exchange.in_memory else self._deliver(exchange)

    def _on_broken(self, error: OSError, *, by_peer: bool = True) -> None:
        """The kernel or the TLS layer gave the connection up, or we did."""
        exchange = self.exchange
        if exchange is None:
            self.close()
            self._landlord.on_lost(self, error)
            return
        phase = "recv" if self._parser.started else "send" if self._sender.is_sending else "wait"
        kind = WriteError if self._sender.error is error else ReadError
        problem = kind(f"the connection broke: {error}", **self._facts(exchange, phase))
        problem.__cause__ = error
        self._die(exchange, problem, by_peer=by_peer)

    def _die(self, exchange: Exchange, error: TurboPoolError, *, by_peer: bool = True) -> None:
        """The connection ended: the request goes back to the queue if it may be sent again."""
        if self._sender.is_sending:
            self._sender.stop(self._sender.error)  # first, so that a body is drawn from already, or never
        sent = self._sender.sent > 0
        # A connection that died before it could be used again costs a request nothing: there are only so many of those.
        free = not sent and self.requests > 1
        attempt = Attempt(
            sent=sent,
            answered=self._parser.started,
            proven_server=self.requests > 1 or self._landlord.has_answered,
            idempotent=exchange.wire.idempotent,
            rewindable=exchange.rewindable,
            replays=0 if free else exchange.resent if sent else exchange.replays,
        )
        if by_peer and not attempt.answered:
            self._landlord.on_broken(self, error)
        if not exchange.done and may_replay(attempt):
            exchange.needs_fresh = exchange.sent > 0
            exchange.resent += sent
            self._finish(reusable=False, returned=error)
        else:
            self._fail(exchange, error)

    def _fail(self, exchange: Exchange, error: TurboPoolError) -> None:
        """End the exchange with an error that says what is known of the request, and close."""
        phase = "recv" if self._parser.started else "wait"
        error = accounted(error, exchange, phase, has_head=self._parser.head is not None)
        if self._stream is not None and self._parser.pieces:
            self._stream.feed(self._parser.pieces)  # what came with the end that failed it
        self._stop_streams(error)
        self._reactor.announce(exchange.fail, error)
        self._finish(reusable=False)

    def _finish(self, *, reusable: bool, returned: TurboPoolError | None = None) -> None:
        exchange, self.exchange = self.exchange, None
        self._stop_streams(None)
        self._read_deadline = NEVER
        if exchange is not None:
            exchange.connection = None
        if not reusable:
            self.close()
        if exchange is not None and returned is not None:
            self._landlord.on_returned(self, exchange, returned)
        elif exchange is not None:
            self._landlord.on_released(self, exchange, reusable=reusable)

    def _stop_streams(self, error: Exception | None) -> None:
        if self._stream is not None:
            self._stream.finish(error)
            self._stream = None
            self._watch(READ)
        if self._sender.is_sending:
            self._sender.stop()

    def _watch(self, mask: int) -> None:
        if self._watched != mask and not self._closed:
            self._watched = mask
            self._reactor.rewatch(self._channel.fd, mask)

    def _facts(self, exchange: Exchange, phase: str) -> dict[str, Any]:
        return facts(exchange, phase, has_head=self._parser.head is not None)

    def _late(self, kind: type[TurboPoolError], message: str, exchange: Exchange) -> TurboPoolError:
        phase = "recv" if self._parser.started else "send" if self._sender.is_sending else "wait"
        has_head = self._parser.head is not None
        return late(kind, message, exchange, phase, has_head=has_head, now=self._reactor.now)
