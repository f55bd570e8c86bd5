"""Floods: what costs a peer little and us much has a budget, and beyond it the connection ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.transport.frames import (
    ACK,
    CONTINUATION,
    DATA,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    SETTINGS,
    Server,
    assert_next_is_fine,
    data,
    each_lane,  # noqa: F401  # every test here runs with both
    frame,
    goaway,
    headers,
    ping,
    reset,
    settings,
    window,
)
from turbopool.transport.http2_conduct import Budget
from turbopool.transport.http2_state import LAST_ID, Code, StreamState


def server() -> Server:
    """With a live stream 1, a cancelled 3, and time enough since the greeting to have every budget full."""
    peer = Server()
    live, cancelled = peer.opened(end=False), peer.opened()
    peer.say(peer.head(live))
    peer.codec.reset(cancelled, Code.CANCEL)
    peer.hear()
    peer.now = 1000.0
    return peer


FLOODS: dict[str, tuple[bytes, int, float]] = {
    "ping": (ping(), 100, 10.0),
    "ping answers that nobody asked for": (ping(ack=True), 100, 10.0),
    "settings": (settings({3: 100}), 100, 10.0),
    "settings without any": (frame(SETTINGS), 100, 10.0),
    "acknowledgements of settings": (frame(SETTINGS, ACK), 100, 10.0),
    "reset of an ended stream": (reset(3, Code.CANCEL), 1000, 100.0),
    "empty data": (data(1), 1000, 100.0),
    "data of padding alone": (frame(DATA, PADDED, 1, b"\0"), 1000, 100.0),
    "window update of the connection": (window(0, 1), 10_000, 1000.0),
    "window update of a stream": (window(1, 1), 10_000, 1000.0),
    "empty data of an ended stream": (data(3), 10_000, 5000.0),
    "headers of an ended stream": (headers(3, b"\x88"), 10_000, 5000.0),
    "priority": (frame(PRIORITY, 0, 1, bytes(5)), 10_000, 5000.0),
    "unknown": (frame(0x99, 0, 1, b"abc"), 10_000, 5000.0),
}
"""A frame, how many are let pass at once, and how many a second from then on."""


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection_and_no_less_does(name: str) -> None:
    """FLT-S22, S18; CVE-2019-9511 to 9518: just the budget passes, one more does not."""
    each, burst, _ = FLOODS[name]
    peer = server()

    peer.say(each * burst)
    code, why = peer.fails(each)

    assert code == Code.ENHANCE_YOUR_CALM
    assert why.startswith("too many")


@pytest.mark.parametrize("name", FLOODS)
def test_what_comes_slowly_is_no_flood(name: str) -> None:
    """FLT-S22: the budget fills up again with time; the rest of the connection is as it was."""
    each, burst, rate = FLOODS[name]
    peer = server()
    peer.say(each * burst)

    for _ in range(2):
        peer.now += 0.5
        peer.say(each * int(rate * 0.5))
    peer.hear()

    assert_next_is_fine(peer)  # which may be a reason for one more
    assert peer.fails(each * 2)[0] == Code.ENHANCE_YOUR_CALM


def test_an_endless_block_of_empty_continuations_is_a_flood() -> None:
    """FLT-S18: CVE-2024-27316; nothing else limits it."""
    peer = server()
    peer.say(frame(HEADERS, 0, 3, b""), frame(CONTINUATION, 0, 3) * 1000)

    assert peer.fails(frame(CONTINUATION, 0, 3))[0] == Code.ENHANCE_YOUR_CALM


def test_farewells_without_end_are_a_flood() -> None:
    """FLT-S22: the first is free."""
    peer = server()
    peer.say(goaway(LAST_ID) * 101)

    assert peer.fails(goaway(LAST_ID))[0] == Code.ENHANCE_YOUR_CALM


def test_whoever_is_sent_much_may_open_windows_often() -> None:
    """FLT-S22, BEH-M9: two updates for each DATA are what honest servers say."""
    peer = server()
    stream = peer.codec.streams[1]

    for _ in range(6_000):
        assert peer.codec.send(stream, b"x") == 1
        peer.say(window(0, 1), window(1, 1))

    peer.hear()
    assert_next_is_fine(peer)


def test_data_that_was_on_its_way_is_no_flood() -> None:
    """FLT-S14: a server may have filled the window when it hears that nobody wants it."""
    peer = server()

    for _ in range(12_000):
        peer.say(data(3, bytes(1400)))

    peer.hear()
    assert_next_is_fine(peer)


@pytest.mark.parametrize(
    "end",
    [
        lambda peer, stream: peer.say(reset(stream.stream_id, Code.REFUSED_STREAM)),
        lambda peer, stream: peer.say(peer.head(stream, end=True)),
        lambda peer, stream: peer.say(peer.head(stream, [(b":status", b"bad")])),
    ],
)
def test_streams_that_end_are_no_flood(end: Callable[[Server, StreamState], object]) -> None:
    """FLT-S22: each was asked for."""
    peer = server()

    for _ in range(1_500):
        end(peer, peer.opened())

    peer.hear()
    assert_next_is_fine(peer)


def test_a_server_may_end_every_early_answer_with_a_reset() -> None:
    """FLT-S9, S22: it says so when the response was whole and the rest of the request is not wanted."""
    peer = server()

    for _ in range(1_200):
        stream = peer.opened(end=False)
        peer.say(peer.head(stream, end=True))
        peer.codec.reset(stream, Code.NO_ERROR)
        peer.say(reset(stream.stream_id, Code.NO_ERROR))

    peer.hear()
    assert_next_is_fine(peer)


def test_ours_are_answered_as_often_as_asked() -> None:
    """BEH-M6, FLT-S22."""
    peer = server()

    for _ in range(300):
        peer.codec.ping(b"12345678")
        peer.say(ping(ack=True))

    assert peer.codec.pongs == 300
    assert peer.fails(frame(PING, ACK, 0, bytes(8)) * 101)[0] == Code.ENHANCE_YOUR_CALM


def test_a_budget_is_a_bucket_that_fills_up() -> None:
    """FLT-S22: never beyond its burst."""
    budget = Budget(3, 2.0, 10.0)

    assert [budget.spend(10.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.spend(10.5) for _ in range(2)] == [True, False]
    assert [budget.spend(1000.0) for _ in range(4)] == [True, True, True, False]
    budget.earn(2)
    assert [budget.spend(1000.0) for _ in range(3)] == [True, True, False]
