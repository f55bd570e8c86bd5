"""Random orders of everything that happens to the books of one key whose connections are shared.

The connections here are doubles whose room changes at any time, as a server's may. The
machine does what a manager does with the answers of the books, and keeps simple books of
its own beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from turbopool.actors.stream_ledger import StreamLedger
from turbopool.clock import NEVER

_PICK = st.integers(0, 1_000_000)
"""Which of those there are, counted round."""


@dataclass(eq=False)
class Connection:
    """One that says how much it takes; both may change while nobody looks."""

    number: int
    capacity: int
    is_retired: bool = False
    lessees: list[Lessee] = field(default_factory=list)

    @property
    def has_room(self) -> bool:
        """Whether it takes another."""
        return not self.is_retired and len(self.lessees) < self.capacity


@dataclass(eq=False)
class Lessee:
    """Somebody who asks for a stream."""

    number: int
    queue_deadline: float
    needs_fresh: bool = False
    done: bool = False
    ended: bool = False
    """Whether it left the books for good."""


class StreamBooks(RuleBasedStateMachine):
    """Plays manager, callers and servers."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.numbers = count()
        self.now = 0.0
        self.lessees: list[Lessee] = []
        self.connections: list[Connection] = []
        self.line: list[Lessee] = []
        """Who waits and was never sent, in the order they came."""

    @initialize(limit=st.integers(1, 4), streams=st.integers(1, 4), crowd=st.integers(0, 10))
    def begin(self, limit: int, streams: int, crowd: int) -> None:
        """Begin under load."""
        self.books: StreamLedger[Connection, str, Lessee] = StreamLedger(limit, streams)
        for _ in range(crowd):
            self.lease(patience=None)
        while self.books.dialing:
            self.settle(pick=0, capacity=streams)

    # -- what callers do -----------------------------------------------------------------

    @rule(patience=st.none() | st.floats(0.0, 10.0))
    def lease(self, patience: float | None) -> None:
        """I13: a stream at once if there is room and nobody waits."""
        lessee = Lessee(next(self.numbers), NEVER if patience is None else self.now + patience)
        self.lessees.append(lessee)
        connection = None if self.books.waiting else self.roomy()
        if connection is not None:
            self.lend(connection, lessee)
        else:
            assert self.books.waiting or not any(one.has_room for one in self.connections)
            self.books.enqueue(lessee)
            self.line.append(lessee)
            self.dial(lessee)

    @precondition(lambda self: self.queued)
    @rule(pick=_PICK, is_heard=st.booleans())
    def cancel(self, pick: int, is_heard: bool) -> None:  # noqa: FBT001 - a drawn value
        """The caller has an outcome; the manager may hear of it later."""
        lessee = self.queued[pick % len(self.queued)]
        lessee.done = True
        if is_heard:
            assert self.books.withdraw(lessee)
            assert not self.books.withdraw(lessee)
            self.leave(lessee)

    @precondition(lambda self: self.books.next_expiry() < NEVER)
    @rule(seconds=st.floats(0.0, 5.0))
    def advance(self, seconds: float) -> None:
        self.now += seconds

        for lessee in self.books.expire(self.now):
            assert lessee.queue_deadline <= self.now
            lessee.done = True
        for lessee in [one for one in self.lessees if one.queue_deadline <= self.now and one.done]:
            if lessee not in self.queued:
                self.leave(lessee)

        assert self.books.next_expiry() > self.now

    # -- what servers do -----------------------------------------------------------------

    @precondition(lambda self: self.running)
    @rule(pick=_PICK)
    def finish(self, pick: int) -> None:
        """A stream ends: its place is lent again at once."""
        connection, lessee = self.running[pick % len(self.running)]
        lessee.done = True
        self.release(connection, lessee)
        lessee.ended = True
        self.look(connection)

    @precondition(lambda self: self.running)
    @rule(pick=_PICK)
    def refuse(self, pick: int) -> None:
        """A stream is refused, and its request is to be sent again."""
        connection, lessee = self.running[pick % len(self.running)]
        connection.capacity = max(1, len(connection.lessees) - 1)
        self.release(connection, lessee)
        self.send_again(lessee, fresh=False)
        self.look(connection)

    @precondition(lambda self: self.living)
    @rule(pick=_PICK, capacity=st.integers(0, 5))
    def change(self, pick: int, capacity: int) -> None:
        """SETTINGS: more or less, below what is in use, or nothing at all."""
        connection = self.living[pick % len(self.living)]
        connection.capacity = capacity
        self.books.streams = max(1, capacity)
        self.books.empty(connection)
        self.serve()
        self.dial(None)

    @precondition(lambda self: self.living)
    @rule(pick=_PICK)
    def change_unheard(self, pick: int) -> None:
        """It takes none, and nobody has been told: that is found out when it is asked."""
        self.living[pick % len(self.living)].capacity = 0

    @precondition(lambda self: self.living)
    @rule(pick=_PICK)
    def say_farewell(self, pick: int) -> None:
        """It takes no more, ever; what it carries goes on."""
        connection = self.living[pick % len(self.living)]
        connection.is_retired = True
        self.books.retire(connection)
        self.look(connection)

    @precondition(lambda self: self.connections)
    @rule(pick=_PICK, sent=st.lists(st.booleans(), min_size=5, max_size=5), given_up=st.booleans())
    def lose(self, pick: int, sent: list[bool], given_up: bool) -> None:  # noqa: FBT001 - drawn values
        """It dies: each of its requests is sent again, over a new connection if it was sent, or fails."""
        connection = self.connections[pick % len(self.connections)]
        connection.is_retired = True
        for was_sent, lessee in zip(sent * 3, list(connection.lessees), strict=False):
            self.release(connection, lessee)
            if given_up and was_sent:
                lessee.done = lessee.ended = True
            else:
                self.send_again(lessee, fresh=was_sent)
            self.serve()
        self.look(connection)

    # -- what dials do -------------------------------------------------------------------

    @precondition(lambda self: self.books.dialing)
    @rule(pick=_PICK, capacity=st.integers(1, 4))
    def settle(self, pick: int, capacity: int) -> None:
        """FLT-S6: a new connection serves first who needs one."""
        dial = list(self.books.dialing)[pick % len(self.books.dialing)]
        connection = Connection(next(self.numbers), capacity)
        self.connections.append(connection)
        self.books.settle(dial, connection)
        while connection.has_room and (lessee := self.books.next_waiter(fresh=True)) is not None:
            self.lend(connection, lessee)
        self.serve()
        self.dial(None)

    @precondition(lambda self: self.books.dialing)
    @rule(pick=_PICK)
    def fail(self, pick: int) -> None:
        """BEH-P20: one fails, or everybody whom nothing else can serve."""
        dial = list(self.books.dialing)[pick % len(self.books.dialing)]
        before = [lessee for lessee in self.queued if not lessee.done]

        failed = self.books.fail(dial)

        if not self.books.connections:
            assert failed == before
        for lessee in failed:
            lessee.done = True
        for lessee in list(self.line):
            if lessee not in self.books.waiting:
                self.leave(lessee)
        self.dial(None)

    # -- as the manager does it ----------------------------------------------------------

    def roomy(self) -> Connection | None:
        """Ask the candidates, and then the idle ones, the newest first."""
        while (connection := self.books.candidate()) is not None:
            assert connection not in self.books.idle
            if connection.has_room:
                return connection
            self.books.fill(connection)
        return next((one for one in reversed(self.books.idle) if one.has_room), None)

    def serve(self) -> None:
        """Lend what there is, in order."""
        while self.books.queued and (connection := self.roomy()) is not None:
            at_limit = self.books.open >= self.books.limit
            lessee = self.books.next_waiter(fresh=at_limit)
            if lessee is None:
                return
            assert at_limit or not lessee.needs_fresh
            self.lend(connection, lessee)

    def lend(self, connection: Connection, lessee: Lessee) -> None:
        """I13: whoever is served is the first who could be."""
        assert not lessee.done
        if lessee in self.line:
            before = self.line[: self.line.index(lessee)]
            assert all(one.done for one in before), "somebody was overtaken"
            del self.line[: len(before) + 1]
        lessee.needs_fresh = False
        self.books.lend(connection, lessee)
        connection.lessees.append(lessee)

    def release(self, connection: Connection, lessee: Lessee) -> None:
        """Take a lessee off."""
        assert self.books.has_lent(connection, lessee)
        connection.lessees.remove(lessee)
        self.books.release(connection, lessee)
        assert not self.books.has_lent(connection, lessee)
        if connection.is_retired:
            self.books.retire(connection)

    def send_again(self, lessee: Lessee, *, fresh: bool) -> None:
        """Queue it anew, unless it has an outcome."""
        if lessee.done:
            lessee.ended = True
            return
        lessee.needs_fresh = fresh
        self.books.take_back(lessee)

    def look(self, connection: Connection) -> None:
        """Strike out a connection that is gone; lend and dial."""
        if connection.is_retired and not connection.lessees:
            self.books.retire(connection)
            self.books.discard(connection)
            self.connections.remove(connection)
        self.serve()
        self.dial(None)

    def dial(self, culprit: Lessee | None) -> None:
        """Dial while the books say so."""
        while self.books.wants_dial:
            self.books.dial(f"dial {next(self.numbers)}", culprit)

    def leave(self, lessee: Lessee) -> None:
        """Strike out of our own line."""
        lessee.ended = True
        if lessee in self.line:
            self.line.remove(lessee)

    @property
    def queued(self) -> list[Lessee]:
        """Everybody who waits, in order."""
        return [*self.books.returned, *self.books.waiting]

    @property
    def living(self) -> list[Connection]:
        """Connections that are not retired."""
        return [one for one in self.connections if not one.is_retired]

    @property
    def running(self) -> list[tuple[Connection, Lessee]]:
        """Every stream."""
        return [(connection, lessee) for connection in self.connections for lessee in connection.lessees]

    # -- what always holds ---------------------------------------------------------------

    @invariant()
    def limit_is_kept_and_one_dial_is_under_way(self) -> None:
        """I1."""
        assert self.books.open + len(self.books.dialing) <= self.books.limit
        assert len(self.books.dialing) <= 1

    @invariant()
    def figures_are_those_of_the_connections(self) -> None:
        """I3, I4, BEH-L3: each in one place, with the lessees it carries."""
        books = self.books
        places = [*books.idle, *books.leased, *books.retiring]
        assert len(places) == len(set(places))
        assert set(places) == set(self.connections)
        assert set(books.roomy) <= set(books.leased)
        for connection in self.connections:
            held = books.leased.get(connection, books.retiring.get(connection, {}))
            assert list(held) == connection.lessees
            assert (connection in books.idle) == (not connection.lessees and not connection.is_retired)
        assert books.lent == len(self.running) == len(books.lessees())
        assert books.busy == sum(bool(connection.lessees) for connection in self.connections)

    @invariant()
    def every_lessee_is_in_one_place_or_has_left(self) -> None:
        """I5: it waits, or it is on one stream, or it has its outcome."""
        queued, lent = self.queued, [lessee for _, lessee in self.running]
        assert len(set(queued)) + len(set(lent)) == len({*queued, *lent})
        for lessee in self.lessees:
            is_held = lessee in queued or lessee in lent
            assert is_held or lessee.done, f"lessee {lessee.number} was lost"
            assert not (is_held and lessee.ended)

    @invariant()
    def line_is_first_come_first_served(self) -> None:
        """I13."""
        assert [one for one in self.books.waiting if not one.done] == [one for one in self.line if not one.done]

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """I13: no waiter beside room; and whoever waits is dialed for, or all that is allowed is open."""
        books = self.books
        waiting = [lessee for lessee in self.queued if not lessee.done]
        if any(not lessee.needs_fresh or books.open == books.limit for lessee in waiting):
            assert not any(connection.has_room for connection in self.connections)
        if waiting and not books.dialing:
            assert books.open == books.limit or books._held  # noqa: SLF001 - after a failed dial it waits for news


StreamBooks.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestStreamBooks = StreamBooks.TestCase
