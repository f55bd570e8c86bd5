"""Responses that are none: their stream's misfortune alone, and the next one on the connection is fine."""

from __future__ import annotations

import pytest

from tests.transport.frames import (
    OK,
    Server,
    assert_next_is_fine,
    data,
    each_lane,  # noqa: F401  # every test here runs with both
    headers,
    resets,
)
from turbopool.errors import IncompleteRead, LimitExceeded, RemoteProtocolError
from turbopool.transport.head import Field, Limits
from turbopool.transport.http2_state import Code


@pytest.mark.parametrize(
    "fields",
    [
        [*OK, (b"Upper", b"a")],
        [*OK, (b"a", b"b\r\nc")],
        [*OK, (b"a", b"b\0")],
        [*OK, (b":path", b"/")],
        [*OK, (b"connection", b"close")],
        [*OK, (b"content-length", b"1"), (b"content-length", b"2")],
        [(b"a", b"b")],
        [],
        [(b":status", b"abc")],
        [(b":status", b"101")],
    ],
)
@pytest.mark.parametrize("end", [True, False])
def test_a_malformed_response_is_its_streams_error_alone(fields: list[Field], end: bool) -> None:  # noqa: FBT001
    """FLT-S24, BEH-M8; RFC 9113 section 8.1.1: nothing of it is delivered, what follows of it is let pass."""
    server = Server()
    stream, other = server.opened(), server.opened()

    news = server.say(server.head(stream, fields, end=end), *([] if end else [data(1, b"rest", end=True)]))

    assert news == [stream]
    assert isinstance(stream.problem, RemoteProtocolError)
    assert (stream.head, stream.pieces, stream.complete) == (None, [], False)
    assert resets(server) == [(1, Code.PROTOCOL_ERROR)]
    server.say(server.head(other, end=True))
    assert other.complete
    assert_next_is_fine(server)


@pytest.mark.parametrize(
    ("fields", "end"),
    [([(b":status", b"200")], True), ([(b":status", b"103")], False), ([(b"a", b"b")], False), ([(b"A", b"b")], True),
     ([(b":path", b"/")], True)],
)  # fmt: skip
def test_trailers_that_are_none_are_malformed(fields: list[Field], end: bool) -> None:  # noqa: FBT001
    """FLT-S24; RFC 9113 section 8.1: no pseudo-fields, no second head, and nothing after them."""
    server = Server()
    stream = server.opened()

    server.say(server.head(stream), data(1, b"x"), server.head(stream, fields, end=end))

    assert isinstance(stream.problem, RemoteProtocolError)
    assert resets(server) == [(1, Code.PROTOCOL_ERROR)]
    assert_next_is_fine(server)


def test_an_informational_response_cannot_be_the_last() -> None:
    """FLT-S24."""
    server = Server()
    stream = server.opened()

    server.say(server.head(stream, [(b":status", b"103")], end=True))

    assert isinstance(stream.problem, RemoteProtocolError)
    assert_next_is_fine(server)


@pytest.mark.parametrize(
    ("length", "frames", "kind"),
    [
        (b"4", [data(1, b"abc", end=True)], IncompleteRead),
        (b"4", [data(1, b"abc"), data(1, end=True)], IncompleteRead),
        (b"4", [data(1, b"abc"), headers(1, b"\x00\x01a\x01b", end=True)], IncompleteRead),
        (b"4", [data(1, b"abc"), data(1, b"de")], RemoteProtocolError),
        (b"0", [data(1, b"a")], RemoteProtocolError),
        (b"4", [data(1, b"abcd"), data(1, b"e", end=True)], RemoteProtocolError),
    ],
)
def test_a_body_of_another_length_is_malformed(length: bytes, frames: list[bytes], kind: type[Exception]) -> None:
    """FLT-S24; RFC 9113 section 8.1.1: said with what came and what was promised; the surplus is not hidden."""
    server = Server()
    stream = server.opened()

    server.say(server.head(stream, [*OK, (b"content-length", length)]), *frames)

    assert type(stream.problem) is kind
    assert stream.problem.facts["expected"] == int(length)
    assert stream.problem.facts["received"] == stream.received
    assert_next_is_fine(server)


def test_a_head_alone_is_shorter_than_it_promises() -> None:
    """FLT-S24."""
    server = Server()
    stream = server.opened()

    server.say(server.head(stream, [*OK, (b"content-length", b"1")], end=True))

    assert isinstance(stream.problem, IncompleteRead)
    assert_next_is_fine(server)


# -- limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "limits", "fields"),
    [
        ("max_response_headers", Limits(max_response_headers=200), [(b"a", b"b" * 130)]),
        ("max_header_count", Limits(max_header_count=4), [(b"a", b"")] * 4),
    ],
)
def test_a_header_section_beyond_a_limit_is_its_streams_error(option: str, limits: Limits, fields: list[Field]) -> None:
    """FLT-S19: trailers too; the error names the option, and the table is kept."""
    server = Server(limits=limits)
    one, two = server.opened(), server.opened()

    server.say(server.head(one, [*OK, *fields]), server.head(two), headers(3, server.block([*fields, *fields])))

    for stream in (one, two):
        assert isinstance(stream.problem, LimitExceeded)
        assert stream.problem.option == option
    assert resets(server) == [(1, Code.CANCEL), (3, Code.CANCEL)]
    assert_next_is_fine(server)


def test_informational_responses_are_limited() -> None:
    """FLT-S22: exactly the limit passes; each stream has its own."""
    server = Server(limits=Limits(max_informational=3))
    one, two = server.opened(), server.opened()
    hint = [(b":status", b"103")]

    server.say(*[server.head(stream, hint) for stream in (one, two) for _ in range(3)], server.head(one, end=True))
    server.say(server.head(two, hint))

    assert (one.complete, one.problem) == (True, None)
    assert isinstance(two.problem, LimitExceeded)
    assert two.problem.option == "max_informational"
    assert resets(server) == [(3, Code.CANCEL)]
    assert_next_is_fine(server)
