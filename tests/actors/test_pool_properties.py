"""Storms over real actors: random orders of all that callers, servers, time and bugs can do.

After every step everything is at rest, and the promises are checked from the figures that
callers see, from the channels' side, and from the requests themselves.
"""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.actors.stage import KEY, OTHER, Call, Stage
from tests.servers.wire import respond
from turbopool.actors.messages import WarmUp
from turbopool.actors.restart import MAX_RESTARTS
from turbopool.stats import PoolKey
from turbopool.transport.memory import MemoryChannel

_KEYS = (KEY, OTHER, KEY._replace(version="1.0"))
_PICK = st.integers(0, 1_000_000)
_REQUEST = re.compile(rb"(GET|POST) (/\d+) HTTP/1\.[01]\r\n(?:[^\r]+\r\n)*\r\n")
_FOREVER = 1e9


class Storm(RuleBasedStateMachine):
    """Callers, servers, time and bugs."""

    @initialize(
        limit=st.integers(1, 3),
        total=st.none() | st.integers(1, 4),
        per_host=st.none() | st.integers(1, 3),
        lifetime=st.sampled_from([None, 0.0, 20.0]),
    )
    def begin(self, limit: int, total: int | None, per_host: int | None, lifetime: float | None) -> None:
        self.limit, self.total, self.per_host = limit, total, per_host
        self.answered: Counter[int] = Counter()
        self.crashes = 0
        self.stage = Stage(
            limit=limit, total=total, per_host=per_host, lifetime=lifetime, idle_timeout=10.0, retire_after=_FOREVER
        )
        self.send_many([KEY, KEY, KEY, OTHER])
        self.accept_all()

    def teardown(self) -> None:
        """Everything ends, and everyone has an outcome."""
        if hasattr(self, "stage"):
            self.stage.close()

    # -- callers -------------------------------------------------------------------------

    @rule(key=st.sampled_from(_KEYS), post=st.booleans(), patience=st.none() | st.floats(0.0, 15.0))
    def send(self, key: PoolKey, post: bool, patience: float | None) -> None:  # noqa: FBT001 - a drawn value
        self.stage.send(key, method="POST" if post else "GET", timeout=patience)

    @rule(keys=st.lists(st.sampled_from(_KEYS), min_size=2, max_size=6))
    def send_many(self, keys: list[PoolKey]) -> None:
        """Many threads at once."""
        for key in keys:
            self.stage.submit(self.stage.prepare(key))
        self.stage.settle()

    @precondition(lambda self: self.pending)
    @rule(picks=st.lists(_PICK, min_size=1, max_size=3))
    def cancel(self, picks: list[int]) -> None:
        pending = self.pending
        for pick in picks:
            pending[pick % len(pending)].future.cancel()
        self.stage.settle()

    @rule(key=st.sampled_from(_KEYS), count=st.integers(1, 4))
    def warm_up(self, key: PoolKey, count: int) -> None:
        self.stage.supervisor.tell(WarmUp(key, count, None))
        self.stage.settle()

    # -- servers -------------------------------------------------------------------------

    @precondition(lambda self: self.stage.dialer.pending)
    @rule(pick=_PICK, room=st.sampled_from([None, None, None, 0, 10]))
    def accept(self, pick: int, room: int | None) -> None:
        """Sometimes the kernel takes little of what is written."""
        pending = self.stage.dialer.pending
        channel = pending[pick % len(pending)].succeed()
        channel.room = room
        self.stage.settle()

    @precondition(lambda self: self.stage.dialer.pending)
    @rule()
    def accept_all(self) -> None:
        while self.stage.dialer.pending:
            self.stage.connect()

    @precondition(lambda self: self.asked)
    @rule(rounds=st.integers(1, 4))
    def be_well(self, rounds: int) -> None:
        """Connect and answer for a while, as servers mostly do."""
        for _ in range(rounds):
            self.accept_all()
            self.answer(picks=[0] * len(self.asked), closing=False)

    @precondition(lambda self: len(self.stage.dialer.pending) > 1)
    @rule(pick=_PICK)
    def refuse(self, pick: int) -> None:
        pending = self.stage.dialer.pending
        self.stage.refuse(pending[pick % len(pending)])

    @precondition(lambda self: self.stage.open)
    @rule(pick=_PICK)
    def take_more(self, pick: int) -> None:
        self.stage.open[pick % len(self.stage.open)].room = None
        self.stage.settle()

    @precondition(lambda self: self.asked)
    @rule(picks=st.lists(_PICK, min_size=1, max_size=3), closing=st.booleans())
    def answer(self, picks: list[int], closing: bool) -> None:  # noqa: FBT001 - a drawn value
        """Each request is answered with its own target."""
        for pick in picks:
            asked = self.asked
            if asked:
                channel, target = asked[pick % len(asked)]
                channel.feed(respond(target, headers=[("Connection", "close" if closing else "keep-alive")]))
                self.answered[channel.fd] += 1
        self.stage.settle()

    @precondition(lambda self: self.stage.open)
    @rule(pick=_PICK, how=st.sampled_from(["end", "reset", "stray"]))
    def hurt(self, pick: int, how: str) -> None:
        """Whatever a connection is doing, its peer closes, breaks or talks out of turn."""
        channel = self.stage.open[pick % len(self.stage.open)]
        if how == "end":
            channel.feed(b"")
        elif how == "reset":
            channel.error = ConnectionResetError("reset")
        else:
            channel.feed(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"")
        self.stage.settle()

    @precondition(lambda self: self.stage.open)
    @rule()
    def restart(self) -> None:
        """The server goes away: all its connections end at once."""
        for channel in self.stage.open:
            channel.feed(b"")
        self.stage.settle()

    # -- time and bugs -------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0005, 0.5, 5.0, 12.0]))
    def advance(self, seconds: float) -> None:
        self.stage.advance(seconds)

    @precondition(lambda self: self.crashes < MAX_RESTARTS)
    @rule(key=st.sampled_from(_KEYS))
    def crash(self, key: PoolKey) -> None:
        """A bug; not so often that the key is given up, and its figures with it."""
        if key in self.stage.pools:
            self.crashes += 1
            self.stage.crash(key)
            self.stage.settle()

    # -- what is there -------------------------------------------------------------------

    @property
    def pending(self) -> list[Call]:
        """Requests without an outcome."""
        return [call for call in self.stage.calls if not call.future.done()]

    @property
    def asked(self) -> list[tuple[MemoryChannel, bytes]]:
        """Open channels on which a whole request has not been answered, and its target."""
        found = []
        for channel in self.stage.open:
            requests = _REQUEST.findall(channel.sent)
            answered = self.answered[channel.fd]
            assert len(requests) - answered in (0, 1), "two requests at once on one connection"
            if len(requests) > answered:
                found.append((channel, requests[-1][1]))
        return found

    # -- what always holds ---------------------------------------------------------------

    @invariant()
    def bounds_are_kept(self) -> None:
        """I1, BEH-P35."""
        hosts: Counter[str] = Counter()
        for key, pool in self.stage.pools.items():
            stats = pool.snapshot()
            count = stats.leased + stats.idle + stats.connecting
            assert count <= self.limit
            hosts[key.host] += count
        assert self.total is None or sum(hosts.values()) <= self.total
        assert self.per_host is None or max(hosts.values(), default=0) <= self.per_host

    @invariant()
    def figures_are_the_channels(self) -> None:
        """I3, BEH-P46: leased + idle are the open sockets, connecting the dials, and every socket is watched."""
        for key, pool in self.stage.pools.items():
            stats = pool.snapshot()
            dials = [dial for dial in self.stage.dialer.dials if dial.key == key]
            channels = [dial.channel for dial in dials if dial.channel is not None and not dial.channel.closed]
            assert stats.leased + stats.idle == len(channels) == stats.opened - stats.closed
            assert stats.connecting == sum(dial.is_pending for dial in dials)
        assert self.stage.dispatcher.census()[0] == len(self.stage.open)

    @invariant()
    def requests_are_somewhere_exactly_once(self) -> None:
        """I4, I5: one outcome, or a place in a queue, or a connection of one's own."""
        calls = self.stage.calls
        assert all(call.outcomes == call.future.done() for call in calls)
        running = [call.exchange.connection for call in calls if call.is_running]
        assert len(running) == len(set(running))
        waiting = Counter(call.exchange.key for call in calls if call.is_waiting)
        for key, pool in self.stage.pools.items():
            stats = pool.snapshot()
            assert stats.waiting == waiting[key]
            done = [call for call in calls if call.exchange.key == key and call.future.done()]
            assert stats.completed + stats.failed + stats.cancelled == len(done)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """I13: whoever waits is dialed for, or something is leased or dialed that must end first."""
        pools = {key: pool.snapshot() for key, pool in self.stage.pools.items()}
        busy = sum(stats.leased + stats.connecting for stats in pools.values())
        for key, stats in pools.items():
            fresh = sum(call.exchange.needs_fresh for call in self.pending if call.exchange.key == key)
            assert stats.waiting <= fresh or not stats.idle
            if stats.waiting and not stats.leased + stats.connecting:
                assert self.total is not None or self.per_host is not None
                assert busy, "everybody waits, and nothing is under way"

    @invariant()
    def responses_belong_to_their_requests(self) -> None:
        """I7."""
        for call in self.stage.calls:
            if call.future.done() and not call.future.cancelled() and call.error is None:
                target = call.exchange.wire.head.split(b" ")[1]
                assert call.response.content == target or call.response.status_code == 408

    @invariant()
    def requests_are_not_sent_too_often(self) -> None:
        """I9, I10."""
        sent: Counter[tuple[bytes, bytes]] = Counter()
        for channel in self.stage.channels:
            sent.update(_REQUEST.findall(channel.sent))
        assert all(times <= (1 if method == b"POST" else 2) for (method, _), times in sent.items())


Storm.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestStorm = Storm.TestCase
