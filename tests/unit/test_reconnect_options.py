"""The pace of reconnecting."""

from __future__ import annotations

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
