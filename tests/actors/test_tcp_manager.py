"""Leases, releases and the queue of one key: who gets which connection, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.actors.stage import KEY, OTHER, Call, Stage
from turbopool.actors.messages import AbandonAll, Lease, Release
from turbopool.errors import DeadlineExceeded, PoolFull, PoolTimeout
from turbopool.stats import PoolKey

StageOf = Callable[..., Stage]


# -- lease -------------------------------------------------------------------------------


def test_first_request_of_a_key_dials_a_connection_and_runs_on_it(stage: Stage) -> None:
    """BEH-P1."""
    call = stage.send()
    assert [dial.key for dial in stage.dialer.pending] == [KEY]
    assert call.is_waiting

    channel = stage.connect()

    assert channel.sent.startswith(b"GET /0 HTTP/1.1\r\n")
    assert call.is_running


def test_next_request_reuses_the_idle_connection(stage: Stage) -> None:
    """BEH-P2."""
    first, channel = stage.connected()
    stage.answer(first)

    second = stage.send()

    assert stage.channel_of(second) is channel
    assert stage.channels == [channel]


def test_connection_that_may_not_be_used_again_is_closed_and_the_next_request_gets_another(stage: Stage) -> None:
    """BEH-P3, BEH-P5."""
    first, channel = stage.connected()
    stage.answer(first, b"bye", ("Connection", "close"))
    assert channel.closed

    _, other = stage.connected()

    assert other is not channel
    assert (stage.stats().opened, stage.stats().closed) == (2, 1)


def test_connection_that_may_be_used_again_stays_open_while_idle(stage: Stage) -> None:
    """BEH-P4."""
    call, channel = stage.connected()

    stage.answer(call)

    assert not channel.closed
    assert (stage.stats().idle, stage.stats().leased) == (1, 0)


def test_connection_idle_for_the_shortest_time_is_reused_first(stage: Stage) -> None:
    """BEH-P25."""
    (older, old_channel), (newer, new_channel) = stage.connected(), stage.connected()
    stage.answer(older)
    stage.advance(1.0)
    stage.answer(newer)

    assert stage.channel_of(stage.send()) is new_channel
    assert stage.channel_of(stage.send()) is old_channel


def test_dead_idle_connections_are_skipped_and_the_one_that_lives_is_used(stage_of: StageOf) -> None:
    """BEH-P17, BEH-P25: the peer's end has arrived, and nobody has looked at it yet."""
    stage = stage_of(limit=3)
    channels = []
    for call, channel in [stage.connected() for _ in range(3)]:
        stage.answer(call)
        channels.append(channel)
    stage.clock.advance(1.0)

    stage.submit(call := stage.prepare())
    channels[2].feed(b"")
    channels[1].feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    stage.settle()

    assert stage.channel_of(call) is channels[0]
    assert [channel.closed for channel in channels] == [False, True, True]


def test_fresh_connection_is_dialed_when_all_idle_ones_are_dead(stage: Stage) -> None:
    """BEH-P17."""
    call, channel = stage.connected()
    stage.answer(call)
    stage.clock.advance(1.0)

    stage.submit(second := stage.prepare())
    channel.feed(b"")
    stage.settle()
    assert second.is_waiting

    assert stage.connect().sent.startswith(b"GET /1 ")


def test_request_that_may_not_be_sent_twice_never_meets_a_connection_that_has_closed(stage: Stage) -> None:
    """BEH-P17, BEH-P47: for it the connection is looked at though the poller looked a moment ago."""
    (channel,) = stage.idle()
    stage.advance(1.0)

    stage.submit(call := stage.prepare(method="POST"))
    channel.feed(b"")
    stage.settle()

    assert call.is_waiting
    assert stage.connect().sent.startswith(b"POST /1 ")


def test_connection_is_not_probed_within_its_first_idle_millisecond(stage: Stage) -> None:
    """BEH-P47: sooner nobody can have seen it close; the write or the read tells, and the request is sent again."""
    call, channel = stage.connected()
    stage.answer(call)

    stage.submit(second := stage.prepare())
    channel.feed(b"")
    stage.settle()

    assert b"GET /1 " in channel.sent
    assert stage.connect().sent.startswith(b"GET /1 ")
    stage.answer(second)
    assert second.response.status_code == 200


@pytest.mark.parametrize("count", [1, 5])
def test_no_more_connections_than_the_limit_are_dialed(stage_of: StageOf, count: int) -> None:
    """BEH-P11, BEH-P35."""
    stage = stage_of(limit=count)

    calls = [stage.send() for _ in range(20)]

    assert len(stage.dialer.pending) == count
    for _ in range(count):
        stage.connect()
    assert [call.is_running for call in calls] == [True] * count + [False] * (20 - count)
    assert stage.dialer.pending == []


def test_keys_keep_separate_connections(stage: Stage) -> None:
    """BEH-P13."""
    (one, one_channel), (other, other_channel) = stage.connected(KEY), stage.connected(OTHER)
    stage.answer(one)
    stage.answer(other)

    assert stage.channel_of(stage.send(OTHER)) is other_channel
    assert stage.channel_of(stage.send(KEY)) is one_channel


def test_scheme_and_version_make_a_key_of_their_own(stage: Stage) -> None:
    """BEH-P42."""
    keys = [KEY, KEY._replace(version="1.0"), KEY._replace(scheme="https"), KEY._replace(port=81)]

    for key in keys:
        call, _ = stage.connected(key)
        stage.answer(call)

    assert len(stage.channels) == 4
    assert set(stage.pools) == set(keys)


def test_equal_keys_share_one_pool_whatever_the_case_of_the_host(stage: Stage) -> None:
    """BEH-P35, BEH-P42: the TLS identity counts by equality, too."""
    first = PoolKey.of("HTTPS", "Host.Test.", 443, identity=("verify", "ca.pem"))
    second = PoolKey.of("https", "host.test", identity=("verify", "ca.pem"))
    stranger = PoolKey.of("https", "host.test", identity=("no verify", "ca.pem"))

    call, channel = stage.connected(first)
    stage.answer(call)

    assert stage.channel_of(stage.send(second)) is channel
    assert stage.send(stranger).is_waiting
    assert len(stage.pools) == 2


def test_http_1_0_request_always_gets_a_new_connection_that_is_closed_after_it(stage: Stage) -> None:
    """BEH-P31."""
    key = KEY._replace(version="1.0")
    for number in range(3):
        call, channel = stage.connected(key)
        stage.answer(call, b"ok", ("Connection", "keep-alive"))
        assert channel.closed
        assert len(stage.channels) == number + 1


# -- the queue ---------------------------------------------------------------------------


def full(stage: Stage, waiters: int) -> tuple[list[Call], list[Call]]:
    """Two requests on the two connections, and some that wait."""
    running = [stage.connected()[0], stage.connected()[0]]
    return running, [stage.send() for _ in range(waiters)]


def test_released_connection_goes_straight_to_the_first_who_waits(stage: Stage) -> None:
    """BEH-P12."""
    (running, _), (waiter,) = full(stage, 1)
    channel = stage.channel_of(running)

    stage.answer(running)

    assert stage.channel_of(waiter) is channel
    assert stage.stats().idle == 0


def test_waiters_are_served_in_the_order_they_came(stage: Stage) -> None:
    """BEH-P26, BEH-P37."""
    running, waiters = full(stage, 10)
    order = []

    while running:
        stage.answer(running.pop(0))
        served = [call for call in waiters if call.is_running and call not in running]
        running += served
        order += served

    assert order == waiters


def test_late_request_cannot_overtake_one_that_waits(stage: Stage) -> None:
    """BEH-P37: the release, the late lease and the hand-over happen in one turn."""
    (running, _), (early,) = full(stage, 1)

    stage.channel_of(running).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    late = stage.submit(stage.prepare())
    stage.settle()

    assert early.is_running
    assert late.is_waiting


def test_connection_dialed_for_a_late_request_serves_the_first_who_waits(stage: Stage) -> None:
    """BEH-P37: whichever comes first, a dial or a release, serves whoever waits first."""
    first, second = stage.send(), stage.send()

    stage.connect(stage.dialer.pending[1])

    assert first.is_running
    assert second.is_waiting


def test_waiter_fails_when_its_queue_timeout_passes(stage: Stage) -> None:
    """BEH-P14."""
    full(stage, 0)
    waiter = stage.send(queue=2.0, timeout=30.0)

    stage.advance(1.999)
    assert waiter.is_waiting
    stage.advance(0.001)

    assert isinstance(waiter.error, PoolTimeout)
    assert (waiter.error.phase, waiter.error.request_sent, waiter.error.may_retry) == ("queue", False, True)
    assert waiter.error.facts["waited"] == pytest.approx(2.0)
    assert waiter.error.facts["leased"] == 2
    assert stage.stats().waiting == 0


def test_waiter_fails_at_its_deadline(stage: Stage) -> None:
    """BEH-P14."""
    full(stage, 0)
    waiter = stage.send(timeout=3.0)

    stage.advance(3.0)

    assert isinstance(waiter.error, DeadlineExceeded)
    assert stage.stats().waiting == 0


def test_each_waiter_leaves_at_its_own_moment_and_those_behind_keep_their_place(stage: Stage) -> None:
    """BEH-P14, BEH-P37."""
    (running, _), _ = full(stage, 0)
    waiters = [stage.send(timeout=seconds) for seconds in (5.0, 1.0, None, 3.0)]

    stage.advance(1.0)
    assert [call.is_waiting for call in waiters] == [True, False, True, True]
    stage.advance(2.0)
    assert [call.is_waiting for call in waiters] == [True, False, True, False]
    stage.answer(running)

    assert waiters[0].is_running
    assert waiters[2].is_waiting


def test_request_beyond_the_bound_of_the_queue_is_refused_at_once_by_name(stage_of: StageOf) -> None:
    """BEH-P11: the queue has a bound."""
    stage = stage_of(max_pending=3)
    full(stage, 3)

    refused = stage.send()

    assert isinstance(refused.error, PoolFull)
    assert refused.error.facts["option"] == "max_pending_requests"
    assert refused.error.facts["waiting"] == 3
    assert refused.error.origin == "http://one.test:80"


def test_requests_for_which_a_connection_is_being_opened_do_not_fill_the_queue(stage_of: StageOf) -> None:
    """BEH-P11: a cold burst of as many as there may be connections is not a full queue, however short that is."""
    stage = stage_of(limit=4, max_pending=1)

    burst = [stage.send() for _ in range(6)]

    assert [call.is_waiting for call in burst] == [True] * 5 + [False]
    assert isinstance(burst[5].error, PoolFull)


# -- cancelling --------------------------------------------------------------------------


def test_cancelled_waiter_leaves_the_queue_at_once(stage: Stage) -> None:
    """BEH-P11, BEH-P45."""
    (running, _), waiters = full(stage, 3)

    stage.cancel(waiters[0])

    assert stage.stats().waiting == 2
    stage.answer(running)
    assert waiters[1].is_running


def test_queue_does_not_grow_under_a_storm_of_cancels(stage: Stage) -> None:
    """BEH-P45."""
    full(stage, 0)
    for _ in range(500):
        call = stage.send(timeout=30.0)
        stage.cancel(call)

    assert stage.stats().waiting == 0
    assert stage.stats().cancelled == 500
    assert stage.dialer.pending == []
    _, timers = stage.dispatcher.census()
    assert timers < 20


def test_request_cancelled_before_its_manager_heard_of_it_is_ignored(stage: Stage) -> None:
    """BEH-P15, BEH-L4: an acquire that is cancelled already dials nothing, and the actor stays healthy."""
    stage.submit(call := stage.prepare())
    assert call.future.cancel()
    stage.settle()

    assert stage.dialer.dials == []
    following, _ = stage.connected()
    assert following.is_running


def test_connection_dialed_for_a_cancelled_request_serves_the_next_waiter(stage: Stage) -> None:
    """BEH-P16, BEH-L4."""
    first = stage.send()
    second = stage.send()
    stage.cancel(first)

    channel = stage.connect(stage.dialer.pending[0])

    assert stage.channel_of(second) is channel


def test_connection_dialed_for_a_cancelled_request_is_parked_if_nobody_waits(stage: Stage) -> None:
    """BEH-P16."""
    stage.cancel(stage.send())

    channel = stage.connect()
    assert not channel.closed
    assert stage.stats().idle == 1

    assert stage.channel_of(stage.send()) is channel


def test_cancelled_running_request_gives_its_place_to_the_next_waiter(stage: Stage) -> None:
    """BEH-P24, BEH-P45: HTTP/1 cannot take a request back, so its connection is closed."""
    (running, _), (waiter,) = full(stage, 1)
    channel = stage.channel_of(running)

    stage.cancel(running)

    assert channel.closed
    stage.connect()
    assert waiter.is_running


def test_all_requests_of_one_owner_are_cancelled_and_nobody_elses(stage: Stage) -> None:
    """BEH-C4."""
    ours, theirs = object(), object()
    running, _ = stage.connected(owner=ours)
    other, _ = stage.connected(owner=theirs)
    mine, foreign = stage.send(owner=ours), stage.send(owner=theirs)

    stage.supervisor.tell(AbandonAll(ours, done := threading.Event()))
    stage.settle()

    assert done.is_set()
    assert [call.future.cancelled() for call in (running, mine, other, foreign)] == [True, True, False, False]
    assert stage.stats().cancelled == 2


# -- release -----------------------------------------------------------------------------


def test_second_release_of_a_connection_is_ignored(stage: Stage) -> None:
    """BEH-P39."""
    call, channel = stage.connected()
    connection = stage.connection_of(call)
    stage.answer(call)

    stage.tell(Release(connection, call.exchange, reusable=True))
    stage.tell(Release(connection, call.exchange, reusable=False))

    assert not channel.closed
    assert (stage.stats().idle, stage.stats().leased) == (1, 0)


def test_stale_lessee_cannot_release_a_connection_that_was_lent_again(stage: Stage) -> None:
    """BEH-P39."""
    first, channel = stage.connected()
    connection = stage.connection_of(first)
    stage.answer(first)
    second = stage.send()
    assert stage.channel_of(second) is channel

    stage.tell(Release(connection, first.exchange, reusable=False))

    assert second.is_running
    assert not channel.closed
    assert stage.stats().leased == 1


def test_release_of_a_dead_or_unknown_connection_does_not_hurt(stage: Stage) -> None:
    """BEH-P21."""
    first, channel = stage.connected()
    connection = stage.connection_of(first)
    stranger, _ = stage.connected(OTHER)
    stage.answer(first, b"bye", ("Connection", "close"))
    assert channel.closed

    stage.tell(Release(connection, first.exchange, reusable=True))
    stage.tell(Release(stage.connection_of(stranger), stranger.exchange, reusable=True))

    assert stage.pools[KEY].ref.is_alive()
    assert stage.stats().leased == stage.stats().idle == 0
    following, _ = stage.connected()
    assert following.is_running


def test_lease_told_twice_is_served_once(stage: Stage) -> None:
    """BEH-P39: a request that has its outcome asks for nothing."""
    call, _ = stage.connected()
    stage.answer(call)

    stage.tell(Lease(call.exchange))

    assert stage.stats().leased == 0
    assert stage.stats().requests == 1


def test_connection_closed_abruptly_while_idle_frees_its_place(stage_of: StageOf) -> None:
    """BEH-P24."""
    stage = stage_of(limit=1)
    call, channel = stage.connected()
    stage.answer(call)

    channel.error = ConnectionResetError("reset")
    stage.settle()
    assert stage.stats().idle == 0

    following, _ = stage.connected()
    assert following.is_running


def test_connection_closed_abruptly_under_a_request_frees_its_place(stage_of: StageOf) -> None:
    """BEH-P24."""
    stage = stage_of(limit=1)
    call, channel = stage.connected(method="POST")
    waiter = stage.send()

    channel.error = ConnectionResetError("reset")
    stage.settle()

    assert isinstance(call.error, OSError)
    stage.connect()
    assert waiter.is_running


def test_queue_of_256_drains_over_few_connections(stage: Stage) -> None:
    """BEH-P29."""
    calls = [stage.send() for _ in range(256)]
    stage.connect()
    stage.connect()

    while running := [call for call in calls if call.is_running]:
        for call in running:
            stage.answer(call)

    assert all(call.response.status_code == 200 for call in calls)
    assert len(stage.channels) == 2
