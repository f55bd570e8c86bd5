"""Flow control, sans I/O: both windows as the peer sees them, and the peer's as they bound what is sent."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, WindowUpdateFrame

from tests.transport.frames import (
    DATA,
    END_STREAM,
    FIRST_WINDOW,
    INITIAL_WINDOW,
    MAX_FRAME_SIZE,
    PADDED,
    SMALL_WINDOWS,
    Server,
    data,
    each_lane,  # noqa: F401  # every test here runs with both
    frame,
    goaway,
    of,
    request,
    resets,
    settings,
    window,
)
from turbopool.config import Http2Options
from turbopool.errors import RemoteProtocolError
from turbopool.transport.http2_state import Code, StreamState

QUARTER = FIRST_WINDOW // 4
FULL = 16_384


def sent(server: Server) -> list[tuple[int, int, bool]]:
    """Stream, bytes and whether it is the last, of each DATA that the client has sent since."""
    return [(each.stream_id, len(each.data), "END_STREAM" in each.flags) for each in of(DataFrame, server.hear())]


def begun(server: Server) -> StreamState:
    stream = server.opened()
    server.say(server.head(stream))
    return stream


# -- what the peer may send ----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [None, 0, 1, 255])
def test_both_windows_are_opened_again_as_the_body_is_read(padding: int | None) -> None:
    """BEH-M7, FLT-S14: padding included; in one WINDOW_UPDATE for many DATA."""
    server = Server(options=SMALL_WINDOWS)
    stream = begun(server)
    updates = frames = 0

    while frames < 1000:
        server.say(data(1, b"x" * 1000, padding=padding))
        server.codec.consume(stream, 1000)
        updates += len(of(WindowUpdateFrame, server.hear()))
        frames += 1
        assert server.room > FIRST_WINDOW - QUARTER - 1
        assert server.rooms[1] > FIRST_WINDOW - QUARTER - 1

    assert updates <= 2 * (frames * 1256 // QUARTER + 1)
    assert stream.received == 1_000_000


def test_a_body_that_nobody_reads_closes_its_own_window_alone() -> None:
    """BEH-M7, M9: the connection's is opened all the same, so that others go on; streams are independent."""
    server = Server(options=SMALL_WINDOWS)
    slow, fast = begun(server), begun(server)

    for _ in range(3):
        server.say(data(slow.stream_id, bytes(FULL)))
        server.hear()
    for _ in range(100):
        server.say(data(fast.stream_id, bytes(FULL)))
        server.codec.consume(fast, FULL)
        server.hear()

    assert server.rooms[slow.stream_id] == FIRST_WINDOW - 3 * FULL
    assert server.room >= FIRST_WINDOW - QUARTER
    assert server.rooms[fast.stream_id] >= FIRST_WINDOW - QUARTER
    server.codec.consume(slow, 3 * FULL)
    server.hear()
    assert server.rooms[slow.stream_id] == FIRST_WINDOW


@pytest.mark.parametrize("padding", [None, 0, 255])
def test_data_of_cancelled_streams_is_given_back_to_the_connection(padding: int | None) -> None:
    """FLT-S14: for ever, whether it was cancelled here, there, by a malformed response or by GOAWAY."""
    server = Server(options=SMALL_WINDOWS)
    streams = [begun(server) for _ in range(4)]
    server.codec.reset(streams[0], Code.CANCEL)
    server.say(server.head(streams[1], [(b"no", b"trailers")]), goaway(5))
    server.hear()

    for number in range(400):
        stream = streams[(0, 1, 3)[number % 3]]
        server.say(data(stream.stream_id, bytes(1000), padding=padding))
        server.hear()
        assert server.room > FIRST_WINDOW - QUARTER - 1257

    server.say(data(5, bytes(FULL)))
    assert streams[2].received == FULL


def test_data_of_spoiled_streams_is_given_back_too() -> None:
    """FLT-S14, S24: what came before the end, and with it."""
    server = Server(options=SMALL_WINDOWS)

    for _ in range(50):
        stream = server.opened(request("HEAD"))
        server.say(server.head(stream), data(stream.stream_id, bytes(5000), padding=3), data(stream.stream_id, b"1"))
        server.hear()

    assert server.room > FIRST_WINDOW - 2 * QUARTER


def test_the_last_data_of_a_response_may_be_padded() -> None:
    """BEH-M7: a window that nothing more comes through is not opened."""
    for end in (False, True):
        server = Server(options=SMALL_WINDOWS)
        stream = server.opened(end=not end)
        server.say(server.head(stream), data(1, bytes(QUARTER - 100)))
        server.codec.consume(stream, QUARTER - 100)

        server.say(data(1, b"x", end=True, padding=250))

        assert stream.complete
        assert all(each.stream_id == 0 for each in of(WindowUpdateFrame, server.hear()))


@pytest.mark.parametrize("size", [FIRST_WINDOW, 200_000])
def test_a_peer_that_overruns_the_window_of_a_stream_breaks_the_connection(size: int) -> None:
    """BEH-M7, FLT-S23; RFC 9113 section 6.9.1: exactly the window passes."""
    server = Server(options=Http2Options(connection_window=400_000, stream_window=size))
    stream = begun(server)
    assert (server.room, server.rooms[1]) == (400_000, size)

    server.say(*[data(1, bytes(FULL))] * (size // FULL), data(1, bytes(size % FULL)))

    assert stream.received == size
    assert server.fails(data(1, b"x"))[0] == Code.FLOW_CONTROL_ERROR


# -- what the peer lets us send ------------------------------------------------------------------------------


def test_no_more_is_sent_than_frame_and_windows_hold() -> None:
    """BEH-M7: the end is said with the last byte, and only then."""
    server = Server()
    stream = server.opened(end=False)
    body = memoryview(bytes(70_000))

    taken = [server.codec.send(stream, body, end=True)]
    while taken[-1]:
        taken.append(server.codec.send(stream, body[sum(taken) :], end=True))

    assert taken == [FULL, FULL, FULL, FIRST_WINDOW - 3 * FULL, 0]
    assert sent(server) == [(1, size, False) for size in taken[:-1]]
    assert stream.is_sending
    server.say(window(1, 10_000))
    assert server.codec.window(stream) == 0
    assert server.codec.send(stream, body[FIRST_WINDOW:], end=True) == 0
    server.say(window(0, 10_000))
    assert server.codec.has_room
    assert server.codec.send(stream, body[FIRST_WINDOW:], end=True) == 70_000 - FIRST_WINDOW
    assert sent(server) == [(1, 70_000 - FIRST_WINDOW, True)]
    assert not stream.is_sending


def test_streams_share_the_window_of_the_connection() -> None:
    """BEH-M7."""
    server = Server({INITIAL_WINDOW: 40_000})
    one, two = server.opened(end=False), server.opened(end=False)

    for _ in range(3):
        server.codec.send(one, bytes(FULL))

    assert server.codec.window(one) == 0
    assert server.codec.window(two) == FIRST_WINDOW - 40_000


def test_a_larger_frame_is_used_when_the_peer_takes_it() -> None:
    """BEH-M4, M7: SETTINGS of the same connection may change it."""
    server = Server()
    stream = server.opened(end=False)

    server.say(settings({MAX_FRAME_SIZE: 20_000}))

    assert server.codec.send(stream, bytes(60_000)) <= 20_000
    assert all(size <= 20_000 for _, size, _ in sent(server))


def test_a_smaller_first_window_may_leave_streams_in_debt() -> None:
    """BEH-M4, M7; RFC 9113 section 6.9.2: nothing is sent until it is more than nothing; an empty end still goes."""
    server = Server()
    stream, other = server.opened(end=False), server.opened(end=False)
    server.codec.send(stream, bytes(10_000))
    server.hear()

    server.say(settings({INITIAL_WINDOW: 4_000}))

    assert (server.codec.window(stream), server.codec.window(other)) == (0, 4_000)
    assert server.codec.send(stream, b"x") == 0
    server.say(window(1, 6_000))
    assert server.codec.window(stream) == 0
    server.say(window(1, 5))
    assert server.codec.send(stream, b"123456789") == 5
    server.say(settings({INITIAL_WINDOW: 0}))
    assert server.codec.send(other, b"x") == 0
    assert server.codec.send(other, b"", end=True) == 0
    assert sent(server) == [(1, 5, False), (3, 0, True)]
    assert not other.is_sending
    server.codec.has_room = False
    server.say(settings({INITIAL_WINDOW: 4_001}))
    assert server.codec.has_room
    assert server.codec.window(stream) == 1


def test_a_body_without_bytes_ends_with_an_empty_frame() -> None:
    """BEH-M7: however small the window is."""
    server = Server({INITIAL_WINDOW: 0})
    stream = server.opened(end=False)

    assert server.codec.send(stream, b"", end=True) == 0

    assert sent(server) == [(1, 0, True)]


@pytest.mark.parametrize("spelled", [window(0, 0), window(0, 0x7FFF_FFFF), frame(8, 0, 0, b"\0\0\1"), frame(8)])
def test_a_window_update_of_the_connection_that_is_none_ends_it(spelled: bytes) -> None:
    """FLT-S23; RFC 9113 sections 6.9 and 6.9.1: nothing, beyond 2^31-1, or of another size."""
    server = Server()
    server.opened()

    server.fails(spelled)


@pytest.mark.parametrize(("size", "code"), [(0, Code.PROTOCOL_ERROR), (0x7FFF_FFFF, Code.FLOW_CONTROL_ERROR)])
def test_a_window_update_that_is_none_is_its_streams_error(size: int, code: Code) -> None:
    """FLT-S23, BEH-M8; RFC 9113 section 6.9: the other streams go on."""
    server = Server()
    stream, other = server.opened(end=False), server.opened(end=False)

    assert server.say(window(1, size)) == [stream]

    assert isinstance(stream.problem, RemoteProtocolError)
    assert resets(server) == [(1, code)]
    assert list(server.codec.streams.values()) == [other]
    server.say(window(1, 5), window(3, 5))
    assert server.codec.window(other) == FIRST_WINDOW


def test_first_windows_that_add_up_beyond_the_largest_break_the_connection() -> None:
    """FLT-S23; RFC 9113 section 6.9.2."""
    server = Server()
    server.opened(end=False)
    server.say(window(1, 1))

    assert server.fails(settings({INITIAL_WINDOW: 0x7FFF_FFFF}))[0] == Code.FLOW_CONTROL_ERROR


def test_more_padding_than_frame_breaks_the_connection() -> None:
    """FLT-S23; RFC 9113 section 6.1."""
    for payload in (b"\2a", b"\1", b"\xff" + bytes(254)):
        server = Server()
        begun(server)

        assert server.fails(frame(DATA, PADDED | END_STREAM, 1, payload))[0] == Code.PROTOCOL_ERROR
