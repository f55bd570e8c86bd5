"""Dials of one key: how many, for whom, and who fails with one that fails."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from tests.actors.stage import KEY, Stage
from turbopool.actors.messages import Established, EstablishFailed, WarmUp
from turbopool.errors import ConnectError, ConnectTimeout, DeadlineExceeded, DnsError, RemoteProtocolError
from turbopool.transport.memory import MemoryChannel

StageOf = Callable[..., Stage]


def test_failed_dial_reaches_its_waiter_with_the_cause(stage: Stage) -> None:
    """BEH-P19, BEH-L4."""
    call = stage.send()
    cause = OSError(111, "refused")
    error = DnsError("no such host", origin="http://one.test:80", phase="dns")
    error.__cause__ = cause

    stage.refuse(error=error)

    assert isinstance(call.error, DnsError)
    assert call.error.__cause__ is cause
    assert call.error.message == "no such host"


def test_failed_dial_frees_its_place_for_the_next_request(stage_of: StageOf) -> None:
    """BEH-P20."""
    stage = stage_of(limit=1)
    stage.send()
    stage.refuse()
    assert stage.stats().connecting == 0

    following, _ = stage.connected()

    assert following.is_running


def test_waiters_on_a_dead_host_fail_together_each_with_an_instance_of_its_own(stage_of: StageOf) -> None:
    """BEH-P48: with the last dial that could have served them, not one dial after the other."""
    stage = stage_of(limit=3)
    calls = [stage.send() for _ in range(50)]
    error = ConnectTimeout("no answer", origin="http://one.test:80", phase="connect")

    for dial in stage.dialer.pending:
        stage.refuse(dial, error)

    assert len(stage.dialer.dials) == 3
    assert all(isinstance(call.error, ConnectTimeout) for call in calls)
    assert len({id(call.error) for call in calls}) == len(calls)
    assert stage.stats().waiting == 0


def test_failed_dial_fails_only_the_one_that_caused_it_while_another_dial_is_under_way(stage: Stage) -> None:
    """BEH-P20."""
    first, second, third = (stage.send() for _ in range(3))

    stage.refuse(stage.dialer.pending[0])

    assert isinstance(first.error, ConnectError)
    assert [second.is_waiting, third.is_waiting] == [True, True]
    stage.connect(stage.dialer.pending[0])
    assert second.is_running


def test_failed_dial_fails_only_the_one_that_caused_it_while_a_connection_lives(stage_of: StageOf) -> None:
    """BEH-P20."""
    stage = stage_of(limit=2)
    running, _ = stage.connected()
    culprit, bystander = stage.send(), stage.send()

    stage.refuse()
    assert isinstance(culprit.error, ConnectError)
    assert bystander.is_waiting

    stage.answer(running)
    assert bystander.is_running


def test_waiter_for_whom_no_dial_was_allowed_gets_one_as_soon_as_another_settles(stage: Stage) -> None:
    """BEH-P20, I13: a free place and a waiter never stand side by side once the host answers."""
    first, second, third = (stage.send() for _ in range(3))
    stage.refuse(stage.dialer.pending[0])
    assert isinstance(first.error, ConnectError)

    stage.connect(stage.dialer.pending[0])
    assert second.is_running
    assert third.is_waiting

    stage.connect()
    assert third.is_running


def test_failing_host_is_not_dialed_in_a_hot_loop(stage: Stage) -> None:
    """BEH-P20: those who wait for the connection that lives do not each cause a dial."""
    stage.connected()
    for _ in range(10):
        stage.send()

    while stage.dialer.pending:
        stage.refuse()

    assert len(stage.dialer.dials) <= 3


def test_connection_that_was_freed_serves_the_waiter_and_its_late_dial_is_parked(stage: Stage) -> None:
    """BEH-P16."""
    running, channel = stage.connected()
    waiter = stage.send()
    stage.answer(running)
    assert stage.channel_of(waiter) is channel

    late = stage.connect()

    assert not late.closed
    assert (stage.stats().idle, stage.stats().leased) == (1, 1)


def test_failure_of_a_dial_nobody_waits_for_any_more_fails_nobody(stage: Stage) -> None:
    """BEH-P20."""
    running, _ = stage.connected()
    waiter = stage.send()
    stage.answer(running)
    assert waiter.is_running

    stage.refuse()

    stage.answer(waiter)
    assert waiter.response.status_code == 200


def test_request_that_gave_up_while_connecting_says_so(stage: Stage) -> None:
    """BEH-P14: the connect may take longer than the request."""
    call = stage.send(timeout=3.0)

    stage.advance(3.0)

    assert "while its connection was being established" in str(call.error)
    assert isinstance(call.error, TimeoutError)
    stage.connect()
    assert stage.stats().idle == 1


@pytest.mark.parametrize(("own", "expected"), [(None, 10.0), (2.5, 2.5)])
def test_dial_gets_the_requests_connect_timeout_or_the_clients(
    stage: Stage, own: float | None, expected: float
) -> None:
    """BEH-L4."""
    stage.send(connect=own)

    assert stage.dialer.pending[0].timeout == expected


def test_news_of_a_dial_nobody_knows_are_ignored_and_its_channel_closed(stage: Stage) -> None:
    """BEH-P38: a dial may report after it was given up."""
    call = stage.send()
    dial = stage.dialer.pending[0]
    stage.connect()
    late = MemoryChannel(stage.poller)

    stage.tell(Established(dial, late))
    stage.tell(EstablishFailed(dial, ConnectError("late")))

    assert late.closed
    assert call.is_running
    assert stage.stats().opened == 1


# -- warming up --------------------------------------------------------------------------


def test_warm_up_opens_connections_that_then_serve_requests(stage_of: StageOf) -> None:
    """BEH-P1."""
    stage = stage_of(limit=4)
    stage.supervisor.tell(WarmUp(KEY, 3, 1.5))
    stage.settle()
    assert [dial.timeout for dial in stage.dialer.pending] == [1.5] * 3

    channels = [stage.connect() for _ in range(3)]
    calls = [stage.send() for _ in range(3)]

    assert stage.dialer.pending == []
    assert {id(stage.channel_of(call)) for call in calls} == {id(channel) for channel in channels}


def test_warm_up_stays_within_the_limit_and_counts_what_is_there(stage_of: StageOf) -> None:
    """BEH-P35."""
    stage = stage_of(limit=2)
    stage.connected()

    stage.supervisor.tell(WarmUp(KEY, 50, None))
    stage.settle()

    assert len(stage.dialer.pending) == 1


def test_failed_warm_up_fails_no_request(stage: Stage) -> None:
    """BEH-P20."""
    running, _ = stage.connected()
    stage.supervisor.tell(WarmUp(KEY, 2, None))
    stage.settle()

    stage.refuse()

    assert running.is_running
    assert stage.stats().connecting == 0


# -- requests that are sent again --------------------------------------------------------


def test_request_on_a_reused_connection_that_closed_is_sent_again_on_a_fresh_one(stage: Stage) -> None:
    """BEH-P30, BEH-R11."""
    (channel,) = stage.idle()
    call = stage.send()

    channel.feed(b"")
    stage.settle()
    assert call.is_waiting

    fresh = stage.connect()
    assert fresh.sent.startswith(b"GET /1 ")
    stage.answer(call)
    assert call.response.status_code == 200


def test_returned_request_waits_for_a_fresh_connection_and_not_for_an_idle_one(stage: Stage) -> None:
    """BEH-P30: a restart of the server kills all old ones."""
    stage.idle(2)
    call = stage.send()
    other = stage.send()
    stage.answer(other)
    assert stage.stats().idle == 1

    stage.channel_of(call).feed(b"")
    stage.settle()

    assert call.is_waiting
    fresh = stage.connect()
    assert b"GET /2 " in fresh.sent


def test_returned_request_waits_for_the_next_attempt_when_its_dial_fails(stage: Stage) -> None:
    """BEH-R13, BEH-P30, I13: an idle connection beside it is none of its own, and the server may come back."""
    stage.idle(2)
    call, other = stage.send(), stage.send()
    stage.answer(other)

    stage.channel_of(call).feed(b"")
    stage.settle()
    stage.refuse()

    assert call.is_waiting
    assert not stage.dialer.pending
    stage.advance(1.0)
    stage.connect()
    stage.answer(call)
    assert call.response.status_code == 200


def test_returned_request_does_not_hang_when_the_dial_made_for_another_fails(stage: Stage) -> None:
    """BEH-P30, I13: the freed place was dialed for a waiter, and that was the last dial."""
    stage.idle(2)
    call, other = stage.send(), stage.send()
    waiter = stage.send()

    stage.channel_of(call).feed(b"")
    stage.settle()
    stage.answer(other)
    assert waiter.is_running
    stage.answer(waiter)
    stage.refuse()
    stage.advance(1.0)
    stage.connect()
    stage.answer(call)

    assert call.response.status_code == 200
    assert stage.stats().waiting == 0


def test_recovery_is_no_storm(stage_of: StageOf) -> None:
    """BEH-R13: a fifth of all requests may be sent again, and ten a second beside; the others say what happened."""
    stage = stage_of(limit=40)
    stage.idle(40)
    calls = [stage.send() for _ in range(40)]

    for channel in stage.open:
        channel.feed(b"")
    stage.settle()

    failed = [call for call in calls if call.future.done()]
    assert len(calls) - len(failed) == 10 + 80 // 5
    assert all(isinstance(call.error, RemoteProtocolError) for call in failed)


def test_request_that_may_not_be_sent_twice_fails_and_says_that_nobody_knows(stage: Stage) -> None:
    """BEH-R10."""
    (channel,) = stage.idle()
    call = stage.send(method="POST")

    channel.feed(b"")
    stage.settle()

    assert isinstance(call.error, RemoteProtocolError)
    assert (call.error.processed, call.error.may_retry) == ("maybe", False)
    assert stage.dialer.pending == []


def test_request_of_which_nothing_was_sent_is_queued_anew_in_front(stage_of: StageOf) -> None:
    """BEH-P30, BEH-P37: any method; it has not lost its place."""
    stage = stage_of(limit=1)
    running, channel = stage.connected()
    call, behind = stage.send(method="POST"), stage.send()

    stage.channel_of(running).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    channel.error = BrokenPipeError(32, "broken pipe")
    stage.settle()
    assert [call.is_waiting, behind.is_waiting] == [True, True]

    assert stage.connect().sent.startswith(b"POST /1 ")


def test_request_of_which_nothing_was_sent_goes_to_the_next_idle_connection(stage: Stage) -> None:
    """BEH-P30, I13: any will do; nothing is dialed beside one that stands idle."""
    good, broken = stage.idle(2)
    broken.error = BrokenPipeError(32, "broken pipe")

    stage.submit(call := stage.prepare(method="POST"))
    stage.settle()

    assert stage.channel_of(call) is good
    assert stage.dialer.pending == []
    stage.answer(call)
    assert call.response.status_code == 200


def test_requests_whose_connections_all_closed_are_sent_again_in_the_order_they_were_returned(stage: Stage) -> None:
    """BEH-R2, BEH-P37: before those who have never been sent."""
    channels = stage.idle(2)
    first, second = stage.send(), stage.send()
    waiter = stage.send()
    assert {id(stage.channel_of(first)), id(stage.channel_of(second))} == {id(channel) for channel in channels}

    stage.channel_of(first).feed(b"")
    stage.settle()
    stage.channel_of(second).feed(b"")
    stage.settle()

    assert stage.connect().sent.startswith(b"GET /2 ")
    assert stage.connect().sent.startswith(b"GET /3 ")
    stage.answer(first)
    assert waiter.is_running


def test_attempt_that_sent_nothing_does_not_use_up_the_one_that_may_follow_a_sent_one(stage: Stage) -> None:
    """DESIGN 5, rows 1 and 3: the first connection is dead at the write, the second after it."""
    second, first = stage.idle(2)
    call = stage.submit(stage.prepare())
    first.error = ConnectionResetError(errno.ECONNRESET, "reset")
    stage.settle()
    assert b"GET /2 " in second.sent

    second.feed(b"")
    stage.settle()
    stage.connect()
    stage.answer(call)

    assert call.response.status_code == 200
    assert stage.stats().replays == 2


def test_dead_idle_connections_cost_a_request_nothing_however_many_they_are(stage_of: StageOf) -> None:
    """DESIGN 5, row 1: a restart kills all of them in one turn, before the dispatcher can have seen it."""
    stage = stage_of(limit=6)
    channels = stage.idle(6)
    call = stage.submit(stage.prepare(method="POST"))
    for channel in channels:
        channel.error = ConnectionResetError(errno.ECONNRESET, "reset")
    stage.settle()

    stage.connect()
    stage.answer(call)

    assert call.response.status_code == 200
    assert not any(b"POST" in channel.sent for channel in channels)


def test_sent_once_and_then_not_at_all_is_still_sent(stage: Stage) -> None:
    """I27: what an error says of `processed` is of all attempts, not of the last one alone."""
    stage.idle(1)
    call = stage.send(timeout=5.0)
    stage.channel_of(call).feed(b"")
    stage.settle()
    stage.refuse()

    stage.advance(5.0)

    assert isinstance(call.error, DeadlineExceeded)
    assert (call.error.request_sent, call.error.processed) == (True, "maybe")
    assert isinstance(call.error.__cause__, ConnectError)
