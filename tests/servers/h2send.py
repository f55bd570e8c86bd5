"""What a scripted HTTP/2 server writes: single frames, in any order, right or wrong.

Nothing is checked and nothing is waited for. A frame that hyperframe refuses to build comes from :func:`raw_frame`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

Fields = Iterable[tuple[str | bytes, str | bytes]]

LAST_ID = 2**31 - 1
"""The highest stream id; as the last one of a GOAWAY: nothing is refused yet."""

MAX_FRAME = 16384
"""The longest payload that is allowed without a setting."""

_NAMES = {
    "header_table_size": SettingsFrame.HEADER_TABLE_SIZE,
    "enable_push": SettingsFrame.ENABLE_PUSH,
    "max_concurrent_streams": SettingsFrame.MAX_CONCURRENT_STREAMS,
    "initial_window_size": SettingsFrame.INITIAL_WINDOW_SIZE,
    "max_frame_size": SettingsFrame.MAX_FRAME_SIZE,
    "max_header_list_size": SettingsFrame.MAX_HEADER_LIST_SIZE,
}


def settings_of(named: Mapping[str | int, int]) -> dict[int, int]:
    """Settings by number; their names are those of RFC 9113 in small letters."""
    return {_NAMES[name] if isinstance(name, str) else name: value for name, value in named.items()}


def raw_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of any frame; `length` lies about its payload."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


class FrameSender:
    """Writes frames through one HPACK encoder."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        """Args: send: writes bytes to the client."""
        self.send_raw = send
        """Write bytes as they are."""
        self.encoder = Encoder()
        self.unacked: list[dict[int, int]] = []
        """The settings that were sent and not acknowledged, oldest first."""
        self.last_id = LAST_ID
        """The last stream of the last GOAWAY that was sent."""
        self.write_settings = self._write_settings
        """Writes the frame of :meth:`send_settings`."""

    def send_frame(self, frame: Frame) -> None:
        """Write a frame."""
        self.send_raw(frame.serialize())

    def send_settings(self, numbered: Mapping[int, int] | None = None, /, **named: int) -> None:
        """Write SETTINGS, such as `max_concurrent_streams=2`, or by number: `{3: 2}`."""
        settings = {**(numbered or {}), **settings_of(dict(named.items()))}
        self.unacked.append(settings)
        self.write_settings(settings)

    def send_settings_ack(self) -> None:
        """Acknowledge a SETTINGS frame of the client."""
        self.send_frame(SettingsFrame(0, flags=["ACK"]))

    def send_headers(
        self,
        stream_id: int,
        fields: Fields = (),
        *,
        end_stream: bool = False,
        split: int = 0,
        raw_block: bytes | None = None,
        end_headers: bool = True,
    ) -> None:
        """Write HEADERS, and CONTINUATION as needed.

        Args:
            stream_id: where.
            fields: pseudo-headers first, if it shall be right; bytes for what is not UTF-8.
            end_stream: set END_STREAM.
            split: into how many frames; 0: as few as there can be.
            raw_block: write this instead of `fields`, past the encoder.
            end_headers: whether the last frame says so.
        """
        first, *others = self._pieces(raw_block, fields, split)
        frames: list[Frame] = [HeadersFrame(stream_id, first, flags=["END_STREAM"] if end_stream else [])]
        frames += [ContinuationFrame(stream_id, piece) for piece in others]
        self._send_block(frames, end_headers=end_headers)

    def send_continuation(self, stream_id: int, block: bytes = b"", *, end_headers: bool = False) -> None:
        """Write one CONTINUATION."""
        self._send_block([ContinuationFrame(stream_id, block)], end_headers=end_headers)

    def send_data(self, stream_id: int, data: bytes = b"", *, end_stream: bool = False, pad: int | None = None) -> None:
        """Write one DATA frame, with `pad` bytes of padding (None: not padded), whatever the windows are."""
        frame = DataFrame(stream_id, data, flags=["END_STREAM"] if end_stream else [])
        if pad is not None:
            frame.flags.add("PADDED")
            frame.pad_length = pad
        self.send_frame(frame)

    def send_rst(self, stream_id: int, code: int = 0) -> None:
        """Write RST_STREAM."""
        self.send_frame(RstStreamFrame(stream_id, error_code=code))

    def send_goaway(self, last: int = LAST_ID, code: int = 0, debug: bytes = b"") -> None:
        """Write GOAWAY."""
        self.last_id = last
        self.send_frame(GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=debug))

    def send_ping(self, payload: bytes = b"\0" * 8, *, ack: bool = False) -> None:
        """Write PING."""
        self.send_frame(PingFrame(0, payload, flags=["ACK"] if ack else []))

    def send_window_update(self, stream_id: int, increment: int) -> None:
        """Write WINDOW_UPDATE; stream 0 is the connection."""
        self.send_frame(WindowUpdateFrame(stream_id, window_increment=increment))

    def send_push_promise(self, stream_id: int, promised: int, fields: Fields) -> None:
        """Write PUSH_PROMISE."""
        block = self.encoder.encode(list(fields))
        self._send_block([PushPromiseFrame(stream_id, promised, block)], end_headers=True)

    def _write_settings(self, settings: dict[int, int]) -> None:
        self.send_frame(SettingsFrame(0, settings=settings))

    def _pieces(self, raw_block: bytes | None, fields: Fields, split: int) -> list[bytes]:
        block = self.encoder.encode(list(fields)) if raw_block is None else raw_block
        count = split or max(1, -(-len(block) // MAX_FRAME))
        edges = [len(block) * n // count for n in range(count + 1)]
        return [block[start:end] for start, end in pairwise(edges)]

    def _send_block(self, frames: list[Frame], *, end_headers: bool) -> None:
        if end_headers:
            frames[-1].flags.add("END_HEADERS")
        self.send_raw(b"".join(frame.serialize() for frame in frames))
