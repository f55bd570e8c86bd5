"""FLT-S12, S16, S17: servers that fall silent, as a whole or on one stream; and what the silence is taken for."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import PingFrame

from tests.faults.stream_stage import KEY2, StreamStage, known
from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    assert_answered,
    assert_recovered,
    error_of,
    pings,
    resets,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from turbopool import DeadlineExceeded, ReadError, ReadTimeout, RemoteProtocolError, Timeout

CANCEL = ErrorCodes.CANCEL


# -- SETTINGS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", ["nothing", "its own"])
def test_a_server_that_does_not_settle_is_left_after_ten_seconds(says: str) -> None:
    """FLT-S12: neither its SETTINGS, nor an acknowledgement of ours; requests had been sent meanwhile."""
    stage = StreamStage()
    get, post = stage.asked(), stage.asked(method="POST")
    peer = stage.serve(greets=False)
    if says == "its own":
        peer.send_settings(max_concurrent_streams=10)
        stage.settle()
    assert len(peer.requests) == 2
    stage.advance(9.9)
    assert not peer.channel.closed

    stage.advance(0.2)

    assert peer.farewells == [ErrorCodes.SETTINGS_TIMEOUT]
    known(get, RemoteProtocolError, "maybe", may_retry=True)
    known(post, RemoteProtocolError, "maybe", may_retry=False)
    assert stage.figures == (0, 0, 0)
    stage.close()


def test_a_server_is_taken_to_allow_a_hundred_until_it_says_so() -> None:
    """FLT-S12, I2: of 150, the others go over a second connection."""
    stage = StreamStage(streams=300)
    calls = [stage.asked() for _ in range(150)]
    first = stage.serve(greets=False)
    assert len(first.requests) == 100
    second = stage.serve(greets=False)
    assert len(second.requests) == 50
    assert stage.figures == (2, 150, 0)
    for call in calls:
        stage.cancel(call)
    stage.close()


def test_a_server_that_settles_in_time_is_asked_for_nothing_more() -> None:
    """FLT-S12: and an idle connection is kept, in silence, for as long as it may be idle."""
    stage, peer = StreamStage.proven()
    stage.advance(50)
    assert (peer.pings, peer.channel.closed) == (0, False)
    stage.advance(10)
    assert (peer.pings, peer.channel.closed) == (0, True)
    stage.close()


# -- keep-alive ------------------------------------------------------------------------------------------


def test_a_server_that_is_silent_for_long_is_asked_whether_it_lives_and_may_go_on() -> None:
    """PEER-P9, BEH-M6, FLT-S16: every 30 s, one PING at a time; then the answer comes after all."""
    stage, peer = StreamStage.proven()
    call = stage.asked()
    stage.advance(29.9)
    assert peer.pings == 0
    stage.advance(0.2)
    assert peer.pings == 1
    stage.advance(90)
    assert peer.pings == 4

    peer.respond(3, b"late")
    stage.settle()
    assert call.response.content == b"late"
    stage.advance(40)
    assert peer.pings == 4
    stage.close()


def test_a_server_that_does_not_answer_a_ping_is_given_up_in_time_and_not_before() -> None:
    """FLT-S16, BEH-M6, PEER-P29: after 30 s and 20 s; the GET goes to a new connection, the POST may have been done."""
    stage, peer = StreamStage.proven()
    get, post = stage.asked(), stage.asked(method="POST")
    peer.answers_pings = False
    stage.advance(49.9)
    assert (peer.pings, peer.channel.closed, post.future.done()) == (1, False, False)

    stage.advance(0.2)

    assert peer.channel.closed
    known(post, ReadError, "maybe", may_retry=False)
    new = stage.serve()
    new.respond(1, b"new")
    stage.settle()
    assert get.response.content == b"new"
    stage.close()


def test_a_ping_that_cannot_even_be_written_counts_as_unanswered() -> None:
    """PEER-P29: the socket takes nothing; the watch does not stand in the same line."""
    stage, peer = StreamStage.proven()
    call = stage.asked(method="POST")
    peer.channel.room = 0
    stage.advance(50.1)

    assert peer.channel.closed
    assert peer.pings == 0
    known(call, ReadError, "maybe", may_retry=False)
    stage.close()


def test_a_server_that_says_anything_at_all_is_not_asked() -> None:
    """PEER-P9: DATA of another stream, a PING of its own."""
    stage, peer = StreamStage.proven()
    call = stage.asked()
    for _ in range(10):
        stage.advance(20)
        peer.send_ping(b"a server")
        stage.settle()
    assert peer.pings == 0
    peer.respond(3)
    stage.settle()
    assert call.response.status_code == 200
    stage.close()


@pytest.mark.parametrize("interval", [0, None])
def test_nobody_is_asked_if_that_is_not_wanted(interval: float | None) -> None:
    """PEER-P9: ``keep_alive_interval`` 0 or None."""
    stage, peer = StreamStage.proven(interval=interval)
    call = stage.asked()
    stage.advance(1000)
    assert peer.pings == 0
    stage.cancel(call)
    stage.close()


# -- one that is late ------------------------------------------------------------------------------------


def test_a_late_stream_is_reset_and_its_connection_asked_and_used_again() -> None:
    """FLT-S17: others on it succeed; a request that comes before the PING's answer waits for that, or for another."""
    stage, peer = StreamStage.proven()
    late, sibling = stage.asked(timeout=1.0), stage.asked()
    stage.advance(1.1)

    known(late, DeadlineExceeded, "maybe", may_retry=True)
    assert (peer.resets, peer.pings) == ([(3, CANCEL)], 1)
    assert stage.figures == (1, 1, 0)
    following = stage.asked()
    peer.respond(5)
    peer.respond(7)
    stage.settle()
    assert [sibling.response.status_code, following.response.status_code] == [200, 200]
    assert len(stage.channels) == 1
    stage.close()


def test_a_connection_that_answers_neither_request_nor_ping_gets_no_more_of_them() -> None:
    """FLT-S17, FLT-S16: a new request takes a new connection at once; what is under way has its time."""
    stage, peer = StreamStage.proven()
    peer.answers_pings = False
    late, post = stage.asked(timeout=1.0), stage.asked(method="POST")
    stage.advance(1.1)
    assert isinstance(late.error, DeadlineExceeded)
    following = stage.asked()
    new = stage.serve()
    new.respond(1, b"new")
    stage.settle()
    assert following.response.content == b"new"

    stage.advance(18)
    assert not peer.channel.closed
    stage.advance(2)

    assert peer.channel.closed
    known(post, ReadError, "maybe", may_retry=False)
    assert stage.stats(KEY2).idle == 1
    stage.close()


def test_a_connection_in_doubt_that_carries_nothing_holds_nobody_up() -> None:
    """FLT-S17, FLT-S16: a new request has another dialed at once, and the first is closed after a second."""
    stage, peer = StreamStage.proven()
    peer.answers_pings = False
    late = stage.asked(timeout=1.0)
    stage.advance(1.0)
    assert isinstance(late.error, DeadlineExceeded)
    following = stage.asked(method="POST")
    new = stage.serve()
    new.respond(1)
    stage.settle()
    assert following.response.status_code == 200
    assert not peer.channel.closed

    stage.advance(1.1)

    assert peer.channel.closed
    stage.close()


def test_an_answer_after_a_second_of_doubt_comes_too_late_for_the_connection() -> None:
    """FLT-S17: it carries what it has to the end, and is closed then."""
    stage, peer = StreamStage.proven()
    peer.answers_pings = False
    late, sibling = stage.asked(timeout=1.0), stage.asked()
    stage.advance(2.5)
    assert late.future.done()
    peer.send_ping(b"turbopoo", ack=True)
    stage.settle()
    following = stage.asked()
    assert len(stage.dialer.pending) == 1
    new = stage.serve()
    new.respond(1)
    peer.respond(5)
    stage.settle()

    assert [sibling.response.status_code, following.response.status_code] == [200, 200]
    assert peer.channel.closed
    stage.close()


# -- over sockets ----------------------------------------------------------------------------------------


@SCHEMES
def test_one_that_is_late_harms_nobody(scheme: str, authority: Authority) -> None:
    """FLT-S17: over real sockets: RST_STREAM and PING are seen, the others are answered, the connection is kept."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        (sibling,) = sent_all(client, peer, "/sibling")
        late = client.send_async("POST", "/late", timeout=Timeout(PATIENCE, read=0.05))
        error_of(late, ReadTimeout, "maybe", may_retry=False)
        conn = peer.connections[0]
        conn.do(conn.respond, 1)

        assert_answered([sibling])
        conn.do(conn.sync)
        assert (resets(conn), len(pings(conn))) == ([(3, CANCEL)], 1)
        assert_recovered(client, peer, connections=1)


@SCHEMES
def test_what_a_server_says_while_idle_is_answered_and_is_no_reason_to_leave_it(
    scheme: str, authority: Authority
) -> None:
    """PEER-P16, BEH-M6: PING with the same payload on stream 0, SETTINGS, WINDOW_UPDATE."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        assert client.get("/next").content == NEXT
        conn = peer.connections[0]
        conn.do(conn.send_ping, b"8 octets")
        conn.do(conn.send_settings, max_concurrent_streams=7)
        conn.do(conn.send_window_update, 0, 1000)
        conn.do(conn.settings_acked)
        pong = conn.do(conn.expect, PingFrame, lambda frame: "ACK" in frame.flags)
        assert (pong.stream_id, bytes(pong.opaque_data)) == (0, b"8 octets")

        assert_recovered(client, peer, connections=1)
