"""What is learned of servers that do not speak HTTP/2, and how requests for them go on over HTTP/1.1."""

from __future__ import annotations

import threading

import pytest

from tests.actors.streams import HTTP11, OTHER_TWO, TLS_TWO, TWO, StageOf, Streams
from tests.servers.h2send import LAST_ID
from turbopool.actors.messages import AbandonAll, WarmUp
from turbopool.actors.spoken import REMEMBERED_FOR, Spoken
from turbopool.bodies import Body
from turbopool.errors import (
    ClientDisposed,
    DeadlineExceeded,
    ManagerCrashed,
    PoolTimeout,
    RemoteProtocolError,
    UnsupportedVersion,
)
from turbopool.stats import PoolKey
from turbopool.transport.memory import MemoryChannel

PLAIN_ONE, TLS_ONE = TWO._replace(version="1.1"), TLS_TWO._replace(version="1.1")
NO_HTTP2 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def negotiate(stage: Streams, version: str | None = "http/1.1") -> MemoryChannel:
    """Let the oldest dial succeed with what TLS has settled on; nothing else happens yet."""
    channel = MemoryChannel(stage.poller)
    channel.version = version
    stage.dialer.pending[0].succeed(channel)
    return channel


def requests_on(channel: MemoryChannel) -> list[str]:
    """The targets of the HTTP/1.1 requests that were written."""
    return [line.split(" ")[1] for line in channel.sent.decode().split("\r\n") if line.endswith(" HTTP/1.1")]


# -- the memory --------------------------------------------------------------------------


def test_server_is_remembered_for_ten_minutes_and_no_longer() -> None:
    """BEH-P42: and then it is asked again: it may have learned."""
    spoken = Spoken()
    assert not spoken.lacks(TLS_TWO, 0.0)

    spoken.found_lacking(TLS_TWO, 100.0)

    assert spoken.lacks(TLS_TWO, 100.0)
    assert spoken.lacks(TLS_TWO, 99.9 + REMEMBERED_FOR)
    assert not spoken.lacks(TLS_TWO, 100.0 + REMEMBERED_FOR)


@pytest.mark.parametrize(
    "other",
    [OTHER_TWO, TWO, TLS_TWO._replace(port=444), TLS_TWO._replace(identity="another"), TLS_TWO._replace(host="three")],
)
def test_what_is_known_of_one_origin_says_nothing_of_another(other: PoolKey) -> None:
    """I12."""
    spoken = Spoken()

    spoken.found_lacking(TLS_TWO, 0.0)

    assert not spoken.lacks(other, 1.0)


def test_being_found_lacking_again_begins_the_time_anew() -> None:
    """BEH-P42."""
    spoken = Spoken()
    spoken.found_lacking(TLS_TWO, 0.0)

    spoken.found_lacking(TLS_TWO, 500.0)

    assert spoken.lacks(TLS_TWO, 1_000.0)


def test_memory_is_bounded_and_forgets_those_found_first() -> None:
    """I24."""
    spoken = Spoken()
    keys = [TLS_TWO._replace(port=port) for port in range(1, 1_101)]

    for key in keys:
        spoken.found_lacking(key, 0.0)

    known = [spoken.lacks(key, 1.0) for key in keys]
    assert known == [False] * 76 + [True] * 1_024


# -- TLS settles on another version ------------------------------------------------------


@pytest.mark.parametrize("version", ["http/1.1", None])
def test_waiters_go_on_in_order_over_the_connection_that_was_established(
    streams_of: StageOf, version: str | None
) -> None:
    """BEH-P27, I13: in one step; the server sees one connection; without ALPN the same."""
    stage = streams_of(limit=1)
    calls = stage.send_many(4, TLS_TWO, lower=True)

    channel = negotiate(stage, version)
    stage.settle()

    assert stage.figures(TLS_TWO) == (0, 0, 0, 0)
    assert stage.figures(TLS_ONE) == (1, 1, 0, 3)
    for call in calls:
        stage.answer(call)
    assert requests_on(channel) == ["/0", "/1", "/2", "/3"]
    assert [call.response.http_version for call in calls] == ["HTTP/1.1"] * 4
    assert len(stage.dialer.dials) == 1
    assert stage.spoken.lacks(TLS_TWO, stage.clock.now())


def test_figures_of_both_versions_are_true_after_a_hand_over(streams_of: StageOf) -> None:
    """I3, I26: opened once, by the one that uses it."""
    stage = streams_of(limit=1)
    call = stage.send(TLS_TWO, lower=True)
    negotiate(stage)
    stage.settle()

    stage.answer(call)

    two, one = stage.stats(TLS_TWO), stage.stats(TLS_ONE)
    assert (two.opened, two.closed, two.completed, two.connecting) == (0, 0, 0, 0)
    assert (one.opened, one.closed, one.completed, one.idle, one.requests) == (1, 0, 1, 1, 1)


def test_connection_beyond_the_limit_of_the_other_version_is_closed_and_the_waiters_stay(
    streams_of: StageOf,
) -> None:
    """I1: in line behind those who wait there already."""
    stage = streams_of(limit=1)
    busy = stage.send(TLS_ONE)
    stage.connect()
    there = stage.send(TLS_ONE)
    calls = stage.send_many(2, TLS_TWO, lower=True)

    channel = negotiate(stage)
    stage.settle()

    assert channel.closed
    assert stage.figures(TLS_ONE) == (1, 1, 0, 3)
    for call in (busy, there, *calls):
        stage.answer(call)
    assert [call.response.status_code for call in calls] == [200, 200]


def test_bound_over_all_keys_holds_through_a_hand_over(streams_of: StageOf) -> None:
    """I1, BEH-P35: the room of the one becomes the room of the other."""
    stage = streams_of(total=1, limit=2)
    calls = stage.send_many(3, TLS_TWO, lower=True)

    channel = negotiate(stage)
    stage.settle()

    assert len(stage.open) == 1
    assert not stage.dialer.pending
    for call in calls:
        stage.answer(call)
    assert requests_on(channel) == ["/0", "/1", "/2"]


def test_waiters_use_connections_of_the_other_version_that_stand_idle(streams_of: StageOf) -> None:
    """I13: nobody waits beside an idle connection, nor dials past it."""
    stage = streams_of(limit=3)
    old = stage.idle(1, TLS_ONE)[0]
    stage.send_many(2, TLS_TWO, lower=True)

    channel = negotiate(stage)
    stage.settle()

    assert stage.figures(TLS_ONE) == (2, 2, 0, 0)
    assert len(requests_on(old)) + len(requests_on(channel)) == 3
    assert not stage.dialer.pending
    for call in stage.calls[1:]:
        stage.answer(call)


def test_request_that_accepts_nothing_else_fails_and_the_others_go_on(streams_of: StageOf) -> None:
    """BEH-P42, I27: exact beside or_lower, in one queue; its error says that nothing was sent."""
    stage = streams_of(limit=1)
    exact, lower = stage.send(TLS_TWO), stage.send(TLS_TWO, lower=True)

    negotiate(stage)
    stage.settle()

    error = stage.error(exact, UnsupportedVersion)
    assert (error.origin, error.request_sent) == (TLS_TWO.origin, False)
    stage.answer(lower)
    assert lower.response.status_code == 200


def test_connection_nobody_may_use_is_parked_with_the_version_it_speaks(streams_of: StageOf) -> None:
    """BEH-P16: after a warm-up it is idle over there."""
    stage = streams_of()
    stage.supervisor.tell(WarmUp(TLS_TWO, 1, None))
    stage.settle()

    channel = negotiate(stage)
    stage.settle()

    assert not channel.closed
    assert stage.figures(TLS_ONE) == (0, 0, 1, 0)


def test_server_that_is_seen_to_speak_http_2_is_remembered_no_longer(streams_of: StageOf) -> None:
    """BEH-P42: a proxy answered over HTTP/1.1 while the server behind it started."""
    stage = streams_of()
    lowered = stage.send(TLS_TWO, lower=True)
    negotiate(stage)
    stage.settle()
    stage.answer(lowered)
    assert stage.spoken.lacks(TLS_TWO, stage.clock.now())

    exact = stage.send(TLS_TWO)
    stage.serve()
    stage.reply(exact)

    assert exact.response.http_version == "HTTP/2"
    assert not stage.spoken.lacks(TLS_TWO, stage.clock.now())


def test_server_that_speaks_both_goes_on_over_http_2(streams_of: StageOf) -> None:
    """BEH-P32: whatever was allowed."""
    stage = streams_of()
    call = stage.send(TLS_TWO, lower=True)

    stage.serve()
    stage.reply(call)

    assert call.response.http_version == "HTTP/2"
    assert TLS_ONE not in stage.pools


# -- the server answers as HTTP/1.1 ------------------------------------------------------


def test_prior_knowledge_that_was_wrong_moves_all_who_wait_in_order(streams_of: StageOf) -> None:
    """BEH-P27, I13: those on streams and those in the queue; the connection is closed."""
    stage = streams_of(limit=1, streams=2)
    calls = stage.send_many(5, lower=True)
    wrong = stage.connect()

    wrong.feed(NO_HTTP2)
    stage.settle()

    assert wrong.closed
    assert stage.figures() == (0, 0, 0, 0)
    channel = stage.connect()
    for call in calls:
        stage.answer(call)
    assert requests_on(channel) == ["/0", "/1", "/2", "/3", "/4"]
    assert stage.spoken.lacks(TWO, stage.clock.now())


def test_prior_knowledge_that_was_wrong_fails_those_who_accept_nothing_else(streams_of: StageOf) -> None:
    """I27: those in the queue as well, and no second connection is wasted on them."""
    stage = streams_of(limit=1, streams=1)
    calls = stage.send_many(3)
    wrong = stage.connect()

    wrong.feed(b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n", b"")
    stage.settle()

    errors = [stage.error(call, UnsupportedVersion) for call in calls]
    assert len({id(error) for error in errors}) == 3
    assert [error.processed for error in errors] == ["no"] * 3
    assert len(stage.dialer.dials) == 1


@pytest.mark.parametrize("body", [b"hello", Body([b"hel", b"lo"], None)])
def test_body_is_sent_again_in_full_after_a_hand_over(streams_of: StageOf, body: bytes | Body) -> None:
    """I8: bytes, and what can be drawn again."""
    stage = streams_of()
    call = stage.send(method="POST", body=body, lower=True)
    stage.connect().feed(NO_HTTP2)
    stage.settle()

    channel = stage.connect()

    text = bytes(channel.sent)
    assert text.startswith(b"POST /0 HTTP/1.1\r\n")
    assert (b"hello" if isinstance(body, bytes) else b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n") in text
    stage.answer(call)
    assert call.response.status_code == 200


@pytest.mark.parametrize("how", ["preface", "stream"])
def test_body_that_was_drawn_from_is_not_sent_cut_short(streams_of: StageOf, how: str) -> None:
    """I8, I9: an iterator can be drawn once: an error, and never half a body over HTTP/1.1."""
    stage = streams_of()
    call = stage.send(method="POST", body=Body(iter([b"hello"]), None), lower=True)
    if how == "preface":
        stage.connect().feed(NO_HTTP2)
    else:
        stage.serve().refuse(1, HTTP11)
    stage.settle()

    error = stage.error(call, RemoteProtocolError)

    assert (error.processed, error.may_retry) == ("no", False)
    assert all(not channel.sent.startswith(b"POST") for channel in stage.channels)


def test_request_whose_body_was_not_drawn_yet_goes_on(streams_of: StageOf) -> None:
    """I8: it waited in the queue, and TLS settled on another version."""
    stage = streams_of()
    call = stage.send(TLS_TWO, method="POST", body=Body(iter([b"hello"]), 5), lower=True)

    channel = negotiate(stage)
    stage.settle()

    assert channel.sent.endswith(b"\r\n\r\nhello")
    assert b"content-length: 5\r\n" in channel.sent.lower()
    stage.answer(call)


# -- HTTP_1_1_REQUIRED -------------------------------------------------------------------


def test_stream_that_wants_http_1_1_moves_and_the_others_go_on(streams_of: StageOf) -> None:
    """FLT-S7: a POST too, it was not processed."""
    stage = streams_of()
    stays, moves = stage.send_many(2, method="POST", body=b"hello", lower=True)
    peer = stage.serve()

    peer.refuse(3, HTTP11)
    stage.settle()

    channel = stage.connect()
    assert channel.sent.startswith(b"POST /1 HTTP/1.1\r\n")
    stage.answer(moves)
    stage.reply(stays)
    assert (stays.response.http_version, moves.response.http_version) == ("HTTP/2", "HTTP/1.1")
    assert stage.figures() == (0, 0, 1, 0)


def test_stream_that_wants_http_1_1_fails_if_its_caller_does_not(streams_of: StageOf) -> None:
    """I27: and says that it was not processed."""
    stage = streams_of()
    (call,), peer = stage.served(1)

    peer.refuse(1, HTTP11)
    stage.settle()

    error = stage.error(call, UnsupportedVersion)
    assert error.processed == "no"
    assert stage.figures() == (0, 0, 1, 0)


def test_farewell_that_wants_http_1_1_moves_what_it_did_not_take_and_who_waits(streams_of: StageOf) -> None:
    """FLT-S1, I13: what it took finishes over HTTP/2."""
    stage = streams_of(limit=1, streams=2)
    calls = stage.send_many(4, lower=True)
    peer = stage.serve()
    peer.leave(1, HTTP11)
    stage.settle()

    first = next(dial for dial in stage.dialer.pending if dial.key == PLAIN_ONE)
    channel = stage.connect(first)
    stage.reply(calls[0])
    for call in calls[1:]:
        stage.answer(call)

    assert requests_on(channel) == ["/1", "/2", "/3"]
    assert calls[0].response.http_version == "HTTP/2"
    assert peer.channel.closed


def test_moved_request_uses_an_idle_connection_at_the_limit(streams_of: StageOf) -> None:
    """I13."""
    stage = streams_of(limit=1)
    old = stage.idle(1, PLAIN_ONE)[0]
    call = stage.send(lower=True)

    stage.serve().refuse(1, HTTP11)
    stage.settle()

    assert requests_on(old) == ["/0", "/1"]
    stage.answer(call)


# -- callers, time and the end meanwhile -------------------------------------------------


@pytest.mark.parametrize("moment", ["under way", "in line"])
def test_cancel_during_and_after_the_hand_over(streams_of: StageOf, moment: str) -> None:
    """I5: it leaves wherever it is, and its place goes to the next."""
    stage = streams_of(limit=1)
    calls = stage.send_many(3, TLS_TWO, lower=True)
    channel = negotiate(stage)
    if moment == "in line":
        stage.settle()
        assert stage.figures(TLS_ONE)[3] == 2

    stage.cancel(calls[1])

    stage.answer(calls[0])
    stage.answer(calls[2])
    assert requests_on(channel) == ["/0", "/2"]
    assert stage.figures(TLS_ONE) == (0, 0, 1, 0)


@pytest.mark.parametrize("order", ["before", "after"])
def test_cancelling_all_reaches_requests_between_two_versions(streams_of: StageOf, order: str) -> None:
    """I5: told just before, or just after the connection was established."""
    stage = streams_of(limit=1)
    owner, done = object(), threading.Event()
    calls = [stage.submit(stage.prepare(TLS_TWO, lower=True, owner=owner)) for _ in range(3)]
    stage.settle()
    if order == "before":
        stage.supervisor.tell(AbandonAll(owner, done))
    negotiate(stage)
    if order == "after":
        stage.supervisor.tell(AbandonAll(owner, done))

    stage.settle()

    assert done.is_set()
    assert all(call.future.cancelled() for call in calls)
    assert stage.figures(TLS_ONE)[3] == 0


def test_deadlines_hold_after_a_hand_over(streams_of: StageOf) -> None:
    """I6: of the queue and in total, from when the caller began."""
    stage = streams_of(limit=1)
    running = stage.send(TLS_TWO, lower=True)
    total = stage.send(TLS_TWO, lower=True, timeout=5.0)
    queue = stage.send(TLS_TWO, lower=True, queue=3.0)
    stage.advance(2.0)
    negotiate(stage)
    stage.settle()

    stage.advance(1.0)
    assert isinstance(queue.error, PoolTimeout)
    assert total.is_waiting
    stage.advance(2.0)

    assert isinstance(total.error, DeadlineExceeded)
    stage.answer(running)


def test_disposal_during_the_hand_over_finishes_what_was_accepted(streams_of: StageOf) -> None:
    """I16: the manager of the other version is made for it, and drains."""
    stage = streams_of(limit=1)
    calls = stage.send_many(2, TLS_TWO, lower=True)
    done = stage.dispose()
    channel = negotiate(stage)
    stage.settle()

    stage.answer(calls[0])
    assert not done.is_set()
    stage.answer(calls[1])

    assert done.is_set()
    assert channel.closed


def test_disposal_that_waits_for_nothing_fails_what_was_handed_over(streams_of: StageOf) -> None:
    """I16, I5."""
    stage = streams_of(limit=1)
    calls = stage.send_many(2, TLS_TWO, lower=True)
    channel = negotiate(stage)

    done = stage.dispose(queued="fail", after=0.0)
    stage.advance(0.0)

    assert done.is_set()
    assert channel.closed
    assert all(isinstance(call.error, ClientDisposed) for call in calls)


def test_crash_of_the_old_manager_after_the_hand_over_harms_nobody(streams_of: StageOf) -> None:
    """BEH-P40, I5."""
    stage = streams_of(limit=1)
    calls = stage.send_many(2, TLS_TWO, lower=True)
    channel = negotiate(stage)

    stage.crash(TLS_TWO)
    stage.settle()

    for call in calls:
        stage.answer(call)
    assert requests_on(channel) == ["/0", "/1"]


def test_crash_of_the_new_manager_fails_what_it_carried_and_keeps_who_waits(streams_of: StageOf) -> None:
    """BEH-P40."""
    stage = streams_of(limit=1)
    running, waiting = stage.send_many(2, TLS_TWO, lower=True)
    negotiate(stage)
    stage.settle()

    stage.crash(TLS_ONE)
    stage.settle()

    assert isinstance(running.error, ManagerCrashed)
    stage.connect()
    stage.answer(waiting)
    assert waiting.response.status_code == 200


def test_retired_connection_and_a_new_one_that_speaks_less(streams_of: StageOf) -> None:
    """FLT-S1: the server was replaced by an older one; what the old connection took finishes there."""
    stage = streams_of(limit=1)
    call, later = stage.send(TLS_TWO, lower=True), None
    peer = stage.serve()
    peer.leave(LAST_ID)
    stage.settle()
    later = stage.send(TLS_TWO, lower=True)

    negotiate(stage)
    stage.settle()

    stage.answer(later)
    stage.reply(call)
    assert (call.response.http_version, later.response.http_version) == ("HTTP/2", "HTTP/1.1")


def test_request_that_may_have_been_processed_before_says_so_when_its_version_is_gone(streams_of: StageOf) -> None:
    """I27, FLT-S6: it was sent, its connection broke, and the server that came back speaks less."""
    stage = streams_of()
    peer = stage.rested(TLS_TWO)
    call = stage.send(TLS_TWO)
    stage.lose(peer)

    negotiate(stage)
    stage.settle()

    error = stage.error(call, UnsupportedVersion)
    assert (error.request_sent, error.processed) == (True, "maybe")


def test_requests_on_their_way_while_the_server_was_found_out_follow_the_others(streams_of: StageOf) -> None:
    """BEH-P42, I13: no second connection is dialed for them."""
    stage = streams_of(limit=1)
    first = stage.send(TLS_TWO, lower=True)
    channel = negotiate(stage)
    second = stage.submit(stage.prepare(TLS_TWO, lower=True))
    exact = stage.submit(stage.prepare(TLS_TWO))

    stage.settle()

    assert [dial.key for dial in stage.dialer.pending] == [TLS_TWO], "for the one that accepts nothing else"
    stage.answer(first)
    stage.answer(second)
    assert requests_on(channel) == ["/0", "/1"]
    negotiate(stage)
    stage.settle()
    assert isinstance(exact.error, UnsupportedVersion)


def test_room_left_by_a_moved_request_goes_to_who_waits_and_accepts_nothing_else(streams_of: StageOf) -> None:
    """I13."""
    stage = streams_of(limit=1, streams=1)
    moves, stays = stage.send(lower=True), stage.send()
    peer = stage.serve()

    peer.refuse(1, HTTP11)
    stage.settle()

    assert peer.paths == ["/0", "/1"]
    stage.reply(stays)
    stage.connect()
    stage.answer(moves)
