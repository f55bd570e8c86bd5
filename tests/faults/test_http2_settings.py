"""FLT-S11: what a server allows, changes its mind about, and what waits meanwhile; and how a connection begins."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from tests.faults.stream_stage import KEY2, StreamStage
from tests.faults.streams import (
    FOREVER,
    NEXT,
    PATIENCE,
    SCHEMES,
    answers,
    assert_answered,
    assert_recovered,
    attending,
    error_of,
    figures,
    orders,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.waiting import eventually
from turbopool import DeadlineExceeded, Http2Options, PoolFull, PoolTimeout, RemoteProtocolError, Timeout

ONE = Http2Options(max_connections_per_server=1)

# -- how it begins, and goes on --------------------------------------------------------------------------


@SCHEMES
def test_a_connection_begins_with_the_preface_and_settings_and_streams_are_odd_and_rise(
    scheme: str, authority: Authority
) -> None:
    """BEH-M1, BEH-M10, FLT-S21: no push; the server's SETTINGS are acknowledged; pseudo-fields come first."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        for _ in range(3):
            assert client.get("/next", headers={"X-Y": "z"}).content == NEXT
        conn = peer.connections[0]
        conn.do(conn.settings_acked)

        first = conn.frames[0]
        assert isinstance(first, SettingsFrame)
        assert first.settings[SettingsFrame.ENABLE_PUSH] == 0
        assert [request.stream_id for request in conn.requests] == [1, 3, 5]
        assert [frame.stream_id for frame in conn.frames if isinstance(frame, HeadersFrame)] == [1, 3, 5]
        for request in conn.requests:
            names = [name for name, _ in request.headers]
            assert set(names[:4]) == {":method", ":scheme", ":authority", ":path"}
            assert not [name for name in names[4:] if name.startswith(":") or name != name.lower()]
        assert_recovered(client, peer, connections=1)


def test_requests_at_once_share_a_connection_as_those_one_by_one_do() -> None:
    """BEH-M2, BEH-L3: 20 gets at once, then 64 heavy posts thrice; all over one connection."""
    with scene(answers) as (client, peer):
        assert_answered([client.send_async("GET", "/x") for _ in range(20)], NEXT)
        for _ in range(3):
            assert_answered([client.send_async("POST", "/x", content=bytes(20_000)) for _ in range(64)], NEXT)
        assert [len(request.body) for request in peer.requests[20:]] == [20_000] * 192
        assert_recovered(client, peer, connections=1)


# -- how many --------------------------------------------------------------------------------------------


def test_a_server_that_allows_nothing_is_waited_for_in_our_queue() -> None:
    """FLT-S11, BEH-M4: a limit of 0 is a queue timeout or deadline, no protocol error; raised, all go on."""
    with scene(attending(max_concurrent_streams=0), http2=ONE) as (client, peer):
        client.warm_up("/", 1)
        peer.wait_until(lambda peer: peer.connections and peer.connections[0].frames)
        conn = peer.connections[0]
        conn.do(conn.settings_acked)
        eventually(lambda: client.stats().idle == 1)

        queued = client.send_async("POST", "/never", timeout=Timeout(PATIENCE, queue=0.05))
        late = client.send_async("POST", "/never", timeout=0.1)
        error_of(queued, PoolTimeout, "no", may_retry=True, attempts=0, phase="queue")
        error_of(late, DeadlineExceeded, "no", may_retry=True, attempts=0, phase="queue")
        waiting = [client.send_async("GET", "/next") for _ in range(3)]
        eventually(lambda: figures(client)[1:] == (0, 3))
        conn.do(conn.send_settings, max_concurrent_streams=1)

        assert_answered(waiting, NEXT)
        assert_recovered(client, peer, connections=1, never_sent=2)


def test_a_limit_of_one_serves_one_after_the_other_in_the_order_they_came() -> None:
    """FLT-S11, BEH-M3, BEH-M4, I13: a stream's end, whichever way it comes, makes room for the next."""
    with scene(attending(max_concurrent_streams=1), http2=ONE) as (client, peer):
        futures = sent_all(client, peer, "/0")
        conn = peer.connections[0]
        conn.do(conn.settings_acked)
        futures += [client.send_async("GET", f"/{n}") for n in range(1, 5)]
        for n in range(5):
            peer.wait_for_requests(n + 1)
            eventually(lambda n=n: figures(client) == (1, 1, 4 - n))  # type: ignore[misc]  # of a lambda's default
            if n % 2:
                conn.do(conn.send_rst, 2 * n + 1, 2)
            else:
                conn.do(conn.respond, 2 * n + 1)
            futures[n].exception(PATIENCE)

        assert [request.path for request in peer.requests] == [f"/{n}" for n in range(5)]
        assert [future.exception() is None for future in futures] == [True, False, True, False, True]
        assert_recovered(client, peer, connections=1)


def test_a_lowered_limit_lets_what_runs_go_on_and_admits_nobody_until_there_is_room() -> None:
    """FLT-S11, BEH-M4, I2: four run when it becomes two; then three more, when it becomes three."""
    with scene(http2=ONE) as (client, peer):
        running = sent_all(client, peer, *[f"/{n}" for n in range(4)])
        conn = peer.connections[0]
        conn.do(conn.send_settings, max_concurrent_streams=2)
        conn.do(conn.settings_acked)
        waiting = [client.send_async("POST", f"/w{n}") for n in range(4)]
        eventually(lambda: figures(client) == (1, 4, 4))
        orders(conn, lambda: conn.respond(1), lambda: conn.respond(3))
        assert_answered(running[:2])
        conn.do(conn.sync)
        assert (len(peer.requests), figures(client)) == (4, (1, 2, 4))

        conn.do(conn.respond, 5)
        peer.wait_for_requests(5)
        conn.do(conn.send_settings, max_concurrent_streams=3)
        peer.wait_for_requests(6)
        conn.do(conn.sync)
        assert (len(peer.requests), figures(client)) == (6, (1, 3, 2))
        for stream_id in (7, 9, 11, 13, 15):
            peer.wait_until(lambda _, last=stream_id: conn.request(last))  # type: ignore[misc]  # as above
            conn.do(conn.respond, stream_id)
        assert_answered([*running, *waiting])
        assert_recovered(client, peer, connections=1)


def test_settings_that_change_nothing_change_nothing() -> None:
    """BEH-M4: empty ones, ones that nobody knows, and an acknowledgement too many."""
    with scene(attending(max_concurrent_streams=2), http2=ONE) as (client, peer):
        (running,) = sent_all(client, peer, "/0")
        conn = peer.connections[0]
        orders(conn, conn.send_settings, lambda: conn.send_settings({0xFFFF: 7}), conn.send_settings_ack)
        conn.do(conn.settings_acked)
        waiting = [client.send_async("GET", f"/{n}") for n in (1, 2)]
        peer.wait_for_requests(2)
        eventually(lambda: figures(client) == (1, 2, 1))
        orders(conn, lambda: conn.respond(1), lambda: conn.respond(3))
        peer.wait_for_requests(3)
        conn.do(conn.respond, 5)

        assert_answered([running, *waiting])
        assert_recovered(client, peer, connections=1)


def test_further_connections_open_when_those_there_are_full_and_no_more_than_allowed() -> None:
    """FLT-S11, BEH-L3: two of two streams each carry four; the fifth waits, and the first place that is free is its."""
    two = Http2Options(max_connections_per_server=2)
    with scene(attending(max_concurrent_streams=2), http2=two) as (client, peer):
        futures = sent_all(client, peer, "/0")
        peer.connections[0].do(peer.connections[0].settings_acked)
        futures += sent_all(client, peer, "/1", "/2")
        peer.connections[1].do(peer.connections[1].settings_acked)
        futures += sent_all(client, peer, "/3")
        futures.append(client.send_async("GET", "/4"))
        eventually(lambda: figures(client) == (2, 4, 1))
        assert [request.connection for request in peer.requests] == [0, 0, 1, 1]

        orders(peer.connections[1], lambda: peer.connections[1].respond(3))
        peer.wait_for_requests(5)
        assert peer.requests[4].connection == 1
        for request in [*peer.requests[:3], peer.requests[4]]:
            conn = peer.connections[request.connection]
            conn.do(conn.respond, request.stream_id)
        assert_answered(futures)
        assert client.stats().idle == 2
        assert_recovered(client, peer, connections=2)


def test_a_queue_that_is_full_refuses_at_once() -> None:
    """PEER-P35: the bound holds for HTTP/2 as well, when streams are what is waited for."""
    with scene(attending(max_concurrent_streams=1), http2=ONE, max_pending_requests=2) as (client, peer):
        (running,) = sent_all(client, peer, "/0")
        conn = peer.connections[0]
        conn.do(conn.settings_acked)
        waiting = [client.send_async("GET", "/next") for _ in range(2)]
        refused = client.send_async("GET", "/never")
        assert isinstance(refused.exception(PATIENCE), PoolFull)
        conn.do(conn.respond, 1)

        assert_answered([running])
        assert_answered(waiting, NEXT)
        assert_recovered(client, peer, connections=1, never_sent=1)


def test_streams_that_were_opened_before_the_server_said_how_many_are_refused_and_come_again() -> None:
    """FLT-S12, FLT-S7: 100 are assumed; the server allows 2, and the others lose nothing but time."""

    def strict(conn: H2Conn) -> None:
        conn.handshake(send=False, ack=False)
        first = [conn.read_head() for _ in range(10)]
        conn.send_settings(max_concurrent_streams=2)
        conn.send_settings_ack()
        for request in first[2:]:
            conn.send_rst(request.stream_id, 7)
        for request in first[:2]:
            conn.respond(request.stream_id, body=NEXT)
        while True:
            conn.respond(conn.read_request(FOREVER).stream_id, body=NEXT)

    with scene(strict, http2=ONE) as (client, peer):
        futures = [client.send_async("POST", f"/{n}") for n in range(10)]

        assert_answered(futures, NEXT)
        assert_recovered(client, peer, connections=1, replays=8)


def test_what_a_server_allows_is_remembered_for_its_next_connection() -> None:
    """FLT-S12: until its SETTINGS come; only so many are sent."""
    stage = StreamStage(limit=1)
    first = stage.asked()
    old = stage.serve(max_concurrent_streams=3)
    old.respond(1)
    stage.settle()
    old.channel.feed(b"")
    stage.settle()
    calls = [stage.asked() for _ in range(5)]
    new = stage.serve(greets=False)
    assert (stage.figures, len(new.requests)) == ((1, 3, 2), 3)

    new.send_settings(max_concurrent_streams=5)
    new.send_settings_ack()
    stage.settle()

    assert stage.figures == (1, 5, 0)
    for stream_id in (1, 3, 5, 7, 9):
        new.respond(stream_id)
    stage.settle()
    assert [call.response.status_code for call in [first, *calls]] == [200] * 6
    assert stage.stats(KEY2).idle == 1
    stage.close()


# -- the other settings ----------------------------------------------------------------------------------


def test_a_header_table_of_another_size_is_kept_to() -> None:
    """BEH-M1: smaller, none, and large again: the server's decoder would refuse anything else."""
    with scene() as (client, peer):
        for size in (4096, 100, 0, 8192):
            if peer.connections:
                conn = peer.connections[0]
                conn.do(conn.send_settings, header_table_size=size)
                conn.do(conn.settings_acked)
            for _ in range(3):
                assert client.get("/next", headers={"accept": f"text/x-{size}"}).content == NEXT
        assert_recovered(client, peer, connections=1)


@pytest.mark.parametrize("largest", [16_384, 1 << 20])
def test_frames_are_no_larger_than_the_server_takes(largest: int) -> None:
    """BEH-M7: whatever it allows beyond the least."""
    with scene(attending(max_frame_size=largest, initial_window_size=1 << 20)) as (client, peer):
        client.get("/next")
        conn = peer.connections[0]
        conn.do(conn.settings_acked)
        assert client.post("/next", content=bytes(300_000)).content == NEXT

        assert max(len(frame.data) for frame in conn.frames if isinstance(frame, DataFrame)) <= largest
        assert sum(len(frame.data) for frame in conn.frames if isinstance(frame, DataFrame)) == 300_000
        assert_recovered(client, peer, connections=1)


def test_figures_are_true_after_everything_that_can_happen_to_a_stream() -> None:
    """PEER-P35, I26: answered, reset, refused, cancelled, timed out, streamed and closed early."""
    stage, peer = StreamStage.proven(limit=1)
    answered, reset, refused, cancelled = (stage.asked() for _ in range(4))
    late, streamed = stage.asked(timeout=1.0), stage.asked(stream=True)
    peer.send_headers(13, [(":status", "200")])
    stage.settle()
    streamed.response.close()
    stage.cancel(cancelled)
    stage.advance(1.1)
    peer.respond(3)
    peer.send_rst(5, 2)
    peer.send_rst(7, 7)
    stage.settle()
    peer.respond(15)
    stage.settle()

    assert [answered.response.status_code, refused.response.status_code] == [200, 200]
    assert isinstance(reset.error, RemoteProtocolError)
    assert isinstance(late.error, DeadlineExceeded)
    pool = stage.stats(KEY2)
    assert (stage.figures, pool.idle, pool.opened, pool.closed) == ((0, 0, 0), 1, 1, 0)
    assert (pool.completed, pool.failed, pool.cancelled, pool.replays, pool.requests) == (4, 2, 1, 1, 8)
    stage.close()
