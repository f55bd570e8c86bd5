"""The codec against what hypothesis thinks of: any conversation in any chunking, and any bytes at all."""

from __future__ import annotations

from dataclasses import dataclass

from hyperframe.frame import GoAwayFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.conversations import Conversation, Script, conversations
from tests.transport.frames import SMALL_WINDOWS, Server, data, frame, goaway, headers, parse, reset, window
from tests.transport.frames import settings as settings_frame
from tests.transport.parsing import bytewise, cut
from turbopool.transport.head import Field
from turbopool.transport.http2_state import ConnectionFailure, NotHttp2, StreamState

EXAMPLES = settings(max_examples=60, deadline=None)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a stream."""

    status: int | None
    fields: list[Field] | None
    body: bytes
    received: int
    trailers: list[Field]
    begun: bool
    complete: bool
    code: int | None
    refused: bool
    problem: type[Exception] | None

    @classmethod
    def of(cls, stream: StreamState) -> Seen:
        """Take a snapshot."""
        return cls(
            status=stream.head.status if stream.head else None,
            fields=stream.head.fields if stream.head else None,
            body=b"".join(stream.pieces),
            received=stream.received,
            trailers=stream.trailers or [],
            begun=stream.has_begun,
            complete=stream.complete,
            code=stream.code,
            refused=stream.refused,
            problem=type(stream.problem) if stream.problem else None,
        )


class Fast(Server):
    fast_lane = True


class Slow(Server):
    fast_lane = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client has made of a conversation."""

    streams: list[Seen]
    touched: set[int]
    limit: int | None
    has_goaway: bool
    sent: bytes
    failed: int | None


def outcome(kind: type[Server], conversation: Conversation, pieces: list[bytes]) -> Outcome:
    server = kind(options=SMALL_WINDOWS)
    streams = conversation.begin(server)
    codec, sent, failed = server.codec, b"", None
    touched: set[int] = set()
    try:
        for piece in pieces:
            touched.update(stream.stream_id for stream in codec.receive(piece, 0.0))
            sent += codec.take()
    except NotHttp2:
        failed = -1
    except ConnectionFailure as failure:
        failed = int(failure.code)
        touched.update(stream.stream_id for stream in codec.news())
    sent += codec.take()
    if failed not in (None, -1):
        last = parse(sent)[-1]
        assert isinstance(last, GoAwayFrame)
        assert last.error_code == failed
    seen = [Seen.of(stream) for stream in streams]
    return Outcome(seen, touched, codec.limit, codec.goaway is not None, sent, failed)


def expected(script: Script) -> tuple[int | None, bytes, bool]:
    """Status, body and whether it is complete, if nothing but the script decides."""
    status, body, complete = None, b"", False
    for kind, content, _ in script.parts():
        if isinstance(content, bytes):
            body += content
        elif isinstance(content, list) and content and content[0][0] == b":status" and content[0][1] != b"103":
            status = int(content[0][1])
        complete = complete or kind.startswith("last")
    return status, body, complete


@EXAMPLES
@given(conversations(), st.lists(st.integers(0, 100_000), max_size=8))
def test_a_conversation_means_the_same_in_any_chunking(conversation: Conversation, places: list[int]) -> None:
    """BEH-M5, M8, FLT-S20: down to single bytes, either way of carrying streams; and it means what was said."""
    whole = b"".join(conversation.frames)

    first = outcome(Fast, conversation, [whole])

    for kind, pieces in (
        (Fast, cut(whole, places)),
        (Fast, bytewise(whole)),
        (Slow, [whole]),
        (Slow, cut(whole, places)),
    ):
        assert outcome(kind, conversation, pieces) == first
    assert first.failed is None
    for script, seen in zip(conversation.scripts, first.streams, strict=True):
        if script.cancelled:
            assert (seen.begun, seen.code, seen.problem) == (False, None, None)
        else:
            assert (seen.status, seen.body, seen.complete) == expected(script)
            assert seen.problem is None


_mutations = st.lists(
    st.tuples(
        st.sampled_from(["drop", "repeat", "swap", "insert", "flip", "cut byte", "add byte", "length"]),
        st.integers(0, 10_000),
        st.integers(0, 100_000),
    ),
    min_size=1,
    max_size=5,
)
_STRANGERS = [
    data(1, b"x"), data(1, end=True), data(2), data(99), data(0), headers(1, b"\x88"), headers(3, b"\x88", end=True),
    headers(1, b"\xbe"), headers(1, b"\x40\x01a\x01b"), headers(1, b"\x20"), frame(1, 0, 1, b"\x88"), frame(9, 4, 1),
    reset(1, 0), reset(3, 7), reset(99, 0), window(1, 0), window(0, 0), window(1, 0x7FFF_FFFF), window(0, 0x7FFF_FFFF),
    goaway(0), goaway(1, 2), goaway(0x7FFF_FFFF), frame(7), frame(5, 4, 1, b"\0\0\0\2\x82"), settings_frame({2: 1}),
    settings_frame({4: 0}), settings_frame({4: 0x7FFF_FFFF}), settings_frame({5: 1}), settings_frame({1: 0}),
    frame(6, 0, 0, b"short"), data(1, bytes(16_000)), frame(0, 8, 1, b"\xff"), frame(1, 0x2C, 1, b"\1"),
    b"HTTP/1.1 200",
]  # fmt: skip


def mutated(frames: list[bytes], mutations: list[tuple[str, int, int]]) -> bytes:
    frames = list(frames)
    for how, place, value in mutations:
        at = place % (len(frames) or 1)
        if how == "insert" or not frames:
            frames.insert(at, _STRANGERS[value % len(_STRANGERS)])
        elif how == "drop":
            del frames[at]
        elif how == "repeat":
            frames.insert(value % len(frames), frames[at])
        elif how == "swap":
            frames[at], frames[value % len(frames)] = frames[value % len(frames)], frames[at]
        elif frames[at]:
            frames[at] = _spoiled(frames[at], how, value)
    return b"".join(frames)


def _spoiled(each: bytes, how: str, value: int) -> bytes:
    at = value % len(each)
    if how == "flip":
        return each[:at] + bytes([each[at] ^ (1 << value % 8)]) + each[at + 1 :]
    if how == "cut byte":
        return each[:at] + each[at + 1 :]
    if how == "add byte":
        return each[:at] + bytes([value % 256]) + each[at:]
    return bytes([0, value % 65, value % 256]) + each[3:]


@settings(EXAMPLES, max_examples=100)
@given(conversations(), _mutations, st.lists(st.integers(0, 100_000), max_size=5))
def test_spoiled_bytes_end_the_connection_or_a_stream_and_nothing_else(
    conversation: Conversation, mutations: list[tuple[str, int, int]], places: list[int]
) -> None:
    """FLT-S18 to S24: nothing else is ever raised; a GOAWAY is the last that is said; chunking changes nothing."""
    spoiled = mutated(conversation.frames, mutations)

    first = outcome(Fast, conversation, [spoiled])

    for kind, pieces in ((Fast, cut(spoiled, places)), (Slow, [spoiled])):
        again = outcome(kind, conversation, pieces) if spoiled else first
        assert (again.streams, again.touched, again.failed) == (first.streams, first.touched, first.failed)


@EXAMPLES
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_understood_or_end_the_connection(
    said: bytes,
    greets: bool,  # noqa: FBT001
) -> None:
    """FLT-S23: from the first byte, or after the greeting."""
    server = Fast(greets=greets)
    server.opened()
    try:
        for piece in bytewise(said):
            server.codec.receive(piece, 0.0)
    except NotHttp2:
        assert not greets
    except ConnectionFailure:
        assert isinstance(server.hear()[-1], GoAwayFrame)
