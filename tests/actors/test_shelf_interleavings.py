"""Callers, the dispatcher and a server, held up and killed before any line of what they share.

They are those of `tests.actors.crowd`.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.actors.crowd import Crowd, Plan
from tests.actors.scheduler import Schedule
from tests.actors.stage import KEY, Stage
from turbopool.actors.claims import AGAIN
from turbopool.actors.ledger import Ledger
from turbopool.actors.messages import EvictIdle

Switches = list[tuple[int, int]]
KINDS = ("send", "post", "async", "engage", "leave")
CALLERS = st.lists(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2).map(tuple), min_size=2, max_size=3).map(
    tuple
)
LINES, INSTRUCTIONS = 120, 800
"""Steps after which somebody is held up, at most: one request takes about so many."""


def switches(most: int = LINES) -> st.SearchStrategy[Switches]:
    """A few."""
    return st.lists(st.tuples(st.integers(1, most), st.integers(0, 3)), max_size=8)


def plans(server: tuple[str, ...] = ("ok", "split"), events: tuple[str, ...] = ()) -> st.SearchStrategy[Plan]:
    """Plans with such servers and events."""
    return st.builds(
        Plan,
        callers=CALLERS,
        limit=st.integers(1, 2),
        server=st.lists(st.sampled_from(server), max_size=4).map(tuple),
        events=st.lists(st.sampled_from(events), max_size=3).map(tuple) if events else st.just(()),
    )


@given(plan=plans(("ok", "split", "close")), switches=switches())
@settings(max_examples=200)
def test_everybody_is_served_in_turn(plan: Plan, switches: Switches) -> None:
    Crowd(plan, Schedule(switches)).run()


@given(plan=plans(), switches=switches(INSTRUCTIONS))
@settings(max_examples=60)
def test_everybody_is_served_in_turn_whichever_instruction_is_held_up(plan: Plan, switches: Switches) -> None:
    Crowd(plan, Schedule(switches, is_fine=True)).run()


@given(plan=plans(("ok", "split", "close", "late", "end"), ("end", "stray", "evict")), switches=switches())
@example(  # the end of an idle connection is read while a caller claims it
    Plan((("post",), ("send", "async"), ("send", "post")), 2, ("ok", "ok", "split", "split"), ("end",)),
    [(59, 1), (101, 3), (103, 0), (2, 1), (39, 3), (79, 3)],
)
@settings(max_examples=200)
def test_connections_that_end_mix_nothing_up(plan: Plan, switches: Switches) -> None:
    Crowd(plan, Schedule(switches)).run()


@given(plan=plans(events=("evict", "patrol", "cancel", "cancel all", "engage")), switches=switches())
@settings(max_examples=150)
def test_cancels_and_looks_of_the_manager_lose_nobody(plan: Plan, switches: Switches) -> None:
    Crowd(plan, Schedule(switches)).run()


@given(plan=plans(events=("drain", "halt", "cancel")), switches=switches())
@example(  # what was put back when the manager drains is for whoever waits
    Plan((("post",), ("engage", "send")), 1, ("split", "ok"), ("drain",)), [(93, 3), (7, 2), (101, 1), (106, 0)]
)
@settings(max_examples=150)
def test_the_end_of_the_client_leaves_nobody_waiting(plan: Plan, switches: Switches) -> None:
    Crowd(plan, Schedule(switches)).run()


@given(plan=plans(events=("crash", "evict")), switches=switches())
@example(  # what is launched after a crash is not left afloat
    Plan((("post", "leave"), ("leave",)), 1, ("ok", "ok"), ("evict", "crash", "crash")),
    [(8, 1), (6, 2), (100, 0), (56, 0), (25, 0), (64, 1), (96, 2), (88, 1)],
)
@settings(max_examples=150)
def test_a_crash_of_the_manager_leaves_nobody_waiting(plan: Plan, switches: Switches) -> None:
    Crowd(plan, Schedule(switches)).run()


@given(plan=plans(events=("stop", "stop all", "evict")), switches=switches())
@example(Plan((("send",), ("send",)), 2, (), ("stop",)), [(1, 0)] * 3)  # what is handed in afterwards is struck out
@example(  # what is launched meanwhile fails, and nobody comes to receive it
    Plan((("send", "leave"), ("async",)), 2, (), ("stop all",)), [(1, 1), (62, 1), (104, 0)]
)
@settings(max_examples=150)
def test_actors_that_somebody_stops_leave_nothing_behind(plan: Plan, switches: Switches) -> None:
    """The supervisor and its managers, or a manager alone."""
    Crowd(plan, Schedule(switches)).run()


@given(
    plan=plans(("ok", "split", "close", "late")),
    switches=switches(),
    kills=st.lists(st.integers(1, 150), min_size=1, max_size=2),
)
@example(Plan((("engage", "engage"), ("engage",)), 1, ("ok",) * 4), [(4, 3)], [53, 9])  # claimed, and still watched
@settings(max_examples=200)
def test_what_a_killed_thread_leaves_behind_is_found(plan: Plan, switches: Switches, kills: list[int]) -> None:
    """Once, or again while it cleans up."""
    Crowd(plan, Schedule(switches, {"caller 0": kills})).run()


def _claimed(stage: Stage) -> tuple[Ledger, object]:  # type: ignore[type-arg]
    books = stage.pools[KEY].ledger
    assert isinstance(books, Ledger)
    return books, books.claim()


def test_a_manager_that_drains_serves_those_who_wait_from_the_shelf(stage_of: Callable[..., Stage]) -> None:
    """Word of what was put back may be under way."""
    stage = stage_of(limit=1)
    stage.idle()
    books, connection = _claimed(stage)
    waiting = stage.send()
    assert waiting.is_waiting

    assert books.put_back(connection)
    stage.dispose()
    stage.answer(waiting)

    assert waiting.response.content == b"ok"


def test_what_seems_forgotten_is_taken_back_at_the_second_look_and_not_in_the_same_moment(stage: Stage) -> None:
    (channel,) = stage.idle()
    _claimed(stage)  # and its thread is killed before it stamps that

    stage.tell(EvictIdle())
    stage.tell(EvictIdle())
    assert not channel.closed
    stage.advance(AGAIN)

    assert channel.closed
