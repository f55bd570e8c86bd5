"""The books of a key whose connections are shared: who is lent a stream, and when another connection is dialed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from turbopool.actors.stream_ledger import ASSUMED_STREAMS, StreamLedger
from turbopool.clock import NEVER


@dataclass(eq=False)
class Lessee:
    """Somebody who wants a stream."""

    name: str = ""
    queue_deadline: float = NEVER
    needs_fresh: bool = False
    done: bool = False


Books = StreamLedger[str, str, Lessee]


def books_of(*connections: str, limit: int = 3, streams: int = 10) -> Books:
    """Books with idle connections."""
    books = Books(limit, streams)
    for connection in connections:
        books.dial(connection)
        books.settle(connection, connection)
    return books


def queue(books: Books, *names: str) -> list[Lessee]:
    """Let somebody wait."""
    lessees = [Lessee(name) for name in names]
    for lessee in lessees:
        books.enqueue(lessee)
    return lessees


# -- lending -----------------------------------------------------------------------------


def test_connection_is_idle_or_leased_and_its_lessees_are_counted() -> None:
    """BEH-L3, I4: balanced, and never below zero."""
    books, lessees = books_of("a"), [Lessee() for _ in range(3)]
    for count, lessee in enumerate(lessees, 1):
        books.lend("a", lessee)
        assert (books.busy, books.lent, len(books.idle)) == (1, count, 0)

    for count, lessee in reversed(list(enumerate(lessees))):
        assert books.release("a", lessee) is None
        assert (books.busy, books.lent) == (1 if count else 0, count)

    assert list(books.idle) == ["a"]


def test_lessee_is_on_one_connection_alone() -> None:
    """I4."""
    books, lessee = books_of("a", "b"), Lessee()
    books.lend("a", lessee)

    assert books.has_lent("a", lessee)
    assert not books.has_lent("b", lessee)
    assert not books.has_lent("a", Lessee())
    assert not books.has_lent("gone", lessee)
    assert books.holds(lessee)
    assert books.lessees() == [lessee]


def test_busy_connection_with_room_is_asked_first_and_those_that_are_full_are_not_asked() -> None:
    """BEH-P25: O(1), because ``roomy`` holds those worth asking."""
    books = books_of("a", "b")
    assert books.candidate() is None, "only idle ones are left: the last of them is taken"
    books.lend("a", Lessee())
    books.lend("b", Lessee())
    assert books.candidate() == "a"

    books.fill("a")
    assert books.candidate() == "b"
    books.fill("b")
    assert books.candidate() is None
    books.empty("a")

    assert books.candidate() == "a"


def test_released_stream_makes_its_connection_worth_asking_again() -> None:
    """BEH-M3, BEH-P27."""
    books, (one, other) = books_of("a"), (Lessee(), Lessee())
    books.lend("a", one)
    books.lend("a", other)
    books.fill("a")

    books.release("a", one)

    assert books.candidate() == "a"


def test_news_of_room_on_an_idle_or_unknown_connection_changes_nothing() -> None:
    """BEH-M4."""
    books = books_of("a")

    books.empty("a")
    books.empty("gone")

    assert books.candidate() is None
    assert (list(books.idle), books.busy) == (["a"], 0)


# -- retiring ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_idle", [True, False])
def test_retiring_connection_counts_as_busy_and_not_against_the_limit(*, is_idle: bool) -> None:
    """BEH-M12: until it is discarded."""
    books, lessee = books_of("a", limit=1), Lessee()
    if not is_idle:
        books.lend("a", lessee)

    books.retire("a")

    assert (books.open, books.busy, books.connections, books.is_full) == (0, 1, 1, False)
    assert books.candidate() is None
    assert books.carriers() == ["a"]
    assert books.is_live
    assert books.has_lent("a", lessee) is not is_idle
    books.discard("a")
    assert (books.busy, books.lent, books.is_live) == (0, 0, False)


def test_streams_of_a_retiring_connection_end_one_by_one_and_it_does_not_go_idle() -> None:
    """BEH-M12, BEH-L3."""
    books, lessees = books_of("a"), [Lessee(), Lessee()]
    for lessee in lessees:
        books.lend("a", lessee)
    books.retire("a")

    for lessee in lessees:
        books.release("a", lessee)

    assert (books.lent, books.busy, list(books.idle)) == (0, 1, [])


def test_retiring_twice_keeps_the_lessees() -> None:
    """I4."""
    books, lessee = books_of("a"), Lessee()
    books.lend("a", lessee)

    books.retire("a")
    books.retire("a")

    assert books.has_lent("a", lessee)
    assert books.lent == 1


def test_connection_that_is_not_in_the_books_is_not_retired_into_them() -> None:
    """I4: it was discarded a moment ago."""
    books = books_of("a")
    books.discard("a")

    books.retire("a")

    assert books.connections == 0


def test_discarded_connection_takes_its_lessees_along() -> None:
    """BEH-L3: the count goes with it, once."""
    books = books_of("a", "b")
    for connection in ("a", "a", "b"):
        books.lend(connection, Lessee())

    books.discard("a")
    books.discard("a")

    assert (books.lent, books.busy, books.carriers()) == (1, 1, ["b"])


# -- dialing -----------------------------------------------------------------------------


def test_one_dial_at_a_time_however_many_wait() -> None:
    """I1: rule 3."""
    books = books_of(limit=3)
    queue(books, *"abcdef")
    assert books.wants_dial

    books.dial("first")

    assert not books.wants_dial
    books.settle("first", "one")
    assert list(books.idle) == ["one"]


def test_no_dial_without_anybody_who_waits_or_beyond_the_limit() -> None:
    """I1."""
    books = books_of("a", limit=1)
    assert not books.wants_dial

    books.lend("a", Lessee())
    queue(books, "x")
    assert not books.wants_dial
    books.retire("a")

    assert books.wants_dial


def test_failed_dial_is_not_repeated_until_something_happens() -> None:
    """BEH-P20: no hot loop while another connection lives; the one that caused it fails alone."""
    books = books_of("a", limit=2)
    books.lend("a", lessee := Lessee())
    culprit, other = queue(books, "culprit", "other")
    books.dial("dial", culprit)

    assert books.fail("dial") == [culprit]
    assert not books.wants_dial
    assert list(books.waiting) == [other]

    books.release("a", lessee)
    assert books.wants_dial


def test_failed_dial_with_nothing_else_fails_all_who_wait() -> None:
    """BEH-P20."""
    books = books_of()
    lessees = queue(books, "a", "b")
    books.dial("dial", lessees[0])

    assert books.fail("dial") == lessees
    assert books.queued == 0


def test_dial_that_is_called_off_leaves_the_queue_alone() -> None:
    """BEH-R2."""
    books = books_of()
    lessees = queue(books, "a", "b")
    books.dial("dial")

    assert books.call_off("dial")
    assert not books.call_off("dial")

    assert list(books.waiting) == lessees
    assert books.wants_dial


def test_room_that_may_still_be_opened_is_counted_in_streams() -> None:
    """I24: what the queue's bound allows beyond itself, by what is known of the server."""
    books = books_of("a", limit=3, streams=10)
    assert books.opening == 20

    books.streams = 2
    books.lend("a", Lessee())

    assert books.opening == 4
    books.retire("a")
    assert books.opening == 6


def test_new_key_takes_a_server_to_allow_no_more_than_is_usual() -> None:
    """FLT-S11: whatever we would like."""
    assert books_of(streams=5).streams == 5
    assert books_of(streams=100_000).streams == ASSUMED_STREAMS


# -- the queue ---------------------------------------------------------------------------


def test_those_to_be_sent_again_come_before_those_who_wait() -> None:
    """I13, FLT-S6."""
    books = books_of()
    first, second = queue(books, "first", "second")
    books.take_back(returned := Lessee())

    served = [books.next_waiter(fresh=False) for _ in range(4)]

    assert served == [returned, first, second, None]


def test_who_needs_a_fresh_connection_is_passed_over_by_an_old_one() -> None:
    """FLT-S6: and is the first on a new one."""
    books = books_of()
    (waiter,) = queue(books, "waiter")
    books.take_back(fresh := Lessee(needs_fresh=True))

    assert books.next_waiter(fresh=False) is waiter
    assert books.next_waiter(fresh=False) is None
    assert books.next_waiter(fresh=True) is fresh
    assert books.queued == 0


def test_who_has_an_outcome_already_is_served_nothing() -> None:
    """I5: its cancel is under way."""
    books = books_of()
    gone, here = queue(books, "gone", "here")
    gone.done = True

    assert books.next_waiter(fresh=False) is here


def test_withdrawing_and_expiring_work_anywhere_in_the_queue() -> None:
    """I13, BEH-P37."""
    books = books_of()
    lessees = queue(books, "a", "b", "c")
    late = Lessee("late", queue_deadline=5.0)
    books.take_back(late)
    assert books.next_expiry() == 5.0

    assert books.expire(4.9) == []
    assert books.expire(5.0) == [late]
    assert books.withdraw(lessees[1])
    assert not books.withdraw(lessees[1])

    assert books.empty_queue() == [lessees[0], lessees[2]]
