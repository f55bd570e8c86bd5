"""One HTTP/2 connection, sans I/O: its beginning, its ids, signs of life, SETTINGS and the farewell."""

from __future__ import annotations

import pytest
from hyperframe.frame import HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from tests.transport.frames import (
    ACK,
    ENABLE_PUSH,
    INITIAL_WINDOW,
    MAX_FRAME_SIZE,
    MAX_LIST,
    MAX_STREAMS,
    PREFACE,
    PUSH_PROMISE,
    SETTINGS,
    Server,
    each_lane,  # noqa: F401  # every test here runs with both
    frame,
    goaway,
    headers,
    of,
    parse,
    ping,
    request,
    reset,
    settings,
)
from tests.transport.parsing import bytewise
from turbopool.config import Http2Options
from turbopool.transport.head import Limits
from turbopool.transport.http2 import Http2Codec
from turbopool.transport.http2_state import LAST_ID, Code, NotHttp2

# -- the beginning -------------------------------------------------------------------------------------------


def test_preface_and_settings_come_before_the_first_request() -> None:
    """BEH-M1; RFC 9113 section 3.4: in one piece, and the connection's window is opened at once."""
    options = Http2Options(stream_window=100_000, connection_window=200_000)
    codec = Http2Codec(Limits(max_response_headers=5000), options, 0.0)
    codec.open(request(), end=True)

    sent = codec.take()

    assert sent.startswith(PREFACE)
    ours, opening, asked = parse(sent)
    assert isinstance(ours, SettingsFrame)
    said = {ENABLE_PUSH: 0, INITIAL_WINDOW: 100_000, MAX_LIST: 5000}
    assert {name: value for name, value in ours.settings.items() if name in said} == said
    assert isinstance(opening, WindowUpdateFrame)
    assert (opening.stream_id, opening.window_increment) == (0, 200_000 - 65_535)
    assert isinstance(asked, HeadersFrame)
    assert "END_STREAM" in asked.flags


def test_settings_are_acknowledged_and_acknowledgements_noticed() -> None:
    """BEH-M1, M4: an acknowledgement of the peer's changes nothing else."""
    server = Server(greets=False)
    assert (server.codec.is_greeted, server.codec.limit) == (False, None)

    server.say(settings({MAX_STREAMS: 7}))

    assert [set(each.flags) for each in of(SettingsFrame, server.hear())] == [{"ACK"}]
    assert (server.codec.is_greeted, server.codec.is_acknowledged, server.codec.limit) == (True, False, 7)
    server.say(settings(ack=True))
    assert (server.codec.is_acknowledged, server.codec.limit) == (True, 7)
    assert server.hear() == []


@pytest.mark.parametrize(
    "first", [settings(ack=True), ping(), goaway(0), headers(1, b"\x88"), frame(99), b"<!DOCTYPE HTML><html>"]
)
def test_a_server_that_does_not_begin_with_settings_is_none(first: bytes) -> None:
    """BEH-M1, FLT-S23; RFC 9113 section 3.4."""
    server = Server(greets=False)
    server.opened()

    assert server.fails(first)[0] == Code.PROTOCOL_ERROR


def test_stream_ids_are_odd_and_increase() -> None:
    """BEH-M1."""
    server = Server()

    streams = [server.opened() for _ in range(4)]

    assert [stream.stream_id for stream in streams] == [1, 3, 5, 7]
    assert list(server.requests) == [1, 3, 5, 7]


def test_the_last_stream_id_is_used_and_no_further() -> None:
    """FLT-S26; RFC 9113 section 5.1.1: the owner sees that it is spent, and the last response still comes."""
    server = Server()
    server.codec.next_id = LAST_ID

    assert not server.codec.is_spent
    stream = server.opened()
    server.say(server.head(stream, end=True))

    assert stream.stream_id == LAST_ID
    assert stream.complete
    assert server.codec.is_spent


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"HTTP/1.0 "])
def test_an_answer_in_http1_is_recognised(greeting: bytes) -> None:
    """FLT-S10: byte by byte as well; nothing was understood, so everything may be sent again."""
    for pieces in ([greeting], bytewise(greeting)):
        server = Server(greets=False)

        for piece in pieces[: 6 if len(pieces) > 1 else 0]:
            assert server.say(piece) == []
        with pytest.raises(NotHttp2, match="HTTP/1"):
            server.say(pieces[min(6, len(pieces) - 1)])


def test_what_resembles_http1_later_does_not_count() -> None:
    """FLT-S23: after SETTINGS it is a frame that is too large."""
    server = Server()

    assert server.fails(b"HTTP/1.1 200 OK\r\n\r\n")[0] == Code.FRAME_SIZE_ERROR


# -- signs of life -------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_what_it_holds() -> None:
    """BEH-M6: on stream 0, each once."""
    server = Server()

    server.say(ping(b"abcdefgh"), ping(b"ijklmnop"))

    answers = of(PingFrame, server.hear())
    assert [(each.opaque_data, each.stream_id, set(each.flags)) for each in answers] == [
        (b"abcdefgh", 0, {"ACK"}),
        (b"ijklmnop", 0, {"ACK"}),
    ]


def test_an_answer_to_a_ping_of_ours_is_counted_and_not_answered() -> None:
    """BEH-M6: one that nobody asked for is none."""
    server = Server()

    server.codec.ping(b"turbopoo")

    assert [each.opaque_data for each in of(PingFrame, server.hear())] == [b"turbopoo"]
    server.say(ping(b"turbopoo", ack=True), ping(b"turbopoo", ack=True))
    assert server.codec.pongs == 1
    assert server.hear() == []


# -- SETTINGS ------------------------------------------------------------------------------------------------


def test_the_number_of_streams_may_change_at_any_time() -> None:
    """BEH-M3, M4: lower keeps the active ones, higher admits more, 0 none; what it leaves out stays."""
    server = Server({MAX_STREAMS: 2})
    one, two = server.opened(), server.opened()

    for values, limit in (({MAX_STREAMS: 1}, 1), ({}, 1), ({MAX_STREAMS: 0}, 0), ({MAX_STREAMS: 0xFFFF_FFFF}, LAST_ID)):
        server.say(settings(values))
        assert server.codec.limit == limit

    assert server.codec.streams == {1: one, 3: two}
    server.say(server.head(two, end=True), server.head(one, end=True))
    assert one.complete
    assert two.complete


def test_without_a_number_there_is_no_limit() -> None:
    """BEH-M3; RFC 9113 section 6.5.2."""
    assert Server().codec.limit == LAST_ID


def test_a_stream_counts_until_it_has_ended() -> None:
    """BEH-M3: by END_STREAM of both sides, or by RST_STREAM of either; one that still sends counts."""
    server = Server()
    answered, refused, cancelled, sending = (server.opened(end=end) for end in (True, True, True, False))

    server.say(server.head(answered, end=True), reset(refused.stream_id, Code.CANCEL))
    server.codec.reset(cancelled, Code.CANCEL)
    server.say(server.head(sending, end=True))

    assert list(server.codec.streams.values()) == [sending]
    server.codec.send(sending, b"rest", end=True)
    assert not server.codec.streams


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\0\2\0\0\0\1", Code.PROTOCOL_ERROR),  # ENABLE_PUSH of a server
        (b"\0\2\0\0\0\2", Code.PROTOCOL_ERROR),
        (b"\0\3\0\0\0\1\0\2\0\0\0\1", Code.PROTOCOL_ERROR),
        (b"\0\4\x80\0\0\0", Code.FLOW_CONTROL_ERROR),
        (b"\0\5\0\0\x3f\xff", Code.PROTOCOL_ERROR),
        (b"\0\5\1\0\0\0", Code.PROTOCOL_ERROR),
        (b"\0\4\0\0\0", Code.FRAME_SIZE_ERROR),
    ],
)
def test_settings_that_cannot_be_end_the_connection(payload: bytes, code: Code) -> None:
    """FLT-S21, S23; RFC 9113 section 6.5.2."""
    assert Server().fails(frame(SETTINGS, 0, 0, payload))[0] == code


@pytest.mark.parametrize("wrong", [frame(SETTINGS, 0, 1), frame(SETTINGS, ACK, 0, bytes(6))])
def test_settings_of_a_stream_or_with_an_acknowledgement_are_none(wrong: bytes) -> None:
    """FLT-S23; RFC 9113 section 6.5."""
    server = Server()
    server.opened()

    server.fails(wrong)


def test_settings_that_nobody_knows_are_acknowledged_and_ignored() -> None:
    """FLT-S23; RFC 9113 section 6.5.2: ENABLE_PUSH of 0 is what a server may say."""
    server = Server()
    stream = server.opened()

    server.say(settings({0x99: 5, 0: 1, ENABLE_PUSH: 0, 8: 1}))

    assert [set(each.flags) for each in of(SettingsFrame, server.hear())] == [{"ACK"}]
    server.say(server.head(stream, end=True))
    assert stream.complete


def test_a_header_section_longer_than_a_frame_is_continued() -> None:
    """BEH-M1: in frames as large as the peer takes them; the fields are whole."""
    for values, most in (({}, 16_384), ({MAX_FRAME_SIZE: 20_000}, 20_000)):
        server = Server(values)
        cookie = b"c" * 50_000
        server.codec.open(request(fields=[(b"cookie", cookie)]), end=True)

        pieces = parse(server.codec.take())

        assert {each.stream_id for each in pieces} == {1}
        assert max(each.body_len for each in pieces) == most
        block = b"".join(each.data for each in pieces if hasattr(each, "data"))
        assert (b"cookie", cookie) in [tuple(field) for field in server.decoder.decode(block, raw=True)]


@pytest.mark.parametrize("stream_id", [1, 3])
def test_a_push_ends_the_connection(stream_id: int) -> None:
    """FLT-S21; RFC 9113 section 8.4: we said that we take none."""
    server = Server()
    server.opened()

    code, _ = server.fails(frame(PUSH_PROMISE, 4, stream_id, b"\0\0\0\2\x82\x84\x86"))

    assert code == Code.PROTOCOL_ERROR
