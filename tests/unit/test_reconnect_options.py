"""The pace of reconnecting."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tenacity import (
    RetryCallState,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    wait_exception,
    wait_fixed,
    wait_random,
)

from turbopool.config import ReconnectOptions


def test_the_first_retry_is_at_once_then_1_2_4_8_16_then_it_gives_up() -> None:
    """BEH-R13, in part."""
    options = ReconnectOptions()

    assert [options.delay(attempt) for attempt in range(1, 9)] == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, None, None]


def test_the_wait_is_capped_at_16_seconds() -> None:
    """BEH-R13, in part."""
    assert ReconnectOptions(stop=stop_never).delay(1000) == 16.0


def test_strategies_of_the_user_are_obeyed() -> None:
    options = ReconnectOptions(wait=wait_fixed(3) + wait_random(0, 1), stop=stop_after_attempt(2))

    assert options.delay(1) == 0.0
    assert 3.0 <= (options.delay(2) or 0.0) <= 4.0
    assert options.delay(3) is None


def test_a_plain_function_is_a_strategy_too() -> None:
    def wait(state: RetryCallState) -> float:
        return state.attempt_number * 10

    assert ReconnectOptions(wait=wait).delay(3) == 20.0


def test_strategies_may_stop_by_time() -> None:
    after = ReconnectOptions(stop=stop_after_delay(10))
    before = ReconnectOptions(stop=stop_before_delay(10))

    assert after.delay(4, elapsed=9.0) == 4.0
    assert after.delay(4, elapsed=10.0) is None
    assert before.delay(4, elapsed=5.0) == 4.0
    assert before.delay(4, elapsed=6.0) is None


def test_strategies_may_look_at_the_cause() -> None:
    options = ReconnectOptions(wait=wait_exception(lambda error: 7.0 if isinstance(error, TimeoutError) else 1.0))

    assert options.delay(2, cause=TimeoutError()) == 7.0
    assert options.delay(2) == 1.0


def test_no_attempt_at_all_can_be_asked_for() -> None:
    assert ReconnectOptions(stop=stop_after_attempt(0)).delay(1) is None


def test_a_wait_below_zero_is_none_at_all() -> None:
    assert ReconnectOptions(wait=lambda _: -1.0).delay(2) == 0.0


@pytest.mark.parametrize("field", ["wait", "stop", "first_connect"])
def test_a_field_of_the_wrong_kind_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=f"reconnect.{field}"):
        ReconnectOptions(**{field: 5})  # type: ignore[arg-type]  # that is what is tested


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        ReconnectOptions().delay(0)


def test_equal_options_are_equal() -> None:
    assert ReconnectOptions() == ReconnectOptions(first_connect=False)


def test_the_pace_is_known_even_when_it_is_time_to_give_up() -> None:
    """BEH-R13: probes go on at the pace of the attempts."""
    options = ReconnectOptions()

    assert [options.pace(attempt) for attempt in range(1, 6)] == [(wait, False) for wait in (0.0, 1.0, 2.0, 4.0, 8.0)]
    assert [options.pace(attempt) for attempt in (6, 7, 100)] == [(16.0, False), (16.0, True), (16.0, True)]


def test_strategies_see_the_attempts_made_the_time_gone_the_wait_and_the_cause() -> None:
    seen: list[tuple[int, float | None, float, BaseException | None]] = []

    def stop(state: RetryCallState) -> bool:
        assert state.outcome is not None
        sleep, cause = state.upcoming_sleep, state.outcome.exception()
        seen.append((state.attempt_number, state.seconds_since_start, sleep, cause))
        return False

    cause = TimeoutError()
    ReconnectOptions(wait=wait_fixed(3), stop=stop).pace(4, elapsed=12.5, cause=cause)

    assert seen == [(3, 12.5, 3.0, cause)]


def test_the_wait_is_not_asked_before_the_first_attempt() -> None:
    """BEH-R13: it follows at once, whatever the strategy."""
    assert ReconnectOptions(wait=wait_fixed(60)).pace(1) == (0.0, False)


@pytest.mark.parametrize(("answer", "wait"), [(-1.0, 0.0), (float("nan"), 0.0), (3, 3.0), ("2.5", 2.5), (True, 1.0)])
def test_whatever_a_strategy_answers_becomes_seconds(answer: object, wait: float) -> None:
    strategy: Callable[[RetryCallState], object] = lambda _: answer  # noqa: E731 - a strategy

    assert ReconnectOptions(wait=strategy).pace(2) == (wait, False)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("answer", [None, "soon", [1.0]])
def test_what_cannot_be_seconds_raises_where_the_strategy_is_asked(answer: object) -> None:
    """The one who asks ends the attempts then; see Recovery."""
    strategy: Callable[[RetryCallState], object] = lambda _: answer  # noqa: E731 - a strategy

    with pytest.raises((TypeError, ValueError)):
        ReconnectOptions(wait=strategy).pace(2)  # type: ignore[arg-type]  # that is what is tested


def test_a_stop_may_answer_with_anything_that_is_true_or_false() -> None:
    assert ReconnectOptions(stop=lambda _: "yes").pace(1) == (0.0, True)  # type: ignore[arg-type,return-value]  # so
    assert ReconnectOptions(stop=lambda _: 0).pace(1) == (0.0, False)  # type: ignore[arg-type,return-value]  # so
