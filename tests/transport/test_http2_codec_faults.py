"""Frames that break the protocol, and frames of streams that have ended, sans I/O."""

from __future__ import annotations

import pytest

from tests.transport.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    OK,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Server,
    assert_next_is_fine,
    data,
    each_lane,  # noqa: F401  # every test here runs with both
    frame,
    goaway,
    headers,
    ping,
    reset,
    resets,
    window,
)
from tests.transport.parsing import memory
from turbopool.errors import RemoteProtocolError
from turbopool.transport.head import Limits
from turbopool.transport.http2_state import Code

BLOCK = b"\x88"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (data(1, b"x"), Code.PROTOCOL_ERROR),  # before HEADERS
        (data(1, b"x", end=True), Code.PROTOCOL_ERROR),
        (headers(1, b"\x08\x03103") + data(1, b"x"), Code.PROTOCOL_ERROR),
        (data(0, b"x"), Code.PROTOCOL_ERROR),
        (headers(0, BLOCK), Code.PROTOCOL_ERROR),
        (reset(0, 0), Code.PROTOCOL_ERROR),
        (ping(b"1234567"), Code.FRAME_SIZE_ERROR),
        (ping(b"123456789"), Code.FRAME_SIZE_ERROR),
        (frame(PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
        (frame(RST_STREAM, 0, 1, bytes(5)), Code.FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
        (frame(DATA, PADDED, 1, b""), None),
        (frame(HEADERS, PADDED | END_HEADERS, 1, b""), None),
        (frame(HEADERS, PADDED | END_HEADERS, 1, b"\2\x88"), Code.PROTOCOL_ERROR),
        (frame(HEADERS, WITH_PRIORITY | END_HEADERS, 1, bytes(4)), None),
        (frame(HEADERS, PADDED | WITH_PRIORITY | END_HEADERS, 1, b"\1" + bytes(5)), Code.PROTOCOL_ERROR),
        (frame(CONTINUATION, END_HEADERS, 1, BLOCK), Code.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, BLOCK) + ping(), Code.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, BLOCK) + headers(1, BLOCK), Code.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 3, b""), Code.PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, BLOCK) + frame(0x99), Code.PROTOCOL_ERROR),
        (headers(1, b"\x80"), Code.COMPRESSION_ERROR),
        (headers(1, b"\xff\xff\xff\xff\xff\xff\x0f"), Code.COMPRESSION_ERROR),
        (headers(1, b"\x3f\xe2\x1f\x88"), Code.COMPRESSION_ERROR),  # a table of 4097 bytes
        ((16_385).to_bytes(3) + bytes([DATA, 0, 0, 0, 0, 1]), Code.FRAME_SIZE_ERROR),  # its head alone suffices
        (b"\xff\xff\xff" + bytes([0x99, 0, 0, 0, 0, 1]), Code.FRAME_SIZE_ERROR),
    ],
)
def test_a_broken_frame_ends_the_connection(wrong: bytes, code: Code | None) -> None:
    """FLT-S23, S18; RFC 9113 sections 4.2, 4.3, 5.4.1, 6.1 to 6.10: a GOAWAY says why."""
    server = Server()
    server.opened()
    server.opened()

    said, _ = server.fails(wrong)

    assert said == code or (code is None and said in (Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR))


@pytest.mark.parametrize("stream_id", [2, 4, 5, 99, 0x7FFF_FFFF])
@pytest.mark.parametrize("kind", ["data", "headers", "cut headers", "reset", "window"])
def test_a_frame_of_a_stream_that_never_was_ends_the_connection(kind: str, stream_id: int) -> None:
    """FLT-S23; RFC 9113 section 5.1: even ids are the server's, and it may not open any."""
    server = Server()
    server.opened()
    server.opened()
    wrong = {
        "data": data(stream_id, b"x"),
        "headers": headers(stream_id, BLOCK),
        "cut headers": frame(HEADERS, 0, stream_id, BLOCK),
        "reset": reset(stream_id, Code.CANCEL),
        "window": window(stream_id, 1),
    }[kind]

    assert server.fails(wrong)[0] == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("late", [data(1, b"x"), data(1, end=True), headers(1, b"\x00\x01a\x01b", end=True)])
def test_what_follows_the_end_of_a_response_is_its_streams_error(late: bytes) -> None:
    """FLT-S23, BEH-M8; RFC 9113 section 5.1: as long as the stream is known, because its request is still sent."""
    server = Server()
    stream = server.opened(end=False)

    server.say(server.head(stream), data(1, b"all", end=True), late)

    assert isinstance(stream.problem, RemoteProtocolError)
    assert [stream_id for stream_id, _ in resets(server)] == [1]
    assert not server.codec.streams
    assert server.say(late, late) == []
    assert_next_is_fine(server)


def test_kinds_and_flags_that_nobody_knows_are_ignored() -> None:
    """FLT-S23; RFC 9113 sections 4.1 and 5.5: PRIORITY too, on any stream."""
    server = Server()
    stream = server.opened()

    server.say(
        frame(0x99, 0xFF, 1, b"abc"), frame(0x10, 0, 0, b"1234abc"), frame(0xA, 0, 0, b""),
        frame(PRIORITY, 0, 99, bytes(5)), frame(PRIORITY, 0, 1, bytes(4) + b"\1"),
        frame(HEADERS, END_HEADERS | 0xD2, 1, BLOCK), frame(DATA, 0xF6, 1, b"body"),
    )  # fmt: skip

    assert stream.pieces == [b"body"]
    assert server.hear() == []
    assert_next_is_fine(server)


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    """FLT-S23; RFC 9113 section 4.1."""
    server = Server()
    stream = server.opened()

    server.say(frame(HEADERS, END_HEADERS, 0x8000_0001, BLOCK), frame(DATA, 1, 0x8000_0001, b"body"))

    assert (stream.pieces, stream.complete) == ([b"body"], True)


# -- streams that have ended ---------------------------------------------------------------------------------


def test_header_blocks_of_ended_streams_still_fill_the_table() -> None:
    """FLT-S20, BEH-M5: of cancelled, reset, refused and finished ones, in one frame or several."""
    server = Server()
    streams = [server.opened() for _ in range(5)]
    server.codec.reset(streams[0], Code.CANCEL)
    server.say(reset(3, Code.REFUSED_STREAM), server.head(streams[2], end=True), goaway(7), server.head(streams[3]))

    for number, stream in enumerate(streams[:3] + streams[4:]):
        block = server.block([*OK, (b"x-%d" % number, b"entered")])
        assert server.say(headers(stream.stream_id, block, pieces=number + 1, end=number % 2 == 0)) == []
    trailers = server.block([(b"x-%d" % number, b"entered") for number in range(4)])
    assert len(trailers) == 4
    server.say(headers(7, trailers, end=True))

    assert streams[3].trailers == [(b"x-%d" % number, b"entered") for number in range(4)]


def test_a_bad_block_of_an_ended_stream_is_its_own_affair() -> None:
    """FLT-S20, S24: as long as it can be read."""
    server = Server()
    stream = server.opened()
    server.codec.reset(stream, Code.CANCEL)
    server.hear()

    assert server.say(server.head(stream, [(b"Upper", b"a\r\n"), (b":x", b"")])) == []

    assert server.hear() == []
    assert_next_is_fine(server)
    assert server.fails(headers(1, b"\x80"))[0] == Code.COMPRESSION_ERROR


def test_frames_of_ended_streams_are_answered_by_nothing() -> None:
    """FLT-S14, BEH-M8: RFC 9113 section 5.1 lets them be in flight for a while."""
    server = Server()
    stream = server.opened()
    server.codec.reset(stream, Code.CANCEL)
    server.hear()

    assert server.say(window(1, 5), data(1, b"x"), reset(1, 0), window(1, 0), data(1, end=True)) == []

    assert server.hear() == []
    assert_next_is_fine(server)


# -- bombs ---------------------------------------------------------------------------------------------------


def test_a_header_bomb_ends_the_connection_and_uses_no_memory() -> None:
    """FLT-S19: a few KB that would be 100 MB; the size counts that was decoded, not that was sent."""
    server = Server()
    one, two = server.opened(), server.opened()
    server.say(server.head(one, [*OK, (b"x", b"y" * 4000)]))
    bomb = headers(two.stream_id, b"\x88" + b"\xbe" * 25_000, pieces=2)

    failed, _, peak = memory(lambda: server.fails(bomb))

    assert failed[0] == Code.ENHANCE_YOUR_CALM
    assert peak < 3_000_000
    assert not two.has_begun


@pytest.mark.parametrize("limits", [Limits(), Limits(max_response_headers=20_000)])
def test_a_header_block_without_end_ends_the_connection(limits: Limits) -> None:
    """FLT-S18: CONTINUATION for ever, of a live stream or of one that was cancelled; little of it is kept."""
    for cancelled in (False, True):
        server = Server(limits=limits)
        stream = server.opened()
        if cancelled:
            server.codec.reset(stream, Code.CANCEL)
        server.say(frame(HEADERS, 0, 1, b""))
        piece = frame(CONTINUATION, 0, 1, b"\0" * 16_384)
        most = limits.max_response_headers * 4 // 16_384

        server.say(*[piece] * most)

        assert server.fails(piece)[0] == Code.ENHANCE_YOUR_CALM


def test_nothing_more_is_said_after_a_failure() -> None:
    """FLT-S23: whatever is asked of it."""
    server = Server()
    stream, sending = server.opened(), server.opened(end=False)
    server.fails(frame(SETTINGS, ACK, 0, b"1"))

    server.codec.ping(b"12345678")
    server.codec.reset(stream, Code.CANCEL)
    server.codec.consume(sending, 10_000_000)
    server.codec.close()

    assert server.codec.send(sending, b"x") == 0
    assert server.hear() == []
