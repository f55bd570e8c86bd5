"""When a key may dial again: the pure part, with moments of the test's choice."""

from __future__ import annotations

import math

import pytest
from tenacity import RetryCallState, stop_after_attempt, stop_after_delay, stop_never, wait_fixed

from turbopool.actors.recovery import PROBE_PAUSE, Recovery, State, Verdict
from turbopool.config import ReconnectOptions
from turbopool.errors import ConnectError, RemoteProtocolError, ResourceError, TlsVerifyError

SCHEDULE = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]  # seconds before each attempt
GONE = RemoteProtocolError("closed without a response")


def refused(number: int = 0) -> ConnectError:
    """What a dial fails with."""
    return ConnectError("refused", number=number)


def warm(**options: object) -> Recovery:
    """A key that has answered, over the connection `old`."""
    recovery = Recovery(ReconnectOptions(**options))  # type: ignore[arg-type]  # those of the test
    recovery.dialing("first")
    recovery.established("first", "old", 0.0)
    recovery.answered("old")
    return recovery


def failing_after(recovery: Recovery, attempts: int = 6, now: float = 0.0) -> float:
    """Let so many attempts fail, each as soon as it may be made; return the moment of the last one."""
    for number in range(attempts):
        now = max(now, recovery.due)
        assert recovery.may_dial(now)
        recovery.dialing(number)
        recovery.dial_failed(number, refused(number), now)
    return now


def test_attempts_follow_the_schedule_exactly_and_end_after_six() -> None:
    """BEH-R3, BEH-R13, I22: at once, then 1, 2, 4, 8 and 16 s after each failure, then all fail."""
    recovery, now, verdicts = warm(), 100.0, []
    recovery.broke("old", GONE, now)

    for number, pause in enumerate(SCHEDULE):
        now += pause
        assert recovery.may_dial(now)
        assert not pause or not recovery.may_dial(math.nextafter(now, 0.0))
        recovery.dialing(number)
        verdicts.append(recovery.dial_failed(number, refused(number), now))

    assert verdicts == [Verdict.WAIT] * 5 + [Verdict.GIVE_UP]
    assert (recovery.state, recovery.failures, recovery.reconnects) == (State.FAILING, 6, 6)
    assert str(recovery.cause) == str(refused(5))


def test_the_wait_of_an_attempt_begins_when_the_last_one_failed_not_when_it_was_made() -> None:
    """BEH-R13: a blackholed attempt of 10 s does not eat up the pause."""
    recovery = warm()
    recovery.broke("old", GONE, 0.0)

    recovery.dialing("slow")
    recovery.dial_failed("slow", refused(), 10.0)

    assert recovery.due == 11.0


def test_cold_key_shares_its_failures_and_keeps_no_schedule() -> None:
    """A host that never answered fails fast."""
    recovery = Recovery(ReconnectOptions())
    for number in range(10):
        assert recovery.may_dial(0.0)
        recovery.dialing(number)
        assert recovery.dial_failed(number, refused(), 0.0) is Verdict.SHARE
    assert (recovery.state, recovery.failures, recovery.reconnects) == (State.COLD, 0, 0)


def test_first_connect_makes_a_cold_key_as_patient_as_a_warm_one() -> None:
    """BEH-R14."""
    recovery = Recovery(ReconnectOptions(first_connect=True))

    recovery.dialing("first")
    assert recovery.dial_failed("first", refused(), 0.0) is Verdict.WAIT
    assert (recovery.state, recovery.due) == (State.RECONNECTING, 1.0)

    failing_after(recovery, 5)
    assert recovery.state is State.FAILING
    assert not recovery.has_answered


def test_one_attempt_at_a_time_once_one_has_failed() -> None:
    """I22: before that, those of the first moment are free."""
    recovery = warm()
    recovery.broke("old", GONE, 0.0)
    for number in range(3):
        assert recovery.may_dial(0.0)
        recovery.dialing(number)

    recovery.dial_failed(0, refused(), 0.0)
    assert not recovery.may_dial(0.0)
    assert recovery.may_dial(1.0)
    recovery.dialing("trial")
    assert not recovery.may_dial(100.0)
    assert recovery.opens_at(-1.0) == -1.0


def test_dials_of_one_moment_that_fail_together_are_one_failure() -> None:
    """BEH-T2: what was begun before the last counted failure belongs to it."""
    recovery = warm()
    recovery.broke("old", GONE, 0.0)
    for number in range(6):
        recovery.dialing(number)

    assert {recovery.dial_failed(number, refused(), 0.0) for number in range(6)} == {Verdict.WAIT}

    assert (recovery.failures, recovery.due) == (1, 1.0)


def test_connections_that_drop_together_are_one_drop() -> None:
    """BEH-T2."""
    recovery = warm()
    for number in range(4):
        recovery.dialing(number)
        recovery.established(number, f"connection {number}", 0.0)

    for number in range(4):
        recovery.broke(f"connection {number}", GONE, 0.0)

    assert (recovery.state, recovery.failures) == (State.RECONNECTING, 0)
    assert recovery.may_dial(0.0)


def test_a_connect_opens_the_gate_and_a_response_sets_the_count_back() -> None:
    """BEH-R7, I21."""
    recovery = warm()
    recovery.broke("old", GONE, 0.0)
    failing_after(recovery, 3)

    recovery.dialing("trial")
    recovery.established("trial", "new", recovery.due)
    assert (recovery.may_dial(recovery.due), recovery.failures) == (True, 3)

    recovery.answered("new")
    assert (recovery.state, recovery.failures, recovery.cause) == (State.OPEN, 0, None)
    assert not recovery.unproven


def test_server_that_accepts_and_hangs_up_meets_the_same_schedule() -> None:
    """I22: a flapping server is no server."""
    recovery, now = warm(), 0.0
    recovery.broke("old", GONE, now)

    for number, pause in enumerate(SCHEDULE):
        now += pause
        assert recovery.may_dial(now)
        recovery.dialing(number)
        recovery.established(number, f"connection {number}", now)
        assert recovery.may_dial(now) is (number == 0), "the next one must be answered first, once one was not"
        recovery.broke(f"connection {number}", GONE, now)
        assert not recovery.may_dial(now)

    assert recovery.state is State.FAILING
    assert recovery.cause is GONE


@pytest.mark.parametrize("end", ["answered", "gone", None])
def test_after_a_connect_that_died_unanswered_the_next_is_alone_until_it_ends_or_for_a_step(end: str | None) -> None:
    """I21, I22: one slow request does not hold up all others, and one that ended holds up nobody."""
    recovery = warm()
    recovery.broke("old", GONE, 0.0)
    recovery.dialing(1)
    recovery.established(1, "flapped", 0.0)
    recovery.broke("flapped", GONE, 0.0)
    recovery.dialing(2)
    recovery.established(2, "trial", 5.0)
    assert not recovery.may_dial(5.0)
    assert recovery.opens_at(-1.0) == 6.0

    if end is not None:
        getattr(recovery, end)("trial")
    assert recovery.may_dial(5.0) is (end is not None)
    assert recovery.may_dial(6.0)


@pytest.mark.parametrize("end", ["gone", "orphaned"])
def test_attempt_that_ends_without_a_verdict_makes_room_for_another(end: str) -> None:
    """BEH-T4: its caller cancelled, or its manager crashed; no failure is counted."""
    recovery = warm()
    recovery.broke("old", GONE, 0.0)
    failing_after(recovery, 1)
    recovery.dialing("trial")

    recovery.gone("trial") if end == "gone" else recovery.orphaned()

    assert recovery.may_dial(1.0)
    assert recovery.failures == 1
    assert not recovery.unproven


def test_connection_from_before_the_last_failure_counts_neither_for_nor_against_the_server() -> None:
    """BEH-T2: that an old connection answers says nothing of new ones, nor does its end."""
    recovery = warm()
    failing_after(recovery, 2)

    recovery.answered("old")
    assert (recovery.state, recovery.failures) == (State.RECONNECTING, 2)
    recovery.broke("old", GONE, 1.0)
    assert recovery.failures == 2


@pytest.mark.parametrize("error", [TlsVerifyError("expired"), ResourceError("no descriptor")])
def test_what_trying_again_does_not_mend_is_shared_at_once_and_not_counted(error: Exception) -> None:
    """FAULTS part 3, row 6: never patient."""
    recovery = warm()
    recovery.dialing(1)
    assert recovery.dial_failed(1, error, 0.0) is Verdict.SHARE
    assert (recovery.state, recovery.failures) == (State.OPEN, 0)

    failing_after(recovery, 2)
    recovery.dialing("trial")
    assert recovery.dial_failed("trial", error, 10.0) is Verdict.SHARE
    assert recovery.failures == 2
    assert recovery.due == 12.0, "a step later: no hot loop"


def test_probes_go_on_at_the_longest_step_and_the_first_good_one_reopens() -> None:
    """BEH-R15, I21."""
    recovery = warm()
    now = failing_after(recovery)
    for number in range(5):
        assert recovery.due == now + 16.0
        assert not recovery.may_dial(now + 15.9)
        now = recovery.due
        recovery.dialing(f"probe {number}")
        assert recovery.dial_failed(f"probe {number}", refused(), now) is Verdict.GIVE_UP

    recovery.dialing("good")
    recovery.established("good", "new", now)
    assert recovery.state.value == "reconnecting"
    assert recovery.may_dial(now)
    recovery.answered("new")
    assert recovery.state.value == "open"


def test_probe_that_connects_and_dies_ends_the_attempts_again() -> None:
    """The count is not set back by a connect."""
    recovery = warm()
    failing_after(recovery)
    recovery.dialing("probe")
    recovery.established("probe", "new", 63.0)

    recovery.broke("new", GONE, 100.0)

    assert (recovery.state, recovery.failures, recovery.due) == (State.FAILING, 7, 116.0)


def test_users_strategies_are_obeyed() -> None:
    recovery = warm(wait=wait_fixed(0.25), stop=stop_after_attempt(3))

    assert failing_after(recovery, 3) == 0.5
    assert recovery.state is State.FAILING
    assert recovery.due == 0.5 + PROBE_PAUSE, "nobody waits for probes: they keep a pause of their own"


def test_strategy_that_stops_by_time_counts_from_the_drop() -> None:
    recovery = warm(wait=wait_fixed(10), stop=stop_after_delay(25))
    recovery.broke("old", GONE, 100.0)

    assert failing_after(recovery, 4, now=100.0) == 130.0
    assert recovery.state is State.FAILING


def raising(_: RetryCallState) -> float:
    """A strategy with a bug."""
    raise ZeroDivisionError


@pytest.mark.parametrize("field", ["wait", "stop"])
def test_strategy_that_raises_ends_the_attempts_and_is_logged(field: str, caplog: pytest.LogCaptureFixture) -> None:
    """I25: a caller's bug is its own: nothing else fails of it, and probes go on."""
    recovery = warm(**{field: raising})
    recovery.dialing(1)

    assert recovery.dial_failed(1, refused(), 100.0) is Verdict.GIVE_UP

    assert 101.0 <= recovery.due <= 116.0
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("nonsense", [-5.0, math.nan, math.inf, -math.inf, None, "soon", object()])
def test_nonsense_from_a_strategy_never_stops_the_clock(nonsense: object) -> None:
    """I25: the next attempt is a number of seconds away, whatever was answered."""
    recovery = warm(wait=lambda _: nonsense, stop=stop_never)
    recovery.dialing(1)

    recovery.dial_failed(1, refused(), 100.0)

    assert 100.0 <= recovery.due <= 116.0
