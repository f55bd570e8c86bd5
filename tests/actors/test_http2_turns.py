"""What one piece of bytes says of several things, and what one turn writes of several requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hyperframe.frame import DataFrame

from tests.actors.streams import REFUSED, TWO, Peer, StageOf


@contextmanager
def in_one_piece(peer: Peer) -> Iterator[None]:
    """Let all that the server says within arrive at once."""
    whole, send = bytearray(), peer.send_raw
    peer.send_raw = whole.extend
    yield
    peer.send_raw = send
    send(bytes(whole))


def test_no_request_is_sent_behind_a_farewell_that_came_with_news_of_room(streams_of: StageOf) -> None:
    """FLT-S1: SETTINGS that make room, and GOAWAY, in one piece; the server would never answer what is sent now."""
    stage = streams_of(limit=1)
    _, peer = stage.served(1, max_concurrent_streams=1)
    stage.send_many(1)
    with in_one_piece(peer):
        peer.send_settings(None, max_concurrent_streams=10)
        peer.send_goaway(1, 0)
    stage.settle()
    assert (peer.paths, len(stage.dialer.pending)) == (["/0"], 1)


def test_refusals_that_come_with_answers_leave_the_connection_what_the_server_took(streams_of: StageOf) -> None:
    """FLT-S7: of 12 streams 4 were taken, and are answered in the piece that refuses the others."""
    stage = streams_of(limit=1)
    stage.send_many(12)
    peer = stage.serve(greets=False)
    peer.acks_settings = True
    with in_one_piece(peer):
        peer.send_settings(None, max_concurrent_streams=4)
        peer.send_settings_ack()
        for stream_id in (1, 3, 5, 7):
            peer.respond(stream_id, b"ok")
        for stream_id in range(9, 25, 2):
            peer.send_rst(stream_id, REFUSED)
    stage.settle()
    assert stage.figures() == (1, 4, 0, 4)


def test_a_request_behind_a_large_upload_is_not_taken_for_sent(streams_of: StageOf) -> None:
    """DESIGN 5, row 1: no byte of the second POST was taken by the socket, so it is sent again."""
    stage = streams_of(limit=2)
    calls, peer = stage.served(1, initial_window_size=(1 << 31) - 1)
    peer.send_window_update(0, (1 << 31) - 1 - 65_535)
    stage.settle()
    stage.reply(*calls)
    peer.channel.room = 1000
    stage.send(TWO, method="POST", body=b"x" * 300_000)
    small = stage.send(TWO, method="POST", body=b"y")
    peer.channel.room = 1000
    stage.settle()
    stage.lose(peer)
    assert small.is_waiting
    assert stage.stats().replays == 1


def test_streams_that_end_in_one_piece_are_lent_again_in_order_and_written_at_once(streams_of: StageOf) -> None:
    """BEH-P26, BEH-P37: first come first served, and a piece of answers is a piece of requests."""
    stage = streams_of(limit=1)
    peer = stage.rested(max_concurrent_streams=4)
    stage.send_many(12)
    with in_one_piece(peer):
        for asked in peer.active:
            peer.respond(asked.stream_id)
    stage.dispatcher.turn()
    peer.pump()
    assert peer.paths == [f"/{number}" for number in range(1 + 8)]
    assert stage.figures() == (1, 4, 0, 4)


def test_connection_whose_streams_all_end_at_once_after_long_is_lent_to_those_who_wait(streams_of: StageOf) -> None:
    """BEH-P7: its idle timeout, from when it last stood idle, has passed long ago."""
    stage = streams_of(limit=1, idle_timeout=55.0)
    peer = stage.rested(max_concurrent_streams=2)
    calls = stage.send_many(4)
    stage.advance(100.0)
    with in_one_piece(peer):
        for asked in peer.active:
            peer.respond(asked.stream_id)
    stage.settle()
    stage.reply(*calls[2:])
    assert all(call.response.status_code == 200 for call in calls)
    assert len(stage.peers) == 1


def test_an_upload_begins_with_no_empty_frame(streams_of: StageOf) -> None:
    """BEH-M7: DATA that says nothing counts as a flood at some servers."""
    stage = streams_of(limit=1)
    peer = stage.rested()
    stage.send(TWO, method="POST", body=b"z" * 70_000)
    assert all(frame.data for frame in peer.frames if isinstance(frame, DataFrame))


def test_misdirected_requests_cost_no_budget(streams_of: StageOf) -> None:
    """DESIGN 5, row 2: thirty at once are all sent again."""
    stage = streams_of(limit=2)
    peer = stage.rested()
    calls = stage.send_many(30, method="POST")
    for call in calls:
        peer.send_headers(stage.find(call)[1], [(":status", "421")], end_stream=True)
    stage.settle()
    stage.serve()
    stage.reply(*calls)
    assert all(call.response.status_code == 200 for call in calls)
