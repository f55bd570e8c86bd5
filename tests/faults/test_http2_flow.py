"""FLT-S13, S15: windows that stay shut, readers that are slow, and everybody else, who does not wait for them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame, WindowUpdateFrame

from tests.faults.stream_stage import StreamStage
from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    assert_answered,
    assert_recovered,
    attend,
    error_of,
    figures,
    resets,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2peer import H2Peer
from tests.servers.h2serve import pattern, serve, serving
from tests.waiting import eventually
from turbopool import Client, Http2Options, ReadError, RemoteProtocolError, Timeout, WriteTimeout
from turbopool.transport.download import HIGH_WATER

WINDOW = 65_535
ONE = Http2Options(max_connections_per_server=1)


def _given(conn: H2Conn, stream_id: int) -> list[int]:
    """What the client has opened a window by, each time."""
    return [
        frame.window_increment
        for frame in list(conn.frames)
        if isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream_id
    ]


def _miserly(conn: H2Conn) -> None:
    """Open no window by itself."""
    conn.handshake()
    conn.gives_credit = False
    attend(conn)


# -- sending ---------------------------------------------------------------------------------------------


def _settled(client: Client, peer: H2Peer, window: int) -> H2Conn:
    """The one connection, on which streams have this window from now on, and no credit is given."""
    assert client.get("/next").content == NEXT
    conn = peer.connections[0]
    conn.do(conn.send_settings, initial_window_size=window)
    conn.do(conn.settings_acked)
    return conn


@SCHEMES
def test_a_window_that_is_never_opened_ends_its_upload_and_nothing_else(scheme: str, authority: Authority) -> None:
    """FLT-S13: WriteTimeout, RST_STREAM(CANCEL), and a connection that goes on."""
    with scene(_miserly, authority=authority, scheme=scheme) as (client, peer):
        conn = _settled(client, peer, 1000)
        future = client.send_async("POST", "/stuck", content=bytes(5000), timeout=Timeout(PATIENCE, write=0.1))
        peer.wait_for_requests(2)
        for _ in range(5):
            assert client.post("/next", content=bytes(900)).content == NEXT

        error = error_of(future, WriteTimeout, "maybe", may_retry=False, phase="send")
        conn.do(conn.sync)
        assert len(peer.requests[1].body) == 1000
        assert 1000 < int(error.facts["bytes_sent"] or 0) < 1200  # its fields as well
        assert resets(conn) == [(3, ErrorCodes.CANCEL)]
        assert_recovered(client, peer, connections=1)


def test_a_connection_whose_window_is_shut_still_carries_what_needs_none() -> None:
    """FLT-S13: uploads end in time; requests without a body are answered, and uploads go on when it opens."""
    with scene(_miserly) as (client, peer):
        conn = _settled(client, peer, 1 << 20)
        phases = Timeout(PATIENCE, write=0.1)
        (patient,) = sent_all(client, peer, ("PUT", "/patient"), content=bytes(100_000))
        stuck = [client.send_async("PUT", f"/stuck{n}", content=bytes(100_000), timeout=phases) for n in range(2)]
        peer.wait_for_requests(4)
        for _ in range(5):
            assert client.get("/next").content == NEXT
        for future in stuck:
            error_of(future, WriteTimeout, "maybe", may_retry=True, phase="send")
        assert [len(request.body) for request in peer.requests[1:4]] == [WINDOW, 0, 0]
        conn.do(conn.send_window_update, 0, 1 << 20)
        conn.do(conn.read_body, peer.requests[1])
        conn.do(conn.respond, 3)

        assert_answered([patient])
        assert_recovered(client, peer, connections=1)


def test_a_send_window_is_never_exceeded_however_it_is_opened() -> None:
    """BEH-M7: byte by byte, across a SETTINGS that makes it negative, and one that opens it again."""
    with scene(_miserly) as (client, peer):
        conn = _settled(client, peer, 1000)
        body = pattern(5000)
        future = client.send_async("POST", "/up", content=body)
        peer.wait_until(lambda peer: len(peer.requests) == 2 and len(peer.requests[1].body) == 1000)
        request = peer.requests[1]
        for given in (1, 7, 1):
            before = len(request.body)
            conn.do(conn.send_window_update, 3, given)
            conn.do(conn.sync)
            assert len(request.body) == before + given
        conn.do(conn.send_settings, initial_window_size=200)  # the window is -800 now
        conn.do(conn.send_window_update, 3, 800)
        conn.do(conn.sync)
        assert len(request.body) == 1009
        conn.do(conn.send_window_update, 3, 10)
        conn.do(conn.sync)
        assert len(request.body) == 1019
        conn.do(conn.send_settings, initial_window_size=100_000)
        conn.do(conn.read_body, request)
        conn.do(conn.respond, 3)

        assert_answered([future])
        assert bytes(request.body) == body
        assert_recovered(client, peer, connections=1)


def test_uploads_share_what_the_connection_lets_through() -> None:
    """BEH-M9, FLT-S13: four at once over one window that is opened bit by bit; none waits for another's end."""
    with scene(_miserly) as (client, peer):
        conn = _settled(client, peer, 1 << 20)
        futures = [client.send_async("PUT", f"/{n}", content=bytes(100_000)) for n in range(4)]
        peer.wait_until(lambda _: sum(len(request.body) for request in conn.requests) == WINDOW)
        for _ in range(4):
            conn.do(conn.send_window_update, 0, 50_000)
            conn.do(conn.sync)
        assert all(len(request.body) >= 30_000 for request in conn.requests[1:])
        conn.do(conn.send_window_update, 0, 1 << 20)
        for request in conn.requests[1:]:
            conn.do(conn.read_body, request)
            conn.do(conn.respond, request.stream_id)

        assert_answered(futures)
        assert_recovered(client, peer, connections=1)


# -- receiving -------------------------------------------------------------------------------------------


def test_windows_are_opened_in_steps_on_both_levels() -> None:
    """BEH-M7: a quarter at a time or more, never beyond what was offered, and each stream's by itself."""
    with scene(window=100_000) as (client, peer):
        first, second = sent_all(client, peer, "/1", "/2")
        conn = peer.connections[0]
        conn.do(conn.respond, 1, body=bytes(400_000))
        assert len(first.result(PATIENCE).content) == 400_000
        conn.do(conn.sync)
        assert _given(conn, 3) == []
        assert min(_given(conn, 1)) >= 25_000
        assert min(_given(conn, 0)[1:]) >= 25_000
        assert 300_000 <= sum(_given(conn, 1)) <= 400_000
        assert conn.windows[0] <= 100_000
        conn.do(conn.respond, 3)

        assert_answered([second])
        assert_recovered(client, peer, connections=1)


@pytest.mark.parametrize("padding", [0, 255])
def test_padding_is_given_back_on_both_levels(padding: int) -> None:
    """FLT-S14: it counts against the windows, and nobody reads it."""
    with scene(window=WINDOW) as (client, peer):
        (future,) = sent_all(client, peer, "/1")
        conn = peer.connections[0]
        conn.do(conn.send_headers, 1, [(":status", "200")])
        for _ in range(600):
            conn.do(conn.read_until, lambda: conn.room(1) >= 300)
            conn.do(conn.send_data, 1, b"x", pad=padding)
        conn.do(conn.send_data, 1, end_stream=True)

        assert future.result(PATIENCE).content == b"x" * 600
        assert_recovered(client, peer, connections=1)


def test_a_server_that_sends_beyond_a_window_is_cut_off() -> None:
    """BEH-M7, FLT-S23: FLOW_CONTROL_ERROR; the reader is given what had come before, and then told."""
    stage, peer = StreamStage.proven()
    streamed = stage.asked(stream=True)
    peer.send_headers(3, [(":status", "200")])
    stage.settle()
    for _ in range(4_000_000 // 16_000):  # more than is held and a window
        peer.send_data(3, bytes(16_000))
    stage.settle()

    assert peer.farewells == [ErrorCodes.FLOW_CONTROL_ERROR]
    pieces = streamed.response.iter_bytes()
    assert 2_000_000 < len(next(pieces)) < 3_000_000
    with pytest.raises(RemoteProtocolError) as caught:
        next(pieces)
    assert (caught.value.processed, caught.value.phase) == ("yes", "recv")
    assert stage.figures == (0, 0, 0)
    stage.close()


# -- streamed --------------------------------------------------------------------------------------------


@SCHEMES
def test_a_slow_reader_holds_back_its_own_stream_alone(scheme: str, authority: Authority) -> None:
    """FLT-S15, BEH-M9: the server may send what is held and a window; others go on; all of it comes in the end."""
    size, window = 3_000_000, 200_000
    with (
        scene(serve, authority=authority, scheme=scheme, window=window) as (client, peer),
        client.stream("GET", f"/bytes/{size}") as response,
    ):
        conn = peer.connections[0]
        eventually(lambda: window + sum(_given(conn, 1)) >= HIGH_WATER, PATIENCE)
        for _ in range(3):
            assert client.get("/bytes/50000").content == pattern(50_000)
        assert figures(client) == (1, 1, 0)
        assert window + sum(_given(conn, 1)) <= HIGH_WATER + 2 * window

        assert zlib.crc32(b"".join(response.iter_bytes())) == zlib.crc32(pattern(size))
        assert_recovered(client, peer, connections=1, body=None)


@pytest.mark.parametrize("way", ["unread", "closed", "left", "dropped"])
def test_a_body_that_nobody_reads_on_gives_everything_back(way: str) -> None:
    """FLT-S15, FLT-S14, FLT-P3: the stream is reset, its credit goes to others, who need all of the window."""
    with scene(serve, window=WINDOW) as (client, peer):
        for _ in range(4):
            _give_up(client, way)
        assert len(client.get("/bytes/1000000").content) == 1_000_000
        conn = peer.connections[0]
        eventually(lambda: len(resets(conn)) == 4, PATIENCE)
        assert {code for _, code in resets(conn)} == {ErrorCodes.CANCEL}
        assert_recovered(client, peer, connections=1, body=None)


def _give_up(client: Client, way: str) -> None:
    """Ask for a long body, and read no more than a part of it."""
    held = [client.stream("GET", "/bytes/10000000")]
    response = held[0].__enter__()
    if way == "unread":
        response.close()
    elif way == "closed":
        assert next(response.iter_bytes())
        response.close()
    elif way == "left":
        held[0].__exit__(None, None, None)
    else:
        del response
        with pytest.warns(ResourceWarning, match="dropped before its end"):
            held.clear()


def test_a_body_that_has_come_is_read_after_its_stream_has_ended() -> None:
    """FLT-S15: what a reader holds needs no stream: others have it already."""
    with (
        scene(serving(max_concurrent_streams=1), http2=ONE) as (client, peer),
        client.stream("GET", "/bytes/40000") as response,
    ):
        assert client.get("/bytes/10").content == pattern(10)
        assert b"".join(response.iter_bytes()) == pattern(40_000)
        assert_recovered(client, peer, connections=1, body=None)


@pytest.mark.parametrize("end", ["reset", "rst", "violation"])
def test_a_streamed_body_that_breaks_off_says_so_after_what_had_come(end: str) -> None:
    """FLT-S8, FLT-N7: by RST_STREAM, by a lost connection, by a protocol that is broken; processed is "yes"."""
    ends: dict[str, Callable[[H2Conn], None]] = {
        "reset": lambda conn: conn.send_rst(3, ErrorCodes.INTERNAL_ERROR),
        "rst": lambda conn: conn.raw.reset(),
        "violation": lambda conn: conn.send_frame(DataFrame(2, b"?")),
    }
    with scene() as (client, peer):
        assert client.get("/next").content == NEXT
        opened = client.stream("GET", "/x")
        with ThreadPoolExecutor(1) as pool:
            entered = pool.submit(opened.__enter__)
            peer.wait_for_requests(2)
            conn = peer.connections[0]
            conn.do(lambda: conn.respond(3, body=b"part", end=False))
            response = entered.result(PATIENCE)
        pieces = response.iter_bytes()
        assert next(pieces) == b"part"
        conn.do(lambda: ends[end](conn))

        with pytest.raises(ReadError if end == "rst" else RemoteProtocolError) as caught:
            next(pieces)
        assert (caught.value.processed, caught.value.phase) == ("yes", "recv")
        opened.__exit__(None, None, None)
        assert_recovered(client, peer, connections=1 + (end != "reset"))
