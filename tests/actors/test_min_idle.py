"""Connections that stay idle beyond the idle timeout, so that the next request need not wait for one."""

from __future__ import annotations

from collections.abc import Callable

from tests.actors.stage import Stage

StageOf = Callable[..., Stage]


def test_so_many_connections_as_are_asked_for_stay_idle_the_newest_and_no_longer_than_they_live(
    stage_of: StageOf,
) -> None:
    """BEH-P28, I23: ``min_idle_connections``."""
    stage = stage_of(limit=3, min_idle=1, idle_timeout=10.0, lifetime=100.0)
    calls = [stage.connected()[0] for _ in range(3)]
    for call in calls:
        stage.answer(call)
    newest = stage.channel_of(calls[-1])

    stage.advance(10.0)
    assert stage.open == [newest]
    stage.advance(70.0)
    assert stage.open == [newest]

    stage.advance(20.0)
    assert not stage.open


def test_kept_connection_is_still_given_up_when_its_server_closes_it(stage_of: StageOf) -> None:
    """BEH-P28, BEH-R4: a spare one is not dialed again by itself."""
    stage = stage_of(limit=2, min_idle=2, idle_timeout=10.0)
    (channel,) = stage.idle()
    stage.advance(50.0)
    assert not channel.closed

    channel.feed(b"")
    stage.settle()

    assert channel.closed
    assert not stage.dialer.pending


def test_more_than_are_asked_for_go_and_come_back_when_they_are_needed(stage_of: StageOf) -> None:
    """BEH-P28, BEH-P7: two of three stay, and a lent one is one of them."""
    stage = stage_of(limit=3, min_idle=2, idle_timeout=10.0)
    calls = [stage.connected()[0] for _ in range(3)]
    for call in calls:
        stage.answer(call)
    running = stage.send()

    stage.advance(20.0)

    assert len(stage.open) == 2
    assert (stage.stats().leased, stage.stats().idle) == (1, 1)
    stage.answer(running)
    stage.advance(20.0)
    assert stage.stats().idle == 2
