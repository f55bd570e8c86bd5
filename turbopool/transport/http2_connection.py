"""A connection that speaks HTTP/2, driven by the reactor: many exchanges at once, each on a stream of its own.

Thread: the reactor's alone. The connection owns its descriptor, its codec and one timer; it decides how many streams it
takes, which of them is written next, and when it takes no more. All that a turn has to say goes out in one write.

It is watched for as long as it lives, idle or not: PING and SETTINGS are answered at once, and its end is noticed.
Benchmark of this path: ``make bench``, rows ``h2``.
"""

from __future__ import annotations

import contextlib

from turbopool.clock import NEVER
from turbopool.errors import ReadError, RemoteProtocolError, TurboPoolError, WriteError
from turbopool.stats import PoolKey
from turbopool.transport.exchange import Exchange
from turbopool.transport.http2 import Http2Codec
from turbopool.transport.http2_link import Rider, StreamLandlord
from turbopool.transport.http2_pulse import Pulse, Sign
from turbopool.transport.http2_resets import Resets
from turbopool.transport.http2_state import LAST_ID, Code, ConnectionFailure, NotHttp2, StreamState
from turbopool.transport.http2_stream import Http2Stream
from turbopool.transport.interfaces import READ, WRITE, Channel, Reactor
from turbopool.transport.landlord import ConnectionSettings, Ending, expiry
from turbopool.transport.outbox import CONGESTED, Outbox

LOOK_AFTER = 0.001
"""Seconds unseen after which an idle connection is read from before use."""
_PING = b"turbopoo"


class Http2Connection:
    """One HTTP/2 connection.

    Args:
        channel: established; the codec's preface is sent with the first request, or at the end of this turn.
        key: whose it is.
        reactor, landlord, settings: as of :class:`Http1Connection`.
        assumed: streams the server is taken to allow before it says so.

    Attributes:
        codec: the protocol.
        requests: how many it has been given.
        expires_at: when its lifetime ends.
        idle_since, idle_until: since when it stands idle, and when it is to be evicted.
        is_digesting: whether it takes in what has arrived, and will say when that is done.
        has_answered: whether it ever carried a response.
    """

    driven = completed = 0
    """Nothing: no caller's thread ever has it."""

    __slots__ = (
        "_blocked", "_calm", "_channel", "_closed", "_due", "_flush_is_due", "_has_told", "_is_draining", "_is_filling",
        "_is_retired", "_landlord", "_limit", "_most", "_outbox", "_pulse", "_refused_before", "_resets", "_streams",
        "_timer", "_unflushed", "_watched", "codec", "expires_at", "has_answered", "idle_since", "idle_until",
        "is_digesting", "key", "reactor", "requests", "settings",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        key: PoolKey,
        reactor: Reactor,
        landlord: StreamLandlord[Http2Connection],
        settings: ConnectionSettings,
        *,
        assumed: int,
    ) -> None:
        now = reactor.now
        self._channel = channel
        self.key = key
        self.reactor = reactor
        self._landlord = landlord
        self.settings = settings
        self.codec = Http2Codec(settings.limits, settings.http2, now)
        self._most = settings.http2.max_concurrent_streams
        self._limit = assumed
        self._calm = LAST_ID
        self._streams: dict[int, Rider] = {}
        self._blocked: dict[Rider, None] = {}
        self._unflushed: dict[Rider, int] = {}
        self._outbox = Outbox(channel)
        self._resets = Resets(self.codec, now)
        self._pulse = Pulse(settings.http2.keep_alive_interval, settings.http2.keep_alive_timeout, now)
        self._refused_before = 0
        self._closed = self._is_retired = self._is_draining = self._flush_is_due = self._is_filling = False
        self._has_told = self.is_digesting = False
        self._watched = READ
        self._timer = reactor.timer(self._on_timer, self.on_crash)
        self._due = NEVER
        self.has_answered = False
        self.requests = 0
        self.expires_at = expiry(settings.lifetime, now)
        self.idle_since = now
        self.idle_until = NEVER
        reactor.watch(channel.fd, self, READ)
        self._wake_at(self._next_due())
        self._flush_at_end()

    # -- the landlord's side ---------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the descriptor is gone."""
        return self._closed

    @property
    def allowed(self) -> int:
        """Streams that may be on it at once, by the server's word and ours."""
        return min(self._most, self._limit)

    @property
    def capacity(self) -> int:
        """Streams it takes at once: what is allowed, or less where that was too much."""
        return min(self._most, self._limit, self._calm)

    @property
    def active(self) -> int:
        """Streams that count at the server: those of requests, and those that were cancelled a moment ago."""
        return len(self._streams) + self._resets.active

    @property
    def is_retired(self) -> bool:
        """Whether it takes no more requests, ever."""
        return self._closed or self._is_retired

    @property
    def has_room(self) -> bool:
        """Whether it takes another request now."""
        if self._closed or self._is_retired or self._pulse.is_suspect:
            return False
        active = len(self._streams) + self._resets.active
        return active < self._most and active < self._limit and active < self._calm

    def is_usable(self, now: float, *, careful: bool) -> bool:
        """Whether it may be lent: in its time, with room, and its peer there.

        The reactor looks at all connections in every turn. One that stands idle is read from first if that was long
        ago, and always for a ``careful`` lessee: it cannot be sent again.
        """
        if self._closed or self._is_retired:
            return False
        if now >= self.expires_at or self.codec.next_id > LAST_ID:
            self._is_retired = True
            return False
        if self._streams:
            return self.has_room
        if now >= self.idle_until:
            return False
        if careful or now - max(self.idle_since, self.reactor.polled_at) >= LOOK_AFTER:
            self._on_readable()
        return self.has_room

    def is_quiet(self) -> bool:
        """Whether its peer has not begun to end it."""
        return self.has_room

    def rest(self, now: float) -> None:
        """Begin to stand idle."""
        self.idle_since = now
        timeout = self.settings.idle_timeout
        self.idle_until = min(now + timeout if timeout else NEVER, self.expires_at)

    def stay(self, now: float) -> bool:
        """Stand idle beyond the idle timeout; return whether its lifetime allows that."""
        self.idle_until = self.expires_at
        return now < self.idle_until

    def run(self, exchange: Exchange) -> None:
        """Send a request on a stream of its own."""
        if not self._streams:
            self._pulse.hear(self.reactor.now)  # silence so far was no sign of anything
            self.idle_until = NEVER
        self.requests += 1
        stream = Http2Stream(self, exchange)
        exchange.connection = stream
        is_first = not self._streams
        self._streams[stream.state.stream_id] = stream
        if is_first:
            self._wake_at(self._pulse.due(self.reactor.now, waiting=True))
        if self._is_draining:
            stream.drain()
        stream.start()

    def drain(self) -> None:
        """Learn that the owner stops: streams that nobody reads are ended."""
        self._is_draining = True
        for stream in list(self._streams.values()):
            stream.drain()

    def kill(self, ending: Ending) -> None:
        """End all exchanges now with an error, and close; the landlord is not told, because it is the one who asks."""
        streams, self._streams = self._streams, {}
        self.close()
        for stream in streams.values():
            stream.kill(ending(stream.exchange.was_sent))

    def forsake(self, ending: Ending) -> None:
        """End the readers of streamed responses, and touch nothing else: the reactor's thread is stuck. Any thread."""
        while True:
            try:
                streams = list(self._streams.values())
            except RuntimeError:  # the thread is not that stuck
                continue
            break
        for stream in streams:
            stream.forsake(ending(True))  # noqa: FBT003  # a response came

    def close(self) -> None:
        """Say good-bye if there is room for it, and close the descriptor. Idempotent; does not tell the landlord."""
        if self._closed:
            return
        self._closed = True
        try:
            self.reactor.unwatch(self._channel.fd)
            if not self._outbox:
                with contextlib.suppress(OSError):
                    self._channel.send(self.codec.last_words())
                    self._channel.flush()
        finally:  # a descriptor that stayed open would be reported for ever
            self._channel.close()
            self._timer.close()

    # -- the reactor's side ----------------------------------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Read or write."""
        if mask & WRITE:
            self._flush()
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
            data = self._channel.receive()
        except OSError as error:
            self._on_broken(error)
            return
        if data is None:
            return
        if data and not self._take_in(data):
            return
        if not data or self._channel.ended:
            advice = None if self.codec.is_greeted else "if the server speaks HTTP/1.1 only, ask for http_version='1.1'"
            msg = "the server closed the connection before it had answered in full"
            self._die(RemoteProtocolError(msg, advice=advice))

    def _take_in(self, data: bytes) -> bool:
        """Hand what has arrived to the codec and then to the streams; return whether the connection goes on."""
        self._pulse.hear(self.reactor.now)
        try:
            news = self.codec.receive(data, self.reactor.now)
        except NotHttp2 as failure:
            self._on_other_protocol(failure)
            return False
        except ConnectionFailure as failure:
            self.retire()  # or what is released now would be lent again
            self._on_news(self.codec.news())
            self._on_violation(failure)
            return False
        self._on_news(news)
        return not self._closed

    def _on_terms(self, news: list[StreamState]) -> None:
        """React to what the peer has said of the connection, before a stream ends and its place is lent again."""
        codec = self.codec
        if codec.goaway is not None:
            self.retire()  # first, or what else is news would have it lent again
        elif refused := sum(state.refused for state in news):
            self._calm = max(1, min(self._calm, self.active - refused))  # as many as it took, before any of them ends
        if codec.limit not in (None, self._limit):
            self._limit = codec.limit or 0
            self._landlord.on_room(self)
        if codec.is_greeted and codec.is_acknowledged:
            self._pulse.settle()
        if codec.pongs:
            self._on_pong()

    def _on_news(self, news: list[StreamState]) -> None:
        self._on_terms(news)
        self._has_told, self.is_digesting = False, True
        for state in news:
            stream = self._streams.get(state.stream_id)
            if stream is not None:
                if state.code is not None:
                    self._on_reset(state)
                stream.on_news()
            elif self._resets.on_news(state):
                self._landlord.on_room(self)
        self.is_digesting = False
        if news and not self._closed:
            self._landlord.on_digested(self)
        if self.codec.has_room:
            self.codec.has_room = False
            self._go_on()
        self._end_if_spent()
        if self.codec.has_output or self._blocked:
            self._flush_at_end()

    # -- how many streams ------------------------------------------------------------------------------------

    def _on_reset(self, state: StreamState) -> None:
        """Take fewer streams if the server asks for calm; a connection that goes on refusing them is given up.

        Streams that were opened before the first refusal came are no further ones (OkHttp's rule of two refusals).
        """
        if state.code == Code.ENHANCE_YOUR_CALM:
            self._calm = max(1, min(self._calm, self.active // 2))
        elif state.refused and self.codec.goaway is None:
            if not self._refused_before:
                self._refused_before = self.codec.next_id
            elif state.stream_id >= self._refused_before:
                self.retire()

    def retire(self) -> None:
        """Take no more requests; those under way go on."""
        if not self._is_retired:
            self._is_retired = True
            self._landlord.on_retired(self)

    def _end_if_spent(self) -> None:
        """Be gone when the last request on a retired connection has ended."""
        if self._is_retired and not self._streams and not self._closed:
            if self.requests and not self.has_answered:
                self._landlord.on_broken(self, RemoteProtocolError("the server ended the connection at once"))
            self.close()
            self._landlord.on_lost(self, None)

    # -- resets, and signs of life ---------------------------------------------------------------------------

    def reset(self, state: StreamState, code: int) -> None:
        """End a stream before its time, unless it has ended by itself."""
        if state.stream_id in self.codec.streams and not self._closed:
            self._resets.end(state, code, self.reactor.now)
            self._wake_at(self._resets.due(self.reactor.now))
            self._flush_at_end()

    def on_late(self) -> None:
        """Take no more requests until the server has shown that it lives."""
        if not self._closed:
            self._pulse.suspect()
            self._ping()
            self._flush_at_end()

    def _ping(self) -> None:
        """Ask for a sign of life, unless an answer is due."""
        if self._pulse.asked_at == NEVER:
            self._pulse.ping(self.reactor.now)
            self._resets.asked()
            self.codec.ping(_PING)
        self._wake_at(self._pulse.due(self.reactor.now, waiting=bool(self._streams)))

    def _on_pong(self) -> None:
        self.codec.pongs = 0
        self._pulse.answer()
        self._resets.answered()
        self._resets.catch_up(self.reactor.now)
        self._landlord.on_room(self)

    # -- time ------------------------------------------------------------------------------------------------

    def expect(self, stream: Rider) -> None:
        """Look at a stream when it is due."""
        due = stream.due
        if due < self._due:
            self._wake_at(due)

    def _wake_at(self, when: float) -> None:
        if when < self._due:
            self._due = when
            self._timer.arm(when)

    def _on_timer(self) -> None:
        now = self.reactor.now
        self._due = NEVER
        sign = self._pulse.sign(now, waiting=bool(self._streams))
        if sign is Sign.UNSETTLED:
            self._on_violation(ConnectionFailure(Code.SETTINGS_TIMEOUT, "it did not settle its SETTINGS in time"))
        elif sign is Sign.DEAD:
            timeout = self.settings.http2.keep_alive_timeout
            self._die(ReadError("the server did not answer a PING", keep_alive_timeout=timeout))
        elif sign is Sign.DOUBTFUL:
            self.retire()
        elif sign is Sign.ASK:
            self._ping()
        for stream in list(self._streams.values()):
            stream.check(now)
        if not self._closed:
            self._resets.catch_up(now)
            self._end_if_spent()
        if not self._closed:
            self._flush_at_end()
            self._wake_at(self._next_due())

    def _next_due(self) -> float:
        now, streams = self.reactor.now, self._streams.values()
        due = min((stream.due for stream in streams), default=NEVER)
        return min(due, self._pulse.due(now, waiting=bool(streams)), self._resets.due(now))

    # -- writing ---------------------------------------------------------------------------------------------

    @property
    def is_congested(self) -> bool:
        """Whether so much waits for the socket that nothing more should be written."""
        return self._outbox.size + self.codec.laid >= CONGESTED

    @property
    def has_proven(self) -> bool:
        """Whether the server ever answered, over whichever connection."""
        return self.has_answered or self._landlord.has_answered

    def flush_soon(self, stream: Rider) -> None:
        """Send what the stream has written, at the end of this turn."""
        self._unflushed.setdefault(stream, self._outbox.added)
        if not self._flush_is_due:
            self._flush_at_end()

    def wait_for_room(self, stream: Rider) -> None:
        """Let the stream go on when a window or the socket has room, after those that wait already."""
        self._blocked.pop(stream, None)
        self._blocked[stream] = None

    def _flush_at_end(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            put_off = self.reactor.post if self._is_filling else self.reactor.defer
            put_off(self._flush, self.on_crash)

    def _flush(self) -> None:
        """Send all that has been written, and let those go on who waited for room."""
        self._flush_is_due = False
        if self._closed:
            return
        if self._resets.wants_ping:
            self._ping()
        try:
            self._write()
        except OSError as error:
            self._on_write_error(error)
            return
        if not self._outbox and self._blocked:
            self._is_filling = True  # what they write goes out in the next turn: it may be a large body
            self._go_on()
            self._is_filling = False

    def _write(self) -> None:
        outbox = self._outbox
        outbox.add(self.codec.take())
        outbox.flush()
        waiting, taken = self._unflushed, outbox.taken
        self._unflushed = {stream: since for stream, since in waiting.items() if since >= taken} if outbox else {}
        for stream, since in waiting.items():
            if since < taken:
                stream.note_sent()
        self._watch(READ if self._channel.flush() and not outbox else READ | WRITE)

    def _go_on(self) -> None:
        """Let those write who waited for room, in turn. Who could is the last next time."""
        waiting, self._blocked = self._blocked, {}
        served = []
        for stream in waiting:
            before = stream.written
            stream.go_on()
            if stream.written > before:
                served.append(stream)
        for stream in served:
            if stream in self._blocked:
                self.wait_for_room(stream)

    def _watch(self, mask: int) -> None:
        if self._watched != mask:
            self._watched = mask
            self.reactor.rewatch(self._channel.fd, mask)

    # -- what becomes of an exchange -------------------------------------------------------------------------

    def on_begun(self) -> None:
        """Learn that a response has begun: the landlord does once for all that a turn brings."""
        self.has_answered = True
        if not self._has_told:
            self._has_told = True
            self._landlord.on_answered(self)

    def on_ended(self, stream: Rider) -> None:
        """Take an exchange off, and tell the landlord."""
        if self._take_off(stream):
            self._landlord.on_released(self, stream.exchange, reusable=True)  # whether it takes more it is asked
            if self._is_retired:
                self._end_if_spent()

    def on_returned(self, stream: Rider, error: TurboPoolError) -> None:
        """Take an exchange off that is to be sent again."""
        if self._take_off(stream):
            self.reset(stream.state, Code.CANCEL)
            self._landlord.on_returned(self, stream.exchange, error)
            self._end_if_spent()

    def on_lowered(self, stream: Rider, error: TurboPoolError) -> None:
        """Take an exchange off that the server wants over HTTP/1.1."""
        if self._take_off(stream):
            self._landlord.on_lowered(self, [stream.exchange], error)
            self._end_if_spent()

    def on_misdirected(self) -> None:
        """Send no more of this origin's requests here."""
        self.retire()

    def _take_off(self, stream: Rider) -> bool:
        if self._blocked:
            self._blocked.pop(stream, None)
        if self._unflushed:
            self._unflushed.pop(stream, None)
        stream.exchange.connection = None
        return self._streams.pop(stream.state.stream_id, None) is not None

    # -- the end ---------------------------------------------------------------------------------------------

    def _on_write_error(self, error: OSError) -> None:
        """The server may have said why before it closed: that is looked for first."""
        self._watch(READ)
        self._outbox.clear()
        self._on_readable()
        self._on_broken(error, WriteError)

    def _on_broken(self, error: OSError, kind: type[TurboPoolError] = ReadError) -> None:
        """The kernel or the TLS layer gave the connection up."""
        problem = kind(f"the connection broke: {error}")
        problem.__cause__ = error
        self._die(problem)

    def _on_violation(self, failure: ConnectionFailure) -> None:
        """The peer broke the protocol: it is told, and everything ends."""
        name = failure.code if not isinstance(failure.code, Code) else failure.code.name
        self._die(RemoteProtocolError(f"the server broke HTTP/2: {failure}", error_code=str(name)), failure.code)

    def _on_other_protocol(self, failure: NotHttp2) -> None:
        """The peer does not speak HTTP/2, and has processed nothing."""
        streams, self._streams = self._streams, {}
        lessees = [stream.exchange for stream in streams.values()]
        for stream in streams.values():
            stream.leave()
        self.close()
        self._landlord.on_lowered(self, lessees, RemoteProtocolError(str(failure)))
        self._landlord.on_lost(self, None)

    def _die(self, error: TurboPoolError, code: int | None = None) -> None:
        """End the connection: each request is sent again or fails, by what is known of it."""
        if self._closed:
            return
        if code is not None:
            self.codec.close(code)
        self.close()
        streams = list(self._streams.values())
        if any(not stream.state.has_begun for stream in streams):
            self._landlord.on_broken(self, error)
        for stream in streams:
            stream.lose(error, by_excess=code == Code.ENHANCE_YOUR_CALM)
        self._landlord.on_lost(self, error)
