"""HTTP/2 in a test: frames as bytes, whether they are right or not, and the server's end of a connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from turbopool.bodies import Body
from turbopool.config import Http2Options
from turbopool.transport.head import Field, Limits
from turbopool.transport.http2 import Http2Codec
from turbopool.transport.http2_state import ConnectionFailure, StreamState
from turbopool.transport.http2_wire import StreamRequest, write_stream_request

F = TypeVar("F", bound=Frame)

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME_SIZE, MAX_LIST = range(1, 7)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST_WINDOW = 65_535
OK = [(b":status", b"200")]
SMALL_WINDOWS = Http2Options(connection_window=FIRST_WINDOW, stream_window=FIRST_WINDOW)


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    """Any frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


def settings(values: dict[int, int] | None = None, *, ack: bool = False) -> bytes:
    """SETTINGS, or their acknowledgement."""
    payload = b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in (values or {}).items())
    return frame(SETTINGS, ACK if ack else 0, 0, payload)


def data(stream_id: int, body: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    """DATA; `padding` counts the zeros after the body."""
    flags = (END_STREAM if end else 0) | (PADDED if padding is not None else 0)
    payload = body if padding is None else bytes([padding]) + body + bytes(padding)
    return frame(DATA, flags, stream_id, payload)


def headers(stream_id: int, block: bytes, *, end: bool = False, pieces: int = 1) -> bytes:
    """A header block in so many frames."""
    size = -(-len(block) // pieces) or 1
    cuts = [block[at * size : (at + 1) * size] for at in range(pieces)]
    frames = [frame(HEADERS if at == 0 else CONTINUATION, 0, stream_id, cut) for at, cut in enumerate(cuts)]
    return b"".join(_flagged(frames, END_STREAM if end else 0))


def _flagged(frames: list[bytes], first: int) -> list[bytes]:
    whole = [bytearray(each) for each in frames]
    whole[0][4] |= first
    whole[-1][4] |= END_HEADERS
    return [bytes(each) for each in whole]


def reset(stream_id: int, code: int) -> bytes:
    """RST_STREAM."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4))


def window(stream_id: int, size: int) -> bytes:
    """WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream_id, size.to_bytes(4))


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    """PING, or its answer."""
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last_id: int, code: int = 0, debug: bytes = b"") -> bytes:
    """GOAWAY."""
    return frame(GOAWAY, 0, 0, last_id.to_bytes(4) + code.to_bytes(4) + debug)


def parse(sent: bytes) -> list[Frame]:
    """All frames in what a client sent, which has to be whole; without the preface."""
    frames, rest = [], memoryview(sent.removeprefix(PREFACE))
    while rest:
        each, size = Frame.parse_frame_header(rest[:9])
        assert len(rest) >= 9 + size, "a frame was cut off"
        each.parse_body(rest[9 : 9 + size])
        frames.append(each)
        rest = rest[9 + size :]
    return frames


def request(
    method: str = "GET",
    target: str = "/",
    fields: Iterable[Field] = (),
    body: bytes | Body | None = None,
    authority: str = "example.org",
) -> StreamRequest:
    """A request as a caller's thread writes it."""
    return write_stream_request("https", method, target, authority, fields, body)


@pytest.fixture(params=[True, False], ids=["fast", "h2"], autouse=True)
def each_lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:  # sets a default
    """Let all tests of a module that imports this run with either way to carry streams."""
    monkeypatch.setattr(Server, "fast_lane", request.param)


class Server:
    """The server's end: says what it is told to, right or wrong; keeps both windows and both tables as RFC 9113 has it.

    Attributes:
        codec: the client's end, which is tested.
        now: the time, for the client.
        heard: all frames of the client so far.
        requests: fields of each request, by stream.
        room: bytes of DATA it may send on the connection.
        rooms: the same of each stream.
    """

    fast_lane: ClassVar = True

    def __init__(
        self,
        values: dict[int, int] | None = None,
        *,
        limits: Limits | None = None,
        options: Http2Options | None = None,
        greets: bool = True,
    ) -> None:
        chosen = replace(options or Http2Options(), fast_lane=self.fast_lane)
        self.codec = Http2Codec(limits or Limits(), chosen, 0.0)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.now = 0.0
        self.heard: list[Frame] = []
        self.requests: dict[int, list[Field]] = {}
        self.room = FIRST_WINDOW
        self.rooms: dict[int, int] = {}
        self._first_room = FIRST_WINDOW
        self.hear()
        if greets:
            self.say(settings(values), settings(ack=True))
            self.hear()

    # -- the client's side -----------------------------------------------------------------------------------

    def opened(self, asked: StreamRequest | None = None, *, end: bool = True) -> StreamState:
        """A stream that the client opens, heard of already."""
        stream, _ = self.codec.open(asked or request(), end=end)
        self.hear()
        return stream

    # -- the server's side -----------------------------------------------------------------------------------

    def say(self, *frames: bytes) -> list[StreamState]:
        """Send frames; return the streams of which the client has news."""
        whole = b"".join(frames)
        for stream_id, size in _data_sizes(whole):
            self.room -= size
            if stream_id in self.rooms:
                self.rooms[stream_id] -= size
        return self.codec.receive(whole, self.now)

    def resize(self, *sizes: int) -> None:
        """Announce these sizes of the table that requests use, one after the other."""
        for size in sizes:
            self.decoder.max_allowed_table_size = size
            self.say(settings({TABLE_SIZE: size}))
        self.hear()

    def block(self, fields: Sequence[Field]) -> bytes:
        """A header block; what may be indexed is."""
        return self.encoder.encode(fields)

    def head(self, stream: StreamState, fields: Sequence[Field] = OK, *, end: bool = False) -> bytes:
        """HEADERS of a response."""
        return headers(stream.stream_id, self.block(fields), end=end)

    def hear(self) -> list[Frame]:
        """What the client has sent since."""
        frames = parse(self.codec.take())
        for each in frames:
            self._note(each)
        self.heard += frames
        return frames

    def _note(self, each: Frame) -> None:
        if isinstance(each, WindowUpdateFrame):
            if each.stream_id:
                self.rooms[each.stream_id] += each.window_increment
            else:
                self.room += each.window_increment
        elif isinstance(each, HeadersFrame):
            self.rooms.setdefault(each.stream_id, self._first_room)
            self.requests[each.stream_id] = [(bytes(n), bytes(v)) for n, v in self.decoder.decode(each.data, raw=True)]
        elif isinstance(each, SettingsFrame) and "ACK" not in each.flags:
            self._first_room = each.settings.get(INITIAL_WINDOW, FIRST_WINDOW)

    def fails(self, *frames: bytes) -> tuple[int, str]:
        """Say what the client does not put up with; return the code of its GOAWAY, and why."""
        with pytest.raises(ConnectionFailure) as caught:
            self.say(*frames)
        last = self.hear()[-1]
        assert isinstance(last, GoAwayFrame)
        assert last.error_code == caught.value.code
        return last.error_code, str(caught.value)


def of(kind: type[F], frames: Iterable[Frame]) -> list[F]:
    """The frames of one kind."""
    return [each for each in frames if isinstance(each, kind)]


def resets(server: Server) -> list[tuple[int, int]]:
    """Streams that the client has reset since it was last heard, and why."""
    return [(each.stream_id, each.error_code) for each in of(RstStreamFrame, server.hear())]


def assert_next_is_fine(server: Server) -> None:
    """The connection goes on, and its table is right."""
    stream = server.opened()
    fields = [(b"x-after", b"all"), (b"server", b"s"), (b"content-length", b"4")]
    server.say(server.head(stream, [*OK, *fields]), data(stream.stream_id, b"fine", end=True))
    assert stream.head is not None
    assert (stream.head.status, stream.head.fields, stream.pieces) == (200, fields, [b"fine"])
    assert stream.complete


def _data_sizes(whole: bytes) -> Iterator[tuple[int, int]]:
    """Stream and payload size of each DATA frame, padding included (RFC 9113 section 6.9.1)."""
    at = 0
    while at + 9 <= len(whole):
        size = int.from_bytes(whole[at : at + 3])
        if whole[at + 3] == DATA:
            yield int.from_bytes(whole[at + 5 : at + 9]), size
        at += 9 + size
