"""Two ways to carry the streams of an HTTP/2 connection: as ``h2`` does, and faster.

A codec has one of them for its life. Both are told the same by :class:`turbopool.transport.http2.Http2Codec`, which
cuts and judges frames; both keep the windows of streams and write their frames. What concerns the connection alone
(SETTINGS, PING, its outbound window) is ``h2``'s in either case. A differential test holds them to the same outcome.

Benchmark: ``make bench``, rows ``h2``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import h2.connection
import h2.events
import h2.exceptions

from turbopool.transport.http2_state import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADERS,
    LAST_ID,
    NUMBER,
    PADDED,
    RST_STREAM,
    WINDOW_UPDATE,
    Code,
    ConnectionFailure,
    StreamState,
    framed,
)

_CREDIT_SHARE = 4
"""A window is opened again when a quarter of it has been used."""


class Connection(h2.connection.H2Connection):
    """The streams in ``h2`` are those of the codec, which strikes them out itself: counting them takes no search."""

    @property
    def open_outbound_streams(self) -> int:
        """How many streams are open."""
        return len(self.streams)


class Lane(Protocol):
    """Carries streams. The codec has looked at every frame before, and tells of none that belongs to no stream."""

    def open(self, stream: StreamState, block: bytes) -> None:
        """Write a request's header block; the stream ends with it unless the stream ``is_sending``."""
        ...

    def window(self, stream: StreamState) -> int:
        """Return how many bytes may be sent on a stream now; below 0 if the server took back some."""
        ...

    def send(self, stream: StreamState, data: bytes, *, end: bool) -> None:
        """Write data that fits a frame and the windows."""
        ...

    def reset(self, stream: StreamState, code: int) -> None:
        """Write RST_STREAM."""
        ...

    def forget(self, stream: StreamState) -> None:
        """Let go of a stream that has ended."""
        ...

    def consume(self, stream: StreamState, size: int) -> None:
        """Open a stream's window again by as much as was read, when it is worth a frame."""
        ...

    def on_data(self, stream: StreamState, flags: int, payload: bytes) -> bytes:
        """Return the data of a frame, padding apart; the connection's window is opened again."""
        ...

    def on_stray(self, size: int) -> None:
        """Give back what a frame took of the connection's window whose stream has ended."""
        ...

    def on_head(self, stream: StreamState, *, ends: bool) -> None:
        """Learn of a header block that was found good."""
        ...

    def on_reset(self, stream: StreamState, payload: bytes) -> int:
        """Return the code of RST_STREAM."""
        ...

    def on_window(self, stream: StreamState, payload: bytes) -> bool:
        """Open a stream's window; return False if that went too far, and it has been reset."""
        ...

    def on_settings(self, streams: Iterable[StreamState]) -> None:
        """Look at the server's settings again; ``streams`` are all that have not ended."""
        ...


class H2Lane:
    """Streams as ``h2`` carries them.

    Args:
        connection: the connection's own state.
        out: where what is to be sent goes.
        window: bytes the connection's window holds.
        stream_window: bytes a stream's holds.
    """

    def __init__(self, connection: Connection, out: list[bytes], window: int, stream_window: int) -> None:
        self._h2 = connection
        self._out = out
        self._window = window
        self._stream_window = stream_window
        self._owed = self._stray = 0

    def open(self, stream: StreamState, block: bytes) -> None:
        """Write a request; ``h2`` asks its encoder for the block, which has it ready."""
        del block
        self._h2.send_headers(stream.stream_id, ((b":method", b"GET"),), end_stream=not stream.is_sending)

    def window(self, stream: StreamState) -> int:
        """Return how many bytes may be sent on a stream now."""
        return self._h2.local_flow_control_window(stream.stream_id)

    def send(self, stream: StreamState, data: bytes, *, end: bool) -> None:
        """Write data."""
        self._h2.send_data(stream.stream_id, data, end_stream=end)

    def reset(self, stream: StreamState, code: int) -> None:
        """Write RST_STREAM."""
        self._h2.reset_stream(stream.stream_id, code)

    def forget(self, stream: StreamState) -> None:
        """Let go of a stream."""
        self._h2.streams.pop(stream.stream_id, None)

    def consume(self, stream: StreamState, size: int) -> None:
        """Open a stream's window again."""
        stream.owed += size
        if stream.owed * _CREDIT_SHARE >= self._stream_window:
            self._h2.increment_flow_control_window(stream.owed, stream.stream_id)
            stream.owed = 0

    def on_data(self, stream: StreamState, flags: int, payload: bytes) -> bytes:
        """Return the data of a frame."""
        data = b""
        for event in self._h2.receive_data(framed(DATA, flags, stream.stream_id, payload)):
            if isinstance(event, h2.events.DataReceived):
                data = event.data or b""
        self._owed += len(payload)
        if self._owed * _CREDIT_SHARE >= self._window:
            self._h2.increment_flow_control_window(self._owed)
            self._owed = 0
        return data

    def on_stray(self, size: int) -> None:
        """Give back what ``h2`` never saw taken."""
        self._stray += size
        if self._stray * _CREDIT_SHARE >= self._window:
            self._out.append(_window_update(0, self._stray))
            self._stray = 0

    def on_head(self, stream: StreamState, *, ends: bool) -> None:
        """Tell ``h2`` that there was a block; it asks its decoder for the fields, which has the status ready."""
        flags = END_HEADERS | (END_STREAM if ends else 0)
        self._h2.receive_data(framed(HEADERS, flags, stream.stream_id, b""))

    def on_reset(self, stream: StreamState, payload: bytes) -> int:
        """Return the code of RST_STREAM."""
        events = self._h2.receive_data(framed(RST_STREAM, 0, stream.stream_id, payload))
        codes = [event.error_code for event in events if isinstance(event, h2.events.StreamReset)]
        return int(codes[0] or 0) if codes else 0

    def on_window(self, stream: StreamState, payload: bytes) -> bool:
        """Open a stream's window."""
        events = self._h2.receive_data(framed(WINDOW_UPDATE, 0, stream.stream_id, payload))
        return not any(isinstance(event, h2.events.StreamReset) for event in events)

    def on_settings(self, streams: Iterable[StreamState]) -> None:
        """Nothing: ``h2`` has seen to it."""


class FastLane:
    """Streams as they are carried when every microsecond counts; the arguments are those of :class:`H2Lane`."""

    def __init__(self, connection: Connection, out: list[bytes], window: int, stream_window: int) -> None:
        self._h2 = connection
        self._out = out
        self._window = self._left = window
        self._stream_window = stream_window
        self._initial = connection.remote_settings.initial_window_size
        self._owed = 0

    def open(self, stream: StreamState, block: bytes) -> None:
        """Write a request."""
        stream.out_window, stream.in_window = self._initial, self._stream_window
        flags, most = 0 if stream.is_sending else END_STREAM, self._h2.max_outbound_frame_size
        kind = HEADERS
        while len(block) > most:
            self._out += (HEADER.pack(most << 8 | kind, flags, stream.stream_id), block[:most])
            block, kind, flags = block[most:], CONTINUATION, 0
        self._out += (HEADER.pack(len(block) << 8 | kind, flags | END_HEADERS, stream.stream_id), block)

    def window(self, stream: StreamState) -> int:
        """Return how many bytes may be sent on a stream now."""
        return min(stream.out_window, self._h2.outbound_flow_control_window)

    def send(self, stream: StreamState, data: bytes, *, end: bool) -> None:
        """Write data."""
        size = len(data)
        stream.out_window -= size
        self._h2.outbound_flow_control_window -= size
        self._out += (HEADER.pack(size << 8 | DATA, END_STREAM if end else 0, stream.stream_id), data)

    def reset(self, stream: StreamState, code: int) -> None:
        """Write RST_STREAM."""
        self._out.append(framed(RST_STREAM, 0, stream.stream_id, code.to_bytes(NUMBER)))

    def forget(self, stream: StreamState) -> None:
        """Nothing: all that there is of a stream is in its state."""

    def consume(self, stream: StreamState, size: int) -> None:
        """Open a stream's window again."""
        stream.owed += size
        if stream.owed * _CREDIT_SHARE >= self._stream_window:
            stream.in_window += stream.owed
            self._out.append(_window_update(stream.stream_id, stream.owed))
            stream.owed = 0

    def on_data(self, stream: StreamState, flags: int, payload: bytes) -> bytes:
        """Return the data of a frame."""
        size = len(payload)
        stream.in_window -= size
        if stream.in_window < 0:
            raise ConnectionFailure(Code.FLOW_CONTROL_ERROR, "more data than the window of a stream held")
        self.on_stray(size)  # it takes of the connection's window as well
        if not flags & PADDED:
            return payload
        if not size or payload[0] >= size:
            raise ConnectionFailure(Code.PROTOCOL_ERROR, "more padding than frame")
        return payload[1 : size - payload[0]]

    def on_stray(self, size: int) -> None:
        """Count what was taken of the connection's window, and open it again."""
        self._left -= size
        if self._left < 0:
            raise ConnectionFailure(Code.FLOW_CONTROL_ERROR, "more data than the window of the connection held")
        self._owed += size
        if self._owed * _CREDIT_SHARE >= self._window:
            self._left += self._owed
            self._out.append(_window_update(0, self._owed))
            self._owed = 0

    def on_head(self, stream: StreamState, *, ends: bool) -> None:
        """Nothing: the codec has judged it."""

    def on_reset(self, stream: StreamState, payload: bytes) -> int:
        """Return the code of RST_STREAM."""
        del stream
        return _number(payload)

    def on_window(self, stream: StreamState, payload: bytes) -> bool:
        """Open a stream's window."""
        stream.out_window += _number(payload) & LAST_ID
        if stream.out_window <= LAST_ID:
            return True
        self.reset(stream, Code.FLOW_CONTROL_ERROR)
        return False

    def on_settings(self, streams: Iterable[StreamState]) -> None:
        """Move the windows of all streams by as much as the initial one has moved (RFC 9113 section 6.9.2)."""
        moved = self._h2.remote_settings.initial_window_size - self._initial
        self._initial += moved
        for stream in streams:
            stream.out_window += moved
            if stream.out_window > LAST_ID:
                raise ConnectionFailure(Code.FLOW_CONTROL_ERROR, "a window opened too far by SETTINGS")


def _window_update(stream_id: int, size: int) -> bytes:
    return framed(WINDOW_UPDATE, 0, stream_id, size.to_bytes(NUMBER))


def _number(payload: bytes) -> int:
    if len(payload) != NUMBER:
        raise ConnectionFailure(Code.FRAME_SIZE_ERROR, "a frame of a length that its kind does not have")
    return int.from_bytes(payload)
