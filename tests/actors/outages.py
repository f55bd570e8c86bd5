"""Outages over the pure parts: ledger, recovery, replay predicate, its budget and the quota, with a model of time.

No actor, no connection, no thread: the machine does with the parts what managers do. What must
hold is in `test_ledger_machine.py`.
"""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.actors.desk import Desk, Link, Request
from turbopool.actors.ledger import Ledger
from turbopool.actors.quota import Quota
from turbopool.actors.recovery import State, Verdict
from turbopool.clock import NEVER
from turbopool.config import ReconnectOptions
from turbopool.errors import ConnectError, ResourceError, TlsVerifyError, TurboPoolError
from turbopool.stats import PoolKey
from turbopool.transport.replay import Attempt, may_replay

KEYS = (PoolKey.of("http", "one.test"), PoolKey.of("http", "two.test"))
PICK = st.integers(0, 1_000_000)


class Outages(RuleBasedStateMachine):
    """Requests, servers that come and go, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.numbers = count()
        self.requests: list[Request] = []

    @initialize(
        limit=st.integers(1, 3), total=st.none() | st.integers(1, 4), patient=st.booleans(),
        crowd=st.integers(0, 5),
    )  # fmt: skip
    def start(self, limit: int, total: int | None, crowd: int, *, patient: bool) -> None:
        self.limit, self.total = limit, total
        self.quota = Quota(None, total)
        options = ReconnectOptions(first_connect=patient)
        self.desks = [Desk(key, limit, self.quota, options) for key in KEYS]
        for _ in range(crowd):
            self.submit(0, None, idempotent=True, rewindable=True)
        self.serve()

    # -- callers -------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), patience=st.none() | st.floats(0.1, 40.0), idempotent=st.booleans(),
          rewindable=st.booleans())  # fmt: skip
    def submit(self, which: int, patience: float | None, *, idempotent: bool, rewindable: bool) -> None:
        desk, deadline = self.desks[which], NEVER if patience is None else self.now + patience
        request = Request(next(self.numbers), idempotent, rewindable, deadline)
        self.requests.append(request)
        books, recovery = desk.books, desk.recovery
        if not books.idle and recovery.state is State.FAILING and not (books.is_live or recovery.may_dial(self.now)):
            self.end(request, "refused")
            return
        link = books.lease(request)
        if link is not None:
            desk.lend(link, request)
        else:
            books.enqueue(request)
        self.rest(request)

    @precondition(lambda self: self.pending)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        """I5, BEH-P45."""
        request = self.pending[pick % len(self.pending)]
        self.end(request, "cancelled")
        for desk in self.desks:
            desk.books.withdraw(request)
            for link, lessee in list(desk.books.leased.items()):
                if lessee is request:
                    desk.drop(link)
        self.rest()

    # -- servers -------------------------------------------------------------------------

    @precondition(lambda self: self.dials)
    @rule(pick=PICK)
    def accept(self, pick: int) -> None:
        desk, link = self.dials[pick % len(self.dials)]
        desk.connect(link, self.now)
        self.rest()

    @precondition(lambda self: self.dials)
    @rule(picks=st.lists(PICK, min_size=1, max_size=3),
          kind=st.sampled_from([ConnectError] * 4 + [TlsVerifyError, ResourceError]))  # fmt: skip
    def refuse(self, picks: list[int], kind: type[TurboPoolError]) -> None:
        """BEH-R3: nobody fails while attempts are to come, all fail when they have ended."""
        for pick in picks:
            if not self.dials:
                break
            desk, link = self.dials[pick % len(self.dials)]
            self.quota.give(desk.key)
            verdict = desk.recovery.dial_failed(link, kind("refused"), self.now)
            desk.look(self.now)
            if verdict is Verdict.SHARE:
                for request in desk.books.fail(link):
                    self.end(request, "failed")
            else:
                assert desk.books.call_off(link)
                assert kind is ConnectError
            self.rest()

    @rule(rounds=st.integers(1, 8))
    def outage(self, rounds: int) -> None:
        """Nobody is let in for so many steps."""
        for _ in range(rounds):
            while self.dials:
                self.refuse([0], ConnectError)
            moments = [desk.recovery.opens_at(NEVER) for desk in self.desks]
            self.advance(min((moment - self.now for moment in moments if self.now < moment < NEVER), default=0.0))

    @precondition(lambda self: self.leased)
    @rule(pick=PICK, keep=st.booleans())
    def answer(self, pick: int, *, keep: bool) -> None:
        desk, link = self.leased[pick % len(self.leased)]
        self.end(desk.books.leased[link], "answered")
        desk.recovery.answered(link)
        desk.look(self.now)
        if keep and self.quota.wanted_by_others(desk.key) == NEVER:
            desk.lend(link, desk.books.release(link))
        else:
            desk.drop(link)
        self.rest()

    @precondition(lambda self: self.leased)
    @rule(picks=st.lists(PICK, min_size=1, max_size=3), sent=st.booleans(), begun=st.booleans())
    def die(self, picks: list[int], *, sent: bool, begun: bool) -> None:
        """I9, I10: the predicate and the budget decide what is sent again."""
        for pick in picks:
            if not self.leased:
                break
            desk, link = self.leased[pick % len(self.leased)]
            request = desk.books.leased[link]
            proven = link.carried > 1 or desk.recovery.has_answered
            resent = request.sent if sent else request.replays
            request.sent += sent
            if not begun:
                desk.recovery.broke(link, ConnectionResetError("reset"), self.now)
                desk.look(self.now, flapped=True)
            desk.drop(link)
            attempt = Attempt(sent=sent, answered=begun, proven_server=proven, idempotent=request.idempotent,
                              rewindable=request.rewindable, replays=resent)  # fmt: skip
            in_time = self.now < request.queue_deadline
            if in_time and may_replay(attempt) and (not sent or desk.budget.spend(self.now, desk.granted)):
                request.needs_fresh = sent
                request.replays += 1
                desk.send_again(request)
            else:
                self.end(request, "failed")
            self.rest()

    @precondition(lambda self: self.idle)
    @rule(pick=PICK)
    def close(self, pick: int) -> None:
        """BEH-R4: nothing was in flight."""
        desk, link = self.idle[pick % len(self.idle)]
        before = desk.recovery.state
        desk.drop(link)
        assert desk.recovery.state is before
        self.rest()

    @precondition(lambda self: any(desk.recovery.has_answered for desk in self.desks))
    @rule(sent=st.booleans())
    def restart(self, *, sent: bool) -> None:
        """All connections end."""
        for _ in range(len(self.leased)):
            self.die([0], sent=sent, begun=False)
        for _ in range(len(self.idle)):
            self.close(0)

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        """A manager dies: its books are new, its recovery and its queue are what they were."""
        desk = self.desks[which]
        books, desk.books = desk.books, Ledger(self.limit)
        for request in books.leased.values():
            self.end(request, "failed")
        desk.closed = desk.opened
        desk.recovery.orphaned()
        desk.since = desk.failed_at
        self.quota.reset(desk.key)
        for link in books.idle:
            self.quota.roused(link)
        for request in books.empty_queue():
            request.needs_fresh = False  # all there will be is fresh
            desk.books.enqueue(request)
        self.rest()

    # -- time ----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 16.0]))
    def advance(self, seconds: float) -> None:
        """I6: everybody leaves at its own moment; every attempt is made at its own."""
        end = self.now + seconds
        while self.now < end:
            moments = [desk.books.next_expiry() for desk in self.desks]
            moments += [desk.recovery.opens_at(NEVER) for desk in self.desks]
            self.now = min([end, *(moment for moment in moments if moment > self.now)])
            for desk in self.desks:
                for request in desk.books.expire(self.now):
                    assert request.queue_deadline <= self.now
                    self.end(request, "expired")
            self.rest()

    @rule(which=st.integers(0, 1))
    def probe(self, which: int) -> None:
        """BEH-R15: while requests fail at once, one attempt a step."""
        desk = self.desks[which]
        is_due = desk.recovery.state is State.FAILING and desk.recovery.may_dial(self.now)
        if is_due and desk.books.connections < self.limit and self.quota.take(desk.key):
            desk.begin(self.now)

    # -- inside --------------------------------------------------------------------------

    @property
    def pending(self) -> list[Request]:
        """Those without an outcome."""
        return [request for request in self.requests if not request.done]

    @property
    def dials(self) -> list[tuple[Desk, Link]]:
        """Dials under way."""
        return [(desk, link) for desk in self.desks for link in desk.books.dialing]

    @property
    def leased(self) -> list[tuple[Desk, Link]]:
        """Connections with a request on them."""
        return [(desk, link) for desk in self.desks for link in desk.books.leased]

    @property
    def idle(self) -> list[tuple[Desk, Link]]:
        """Connections without."""
        return [(desk, link) for desk in self.desks for link in desk.books.idle]

    def end(self, request: Request, outcome: str) -> None:
        """A request gets an outcome."""
        request.outcomes.append(outcome)
        request.ended_at = self.now

    def rest(self, culprit: Request | None = None) -> None:
        """Dial, make room for who stands in line, and give up where the attempts have ended."""
        for link in [link for desk in self.desks for link in (*desk.books.leased, *desk.books.dialing)]:
            self.quota.roused(link)
        for desk in self.desks:
            for link in desk.books.idle:
                self.quota.rested(link, desk.key)
            desk.dial(self.now, culprit)
            is_over = desk.recovery.state is State.FAILING and not desk.recovery.may_dial(self.now)
            if is_over and not desk.books.connections:
                for request in desk.books.empty_queue():
                    self.end(request, "given up")
        if self.quota.served():  # the other one came first, and has room now
            for desk in self.desks:
                desk.dial(self.now, None)
        victim = self.quota.victim()
        if victim is not None and not self.quota.served():
            desk, link = next(pair for pair in self.idle if pair[1] is victim[0])
            desk.drop(link)
            self.rest()

    def serve(self) -> None:
        """Accept and answer all there is."""
        while self.dials or self.leased:
            while self.dials:
                self.accept(0)
            while self.leased:
                self.answer(0, keep=True)
