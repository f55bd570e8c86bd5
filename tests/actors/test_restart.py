"""The restart budget, by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turbopool.actors.restart import MAX_RESTARTS, WITHIN, RestartBudget


def test_so_many_restarts_are_granted_and_no_more() -> None:
    """BEH-P40."""
    budget = RestartBudget()

    assert [budget.spend(0.0) for _ in range(MAX_RESTARTS + 2)] == [True] * MAX_RESTARTS + [False] * 2


def test_each_restart_counts_for_its_own_window() -> None:
    """BEH-P40."""
    budget = RestartBudget()
    for second in range(MAX_RESTARTS):
        assert budget.spend(float(second))

    assert not budget.spend(WITHIN - 0.001)
    assert budget.spend(WITHIN)
    assert not budget.spend(WITHIN)
    assert budget.spend(WITHIN + 1.0)


def test_refused_restarts_do_not_count() -> None:
    """BEH-P40: a key that keeps asking is not shut out for ever."""
    budget = RestartBudget()
    for _ in range(MAX_RESTARTS):
        budget.spend(0.0)
    for _ in range(100):
        assert not budget.spend(WITHIN / 2)

    assert budget.spend(WITHIN)


@given(st.lists(st.floats(0.0, 5.0), max_size=60))
def test_no_window_ever_holds_more_than_the_budget(pauses: list[float]) -> None:
    """BEH-P40."""
    budget, now, granted = RestartBudget(), 0.0, []
    for pause in pauses:
        now += pause
        if budget.spend(now):
            granted.append(now)

    for start in granted:
        assert sum(start <= moment < start + WITHIN for moment in granted) <= MAX_RESTARTS
