"""A key loses its server and gets it back: what callers and the server see, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.actors.stage import KEY, Call, Stage
from turbopool import ReconnectOptions
from turbopool.errors import (
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    PoolFull,
    PoolTimeout,
    RemoteProtocolError,
    TlsVerifyError,
)

StageOf = Callable[..., Stage]
_TICK = 2.0**-10
"""Seconds; short, and exact beside every pause."""


def lost(stage: Stage, waiting: int = 0) -> list[Call]:
    """A request whose server went away under it, and so many behind it; an attempt is under way."""
    (channel,) = stage.idle()
    calls = [stage.send() for _ in range(1 + waiting)]
    assert b"GET /1 " in channel.sent
    channel.feed(b"")
    stage.settle()
    return calls


def refuse_until_given_up(stage: Stage) -> list[float]:
    """Refuse all attempts; return the pauses between them."""
    pauses, failed_at = [], stage.clock.now()
    while stage.stats().state == "reconnecting":
        stage.advance(stage.poller.timeout if not stage.dialer.pending else 0.0)
        if stage.dialer.pending:
            assert len(stage.dialer.pending) == 1
            pauses.append(stage.clock.now() - failed_at)
            failed_at = stage.clock.now()
            stage.refuse()
    return pauses


def serve(stage: Stage, calls: list[Call]) -> None:
    """Answer so many requests, each in its turn."""
    for call in calls:
        stage.answer(call)
        assert call.response.status_code == 200


def test_attempts_are_made_at_once_then_after_1_2_4_8_16_seconds_to_the_tick(stage_of: StageOf) -> None:
    """BEH-R1, BEH-R3, BEH-R13, I22."""
    stage = stage_of(limit=1)
    (call,) = lost(stage)

    for pause in (1.0, 2.0, 4.0, 8.0, 16.0):
        stage.refuse()
        stage.advance(pause - _TICK)
        assert not stage.dialer.pending
        stage.advance(_TICK)
        assert len(stage.dialer.pending) == 1
        assert call.is_waiting
    stage.refuse()

    assert isinstance(call.error, ConnectError)
    assert call.error.attempts == 6
    assert stage.stats().reconnects == 6


def test_requests_are_replayed_in_order_and_those_that_came_meanwhile_follow(stage_of: StageOf) -> None:
    """BEH-R2, BEH-R9, BEH-P30, BEH-T1: all get their own response, as if nothing had been."""
    stage = stage_of(limit=1)
    calls = lost(stage, waiting=2)
    stage.refuse()
    calls.append(stage.send())
    stage.advance(0.5)
    calls.append(stage.send(method="POST"))

    stage.advance(0.5)
    channel = stage.connect()
    serve(stage, calls)

    assert [call.start_line for call in calls] == [b"GET /1 ", b"GET /2 ", b"GET /3 ", b"GET /4 ", b"POST /5 "]
    assert bytes(channel.sent).count(b"HTTP/1.1") == 5
    assert (stage.stats().replays, stage.stats().state) == (1, "open")


def test_server_that_restarts_under_several_requests_serves_them_all(stage_of: StageOf) -> None:
    """BEH-R2, BEH-R16 on a fake clock: the first good connect opens the gate to all."""
    stage = stage_of(limit=3)
    channels = [channel for _, channel in [stage.connected() for _ in range(3)]]
    for call in list(stage.calls):
        stage.answer(call)
    calls = [stage.send() for _ in range(7)]
    for channel in channels:
        channel.feed(b"")
    stage.settle()
    while stage.dialer.pending:
        stage.refuse()

    stage.advance(1.0)
    stage.connect()
    assert len(stage.dialer.pending) == 2
    stage.connect()
    stage.connect()
    serve(stage, calls)

    assert stage.stats().replays == 3


def test_five_hundred_who_wait_survive_three_failed_attempts(stage_of: StageOf) -> None:
    """I5, I21, BEH-P29."""
    stage = stage_of(limit=4)
    calls = lost(stage, waiting=500)
    while stage.dialer.pending:
        stage.refuse()
    for pause in (1.0, 2.0):
        stage.advance(pause)
        stage.refuse()

    stage.advance(4.0)
    while stage.dialer.pending:
        stage.connect()
    serve(stage, calls)

    assert len(stage.open) == 4
    assert stage.stats().completed == 1 + 501


@pytest.mark.parametrize("patience", ["total", "queue"])
def test_whose_own_time_is_over_meanwhile_learns_what_broke(stage_of: StageOf, patience: str) -> None:
    """I6, BEH-T5: the last failure to connect is the cause."""
    stage = stage_of(limit=1)
    lost(stage)
    stage.refuse()
    call = stage.send(timeout=0.5) if patience == "total" else stage.send(queue=0.5)

    stage.advance(0.5)

    assert type(call.error) is (DeadlineExceeded if patience == "total" else PoolTimeout)
    assert isinstance(call.error.__cause__, ConnectError)
    assert (call.error.phase, call.error.processed, call.done_at) == ("queue", "no", stage.clock.now())


def test_request_whose_time_is_over_before_it_was_replayed_may_have_been_processed(stage_of: StageOf) -> None:
    """I27."""
    stage = stage_of(limit=1)
    (channel,) = stage.idle()
    call = stage.send(timeout=0.5)
    channel.feed(b"")
    stage.settle()
    stage.refuse()

    stage.advance(0.5)

    assert isinstance(call.error, DeadlineExceeded)
    assert (call.error.request_sent, call.error.processed, call.error.attempts) == (True, "maybe", 1)


def test_when_the_attempts_end_each_waiter_fails_with_an_instance_of_its_own(stage_of: StageOf) -> None:
    """BEH-R3, BEH-R15, I27: all with the last failure, the one that was sent as maybe processed."""
    stage = stage_of(limit=1)
    calls = lost(stage, waiting=2)

    assert refuse_until_given_up(stage) == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]

    errors = [call.error for call in calls]
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, ConnectError)
        assert error.message == "6 attempts to reconnect failed, the last of them so: refused by the script"
        assert (error.attempts, error.origin) == (6, KEY.origin)
    assert [error.processed for error in errors if isinstance(error, ConnectError)] == ["maybe", "no", "no"]


def test_after_that_requests_fail_at_once_until_a_probe_connects(stage_of: StageOf) -> None:
    """BEH-R15, I21, I22: one probe a step, and the first good one reopens."""
    stage = stage_of(limit=1)
    lost(stage)
    refuse_until_given_up(stage)
    for _ in range(2):
        before = len(stage.dialer.dials)
        assert isinstance(stage.send().error, ConnectError)
        stage.advance(16.0 - _TICK)
        assert isinstance(stage.send().error, ConnectError)
        assert len(stage.dialer.dials) == before
        stage.advance(_TICK)
        assert isinstance(stage.send().error, ConnectError), "a probe is for nobody"
        stage.refuse()

    stage.advance(16.0)
    assert stage.stats().state == "failing"
    stage.connect()
    call = stage.send()
    stage.answer(call)

    assert call.response.content == b"ok"
    assert stage.stats().state == "open"


def test_request_that_comes_when_a_probe_is_due_is_the_probe(stage_of: StageOf) -> None:
    """BEH-R15: a later request starts afresh."""
    stage = stage_of(limit=1)
    lost(stage)
    refuse_until_given_up(stage)
    stage.advance(50.0)
    while stage.dialer.pending:
        stage.refuse()
        stage.advance(70.0)

    call = stage.send()
    stage.connect()
    stage.answer(call)

    assert call.response.content == b"ok"


def test_get_is_sent_again_and_post_fails_and_is_not(stage: Stage) -> None:
    """BEH-R10, I9."""
    post_channel, get_channel = stage.idle(2)[::-1]
    post, get = stage.send(method="POST"), stage.send()
    assert (stage.channel_of(post), stage.channel_of(get)) == (post_channel, get_channel)

    for channel in (post_channel, get_channel):
        channel.feed(b"")
    stage.settle()

    assert isinstance(post.error, RemoteProtocolError)
    assert (post.error.processed, post.error.may_retry, post.error.attempts) == ("maybe", False, 1)
    assert get.start_line in stage.connect().sent
    assert len([channel for channel in stage.channels if post.start_line in channel.sent]) == 1


def test_host_that_is_refused_first_and_then_up_serves_its_caller_if_it_may_be_waited_for(stage_of: StageOf) -> None:
    """BEH-R14; by default the first connect fails fast."""
    stage = stage_of(reconnect=ReconnectOptions(first_connect=True))
    call = stage.send()
    stage.refuse()
    assert call.is_waiting
    stage.advance(1.0)
    stage.connect()
    stage.answer(call)
    assert call.response.content == b"ok"

    impatient = stage_of()
    call = impatient.send()
    impatient.refuse()
    assert isinstance(call.error, ConnectError)
    assert impatient.stats().state == "cold"


def test_queue_is_bounded_while_reconnecting_and_open_again_after(stage_of: StageOf) -> None:
    """BEH-R7, I24: the one that is sent again counts."""
    stage = stage_of(limit=1, max_pending=2)
    calls = lost(stage, waiting=2)
    stage.refuse()

    assert isinstance(stage.send().error, PoolFull)

    stage.advance(1.0)
    stage.connect()
    stage.answer(calls[0])
    assert stage.send().is_waiting


def test_connect_timeout_is_a_failure_like_another(stage_of: StageOf) -> None:
    """BEH-T3: the pause begins when the attempt ends, and later attempts have the client's own timeout."""
    stage = stage_of(limit=1, connect_timeout=7.0)
    (call,) = lost(stage)
    stage.advance(7.0)
    stage.refuse(error=ConnectTimeout("too slow", origin=KEY.origin))

    stage.advance(1.0)

    assert stage.dialer.pending[0].timeout == 7.0
    assert call.is_waiting


def test_certificate_that_is_not_accepted_fails_at_once(stage_of: StageOf) -> None:
    """FAULTS part 3, row 6: never patient."""
    stage = stage_of(limit=1)
    (call,) = lost(stage)

    stage.refuse(error=TlsVerifyError("expired", origin=KEY.origin))

    assert isinstance(call.error, TlsVerifyError)
