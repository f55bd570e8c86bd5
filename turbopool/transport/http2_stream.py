"""One exchange on one stream of an HTTP/2 connection, from request to release: what a lease is there.

Thread: the reactor's. Sending goes through the same :class:`Sender` as in HTTP/1, with the stream in the place of the
socket; a response is delivered as it comes. What happens to a stream stays on it: the others do not notice.
"""

from __future__ import annotations

from typing import Any

from turbopool.clock import NEVER
from turbopool.errors import (
    ClientDisposed,
    DeadlineExceeded,
    LimitExceeded,
    ReadTimeout,
    RemoteProtocolError,
    TurboPoolError,
    WriteTimeout,
)
from turbopool.transport.account import accounted, body_failure, facts, late
from turbopool.transport.delivery import begin, patience
from turbopool.transport.download import BodyStream
from turbopool.transport.exchange import Exchange
from turbopool.transport.http2 import MAX_FRAME
from turbopool.transport.http2_link import Link
from turbopool.transport.http2_state import Code
from turbopool.transport.http2_wire import StreamRequest
from turbopool.transport.replay import MAX_REPLAYS, Attempt, may_replay
from turbopool.transport.sender import BodyFailed, Sender

MISDIRECTED = 421


class Http2Stream:
    """One exchange on one stream.

    Attributes:
        exchange: what runs on it.
        state: what the peer has said on it.
        is_flushed: whether any of it was handed to the kernel.
    """

    __slots__ = (
        "_body", "_held", "_is_draining", "_laid", "_link", "_read_deadline", "_seen", "_sender", "exchange",
        "is_flushed", "state",
    )  # fmt: skip

    def __init__(self, link: Link, exchange: Exchange) -> None:
        self._link = link
        self.exchange = exchange
        wire = exchange.wire
        assert isinstance(wire, StreamRequest)  # noqa: S101  # whoever asks for HTTP/2 has one
        self.state, self._laid = link.codec.open(wire, end=not wire.body)
        self.is_flushed = False
        self._sender: Sender | None = None
        self._body: BodyStream | None = None
        self._read_deadline = NEVER
        self._seen = self._held = 0
        self._is_draining = False

    # -- sending ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the request, or as much of it as goes."""
        link, body = self._link, self.exchange.wire.body
        link.flush_soon(self)
        if not self.state.is_sending or (isinstance(body, bytes) and self._sends_at_once(body)):
            if self.exchange.read_timeout is not None:
                self._expect_bytes()
            link.expect(self)
            return
        sender = self._sender = Sender(self, link.reactor, link.settings.spawn, self.go_on, link.on_crash)
        try:
            sender.start(self.exchange.wire, self.exchange.write_timeout)
        except BodyFailed as failure:
            self.note_sent()
            self._fail(body_failure(failure, self.exchange))
        else:
            self._after_sending(sender)

    def _sends_at_once(self, body: bytes) -> bool:
        codec = self._link.codec
        if len(body) > MAX_FRAME or self._link.is_congested or codec.window(self.state) < len(body):
            return False
        self._laid += codec.send(self.state, body, end=True)
        return True

    def send(self, data: bytes | memoryview) -> int:
        """Take as many bytes as a frame and the windows do now. For the sender, which takes this for a channel."""
        return 0 if self._link.is_congested else self._link.codec.send(self.state, data)

    def flush(self) -> bool:
        """Nothing is held back. For the sender."""
        return True

    def go_on(self) -> None:
        """Send more of the body: a window has been opened, or something has been drawn."""
        sender = self._sender
        if sender is None or not sender.is_sending:
            return
        before, deadline = self.written, sender.write_deadline
        try:
            sender.go_on()
        except BodyFailed as failure:
            self.note_sent()
            self._fail(body_failure(failure, self.exchange))
            return
        if self.written == before and sender.is_blocked:
            sender.write_deadline = min(deadline, sender.write_deadline)  # the room was for others
            self._link.wait_for_room(self)
        else:
            self._after_sending(sender)

    @property
    def written(self) -> int:
        """Bytes laid ready to be sent, and sent."""
        return self._laid + (self._sender.sent if self._sender is not None else 0)

    def note_sent(self) -> None:
        """Count what was laid ready as sent: it goes out, even if the stream is reset in the same turn."""
        self.is_flushed = True
        self.exchange.sent = self._laid if self._sender is None else self.written

    def _after_sending(self, sender: Sender) -> None:
        if sender.is_blocked:
            self._link.wait_for_room(self)
        elif not sender.is_sending:
            self._link.codec.send(self.state, b"", end=True)
            self._expect_bytes()
        self._link.flush_soon(self)
        self._link.expect(self)

    # -- receiving -------------------------------------------------------------------------------------------

    def on_news(self) -> None:
        """React to what the peer has said."""
        state, exchange = self.state, self.exchange
        if state.head is not None and self._seen == 0:
            self._link.on_begun()
        if state.problem is not None:
            self._fail(state.problem)
        elif state.code is not None and not state.complete:
            self._on_reset(state.code)
        elif state.head is not None and state.head.status == MISDIRECTED and self._may_go_elsewhere():
            self._stop_sending()  # it goes on where the request is sent again
            self._link.on_misdirected()
            exchange.needs_fresh = True
            self._link.on_returned(self, self._error("the server takes no requests for this host on this connection"))
        elif not exchange.in_memory:
            self._deliver()
        elif state.complete:
            self._complete()
        else:
            self._collect()

    def _may_go_elsewhere(self) -> bool:
        exchange = self.exchange
        return not exchange.replays and exchange.rewindable and not exchange.done and self._body is None

    def _collect(self) -> None:
        """Bound what is kept, and let the server send more."""
        state, limit = self.state, self._link.settings.limits.max_buffered_body
        if state.received > limit:
            msg = f"more than {limit} bytes of body"
            self._fail(
                LimitExceeded(msg, option="max_buffered_body", limit=limit, advice="stream it, or raise the limit")
            )
            return
        self._link.codec.consume(state, state.received - self._seen)
        self._seen = state.received
        self._expect_bytes()

    def _complete(self) -> None:
        state, link = self.state, self._link
        assert state.head is not None  # noqa: S101  # a complete response has one
        if state.received > link.settings.limits.max_buffered_body:
            self._collect()
            return
        raw = state.pieces[0] if len(state.pieces) == 1 else b"".join(state.pieces)
        response = self.exchange.respond(state.head, raw, None, link.reactor.now)
        state.pieces.clear()
        if state.trailers:
            response.extensions["trailers"] = state.trailers
        link.reactor.announce(self.exchange.succeed, response)
        self._finish()

    def _deliver(self) -> None:
        """Hand a streamed response to its reader: first the head, then what comes of the body."""
        state = self.state
        if state.head is None:
            self._expect_bytes()
            return
        stream = self._body
        if stream is None:
            stream = self._begin()
            if stream is None:
                return
        if self._is_draining:
            self._expect_reader()
        pieces, state.pieces = state.pieces, []
        if pieces:
            self._held += sum(map(len, pieces))
            if stream.feed(pieces):
                self._consume()
        if state.complete:
            if state.trailers:
                stream.extensions["trailers"] = state.trailers
            self._finish()

    def _begin(self) -> BodyStream | None:
        """Complete the future with the head; return None if it has been cancelled in the meantime."""
        link, head = self._link, self.state.head
        assert head is not None  # noqa: S101  # the caller looked
        self._body = begin(
            self.exchange, head, link.reactor, link.on_crash, resume=self._resume, abort=self._abort_body
        )
        self._read_deadline = NEVER
        if self._body is None:
            self.abort()
        return self._body

    def _consume(self) -> None:
        """Let the server send as much as the reader has room for."""
        self._link.codec.consume(self.state, self._held)
        self._held = 0

    def _resume(self, exchange: Exchange) -> None:
        if exchange.connection is self:
            self._consume()
            self._link.flush_soon(self)
            if self._is_draining:
                self._expect_reader()

    def _abort_body(self, exchange: Exchange) -> None:
        if exchange.connection is self:
            self.abort()

    def _expect_bytes(self) -> None:
        exchange = self.exchange
        if exchange.read_timeout is not None and self._body is None and not self.state.is_sending:
            self._read_deadline = self._link.reactor.now + exchange.read_timeout
            self._link.expect(self)

    def _expect_reader(self) -> None:
        self.exchange.deadline = self._link.reactor.now + patience(self.exchange)
        self._link.expect(self)

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When to look whether its time is up."""
        due, sender = self.exchange.deadline, self._sender
        if self._read_deadline < due:  # noqa: PLR1730  # once a request, and min() costs as much as all the rest
            due = self._read_deadline
        return due if sender is None else min(due, sender.write_deadline)

    def check(self, now: float) -> None:
        """End the exchange if its time is up, and this stream with it; the connection is asked for a sign of life."""
        if now < self.due:
            return
        self.note_sent()
        if now >= self.exchange.deadline:
            if self._body is not None:  # it has a deadline only while its owner drains
                error = self._late(ClientDisposed, "the client was disposed and nobody read on")
            else:
                error = self._late(DeadlineExceeded, "the deadline of the request passed")
        elif now >= self._read_deadline:
            error = self._late(ReadTimeout, "the server stopped sending")
        else:
            error = self._late(WriteTimeout, "the server stopped reading the request")
        self._fail(error)
        self._link.on_late()

    # -- the end ---------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """End the exchange now, because its caller wants it no more; the connection goes on."""
        self._finish()

    def drain(self) -> None:
        """Learn that the owner stops: a stream that nobody reads is ended."""
        self._is_draining = True
        if self._body is not None:
            self._expect_reader()

    def kill(self, error: TurboPoolError) -> None:
        """End the exchange with an error; the connection is being closed."""
        self.exchange.connection = None
        self._stop(error)
        self.exchange.fail(error)

    def leave(self) -> None:
        """Let go of the exchange, which goes on elsewhere."""
        self.exchange.connection = None
        self._stop_sending()

    def forsake(self, error: TurboPoolError) -> None:
        """End the reader of a streamed response, and touch nothing else. Any thread."""
        if self._body is not None:
            self._body.finish(error)

    def lose(self, error: TurboPoolError, *, by_excess: bool = False) -> None:
        """Learn that the connection died: the request goes back to the queue if it may be sent again.

        One to which the server may have answered ``by_excess``, of whatever it was, would be answered so again.
        """
        exchange, link, state = self.exchange, self._link, self.state
        self._stop_sending()  # first, so that a body is drawn from already, or never
        sent = self.is_flushed
        attempt = Attempt(
            sent=sent,
            answered=state.has_begun,
            proven_server=link.has_proven,
            idempotent=exchange.wire.idempotent and not by_excess,
            rewindable=exchange.rewindable,
            replays=(0 if link.has_answered else exchange.replays) if not sent else exchange.resent,
        )
        if not exchange.done and may_replay(attempt):
            exchange.needs_fresh = exchange.sent > 0
            exchange.resent += sent
            link.on_returned(self, self._accounted(error))
        else:
            self._fail(error)

    def _on_reset(self, code: int) -> None:
        """The peer ended the stream, or said good-bye before it looked at it."""
        state, exchange = self.state, self.exchange
        name = _name(code)
        if code == Code.HTTP_1_1_REQUIRED and not state.has_begun:
            self._stop_sending()
            self._link.on_lowered(self, self._error("the server wants this request over HTTP/1.1", error_code=name))
            return
        how = "did not look at the request" if state.refused else "reset the stream"
        advice = "a body that can be drawn only once cannot be sent again: give bytes, a list or a seekable file"
        more = {} if self.exchange.rewindable else {"advice": advice}
        error = self._error(f"the server {how}", error_code=name, **more)
        self._stop_sending()
        is_proof = state.refused and not (code not in (Code.NO_ERROR, Code.REFUSED_STREAM) and state.stream_id == 1)
        # A farewell of a connection that has answered is no loop: each time the server has done some work. nginx says
        # one after every thousand requests, and a request may meet several of them in a burst.
        is_farewell = code == Code.NO_ERROR and self._link.has_answered
        may_repeat = is_farewell or exchange.replays < MAX_REPLAYS
        if is_proof and exchange.rewindable and may_repeat and not exchange.done:
            self._link.on_returned(self, error)
        else:
            self._fail(error)

    def _fail(self, error: TurboPoolError) -> None:
        """End the exchange with an error that says what is known of the request."""
        error = self._accounted(error)
        if self._body is not None and self.state.pieces:
            self._body.feed(self.state.pieces)  # what came with the end that failed it
        self._stop(error)
        self._link.reactor.announce(self.exchange.fail, error)
        self._finish()

    def _finish(self) -> None:
        if self._body is not None or self._sender is not None:
            self._stop(None)
        state = self.state
        if not state.complete or state.is_sending:  # else both have ended it
            self._link.reset(state, Code.CANCEL if not state.complete else Code.NO_ERROR)
        self._link.on_ended(self)

    def _stop(self, error: Exception | None) -> None:
        if self._body is not None:
            self._body.finish(error)
            self._body = None
        self._stop_sending()

    def _stop_sending(self) -> None:
        sender, self._sender = self._sender, None  # it refers to this stream: the circle would keep the body
        if sender is not None:
            self._laid += sender.sent
            sender.stop()

    # -- what is known ---------------------------------------------------------------------------------------

    @property
    def _phase(self) -> str:
        sender = self._sender
        return "recv" if self.state.has_begun else "send" if sender is not None and sender.is_sending else "wait"

    def _accounted(self, error: TurboPoolError) -> TurboPoolError:
        return accounted(error, self.exchange, self._phase, has_head=self.state.head is not None)

    def _error(self, message: str, **more: Any) -> TurboPoolError:  # noqa: ANN401  # facts of several types
        known = facts(self.exchange, self._phase, has_head=self.state.head is not None)
        if self.state.refused:
            known["processed"], known["may_retry"] = "no", self.exchange.rewindable
        return RemoteProtocolError(message, **known, **more)

    def _late(self, kind: type[TurboPoolError], message: str) -> TurboPoolError:
        has_head = self.state.head is not None
        return late(kind, message, self.exchange, self._phase, has_head=has_head, now=self._link.reactor.now)


def _name(code: int) -> str:
    try:
        return Code(code).name
    except ValueError:
        return str(code)
