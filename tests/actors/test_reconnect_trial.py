"""Servers that are back by half: they accept and hang up, or let some in, or answer slowly."""

from __future__ import annotations

from collections.abc import Callable

from tests.actors.stage import KEY, Call, Stage
from turbopool.errors import ClientDisposed, ConnectError, ConnectTimeout, RemoteProtocolError, TlsVerifyError
from turbopool.transport.memory import MemoryChannel

StageOf = Callable[..., Stage]


def flapped(stage: Stage) -> Call:
    """A request in backoff: the server went away under another, let it in again, and hung up on it."""
    if not stage.open:
        stage.idle()
    first = stage.send()
    stage.channel_of(first).feed(b"")
    stage.settle()
    stage.connect().feed(b"")
    stage.settle()
    assert isinstance(first.error, RemoteProtocolError)
    assert first.error.attempts == 2
    call = stage.send()
    assert call.is_waiting
    assert (stage.stats().state, len(stage.dialer.pending)) == ("reconnecting", 0)
    return call


def test_server_that_accepts_and_hangs_up_is_dialed_on_the_same_schedule(stage_of: StageOf) -> None:
    """I22, I5: nobody is sent a third time, the rest wait, and the attempts end."""
    stage = stage_of(limit=2)
    calls = [flapped(stage), *(stage.send() for _ in range(9))]
    before = len(stage.dialer.dials)
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0):
        assert not stage.dialer.pending
        stage.advance(pause)
        while stage.dialer.pending:
            stage.connect().feed(b"")
            stage.settle()

    assert stage.stats().state == "failing"
    assert len(stage.dialer.dials) - before == 5
    assert all(call.future.done() for call in calls)


def test_request_that_was_sent_and_then_could_not_be_sent_again_may_have_been_processed(stage_of: StageOf) -> None:
    """I27: what is known of its first attempt is not forgotten with the second."""
    stage = stage_of(limit=1)
    (channel,) = stage.idle()
    call = stage.send()
    channel.feed(b"")
    stage.settle()
    broken = MemoryChannel(stage.poller)
    broken.error = ConnectionResetError("reset before a byte was taken")
    stage.dialer.pending[0].succeed(broken)
    stage.settle()
    assert call.is_waiting

    stage.dispose(queued="fail")

    assert isinstance(call.error, ClientDisposed)
    assert (call.error.request_sent, call.error.processed) == (True, "maybe")


def test_after_a_server_hung_up_one_must_be_answered_before_others_dial(stage_of: StageOf) -> None:
    """I22: an attempt with a request on it, and then all at once."""
    stage = stage_of(limit=3)
    calls = [flapped(stage), *(stage.send() for _ in range(2))]
    stage.advance(1.0)
    stage.connect()
    assert not stage.dialer.pending

    stage.answer(calls[0])

    assert calls[1].is_running
    assert len(stage.dialer.pending) == 1
    stage.connect()
    for call in calls[1:]:
        stage.answer(call)


def test_attempt_that_is_answered_slowly_holds_the_others_up_for_one_step_only(stage_of: StageOf) -> None:
    """I13, I21: the server is well, and its first request takes a minute."""
    stage = stage_of(limit=3)
    slow, other = flapped(stage), stage.send()
    stage.advance(1.0)
    stage.connect()

    stage.advance(1.0)
    stage.connect()
    stage.answer(other)

    assert other.response.content == b"ok"
    assert slow.is_running


def test_attempt_that_nobody_needed_in_the_end_does_not_hold_up_who_needs_a_fresh_one(stage_of: StageOf) -> None:
    """I13, I21: its caller cancelled, it stands idle, and a request that was sent before has to be sent anew."""
    stage = stage_of(limit=2)
    for call in [stage.connected()[0] for _ in range(2)]:
        stage.answer(call)
    old = stage.send()
    cancelled = flapped(stage)
    stage.advance(1.0)
    stage.cancel(cancelled)
    stage.connect()

    stage.channel_of(old).feed(b"")
    stage.settle()
    stage.advance(1.0)
    stage.connect()
    stage.answer(old)

    assert old.response.content == b"ok"


def test_waiter_whom_one_failure_did_not_meet_is_dialed_for_after_another(stage_of: StageOf) -> None:
    """I13, I21: a certificate was refused at once to one, and the other's attempt timed out."""
    stage = stage_of(limit=3)
    for call in [stage.connected()[0] for _ in range(3)]:
        stage.answer(call)
    running, first, second = (stage.send() for _ in range(3))
    for call in (first, second):
        stage.channel_of(call).feed(b"")
    stage.settle()
    stage.refuse(error=TlsVerifyError("expired", origin=KEY.origin))
    stage.refuse(error=ConnectTimeout("too slow", origin=KEY.origin))

    stage.advance(1.0)
    stage.connect()
    waiting = second if first.future.done() else first
    stage.answer(waiting)

    assert waiting.response.content == b"ok"
    assert running.is_running


def test_waiter_that_an_old_connection_may_serve_waits_for_it_when_the_attempts_end(stage_of: StageOf) -> None:
    """I13: as long as one connection works, nobody is given up."""
    stage = stage_of(limit=2)
    (_,) = stage.idle()
    running, waiting = stage.send(), stage.send()
    while stage.stats().state != "failing":
        stage.refuse(error=ConnectError("refused", origin=KEY.origin))
        if stage.stats().state != "failing":
            stage.advance(stage.poller.timeout)
    assert waiting.is_waiting

    stage.answer(running)
    stage.answer(waiting)

    assert waiting.response.content == b"ok"
