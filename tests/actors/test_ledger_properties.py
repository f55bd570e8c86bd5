"""Random orders of everything that happens to the books of one key."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from turbopool.actors.ledger import Ledger
from turbopool.clock import NEVER

_PICK = st.integers(0, 1_000_000)
"""Which of those there are, counted round."""


@dataclass(eq=False)
class Lessee:
    """Somebody who asks for a connection."""

    number: int
    queue_deadline: float
    needs_fresh: bool = False
    done: bool = False
    sent: bool = False
    outcomes: list[str] = field(default_factory=list)

    def end(self, outcome: str) -> None:
        """Get an outcome."""
        self.outcomes.append(outcome)
        self.done = True


class Books(RuleBasedStateMachine):
    """Does to a ledger what a manager does, and keeps simple books of its own beside it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.numbers = count()
        self.now = 0.0
        self.lessees: list[Lessee] = []
        self.open: set[str] = set()
        self.line: list[Lessee] = []
        """Who waits and was never sent, in the order they came."""

    @initialize(limit=st.integers(1, 4), crowd=st.integers(0, 8))
    def begin(self, limit: int, crowd: int) -> None:
        """Begin under load, or the interesting states are too far away."""
        self.books: Ledger[str, str, Lessee] = Ledger(limit)
        for _ in range(crowd):
            self.lease(patience=None)
        while self.books.dialing:
            self.settle(pick=0)

    # -- what callers do -----------------------------------------------------------------

    @rule(patience=st.none() | st.floats(0.0, 10.0))
    def lease(self, patience: float | None) -> None:
        """I13: an idle connection is lent at once, to nobody while another waits."""
        lessee = Lessee(next(self.numbers), NEVER if patience is None else self.now + patience)
        self.lessees.append(lessee)
        newest = next(reversed(self.books.idle), None)
        was_free = not self.line

        connection = self.books.lease(lessee)

        assert connection == (newest if was_free else None)
        if connection is None:
            self.books.enqueue(lessee)
            self.line.append(lessee)
            self.dial(lessee)
        else:
            lessee.sent = True

    @precondition(lambda self: self.queued)
    @rule(pick=_PICK)
    def cancel(self, pick: int) -> None:
        lessee = self.queued[pick % len(self.queued)]
        if not lessee.done:
            lessee.end("cancelled")

        assert self.books.withdraw(lessee)
        assert not self.books.withdraw(lessee)
        self.leave(lessee)

    @precondition(lambda self: self.queued)
    @rule(pick=_PICK)
    def cancel_unheard(self, pick: int) -> None:
        """The caller has an outcome; the manager has not heard of it yet."""
        lessee = self.queued[pick % len(self.queued)]
        if not lessee.done:
            lessee.end("cancelled")

    @precondition(lambda self: self.books.next_expiry() < NEVER)
    @rule(seconds=st.floats(0.0, 5.0))
    def advance(self, seconds: float) -> None:
        """Every waiter leaves at its own moment, and nobody before."""
        self.now += seconds
        due = self.books.next_expiry() <= self.now

        late = self.books.expire(self.now)

        assert all(lessee.queue_deadline <= self.now for lessee in late)
        assert due or not late
        for lessee in late:
            lessee.end("expired")
        for lessee in self.queued:
            if lessee.queue_deadline <= self.now:
                assert lessee.done
                self.leave(lessee)
        assert self.books.next_expiry() > self.now

    # -- what connections do -------------------------------------------------------------

    @precondition(lambda self: self.books.leased)
    @rule(pick=_PICK)
    def release(self, pick: int) -> None:
        connection, before = self.pick_leased(pick)
        before.end("answered")

        self.lent(connection, self.books.release(connection), fresh=False)

    @precondition(lambda self: self.books.leased)
    @rule(pick=_PICK, sent=st.booleans())
    def lose_leased(self, pick: int, sent: bool) -> None:  # noqa: FBT001 - a drawn value
        """The connection dies, and its request is queued again, if it still wants anything."""
        connection, lessee = self.pick_leased(pick)
        self.discard(connection)
        if lessee.done:
            return
        lessee.needs_fresh = sent
        if not sent and (other := next(reversed(self.books.idle), None)) is not None and not self.line:
            assert self.books.lease(lessee) == other
            return
        self.books.take_back(lessee)
        self.dial(lessee)

    @precondition(lambda self: len(self.books.leased) > 1)
    @rule(pick=_PICK, sent=st.lists(st.booleans(), min_size=2, max_size=3))
    def restart(self, pick: int, sent: list[bool]) -> None:
        """The server closes several at once."""
        for was_sent in sent[: len(self.books.leased)]:
            self.lose_leased(pick, was_sent)

    @precondition(lambda self: self.books.leased)
    @rule(pick=_PICK)
    def discard_leased(self, pick: int) -> None:
        connection, lessee = self.pick_leased(pick)
        lessee.end("failed")
        self.discard(connection)

    @precondition(lambda self: self.books.idle)
    @rule(pick=_PICK)
    def discard_idle(self, pick: int) -> None:
        self.discard(list(self.books.idle)[pick % len(self.books.idle)])

    def discard(self, connection: str) -> None:
        """Strike out a connection, as the manager does: room is used at once."""
        self.open.discard(connection)
        self.books.discard(connection)
        self.dial(None)

    # -- what dials do -------------------------------------------------------------------

    @precondition(lambda self: self.books.connections < self.books.limit and not self.books.queued)
    @rule()
    def warm_up(self) -> None:
        self.books.dial(f"dial {next(self.numbers)}")

    @precondition(lambda self: self.books.dialing)
    @rule(pick=_PICK)
    def settle(self, pick: int) -> None:
        dial = list(self.books.dialing)[pick % len(self.books.dialing)]
        connection = f"connection {next(self.numbers)}"
        self.open.add(connection)

        self.lent(connection, self.books.settle(dial, connection), fresh=True)
        self.dial(None)

    @precondition(lambda self: self.books.dialing)
    @rule(pick=_PICK)
    def fail(self, pick: int) -> None:
        """BEH-P20, BEH-P48: one fails, or everybody whom nothing else can serve."""
        dial = list(self.books.dialing)[pick % len(self.books.dialing)]
        culprit = self.books.dialing[dial]
        before = [lessee for lessee in self.queued if not lessee.done]

        failed = self.books.fail(dial)

        if not self.books.connections:
            assert failed == before
        else:
            others = [lessee for lessee in failed if lessee is not culprit]
            assert all(lessee.needs_fresh for lessee in others)
            assert not others or not self.books.dialing
        for lessee in failed:
            lessee.end("failed")
        for lessee in list(self.line):
            if lessee not in self.books.waiting:
                self.line.remove(lessee)
        self.dial(None)

    # -- inside --------------------------------------------------------------------------

    @property
    def queued(self) -> list[Lessee]:
        """Everybody who waits, in order."""
        return [*self.books.returned, *self.books.waiting]

    def pick_leased(self, pick: int) -> tuple[str, Lessee]:
        """One of the leased connections, and its lessee."""
        return list(self.books.leased.items())[pick % len(self.books.leased)]

    def dial(self, culprit: Lessee | None) -> None:
        """Dial while the books say so, as the manager does."""
        while self.books.wants_dial:
            self.books.dial(f"dial {next(self.numbers)}", culprit)

    def lent(self, connection: str, lessee: Lessee | None, *, fresh: bool) -> None:
        """I13: whoever is served is the first who could be."""
        if lessee is None:
            assert connection in self.books.idle
            assert not [one for one in self.line if not one.done]
            self.line.clear()
            return
        assert self.books.leased[connection] is lessee
        assert not lessee.done
        assert fresh or not lessee.needs_fresh
        if lessee in self.line:
            before = self.line[: self.line.index(lessee)]
            assert all(one.done for one in before), "somebody was overtaken"
            del self.line[: len(before) + 1]
        lessee.sent = True

    def leave(self, lessee: Lessee) -> None:
        """Strike out of our own line."""
        if lessee in self.line:
            self.line.remove(lessee)

    # -- what always holds ---------------------------------------------------------------

    @invariant()
    def limit_is_kept(self) -> None:
        """I1."""
        books = self.books
        assert books.connections == len(books.idle) + len(books.leased) + len(books.dialing) <= books.limit

    @invariant()
    def open_connections_are_those_in_the_books(self) -> None:
        """I3, I4: each in exactly one place, and lent to one lessee."""
        assert {*self.books.idle, *self.books.leased} == self.open
        assert not set(self.books.idle) & set(self.books.leased)
        assert len(set(self.books.leased.values())) == len(self.books.leased)

    @invariant()
    def every_lessee_has_one_outcome_or_is_on_the_books(self) -> None:
        """I5."""
        held = {*self.queued, *self.books.leased.values()}
        for lessee in self.lessees:
            assert len(lessee.outcomes) <= 1
            assert lessee.outcomes or lessee in held, f"lessee {lessee.number} was lost"

    @invariant()
    def line_is_first_come_first_served(self) -> None:
        """I13."""
        assert [one for one in self.books.waiting if not one.done] == [one for one in self.line if not one.done]

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """I13: no waiter beside an idle connection, and each has a connection or a dial that will serve it."""
        books = self.books
        for lessee in self.queued:
            if lessee.done:
                continue
            if lessee.needs_fresh:
                assert books.dialing
            else:
                assert not books.idle
                assert books.leased or books.dialing


Books.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestBooks = Books.TestCase
