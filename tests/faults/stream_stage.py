"""HTTP/2 on a fake clock: the stage of the actors' tests, with a peer in memory at the end of every channel."""

from __future__ import annotations

from dataclasses import replace
from typing import Self, Unpack

from hyperframe.frame import Frame, GoAwayFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.actors.stage import Call, Parts, Stage
from tests.servers.h2recv import FRAME_HEAD, PREFACE, FrameReader
from tests.servers.h2send import FrameSender
from turbopool import Http2Options, TurboPoolError
from turbopool.actors.pool import PoolSettings
from turbopool.stats import PoolKey
from turbopool.transport.http2_connection import Http2Connection
from turbopool.transport.http2_wire import write_stream_request
from turbopool.transport.memory import MemoryChannel

KEY2 = PoolKey.of("http", "two.test", version="2")
OK = [(":status", "200")]


class MemoryPeer(FrameSender, FrameReader):
    """The server's end of a channel: answers PING and SETTINGS, unless told not to, and nothing else."""

    def __init__(self, channel: MemoryChannel) -> None:
        """Say nothing yet."""
        FrameSender.__init__(self, channel.feed)
        FrameReader.__init__(self, 0)
        self.channel = channel
        self.answers_pings = self.acks_settings = True
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
            end = FRAME_HEAD + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                break
            head, payload, self._buffer = self._buffer[:FRAME_HEAD], self._buffer[FRAME_HEAD:end], self._buffer[end:]
            self._react(self.note(head, payload))
        return bool(taken)

    def respond(self, stream_id: int, body: bytes = b"") -> None:
        """Answer a request."""
        self.send_headers(stream_id, OK, end_stream=not body)
        if body:
            self.send_data(stream_id, body, end_stream=True)

    @property
    def pings(self) -> int:
        """How often the client asked for a sign of life."""
        return sum(isinstance(frame, PingFrame) and "ACK" not in frame.flags for frame in self.frames)

    @property
    def resets(self) -> list[tuple[int, int]]:
        """Stream and code of every RST_STREAM of the client."""
        return [(frame.stream_id, frame.error_code) for frame in self.frames if isinstance(frame, RstStreamFrame)]

    @property
    def farewells(self) -> list[int]:
        """The code of every GOAWAY of the client."""
        return [frame.error_code for frame in self.frames if isinstance(frame, GoAwayFrame)]

    def _react(self, frame: Frame) -> None:
        if self.channel.closed or "ACK" in frame.flags:
            return
        match frame:
            case SettingsFrame() if self.acks_settings:
                self.send_settings_ack()
            case PingFrame() if self.answers_pings:
                self.send_ping(frame.opaque_data, ack=True)
            case _:
                pass


class StreamStage(Stage):
    """A stage whose requests go over HTTP/2 to one server."""

    def __init__(self, *, streams: int = 100, limit: int = 2, interval: float | None = 30.0) -> None:
        """Args: streams: on a connection. limit: connections. interval: that of keep-alive."""
        self.peers: list[MemoryPeer] = []
        super().__init__(limit=limit)
        http2 = Http2Options(max_concurrent_streams=streams, keep_alive_interval=interval)
        connection = replace(self._settings.connection, http2=http2)
        self._settings: PoolSettings = replace(self._settings, connection=connection, streams=streams)

    def settle(self) -> None:
        """Let everything happen that can happen at this moment, at the peers' ends as well."""
        super().settle()
        while sum(peer.pump() for peer in self.peers):  # of all of them
            super().settle()

    def prepare(self, key: PoolKey = KEY2, **parts: Unpack[Parts]) -> Call:
        """As that of the base, for HTTP/2."""
        call = super().prepare(key, **parts)
        target = f"/{len(self.calls) - 1}"
        call.exchange.wire = write_stream_request(
            key.scheme, parts.get("method", "GET"), target, key.host, parts.get("fields", ()), parts.get("body")
        )
        return call

    def asked(self, **parts: Unpack[Parts]) -> Call:
        """Send a request."""
        return self.send(KEY2, **parts)

    @classmethod
    def proven(cls, streams: int = 100, limit: int = 2, interval: float | None = 30.0) -> tuple[Self, MemoryPeer]:
        """A stage with an idle connection that has answered once."""
        stage = cls(streams=streams, limit=limit, interval=interval)
        call = stage.asked()
        peer = stage.serve()
        peer.respond(1)
        stage.settle()
        assert call.response.status_code == 200
        return stage, peer

    def connection(self) -> Http2Connection:
        """The newest connection, which has to be idle or to carry something."""
        books = self.pools[KEY2].ledger
        connection: Http2Connection = [*books.carriers(), *books.idle][-1]
        return connection

    def serve(self, *, greets: bool = True, **settings: int) -> MemoryPeer:
        """Let the oldest dial succeed; its server sends SETTINGS unless it is told not to."""
        channel = self.dialer.pending[0].succeed()
        peer = MemoryPeer(channel)
        self.peers.append(peer)
        peer.acks_settings = peer.answers_pings = greets
        if greets:
            peer.send_settings(None, **settings)
        self.settle()
        return peer

    @property
    def figures(self) -> tuple[int, int, int]:
        """Connections that carry something, requests they carry, requests in the queue."""
        stats = self.stats(KEY2)
        return stats.leased, stats.in_flight, stats.waiting


def known(call: Call, kind: type[TurboPoolError], processed: str, *, may_retry: bool, phase: str = "wait") -> None:
    """The error of a call, which says what is known of its request (I27)."""
    error = call.error
    assert isinstance(error, kind), repr(error)
    assert (error.processed, error.may_retry, error.phase) == (processed, may_retry, phase), repr(error)
