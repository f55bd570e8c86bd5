"""HTTP/2 over one connection: bytes in, the state of streams out. No socket, thread or clock; time is an argument.

``h2`` is the authority on the connection: settings, PING, its windows. Frames are cut and judged here first:

- GOAWAY never reaches it, because it would end the streams that the server still answers (RFC 9113 section 6.8).
- Frames of streams that have ended never reach it, because it would answer each with another RST_STREAM. Their header
  blocks are read all the same, and their data is credited.
- Streams are carried by one of two lanes, ``h2`` itself or a faster one: :mod:`turbopool.transport.http2_lanes`.
- Header blocks are read and judged by :mod:`turbopool.transport.http2_fields`; it is told that there was one.
- What floods is counted first: :mod:`turbopool.transport.http2_conduct`.

A violation that concerns one stream resets it; any other ends the connection with :class:`ConnectionFailure`.
"""

from __future__ import annotations

from typing import NoReturn

import h2.config
import h2.connection
import h2.exceptions
import h2.settings
from hpack import HPACKError

from turbopool.config import Http2Options
from turbopool.errors import IncompleteRead, LimitExceeded, RemoteProtocolError, TurboPoolError, shorten
from turbopool.transport.head import Limits
from turbopool.transport.http2_conduct import Conduct
from turbopool.transport.http2_fields import FieldReader, FieldWriter
from turbopool.transport.http2_lanes import Connection, FastLane, H2Lane, Lane
from turbopool.transport.http2_state import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    GOAWAY,
    HEADER,
    HEADERS,
    LAST_ID,
    NUMBER,
    PADDED,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Code,
    ConnectionFailure,
    GoAway,
    NotHttp2,
    StreamState,
    framed,
)
from turbopool.transport.http2_wire import StreamRequest

MAX_FRAME = 16_384
"""Bytes of a frame's payload; we do not offer more (RFC 9113 section 6.5.2)."""
_GOAWAY_BYTES = FRAME_HEADER + 8
_TO_BE_STRIPPED = PADDED | WITH_PRIORITY
_SMALL = 128
"""Bytes of data of an ended stream below which a frame is worth counting: it costs the peer next to nothing."""
_FIRST_WINDOW = 65_535
_HTTP1 = b"HTTP/1."


class Http2Codec:
    """The client's end of one connection.

    Args:
        limits: how much a response may hold.
        options: the windows.
        now: the present moment.

    Attributes:
        streams: those that have not ended, by id.
        next_id: of the next stream.
        limit: streams the peer allows at once, or None until it says so.
        is_greeted: whether the peer's SETTINGS have come.
        is_acknowledged: whether it has acknowledged ours.
        goaway: what the peer said in farewell, or None.
        pongs: PINGs of ours that were answered.
        has_room: whether a window has been opened since this was last set to False.
        laid: bytes of bodies that were not taken yet.
        is_spent: whether no id is left for another stream.
    """

    def __init__(self, limits: Limits, options: Http2Options, now: float) -> None:
        self._limits = limits
        self._options = options
        self._conduct = Conduct(now)
        self._h2 = Connection(h2.config.H2Configuration(
            client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False,
            validate_inbound_headers=False, normalize_inbound_headers=False,
        ))  # fmt: skip
        self._reader = self._h2.decoder = FieldReader(limits)
        self._writer = self._h2.encoder = FieldWriter()
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values={
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: options.stream_window,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_response_headers,
        })  # fmt: skip
        self._h2.initiate_connection()
        if options.connection_window > _FIRST_WINDOW:
            self._h2.increment_flow_control_window(options.connection_window - _FIRST_WINDOW)
        self._out = [self._h2.data_to_send()]
        lane = FastLane if options.fast_lane else H2Lane
        window = max(options.connection_window, _FIRST_WINDOW)
        self._lane: Lane = lane(self._h2, self._out, window, options.stream_window)
        self._tail = b""
        self._block: bytearray | None = None
        self._block_of = self._block_flags = 0
        self.next_id = self._paid_for = 1
        self._pings = 0
        self._now = now
        self._touched: dict[StreamState, None] = {}
        self.streams: dict[int, StreamState] = {}
        self.limit: int | None = None
        self.is_greeted = self.is_acknowledged = self.has_room = False
        self.goaway: GoAway | None = None
        self.pongs = self.laid = 0

    # -- sending ---------------------------------------------------------------------------------------------

    @property
    def is_spent(self) -> bool:
        """Whether no id is left for another stream."""
        return self.next_id > LAST_ID

    @property
    def is_over(self) -> bool:
        """Whether the good-bye has been said: nothing is written after it."""
        return self._h2.state_machine.state is h2.connection.ConnectionState.CLOSED

    def open(self, request: StreamRequest, *, end: bool) -> tuple[StreamState, int]:
        """Begin a stream; return it, and the bytes of its header block. ``end`` says that there is no body."""
        block = self._writer.prepare(request)
        stream_id = self.next_id
        self.next_id += 2
        stream = StreamState(stream_id, is_head=request.method == "HEAD", is_sending=not end)
        self._lane.open(stream, block)
        self.streams[stream_id] = stream
        return stream, len(block)

    def send(self, stream: StreamState, data: memoryview | bytes, *, end: bool = False) -> int:
        """Send as much as one frame and the windows hold; return how much. The end is said with the last byte."""
        if self.is_over:
            return 0
        taken = min(len(data), MAX_FRAME, self._h2.max_outbound_frame_size)  # no larger, or others wait
        if taken or not end:  # a frame that says nothing is none
            taken = min(taken, self.window(stream))
            if not taken:
                return 0
        is_last = end and taken == len(data)
        self._lane.send(stream, bytes(data[:taken]), end=is_last)
        self.laid += taken
        self._conduct.windows.earn(10)
        if is_last:
            stream.is_sending = False
            if stream.complete:
                self._forget(stream)
        return taken

    def window(self, stream: StreamState) -> int:
        """Return how many bytes of body may be sent on a stream now."""
        return max(0, self._lane.window(stream))

    def reset(self, stream: StreamState, code: int) -> None:
        """End a stream; what still comes of it reaches nobody."""
        if stream.stream_id in self.streams:
            if not self.is_over and (stream.is_sending or not stream.complete):  # else both have ended it
                self._lane.reset(stream, code)
            self._forget(stream)

    def consume(self, stream: StreamState, size: int) -> None:
        """Open the window of a stream again: its reader has taken so many bytes."""
        if stream.stream_id in self.streams and not self.is_over:
            self._lane.consume(stream, size)

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life; ``payload`` has 8 bytes."""
        if not self.is_over:
            self._h2.ping(payload)
            self._pings += 1

    def close(self, code: int = Code.NO_ERROR) -> None:
        """Say good-bye."""
        if not self.is_over:
            self._h2.close_connection(code)

    def last_words(self) -> bytes:
        """Return a GOAWAY, and drop all else that was to be sent: it never was."""
        self.close()
        return self.take()[-_GOAWAY_BYTES:]

    @property
    def has_output(self) -> bool:
        """Whether there is something to be sent."""
        self._collect()
        return bool(self._out)

    def take(self) -> bytes:
        """Return what is to be sent."""
        self._collect()
        data = b"".join(self._out)
        self._out.clear()
        self.laid = 0
        return data

    # -- receiving -------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[StreamState]:
        """Take what has arrived; return the streams of which there is news, in the order it came.

        Raises:
            ConnectionFailure: the connection cannot go on. What was read before it has changed the streams all the
                same; :meth:`news` has them.
        """
        self._now = now
        data = self._tail + data if self._tail else data
        at, end = 0, len(data)
        if not self.is_greeted and data.startswith(_HTTP1[:end]):
            self._on_http1(data)
            return []
        try:
            while end - at >= FRAME_HEADER:
                if not self.is_greeted and data[at + 3] != SETTINGS:  # first: what is no frame has no length
                    self._fail(Code.PROTOCOL_ERROR, f"it did not begin with SETTINGS but with {shorten(data, 40)}")
                word, flags, stream_id = HEADER.unpack_from(data, at)
                start = at + FRAME_HEADER
                stop = start + (word >> 8)
                if stop - start > MAX_FRAME:
                    self._fail(Code.FRAME_SIZE_ERROR, "a frame larger than was offered")
                if stop > end:
                    break
                kind, stream_id = word & 0xFF, stream_id & LAST_ID
                if self._block is not None and (kind != CONTINUATION or stream_id != self._block_of):
                    self._fail(Code.PROTOCOL_ERROR, "another frame within a header block")
                handler = _HANDLERS.get(kind)
                if handler is None:  # PRIORITY, and whatever is added to HTTP/2 (RFC 9113 section 5.5)
                    self._count("strays")
                else:
                    handler(self, flags, stream_id, data[start:stop])
                at = stop
        except h2.exceptions.ProtocolError as error:
            raise ConnectionFailure(error.error_code, shorten(str(error).encode())) from error
        except ConnectionFailure as failure:
            self.close(failure.code)
            raise
        self._tail = data[at:]
        return self.news()

    def news(self) -> list[StreamState]:
        """Return, once, the streams of which there is news."""
        touched = list(self._touched)
        self._touched.clear()
        return touched

    def _on_http1(self, data: bytes) -> None:
        self._tail = data
        if len(data) >= len(_HTTP1):
            msg = f"the server does not speak HTTP/2; it said {shorten(data, 40)}"
            raise NotHttp2(Code.HTTP_1_1_REQUIRED, msg)

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._on_stray(stream_id, counts=len(payload) < _SMALL)
            self._lane.on_stray(len(payload))
            return
        if stream.head is None:
            self._fail(Code.PROTOCOL_ERROR, "data before the head of a response")
        self._touched[stream] = None
        if stream.complete:
            self._lane.on_stray(len(payload))
            self._spoil(stream, RemoteProtocolError("more came after the end of the response", phase="recv"))
            return
        data = self._lane.on_data(stream, flags, payload)
        if data:
            stream.keep(data)
        if flags & END_STREAM:  # nothing follows that would need a window
            stream.complete = True
        else:
            if not data:
                self._count("blanks")
            if flags & PADDED:
                self._lane.consume(stream, len(payload) - len(data))
        self._check_length(stream)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._on_stray(stream_id)
        block = self._stripped(flags, payload) if flags & _TO_BE_STRIPPED else payload
        if flags & END_HEADERS:
            self._on_block(stream, block, ends=bool(flags & END_STREAM))
        else:
            self._block_of, self._block_flags = stream_id, flags
            self._block = bytearray(block)

    def _stripped(self, flags: int, payload: bytes) -> bytes:
        """Return the block without padding and priority (RFC 9113 section 6.2)."""
        start = bool(flags & PADDED) + (5 if flags & WITH_PRIORITY else 0)
        stop = len(payload) - (payload[0] if flags & PADDED and payload else 0)
        if start > stop:
            self._fail(Code.PROTOCOL_ERROR, "more padding than frame")
        return payload[start:stop]

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            self._fail(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block += payload
        if not payload:
            self._count("blanks")
        if len(self._block) > self._limits.max_response_headers * 4:
            self._fail(Code.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._on_block(self.streams.get(stream_id), block, ends=bool(self._block_flags & END_STREAM))

    def _on_block(self, stream: StreamState | None, data: bytes, *, ends: bool) -> None:
        """Read a header block, and tell the lane that there was one. One of a stream that has ended is but read."""
        try:
            block = self._reader.read(data)
        except HPACKError as error:
            calm = "larger than" in str(error)
            self._fail(Code.ENHANCE_YOUR_CALM if calm else Code.COMPRESSION_ERROR, f"a header block: {error}")
        if stream is None:
            return
        self._touched[stream] = None
        stream.has_begun = True
        head = block.head
        if head is None or stream.head is not None:  # anything but the one good head of a response
            problem = block.problem or self._judge(stream, block.status, ends=ends)
            if problem is not None:
                self._spoil(stream, problem)
                return
        self._lane.on_head(stream, ends=ends)
        if head is not None:
            stream.head = head
            has_no_body = stream.is_head or block.status in (204, 304)
            stream.expected = 0 if has_no_body else block.length
        elif not block.status:
            stream.trailers = list(block.fields)  # the caller's own: the block is remembered
        if ends:
            stream.complete = True
            self._check_length(stream)

    def _judge(self, stream: StreamState, status: int, *, ends: bool) -> TurboPoolError | None:
        """Say what is wrong with a header block at this point of a stream (RFC 9113 section 8.1)."""
        if stream.complete:
            return RemoteProtocolError("more came after the end of the response", phase="recv")
        if stream.head is not None and (status or not ends):
            return RemoteProtocolError("the response is malformed: its trailers are none", phase="recv")
        if stream.head is None and not status:
            return RemoteProtocolError("the response is malformed: it has no status", phase="recv")
        if 100 <= status < 200:  # noqa: PLR2004  # informational
            stream.informational += 1
            if ends or status == 101:  # noqa: PLR2004  # section 8.6
                return RemoteProtocolError(f"the response is malformed: status {status}", phase="recv")
            if stream.informational > self._limits.max_informational:
                limit = self._limits.max_informational
                return LimitExceeded(f"more than {limit} informational responses", option="max_informational",
                                     limit=limit, phase="recv")  # fmt: skip
        return None

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002  # as all handlers
        stream = self.streams.get(stream_id)
        if stream is None:
            self._on_stray(stream_id)
            self._conduct.resets.earn((self.next_id - self._paid_for) / 2)
            self._paid_for = self.next_id
            self._count("resets")
            return
        self._touched[stream] = None
        stream.code = self._lane.on_reset(stream, payload)
        stream.refused = stream.code == Code.REFUSED_STREAM and not stream.has_begun
        self._forget(stream)

    def _on_window(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._count("windows")
        stream = self.streams.get(stream_id)
        self.has_room = True
        if not stream_id:
            self._tell(WINDOW_UPDATE, flags, stream_id, payload)
        elif stream is None:
            self._on_stray(stream_id)
        elif len(payload) == NUMBER and not int.from_bytes(payload) & LAST_ID:
            self._spoil(stream, RemoteProtocolError("the server opened a window by nothing", phase="send"))
        elif not self._lane.on_window(stream, payload):
            stream.problem = RemoteProtocolError("the server opened a window too far", phase="send")
            self._touched[stream] = None
            self._forget(stream)

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & ACK and not self.is_greeted:
            self._fail(Code.PROTOCOL_ERROR, "the server did not begin with SETTINGS")
        self._count("settings")
        for at in range(0, len(payload) - 5, 6):
            name, value = int.from_bytes(payload[at : at + 2]), int.from_bytes(payload[at + 2 : at + 6])
            if name == h2.settings.SettingCodes.ENABLE_PUSH and value:
                self._fail(Code.PROTOCOL_ERROR, "a server cannot allow pushes")
        self._tell(SETTINGS, flags, stream_id, payload)
        if flags & ACK:
            self.is_acknowledged = True
            return
        self._lane.on_settings(self.streams.values())
        self.limit = min(self._h2.remote_settings.max_concurrent_streams, LAST_ID)
        self.is_greeted = self.has_room = True  # it may have opened the windows of all streams

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if flags & ACK and self._pings:
            self._pings -= 1
            self.pongs += 1
        else:
            self._count("pings")
        self._tell(PING, flags, stream_id, payload)

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002  # as all handlers
        if stream_id or len(payload) < _GOAWAY_BYTES - FRAME_HEADER:
            self._fail(Code.PROTOCOL_ERROR, "GOAWAY that is none")
        last_id = int.from_bytes(payload[:4]) & LAST_ID
        code = int.from_bytes(payload[4:8])
        if self.goaway is not None:
            self._count("settings")
            last_id = min(last_id, self.goaway.last_id)
        self.goaway = GoAway(last_id, code, payload[8:])
        for stream in [stream for stream in self.streams.values() if stream.stream_id > last_id]:
            stream.refused, stream.code = not stream.has_begun, code
            self._touched[stream] = None
            self._forget(stream)

    def _on_push(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002  # as all handlers
        self._fail(Code.PROTOCOL_ERROR, "a push, though we take none")

    # -- inside ----------------------------------------------------------------------------------------------

    def _tell(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Leave a frame of the connection to ``h2``, and send what it has to say in its place among the others."""
        self._h2.receive_data(framed(kind, flags, stream_id, payload))
        self._collect()

    def _collect(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._out.append(data)

    def _on_stray(self, stream_id: int, *, counts: bool = True) -> None:
        """Let pass what is still on its way for a stream that has ended; on one that never was it is a violation."""
        if not stream_id % 2 or stream_id >= self.next_id:
            self._fail(Code.PROTOCOL_ERROR, "a frame of a stream that was never opened")
        if counts:
            self._count("strays")

    def _spoil(self, stream: StreamState, problem: TurboPoolError) -> None:
        """End a stream for what the peer did on it."""
        stream.problem = problem
        self._touched[stream] = None
        self.reset(stream, Code.PROTOCOL_ERROR if not isinstance(problem, LimitExceeded) else Code.CANCEL)

    def _check_length(self, stream: StreamState) -> None:
        """Hold a body to its promised length; let go of a stream whose both halves have ended."""
        received, expected = stream.received, stream.expected
        if expected is not None and (received > expected or (stream.complete and received < expected)):
            self._spoil(stream, _wrong_length(received, expected))
        elif stream.complete and not stream.is_sending:
            self._forget(stream)

    def _forget(self, stream: StreamState) -> None:
        self.streams.pop(stream.stream_id, None)
        self._lane.forget(stream)

    def _count(self, what: str) -> None:
        if not getattr(self._conduct, what).spend(self._now):
            self._fail(Code.ENHANCE_YOUR_CALM, f"too many {what}")

    def _fail(self, code: Code, message: str) -> NoReturn:
        self._tail = b""
        self.close(code)
        raise ConnectionFailure(code, message)


_HANDLERS = {
    DATA: Http2Codec._on_data,  # noqa: SLF001
    HEADERS: Http2Codec._on_headers,  # noqa: SLF001
    RST_STREAM: Http2Codec._on_reset,  # noqa: SLF001
    SETTINGS: Http2Codec._on_settings,  # noqa: SLF001
    PUSH_PROMISE: Http2Codec._on_push,  # noqa: SLF001
    PING: Http2Codec._on_ping,  # noqa: SLF001
    GOAWAY: Http2Codec._on_goaway,  # noqa: SLF001
    WINDOW_UPDATE: Http2Codec._on_window,  # noqa: SLF001
    CONTINUATION: Http2Codec._on_continuation,  # noqa: SLF001
}


def _wrong_length(received: int, expected: int) -> TurboPoolError:
    kind = IncompleteRead if received < expected else RemoteProtocolError
    more = "fewer" if received < expected else "more"
    return kind(
        f"the body has {more} bytes than its content-length", received=received, expected=expected, phase="recv"
    )
