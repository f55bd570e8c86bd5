"""Large bodies in memory: written where they will be read, whatever the pieces they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.parsing import OK, fed, memory
from turbopool.errors import IncompleteRead
from turbopool.transport.http1 import ResponseParser

SIZE = 300_000
BODY = bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256)
HEAD = OK + b"Content-Length: %d\r\n\r\n" % SIZE


def take(parser: ResponseParser, data: bytes, *, straight: bool) -> bytes:
    """Hand over the first of `data`, in the room there is if `straight`; return the rest."""
    room = parser.room
    if room is None or not straight:
        parser.receive(data)
        return b""
    size = min(len(data), len(room))
    room[:size] = data[:size]
    parser.receive(room[:size])
    return data[size:]


@given(cuts=st.lists(st.tuples(st.integers(0, len(HEAD) + SIZE), st.booleans()), max_size=12))
def test_a_large_body_is_the_same_whatever_way_it_comes(cuts: list[tuple[int, bool]]) -> None:
    parser = fed()
    at, data = 0, HEAD + BODY
    for cut, straight in [*sorted(cuts), (len(data), True)]:
        piece, at = data[at:cut], max(at, cut)
        while piece:
            piece = take(parser, piece, straight=straight)

    assert parser.complete
    assert not parser.leftover
    assert parser.received == SIZE
    assert parser.body == BODY
    assert parser.room is None


def test_what_follows_a_large_body_is_seen() -> None:
    """There is never room for the very last of it: that comes with what should not be there."""
    parser = fed(HEAD)
    parser.receive(BODY[:1])
    rest = BODY[1:] + b"POISON"
    while parser.room is not None:
        rest = take(parser, rest, straight=True)
    assert len(rest) > len(b"POISON")

    parser.receive(rest)

    assert parser.complete
    assert parser.leftover
    assert parser.body == BODY


def test_a_large_body_is_written_once() -> None:
    """Its value is the memory it was received into, not a copy."""
    parser = fed(HEAD)
    parser.receive(BODY[:1])

    def rest() -> bytes:
        at = 1
        while (room := parser.room) is not None:
            size = min(len(room), 100_000)
            room[:size] = BODY[at : at + size]
            parser.receive(room[:size])
            at += size
        parser.receive(BODY[at:])
        return parser.body

    body, _, peak = memory(rest)

    assert body == BODY
    assert peak < SIZE


def test_a_large_body_cut_short_says_how_much_came() -> None:
    parser = fed(HEAD, BODY[:200_000])

    with pytest.raises(IncompleteRead) as caught:
        parser.receive_end(truncated=False)

    assert (caught.value.facts["received"], caught.value.facts["expected"]) == (200_000, SIZE)


@pytest.mark.parametrize(("length", "in_memory"), [(10_000, True), (SIZE, False), ((64 << 20) + 1, True)])
def test_a_body_that_is_small_or_streamed_or_merely_promised_gets_no_room(length: int, *, in_memory: bool) -> None:
    parser = fed(OK + b"Content-Length: %d\r\n\r\n" % length, b"x" * 100, in_memory=in_memory)

    assert parser.room is None
    assert parser.pieces == [b"x" * 100]


def test_the_next_response_finds_nothing_of_a_large_one() -> None:
    parser = fed(HEAD, BODY[:1])
    assert parser.room is not None

    parser.start("GET")
    parser.receive(OK + b"Content-Length: 5\r\n\r\nhello")

    assert parser.room is None
    assert parser.body == b"hello"
