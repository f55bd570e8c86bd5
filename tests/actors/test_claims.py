"""Launched requests that the dispatcher takes over: at once if their connections are wanted, else before long."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.actors.calls import Call
from tests.actors.stage import KEY, Stage
from turbopool import ManagerCrashed
from turbopool.actors import shelf
from turbopool.actors.afloat import AFLOAT
from turbopool.actors.base import stop
from turbopool.actors.claims import PATROL

StageOf = Callable[..., Stage]


def launch(stage: Stage) -> Call:
    """Send a request as a caller does that finds an idle connection, and comes no more to receive."""
    call = stage.prepare()
    call.exchange.tally = pool = stage.pools[KEY]
    assert shelf.launch(pool, call.exchange)
    assert call.exchange.raft
    return call


def test_it_is_taken_over_within_some_milliseconds(stage: Stage) -> None:
    stage.idle()
    call = launch(stage)
    stage.answer(call)
    assert not call.exchange.done

    stage.advance(2 * AFLOAT)

    assert call.exchange.done


def test_it_is_taken_over_at_once_when_another_waits_for_its_connection(stage_of: StageOf) -> None:
    stage = stage_of(limit=1)
    stage.idle()
    for _ in range(2):  # the second is looked for anew
        first, second = launch(stage), stage.prepare()
        second.exchange.tally = stage.pools[KEY]
        assert not shelf.join(stage.pools[KEY], second.exchange)
        stage.settle()
        stage.answer(first)
        assert first.exchange.done
        stage.answer(second)
        assert second.exchange.done
    assert stage.stats().opened == 1


def test_the_end_of_the_client_waits_for_it(stage: Stage) -> None:
    stage.idle()
    call = launch(stage)
    done = stage.dispose()
    assert not done.is_set()
    stage.answer(call)
    assert call.exchange.done
    assert done.is_set()


def test_a_hurried_end_fails_it_and_closes_its_connection_at_once(stage: Stage) -> None:
    (channel,) = stage.idle()
    call = launch(stage)
    stage.dispose(queued="fail", after=0.0)
    assert call.exchange.done
    assert channel.closed


def test_a_crash_of_the_manager_fails_it_and_closes_its_connection_at_once(stage: Stage) -> None:
    (channel,) = stage.idle()
    call = launch(stage)
    stage.crash()
    stage.settle()
    assert isinstance(call.future.exception(), ManagerCrashed)
    assert channel.closed
    assert not stage.pools[KEY].orphans


def test_whoever_relied_on_a_killed_thread_is_found_by_the_patrol(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had said that the dispatcher would look, and never told it."""
    stage.idle(2)
    with monkeypatch.context() as killed:
        killed.setattr(stage.dispatcher, "schedule", lambda _: None)
        call = launch(stage)
    stage.answer(call)
    stage.advance(PATROL / 2)
    assert not call.exchange.done

    stage.advance(PATROL / 2)

    assert call.exchange.done


def test_whoever_relied_on_an_interrupted_thread_waits_no_longer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.idle(2)
    relying: list[Call] = []

    def interrupt(_: object) -> None:
        monkeypatch.undo()
        relying.append(launch(stage))
        raise KeyboardInterrupt

    monkeypatch.setattr(stage.dispatcher, "schedule", interrupt)
    with pytest.raises(KeyboardInterrupt):
        launch(stage)

    stage.answer(relying[0])
    stage.advance(2 * AFLOAT)

    assert relying[0].exchange.done


def test_the_end_of_its_manager_alone_fails_it_and_closes_its_connection_at_once(stage: Stage) -> None:
    """Somebody stopped that actor."""
    (channel,) = stage.idle()
    call = launch(stage)
    assert stop(stage.pools[KEY].ref)
    stage.settle()
    assert call.exchange.done
    assert channel.closed


def test_an_interrupt_that_strikes_as_it_is_handed_over_loses_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.idle()
    call = launch(stage)

    def interrupt(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(shelf, "_hand_in", interrupt)
    with pytest.raises(KeyboardInterrupt):
        shelf.land(call.exchange.raft)

    stage.answer(call)

    assert call.exchange.done
