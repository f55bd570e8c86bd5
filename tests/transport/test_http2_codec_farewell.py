"""One HTTP/2 connection, sans I/O: GOAWAY of the peer, and ours."""

from __future__ import annotations

import pytest
from hyperframe.frame import GoAwayFrame

from tests.transport.frames import (
    OK,
    SETTINGS,
    Server,
    data,
    each_lane,  # noqa: F401  # every test here runs with both
    frame,
    goaway,
    headers,
    of,
)
from turbopool.transport.http2_state import LAST_ID, Code, ConnectionFailure


def test_streams_below_a_goaway_go_on_as_before() -> None:
    """BEH-M5, FLT-S1: their windows and the table survive; those beyond were not looked at."""
    server = Server()
    kept, lost = server.opened(end=False), server.opened()
    server.say(server.head(kept, [*OK, (b"x-long", b"entered")]))

    news = server.say(goaway(1, Code.NO_ERROR, b"bye"))

    assert news == [lost]
    assert (lost.refused, lost.code, lost.complete) == (True, Code.NO_ERROR, False)
    assert (kept.refused, kept.code) == (False, None)
    farewell = server.codec.goaway
    assert farewell is not None
    assert (farewell.last_id, farewell.code, farewell.debug) == (1, Code.NO_ERROR, b"bye")
    assert server.codec.send(kept, b"x" * 70_000, end=True) == 16_384
    server.say(frame(8, 0, 1, (70_000).to_bytes(4)), frame(8, 0, 0, (70_000).to_bytes(4)))
    assert server.codec.window(kept) == 65_535 - 16_384 + 70_000
    trailers = server.block([(b"x-long", b"entered")])
    assert len(trailers) == 1
    server.say(data(1, b"body"), headers(1, trailers, end=True))
    assert (kept.pieces, kept.trailers, kept.complete) == ([b"body"], [(b"x-long", b"entered")], True)


def test_a_goaway_may_come_twice_and_only_take_back() -> None:
    """FLT-S1; RFC 9113 section 6.8: first 2^31-1, then what was really seen; it does not rise again."""
    server = Server()
    streams = [server.opened() for _ in range(3)]

    assert server.say(goaway(LAST_ID)) == []
    assert server.say(goaway(3)) == streams[2:]
    assert server.say(goaway(LAST_ID, Code.INTERNAL_ERROR)) == []

    assert server.codec.goaway is not None
    assert (server.codec.goaway.last_id, server.codec.goaway.code) == (3, Code.INTERNAL_ERROR)
    server.say(server.head(streams[0], end=True), server.head(streams[1], end=True))
    assert [stream.complete for stream in streams] == [True, True, False]


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.HTTP_1_1_REQUIRED, Code.ENHANCE_YOUR_CALM, 0xFFFF_FFFF])
def test_a_goaway_of_0_gives_all_streams_back(code: int) -> None:
    """FLT-S2, S10: with the code, known or not."""
    server = Server()
    streams = [server.opened() for _ in range(3)]

    assert server.say(goaway(0, code)) == streams

    assert [(stream.refused, stream.code) for stream in streams] == [(True, code)] * 3
    assert not server.codec.streams


def test_frames_of_a_stream_that_a_goaway_took_are_let_pass() -> None:
    """FLT-S1, S20: their header blocks are read all the same."""
    server = Server()
    kept, lost = server.opened(), server.opened()
    server.say(goaway(1))

    server.say(server.head(lost, [*OK, (b"x-long", b"entered")]), data(3, b"abc", end=True))
    server.say(server.head(kept, [*OK, (b"x-long", b"entered")], end=True))

    assert (lost.head, lost.pieces) == (None, [])
    assert kept.head is not None
    assert kept.head.fields == [(b"x-long", b"entered")]


@pytest.mark.parametrize("wrong", [frame(7, 0, 1, bytes(8)), frame(7, 0, 0, bytes(7)), frame(7)])
def test_a_goaway_that_is_none_ends_the_connection(wrong: bytes) -> None:
    """FLT-S23."""
    server = Server()
    server.opened()

    server.fails(wrong)


def test_good_bye_is_said_once() -> None:
    """BEH-M5: whatever happens after it."""
    server = Server()
    server.codec.close()
    server.codec.close(Code.INTERNAL_ERROR)

    (farewell,) = of(GoAwayFrame, server.hear())

    assert (farewell.error_code, farewell.last_stream_id) == (Code.NO_ERROR, 0)


def test_what_came_before_a_violation_counts() -> None:
    """FLT-S23, BEH-M8: a response that was whole is delivered, though the connection ends in the same bytes."""
    server = Server()
    whole, other = server.opened(), server.opened()

    with pytest.raises(ConnectionFailure):
        server.say(server.head(whole), data(1, b"all", end=True), frame(SETTINGS, 0, 0, b"1"))

    assert server.codec.news() == [whole]
    assert server.codec.news() == []
    assert (whole.pieces, whole.complete) == ([b"all"], True)
    assert not other.has_begun
