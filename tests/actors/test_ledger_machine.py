"""What holds through all outages, of the pure parts: ledger, recovery, replay predicate, its budget, quota.

I2 (streams of a connection) is HTTP/2's. I7, I8, I11, I12, I16, I17, I23 and I27 need bytes,
actors or errors: they are in `test_pool_properties.py`.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import invariant

from tests.actors.desk import TINY
from tests.actors.outages import KEYS, Outages
from turbopool.actors.recovery import State
from turbopool.clock import NEVER

_SLOWEST_STEP = 16.0


class Machine(Outages):
    """The invariants."""

    def teardown(self) -> None:
        """I21: once servers accept and answer again, everybody is served within the longest step."""
        if not hasattr(self, "desks"):
            return
        end = self.now + _SLOWEST_STEP
        self.serve()
        while self.now < end - TINY:
            self.advance(0.5)
            self.serve()
        assert not self.pending
        for which in range(len(KEYS)):
            self.submit(which, None, idempotent=True, rewindable=True)
            self.serve()
            assert self.requests[-1].outcomes == ["answered"]

    @invariant()
    def bounds_are_kept(self) -> None:
        """I1."""
        counts = [desk.books.connections for desk in self.desks]
        assert max(counts) <= self.limit
        assert self.total is None or sum(counts) <= self.total

    @invariant()
    def books_balance(self) -> None:
        """I3, I26: opened = closed + live, and the quota counts what the ledgers do."""
        for desk in self.desks:
            books = desk.books
            assert desk.opened == desk.closed + len(books.idle) + len(books.leased)
            assert self.quota.has_room(desk.key) or self.total is not None
        live = sum(desk.books.connections for desk in self.desks)
        assert self.total is None or self.quota.has_room(KEYS[0]) is (live < self.total)

    @invariant()
    def requests_are_somewhere_exactly_once(self) -> None:
        """I4, I5."""
        places = [
            *(lessee for desk in self.desks for lessee in desk.books.leased.values()),
            *(lessee for desk in self.desks for lessee in (*desk.books.returned, *desk.books.waiting)),
        ]
        assert len(places) == len(set(places))
        assert all(len(request.outcomes) == (request not in places) for request in self.requests)

    @invariant()
    def nobody_is_late(self) -> None:
        """I6: whoever waits leaves in time."""
        for desk in self.desks:
            assert all(self.now < request.queue_deadline for request in (*desk.books.returned, *desk.books.waiting))

    @invariant()
    def requests_are_not_sent_too_often(self) -> None:
        """I9, I10: twice at most, and only if that is harmless and possible."""
        for request in self.requests:
            assert request.sent <= (2 if request.idempotent and request.rewindable else 1)
            assert request.replays <= 4

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """I13: whoever waits is dialed for, or will be within a step, or stands in line for room, or is next."""
        for desk in self.desks:
            books, recovery = desk.books, desk.recovery
            if not books.queued:
                continue
            fresh = sum(request.needs_fresh for request in books.returned)
            assert books.queued <= fresh or not books.idle
            if recovery.may_dial(self.now):
                assert not books.wants_dial or self.quota.wanted_since < NEVER
                assert books.leased or books.dialing or self.quota.wanted_since < NEVER
            elif not books.leased and not books.dialing:
                assert self.now < recovery.opens_at(NEVER) <= self.now + _SLOWEST_STEP

    @invariant()
    def lines_are_first_come_first_served(self) -> None:
        """I13, BEH-P37: nobody who was never sent overtakes another."""
        for desk in self.desks:
            numbers = [request.number for request in desk.books.waiting if not request.replays]
            assert numbers == sorted(numbers)

    @invariant()
    def failing_keys_keep_nobody(self) -> None:
        """BEH-R3: when the attempts have ended, only those wait whom a connection or a dial may serve."""
        for desk in self.desks:
            if desk.recovery.state is State.FAILING:
                assert desk.books.connections or not desk.books.queued or self.quota.wanted_since < NEVER
                assert desk.recovery.failures >= 6

    @invariant()
    def nothing_piles_up(self) -> None:
        """I24: what is remembered of connections is of those there are."""
        for desk in self.desks:
            books, recovery = desk.books, desk.recovery
            assert set(recovery.unproven) <= {*books.idle, *books.leased, *books.dialing}
            assert recovery.state is not State.OPEN or not recovery.failures
            assert recovery.state is not State.COLD or not recovery.has_answered


Machine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None, print_blob=True)
TestMachine = Machine.TestCase
