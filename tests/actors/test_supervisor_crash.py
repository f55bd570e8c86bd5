"""A manager that dies of a bug: what it held fails, what waited goes on, and no other key notices."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from tests.actors.stage import KEY, OTHER, Stage
from turbopool.actors.messages import Lease
from turbopool.actors.quota import Quota
from turbopool.actors.restart import MAX_RESTARTS, WITHIN
from turbopool.errors import ManagerCrashed
from turbopool.stats import PoolKey

StageOf = Callable[..., Stage]


class FaultyQuota(Quota):
    """Raises where a test wants a manager to have a bug."""

    def __init__(self, total: int | None = None) -> None:
        """Without a fault at first."""
        super().__init__(None, total)
        self.fault: tuple[str, PoolKey] | None = None

    def _raise_if(self, name: str, key: PoolKey) -> None:
        if self.fault == (name, key):
            self.fault = None
            msg = f"scripted bug in {name}"
            raise SystemExit(msg)  # not even an Exception

    def take(self, key: PoolKey) -> bool:
        self._raise_if("take", key)
        return super().take(key)

    def give(self, key: PoolKey, count: int = 1) -> None:
        self._raise_if("give", key)
        super().give(key, count)

    def rested(self, connection: Hashable, key: PoolKey) -> None:
        self._raise_if("rested", key)
        super().rested(connection, key)

    def roused(self, connection: Hashable) -> None:
        self._raise_if("roused", KEY)
        super().roused(connection)


def test_requests_under_way_fail_and_say_what_is_known_of_them(stage: Stage) -> None:
    """BEH-P40."""
    call, channel = stage.connected()

    stage.crash()
    stage.settle()

    assert isinstance(call.error, ManagerCrashed)
    assert (call.error.request_sent, call.error.processed, call.error.may_retry) == (True, "maybe", False)
    assert call.error.origin == "http://one.test:80"
    assert call.error.__cause__ is not None
    assert channel.closed


def test_waiters_go_to_the_replacement_in_their_order(stage: Stage) -> None:
    """BEH-P40."""
    stage.connected()
    stage.connected()
    waiters = [stage.send() for _ in range(4)]
    before = stage.pools[KEY].ref

    stage.crash()
    stage.settle()

    assert stage.pools[KEY].ref is not before
    for number, call in enumerate(waiters, start=2):
        assert stage.connect(stage.dialer.pending[0]).sent.startswith(b"GET /%d " % number)
        stage.answer(call, b"ok", ("Connection", "close"))
    assert [call.response.status_code for call in waiters] == [200] * 4


def test_request_to_be_sent_again_still_gets_a_fresh_connection_from_the_replacement(stage: Stage) -> None:
    """Row 3 of the replay rule: not one that carried another in the meantime."""
    stage.idle(2)
    calls = [stage.send(), stage.send()]
    for call in calls:
        stage.channel_of(call).error = ConnectionResetError("reset")
    stage.settle()
    stage.crash()
    stage.settle()

    stage.connect(stage.dialer.pending[0])

    (first,) = (call for call in calls if call.is_running)
    (second,) = (call for call in calls if call is not first)
    stage.answer(first)
    assert not second.is_running
    stage.connect(stage.dialer.pending[0])
    assert second.is_running


def test_leases_behind_the_fatal_message_follow_those_that_waited(stage: Stage) -> None:
    """BEH-P40: what stands in the inbox of a dead actor is not lost."""
    stage.connected()
    stage.connected()
    waiting = stage.send()

    stage.crash()
    behind = [stage.submit(stage.prepare()) for _ in range(3)]
    stage.settle()

    for number, call in enumerate([waiting, *behind], start=2):
        assert stage.connect(stage.dialer.pending[0]).sent.startswith(b"GET /%d " % number)
        stage.answer(call, b"ok", ("Connection", "close"))


def test_request_that_reaches_the_supervisor_before_the_news_of_the_crash_harms_nobody(stage: Stage) -> None:
    """BEH-P40: its caller found the manager dead, and was faster than the manager's last words."""
    running, channel = stage.connected()
    stage.connected()
    waiters = [stage.send() for _ in range(2)]

    stage.crash()
    early = stage.prepare()
    stage.supervisor.tell(Lease(early.exchange))
    stage.settle()

    assert isinstance(running.error, ManagerCrashed)
    assert channel.closed
    assert [call.is_waiting for call in [*waiters, early]] == [True] * 3
    for call in [*waiters, early]:
        stage.connect(stage.dialer.pending[0])
        stage.answer(call, b"ok", ("Connection", "close"))
    assert stage.stats().closed == stage.stats().opened


def test_other_keys_are_untouched(stage: Stage) -> None:
    """BEH-P40."""
    stage.connected(KEY)
    other, channel = stage.connected(OTHER)
    ref = stage.pools[OTHER].ref

    stage.crash(KEY)
    stage.settle()

    assert stage.pools[OTHER].ref is ref
    stage.answer(other)
    assert other.response.status_code == 200
    assert not channel.closed


def test_figures_stay_true_over_a_crash(stage: Stage) -> None:
    """BEH-P40, I3, I26."""
    running, _ = stage.connected()
    stage.idle()
    stage.send()
    stage.send(timeout=90.0)

    stage.crash()
    stage.settle()
    while stage.dialer.pending:
        stage.connect()

    stats = stage.stats()
    assert (stats.leased + stats.idle, stats.connecting, stats.waiting) == (len(stage.open), 0, 0)
    assert stats.opened - stats.closed == len(stage.open)
    assert (stats.completed, stats.failed, stats.cancelled) == (1, 2, 0)
    assert isinstance(running.error, ManagerCrashed)


def test_bounds_over_keys_are_true_after_a_crash(stage_of: StageOf) -> None:
    """BEH-P40: what the dead manager had open no longer counts, nor does what it was dialing."""
    stage = stage_of(total=3, limit=3)
    stage.connected(KEY)
    stage.idle(1, KEY)
    stage.send(KEY)
    stage.send(KEY)

    stage.crash(KEY)
    stage.settle()
    while stage.dialer.pending:
        stage.connect()
    others = [stage.send(OTHER) for _ in range(5)]
    while stage.dialer.pending:
        stage.connect()

    assert len(stage.open) == 3
    assert sum(call.is_running for call in others) == 3 - stage.stats(KEY).leased


def test_dial_of_a_crashed_manager_is_given_up_and_its_late_socket_closed(stage: Stage) -> None:
    """BEH-P38, BEH-P40."""
    call = stage.send()
    dial = stage.dialer.pending[0]

    stage.crash()
    stage.settle()
    late = dial.succeed()

    assert late.closed
    stage.connect(stage.dialer.pending[0])
    assert call.is_running


def test_crash_within_a_turn_of_the_network_is_one_of_the_manager(stage_of: StageOf) -> None:
    """BEH-P40: the connection calls the manager; a bug there is the manager's, and the response is not lost."""
    quota = FaultyQuota(total=10)
    stage = stage_of(quota=quota)
    call, channel = stage.connected()
    waiter, _ = stage.connected()
    ref = stage.pools[KEY].ref

    quota.fault = ("rested", KEY)
    stage.answer(call)

    assert call.response.status_code == 200
    assert isinstance(waiter.error, ManagerCrashed)
    assert channel.closed
    assert stage.pools[KEY].ref is not ref
    assert stage.send().is_waiting


def test_crash_at_the_end_of_a_dial_is_one_of_the_manager(stage_of: StageOf) -> None:
    """BEH-P40: the dial calls the manager; its bug must not be swallowed as one of the dial."""
    quota = FaultyQuota(total=10)
    stage = stage_of(quota=quota)
    call = stage.send()
    waiter = stage.send()
    ref = stage.pools[KEY].ref

    quota.fault = ("give", KEY)
    stage.refuse()

    assert stage.pools[KEY].ref is not ref
    for _ in stage.dialer.pending:
        stage.connect()
    assert (call.is_running, waiter.is_running) == (True, True)


def test_crash_of_a_timer_is_one_of_the_manager(stage_of: StageOf) -> None:
    """BEH-P40."""
    quota = FaultyQuota(total=10)
    stage = stage_of(quota=quota)
    (channel,) = stage.idle()
    ref = stage.pools[KEY].ref

    quota.fault = ("give", KEY)
    stage.advance(55.0)

    assert channel.closed
    assert stage.pools[KEY].ref is not ref
    assert stage.stats().idle == 0


def test_request_whose_own_dial_was_fatal_goes_to_the_replacement(stage_of: StageOf) -> None:
    """BEH-P40, I5: it stood in the queue already."""
    quota = FaultyQuota(total=10)
    stage = stage_of(quota=quota)

    quota.fault = ("take", KEY)
    call = stage.send()

    stage.connect()
    assert call.is_running


def test_replacement_that_crashes_over_the_first_waiter_loses_none_of_the_others(stage_of: StageOf) -> None:
    """BEH-P40, BEH-P37: they go on to its own replacement, in their order."""
    quota = FaultyQuota(total=10)
    stage = stage_of(quota=quota)
    calls = [stage.send() for _ in range(4)]

    quota.fault = ("take", KEY)
    stage.crash()
    stage.settle()

    for number, call in enumerate(calls):
        assert stage.connect(stage.dialer.pending[0]).sent.startswith(b"GET /%d " % number)
        stage.answer(call, b"ok", ("Connection", "close"))


def test_request_that_was_lent_a_connection_but_not_yet_put_on_it_fails(stage_of: StageOf) -> None:
    """BEH-P40, I5: the books have it, the connection does not."""
    quota = FaultyQuota(total=10)
    stage = stage_of(quota=quota)
    (channel,) = stage.idle()

    quota.fault = ("roused", KEY)
    call = stage.send()

    assert isinstance(call.error, ManagerCrashed)
    assert (call.error.request_sent, call.error.processed) == (False, "no")
    assert channel.closed
    assert stage.stats().failed == 1


def test_key_that_crashes_again_and_again_fails_its_waiters(stage: Stage) -> None:
    """BEH-P40: the restart budget."""
    call = stage.send()
    for _ in range(MAX_RESTARTS):
        stage.crash()
        stage.settle()
        assert call.is_waiting

    stage.crash()
    stage.settle()

    assert isinstance(call.error, ManagerCrashed)
    assert (call.error.processed, call.error.may_retry) == ("no", True)
    assert stage.dialer.pending == []


def test_key_is_served_again_after_its_budget_was_spent(stage: Stage) -> None:
    """BEH-P40."""
    stage.send()
    for _ in range(MAX_RESTARTS + 1):
        stage.crash()
        stage.settle()

    stage.advance(WITHIN)
    following, _ = stage.connected()

    assert following.is_running
    stage.crash()
    stage.settle()
    assert isinstance(following.error, ManagerCrashed)
    assert stage.pools[KEY].ref.is_alive()


def test_crash_while_draining_ends_the_drain(stage: Stage) -> None:
    """BEH-P40, BEH-P22."""
    running, _ = stage.connected()
    stage.connected()
    waiter = stage.send()
    done = stage.dispose()

    stage.crash()
    stage.settle()

    assert isinstance(running.error, ManagerCrashed)
    assert isinstance(waiter.error, ManagerCrashed)
    assert done.is_set()


def test_crash_of_the_supervisor_leaves_no_request_without_an_outcome(stage: Stage) -> None:
    """BEH-P40: the client makes a new one."""
    running, _ = stage.connected()
    waiter = stage.send()

    stage.supervisor.tell(object())
    stage.settle()

    assert not stage.supervisor.is_alive()
    assert running.future.done()
    assert waiter.future.done()
    assert stage.open == []
