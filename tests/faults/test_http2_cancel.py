"""FLT-S14, S20, S25: requests that are cancelled, and what still comes for their streams."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError

import pytest
from h2.errors import ErrorCodes

from tests.faults.stream_stage import StreamStage
from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    assert_answered,
    assert_recovered,
    attending,
    farewells,
    figures,
    orders,
    pings,
    pool_of,
    resets,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2send import raw_frame
from tests.waiting import eventually
from turbopool import Http2Options
from turbopool.transport.http2_resets import A_SECOND, AT_ONCE

CANCEL = ErrorCodes.CANCEL

# -- cancelled -------------------------------------------------------------------------------------------


@SCHEMES
def test_a_cancelled_request_ends_its_stream_and_nothing_else(scheme: str, authority: Authority) -> None:
    """BEH-M13, PEER-P37: RST_STREAM(CANCEL) for it, its place for another, its late answer for nobody."""
    with scene(attending(max_concurrent_streams=2), max_conns_per_host=1, authority=authority, scheme=scheme) as (
        client,
        peer,
    ):
        sibling, lost = sent_all(client, peer, "/sibling", "/lost")
        waiting = client.send_async("GET", "/next")
        eventually(lambda: figures(client) == (1, 2, 1))
        conn = peer.connections[0]
        assert lost.cancel()

        assert_answered([waiting], NEXT)
        assert resets(conn) == [(3, CANCEL)]
        orders(conn, lambda: conn.respond(3, body=b"late"), lambda: conn.respond(1))
        assert_answered([sibling])
        with pytest.raises(CancelledError):
            lost.result(0)
        assert_recovered(client, peer, connections=1)
        assert pool_of(client).cancelled == 1


def test_a_cancelled_stream_counts_until_the_server_has_answered_a_ping() -> None:
    """FLT-S25, BEH-M13, PEER-P6: it counts at the server until then, which would refuse the next one, or ban us."""
    with scene(attending(max_concurrent_streams=1), max_conns_per_host=1) as (client, peer):
        (lost,) = sent_all(client, peer, "/lost")
        conn = peer.connections[0]
        conn.answers_pings = False
        assert lost.cancel()
        future = client.send_async("POST", "/next")
        peer.wait_until(lambda _: pings(conn))
        conn.do(conn.sync)
        assert (resets(conn), len(peer.requests), figures(client)[2]) == ([(1, CANCEL)], 1, 1)

        conn.do(conn.send_ping, pings(conn)[0], ack=True)
        assert_answered([future], NEXT)
        conn.answers_pings = True
        assert_recovered(client, peer, connections=1)


def test_a_storm_of_cancels_is_rationed_and_every_place_is_given_back() -> None:
    """FLT-S25: 300 at once make no more resets than servers put up with; then all places are free again."""
    allowed = Http2Options(max_concurrent_streams=300)
    with scene(attending(max_concurrent_streams=300), max_conns_per_host=1, http2=allowed) as (client, peer):
        futures = [client.send_async("GET", f"/{n}") for n in range(300)]
        peer.wait_for_requests(300)
        conn, began = peer.connections[0], time.monotonic()
        for future in futures:
            assert future.cancel()
        eventually(lambda: not any(figures(client)), PATIENCE)
        conn.do(conn.sync)
        seen, seconds = len(resets(conn)), time.monotonic() - began
        assert AT_ONCE <= seen <= AT_ONCE + 1 + A_SECOND * seconds

        orders(conn, *[lambda n=n: conn.respond(n) for n in range(1, 601, 2)])
        more = [client.send_async("GET", f"/{n}") for n in range(300)]
        peer.wait_for_requests(600)
        orders(conn, *[lambda n=n: conn.respond(n) for n in range(601, 1201, 2)])
        assert_answered(more)
        assert farewells(conn) == []
        assert_recovered(client, peer, connections=1)


def test_cancels_beyond_the_ration_are_made_up_for_in_time() -> None:
    """FLT-S25: when the server never ends what nobody wants, it is reset as the ration allows."""
    stage = StreamStage(streams=150, limit=1)
    calls = [stage.asked()]
    peer = stage.serve()
    calls += [stage.asked() for _ in range(149)]
    for call in calls:
        stage.cancel(call)
    assert len(peer.resets) == AT_ONCE

    stage.advance(50 / A_SECOND + 0.1)

    assert sorted(peer.resets) == [(stream_id, CANCEL) for stream_id in range(1, 300, 2)]
    again = [stage.asked() for _ in range(150)]
    assert stage.figures == (1, 150, 0)
    for call in again:
        stage.cancel(call)
    stage.close()


@pytest.mark.parametrize("moment", ["dialing", "queued", "waiting", "reading", "streaming"])
def test_what_a_cancelled_request_holds_is_free_for_the_next(moment: str) -> None:
    """PEER-P37, BEH-M13, FLT-P2: whenever it comes; the connection is the same all along."""
    stage = StreamStage(streams=1, limit=1)
    first = stage.asked(stream=moment == "streaming")
    if moment == "dialing":
        stage.cancel(first)
        peer = stage.serve()
        assert (stage.figures, len(peer.requests)) == ((0, 0, 0), 0)
    else:
        peer = stage.serve()
        if moment != "waiting":
            peer.send_headers(1, [(":status", "200")])
            peer.send_data(1, b"part")
            stage.settle()
        if moment == "queued":
            second = stage.asked()
            stage.cancel(second)
            assert stage.figures == (1, 1, 0)
            peer.send_data(1, end_stream=True)
            stage.settle()
            assert first.response.content == b"part"
        elif moment == "streaming":
            first.response.close()
            stage.settle()
        else:
            stage.cancel(first)
    assert peer.resets == ([] if moment in ("dialing", "queued") else [(1, CANCEL)])

    last = stage.asked()
    peer.respond(peer.requests[-1].stream_id, b"last")
    stage.settle()

    assert last.response.content == b"last"
    assert (stage.figures, len(stage.channels)) == ((0, 0, 0), 1)
    stage.close()


# -- what comes for streams that have ended --------------------------------------------------------------


def test_fields_of_a_cancelled_stream_are_read_all_the_same() -> None:
    """FLT-S20: they fill the table that later ones refer to."""
    with scene() as (client, peer):
        (lost,) = sent_all(client, peer, "/lost")
        conn = peer.connections[0]
        assert lost.cancel()
        peer.wait_until(lambda _: resets(conn))
        conn.do(conn.respond, 1, headers=[("x-late", "indexed")], body=b"late")
        (future,) = sent_all(client, peer, "/x")
        conn.do(conn.respond, 3, headers=[("x-late", "indexed")])

        assert future.result(PATIENCE).headers["x-late"] == "indexed"
        assert_recovered(client, peer, connections=1)


def test_frames_of_streams_that_have_ended_are_absorbed() -> None:
    """BEH-M8, FLT-S14: all kinds of them, without an answer to any."""
    with scene() as (client, peer):
        assert client.get("/next").content == NEXT
        (sibling,) = sent_all(client, peer, "/sibling")
        conn = peer.connections[0]
        orders(conn, lambda: conn.send_window_update(1, 100), lambda: conn.send_rst(1, CANCEL),
               lambda: conn.send_data(1, b"late", pad=10), lambda: conn.send_headers(1, [("x-late", "trailer")]),
               lambda: conn.send_raw(raw_frame(2, 0, 1, bytes(5))), lambda: conn.send_raw(raw_frame(0x42, 0, 1, b"?")),
               lambda: conn.respond(3))  # fmt: skip

        assert_answered([sibling])
        conn.do(conn.sync)
        assert resets(conn) == []
        assert_recovered(client, peer, connections=1)


def test_data_of_cancelled_streams_is_credited_to_the_connection() -> None:
    """FLT-S14: padding as well; after four windows of it, a download of eight still runs."""
    with scene(window=65_535, max_conns_per_host=1) as (client, peer):
        for n in range(8):
            (lost,) = sent_all(client, peer, f"/{n}")
            assert lost.cancel()
            peer.wait_until(lambda peer: all(request.reset is not None for request in peer.requests))
            conn = peer.connections[0]
            conn.do(_burden, conn, 2 * n + 1)
        (future,) = sent_all(client, peer, "/large")
        conn.do(conn.respond, 17, body=bytes(8 * 65_535))

        assert len(future.result(PATIENCE).content) == 8 * 65_535
        assert_recovered(client, peer, connections=1)


def _burden(conn: H2Conn, stream_id: int) -> None:
    """Send half a window for a stream, once the connection's has room for it."""
    conn.send_headers(stream_id, [(":status", "200")])
    for _ in range(2):
        conn.read_until(lambda: conn.windows[0] >= 16_384)
        conn.send_data(stream_id, bytes(16_000), pad=255)
