"""The supervisor: one manager a key, and the orderly end of all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pykka import ActorRef

from tests.actors.stage import KEY, OTHER, THIRD, Stage
from turbopool.actors.messages import Abandon, AbandonAll, Dispose, Halt, ManagerDrained, WarmUp
from turbopool.clock import NEVER
from turbopool.errors import ClientDisposed, ManagerCrashed

StageOf = Callable[..., Stage]


# -- one manager a key -------------------------------------------------------------------


def test_first_request_of_a_key_makes_its_manager_and_the_next_finds_it(stage: Stage) -> None:
    """BEH-P34."""
    assert stage.pools == {}
    stage.connected()
    ref = stage.pools[KEY].ref

    stage.connected()

    assert stage.pools[KEY].ref is ref


def test_different_keys_have_different_managers(stage: Stage) -> None:
    """BEH-P34."""
    for key in (KEY, OTHER, THIRD):
        stage.connected(key)

    assert len({pool.ref.actor_urn for pool in stage.pools.values()}) == 3


def test_requests_that_all_come_before_the_manager_exists_share_one(stage: Stage) -> None:
    """BEH-P34: many threads send a key's first request at once."""
    calls = [stage.submit(stage.prepare()) for _ in range(10)]

    stage.settle()

    assert len(stage.pools) == 1
    assert len(stage.dialer.pending) == 2
    assert stage.stats().waiting == len(calls)


def test_request_cancelled_before_its_manager_exists_is_ignored(stage: Stage) -> None:
    """BEH-P15."""
    stage.submit(call := stage.prepare())
    assert call.future.cancel()

    stage.settle()

    assert stage.dialer.dials == []
    assert stage.supervisor.is_alive()


def test_news_of_a_key_nobody_knows_do_not_hurt(stage: Stage) -> None:
    """BEH-P21."""
    call = stage.send(timeout=0.0)
    stage.advance(60.0)
    assert stage.pools == {}

    stage.supervisor.tell(ManagerDrained(KEY))
    stage.supervisor.tell(Abandon(call.exchange))
    stage.settle()

    assert stage.supervisor.is_alive()
    assert stage.pools == {}


# -- draining ----------------------------------------------------------------------------


def test_dispose_closes_idle_connections_at_once_and_leased_ones_after_their_request(stage: Stage) -> None:
    """BEH-P22."""
    running, busy = stage.connected()
    (idle,) = stage.idle()

    done = stage.dispose()
    assert (idle.closed, busy.closed) == (True, False)
    assert not done.is_set()
    stage.answer(running)

    assert running.response.status_code == 200
    assert busy.closed
    assert done.is_set()
    assert stage.pools == {}


def test_dispose_of_a_runtime_without_work_ends_at_once(stage: Stage) -> None:
    """BEH-P22, BEH-L1."""
    assert stage.dispose().is_set()
    assert not stage.supervisor.is_alive()


def test_queued_requests_are_carried_out_before_the_end(stage: Stage) -> None:
    """BEH-P22: what was accepted is finished, with the connections there are."""
    running, _ = stage.connected()
    stage.connected(method="POST")
    waiters = [stage.send() for _ in range(3)]

    done = stage.dispose()
    for call in [running, *waiters]:
        stage.answer(call)

    assert [call.response.status_code for call in waiters] == [200] * 3
    assert not done.is_set()
    stage.answer(stage.calls[1])
    assert done.is_set()


def test_queued_requests_are_failed_at_once_when_asked_for(stage: Stage) -> None:
    """BEH-P23."""
    running, _ = stage.connected()
    other, _ = stage.connected()
    waiter = stage.send()

    done = stage.dispose(queued="fail")

    assert isinstance(waiter.error, ClientDisposed)
    assert (waiter.error.processed, waiter.error.may_retry) == ("no", True)
    assert [running.is_running, other.is_running] == [True, True]
    stage.answer(running)
    stage.answer(other)
    assert done.is_set()


def test_dial_for_a_queued_request_is_awaited(stage: Stage) -> None:
    """BEH-P22."""
    call = stage.send()

    done = stage.dispose()
    stage.connect()
    stage.answer(call)

    assert call.response.status_code == 200
    assert done.is_set()


def test_dial_nobody_waits_for_is_given_up_and_its_late_socket_closed(stage: Stage) -> None:
    """BEH-P38."""
    stage.cancel(stage.send())
    dial = stage.dialer.pending[0]

    done = stage.dispose()
    late = dial.succeed()

    assert done.is_set()
    assert late.closed


def test_waiter_cancelled_during_the_drain_lets_its_dial_go(stage: Stage) -> None:
    """BEH-P38."""
    call = stage.send()
    done = stage.dispose()
    assert not done.is_set()

    stage.cancel(call)

    assert done.is_set()
    assert stage.dialer.pending == []


def test_waiter_that_expires_during_the_drain_ends_it(stage: Stage) -> None:
    """BEH-P23: the default drain ends with the requests' own deadlines."""
    call = stage.send(timeout=5.0)
    done = stage.dispose()

    stage.advance(5.0)

    assert isinstance(call.error, TimeoutError)
    assert done.is_set()


def test_stop_fails_those_whose_connect_is_in_flight_and_closes_the_late_socket(stage: Stage) -> None:
    """BEH-P38."""
    calls = [stage.send() for _ in range(3)]
    dials = stage.dialer.pending

    done = stage.dispose(after=2.0)
    stage.advance(2.0)
    late = [dial.succeed() for dial in dials]

    assert all(isinstance(call.error, ClientDisposed) for call in calls)
    assert all(channel.closed for channel in late)
    assert done.is_set()


def test_stop_fails_what_is_under_way_at_its_deadline(stage: Stage) -> None:
    """BEH-P22, BEH-P23: every connection is closed, leased or idle."""
    running, _ = stage.connected()
    stage.connected(OTHER)
    waiters = [stage.send() for _ in range(5)]

    done = stage.dispose(after=1.0)
    stage.advance(0.999)
    assert not done.is_set()
    stage.advance(0.001)

    assert isinstance(running.error, ClientDisposed)
    assert (running.error.request_sent, running.error.processed, running.error.may_retry) == (True, "maybe", False)
    assert all(isinstance(call.error, ClientDisposed) for call in waiters)
    assert stage.open == []
    assert done.is_set()


def test_drain_over_several_keys_ends_with_the_last(stage: Stage) -> None:
    """BEH-P22."""
    calls = [stage.connected(key)[0] for key in (KEY, OTHER, THIRD)]

    done = stage.dispose()
    for call in calls:
        assert not done.is_set()
        stage.answer(call)

    assert done.is_set()


def test_request_after_the_disposal_began_is_refused(stage: Stage) -> None:
    """BEH-P33: by the manager, if the caller had it in hand, and by the supervisor."""
    running, _ = stage.connected()
    stage.dispose()

    known = stage.send(KEY)
    unknown = stage.send(OTHER)

    for call in (known, unknown):
        assert isinstance(call.error, ClientDisposed)
        assert call.error.processed == "no"
    assert running.is_running


def test_request_after_the_end_is_refused(stage: Stage) -> None:
    """BEH-P33: it was told before the end, and comes after it in the inbox."""
    call = stage.prepare()
    stage.supervisor.tell(Dispose("finish", NEVER, done := threading.Event()))
    stage.supervisor.stop(block=False)
    stage.submit(call)
    stage.settle()

    assert isinstance(call.error, ClientDisposed)
    assert done.is_set()


def test_warm_up_after_the_disposal_began_opens_nothing(stage: Stage) -> None:
    """I17: nothing is connected, and no manager is made that nobody would drain."""
    running, _ = stage.connected()
    done = stage.dispose()

    stage.supervisor.tell(WarmUp(OTHER, 3, None))
    stage.supervisor.tell(WarmUp(KEY, 2, None))
    stage.tell(WarmUp(KEY, 2, None))

    assert stage.dialer.pending == []
    stage.answer(running)
    assert done.is_set()


def test_connection_lost_while_draining_ends_the_drain(stage: Stage) -> None:
    """BEH-P22, BEH-P24."""
    call, channel = stage.connected(method="POST")
    done = stage.dispose()

    channel.error = ConnectionResetError("reset")
    stage.settle()

    assert isinstance(call.error, OSError)
    assert done.is_set()


def test_cancel_of_everything_works_while_draining(stage: Stage) -> None:
    """BEH-C4, BEH-P22."""
    owner = object()
    calls = [stage.send(owner=owner) for _ in range(5)]
    stage.connect()
    done = stage.dispose()

    stage.supervisor.tell(AbandonAll(owner, cancelled := threading.Event()))
    stage.settle()

    assert all(call.future.cancelled() for call in calls)
    assert done.is_set()
    assert cancelled.is_set()


# -- stopped by somebody else ------------------------------------------------------------


@pytest.mark.parametrize("first", ["supervisor", "manager"])
def test_foreign_stop_leaves_no_request_without_an_outcome(stage: Stage, first: str) -> None:
    """BEH-P22: an application may call ``ActorRegistry.stop_all()``, which stops ours as well, in any order."""
    running, busy = stage.connected()
    stage.idle(1, OTHER)
    waiters = [stage.send() for _ in range(4)]
    refs: list[ActorRef[Any]] = [stage.supervisor, *(pool.ref for pool in stage.pools.values())]

    for ref in refs if first == "supervisor" else reversed(refs):
        ref.stop(block=False)
    stage.settle()

    assert all(isinstance(call.error, ManagerCrashed) for call in [running, *waiters])
    assert busy.closed
    assert stage.open == []
    assert stage.dispatcher.census() == (0, 0)


def test_halt_told_to_a_manager_ends_it_alone(stage: Stage) -> None:
    """BEH-P22."""
    call, _ = stage.connected(KEY)
    other, _ = stage.connected(OTHER)

    stage.tell(Halt(), KEY)

    assert isinstance(call.error, ClientDisposed)
    assert KEY not in stage.pools
    assert other.is_running


def test_manager_that_was_stopped_alone_is_replaced_for_the_next_request(stage: Stage) -> None:
    """BEH-P40."""
    running, busy = stage.connected()
    stage.pools[KEY].ref.stop(block=False)
    stage.settle()
    assert isinstance(running.error, ManagerCrashed)
    assert busy.closed

    following, _ = stage.connected()

    assert following.is_running
