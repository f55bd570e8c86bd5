"""What a scripted HTTP/2 server reads: frames, and the requests they make up.

A frame that cannot be parsed is a fault of the client under test. What only breaks the rules of streams (ids, windows,
limits) is recorded and left to the test; :func:`tests.servers.h2serve.serve` is strict about it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from hpack import Decoder, HeaderTuple, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.servers.wire import BadRequest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65535
FRAME_HEAD = 9

_MAX_HEADER_LIST = 1 << 24


@dataclass(slots=True)
class H2Request:
    """One request, as far as it has arrived."""

    stream_id: int
    connection: int
    """The number of the connection, in accept order from 0."""

    headers: list[tuple[str, str]]
    """All fields in order, pseudo-headers included."""

    fields: list[HeaderTuple]
    """The same in bytes; one with `indexable=False` was sent so as to stay out of the dynamic table."""

    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    """Whether END_STREAM came."""

    reset: int | None = None
    """The code of its RST_STREAM."""

    at: float = field(default_factory=time.monotonic)
    """When its header was complete: seconds, monotonic."""

    def header(self, name: str) -> str | None:
        """The values of one field joined with a comma; None if absent."""
        values = [value for own, value in self.headers if own == name]
        return ", ".join(values) if values else None

    @property
    def method(self) -> str:
        """The field `:method`."""
        return self.header(":method") or ""

    @property
    def path(self) -> str:
        """The field `:path`."""
        return self.header(":path") or ""


class FrameReader:
    """Notes each frame of a client; keeps one HPACK decoder in step with it."""

    def __init__(self, connection: int) -> None:
        """Args: connection: its number, for the requests."""
        self._connection = connection
        self.frames: list[Frame] = []
        """Every frame ever read."""
        self.requests: list[H2Request] = []
        """In the order their headers were complete."""
        self.client_settings: dict[int, int] = {}
        """By number, from all SETTINGS of the client so far."""
        self.decoder = Decoder(_MAX_HEADER_LIST)
        self.windows: dict[int, int] = {0: DEFAULT_WINDOW}
        """What may be sent, by stream; 0 is the connection."""
        self._by_stream: dict[int, H2Request] = {}
        self._block = b""
        self._block_ends_stream = False

    def request(self, stream_id: int) -> H2Request | None:
        """The request of a stream, if it came."""
        return self._by_stream.get(stream_id)

    def note(self, head: bytes, payload: bytes) -> Frame:
        """Parse a frame and take in what it says.

        Raises:
            BadRequest: it cannot be parsed.
        """
        frame = parse(head, payload)
        self.frames.append(frame)
        match frame:
            case HeadersFrame() | ContinuationFrame():
                self._note_block(frame)
            case DataFrame():
                self._note_data(frame)
            case RstStreamFrame():
                if request := self.request(frame.stream_id):
                    request.reset = frame.error_code
            case WindowUpdateFrame():
                self.windows[frame.stream_id] = self.window_of(frame.stream_id) + frame.window_increment
            case SettingsFrame():
                self._note_settings(frame.settings)
            case _:
                pass  # kept, and that is all
        return frame

    def window_of(self, stream_id: int) -> int:
        """What this stream may send by its own window."""
        return self.windows.get(stream_id, self._initial_window())

    def _initial_window(self) -> int:
        return self.client_settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)

    def _note_settings(self, settings: dict[int, int]) -> None:
        before = self._initial_window()
        self.client_settings.update(settings)
        change = self._initial_window() - before
        for stream_id in self.windows.keys() - {0}:
            self.windows[stream_id] += change

    def _note_block(self, frame: HeadersFrame | ContinuationFrame) -> None:
        if isinstance(frame, HeadersFrame):
            self._block = b""
            self._block_ends_stream = "END_STREAM" in frame.flags
        self._block += frame.data
        if "END_HEADERS" not in frame.flags:
            return
        fields = self._decode()
        headers = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in fields]
        request = self.request(frame.stream_id)
        if request is None:
            request = H2Request(frame.stream_id, self._connection, headers, fields)
            self.requests.append(request)
            self._by_stream[frame.stream_id] = request
        else:
            request.trailers = headers
        request.ended = self._block_ends_stream

    def _decode(self) -> list[HeaderTuple]:
        try:
            return list(self.decoder.decode(self._block, raw=True))
        except HPACKError as error:
            raise BadRequest(f"header block {self._block[:80].hex()}: {error}") from error

    def _note_data(self, frame: DataFrame) -> None:
        if request := self.request(frame.stream_id):
            request.body += frame.data
            request.ended = "END_STREAM" in frame.flags


def parse(head: bytes, payload: bytes) -> Frame:
    """The frame of these bytes.

    Raises:
        BadRequest: it is malformed.
    """
    try:
        frame, _ = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(payload))
    except HyperframeError as error:
        raise BadRequest(f"frame {head.hex()} {payload[:40].hex()}: {error}") from error
    return frame
