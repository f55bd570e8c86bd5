"""A stage whose requests go over HTTP/2, each channel with a server in memory at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack

from hyperframe.frame import Frame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.actors.calls import Parts
from tests.actors.stage import Call, Stage
from tests.servers.h2recv import FRAME_HEAD, PREFACE, FrameReader, H2Request
from tests.servers.h2send import FrameSender
from turbopool import Http2Options
from turbopool.actors.http2_manager import Http2ConnectionManagerActor
from turbopool.errors import TurboPoolError
from turbopool.stats import PoolKey, PoolStats
from turbopool.transport.http2_connection import Http2Connection
from turbopool.transport.http2_wire import write_stream_request
from turbopool.transport.memory import MemoryChannel, MemoryDial

REFUSED, CANCEL, CALM, HTTP11 = 7, 8, 11, 13
"""Codes of RFC 9113."""
TWO = PoolKey.of("http", "two.test", version="2")
OTHER_TWO = PoolKey.of("http", "other.test", version="2")
TLS_TWO = PoolKey.of("https", "two.test", version="2")


class Peer(FrameSender, FrameReader):
    """The server's end of a channel: answers PING and SETTINGS, unless told not to, and nothing else."""

    def __init__(self, channel: MemoryChannel) -> None:
        """Say nothing yet."""
        FrameSender.__init__(self, channel.feed)
        FrameReader.__init__(self, 0)
        self.channel = channel
        self.answers_pings = self.acks_settings = True
        self.ended: set[int] = set()
        """Streams that were answered, reset or refused."""
        self._held_pings: list[bytes] = []
        self._buffer = b""
        self._is_greeted = False

    def pump(self) -> bool:
        """Take in what the client has written; return whether there was any."""
        taken = self.channel.take()
        self._buffer += taken
        if not self._is_greeted and len(self._buffer) >= len(PREFACE):
            assert self._buffer.startswith(PREFACE)
            self._buffer = self._buffer[len(PREFACE) :]
            self._is_greeted = True
        while self._is_greeted and len(self._buffer) >= FRAME_HEAD:
            end = FRAME_HEAD + int.from_bytes(self._buffer[:3])
            if len(self._buffer) < end:
                break
            head, payload, self._buffer = self._buffer[:FRAME_HEAD], self._buffer[FRAME_HEAD:end], self._buffer[end:]
            self._react(self.note(head, payload))
        return bool(taken)

    @property
    def active(self) -> list[H2Request]:
        """Requests that wait for an answer."""
        return [request for request in self.requests if request.reset is None and request.stream_id not in self.ended]

    @property
    def paths(self) -> list[str]:
        """Of all requests, in the order they came."""
        return [request.path for request in self.requests]

    @property
    def resets(self) -> list[tuple[int, int]]:
        """Stream and code of every RST_STREAM of the client."""
        return [(frame.stream_id, frame.error_code) for frame in self.frames if isinstance(frame, RstStreamFrame)]

    @property
    def has_goodbye(self) -> bool:
        """Whether the client said GOAWAY."""
        return any(isinstance(frame, GoAwayFrame) for frame in self.frames)

    def respond(self, stream_id: int, body: bytes = b"ok", status: int = 200) -> None:
        """Answer a request."""
        self.ended.add(stream_id)
        self.send_headers(stream_id, [(":status", str(status)), ("content-length", str(len(body)))])
        self.send_data(stream_id, body, end_stream=True)

    def refuse(self, stream_id: int, code: int = REFUSED) -> None:
        """Reset a stream."""
        self.ended.add(stream_id)
        self.send_rst(stream_id, code)

    def leave(self, last: int, code: int = 0) -> None:
        """Say GOAWAY; what is above ``last`` is answered no more."""
        self.ended |= {request.stream_id for request in self.requests if request.stream_id > last}
        self.send_goaway(last, code)

    def answer_pings(self) -> None:
        """Answer those that were held back, and all further ones."""
        self.answers_pings = True
        while self._held_pings:
            self.send_ping(self._held_pings.pop(0), ack=True)

    def _react(self, frame: Frame) -> None:
        if self.channel.closed or "ACK" in frame.flags:
            return
        match frame:
            case SettingsFrame() if self.acks_settings:
                self.send_settings_ack()
            case PingFrame() if self.answers_pings:
                self.send_ping(frame.opaque_data, ack=True)
            case PingFrame():
                self._held_pings.append(frame.opaque_data)
            case _:
                pass


class Streams(Stage):
    """A stage whose requests go over HTTP/2, to one server unless another key is named.

    Args:
        streams: the most on a connection.
        http2: all options of HTTP/2.
        options: of a :class:`Stage`.
    """

    def __init__(self, *, streams: int = 100, http2: Http2Options | None = None, **options: Any) -> None:  # noqa: ANN401 - those of a stage
        """Start the supervisor."""
        self.peers: dict[MemoryChannel, Peer] = {}
        super().__init__(**options)
        http2 = replace(http2 or Http2Options(), max_concurrent_streams=streams)
        connection = replace(self._settings.connection, http2=http2)
        self._settings = replace(self._settings, connection=connection, streams=streams)

    def settle(self) -> None:
        """Let everything happen that can happen at this moment, at the servers' ends as well."""
        super().settle()
        while sum(peer.pump() for peer in self.peers.values()):  # each of them is asked
            super().settle()

    # -- callers -------------------------------------------------------------------------

    def prepare(self, key: PoolKey = TWO, *, lower: bool = False, **parts: Unpack[Parts]) -> Call:
        """As that of the base; ``lower`` says that HTTP/1.1 will do."""
        call = super().prepare(key, **parts)
        if key.version == "2":
            call.exchange.wire = write_stream_request(
                key.scheme, parts.get("method", "GET"), self.path(call), key.host, parts.get("fields", ()),
                parts.get("body"),
            )  # fmt: skip
        call.exchange.may_lower = lower
        return call

    def path(self, call: Call) -> str:
        """Of a request: it is unique."""
        return f"/{self.calls.index(call)}"

    def send(self, key: PoolKey = TWO, *, lower: bool = False, **parts: Unpack[Parts]) -> Call:
        """Send a request, and let happen what follows at once."""
        call = self.submit(self.prepare(key, lower=lower, **parts))
        self.settle()
        return call

    def send_many(self, count: int, key: PoolKey = TWO, *, lower: bool = False, **parts: Unpack[Parts]) -> list[Call]:
        """Send requests in one moment."""
        calls = [self.submit(self.prepare(key, lower=lower, **parts)) for _ in range(count)]
        self.settle()
        return calls

    # -- the network ---------------------------------------------------------------------

    def serve(self, dial: MemoryDial | None = None, *, greets: bool = True, **settings: int) -> Peer:
        """Let a dial succeed, the oldest one unless another is named; its server sends SETTINGS unless told not to."""
        dial = dial or self.dialer.pending[0]
        channel = MemoryChannel(self.poller)
        channel.version = "h2" if dial.key.scheme == "https" else None
        peer = self.peers[channel] = Peer(channel)
        peer.acks_settings = greets
        if greets:
            peer.send_settings(None, **settings)
        dial.succeed(channel)
        self.settle()
        return peer

    def served(
        self, count: int = 1, key: PoolKey = TWO, *, greets: bool = True, **settings: int
    ) -> tuple[list[Call], Peer]:
        """Send requests that have to dial, and let them be connected."""
        calls = self.send_many(count, key)
        return calls, self.serve(self.dialer.pending[-1], greets=greets, **settings)

    def rested(self, key: PoolKey = TWO, **settings: int) -> Peer:
        """A connection that has served a request and is idle."""
        (call,), peer = self.served(1, key, greets=True, **settings)
        self.reply(call)
        return peer

    def find(self, call: Call) -> tuple[Peer, int]:
        """The server and the stream that a request was last sent to."""
        path, host = self.path(call), call.exchange.key.host
        found = [
            (peer, request.stream_id)
            for peer in self.peers.values()
            for request in peer.requests
            if request.path == path and request.header(":authority") == host
        ]
        return found[-1]

    def reply(self, *calls: Call, body: bytes = b"ok") -> None:
        """Let the server answer requests that are on streams."""
        for call in calls:
            peer, stream_id = self.find(call)
            peer.respond(stream_id, body)
        self.settle()

    def lose(self, peer: Peer) -> None:
        """Let a connection break without a word."""
        peer.channel.error = ConnectionResetError("reset")
        self.settle()

    # -- the runtime ---------------------------------------------------------------------

    def figures(self, key: PoolKey = TWO) -> tuple[int, int, int, int]:
        """Connections that carry something, requests they carry, idle connections, requests in the queue."""
        stats = self.stats(key)
        return stats.leased, stats.in_flight, stats.idle, stats.waiting

    def stats(self, key: PoolKey = TWO) -> PoolStats:
        """The figures of a key, as callers see them."""
        return super().stats(key)

    def connections(self, key: PoolKey = TWO) -> list[Http2Connection]:
        """All connections of a key."""
        books = self.pools[key].ledger
        return [*books.carriers(), *books.idle]

    def on_connection(self, call: Call, peer: Peer) -> bool:
        """Whether a request was last sent over this connection."""
        return self.find(call)[0] is peer

    def is_http2(self, key: PoolKey = TWO) -> bool:
        """Whether the key's manager is one of HTTP/2."""
        return issubclass(self.pools[key].ref.actor_class, Http2ConnectionManagerActor)

    def error(self, call: Call, kind: type[TurboPoolError]) -> TurboPoolError:
        """What a request failed with, of a kind."""
        assert isinstance(call.error, kind), repr(call.error)
        return call.error


StageOf = Callable[..., Streams]
"""Makes stages with options of a test's own."""
