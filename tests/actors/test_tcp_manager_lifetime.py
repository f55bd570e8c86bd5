"""How long connections of a key live: idle timeout, lifetime, hints of the server, the end of the key itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.actors.stage import KEY, OTHER, Stage
from turbopool.actors.messages import EvictIdle, Lease, ManagerIdled
from turbopool.stats import PoolKey

StageOf = Callable[..., Stage]


# -- idle timeout ------------------------------------------------------------------------


def test_idle_connection_is_closed_exactly_at_its_timeout_since_the_last_release(stage: Stage) -> None:
    """BEH-P6, BEH-P36."""
    (channel,) = stage.idle()
    stage.advance(54.9)
    assert not channel.closed
    call = stage.send()
    stage.advance(3.0)
    stage.answer(call)

    stage.advance(54.999)
    assert not channel.closed
    stage.advance(0.001)

    assert channel.closed
    assert (stage.stats().idle, stage.stats().closed) == (0, 1)


def test_connections_within_their_idle_timeout_survive_an_eviction(stage: Stage) -> None:
    """BEH-P7."""
    old, young = stage.idle(2)
    stage.advance(30.0)
    call = stage.send()
    assert stage.channel_of(call) is young
    stage.answer(call)

    stage.advance(25.0)

    assert (old.closed, young.closed) == (True, False)


def test_eviction_told_at_any_moment_closes_only_what_has_expired(stage: Stage) -> None:
    """BEH-P6, BEH-P7, BEH-P8."""
    (channel,) = stage.idle()
    stage.tell(EvictIdle())
    assert not channel.closed

    stage.clock.advance(55.0)
    stage.tell(EvictIdle())

    assert channel.closed


def test_leased_connection_is_never_evicted(stage: Stage) -> None:
    """BEH-P36."""
    call, channel = stage.connected()
    waiter, _ = stage.connected()

    stage.advance(10_000.0)

    assert not channel.closed
    stage.answer(call)
    stage.answer(waiter)
    assert call.response.status_code == waiter.response.status_code == 200


def test_expired_connection_is_not_handed_out_though_its_eviction_is_late(stage: Stage) -> None:
    """BEH-P9: the message comes before the timer in one turn."""
    (channel,) = stage.idle()

    stage.clock.advance(55.0)
    call = stage.send()

    assert channel.closed
    assert call.is_waiting


@pytest.mark.parametrize("idle_timeout", [0.0, None])
def test_idle_timeout_of_nothing_never_evicts(stage_of: StageOf, idle_timeout: float | None) -> None:
    """BEH-P10."""
    stage = stage_of(idle_timeout=idle_timeout)
    (channel,) = stage.idle()

    stage.advance(1e7)

    assert not channel.closed
    assert stage.channel_of(stage.send()) is channel


def test_connection_its_server_will_soon_close_is_closed_first(stage: Stage) -> None:
    """BEH-P36: ``Keep-Alive: timeout=5`` undercuts the idle timeout, by a second for what is on its way."""
    call, channel = stage.connected()
    stage.answer(call, b"ok", ("Keep-Alive", "timeout=5, max=100"))

    stage.advance(3.999)
    assert not channel.closed
    stage.advance(0.001)

    assert channel.closed


def test_connection_its_server_closes_at_once_is_not_kept(stage: Stage) -> None:
    """BEH-P9."""
    call, channel = stage.connected()

    stage.answer(call, b"ok", ("Keep-Alive", "timeout=1"))

    assert channel.closed


# -- lifetime ----------------------------------------------------------------------------


def test_connection_without_a_lifetime_never_expires(stage_of: StageOf) -> None:
    """BEH-L2."""
    stage = stage_of(lifetime=None, idle_timeout=None)
    (channel,) = stage.idle()

    stage.advance(1e9)

    assert stage.channel_of(stage.send()) is channel


def test_connection_is_used_within_its_lifetime_and_not_beyond_it(stage_of: StageOf) -> None:
    """BEH-L2, BEH-P18: the lifetime is jittered by up to a tenth, downwards."""
    stage = stage_of(lifetime=100.0, idle_timeout=None)
    (channel,) = stage.idle()

    stage.advance(89.9)
    young = stage.send()
    assert stage.channel_of(young) is channel
    stage.answer(young)
    stage.advance(10.1)
    late = stage.send()

    assert late.is_waiting
    assert channel.closed


def test_idle_connection_is_closed_when_its_lifetime_ends(stage_of: StageOf) -> None:
    """BEH-L2: it would not be handed out any more, and would keep its manager from retiring."""
    stage = stage_of(idle_timeout=None, lifetime=100.0)
    (channel,) = stage.idle()

    stage.advance(89.0)
    assert not channel.closed
    stage.advance(11.0)

    assert channel.closed


def test_lifetimes_of_connections_differ_so_that_they_do_not_all_end_at_once(stage_of: StageOf) -> None:
    """BEH-L2."""
    stage = stage_of(lifetime=100.0, limit=20)
    calls = [stage.connected()[0] for _ in range(20)]

    ends = {stage.connection_of(call).expires_at - stage.clock.now() for call in calls}

    assert len(ends) > 1
    assert all(90.0 <= end <= 100.0 for end in ends)


def test_lifetime_of_zero_serves_one_request_a_connection(stage_of: StageOf) -> None:
    """BEH-L2."""
    stage = stage_of(lifetime=0.0)
    first, channel = stage.connected()
    stage.answer(first)
    assert first.response.status_code == 200
    assert channel.closed

    assert stage.send().is_waiting


def test_expired_connection_is_not_handed_to_a_waiter_either(stage_of: StageOf) -> None:
    """BEH-P41."""
    stage = stage_of(limit=1, lifetime=100.0)
    running, channel = stage.connected()
    waiter = stage.send()

    stage.advance(100.0)
    assert not channel.closed
    stage.answer(running)

    assert running.response.status_code == 200
    assert channel.closed
    assert stage.channel_of(waiter if stage.connect() else running) is not channel


def test_idle_connection_beyond_its_lifetime_is_closed_by_an_eviction(stage_of: StageOf) -> None:
    """BEH-P6, BEH-P8."""
    stage = stage_of(lifetime=10.0)
    (channel,) = stage.idle()

    stage.clock.advance(10.0)
    stage.tell(EvictIdle())

    assert channel.closed


# -- the end of a key --------------------------------------------------------------------


def test_key_without_connections_and_requests_retires_after_a_while(stage: Stage) -> None:
    """BEH-P43."""
    call, _ = stage.connected()
    stage.answer(call, b"bye", ("Connection", "close"))
    ref = stage.pools[KEY].ref

    stage.advance(59.9)
    assert KEY in stage.pools
    stage.advance(0.1)

    assert KEY not in stage.pools
    assert not ref.is_alive()


def test_key_with_an_idle_connection_does_not_retire(stage_of: StageOf) -> None:
    """BEH-P43."""
    stage = stage_of(idle_timeout=None)
    (channel,) = stage.idle()

    stage.advance(1e6)

    assert KEY in stage.pools
    assert not channel.closed


def test_key_whose_only_request_was_cancelled_before_it_began_retires(stage: Stage) -> None:
    """BEH-P43: such a manager has never done anything."""
    stage.submit(call := stage.prepare())
    assert call.future.cancel()
    stage.settle()
    assert KEY in stage.pools

    stage.advance(60.0)

    assert KEY not in stage.pools


def test_key_whose_only_request_came_too_late_retires(stage: Stage) -> None:
    """BEH-P43."""
    call = stage.send(timeout=0.0)
    assert isinstance(call.error, TimeoutError)
    assert stage.dialer.dials == []

    stage.advance(60.0)

    assert stage.pools == {}


def test_key_retires_after_a_dial_that_failed(stage: Stage) -> None:
    """BEH-P43."""
    stage.send()
    stage.refuse()

    stage.advance(60.0)

    assert stage.pools == {}


def test_work_that_comes_before_the_retirement_puts_it_off(stage: Stage) -> None:
    """BEH-P43: both messages are handled in one turn, the lease first."""
    stage.send()
    stage.refuse()
    stage.advance(59.0)

    call = stage.submit(stage.prepare())
    stage.supervisor.tell(ManagerIdled(KEY))
    stage.settle()

    assert call.is_waiting
    assert KEY in stage.pools
    stage.connect()
    assert call.is_running


def test_retirement_that_was_put_off_by_a_trifle_comes_later(stage: Stage) -> None:
    """BEH-P43: a request in the inbox that has expired is no reason to live for ever."""
    stage.send()
    stage.refuse()

    stage.clock.advance(60.0)
    stage.dispatcher.turn()  # the timer fires, the supervisor has yet to hear of it
    stage.submit(stage.prepare(timeout=0.0))
    stage.settle()
    assert KEY in stage.pools

    stage.advance(60.0)
    assert stage.pools == {}


def test_lease_told_to_a_retired_manager_is_carried_out_by_its_successor(stage: Stage) -> None:
    """BEH-P43, BEH-P40: a caller may have read the manager just before it retired."""
    stage.send()
    stage.refuse()
    retired = stage.pools[KEY].ref

    call = stage.prepare()
    stage.supervisor.tell(ManagerIdled(KEY))
    stage.dispatcher.turn()  # the supervisor has decided, the manager has not heard of it
    retired.tell(Lease(call.exchange))
    stage.settle()

    assert not retired.is_alive()
    assert call.is_waiting
    stage.connect()
    stage.answer(call)
    assert call.response.status_code == 200


def test_lease_told_just_before_the_order_to_stop_is_carried_out_by_the_successor(stage: Stage) -> None:
    """BEH-P43: a caller's thread may come between the supervisor's look at the inbox and its order."""
    stage.send()
    stage.refuse()
    retired = stage.pools.pop(KEY).ref  # what the supervisor does first

    call = stage.prepare()
    retired.tell(Lease(call.exchange))
    retired.stop(block=False)
    stage.settle()

    assert call.is_waiting
    stage.connect(stage.dialer.pending[-1])
    stage.answer(call)
    assert call.response.status_code == 200


def test_thousands_of_hosts_used_once_leave_nothing_behind(stage_of: StageOf) -> None:
    """BEH-P43."""
    stage = stage_of(idle_timeout=5.0)
    keys = [PoolKey.of("http", f"host-{number}.test") for number in range(500)]

    for key in keys:
        call, _ = stage.connected(key)
        stage.answer(call)
    assert len(stage.pools) == len(keys)
    stage.advance(5.0)
    assert stage.open == []
    stage.advance(60.0)

    assert stage.pools == {}
    assert stage.dispatcher.census() == (0, 0)


def test_keys_retire_one_by_one(stage: Stage) -> None:
    """BEH-P43."""
    stage.send(KEY)
    stage.refuse()
    stage.advance(30.0)
    stage.send(OTHER)
    stage.refuse()

    stage.advance(30.0)

    assert set(stage.pools) == {OTHER}
