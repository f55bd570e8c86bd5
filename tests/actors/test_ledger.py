"""The books of one key, by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from turbopool.actors.ledger import Ledger
from turbopool.clock import NEVER


@dataclass(eq=False)
class Lessee:
    """Somebody who waits."""

    name: str = ""
    queue_deadline: float = NEVER
    needs_fresh: bool = False
    done: bool = False


Books = Ledger[str, str, Lessee]


def busy(limit: int, *connections: str) -> Books:
    """Books with these connections, each leased to somebody."""
    books = Books(limit)
    for connection in connections:
        books.dial(connection)
        books.enqueue(Lessee())
        books.settle(connection, connection)
    return books


def wait(books: Books, name: str, queue_deadline: float = NEVER) -> Lessee:
    """Let somebody wait."""
    lessee = Lessee(name, queue_deadline)
    assert books.lease(lessee) is None
    books.enqueue(lessee)
    return lessee


def test_newest_idle_connection_is_lent_first() -> None:
    """BEH-P2, BEH-P25."""
    books = busy(2, "old", "new")
    books.release("old")
    books.release("new")

    assert [books.lease(Lessee()), books.lease(Lessee())] == ["new", "old"]


def test_waiters_are_served_in_their_order_by_releases_and_dials_alike() -> None:
    """BEH-P12, BEH-P26, BEH-P37."""
    books = busy(2, "one")
    first, second, third = (wait(books, name) for name in "abc")
    books.dial("two")

    assert books.release("one") is first
    assert books.settle("two", "two") is second
    assert books.release("two") is third
    assert books.release("one") is None
    assert list(books.idle) == ["one"]


def test_those_who_want_nothing_any_more_are_passed_over() -> None:
    """BEH-P15, BEH-P45."""
    books = busy(1, "one")
    gone, here = wait(books, "gone"), wait(books, "here")
    gone.done = True

    assert books.release("one") is here


def test_dial_is_wanted_for_each_who_waits_up_to_the_limit() -> None:
    """BEH-P11, I1."""
    books = Books(2)
    assert not books.wants_dial
    for name in "abc":
        wait(books, name)

    assert books.wants_dial
    books.dial("one")
    assert books.wants_dial
    books.dial("two")
    assert not books.wants_dial
    assert (books.connections, books.queued) == (2, 3)


def test_dial_on_its_way_counts_for_the_one_who_comes_next() -> None:
    """BEH-P16: its own lessee was served by a release."""
    books = busy(3, "one")
    wait(books, "served")
    books.dial("two")
    books.release("one")

    wait(books, "next")

    assert not books.wants_dial


def test_failed_dial_fails_the_one_that_caused_it_while_there_is_a_connection() -> None:
    """BEH-P20."""
    books = busy(3, "one")
    culprit, other = wait(books, "culprit"), wait(books, "other")
    books.dial("two", culprit)

    assert books.fail("two") == [culprit]
    assert list(books.waiting) == [other]
    assert not books.wants_dial


def test_failed_dial_fails_the_one_it_was_to_help_though_that_was_sent_before() -> None:
    """BEH-P19, BEH-P30: the returned stand in a line of their own."""
    books = busy(4, "one")
    first, second = Lessee("first", needs_fresh=True), Lessee("second", needs_fresh=True)
    for dial, lessee in (("two", first), ("three", second)):
        books.take_back(lessee)
        books.dial(dial, lessee)

    assert books.fail("three") == [second]
    assert list(books.returned) == [first]


def test_failed_dial_fails_everybody_when_nothing_else_is_left() -> None:
    """BEH-P48."""
    books = Books(2)
    lessees = [wait(books, name) for name in "abc"]
    books.dial("one", lessees[0])
    books.dial("two", lessees[1])

    assert books.fail("one") == [lessees[0]]
    assert books.fail("two") == lessees[1:]
    assert (books.connections, books.queued) == (0, 0)


def test_failed_dial_holds_back_the_next_until_there_is_a_reason() -> None:
    """BEH-P20: someone new, a success, or a loss."""
    for reason in ("enqueue", "settle", "discard", "take_back"):
        books = busy(4, "one")
        culprit, _, _ = (wait(books, name) for name in ("culprit", "other", "third"))
        books.dial("two", culprit)
        books.dial("three")
        books.fail("two")
        assert not books.wants_dial

        if reason == "settle":
            books.settle("three", "three")
        elif reason == "discard":
            books.fail("three")
            books.discard("one")
        elif reason == "take_back":
            books.take_back(Lessee("again", needs_fresh=True))
        else:
            wait(books, "newcomer")
        assert books.wants_dial, reason


def test_returned_lessee_stands_before_those_who_were_never_sent() -> None:
    """BEH-P30, BEH-R2."""
    books = busy(2, "one")
    wait(books, "waiting")
    again, later = Lessee("again", needs_fresh=True), Lessee("later", needs_fresh=True)
    books.discard("one")
    books.take_back(again)
    books.take_back(later)
    books.dial("two")

    assert books.settle("two", "two") is again


def test_connection_that_carried_something_is_no_use_to_who_needs_a_fresh_one() -> None:
    """BEH-P30: a restart of the server kills all old ones."""
    books = busy(2, "one")
    waiting = wait(books, "waiting")
    books.take_back(fresh := Lessee("fresh", needs_fresh=True))

    assert books.release("one") is waiting
    assert books.release("one") is None
    assert list(books.returned) == [fresh]


def test_returned_lessee_that_was_not_sent_takes_any_connection_though_one_before_it_cannot() -> None:
    """BEH-P30, I13."""
    books = busy(2, "one")
    books.take_back(Lessee("fresh", needs_fresh=True))
    books.take_back(gone := Lessee("gone"))
    books.take_back(unsent := Lessee("unsent"))
    gone.done = True

    assert books.release("one") is unsent


def test_last_failed_dial_fails_those_who_need_a_fresh_connection() -> None:
    """BEH-P30, I13: an idle connection will never help them."""
    books = busy(3, "one")
    waiting = wait(books, "waiting")
    fresh = Lessee("fresh", needs_fresh=True)
    books.take_back(fresh)
    books.dial("two")
    books.dial("three")

    assert books.fail("two") == []
    assert books.fail("three") == [fresh]
    assert list(books.waiting) == [waiting]


def test_waiters_leave_when_their_time_is_up_wherever_they_stand() -> None:
    """BEH-P14."""
    books = busy(1, "one")
    late, early, patient = (
        wait(books, "late", queue_deadline=5.0),
        wait(books, "early", queue_deadline=2.0),
        wait(books, "-"),
    )
    books.take_back(again := Lessee("again", queue_deadline=3.0, needs_fresh=True))

    assert books.next_expiry() == 2.0
    assert books.expire(1.999) == []
    assert books.expire(3.0) == [again, early]
    assert books.next_expiry() == 5.0
    assert books.expire(5.0) == [late]
    assert books.next_expiry() == NEVER
    assert list(books.waiting) == [patient]


def test_leaving_twice_is_noticed() -> None:
    """BEH-P45."""
    books = busy(1, "one")
    lessee = wait(books, "a")

    assert books.withdraw(lessee)
    assert not books.withdraw(lessee)


def test_lost_connection_is_struck_out_wherever_it_is() -> None:
    """BEH-P24, I4."""
    books = busy(3, "leased", "idle")
    books.release("idle")

    for connection in ("leased", "idle", "unknown"):
        books.discard(connection)

    assert books.connections == 0


def test_queue_is_emptied_in_its_order() -> None:
    """BEH-P40: a replacement takes it over as it stood."""
    books = busy(1, "one")
    first, gone, second = (wait(books, name) for name in "abc")
    gone.done = True
    books.take_back(again := Lessee("again"))

    assert books.empty_queue() == [again, first, second]
    assert books.queued == 0
