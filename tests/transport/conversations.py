"""Valid HTTP/2 conversations, as hypothesis thinks of them: what a server says, and what is to be understood."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpack import Encoder
from hypothesis import strategies as st

from tests.transport.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW,
    MAX_STREAMS,
    PADDED,
    PRIORITY,
    TABLE_SIZE,
    WITH_PRIORITY,
    Server,
    data,
    frame,
    goaway,
    headers,
    ping,
    request,
    reset,
    settings,
    window,
)
from turbopool.transport.head import Field
from turbopool.transport.http2_state import Code, StreamState

Part = tuple[str, object, int]
"""What it is, what it holds, and in how many frames or with how much padding."""


@dataclass(slots=True)
class Script:
    """What happens on one stream."""

    method: str
    sends: bool
    """Whether the request has a body that is not sent to its end."""
    cancelled: bool
    hints: int
    status: bytes
    fields: list[Field]
    pieces: list[bytes]
    trailers: list[Field] | None
    shape: int
    """Varies how frames are cut and padded."""
    reset_at: int | None
    code: int

    def parts(self) -> list[Part]:
        """The frames, in order."""
        has_body = self.method != "HEAD" and self.status not in (b"204", b"304")
        pieces = self.pieces if has_body else []
        parts: list[Part] = [("head", [(b":status", b"103"), *self.fields], self.shape)] * self.hints
        ends = not pieces and self.trailers is None
        parts.append(("last head" if ends else "head", [(b":status", self.status), *self.fields], self.shape + 1))
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1 and self.trailers is None
            parts.append(("last data" if is_last else "data", piece, self.shape + number))
        if self.trailers is not None:
            parts.append(("last head", self.trailers, self.shape + 2))
        if self.reset_at is not None:
            parts = [*parts[: self.reset_at], ("reset", self.code, 0)]
        return parts


@dataclass(slots=True)
class Conversation:
    """All that a server says on one connection."""

    scripts: list[Script]
    frames: list[bytes] = field(default_factory=list)

    def begin(self, server: Server) -> list[StreamState]:
        """Let a client ask for all that is answered."""
        streams = [server.opened(request(script.method), end=not script.sends) for script in self.scripts]
        for script, stream in zip(self.scripts, streams, strict=True):
            if script.cancelled:
                server.codec.reset(stream, Code.CANCEL)
        server.hear()
        return streams


_names = st.sampled_from([b"a", b"server", b"x-long-name", b"etag", b"set-cookie"])
_values = st.sampled_from([b"", b"1", b"nginx", b"v" * 40, b"w" * 700])
_fields = st.lists(st.tuples(_names, _values), max_size=3)
scripts = st.builds(
    Script,
    method=st.sampled_from(["GET", "GET", "HEAD"]),
    sends=st.booleans(),
    cancelled=st.sampled_from([False, False, False, True]),
    hints=st.integers(0, 2),
    status=st.sampled_from([b"200", b"200", b"404", b"204", b"304", b"999"]),
    fields=_fields,
    pieces=st.lists(st.binary(max_size=40), max_size=4),
    trailers=st.one_of(st.none(), _fields),
    shape=st.integers(0, 5),
    reset_at=st.one_of(st.none(), st.none(), st.integers(0, 4)),
    code=st.sampled_from([0, 2, 7, 8, 11, 13, 99]),
)
_others = st.sampled_from([
    settings({MAX_STREAMS: 3}), settings({INITIAL_WINDOW: 100, MAX_STREAMS: 50}), settings({INITIAL_WINDOW: 70_000}),
    settings({TABLE_SIZE: 0}), settings({TABLE_SIZE: 8192, 0x77: 1}), ping(), ping(b"abcdefgh"), window(0, 1000),
    window(1, 70), frame(PRIORITY, 0, 1, bytes(4) + b"\7"), frame(0xEE, 0xFF, 3, b"whatever"), window(0, 1),
])  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Several streams, interleaved with each other and with what concerns the connection."""
    made = Conversation(draw(st.lists(scripts, min_size=1, max_size=4)))
    queues = [[(2 * number + 1, part) for part in script.parts()] for number, script in enumerate(made.scripts)]
    encoder = Encoder()
    while any(queues):
        choice = draw(st.integers(0, len(queues)))
        if choice == len(queues) or not queues[choice]:
            made.frames.append(draw(_others))
            choice = next(number for number, queue in enumerate(queues) if queue)
        stream_id, part = queues[choice].pop(0)
        made.frames.append(_written(encoder, stream_id, part))
    if draw(st.booleans()):
        made.frames.append(goaway(draw(st.sampled_from([0, 1, 3, 0x7FFF_FFFF])), draw(st.sampled_from([0, 2, 13]))))
    return made


def _written(encoder: Encoder, stream_id: int, part: Part) -> bytes:
    kind, content, shape = part
    if kind == "reset":
        assert isinstance(content, int)
        return reset(stream_id, content)
    ends = kind.startswith("last")
    if isinstance(content, bytes):
        return data(stream_id, content, end=ends, padding=None if shape % 2 else shape * 3)
    assert isinstance(content, list)
    block = encoder.encode(content, huffman=bool(shape % 2))
    if shape < 4:
        return headers(stream_id, block, end=ends, pieces=shape + 1)
    flags = END_HEADERS | PADDED | (END_STREAM if ends else 0) | (WITH_PRIORITY if shape % 2 else 0)
    return frame(HEADERS, flags, stream_id, bytes([shape]) + (bytes(5) if shape % 2 else b"") + block + bytes(shape))
