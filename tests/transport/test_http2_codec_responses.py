"""Responses on the streams of one HTTP/2 connection, sans I/O."""

from __future__ import annotations

import pytest

from tests.transport.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    OK,
    PADDED,
    WITH_PRIORITY,
    Server,
    assert_next_is_fine,
    data,
    each_lane,  # noqa: F401  # every test here runs with both
    frame,
    goaway,
    headers,
    request,
    reset,
    resets,
)
from turbopool.errors import RemoteProtocolError
from turbopool.transport.http2_state import Code, StreamState


def test_a_response_is_head_body_and_trailers() -> None:
    """BEH-M8: trailers end it; they enter no head."""
    server = Server()
    stream = server.opened()

    assert server.say(server.head(stream, [(b":status", b"201"), (b"a", b"b")])) == [stream]
    assert server.say(data(1, b"one"), data(1, b"two")) == [stream]
    assert not stream.complete
    server.say(headers(1, server.block([(b"x-sum", b"6"), (b"a", b"c")]), end=True))

    assert stream.head is not None
    assert (stream.head.status, stream.head.reason, stream.head.version) == (201, b"Created", "2")
    assert stream.head.fields == [(b"a", b"b")]
    assert (stream.pieces, stream.received) == ([b"one", b"two"], 6)
    assert stream.trailers == [(b"x-sum", b"6"), (b"a", b"c")]
    assert stream.complete
    assert resets(server) == []


def test_trailers_belong_to_one_response() -> None:
    """BEH-M5: two that are the same in bytes are two lists."""
    server = Server()
    one, two = server.opened(), server.opened()
    block = b"\x00\x01t\x011"

    server.say(headers(1, b"\x88"), headers(3, b"\x88"), headers(1, block, end=True), headers(3, block, end=True))
    assert one.trailers is not None
    one.trailers.clear()

    assert two.trailers == [(b"t", b"1")]


def test_informational_responses_come_before_the_head() -> None:
    """BEH-M8, FLT-S24: they prove that the server works, and are no head."""
    server = Server()
    stream = server.opened()

    server.say(server.head(stream, [(b":status", b"103"), (b"link", b"</a>")]))

    assert (stream.has_begun, stream.head) == (True, None)
    server.say(server.head(stream, [(b":status", b"100")]), server.head(stream, [*OK, (b"b", b"c")], end=True))
    assert stream.head is not None
    assert stream.head.fields == [(b"b", b"c")]


@pytest.mark.parametrize(("method", "status"), [("HEAD", b"200"), ("GET", b"204"), ("GET", b"304")])
def test_some_responses_have_no_body_whatever_their_length_says(method: str, status: bytes) -> None:
    """FLT-S24; RFC 9110 section 6.4.1."""
    for ending in (b"", data(1, end=True)):
        server = Server()
        stream = server.opened(request(method))

        server.say(server.head(stream, [(b":status", status), (b"content-length", b"7")], end=not ending), ending)

        assert (stream.complete, stream.problem, stream.pieces) == (True, None, [])


@pytest.mark.parametrize(("method", "status"), [("HEAD", b"200"), ("GET", b"204"), ("GET", b"304")])
def test_a_body_where_there_is_none_is_malformed(method: str, status: bytes) -> None:
    """FLT-S24; RFC 9113 section 8.1.1."""
    server = Server()
    stream = server.opened(request(method))

    server.say(server.head(stream, [(b":status", status)]), data(1, b"x", end=True))

    assert isinstance(stream.problem, RemoteProtocolError)
    assert_next_is_fine(server)


@pytest.mark.parametrize("pieces", range(1, 8))
def test_a_header_block_in_any_number_of_frames_is_one(pieces: int) -> None:
    """BEH-M8: empty ones included."""
    server = Server()
    stream = server.opened()
    block = server.block([*OK, (b"a", b"b")])

    for at, byte in enumerate(headers(1, block, end=True, pieces=pieces)):
        assert stream.complete is False, at
        server.say(bytes([byte]))

    assert stream.complete
    assert stream.head is not None
    assert stream.head.fields == [(b"a", b"b")]


def test_padding_and_priority_of_a_header_block_are_skipped() -> None:
    """BEH-M8; RFC 9113 section 6.2."""
    server = Server()
    block = server.block([*OK, (b"a", b"b")])
    for flags, start, end in (
        (PADDED, b"\3", bytes(3)),
        (WITH_PRIORITY, bytes(4) + b"\1", b""),
        (PADDED | WITH_PRIORITY, b"\4" + bytes(4) + b"\1", bytes(4)),
        (PADDED, b"\0", b""),
    ):
        stream = server.opened()

        server.say(frame(HEADERS, flags | END_HEADERS | END_STREAM, stream.stream_id, start + block + end))

        assert stream.complete
        assert stream.head is not None
        assert stream.head.fields == [(b"a", b"b")]
        block = server.block([*OK, (b"a", b"b")])


@pytest.mark.parametrize("code", [Code.CANCEL, Code.INTERNAL_ERROR, Code.ENHANCE_YOUR_CALM, Code.HTTP_1_1_REQUIRED,
                                  Code.REFUSED_STREAM, 0xFFFF_FFFF])  # fmt: skip
def test_a_reset_is_its_streams_end_alone(code: int) -> None:
    """FLT-S7, S8, S10, BEH-M8: with the code, known or not; only REFUSED_STREAM proves that nothing was processed."""
    server = Server()
    stream, other = server.opened(end=False), server.opened()

    assert server.say(reset(1, code)) == [stream]

    assert (stream.code, stream.refused) == (code, code == Code.REFUSED_STREAM)
    assert (stream.complete, stream.problem) == (False, None)
    assert resets(server) == []
    server.say(server.head(other, end=True))
    assert other.complete


@pytest.mark.parametrize("status", [b"200", b"103"])
@pytest.mark.parametrize("refusal", [reset(1, Code.REFUSED_STREAM), goaway(0)])
def test_a_refusal_after_the_answer_has_begun_proves_nothing(refusal: bytes, status: bytes) -> None:
    """FLT-S2, S7: who has begun to answer has looked at the request, whatever it says."""
    server = Server()
    stream = server.opened()

    server.say(server.head(stream, [(b":status", status)]), refusal)

    assert (stream.refused, stream.complete, stream.has_begun) == (False, False, True)
    assert stream.code is not None


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.CANCEL])
def test_a_reset_after_the_whole_response_leaves_it_whole(code: int) -> None:
    """FLT-S9; RFC 9113 section 8.1: an early answer to a request that is still being sent."""
    server = Server()
    stream = server.opened(end=False)

    server.say(server.head(stream), data(1, b"early", end=True), reset(1, code))

    assert (stream.complete, stream.pieces, stream.code) == (True, [b"early"], code)
    assert not server.codec.streams
    assert_next_is_fine(server)


def test_an_early_answer_lets_the_request_be_sent_to_its_end() -> None:
    """FLT-S9: the stream ends with the later of both."""
    server = Server()
    stream = server.opened(end=False)
    server.say(server.head(stream, end=True))

    assert stream.complete
    assert server.codec.send(stream, b"body", end=True) == 4

    assert not server.codec.streams
    assert [bytes(each.data) for each in server.hear() if each.stream_id and hasattr(each, "data")] == [b"body"]


def test_a_stream_that_was_reset_here_is_told_once() -> None:
    """BEH-M8, FLT-S14: whatever of it comes later."""
    server = Server()
    stream = server.opened()
    _cancel_twice(server, stream)

    assert resets(server) == [(1, Code.CANCEL)]
    assert server.say(server.head(stream), data(1, b"late"), reset(1, Code.CANCEL), data(1, end=True)) == []
    assert server.hear() == []
    assert_next_is_fine(server)


def _cancel_twice(server: Server, stream: StreamState) -> None:
    server.codec.reset(stream, Code.CANCEL)
    server.codec.reset(stream, Code.CANCEL)
