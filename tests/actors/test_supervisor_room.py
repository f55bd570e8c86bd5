"""Bounds over several keys: who gets room, whose idle connection makes it, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from tests.actors.stage import KEY, OTHER, THIRD, Call, Stage
from turbopool.actors.messages import WarmUp
from turbopool.stats import PoolKey

StageOf = Callable[..., Stage]

OLD = KEY._replace(version="1.0")
"""The same host by another version of HTTP."""


def connect_all(stage: Stage) -> None:
    """Let every dial succeed, those included that come of it."""
    while stage.dialer.pending:
        stage.connect()


# -- all keys together -------------------------------------------------------------------


def test_no_more_connections_than_the_total_are_open_or_dialed_at_any_time(stage_of: StageOf) -> None:
    """BEH-P35, I1: over all keys."""
    stage = stage_of(limit=6, total=4)

    for _ in range(3):
        for key in (KEY, OTHER, THIRD):
            stage.send(key)
            assert len(stage.open) + len(stage.dialer.pending) <= 4
    connect_all(stage)

    assert len(stage.open) == 4


def test_room_is_made_by_closing_the_least_recently_used_idle_connection_of_another_key(stage_of: StageOf) -> None:
    """BEH-P25: the order of going idle counts, not that of opening."""
    stage = stage_of(total=3)
    ((first,), (second,), (third,)) = (stage.idle(1, key) for key in (KEY, OTHER, THIRD))
    stage.advance(1.0)
    stage.answer(stage.send(KEY))

    newcomer = stage.send(PoolKey.of("http", "new.test"))

    assert [first.closed, second.closed, third.closed] == [False, True, False]
    stage.connect()
    assert newcomer.is_running


def test_only_as_many_idle_connections_are_closed_as_are_needed(stage_of: StageOf) -> None:
    """BEH-P7."""
    stage = stage_of(limit=6, total=6)
    channels = stage.idle(6, KEY)

    calls = [stage.send(OTHER), stage.send(THIRD)]
    connect_all(stage)

    assert all(call.is_running for call in calls)
    assert [channel.closed for channel in channels] == [True, True, False, False, False, False]


def test_idle_connections_make_room_for_all_keys_that_want_it_at_once(stage_of: StageOf) -> None:
    """I13: nobody waits beside a connection that is idle and another key's."""
    stage = stage_of(limit=6, total=4)
    stage.idle(4, KEY)

    calls = [stage.submit(stage.prepare(PoolKey.of("http", f"{number}.test"))) for number in range(4)]
    stage.settle()
    connect_all(stage)

    assert all(call.is_running for call in calls)


def test_leased_connection_makes_no_room_until_it_is_released(stage_of: StageOf) -> None:
    """BEH-P36."""
    stage = stage_of(total=1)
    running, channel = stage.connected(KEY)
    waiter = stage.send(OTHER)
    assert not channel.closed
    assert stage.dialer.pending == []

    stage.answer(running)

    assert channel.closed
    stage.connect()
    assert waiter.is_running


def test_connection_that_was_lent_before_it_could_be_closed_is_spared_and_another_closed(stage_of: StageOf) -> None:
    """BEH-P36, I13: the order to close it and its lease cross."""
    stage = stage_of(total=3)
    ((first,), (second,)) = (stage.idle(1, key) for key in (KEY, THIRD))
    stage.connected(OTHER, method="POST")

    newcomer = stage.submit(stage.prepare(OTHER))
    stage.dispatcher.turn()  # its manager has asked for room, the supervisor has yet to hear of it
    lent = stage.submit(stage.prepare(KEY))
    stage.settle()

    assert stage.channel_of(lent) is first
    assert [first.closed, second.closed] == [False, True]
    stage.connect()
    assert newcomer.is_running


def test_keys_get_room_in_the_order_they_asked_for_it(stage_of: StageOf) -> None:
    """BEH-P37: FIFO among keys, though a key has requests of its own that came later."""
    stage = stage_of(limit=4, total=1)
    running, _ = stage.connected(KEY)
    waiters = []
    for key in (OTHER, THIRD, KEY, OTHER):
        stage.advance(0.1)
        waiters.append(stage.send(key))

    order = [running]
    while len(order) <= len(waiters):
        stage.answer(order[-1])
        connect_all(stage)
        order += [call for call in waiters if call.is_running]

    assert order[1:] == waiters


def test_busy_key_cannot_take_back_the_room_another_key_waits_for(stage_of: StageOf) -> None:
    """BEH-P37: it always has requests of its own."""
    stage = stage_of(limit=4, total=1)
    running, _ = stage.connected(KEY)
    for _ in range(5):
        stage.advance(0.1)
        stage.send(KEY)
    stage.advance(0.1)
    other = stage.send(OTHER)
    stage.advance(0.1)
    stage.send(KEY)

    for _ in range(7):
        stage.answer(running)
        connect_all(stage)
        if other.is_running:
            break
        running = next(call for call in stage.calls if call.is_running)

    assert other.is_running


def test_late_request_of_another_key_cannot_take_the_room_that_was_made(stage_of: StageOf) -> None:
    """BEH-P37: the room is free for a moment before the key that waits hears of it."""
    stage = stage_of(total=1)
    running, _ = stage.connected(KEY)
    stage.idle(0, THIRD)
    waiter = stage.send(OTHER)
    stage.advance(1.0)

    stage.channel_of(running).feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    late = stage.submit(stage.prepare(KEY))
    stage.settle()
    stage.connect()

    assert waiter.is_running
    assert late.is_waiting


def test_single_key_below_its_own_limit_keeps_its_connection_for_its_waiters(stage_of: StageOf) -> None:
    """BEH-P12, BEH-P44: its own wish for more room is no reason to close what it has."""
    stage = stage_of(limit=6, total=1)
    running, channel = stage.connected()
    for _ in range(10):
        stage.advance(0.1)
        stage.send()

    for call in stage.calls:
        stage.answer(call)

    assert stage.channels == [channel]
    assert not channel.closed
    assert running.response.status_code == 200


def test_key_whose_requests_gave_up_passes_the_room_on(stage_of: StageOf) -> None:
    """BEH-P45, I13: it stood first in line."""
    stage = stage_of(total=1)
    running, _ = stage.connected(KEY)
    gone, waiter = stage.send(OTHER), stage.send(THIRD)
    stage.cancel(gone)

    stage.answer(running)

    stage.connect()
    assert waiter.is_running


def test_failed_dial_makes_room_for_the_next_key(stage_of: StageOf) -> None:
    """BEH-P20."""
    stage = stage_of(total=1)
    stage.send(KEY)
    waiter = stage.send(OTHER)
    assert len(stage.dialer.pending) == 1

    stage.refuse()

    stage.connect()
    assert waiter.is_running


def test_dead_idle_connections_found_at_a_lease_make_room_for_other_keys(stage_of: StageOf) -> None:
    """BEH-P17: the key that finds them takes only the room of one."""
    stage = stage_of(limit=4, total=4)
    dead = stage.idle(3, KEY)
    stage.connected(OTHER, method="POST")
    stage.clock.advance(1.0)

    calls = [stage.submit(stage.prepare(key)) for key in (KEY, OTHER, OTHER)]
    for channel in dead:
        channel.feed(b"")
    stage.settle()
    connect_all(stage)

    assert all(call.is_running for call in calls)


def test_crashed_key_makes_room_for_those_who_wait(stage_of: StageOf) -> None:
    """BEH-P40."""
    stage = stage_of(total=1)
    stage.connected(KEY)
    waiter = stage.send(OTHER)

    stage.crash(KEY)
    stage.settle()

    stage.connect()
    assert waiter.is_running


def test_idle_connections_of_a_crashed_key_are_not_asked_for_room_again(stage_of: StageOf) -> None:
    """BEH-P40: they were closed with it."""
    stage = stage_of(total=1)
    stage.idle(1, KEY)
    stage.crash(KEY)
    stage.settle()
    running, _ = stage.connected(OTHER)

    waiter = stage.send(THIRD)
    assert waiter.is_waiting
    stage.answer(running)

    stage.connect()
    assert waiter.is_running


def test_warm_up_stays_within_the_total(stage_of: StageOf) -> None:
    """BEH-P35."""
    stage = stage_of(limit=10, total=3)

    stage.supervisor.tell(WarmUp(KEY, 10, None))
    stage.settle()
    assert len(stage.dialer.pending) == 3
    connect_all(stage)

    waiter = stage.send(OTHER)
    connect_all(stage)
    assert waiter.is_running


def test_keys_wait_for_room_during_a_drain_too(stage_of: StageOf) -> None:
    """BEH-P22: what was accepted is finished."""
    stage = stage_of(total=1)
    running, _ = stage.connected(KEY)
    waiters = [stage.send(key) for key in (OTHER, THIRD)]

    done = stage.dispose()
    stage.answer(running)
    for call in waiters:
        stage.connect()
        stage.answer(call)

    assert all(call.response.status_code == 200 for call in waiters)
    assert done.is_set()


def test_dial_given_up_by_a_drain_makes_room_for_what_is_still_to_be_done(stage_of: StageOf) -> None:
    """BEH-P22, BEH-P38."""
    stage = stage_of(total=2)
    stage.connected(KEY)
    stage.cancel(stage.send(KEY))
    waiter = stage.send(OTHER)
    assert [dial.key for dial in stage.dialer.pending] == [KEY]

    stage.dispose()

    assert [dial.key for dial in stage.dialer.pending] == [OTHER]
    stage.connect()
    stage.answer(waiter)
    assert waiter.response.status_code == 200


def test_all_keys_get_their_turn_under_contention(stage_of: StageOf) -> None:
    """BEH-P29, BEH-P37: several keys, each with many requests, over a single connection's room."""
    stage = stage_of(limit=4, total=2)
    calls: list[Call] = []
    for _ in range(20):
        stage.advance(0.01)
        calls += [stage.send(key) for key in (KEY, OTHER, THIRD)]

    for _ in range(10 * len(calls)):
        connect_all(stage)
        for call in [call for call in calls if call.is_running]:
            stage.advance(0.01)
            stage.answer(call)

    assert all(call.response.status_code == 200 for call in calls)


def test_messages_about_room_do_not_multiply(stage_of: StageOf) -> None:
    """BEH-P29: each request costs a few, however many keys wait and however much happens in one turn."""
    stage = stage_of(limit=3, total=5)
    keys = [PoolKey.of("http", f"{number}.test") for number in range(3)]
    calls = [stage.submit(stage.prepare(key)) for _ in range(100) for key in keys]
    stage.settle()
    told = stage.dispatcher.scheduled

    connect_all(stage)
    while running := [call for call in calls if call.is_running]:
        for number, call in enumerate(running):
            ending = "Connection: close\r\n" if number % 2 else ""
            stage.channel_of(call).feed(f"HTTP/1.1 200 OK\r\n{ending}Content-Length: 0\r\n\r\n".encode())
        stage.settle()
        stage.advance(0.001)
        connect_all(stage)

    assert all(call.response.status_code == 200 for call in calls)
    assert stage.dispatcher.scheduled - told < 3 * len(calls)


# -- the versions of one host ------------------------------------------------------------


def test_versions_of_one_host_share_its_bound(stage_of: StageOf) -> None:
    """BEH-P35, BEH-P42."""
    stage = stage_of(limit=2, per_host=2)
    stage.connected(KEY)
    stage.connected(OLD)

    waiters = [stage.send(KEY), stage.send(OLD)]

    assert stage.dialer.pending == []
    assert [call.is_waiting for call in waiters] == [True, True]
    stage.connected(OTHER)
    assert len(stage.open) == 3


def test_other_versions_idle_connection_makes_room(stage_of: StageOf) -> None:
    """BEH-P25: of the same host only; another host's is of no use."""
    stage = stage_of(limit=2, per_host=2)
    stage.idle(1, OTHER)
    older, newer = stage.idle(2, KEY)

    stage.connected(OLD)

    assert [older.closed, newer.closed] == [True, False]
    assert len(stage.open) == 3


def test_host_at_its_bound_does_not_hold_up_other_hosts(stage_of: StageOf) -> None:
    """BEH-P29: the first in line wants what only its own host can give."""
    stage = stage_of(limit=2, per_host=1, total=3)
    stage.connected(KEY)
    stage.send(OLD)
    stage.idle(1, OTHER)
    (third,) = stage.idle(1, THIRD)

    newcomer = stage.send(PoolKey.of("http", "new.test"))
    stage.connect()

    assert newcomer.is_running
    assert not third.closed


def test_host_at_its_bound_does_not_cost_other_hosts_their_connections(stage_of: StageOf) -> None:
    """BEH-P7: closing them would not help."""
    stage = stage_of(limit=2, per_host=1, total=2)
    running, _ = stage.connected(KEY)
    (innocent,) = stage.idle(1, OTHER)

    waiter = stage.send(OLD)

    assert not innocent.closed
    stage.answer(running)
    stage.connect()
    assert waiter.is_running
