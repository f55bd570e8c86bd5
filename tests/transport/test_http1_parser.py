"""The parser alone, fed by hand: framing, the verdict on reuse, and everything a hostile server may send."""

from __future__ import annotations

import functools
import time

import pytest

from tests.servers.wire import chunked, respond
from tests.transport.parsing import CHUNKED, OK, bytewise, fed, memory, parse
from turbopool.errors import IncompleteRead, LimitExceeded, RemoteProtocolError
from turbopool.transport.head import Limits
from turbopool.transport.http1 import ResponseParser
from turbopool.transport.http1_chunks import ChunkedBody

EMPTY = OK + b"Content-Length: 0\r\n\r\n"
POISON = respond(b"POISON")


# -- what is right -------------------------------------------------------------------------------------------


def test_a_response_is_taken_apart() -> None:
    parsed = parse(
        b"HTTP/1.1 203 Not Quite\r\nA: b\r\nSet-Cookie: x=1\r\nset-cookie: y=2\r\nContent-Length: 5\r\n\r\nhello"
    )

    assert (parsed.status, parsed.reason, parsed.version) == (203, b"Not Quite", "1.1")
    assert parsed.fields == [
        (b"A", b"b"),
        (b"Set-Cookie", b"x=1"),
        (b"set-cookie", b"y=2"),
        (b"Content-Length", b"5"),
    ]
    assert parsed.body == b"hello"
    assert parsed.reusable


@pytest.mark.parametrize(("line", "reason"), [
    (b"HTTP/1.1 200", b""),
    (b"HTTP/1.1 200 ", b""),
    (b"HTTP/1.1 200 a b\tc", b"a b\tc"),
    (b"HTTP/1.1 200 \xfcber", b"\xfcber"),
])  # fmt: skip
def test_a_reason_phrase_may_be_anything_and_nothing(line: bytes, reason: bytes) -> None:
    parsed = parse(line + b"\r\nContent-Length: 0\r\n\r\n")

    assert (parsed.status, parsed.reason) == (200, reason)


def test_blanks_around_a_value_are_no_part_of_it() -> None:
    """RFC 9110 section 5.5."""
    parsed = parse(OK + b"A: \t b c\t \r\nB:\r\nContent-Length: 0\r\n\r\n")

    assert parsed.fields == [(b"A", b"b c"), (b"B", b""), (b"Content-Length", b"0")]


def test_chunks_their_extensions_and_trailers_are_taken_apart() -> None:
    """BEH-H6."""
    parsed = parse(CHUNKED + b'005;a=b;c="d e";f\r\nhello\r\nA\r\n wonderful\r\n0;last\r\nX-Sum: 7 \r\nY:\r\n\r\n')

    assert parsed.body == b"hello wonderful"
    assert parsed.trailers == [(b"X-Sum", b"7"), (b"Y", b"")]
    assert parsed.reusable


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_large_bodies_end_exactly_where_they_should(size: int) -> None:
    """BEH-H6: 256 KB, in chunks and sized."""
    body = bytes(range(256)) * 1000

    in_chunks = parse(CHUNKED, chunked(body, 7000))
    sized = fed(*[respond(body)[at : at + size * 1000] for at in range(0, len(respond(body)), size * 1000)])

    assert in_chunks.body == sized.body == body
    assert sized.complete
    assert in_chunks.reusable


@pytest.mark.parametrize(("version", "fields", "kept"), [
    ("1.1", b"", True),
    ("1.1", b"Connection: close\r\n", False),
    ("1.1", b"Connection: Close\r\n", False),
    ("1.1", b"Connection: keep-alive\r\n", True),
    ("1.1", b"Connection: keep-alive, close\r\n", False),
    ("1.1", b"Connection: close\r\nConnection: keep-alive\r\n", False),
    ("1.1", b"Connection: x-close\r\n", True),
    ("1.0", b"", False),
    ("1.0", b"Connection: keep-alive\r\n", True),
    ("1.0", b"Connection: Keep-Alive, te\r\n", True),
    ("1.0", b"Connection: close\r\n", False),
])  # fmt: skip
def test_the_peer_says_whether_the_connection_is_kept(version: str, fields: bytes, kept: bool) -> None:  # noqa: FBT001
    """FLT-H23, BEH-H3."""
    parsed = parse(b"HTTP/%s 200 OK\r\nContent-Length: 0\r\n%s\r\n" % (version.encode(), fields))

    assert parsed.complete
    assert parsed.keep_alive is kept


@pytest.mark.parametrize(("value", "seconds"), [
    (b"timeout=5", 5.0),
    (b"max=100, Timeout=7", 7.0),
    (b'timeout="9"', 9.0),
    (b"timeout=" + b"9" * 5000, 999_999_999.0),
    (b"timeout=-1", None),
    (b"timeout=soon", None),
    (b"timeout", None),
    (b"max=3", None),
])  # fmt: skip
def test_a_keep_alive_hint_is_read_if_it_makes_sense(value: bytes, seconds: float | None) -> None:
    """FLT-H23."""
    head = fed(OK + b"Keep-Alive: " + value + b"\r\nContent-Length: 0\r\n\r\n").head

    assert head is not None
    assert head.idle_hint == seconds


def test_a_parser_serves_one_response_after_the_other() -> None:
    parser = ResponseParser(Limits())
    answers = [
        ("GET", respond(b"one"), b"one"),
        ("GET", respond(b"two"), b"two"),  # the same head
        ("HEAD", OK + b"Content-Length: 3\r\n\r\n", b""),  # the same head, which means another thing here
        ("GET", respond(b"new"), b"new"),  # and back again
        ("GET", respond(b"four"), b"four"),
        ("GET", CHUNKED + chunked(b"five", 1, [("T", "5")]), b"five"),
        ("GET", CHUNKED + chunked(b"six", 2), b"six"),
        ("GET", respond(status=204), b""),
        ("GET", respond(b"one"), b"one"),
    ]

    for method, data, body in answers:
        parser.start(method)
        assert not parser.started
        parser.receive(data)
        assert parser.complete
        assert not parser.leftover
        assert parser.body == body
        assert parser.trailers == ([(b"T", b"5")] if body == b"five" else [])


def test_a_head_that_begins_like_the_last_one_is_read_anew() -> None:
    parser = fed(OK + b"Content-Length: 3\r\n\r\none")
    for data, body in ((OK + b"Content-Length: 30\r\n\r\n" + b"x" * 30, b"x" * 30), (respond(b"one"), b"one")):
        parser.start("GET")
        for segment in bytewise(data):
            assert not parser.complete
            parser.receive(segment)
        assert parser.complete
        assert parser.body == body


def test_one_decoder_serves_one_chunked_body_after_the_other() -> None:
    """FLT-H17: its books begin anew each time."""
    decoder = ChunkedBody(max_overhead=40, max_trailers=1)
    for body in (b"one", b"two", b"three"):
        decoder.start()
        assert not decoder.complete
        pieces = [piece for segment in bytewise(chunked(body, 2, [("T", "1")])) for piece in decoder.receive(segment)]

        assert b"".join(pieces) == body
        assert (decoder.complete, decoder.leftover, decoder.trailers) == (True, False, [(b"T", b"1")])


# -- bodies cut short ----------------------------------------------------------------------------------------


def test_a_sized_body_cut_anywhere_is_incomplete() -> None:
    """FLT-H1."""
    for received in range(5):
        parser = fed(OK + b"Content-Length: 5\r\n\r\n" + b"hello"[:received])

        with pytest.raises(IncompleteRead) as caught:
            parser.receive_end(truncated=False)

        assert caught.value.facts == {"received": received, "expected": 5}
        assert not parser.complete


def test_a_chunked_body_cut_anywhere_is_incomplete() -> None:
    """FLT-H2: up to the last byte of the empty line that ends it."""
    body = chunked(b"hello", 3, trailers=[("A", "b")])
    for end in range(len(body)):
        parser = fed(CHUNKED, body[:end])

        with pytest.raises(IncompleteRead) as caught:
            parser.receive_end(truncated=False)

        assert caught.value.facts == {"received": len(parser.body), "expected": None}
        assert not parser.complete


def test_a_head_cut_anywhere_is_an_error_that_counts_its_bytes() -> None:
    """BEH-H7."""
    head = OK + b"Content-Length: 5\r\n\r\n"
    for end in range(1, len(head)):
        parser = fed(head[:end])

        with pytest.raises(RemoteProtocolError, match="head") as caught:
            parser.receive_end(truncated=False)

        assert caught.value.facts == {"bytes_received": end}


def test_a_body_without_framing_ends_with_the_connection_and_with_a_real_end_only() -> None:
    """FLT-H3, BEH-H4."""
    whole, truncated = fed(OK + b"\r\nhello", b" you"), fed(OK + b"\r\nhello", b" you")
    assert not whole.complete

    whole.receive_end(truncated=False)
    with pytest.raises(IncompleteRead) as caught:
        truncated.receive_end(truncated=True)

    assert whole.complete
    assert whole.body == b"hello you"
    assert whole.head is not None
    assert not whole.head.keep_alive
    assert not truncated.complete
    assert caught.value.facts == {"received": 9, "expected": None}


@pytest.mark.parametrize("data", [respond(b"hello"), CHUNKED + chunked(b"hello"), respond(status=204)])
def test_the_end_of_the_stream_after_a_whole_response_is_no_error(data: bytes) -> None:
    """FLT-T5: with or without close_notify."""
    for truncated in (False, True):
        parser = fed(data)

        parser.receive_end(truncated=truncated)

        assert parser.complete


# -- bytes that belong to nothing ----------------------------------------------------------------------------

ENDED = [
    ("GET", respond(b"hello")),
    ("GET", respond(b"")),
    ("GET", CHUNKED + chunked(b"hello")),
    ("GET", CHUNKED + chunked(b"hello", trailers=[("A", "b")])),
    ("GET", respond(status=204)),
    ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n"),
    ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("GET", respond(status=304)),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
    ("HEAD", OK + b"Content-Length: 6\r\n\r\n"),
    ("HEAD", CHUNKED),
    ("HEAD", OK + b"\r\n"),
]


@pytest.mark.parametrize(("method", "data"), ENDED)
@pytest.mark.parametrize(
    "extra", [POISON, b"POISON", b"\r\n", b"\n", b"\r", b"\0", b"0\r\n\r\n", b"\r\n\r\n", b"\r\n" + POISON]
)
def test_bytes_after_a_response_are_never_parsed_and_end_the_connection(method: str, data: bytes, extra: bytes) -> None:
    """FLT-H4, H5, H6: in its own segment, in a later one, and byte by byte. llhttp swallows empty lines: we do not."""
    alone = parse(data, method=method)
    assert alone.reusable

    for segments in ([data + extra], [data, extra], [*bytewise(data), *bytewise(extra)], bytewise(data + extra)):
        parsed = parse(*segments, method=method)

        assert parsed.complete
        assert parsed.leftover
        assert not parsed.reusable
        assert (parsed.status, parsed.body, parsed.fields) == (alone.status, alone.body, alone.fields)


@pytest.mark.parametrize("framing", [b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_a_205_that_promises_a_body_is_delivered_and_its_connection_closed(framing: bytes) -> None:
    """FLT-H6."""
    parsed = parse(b"HTTP/1.1 205 Reset Content\r\n" + framing + b"\r\n")

    assert parsed.complete
    assert parsed.body == b""
    assert not parsed.reusable


# -- informational responses ---------------------------------------------------------------------------------


def test_informational_responses_are_skipped_whatever_they_say_of_a_body() -> None:
    """FLT-H8, BEH-H5."""
    parsed = parse(
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 5\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\nTransfer-Encoding: chunked\r\n\r\n" + respond(b"hello")
    )

    assert (parsed.status, parsed.body, parsed.fields) == (200, b"hello", [(b"Content-Length", b"5")])
    assert parsed.reusable


def test_a_flood_of_informational_responses_is_cut_off() -> None:
    """FLT-H8."""
    hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    limits = Limits(max_informational=3)

    assert parse(hint * 3 + respond(b"x"), limits=limits).body == b"x"
    with pytest.raises(LimitExceeded) as caught:
        parse(hint * 4, limits=limits)
    assert (caught.value.option, caught.value.facts["limit"]) == ("max_informational", 3)


def test_the_end_after_informational_responses_only_is_an_error() -> None:
    """FLT-H8."""
    parser = fed(b"HTTP/1.1 100 Continue\r\n\r\n")

    assert parser.started
    with pytest.raises(RemoteProtocolError):
        parser.receive_end(truncated=False)


@pytest.mark.parametrize("fields", [b"", b"Upgrade: x\r\nConnection: upgrade\r\n", b"Content-Length: 3\r\n"])
@pytest.mark.parametrize("after", [b"", b"xyz", POISON])
def test_a_switch_of_protocols_nobody_asked_for_is_refused(fields: bytes, after: bytes) -> None:
    """FLT-H8."""
    with pytest.raises(RemoteProtocolError, match="101"):
        parse(b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n" + after)


def test_an_offer_to_upgrade_is_no_switch() -> None:
    parsed = parse(OK + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nhi")

    assert parsed.body == b"hi"
    assert parsed.reusable


# -- heads -----------------------------------------------------------------------------------------------


def test_a_giant_head_is_cut_off_before_it_ends() -> None:
    """FLT-H9."""
    filling = 1000 - len(OK) - len(b"X: \r\n\r\n")
    exactly = OK + b"X: " + b"x" * filling + b"\r\n\r\n"
    limits = Limits(max_response_headers=1000)

    assert parse(exactly, limits=limits).status == 200
    with pytest.raises(LimitExceeded) as caught:
        parse(exactly.replace(b"\r\n\r\n", b"x\r\n\r\n"), limits=limits)
    assert (caught.value.option, caught.value.facts["limit"]) == ("max_response_headers", 1000)
    with pytest.raises(LimitExceeded):
        parse(OK + b"X: ", *[b"x" * 100] * 10, limits=limits)


def test_a_head_of_too_many_fields_is_cut_off() -> None:
    """FLT-H9."""
    limits = Limits(max_header_count=3)

    assert parse(OK + b"A: b\r\n" * 2 + b"Content-Length: 0\r\n\r\n", limits=limits).complete
    with pytest.raises(LimitExceeded) as caught:
        parse(OK + b"A: b\r\n" * 4 + b"\r\n", limits=limits)
    assert (caught.value.option, caught.value.facts["limit"]) == ("max_header_count", 3)


@pytest.mark.parametrize("start", [
    b"HTTP/1.1 099 Low", b"HTTP/1.1 1000 High", b"HTTP/1.1 20 Short", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 -200 OK",
    b"HTTP/1.1 +200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 OK", b"HTTP/1.1", b"HTTP/1.1 200\tOK",
    b"HTTP/2.0 200 OK", b"HTTP/2 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1 200 OK", b"HTTP/11 200 OK",
    b"http/1.1 200 OK", b"HTTPS/1.1 200 OK", b"ICY 200 OK", b"RTSP/1.0 200 OK", b"HEAD / HTTP/1.1", b"GET / HTTP/1.1",
    b"SSH-2.0-OpenSSH_9.2", b"220 mail ESMTP", b"<html>hello</html>", b"\x16\x03\x03\x00\x02", b" HTTP/1.1 200 OK",
    b"\r\nHTTP/1.1 200 OK", b"\nHTTP/1.1 200 OK", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\rK", b"\0",
])  # fmt: skip
def test_what_is_no_status_line_of_http_1_is_refused(start: bytes) -> None:
    """FLT-H10; HTTP/0.9 too."""
    data = start + b"\r\nContent-Length: 0\r\n\r\n"
    for segments in ([data], bytewise(data)):
        with pytest.raises(RemoteProtocolError):
            parse(*segments)


def test_the_first_bytes_of_nonsense_are_shown_escaped_and_shortened() -> None:
    """FLT-H10."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse(b"\x1b[31mSSH-2.0\r\n" + b"\xff" * 10_000)

    text = str(caught.value)
    assert "\\x1b[31mSSH-2.0\\r\\n" in text
    assert len(text) < 200
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize(
    "fold", [b"A: b\r\n c\r\n", b"A: b\r\n\tc\r\n", b"A:\r\n b\r\n", b"Content-Length: 1\r\n 0\r\n"]
)
def test_a_folded_field_is_refused(fold: bytes) -> None:
    """FLT-H11: RFC 9112 section 5.2 leaves the choice."""
    with pytest.raises(RemoteProtocolError):
        parse(OK + fold + b"\r\n")


@pytest.mark.parametrize("limits", [Limits(), Limits(max_response_headers=1 << 22)])
def test_a_megabyte_of_folds_costs_no_time(limits: Limits) -> None:
    """FLT-H11."""
    folds = OK + b"A: b\r\n" + b" c\r\n" * 250_000
    began = time.thread_time()

    with pytest.raises((RemoteProtocolError, LimitExceeded)):
        parse(folds + b"\r\n", limits=limits)

    assert time.thread_time() - began < 0.2


@pytest.mark.parametrize("field", [
    b"A: b\0c\r\n", b"A: \0\r\n", b"A\0: b\r\n", b"A: b\rc\r\n", b"A: b\r\r\n", b"A : b\r\n", b"A\t: b\r\n",
    b": b\r\n", b"A b: c\r\n", b" A: b\r\n", b"A\r\n", b"A: b\n", b"A\xfc: b\r\n", b"A(: b\r\n", b"A: b\x01\r\n",
    b"A: b\x7f\r\n", b"Content-Length : 0\r\n", b"Transfer-Encoding\x0b: chunked\r\n",
])  # fmt: skip
def test_a_malformed_field_is_refused(field: bytes) -> None:
    """FLT-H12: NUL, bare CR, space before the colon, empty name; bare LF too, which RFC 9112 leaves open."""
    data = OK + field + b"Content-Length: 0\r\n\r\n"
    for segments in ([data], bytewise(data)):
        with pytest.raises(RemoteProtocolError):
            parse(*segments)


@pytest.mark.parametrize("data", [
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    OK + b"Content-Length: 2\n\nhi" + POISON,
    OK + b"Content-Length: 2\r\n\nhi",
    OK + b"Content-Length: 2\n\r\nhi",
])  # fmt: skip
def test_lines_that_end_with_lf_alone_are_refused(data: bytes) -> None:
    """FLT-H12: two ideas of where a head ends are the beginning of every smuggling."""
    with pytest.raises(RemoteProtocolError):
        parse(data)


# -- framing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [
    b"+5", b"-5", b"5 ", b"5\t", b"5,5", b"5, 5", b"5 5", b"5;", b"5.0", b"5e0", b"0x5", b"1_0", b"", b" ", b"five",
    b"\xb2", b"1" + b"0" * 30, b"18446744073709551616", b"9223372036854775808", b"9" * 4400,
])  # fmt: skip
def test_a_content_length_that_is_no_plain_number_is_refused(value: bytes) -> None:
    """FLT-H13; llhttp lets "5 " pass."""
    with pytest.raises(RemoteProtocolError):
        parse(OK + b"Content-Length: " + value + b"\r\n\r\nhello")


@pytest.mark.parametrize("second", [b"5", b"6", b"05"])
def test_a_content_length_given_twice_is_refused(second: bytes) -> None:
    """FLT-H13: equal ones too."""
    with pytest.raises(RemoteProtocolError):
        parse(OK + b"Content-Length: 5\r\ncontent-length: " + second + b"\r\n\r\nhello")


@pytest.mark.parametrize("length", [b"0", b"5", b"30"])
@pytest.mark.parametrize("coding", [b"chunked", b"gzip", b"identity"])
def test_a_content_length_beside_a_transfer_encoding_is_refused(length: bytes, coding: bytes) -> None:
    """FLT-H14: in either order; an error and a closed connection is right."""
    fields = [b"Content-Length: " + length + b"\r\n", b"Transfer-Encoding: " + coding + b"\r\n"]

    for head in (b"".join(fields), b"".join(reversed(fields))):
        with pytest.raises(RemoteProtocolError):
            parse(OK + head + b"\r\n5\r\nhello\r\n0\r\n\r\n" + POISON)


@pytest.mark.parametrize("coding", [
    b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, identity", b"chunked, chunked", b"chunked,",
    b",chunked", b"chunked;q=1", b'"chunked"', b"xchunked", b"chunkedx", b"chunked x", b"\x0bchunked", b"",
    b"chunKed\0",
])  # fmt: skip
def test_a_transfer_encoding_other_than_chunked_is_refused(coding: bytes) -> None:
    """FLT-H15; llhttp reads a body to the end of the connection then."""
    with pytest.raises(RemoteProtocolError):
        parse(OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize("data", [
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
])  # fmt: skip
def test_chunks_in_http_1_0_or_twice_over_are_refused(data: bytes) -> None:
    """FLT-H15."""
    with pytest.raises(RemoteProtocolError):
        parse(data)


def test_the_case_of_a_coding_does_not_matter() -> None:
    parsed = parse(OK + b"TRANSFER-ENCODING: Chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n")

    assert parsed.body == b"hi"
    assert parsed.reusable


# -- chunks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [
    b"+5\r\nhello\r\n", b"-5\r\nhello\r\n", b" 5\r\nhello\r\n", b"5 \r\nhello\r\n", b"5\t\r\nhello\r\n",
    b"0x5\r\nhello\r\n", b"\r\nhello\r\n", b"g\r\nhello\r\n", b"5 ;a\r\nhello\r\n", b"5;\r\nhello\r\n",
    b"5;a\0\r\nhello\r\n", b"5;a\nhello\r\n", b'5;a="\r\n"\r\nhello\r\n', b"5\nhello\r\n", b"5\rhello\r\n",
    b"5\r\nhello\n", b"5\r\nhello", b"5\r\nhell\r\n", b"5\r\nhello!\r\n",
    b"10000000000000000\r\nhello\r\n", b"fffffffffffffffff\r\nhello\r\n",
])  # fmt: skip
def test_a_malformed_chunk_is_refused(chunk: bytes) -> None:
    """FLT-H16."""
    body = b"3\r\nabc\r\n" + chunk + b"0\r\n\r\n"
    for segments in ([CHUNKED + body], [CHUNKED, body], bytewise(CHUNKED + body)):
        with pytest.raises(RemoteProtocolError):
            parse(*segments)


@pytest.mark.parametrize("end", [
    b"0\r\n\n", b"0\n\r\n", b"0\n\n", b"0\r\nA b\r\n\r\n", b"0\r\nA: b\r\n c\r\n\r\n", b"0\r\n: b\r\n\r\n",
    b"0\r\nA: \0\r\n\r\n", b"0\r\nA: b\n\r\n", b"0\r\nContent-Length: 3\r\n\r\n",
])  # fmt: skip
def test_a_malformed_end_of_chunks_is_refused(end: bytes) -> None:
    """FLT-H16, H18."""
    with pytest.raises(RemoteProtocolError):
        parse(CHUNKED + b"3\r\nabc\r\n" + end)


@pytest.mark.parametrize("size", [b"8000000000000000", b"ffffffffffffffff", b"7fffffff"])
def test_a_size_that_is_announced_costs_no_memory(size: bytes) -> None:
    """FLT-H16."""
    parser, _, peak = memory(lambda: fed(CHUNKED + size + b"\r\n", b"hello"))

    assert parser.body == b"hello"
    assert not parser.complete
    assert peak < 100_000


def test_endless_chunk_extensions_are_cut_off() -> None:
    """FLT-H17: in one chunk, and a little in each."""
    for segments in (b"1;" + b"x" * 1000, *[b"x" * 1000] * 100), [b"1;" + b"x" * 100 + b"\r\ny\r\n"] * 1000:
        with pytest.raises(LimitExceeded) as caught:
            fed(CHUNKED, *segments)
        assert caught.value.option == "max_response_headers"


def test_chunks_of_one_byte_are_slow_but_right() -> None:
    """FLT-H17: their sizes are within the allowance, and what is kept of them is their data alone."""
    body = bytes(range(256)) * 400
    for size in (1, 2):
        data = chunked(body, size)
        segments = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]

        parser, kept, _ = memory(functools.partial(fed, CHUNKED, *segments))

        assert parser.body == body
        assert kept < 2 * len(data)


def test_a_flood_of_trailers_is_cut_off() -> None:
    """FLT-H18: by number and by size."""
    limits = Limits(max_response_headers=1000, max_header_count=3)
    start = CHUNKED + b"1\r\nx\r\n0\r\n"

    assert len(parse(start + b"A: b\r\n" * 3 + b"\r\n", limits=limits).trailers) == 3
    for flood, option in (
        (b"A: b\r\n" * 4 + b"\r\n", "max_header_count"),
        (b"A: " + b"b" * 1100, "max_response_headers"),
    ):
        with pytest.raises(LimitExceeded) as caught:
            parse(start + flood, limits=limits)
        assert caught.value.option == option


@pytest.mark.parametrize("name", [
    b"Transfer-Encoding", b"Host", b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade", b"Content-Encoding",
    b"content-type", b"Content-Range", b"Set-Cookie", b"Authorization",
])  # fmt: skip
def test_a_field_that_has_no_business_in_trailers_is_dropped(name: bytes) -> None:
    """FLT-H18."""
    parsed = parse(CHUNKED + b"1\r\nx\r\n0\r\n" + name + b": x\r\nOther: y\r\n\r\n")

    assert parsed.trailers == [(b"Other", b"y")]
    assert parsed.body == b"x"


@pytest.mark.parametrize("trailer", [b"Connection: close", b"Transfer-Encoding: gzip", b"Proxy-Connection: close",
                                     b"Connection: upgrade\r\nUpgrade: x"])  # fmt: skip
def test_a_trailer_that_speaks_of_the_connection_does_not_spoil_the_next_response(trailer: bytes) -> None:
    """FLT-H18: llhttp takes it to heart."""
    parser = fed(CHUNKED + b"1\r\nx\r\n0\r\n" + trailer + b"\r\n\r\n")
    assert parser.complete
    for body in (b"one", b"two"):
        parser.start("GET")

        parser.receive(CHUNKED + chunked(body))

        assert parser.complete
        assert parser.body == body


# -- the body's bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [OK + b"Content-Length: %d\r\n\r\n", CHUNKED + b"%x\r\n", OK + b"\r\n"])
def test_a_body_beyond_the_bound_is_cut_off_unless_it_is_streamed(start: bytes) -> None:
    """FLT-H22."""
    limits = Limits(max_buffered_body=1000)

    def head(size: int) -> bytes:
        return start % size if b"%" in start else start

    assert fed(head(1000), b"x" * 1000, limits=limits).received == 1000
    with pytest.raises(LimitExceeded) as caught:
        fed(head(1001), b"x" * 1001, limits=limits)
    assert (caught.value.option, caught.value.facts["limit"]) == ("max_buffered_body", 1000)
    assert fed(head(1001), b"x" * 1001, limits=limits, in_memory=False).received == 1001


def test_a_length_beyond_the_bound_is_refused_before_the_body_comes() -> None:
    """FLT-H22; a HEAD has no body that could be too long."""
    head = OK + b"Content-Length: 999999999999\r\n\r\n"

    with pytest.raises(LimitExceeded):
        parse(head)
    assert parse(head, method="HEAD").reusable
