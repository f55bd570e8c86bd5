"""The timers of a dispatcher, by themselves."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from turbopool.actors.timers import LazyTimer, Timers
from turbopool.clock import NEVER


def _fail(error: BaseException) -> None:
    raise error


def _nothing() -> None:
    """Do nothing when it is time."""


def timer_of(timers: Timers, fired: list[str], name: str) -> LazyTimer:
    """A timer that notes its name."""
    return timers.timer(lambda: fired.append(name), _fail)


def test_timer_fires_at_its_moment_once_and_not_before() -> None:
    timers, fired = Timers(), list[str]()
    timer_of(timers, fired, "a").arm(5.0)

    timers.fire(4.999)
    assert fired == []
    timers.fire(5.0)
    timers.fire(6.0)

    assert fired == ["a"]
    assert timers.next_due() == NEVER


def test_timer_that_was_never_armed_does_not_fire() -> None:
    timers, fired = Timers(), list[str]()
    timer_of(timers, fired, "a")

    timers.fire(1e12)

    assert fired == []
    assert timers.next_due() == NEVER


def test_timers_fire_in_the_order_of_their_moments_and_then_of_arming() -> None:
    timers, fired = Timers(), list[str]()
    for name, moment in (("late", 3.0), ("early", 1.0), ("first of two", 2.0), ("second of two", 2.0)):
        timer_of(timers, fired, name).arm(moment)

    timers.fire(3.0)

    assert fired == ["early", "first of two", "second of two", "late"]


def test_arming_anew_replaces_the_old_moment() -> None:
    timers, fired = Timers(), list[str]()
    timer = timer_of(timers, fired, "a")
    timer.arm(5.0)

    timer.arm(3.0)
    timers.fire(3.0)
    assert fired == ["a"]
    timers.fire(5.0)
    assert fired == ["a"]

    timer.arm(6.0)
    timer.arm(9.0)
    timers.fire(6.0)
    assert fired == ["a"]
    timers.fire(9.0)
    assert fired == ["a", "a"]


def test_moving_a_deadline_forward_costs_nothing_until_the_old_one_comes() -> None:
    """A request's deadline moves with every request; the heap must not grow with them."""
    timers, fired = Timers(), list[str]()
    timer = timer_of(timers, fired, "a")
    for moment in range(1, 10_000):
        timer.arm(float(moment))

    assert len(timers) == 1
    assert timers.next_due() == 1.0
    timers.fire(1.0)
    assert timers.next_due() == 9999.0
    assert fired == []


def test_disarmed_timer_does_not_fire_and_can_be_armed_again() -> None:
    timers, fired = Timers(), list[str]()
    timer = timer_of(timers, fired, "a")
    timer.arm(1.0)
    timer.arm(NEVER)

    timers.fire(2.0)
    assert fired == []
    timer.arm(3.0)
    timers.fire(3.0)

    assert fired == ["a"]


def test_closed_timer_never_fires() -> None:
    timers, fired = Timers(), list[str]()
    timer = timer_of(timers, fired, "a")
    timer.arm(1.0)
    timer.close()
    timer.close()

    timers.fire(2.0)

    assert fired == []
    assert len(timers) == 0


def test_timer_can_arm_itself_anew_while_it_fires() -> None:
    timers = Timers()
    moments = []

    def tick() -> None:
        moments.append(timers.next_due())
        timer.arm(len(moments) * 10.0 + 10.0)

    timer = timers.timer(tick, _fail)
    timer.arm(10.0)
    for now in (10.0, 20.0, 30.0):
        timers.fire(now)

    assert len(moments) == 3


def test_timer_that_is_armed_for_now_while_firing_fires_in_the_same_breath() -> None:
    timers, fired = Timers(), list[str]()
    second = timer_of(timers, fired, "second")

    def fire_first() -> None:
        fired.append("first")
        second.arm(1.0)

    timers.timer(fire_first, _fail).arm(1.0)

    timers.fire(1.0)

    assert fired == ["first", "second"]


def test_error_of_one_timer_is_reported_to_its_owner_and_the_others_fire() -> None:
    timers, fired, errors = Timers(), list[str](), list[BaseException]()

    def fail() -> None:
        raise SystemExit

    timers.timer(fail, errors.append).arm(1.0)
    timer_of(timers, fired, "other").arm(1.0)

    timers.fire(1.0)

    assert fired == ["other"]
    assert isinstance(errors[0], SystemExit)


def test_closed_timers_let_go_of_what_they_would_have_called() -> None:
    """A connection that was closed must not live until the deadline of its last request."""

    class Owner:
        def tick(self) -> None:
            """Never called."""

    timers, owner = Timers(), Owner()
    timer = timers.timer(owner.tick, _fail)
    timer.arm(1e9)
    watch = weakref.ref(owner)

    timer.close()
    del owner
    gc.collect()

    assert watch() is None


def test_closed_timers_do_not_pile_up() -> None:
    """Thousands of connections come and go before the deadline of the first."""
    timers = Timers()
    for number in range(5000):
        timer = timers.timer(_nothing, _fail)
        timer.arm(1e6 + number)
        timer.close()

    left = [thing for thing in gc.get_objects() if isinstance(thing, LazyTimer) and thing._timers is timers]  # noqa: SLF001

    assert len(left) < 500
    assert len(timers) == 0


Step = tuple[str, int, float]


@given(
    st.lists(
        st.tuples(st.sampled_from(["arm", "disarm", "close", "fire"]), st.integers(0, 3), st.floats(0.0, 8.0)),
        max_size=60,
    )
)
def test_any_order_of_steps_fires_what_is_due_and_nothing_else(steps: list[Step]) -> None:
    timers, fired, now = Timers(), list[int](), 0.0

    def note(number: int) -> Callable[[], None]:
        return lambda: fired.append(number)

    all_timers = [timers.timer(note(number), _fail) for number in range(4)]
    due = [NEVER] * 4
    closed = [False] * 4
    for action, number, seconds in steps:
        if action == "arm" and not closed[number]:
            all_timers[number].arm(now + seconds)
            due[number] = now + seconds
        elif action in ("disarm", "close"):
            all_timers[number].close() if action == "close" else all_timers[number].arm(NEVER)
            closed[number] |= action == "close"
            due[number] = NEVER
        elif action == "fire":
            now += seconds
            expected = sorted(other for other in range(4) if due[other] <= now)
            timers.fire(now)
            assert sorted(fired) == expected
            fired.clear()
            due = [NEVER if moment <= now else moment for moment in due]
        assert timers.next_due() <= min(due)
        assert len(timers) >= sum(moment != NEVER for moment in due)
