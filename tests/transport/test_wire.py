"""The writer of request heads: what goes in stands in its own line, or is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turbopool.bodies import Body
from turbopool.errors import InvalidRequest
from turbopool.transport.wire import Field, WireRequest, write_request

_LINE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


def _write(
    method: str = "GET",
    target: str = "/",
    fields: list[Field] | None = None,
    body: bytes | Body | None = None,
    version: str = "1.1",
) -> WireRequest:
    return write_request(method, target, "h", fields or [], body, version)


def _lines(wire: WireRequest) -> list[bytes]:
    assert wire.head.endswith(b"\r\n\r\n")
    return wire.head[:-4].split(b"\r\n")


def _drawn(length: int | None = None) -> Body:
    return Body(iter([b"hello"]), length)


# -- what is written -----------------------------------------------------------------------------------------


def test_a_head_is_a_request_line_the_host_and_the_fields_in_their_order_and_case() -> None:
    wire = _write("GET", "/a?b=%20", [(b"X-One", b" 1\t"), (b"x-one", b"\xfc"), (b"B", b"")])

    assert _lines(wire) == [b"GET /a?b=%20 HTTP/1.1", b"host: h", b"X-One: 1", b"x-one: \xfc", b"B: "]
    assert (wire.body, wire.chunked, wire.closes) == (None, False, False)


def test_a_host_given_by_the_caller_replaces_ours() -> None:
    assert _lines(_write(fields=[(b"Host", b"other")])) == [b"GET / HTTP/1.1", b"Host: other"]


def test_http_1_0_has_no_host_of_its_own_and_closes() -> None:
    """BEH-H10."""
    wire = _write(version="1.0")

    assert _lines(wire) == [b"GET / HTTP/1.0"]
    assert wire.closes


@pytest.mark.parametrize(("method", "body", "framing"), [
    ("GET", None, []),
    ("DELETE", None, []),
    ("POST", None, [b"content-length: 0"]),
    ("PUT", None, [b"content-length: 0"]),
    ("PATCH", None, [b"content-length: 0"]),
    ("GET", b"", [b"content-length: 0"]),
    ("GET", b"hello", [b"content-length: 5"]),
    ("POST", _drawn(5), [b"content-length: 5"]),
    ("POST", _drawn(), [b"transfer-encoding: chunked"]),
])  # fmt: skip
def test_the_body_decides_the_framing(method: str, body: bytes | Body | None, framing: list[bytes]) -> None:
    wire = _write(method, body=body)

    assert _lines(wire)[2:] == framing
    assert wire.chunked is (framing == [b"transfer-encoding: chunked"])


def test_a_length_given_by_the_caller_frames_what_is_drawn() -> None:
    body = _drawn()

    wire = _write("POST", fields=[(b"Content-Length", b"5"), (b"A", b"b")], body=body)

    assert _lines(wire)[2:] == [b"A: b", b"content-length: 5"]
    assert not wire.chunked
    assert body.length == 5


@pytest.mark.parametrize(("fields", "closes"), [([], False), ([(b"Connection", b"Close")], True),
                                                ([(b"connection", b"te, close")], True),
                                                ([(b"Connection", b"keep-alive")], False)])  # fmt: skip
def test_a_request_may_close_its_connection(fields: list[Field], closes: bool) -> None:  # noqa: FBT001
    """BEH-H3."""
    assert _write(fields=fields).closes is closes


@pytest.mark.parametrize(("method", "fields", "idempotent"), [
    ("GET", [], True), ("HEAD", [], True), ("OPTIONS", [], True), ("TRACE", [], True), ("PUT", [], True),
    ("DELETE", [], True), ("POST", [], False), ("PATCH", [], False), ("CUSTOM", [], False), ("get", [], False),
    ("POST", [(b"Idempotency-Key", b"1")], True),
])  # fmt: skip
def test_idempotence_is_known_by_method_or_key(method: str, fields: list[Field], idempotent: bool) -> None:  # noqa: FBT001
    assert _write(method, fields=fields).idempotent is idempotent


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["", " ", "G T", "GET\r\n", "GET\r\nX: y", "GET\0", "G\tT", "GÉT", "GET:", "(", "\u4f60"]
)
def test_a_method_that_is_no_token_is_refused(method: str) -> None:
    with pytest.raises(InvalidRequest, match="method"):
        _write(method)


def test_a_tunnel_is_no_request() -> None:
    """FLT retry 6: what would follow its answer is no response."""
    with pytest.raises(InvalidRequest, match="CONNECT"):
        _write("CONNECT")


@pytest.mark.parametrize(
    "target", ["", "/a b", "/\r\n", "/ HTTP/1.1\r\nX: y\r\n\r\n", "/\0", "/\t", "/é", "/\x7f", "/\u4f60"]
)
def test_a_target_that_is_not_in_wire_form_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest, match="target"):
        _write(target=target)


@pytest.mark.parametrize("authority", ["h\r\nX: y", "h\n", "h\r", "h\0", "\u4f60"])
def test_an_authority_that_would_end_its_line_is_refused(authority: str) -> None:
    with pytest.raises(InvalidRequest, match="host"):
        write_request("GET", "/", authority, [], None, "1.1")


@pytest.mark.parametrize("name", [b"", b" ", b"A B", b"A:", b"A\r\nB", b"A\n", b"A\0", b" A", b"A ", b"\xfc", b"(a)"])
def test_a_name_that_is_no_token_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidRequest, match="header name"):
        _write(fields=[(name, b"x")])


@pytest.mark.parametrize("value", [b"a\r\nB: c", b"a\n", b"\ra", b"a\0b", b"a\r\n b", b"\x01", b"\x7f", b"\x0b"])
def test_a_value_with_a_control_byte_is_refused_and_not_shown(value: bytes) -> None:
    with pytest.raises(InvalidRequest, match="X-Secret") as caught:
        _write(fields=[(b"X-Secret", b"hunter2" + value)])

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Idempotency-Key"])
def test_a_field_that_may_stand_once_is_refused_twice(name: bytes) -> None:
    """FLT security 4."""
    with pytest.raises(InvalidRequest, match="twice"):
        _write("POST", fields=[(name, b"5"), (name.lower(), b"5")], body=b"hello")


@pytest.mark.parametrize(("fields", "body"), [
    ([(b"Content-Length", b"4")], b"hello"),
    ([(b"Content-Length", b"6")], b"hello"),
    ([(b"Content-Length", b"5")], None),
    ([(b"Content-Length", b"6")], _drawn(5)),
    ([(b"Content-Length", b"+5")], b"hello"),
    ([(b"Content-Length", b"5, 5")], b"hello"),
    ([(b"Content-Length", b"")], _drawn()),
    ([(b"Content-Length", b"-1")], _drawn()),
    ([(b"Content-Length", b"9" * 5000)], _drawn()),
    ([(b"Transfer-Encoding", b"chunked")], b"hello"),
    ([(b"Transfer-Encoding", b"chunked")], None),
    ([(b"Transfer-Encoding", b"gzip")], _drawn()),
    ([(b"Transfer-Encoding", b"gzip, chunked")], _drawn()),
    ([(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"5")], _drawn()),
    ([(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")], _drawn()),
])  # fmt: skip
def test_framing_that_contradicts_the_body_is_refused(fields: list[Field], body: bytes | Body | None) -> None:
    """FLT security 4: neither lengths that lie nor two framings."""
    with pytest.raises(InvalidRequest, match=r"content-length|transfer-encoding"):
        _write("POST", fields=fields, body=body)


@pytest.mark.parametrize("fields", [[], [(b"Transfer-Encoding", b"chunked")]])
def test_http_1_0_refuses_a_body_of_unknown_length(fields: list[Field]) -> None:
    """BEH-H10."""
    with pytest.raises(InvalidRequest):
        _write("POST", fields=fields, body=_drawn(), version="1.0")


# -- whatever it is given --------------------------------------------------------------------------------


_hostile = st.sampled_from(
    ["\r\n", "\n", "\r", "\0", " ", "\t", ":", "\x85", "\u2028", "X: y\r\n", "\r\n\r\n", "é", "\ud800"]
)
_texts = st.lists(st.one_of(_hostile, st.text(max_size=4), st.sampled_from(["GET", "/", "a"])), max_size=4).map("".join)
_blobs = st.lists(
    st.one_of(st.sampled_from([b"\r\n", b"\n", b"\0", b" ", b":", b"X: y", b"a"]), st.binary(max_size=4)), max_size=3
).map(b"".join)
_names = st.one_of(_blobs, st.sampled_from([b"Host", b"content-length", b"Transfer-Encoding", b"Connection", b"X"]))
_values = st.one_of(_blobs, st.sampled_from([b"5", b"chunked", b"close", b"h"]))


@settings(max_examples=400, deadline=None)
@given(
    method=st.one_of(st.just("GET"), st.just("POST"), _texts),
    target=st.one_of(st.just("/"), _texts),
    authority=st.one_of(st.just("h"), _texts),
    fields=st.lists(st.tuples(_names, _values), max_size=4),
    body=st.sampled_from([None, b"hello", 5, "drawn"]),
    version=st.sampled_from(["1.1", "1.0"]),
)
def test_whatever_is_given_is_refused_or_stands_in_a_line_of_its_own(
    method: str, target: str, authority: str, fields: list[Field], body: bytes | int | str | None, version: str
) -> None:
    """FLT security 3: no line that nobody asked for, none that asks for more."""
    given_body = _drawn(5) if body == 5 else _drawn() if body == "drawn" else body
    assert not isinstance(given_body, int | str)

    try:
        wire = write_request(method, target, authority, fields, given_body, version)
    except InvalidRequest:
        return

    first, *rest = _lines(wire)
    assert first == f"{method} {target} HTTP/{version}".encode("latin-1")
    assert first.count(b" ") == 2
    assert all(_LINE.fullmatch(line) for line in rest)
    own = [(name, value.strip(b" \t")) for name, value in fields]
    names = [name.lower() for name, _ in own]
    framing = [line for line in rest if line.startswith((b"content-length: ", b"transfer-encoding: "))]
    expected = [b"%s: %s" % field for field in own if field[0].lower() not in (b"content-length", b"transfer-encoding")]
    if b"host" not in names and version == "1.1":
        expected.insert(0, b"host: " + authority.encode("latin-1").strip(b" \t"))
    assert rest == expected + framing
    assert len(framing) <= 1
    if given_body is not None:
        assert framing == [b"transfer-encoding: chunked" if wire.chunked else b"content-length: 5"]
