"""Leases of streams, their queue, and connections that come and go: the HTTP/2 manager of one key."""

from __future__ import annotations

import threading

from tests.actors.streams import CALM, OTHER_TWO, REFUSED, TWO, StageOf
from tests.servers.h2send import LAST_ID
from turbopool.actors.messages import AbandonAll
from turbopool.bodies import Body
from turbopool.errors import (
    ClientDisposed,
    DeadlineExceeded,
    ManagerCrashed,
    PoolFull,
    PoolTimeout,
    ReadError,
    RemoteProtocolError,
)

# -- filling and dialing -----------------------------------------------------------------


def test_first_burst_dials_once_and_shares_the_connection(streams_of: StageOf) -> None:
    """BEH-P32, BEH-L3, I1: ten requests at once, one dial, ten streams."""
    stage = streams_of(limit=6)
    calls = stage.send_many(10)
    assert (len(stage.dialer.dials), stage.figures()) == (1, (0, 0, 0, 10))

    peer = stage.serve()

    assert peer.paths == [f"/{number}" for number in range(10)]
    assert (len(stage.dialer.dials), stage.figures()) == (1, (1, 10, 0, 0))
    stage.reply(*calls)
    assert all(call.response.http_version == "HTTP/2" for call in calls)
    assert stage.figures() == (0, 0, 1, 0)


def test_another_connection_opens_only_when_all_are_full_one_at_a_time(streams_of: StageOf) -> None:
    """BEH-M3, FLT-S11, I1: limit 3 of 2 streams each, 8 requests."""
    stage = streams_of(limit=3)
    calls, peer = stage.served(1, max_concurrent_streams=2)
    calls += stage.send_many(7)
    assert (stage.figures(), len(stage.dialer.pending)) == ((1, 2, 0, 6), 1)

    stage.serve(max_concurrent_streams=2)
    assert (stage.figures(), len(stage.dialer.pending)) == ((2, 4, 0, 4), 1)
    stage.serve(max_concurrent_streams=2)

    assert (stage.figures(), len(stage.dialer.pending)) == ((3, 6, 0, 2), 0)
    assert [len(one.active) for one in stage.peers.values()] == [2, 2, 2]
    stage.reply(calls[0])
    assert peer.paths == ["/0", "/1", "/6"]


def test_last_known_limit_is_what_a_new_connection_is_taken_to_carry(streams_of: StageOf) -> None:
    """FLT-S11: the second connection is given two streams before it says anything."""
    stage = streams_of(limit=3)
    _, peer = stage.served(1, max_concurrent_streams=2)
    stage.send_many(5)
    assert len(peer.requests) == 2

    silent = stage.serve(greets=False)

    assert len(silent.requests) == 2
    assert stage.figures() == (2, 4, 0, 2)


def test_requests_fill_the_busy_connection_and_leave_the_idle_one_to_expire(streams_of: StageOf) -> None:
    """BEH-P25: fill existing first."""
    stage = streams_of(limit=2)
    (a,), busy = stage.served(1, max_concurrent_streams=1)
    b = stage.send()
    idle = stage.serve(max_concurrent_streams=1)
    stage.reply(b)
    busy.send_settings(max_concurrent_streams=9)
    stage.settle()

    stage.send_many(3)

    assert stage.figures() == (1, 4, 1, 0)
    assert len(busy.active) == 4
    assert not idle.active
    assert a.is_running


def test_connection_idle_for_the_shortest_time_is_used_before_older_ones(streams_of: StageOf) -> None:
    """BEH-P25."""
    stage = streams_of(limit=2)
    (a,), first = stage.served(1, max_concurrent_streams=1)
    b = stage.send()
    second = stage.serve(max_concurrent_streams=1)
    stage.reply(b)
    stage.reply(a)

    stage.send()

    assert (len(first.requests), len(second.requests)) == (2, 1)


def test_dial_that_nobody_waits_for_any_more_is_parked_idle_and_used(streams_of: StageOf) -> None:
    """BEH-P16: a cancelled caller's dial is not lost."""
    stage = streams_of()
    stage.cancel(stage.send())
    peer = stage.serve()
    assert stage.figures() == (0, 0, 1, 0)

    stage.send()

    assert peer.paths == ["/1"]


# -- capacity ----------------------------------------------------------------------------


def test_raised_limit_serves_those_who_wait_at_once_in_order(streams_of: StageOf) -> None:
    """BEH-P27, BEH-M4, I13."""
    stage = streams_of(limit=1)
    _, peer = stage.served(1, max_concurrent_streams=1)
    stage.send_many(5)
    assert stage.figures() == (1, 1, 0, 5)

    peer.send_settings(max_concurrent_streams=4)
    stage.settle()

    assert peer.paths == ["/0", "/1", "/2", "/3"]
    assert stage.figures() == (1, 4, 0, 2)


def test_limit_lowered_below_what_is_in_use_keeps_active_streams_and_lends_no_more(streams_of: StageOf) -> None:
    """BEH-M4, FLT-S11, I2: three run on; the next is lent when only one is left."""
    stage = streams_of(limit=1)
    calls, peer = stage.served(3, max_concurrent_streams=3)
    peer.send_settings(max_concurrent_streams=2)
    stage.settle()
    late = stage.send()
    assert all(call.is_running for call in calls)

    stage.reply(calls[0])
    assert late.is_waiting
    stage.reply(calls[1])

    assert late.is_running
    assert len(peer.active) == 2


def test_limit_of_zero_makes_requests_wait_in_our_queue_under_their_own_deadline(streams_of: StageOf) -> None:
    """FLT-S11, BEH-M4: PoolTimeout and not a protocol error; a raise serves the others."""
    stage = streams_of(limit=1)
    peer = stage.rested()
    peer.send_settings(max_concurrent_streams=0)
    stage.settle()
    impatient, patient = stage.send(queue=2.0), stage.send(queue=60.0)

    stage.advance(2.0)
    assert stage.error(impatient, PoolTimeout).processed == "no"
    assert patient.is_waiting
    peer.send_settings(max_concurrent_streams=1)
    stage.settle()

    assert peer.paths == ["/0", "/2"]
    assert patient.is_running


def test_idle_connection_that_takes_none_does_not_keep_another_from_being_opened(streams_of: StageOf) -> None:
    """FLT-S11: "open more connections if allowed"."""
    stage = streams_of(limit=2)
    peer = stage.rested()
    peer.send_settings(max_concurrent_streams=0)
    stage.settle()

    call = stage.send()
    assert len(stage.dialer.pending) == 1
    stage.serve()

    assert call.is_running


def test_older_idle_connection_serves_when_the_newest_takes_none(streams_of: StageOf) -> None:
    """I13: no waiter beside a connection that has room."""
    stage = streams_of(limit=2)
    (a,), older = stage.served(1, max_concurrent_streams=1)
    b = stage.send()
    newer = stage.serve(max_concurrent_streams=1)
    stage.reply(a)
    stage.reply(b)
    newer.send_settings(max_concurrent_streams=0)
    stage.settle()

    stage.send()

    assert len(older.requests) == 2


def test_limit_of_one_serialises(streams_of: StageOf) -> None:
    """BEH-M4."""
    stage = streams_of(limit=1)
    calls, peer = stage.served(1, max_concurrent_streams=1)
    calls += stage.send_many(3)

    for number, call in enumerate(calls):
        assert peer.paths == [f"/{n}" for n in range(number + 1)]
        stage.reply(call)

    assert all(call.response.status_code == 200 for call in calls)


def test_acknowledgement_of_settings_changes_nothing(streams_of: StageOf) -> None:
    """BEH-M4."""
    stage = streams_of(limit=1)
    _, peer = stage.served(1, max_concurrent_streams=1)
    waiter = stage.send()

    peer.send_settings_ack()
    stage.settle()

    assert waiter.is_waiting
    assert stage.figures() == (1, 1, 0, 1)


def test_our_own_limit_of_streams_counts_when_it_is_the_lower_one(streams_of: StageOf) -> None:
    """I2, BEH-L3."""
    stage = streams_of(limit=1, streams=2)

    _, peer = stage.served(5, max_concurrent_streams=100)

    assert len(peer.requests) == 2
    assert stage.figures() == (1, 2, 0, 3)


def test_place_is_free_again_after_an_answer_and_after_a_reset_by_the_server(streams_of: StageOf) -> None:
    """BEH-M3: resumes on END_STREAM and on RST_STREAM."""
    stage = streams_of(limit=1, streams=1)
    (a, b, c), peer = stage.served(3)
    stage.reply(a)
    assert b.is_running

    peer.refuse(3, CALM)
    stage.settle()

    assert isinstance(b.error, RemoteProtocolError)
    assert c.is_running


def test_cancelled_stream_counts_until_the_server_has_heard_of_it(streams_of: StageOf) -> None:
    """I2, BEH-M3: the place is free when the PING behind the reset has been answered."""
    stage = streams_of(limit=1, streams=1)
    (a,), peer = stage.served(1)
    peer.answers_pings = False
    waiter = stage.send()

    stage.cancel(a)
    assert peer.resets == [(1, 8)]
    assert waiter.is_waiting
    peer.answer_pings()
    stage.settle()

    assert waiter.is_running
    assert stage.stats().cancelled == 1


# -- the queue ---------------------------------------------------------------------------


def test_queue_is_first_come_first_served_whoever_leaves_it(streams_of: StageOf) -> None:
    """I13, BEH-P37: a cancel and a deadline in the middle."""
    stage = streams_of(limit=1, streams=1)
    (first,), peer = stage.served(1)
    waiters = [stage.send(), stage.send(queue=1.0), stage.send(), stage.send()]
    stage.cancel(waiters[2])
    stage.advance(1.0)
    assert isinstance(waiters[1].error, PoolTimeout)

    for call in (first, waiters[0], waiters[3]):
        stage.reply(call)

    assert peer.paths == ["/0", "/1", "/4"]
    assert stage.figures() == (0, 0, 1, 0)


def test_total_deadline_ends_a_request_in_the_queue_and_one_on_its_stream(streams_of: StageOf) -> None:
    """I6: the one in the queue was never sent, the other may have been processed."""
    stage = streams_of(limit=1, streams=1)
    stage.rested()
    running, waiting = stage.send_many(2, timeout=3.0)

    stage.advance(3.0)

    assert stage.error(running, DeadlineExceeded).processed == "maybe"
    assert stage.error(waiting, DeadlineExceeded).processed == "no"
    assert stage.figures() == (0, 0, 1, 0)


def test_new_request_does_not_overtake_those_who_wait(streams_of: StageOf) -> None:
    """I13: room appears and a request comes in the same turn."""
    stage = streams_of(limit=1, streams=1)
    (a,), peer = stage.served(1)
    waiter = stage.send()

    peer.respond(1)
    late = stage.submit(stage.prepare())
    stage.settle()

    assert a.future.done()
    assert (waiter.is_running, late.is_waiting) == (True, True)


def test_queue_bound_counts_those_beyond_what_connections_may_carry(streams_of: StageOf) -> None:
    """I24: 2 connections of 2 streams, and 3 in the queue; the eighth is refused and names the option."""
    stage = streams_of(limit=2, streams=2, max_pending=3)
    calls = stage.send_many(8)

    assert [call.future.done() for call in calls] == [False] * 7 + [True]
    assert "max_pending_requests" in str(stage.error(calls[7], PoolFull))
    stage.serve()
    stage.serve()
    assert stage.figures() == (2, 4, 0, 3)
    assert isinstance(stage.send().error, PoolFull)


def test_cancelling_all_of_a_handle_leaves_the_others_alone(streams_of: StageOf) -> None:
    """BEH-L3, I5: on streams and in the queue; counted once each."""
    stage = streams_of(limit=1, streams=2)
    ours, theirs, done = object(), object(), threading.Event()
    calls = [stage.submit(stage.prepare(owner=owner)) for owner in (ours, theirs, ours, theirs)]
    stage.settle()
    peer = stage.serve()

    stage.supervisor.tell(AbandonAll(ours, done))
    stage.settle()

    assert done.is_set()
    assert [call.future.cancelled() for call in calls] == [True, False, True, False]
    assert peer.resets == [(1, 8)]
    assert stage.stats().cancelled == 2
    assert stage.figures() == (1, 2, 0, 0)


# -- refusals, farewells, losses ---------------------------------------------------------


def test_refused_request_goes_on_elsewhere_and_only_a_second_refusal_retires_the_connection(
    streams_of: StageOf,
) -> None:
    """FLT-S7: a POST as well, since the server says it did not look at it."""
    stage = streams_of(limit=2)
    (a,), peer = stage.served(1)
    post = stage.send(method="POST", body=b"hello")
    peer.refuse(3)
    stage.settle()
    assert len(stage.dialer.pending) == 1, "the connection takes one less than it was given"
    other = stage.serve()
    assert other.paths == ["/1"]
    stage.reply(post)

    stage.reply(a)
    again = stage.send()
    assert peer.paths[-1] == "/2"
    peer.refuse(5)
    stage.settle()

    assert peer.has_goodbye
    assert peer.channel.closed
    assert other.paths == ["/1", "/2"]
    stage.reply(again)
    assert post.response.status_code == again.response.status_code == 200
    assert stage.stats().replays == 2


def test_request_refused_over_and_over_fails_with_the_proof_that_it_was_not_processed(streams_of: StageOf) -> None:
    """FLT-S7, I10: three times more, then no longer."""
    stage = streams_of(limit=1)
    stage.rested()
    call = stage.send(method="POST")
    for _ in range(8):
        if call.future.done():
            break
        peer, stream_id = stage.find(call)
        peer.refuse(stream_id)
        stage.settle()
        while stage.dialer.pending:
            stage.serve()

    error = stage.error(call, RemoteProtocolError)
    assert (error.processed, error.may_retry) == ("no", True)
    sent = sum(peer.paths.count("/1") for peer in stage.peers.values())
    assert sent == 4


def test_farewell_lets_accepted_streams_finish_and_sends_the_others_again(streams_of: StageOf) -> None:
    """FLT-S1, BEH-M12: first 2^31-1, then the real last id; what is new goes to another connection."""
    stage = streams_of(limit=1)
    calls, peer = stage.served(4)
    peer.leave(LAST_ID)
    stage.settle()
    newcomer = stage.send()
    assert stage.figures() == (1, 4, 0, 1)
    peer.leave(3)
    stage.settle()
    assert stage.figures() == (1, 2, 0, 3)

    other = stage.serve()

    assert other.paths == ["/2", "/3", "/4"], "those to be sent again go first"
    stage.reply(calls[0], calls[1])
    assert peer.channel.closed
    stage.reply(calls[2], calls[3], newcomer)
    assert all(call.response.status_code == 200 for call in stage.calls)
    assert stage.stats().replays == 2


def test_farewell_with_last_id_zero_sends_all_again(streams_of: StageOf) -> None:
    """FLT-S2: POSTs too, in their order, and the connection is closed."""
    stage = streams_of(limit=1)
    stage.rested()
    calls = stage.send_many(3, method="POST", body=b"hello")
    old = next(iter(stage.peers.values()))
    old.leave(1)
    stage.settle()
    assert old.channel.closed

    peer = stage.serve()

    assert [bytes(request.body) for request in peer.requests] == [b"hello"] * 3
    assert peer.paths == ["/1", "/2", "/3"]
    stage.reply(*calls)
    assert all(call.response.status_code == 200 for call in calls)


def test_retired_connection_does_not_count_in_the_limit_of_its_key(streams_of: StageOf) -> None:
    """BEH-M12, FLT-S1: with a limit of one there are two for a while, and figures that say so."""
    stage = streams_of(limit=1)
    (a,), peer = stage.served(1)
    peer.leave(LAST_ID)
    stage.settle()
    b = stage.send()

    stage.serve()

    assert stage.figures() == (2, 2, 0, 0)
    stage.reply(a)
    stage.reply(b)
    assert stage.figures() == (0, 0, 1, 0)


def test_farewell_of_an_idle_connection_closes_it_at_once(streams_of: StageOf) -> None:
    """BEH-P17, FLT-S1: the next request meets no dead connection."""
    stage = streams_of()
    peer = stage.rested()

    peer.leave(1)
    stage.settle()

    assert peer.channel.closed
    assert stage.figures() == (0, 0, 0, 0)
    assert stage.stats().state == "open"


def test_lost_connection_judges_each_stream_on_its_own_and_keeps_their_order(streams_of: StageOf) -> None:
    """FLT-S6, I9, I13: GETs are sent again before who waits already; POSTs fail."""
    stage = streams_of(limit=1, streams=4)
    peer = stage.rested()
    calls = [stage.send(), stage.send(method="POST"), stage.send(), stage.send(method="POST")]
    waiter = stage.send()

    stage.lose(peer)

    assert [call.future.done() for call in calls] == [False, True, False, True]
    for call in (calls[1], calls[3]):
        error = stage.error(call, ReadError)
        assert (error.processed, error.may_retry) == ("maybe", False)
    assert stage.stats().state == "reconnecting"
    assert stage.serve().paths == ["/1", "/3", "/5"]
    stage.reply(calls[0], calls[2], waiter)
    assert stage.stats().state == "open"


def test_requests_sent_again_wait_for_a_fresh_connection_while_an_old_one_has_room(streams_of: StageOf) -> None:
    """FLT-S6: a restart kills all old connections."""
    stage = streams_of(limit=3)
    (a,), old = stage.served(1, max_concurrent_streams=1)
    b = stage.send()
    newer = stage.serve(max_concurrent_streams=9)
    stage.reply(a)
    stage.reply(b)
    calls = stage.send_many(2)
    assert len(newer.active) == 2

    stage.lose(newer)

    assert stage.figures() == (0, 0, 1, 2)
    assert stage.serve().paths == ["/2", "/3"]
    assert len(old.requests) == 1
    stage.reply(*calls)


def test_requests_that_need_a_fresh_connection_are_served_though_the_only_one_is_none_any_more(
    streams_of: StageOf,
) -> None:
    """I13: at the limit no fresher one will come; refused by the new connection, they are sent over it later."""
    stage = streams_of(limit=1)
    peer = stage.rested()
    stage.send_many(3)
    stage.lose(peer)
    fresh = stage.serve(max_concurrent_streams=1)
    first, *others = fresh.active
    for request in others:
        fresh.refuse(request.stream_id)
    stage.settle()

    fresh.respond(first.stream_id)
    stage.settle()
    for _ in others:
        fresh.respond(fresh.active[0].stream_id)
        stage.settle()

    assert all(call.response.status_code == 200 for call in stage.calls)
    assert stage.figures() == (0, 0, 1, 0)


def test_request_refused_by_the_fresh_connection_it_got_needs_no_other(streams_of: StageOf) -> None:
    """FLT-S7, FLT-S6: what made it need one is over."""
    stage = streams_of(limit=3)
    peer = stage.rested()
    call = stage.send()
    stage.lose(peer)
    fresh = stage.serve()

    fresh.refuse(1)
    stage.settle()

    assert fresh.paths == ["/1", "/1"]
    assert not stage.dialer.pending
    stage.reply(call)
    assert call.response.status_code == 200


def test_old_connection_serves_who_needs_a_fresh_one_when_no_further_one_is_allowed(streams_of: StageOf) -> None:
    """I13: the fresh one is full at once, the other stands idle, and two is the limit."""
    stage = streams_of(limit=2)
    (a,), old = stage.served(1, max_concurrent_streams=1)
    b = stage.send()
    newer = stage.serve(max_concurrent_streams=2)
    stage.reply(a)
    stage.reply(b)
    calls = stage.send_many(2)
    stage.lose(newer)

    for limit in (3, 1):  # what was heard last of the server
        old.send_settings(max_concurrent_streams=limit)
        stage.settle()
    fresh = stage.serve(max_concurrent_streams=1)

    assert (len(fresh.active), len(old.active)) == (1, 1)
    assert stage.figures() == (2, 2, 0, 0)
    stage.reply(*calls)


def test_ambiguous_replays_of_many_streams_have_a_budget(streams_of: StageOf) -> None:
    """FLT-S6, I10: a connection lost with a hundred streams is no storm on the next."""
    stage = streams_of(limit=1)
    peer = stage.rested()
    calls = stage.send_many(100)

    stage.lose(peer)

    failed = [call for call in calls if call.future.done()]
    assert 0 < len(failed) < 100
    assert calls[-len(failed) :] == failed, "the first come are sent again"
    assert stage.stats().replays == 100 - len(failed) == stage.figures()[3]
    stage.serve()
    stage.reply(*[call for call in calls if call not in failed])


def test_misdirected_request_goes_once_to_a_connection_of_its_own(streams_of: StageOf) -> None:
    """FLT-S26: 421, once on a fresh connection; the second time it is the answer."""
    stage = streams_of(limit=1)
    call, other = stage.send_many(2)
    peer = stage.serve()
    peer.respond(1, status=421)
    stage.settle()
    assert (call.is_waiting, other.is_running) == (True, True)
    fresh = stage.serve()
    assert fresh.paths == ["/0"]

    fresh.respond(1, status=421)
    stage.settle()

    assert call.response.status_code == 421
    stage.reply(other)
    assert peer.channel.closed


def test_connection_whose_stream_ids_are_spent_is_replaced(streams_of: StageOf) -> None:
    """FLT-S26, BEH-M12: the last stream finishes, the next request opens a new connection."""
    stage = streams_of(limit=1)
    peer = stage.rested()
    codec = stage.connections()[0].codec
    codec.next_id = LAST_ID
    last = stage.send()
    assert peer.active[0].stream_id == LAST_ID
    after = stage.send()
    assert after.is_waiting

    stage.serve()

    assert after.is_running
    stage.reply(last)
    assert peer.channel.closed
    stage.reply(after)


def test_request_whose_body_is_spent_is_not_sent_again_though_it_was_refused(streams_of: StageOf) -> None:
    """FLT-S7, I9: an iterator that was drawn from cannot be rewound: an error, and not half a body."""
    stage = streams_of()
    stage.rested()
    call = stage.send(method="POST", body=Body(iter([b"hello"]), None))
    peer, stream_id = stage.find(call)

    peer.refuse(stream_id, REFUSED)
    stage.settle()

    error = stage.error(call, RemoteProtocolError)
    assert (error.processed, error.may_retry) == ("no", False)


# -- crashes and the end -----------------------------------------------------------------


def test_replacement_of_a_crashed_manager_takes_the_queue_and_closes_the_connections(streams_of: StageOf) -> None:
    """BEH-P40, I3, I5: those on streams fail, who waits goes on in order; the counts are true."""
    stage = streams_of(limit=1, streams=2)
    calls, peer = stage.served(4)

    stage.crash(TWO)
    stage.settle()

    assert peer.channel.closed
    assert [isinstance(call.error, ManagerCrashed) for call in calls[:2]] == [True, True]
    assert stage.figures() == (0, 0, 0, 2)
    assert stage.serve().paths == ["/2", "/3"]
    stage.reply(*calls[2:])
    stats = stage.stats()
    assert (stats.opened, stats.closed, stats.completed, stats.failed) == (2, 1, 2, 2)
    assert stage.is_http2()


def test_draining_finishes_what_runs_and_waits_and_then_closes(streams_of: StageOf) -> None:
    """I16, I17: over the connection that is there."""
    stage = streams_of(limit=1, streams=2)
    calls, peer = stage.served(3)

    done = stage.dispose()
    assert isinstance(stage.send().error, ClientDisposed)
    assert not done.is_set()
    stage.reply(*calls[:2])
    stage.reply(calls[2])

    assert done.is_set()
    assert peer.channel.closed
    assert peer.has_goodbye


def test_disposal_that_fails_the_queue_lets_streams_finish(streams_of: StageOf) -> None:
    """I16."""
    stage = streams_of(limit=1, streams=1)
    (running, waiting), _ = stage.served(2)

    done = stage.dispose(queued="fail")

    assert isinstance(waiting.error, ClientDisposed)
    stage.reply(running)
    assert done.is_set()
    assert running.response.status_code == 200


def test_end_of_the_drain_fails_what_is_left(streams_of: StageOf) -> None:
    """I16: on its stream and in the queue, at the moment that was said; a dial is called off."""
    stage = streams_of(limit=2, streams=1)
    (running, waiting), peer = stage.served(2)
    done = stage.dispose(after=5.0)

    stage.advance(5.0)

    assert done.is_set()
    assert stage.error(running, ClientDisposed).processed == "maybe"
    assert stage.error(waiting, ClientDisposed).processed == "no"
    assert peer.channel.closed
    assert not stage.dialer.pending


def test_retired_connection_finishes_within_the_drain(streams_of: StageOf) -> None:
    """FLT-S1, I16."""
    stage = streams_of()
    (call,), peer = stage.served(1)
    peer.leave(LAST_ID)
    stage.settle()

    done = stage.dispose()
    stage.reply(call)

    assert done.is_set()
    assert call.response.status_code == 200


def test_keys_of_other_hosts_have_connections_of_their_own(streams_of: StageOf) -> None:
    """I12."""
    stage = streams_of()
    a, b = stage.send(TWO), stage.send(OTHER_TWO)
    first, second = stage.serve(), stage.serve()

    assert [one.requests[0].header(":authority") for one in (first, second)] == ["two.test", "other.test"]
    stage.reply(a, b)
    assert stage.figures(OTHER_TWO) == stage.figures(TWO) == (0, 0, 1, 0)


def test_drain_uses_a_new_connection_though_the_server_last_took_none(streams_of: StageOf) -> None:
    """I16, FLT-S11: idle, it would be closed at once, and dialed again, over and over."""
    stage = streams_of(limit=2, streams=1)
    (first, second), peer = stage.served(2)
    peer.send_settings(max_concurrent_streams=0)
    stage.settle()
    done = stage.dispose()

    other = stage.serve(greets=False)

    assert other.paths == ["/1"]
    other.send_settings()
    stage.reply(first, second)
    assert done.is_set()
    assert len(stage.dialer.dials) == 2
