"""The line of those who wait, by itself."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from turbopool.actors.line import Line
from turbopool.clock import NEVER


@dataclass(eq=False)
class Waiter:
    """Somebody who stands in line."""

    queue_deadline: float = NEVER
    needs_fresh: bool = False
    done: bool = False


def line_of(*deadlines: float) -> tuple[Line[Waiter], list[Waiter]]:
    """A line, and those who stand in it."""
    line: Line[Waiter] = Line()
    waiters = [Waiter(deadline) for deadline in deadlines]
    for waiter in waiters:
        line.join(waiter)
    return line, waiters


def test_first_come_is_first_served_and_those_who_are_done_are_passed_over() -> None:
    """BEH-P37, BEH-P45."""
    line, (first, gone, third) = line_of(5.0, 1.0, NEVER)
    gone.done = True

    assert [line.serve(), line.serve(), line.serve()] == [first, third, None]
    assert len(line) == 0


def test_next_expiry_is_that_of_whoever_leaves_first() -> None:
    """BEH-P14."""
    line, (first, second, third) = line_of(5.0, 2.0, 7.0)
    assert line.next_expiry() == 2.0
    assert line.leave(second)
    assert line.next_expiry() == 5.0
    assert line.leave(first)
    assert line.next_expiry() == 7.0
    assert line.leave(third)
    assert line.next_expiry() == NEVER
    assert not line.leave(third)


def test_empty_line_remembers_nothing_of_those_who_stood_in_it() -> None:
    """BEH-P45."""
    line, waiters = line_of(9.0, 3.0)
    for waiter in waiters:
        line.leave(waiter)

    line.join(later := Waiter(20.0))

    assert line.next_expiry() == 20.0
    assert line.expire(9.0) == []
    assert line.expire(20.0) == [later]


def test_line_does_not_grow_with_those_who_left_it() -> None:
    """BEH-P45: a storm of requests that are less patient than the first, each cancelled."""
    line, (patient,) = line_of(1e9)
    for number in range(10_000):
        line.join(hasty := Waiter(1e6 - number))
        line.leave(hasty)

    assert list(line) == [patient]
    assert len(line._early) < 200  # noqa: SLF001 - that it is bounded is the point
    assert line.next_expiry() == 1e9


def test_dispersed_line_returns_those_who_still_wait_in_their_order() -> None:
    """BEH-P40."""
    line, (first, gone, third) = line_of(NEVER, 1.0, 2.0)
    gone.done = True

    assert line.disperse() == [first, third]
    assert (len(line), line.next_expiry()) == (0, NEVER)


Step = tuple[str, float]


@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "join", "leave", "serve", "done", "expire"]), st.floats(0.0, 20.0)),
        max_size=120,
    )
)
def test_any_order_of_steps_serves_and_expires_like_a_plain_list(steps: list[Step]) -> None:
    """BEH-P14, BEH-P37, I13."""
    line: Line[Waiter] = Line()
    plain: list[Waiter] = []
    now = 0.0
    for action, number in steps:
        picked = plain[int(number * 7) % len(plain)] if plain else None
        if action == "join":
            waiter = Waiter(NEVER if number > 19.0 else now + number)
            line.join(waiter)
            plain.append(waiter)
        elif action == "leave" and picked is not None:
            assert line.leave(picked)
            plain.remove(picked)
        elif action == "done" and picked is not None:
            picked.done = True
        elif action == "serve":
            while plain and plain[0].done:
                plain.pop(0)
            assert line.serve() is (plain.pop(0) if plain else None)
        elif action == "expire":
            now += number / 4
            late = line.expire(now)
            assert {id(waiter) for waiter in late} == {
                id(waiter) for waiter in plain if waiter.queue_deadline <= now and not waiter.done
            }
            plain = [waiter for waiter in plain if waiter.queue_deadline > now]
        assert list(line) == plain
        assert line.next_expiry() == min((waiter.queue_deadline for waiter in plain), default=NEVER)
