"""Which manner of waiting is tried when, and which is settled for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopool.transport.memory import FakeClock
from turbopool.transport.trials import (
    ENOUGH,
    HUDDLED,
    LONGEST,
    LOOKING,
    SETTLED,
    SLEEPING,
    SOON,
    TRIAL,
    Manner,
    Phase,
    Trials,
)

US = 1e-6


@pytest.fixture
def time() -> FakeClock:
    return FakeClock()


@pytest.fixture
def trials(time: FakeClock) -> Trials:
    return Trials(time.now, (LOOKING, SLEEPING), lambda _: None)


def work(
    trials: Trials, time: FakeClock, seconds: float, wait: Callable[[Manner], float]
) -> tuple[Mapping[Manner, float], list[Phase]]:
    """Wait for answers one after the other; return what part of the time that was done in which manner, and phases."""
    began, phases, spent = time.moment, [trials.phase], defaultdict[Manner, float](float)
    while time.moment < began + seconds:
        manner, before = trials.phase.manner, time.moment
        time.advance(wait(manner))
        spent[manner] += time.moment - before
        trials.note(time.moment - before, time.moment)
        if trials.phase is not phases[-1]:
            phases.append(trials.phase)
        time.advance(10 * US)  # for something else
    return {manner: spent[manner] / (time.moment - began) for manner in Manner}, phases


# -- what is settled for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("looking", "sleeping", "is_looked_for"),
    [
        pytest.param(40 * US, 90 * US, True, id="a server nearby"),
        pytest.param(90 * US, 90 * US, False, id="no difference"),
        pytest.param(88 * US, 90 * US, False, id="hardly any"),
        pytest.param(5_300 * US, 60 * US, False, id="a thread that computes takes the interpreter each time"),
        pytest.param(1_050 * US, 1_000 * US, False, id="a server in another town"),
        pytest.param(1.0, 1.0, False, id="a server that takes its time"),
    ],
)
def test_all_do_what_made_them_wait_less(
    trials: Trials, time: FakeClock, looking: float, sleeping: float, *, is_looked_for: bool
) -> None:
    def wait(manner: Manner) -> float:
        return looking if manner is LOOKING else sleeping

    work(trials, time, 2 * (SETTLED + TRIAL) + 4 * ENOUGH * max(looking, sleeping), wait)
    part, _ = work(trials, time, 20 * SETTLED + 1_000 * sleeping, wait)
    assert part[LOOKING] > 0.6 if is_looked_for else part[LOOKING] < 0.2


@pytest.mark.parametrize("best", Manner)
@pytest.mark.parametrize("first", Manner)
def test_the_best_of_three_is_settled_for_and_the_others_are_tried_in_turn(
    time: FakeClock, first: Manner, best: Manner
) -> None:
    trials = Trials(time.now, (first, *(manner for manner in Manner if manner is not first)), lambda _: None)

    def wait(manner: Manner) -> float:
        return 40 * US if manner is best else 90 * US

    work(trials, time, 4 * (SETTLED + TRIAL), wait)
    part, phases = work(trials, time, 20 * SETTLED, wait)
    assert part[best] > 0.6
    tried = [phase.manner for phase in phases if phase.incumbent is not None]
    assert len(tried) > 10
    assert {*tried[:2], best} == {*Manner}
    assert all(earlier is later for earlier, later in zip(tried, tried[2:], strict=False))


def test_they_change_when_the_world_does(trials: Trials, time: FakeClock) -> None:
    def quiet(manner: Manner) -> float:
        return 40 * US if manner is LOOKING else 90 * US

    def crowded(manner: Manner) -> float:
        return 4_000 * US if manner is LOOKING else 90 * US

    for _ in range(3):
        work(trials, time, 2 * (SETTLED + TRIAL), quiet)
        assert work(trials, time, 10 * SETTLED, quiet)[0][LOOKING] > 0.6
        work(trials, time, 2 * (SETTLED + TRIAL), crowded)
        assert work(trials, time, 10 * SETTLED, crowded)[0][LOOKING] < 0.2


def test_rare_waits_are_judged_too(trials: Trials, time: FakeClock) -> None:
    def wait(manner: Manner) -> float:
        time.advance(1.0)
        return 5_000 * US if manner is LOOKING else 500 * US

    work(trials, time, 3.0 * ENOUGH, wait)
    looked = 0
    for _ in range(100):
        work(trials, time, 10.0, wait)
        looked += trials.phase.manner is LOOKING
    assert looked < 20


def test_a_very_long_wait_does_not_outweigh_all_others() -> None:
    phase = Phase(LOOKING, 0.0)
    phase.note(3_600.0)
    for _ in range(ENOUGH):
        phase.note(50 * US)
    assert phase.mean < LONGEST


@pytest.mark.parametrize(
    ("tried", "seconds", "incumbent", "wins"),
    [
        pytest.param(SLEEPING, 104 * US, LOOKING, True, id="cheaper and about as good"),
        pytest.param(SLEEPING, 107 * US, LOOKING, False, id="cheaper and worse"),
        pytest.param(LOOKING, 94 * US, SLEEPING, True, id="dearer and better"),
        pytest.param(LOOKING, 96 * US, SLEEPING, False, id="dearer and hardly better"),
        pytest.param(HUDDLED, 94 * US, LOOKING, True, id="a huddle that is better"),
        pytest.param(HUDDLED, 96 * US, LOOKING, False, id="a huddle that is hardly better"),
        pytest.param(SLEEPING, 94 * US, HUDDLED, True, id="cheaper and better than a huddle"),
        pytest.param(SLEEPING, 96 * US, HUDDLED, False, id="cheaper and hardly better than a huddle"),
        pytest.param(LOOKING, 104 * US, HUDDLED, False, id="cheaper and about as good as a huddle"),
    ],
)
def test_the_cheaper_has_to_be_about_as_good_and_the_dearer_better_and_what_ends_a_huddle_too(
    tried: Manner, seconds: float, incumbent: Manner, *, wins: bool
) -> None:
    phase = Phase(tried, 0.0, incumbent=(incumbent, 100 * US))
    for _ in range(ENOUGH):
        phase.note(seconds)
    assert phase.winner() is (tried if wins else incumbent)


@pytest.mark.parametrize(("tried", "incumbent"), [(SLEEPING, HUDDLED), (HUDDLED, SLEEPING), (LOOKING, HUDDLED)])
def test_where_servers_are_slow_the_cheaper_wins(tried: Manner, incumbent: Manner) -> None:
    phase = Phase(tried, 0.0, incumbent=(incumbent, LONGEST))
    for _ in range(ENOUGH):
        phase.note(3 * LONGEST)
    assert phase.winner() is min(tried, incumbent)


def test_one_thread_alone_begins_the_next_phase() -> None:
    phase = Phase(LOOKING, 0.0)
    assert [phase.end() for _ in range(3)] == [True, False, False]


def test_a_phase_that_is_no_trial_is_won_by_its_own_manner() -> None:
    assert [Phase(manner, 0.0).winner() for manner in Manner] == list(Manner)


# -- when ----------------------------------------------------------------------------------------------------


def test_a_phase_lasts_until_there_is_enough_to_judge_by(trials: Trials, time: FakeClock) -> None:
    first = trials.phase
    assert first.manner is LOOKING
    time.advance(10 * SETTLED)
    for _ in range(ENOUGH - 1):
        trials.note(50 * US, time.moment)
        assert trials.phase is first
    trials.note(50 * US, time.moment)
    assert trials.phase is not first
    assert trials.phase.manner is SLEEPING


def test_a_phase_lasts_its_time(trials: Trials, time: FakeClock) -> None:
    first = trials.phase
    for _ in range(10 * ENOUGH):
        trials.note(50 * US, time.moment)
    assert trials.phase is first
    time.advance(TRIAL)
    trials.note(50 * US, time.moment)
    assert trials.phase is not first


@given(
    manners=st.permutations(list(Manner)).flatmap(lambda all_: st.sampled_from([all_, all_[:2]])),
    stretches=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 0.01)), min_size=6, max_size=12),
)
def test_after_a_trial_comes_a_long_phase_and_after_that_a_trial_and_each_is_told(
    manners: list[Manner], stretches: list[tuple[float, float]]
) -> None:
    time, told = FakeClock(), list[Phase]()
    trials = Trials(time.now, manners, told.append)
    seen = [(time.moment, trials.phase)]
    for seconds, pause in stretches:
        for _ in range(400):
            time.advance(pause + 1e-3)
            trials.note(seconds, time.moment)
            if trials.phase is not seen[-1][1]:
                seen.append((time.moment, trials.phase))
    assert len(seen) > 3
    assert seen[0][1].manner is manners[0]
    assert told == [phase for _, phase in seen[1:]]
    pause = SOON
    for (began, before), (ended, after) in pairwise(seen):
        was_trial = before.incumbent is not None
        assert ended - began >= (TRIAL if was_trial or before is seen[0][1] else pause) - US
        if not was_trial and before is not seen[0][1]:
            pause = min(SETTLED, 2 * pause)
        assert (after.incumbent is None) is was_trial
        if after.incumbent is None:
            assert before.incumbent is not None
            assert after.manner in {before.manner, before.incumbent[0]}
        else:
            assert after.incumbent == (before.manner, before.mean)
            assert after.manner is not before.manner
            assert after.manner in manners
