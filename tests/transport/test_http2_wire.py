"""What a request looks like in HTTP/2, read by a peer of another make."""

from __future__ import annotations

import io

import pytest
from hpack import Decoder
from hpack.hpack import encode_integer
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.frames import Server, request
from turbopool.bodies import Body
from turbopool.errors import InvalidRequest
from turbopool.transport.head import Field
from turbopool.transport.http2_fields import FieldWriter
from turbopool.transport.http2_wire import StreamRequest, integer, literal, write_stream_request


def sent(asked: StreamRequest) -> list[Field]:
    """The fields as a server reads them, in order."""
    server = Server()
    stream = server.opened(asked)
    return server.requests[stream.stream_id]


def block(asked: StreamRequest) -> bytes:
    return FieldWriter().prepare(asked)


def test_pseudo_fields_come_first_and_say_the_request() -> None:
    """BEH-M1; RFC 9113 section 8.3.1: all four, before any other field."""
    asked = write_stream_request("http", "PATCH", "/a?b=c", "example.org:8080", [(b"X-A", b"1")], None)

    assert sent(asked) == [
        (b":method", b"PATCH"),
        (b":scheme", b"http"),
        (b":authority", b"example.org:8080"),
        (b":path", b"/a?b=c"),
        (b"x-a", b"1"),
        (b"content-length", b"0"),
    ]


def test_host_becomes_the_authority() -> None:
    """BEH-M1; RFC 9113 section 8.3.1: it wins over the URL's, and is not sent itself."""
    fields = sent(request(fields=[(b"Host", b"other.example"), (b"Accept", b"*/*")]))

    assert (b":authority", b"other.example") in fields
    assert b"host" not in dict(fields)


@pytest.mark.parametrize(
    ("number", "bits", "expected"), [(10, 5, b"\x0a"), (15, 4, b"\x0f\x00"), (1337, 5, b"\x1f\x9a\x0a")]
)
def test_numbers_are_written_as_the_wire_has_them(number: int, bits: int, expected: bytes) -> None:
    """RFC 7541 section 5.1 and appendix C.1."""
    assert integer(number, bits) == expected


@given(st.integers(0, 1 << 40), st.integers(4, 7))
def test_numbers_are_written_as_others_do(number: int, bits: int) -> None:
    """The bits before them are flags."""
    expected = encode_integer(number, bits)
    assert integer(number, bits) == bytes(expected)

    expected[0] |= 1 << bits
    assert integer(number, bits, 1 << bits) == bytes(expected)


@pytest.mark.parametrize(
    "name",
    [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Upgrade", b"HTTP2-Settings", b"Transfer-Encoding"],
)
def test_fields_of_a_connection_are_not_sent(name: bytes) -> None:
    """FLT-S24; RFC 9113 section 8.2.2: a server would refuse the request for them."""
    asked = request("POST", fields=[(name, b"chunked"), (b"X-B", b"2")], body=Body([b"a"], None))

    fields = dict(sent(asked))
    assert name.lower() not in fields
    assert fields[b"x-b"] == b"2"


@pytest.mark.parametrize(("value", "kept"), [(b"trailers", True), (b"Trailers", True), (b"gzip", False),
                                             (b"trailers, deflate", False)])  # fmt: skip
def test_te_says_trailers_or_nothing(value: bytes, kept: bool) -> None:  # noqa: FBT001
    """FLT-S24; RFC 9113 section 8.2.2."""
    assert (b"te" in dict(sent(request(fields=[(b"TE", value)])))) == kept


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", None, None),
        ("DELETE", None, None),
        ("POST", None, b"0"),
        ("PUT", b"", b"0"),
        ("GET", b"", b"0"),
        ("POST", b"four", b"4"),
        ("POST", Body(io.BytesIO(b"123456"), 6), b"6"),
        ("POST", Body([b"1", b"2"], None), None),
    ],
)
def test_content_length_is_that_of_the_body(method: str, body: bytes | Body | None, length: bytes | None) -> None:
    """FLT-S24: absent where nothing comes, or nobody knows how much."""
    fields = dict(sent(request(method, body=body)))

    assert fields.get(b"content-length") == length
    assert b"transfer-encoding" not in fields


def test_a_length_that_the_caller_gives_is_that_of_a_drawn_body() -> None:
    """FLT-S24: once, and the sender is held to it."""
    body = Body([b"12", b"345"], None)

    fields = sent(request("PUT", fields=[(b"Content-Length", b"5")], body=body))

    assert [value for name, value in fields if name == b"content-length"] == [b"5"]
    assert body.length == 5


@pytest.mark.parametrize(
    ("method", "target", "fields", "body"),
    [
        ("GET", "/", [(b"a", b"b\r\nc: d")], None),
        ("GET", "/", [(b"a", b"\0")], None),
        ("GET", "/", [(b":path", b"/other")], None),
        ("GET", "/", [(b"a b", b"c")], None),
        ("GET", "/", [(b"host", b"a"), (b"Host", b"b")], None),
        ("GET", "/a b", [], None),
        ("GET", "/\r\n", [], None),
        ("G T", "/", [], None),
        ("CONNECT", "/", [], None),
        ("POST", "/", [(b"content-length", b"3")], b"four"),
        ("POST", "/", [(b"content-length", b"-1")], Body([], None)),
        ("POST", "/", [(b"transfer-encoding", b"gzip")], Body([], None)),
        ("GET", "/", [(b"host", b"a\nb")], None),
    ],
)
def test_what_does_not_belong_in_a_request_is_refused(
    method: str, target: str, fields: list[Field], body: bytes | Body | None
) -> None:
    """FLT-S24: in the caller's thread, before a connection is had; the same rules as in HTTP/1."""
    with pytest.raises(InvalidRequest):
        request(method, target, fields, body)


@pytest.mark.parametrize("authority", ["a b\r\n", "a\0b"])
def test_an_authority_that_is_none_is_refused(authority: str) -> None:
    """FLT-S24."""
    with pytest.raises(InvalidRequest):
        request(authority=authority)


def test_fields_keep_their_order_and_repetitions() -> None:
    """BEH-M1: of those whose order may mean something."""
    fields = sent(request(fields=[(b"Cookie", b"a=1"), (b"X", b"1"), (b"Cookie", b"b=2"), (b"X", b"\xff \t2")]))

    assert fields[4:] == [(b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2"), (b"x", b"\xff \t2")]


def test_a_repeated_field_that_enters_the_table_keeps_its_values_in_order() -> None:
    """BEH-M1; RFC 9110 section 5.3."""
    fields = sent(request(fields=[(b"Accept", b"a/b"), (b"Accept", b"c/d"), (b"Accept", b"a/b")]))

    assert [value for name, value in fields if name == b"accept"] == [b"a/b", b"c/d", b"a/b"]


_PRIVATE = [
    (b"authorization", b"Bearer t0k3n"),
    (b"cookie", b"session=s3cr3t"),
    (b"proxy-authorization", b"Basic cHJveHk="),
    (b"x-request-id", b"0017"),
    (b"if-none-match", b'"tag"'),
    (b"content-length", b"3"),
    (b"content-type", b"multipart/form-data; boundary=77aa"),
    (b"user-agent", b"long " * 52),
]


def test_what_changes_or_is_secret_never_enters_the_table_of_the_peer() -> None:
    """BEH-M5; RFC 7541 section 7.1: what repeats does, and the server's table is looked into."""
    server = Server()
    steady = [(b"accept", b"*/*"), (b"user-agent", b"tp/1"), (b"accept-encoding", b"gzip"), (b"te", b"trailers"),
              (b"accept-language", b"de"), (b"content-type", b"text/plain")]  # fmt: skip

    for number in range(3):
        server.opened(request("PUT", f"/path/{number}", [*_PRIVATE[:5], *_PRIVATE[6:], *steady], b"abc"))

    entries = set(server.decoder.header_table.dynamic_entries)
    assert entries == {*steady, (b":authority", b"example.org"), (b":method", b"PUT")}
    assert server.requests[1][4:] != []
    assert dict(server.requests[5])[b":path"] == b"/path/2"


@pytest.mark.parametrize("name", [b"Authorization", b"COOKIE", b"Proxy-Authorization"])
def test_secrets_are_marked_to_be_indexed_by_nobody(name: bytes) -> None:
    """BEH-M5; RFC 7541 section 7.1.3: not by an intermediary either."""
    fields = Decoder().decode(block(request(fields=[(name, b"s"), (b"x-plain", b"p")])), raw=True)

    assert [tuple(field) for field in fields if not field.indexable] == [(name.lower(), b"s")]


@pytest.mark.parametrize("name", sorted({name for name, _ in HeaderTable.STATIC_TABLE} | {b"x", b"x" * 126, b"x" * 127,
                                                                                         b"x" * 300}))  # fmt: skip
def test_a_literal_is_read_as_it_was_meant(name: bytes) -> None:
    """BEH-M5; RFC 7541 section 6.2: for each name of the static table, and others, at the edges of integers."""
    for size in (0, 1, 126, 127, 128, 254, 255, 16_511):
        decoder = Decoder()

        (field,) = decoder.decode(literal(name, b"v" * size), raw=True)

        assert tuple(field) == (name, b"v" * size)
        assert not decoder.header_table.dynamic_entries


def test_the_same_request_can_be_had_for_http1() -> None:
    """FLT-S10: with what HTTP/2 leaves out."""
    asked = request("POST", "/a", [(b"Keep-Alive", b"1"), (b"X", b"Y")], Body([b"a"], None))

    lowered = asked.as_http1()

    assert lowered.head == (
        b"POST /a HTTP/1.1\r\nhost: example.org\r\nKeep-Alive: 1\r\nX: Y\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    assert lowered.body is asked.body
    assert lowered.chunked


@pytest.mark.parametrize(("method", "fields", "idempotent"), [
    ("GET", [], True), ("PUT", [], True), ("POST", [], False), ("POST", [(b"Idempotency-Key", b"1")], True),
])  # fmt: skip
def test_idempotence_is_that_of_the_method_or_said(method: str, fields: list[Field], idempotent: bool) -> None:  # noqa: FBT001
    """BEH-M1: as in HTTP/1."""
    assert request(method, fields=fields).idempotent == idempotent
