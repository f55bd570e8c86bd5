"""What ends, bounds or cuts across reconnecting: cancels, disposal, bugs, other keys, time, idle connections."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.actors.stage import KEY, OTHER, Call, Stage
from turbopool.actors.messages import AbandonAll, WarmUp
from turbopool.errors import ClientDisposed, ConnectError

StageOf = Callable[..., Stage]


def lost(stage: Stage, waiting: int = 0, owner: object = None) -> list[Call]:
    """A request whose server went away under it, and so many behind it; the first attempt has failed."""
    (channel,) = stage.idle()
    calls = [stage.send(owner=owner) for _ in range(1 + waiting)]
    channel.feed(b"")
    stage.settle()
    stage.refuse()
    assert stage.stats().state == "reconnecting"
    return calls


def give_up(stage: Stage) -> None:
    """Let all attempts fail."""
    while stage.stats().state == "reconnecting":
        stage.advance(stage.poller.timeout)
        stage.refuse()


def test_nothing_is_dialed_when_nothing_was_in_flight(stage: Stage) -> None:
    """BEH-R4, BEH-R11: the next request just opens a connection."""
    (channel,) = stage.idle()
    channel.feed(b"")
    stage.settle()
    assert not stage.dialer.pending
    assert stage.stats().state == "open"

    call, _ = stage.connected()
    stage.answer(call)
    assert stage.stats().reconnects == 0


@pytest.mark.parametrize("framed", [True, False])
def test_response_that_the_end_completes_or_that_announces_the_end_is_no_drop(stage: Stage, *, framed: bool) -> None:
    """BEH-R5, BEH-R12: the next request is served over a new connection, without a pause."""
    call, channel = stage.connected()
    channel.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + b"Content-Length: 2\r\n" * framed + b"\r\nok", b"")
    stage.settle()
    assert call.response.content == b"ok"

    again, _ = stage.connected()
    stage.answer(again)
    assert (stage.stats().state, stage.stats().reconnects) == ("open", 0)


def test_cancel_in_backoff_leaves_at_once_and_nothing_is_dialed_for_it(stage_of: StageOf) -> None:
    """BEH-R13, BEH-P45, BEH-T4."""
    stage = stage_of(limit=1)
    calls = lost(stage, waiting=1)

    for call in calls:
        stage.cancel(call)
    assert stage.stats().waiting == 0

    stage.advance(50.0)
    assert not stage.dialer.pending
    assert stage.stats().cancelled == 2


def test_cancel_of_all_in_backoff_spares_other_owners(stage_of: StageOf) -> None:
    """BEH-R6, BEH-C4."""
    stage, owner = stage_of(limit=1), object()
    mine = lost(stage, waiting=2, owner=owner)
    other = stage.send(owner=object())
    stage.tell(AbandonAll(owner, threading.Event()))

    assert all(call.future.cancelled() for call in mine)
    stage.advance(1.0)
    stage.connect()
    stage.answer(other)
    assert other.response.content == b"ok"


def test_disposal_in_backoff_waits_for_the_server_and_serves_the_queue(stage_of: StageOf) -> None:
    """I16, I17, BEH-T6, BEH-C13."""
    stage = stage_of(limit=1)
    calls = lost(stage, waiting=1)
    done = stage.dispose(after=60.0)
    assert not done.is_set()

    stage.advance(1.0)
    stage.connect()
    for call in calls:
        stage.answer(call)

    assert done.is_set()
    assert all(call.response.content == b"ok" for call in calls)


@pytest.mark.parametrize("queued", ["finish", "fail"])
def test_disposal_in_backoff_ends_when_it_is_to_and_dials_no_more(stage_of: StageOf, queued: str) -> None:
    """I14, I16, I17, BEH-R6, BEH-T7, BEH-P23."""
    stage = stage_of(limit=1)
    calls = lost(stage, waiting=1)
    before = len(stage.dialer.dials)

    done = stage.dispose(queued=queued, after=0.5)  # type: ignore[arg-type]  # one of the two
    stage.advance(0.5)
    assert done.is_set()
    stage.advance(100.0)

    assert len(stage.dialer.dials) == before
    for call, processed in zip(calls, ["maybe", "no"], strict=True):
        assert isinstance(call.error, ClientDisposed)
        assert call.error.processed == processed


def test_disposal_when_the_attempts_have_ended_stops_the_probes(stage_of: StageOf) -> None:
    """I14, I17."""
    stage = stage_of(limit=1)
    lost(stage)
    give_up(stage)
    before = len(stage.dialer.dials)

    assert stage.dispose().is_set()
    stage.advance(100.0)

    assert len(stage.dialer.dials) == before


def test_request_whose_connection_drops_while_its_client_is_disposed_is_still_sent_again(stage: Stage) -> None:
    """I16, DESIGN section 3: what is in flight finishes within the time to drain."""
    (channel,) = stage.idle()
    call = stage.send()
    done = stage.dispose(after=60.0)
    channel.feed(b"")
    stage.settle()

    stage.connect()
    stage.answer(call)

    assert call.response.content == b"ok"
    assert done.is_set()


def test_attempt_that_succeeds_after_all_was_called_off_is_closed(stage_of: StageOf) -> None:
    """BEH-T2, BEH-P38, I17."""
    stage = stage_of(limit=1)
    lost(stage)
    stage.advance(1.0)
    (dial,) = stage.dialer.pending
    stage.dispose(queued="fail")

    assert dial.succeed().closed


def test_each_drop_counts_its_attempts_and_the_first_connect_does_not(stage_of: StageOf) -> None:
    """BEH-T8."""
    stage = stage_of(limit=1)
    (call,) = lost(stage)
    assert stage.stats().reconnects == 1
    stage.advance(1.0)
    channel = stage.connect()
    stage.answer(call)
    assert stage.stats().reconnects == 2

    stage.send()
    channel.feed(b"")
    stage.settle()
    assert stage.stats().reconnects == 3


def test_key_in_backoff_holds_no_room_and_its_messages_end(stage_of: StageOf) -> None:
    """I13, I25: the other key has all the room meanwhile, and gives it back."""
    stage = stage_of(limit=2, total=1)
    calls = lost(stage, waiting=1)
    other = [stage.send(OTHER) for _ in range(2)]
    stage.connect()
    before = stage.dispatcher.scheduled

    stage.advance(1.0)
    for call in other:
        stage.answer(call)
    stage.connect()
    for call in calls:
        stage.answer(call)

    assert all(call.response.content == b"ok" for call in calls + other)
    assert stage.dispatcher.scheduled - before < 40


def test_key_in_line_for_room_whose_manager_is_stopped_does_not_stand_in_the_way(stage_of: StageOf) -> None:
    """I13, I25: nobody waits behind the dead."""
    stage = stage_of(limit=2, total=1)
    running, _ = stage.connected(KEY)
    gone = stage.send(OTHER, timeout=1.0)
    stage.advance(1.0)
    assert gone.future.done()
    stage.pools[OTHER].ref.stop(block=False)
    stage.settle()

    last = stage.send(KEY)
    stage.pools[KEY].ref.stop(block=False)
    stage.settle()
    stage.connect()
    stage.answer(last)

    assert running.future.done()
    assert last.response.content == b"ok"


def test_replacement_of_a_crashed_manager_keeps_the_schedule(stage_of: StageOf) -> None:
    """I22, BEH-P40: a bug of ours is no reason to hurry the server."""
    stage = stage_of(limit=1)
    calls = lost(stage, waiting=1)
    stage.crash()
    stage.settle()
    assert not stage.dialer.pending

    stage.advance(1.0)
    stage.connect()
    for call in calls:
        stage.answer(call)

    assert all(call.response.content == b"ok" for call in calls)


def test_key_that_failed_and_that_nobody_asks_for_is_forgotten(stage_of: StageOf) -> None:
    """BEH-P43, I22, I24: probes end a while after the last request, and the manager retires."""
    stage = stage_of(limit=1, retire_after=60.0)
    lost(stage)
    give_up(stage)
    before, refused_at = len(stage.dialer.dials), stage.clock.now()
    while KEY in stage.pools:
        stage.advance(stage.poller.timeout)
        while stage.dialer.pending:
            stage.refuse()

    assert len(stage.dialer.dials) - before == 3
    assert stage.clock.now() - refused_at <= 60.0 + 60.0
    assert isinstance(_send_refused(stage).error, ConnectError)


def _send_refused(stage: Stage) -> Call:
    call = stage.send()
    stage.refuse()
    return call


def test_warm_up_in_backoff_makes_no_further_attempt(stage_of: StageOf) -> None:
    """I22."""
    stage = stage_of(limit=3)
    lost(stage)

    stage.tell(WarmUp(KEY, 3, None))
    assert not stage.dialer.pending

    stage.advance(1.0)
    stage.tell(WarmUp(KEY, 3, None))
    assert len(stage.dialer.pending) == 1
