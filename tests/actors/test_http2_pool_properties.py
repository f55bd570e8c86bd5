"""Storms over real actors and HTTP/2 connections: random orders of all that callers, servers, time and bugs can do.

After every step everything is at rest, and the promises are checked from the figures that
callers see, from the servers' side, and from the requests themselves.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis.stateful import invariant

from tests.actors.stage import Call
from tests.actors.stream_weather import KEYS, StreamWeather
from tests.actors.world import FOREVER, REQUEST
from turbopool.actors.recovery import State
from turbopool.actors.stream_ledger import StreamLedger
from turbopool.errors import ClientDisposed, TurboPoolError

_PHASES = {"queue", "dns", "connect", "tls", "send", "wait", "recv"}
_SLOWEST_STEP = 16.0
_TINY = 1e-6
_MOST_ROUNDS = 200


class StreamStorm(StreamWeather):
    """What always holds, and what holds at the end."""

    def teardown(self) -> None:
        """I21: once servers accept and answer again, all recovers within the longest step; then everything ends."""
        if not hasattr(self, "stage"):
            return
        if self.disposed_at == FOREVER:
            self.heal(_SLOWEST_STEP)
            for key in KEYS:
                call = self.stage.send(key, lower=True)
                self.heal(0.0)
                assert call.future.done(), f"not served: {self.stage.pools}"
                assert call.error is None, f"not well: {call.error!r}"
            for pool in self.stage.pools.values():
                stats = pool.snapshot()
                assert (stats.leased, stats.in_flight, stats.connecting, stats.waiting) == (0, 0, 0, 0)
        self.stage.close()

    def heal(self, seconds: float) -> None:
        """Play healthy servers for so long."""
        end = self.now + seconds
        while True:
            self.be_served()
            if self.now >= end - _TINY:
                break
            timer = self.stage.poller.timeout
            self.advance(min(end - self.now, timer if timer >= 0 else FOREVER))
        assert not self.pending, f"still waiting: {[call.exchange.request for call in self.pending]}"

    def be_served(self) -> None:
        """Accept and answer all there is."""
        for _ in range(_MOST_ROUNDS):
            for peer in self.alive:
                peer.answer_pings()
                if self.limits.get(peer, 100) < 100:
                    self.limits[peer] = 100
                    peer.send_settings(max_concurrent_streams=100)
            self.settle()
            if not self.dials and not self.active and not self.asked:
                return
            self.let_all_in(100)
            self.answer([0] * 20)
        raise AssertionError("requests go round and round")

    # -- what always holds ---------------------------------------------------------------

    @invariant()
    def bounds_are_kept(self) -> None:
        """I1, BEH-P35: what is retired counts in the bound over all keys alone; one dial at a time."""
        count = 0
        for key, pool in self.stage.pools.items():
            books = pool.ledger
            count += books.connections
            assert books.open + len(books.dialing) <= self.limit
            assert key.version == "1.1" or self.has_warmed or len(books.dialing) <= 1
        assert self.total is None or count <= self.total

    @invariant()
    def streams_are_within_their_limits(self) -> None:
        """I2: the server's side of it is looked at whenever requests arrive."""
        for pool in self.stage.pools.values():
            if isinstance(pool.ledger, StreamLedger):
                for connection in pool.ledger.carriers():
                    assert len(pool.ledger.leased.get(connection, ())) <= self.streams

    @invariant()
    def figures_are_those_of_channels_and_requests(self) -> None:
        """I3, BEH-P46, BEH-L3."""
        total = 0
        for key, pool in self.stage.pools.items():
            stats = pool.snapshot()
            assert stats.leased + stats.idle == stats.opened - stats.closed
            assert stats.connecting == sum(dial.key == key for dial in self.dials)
            calls = [call for call in self.stage.calls if call.exchange.key == key]
            assert stats.in_flight == sum(call.exchange.connection is not None for call in calls)
            assert stats.waiting == sum(call.is_waiting for call in calls)
            total += stats.leased + stats.idle
        assert total == len(self.stage.open) == self.stage.dispatcher.census()[0]

    @invariant()
    def books_balance(self) -> None:
        """I26."""
        for pool in self.stage.pools.values():
            stats = pool.snapshot()
            calls = [call for call in self.stage.calls if call.exchange.tally is pool]
            assert stats.completed + stats.failed + stats.cancelled == sum(call.future.done() for call in calls)

    @invariant()
    def requests_are_somewhere_exactly_once(self) -> None:
        """I4, I5: one outcome, or a place in a queue, or a stream of one's own."""
        assert all(call.outcomes == call.future.done() for call in self.stage.calls)
        running = [call.exchange.connection for call in self.stage.calls if call.exchange.connection is not None]
        assert len(running) == len(set(running))

    @invariant()
    def nobody_is_late(self) -> None:
        """I6."""
        for call in self.stage.calls:
            end = self.now if call.done_at is None else call.done_at
            assert end <= call.exchange.asked_at + self.patience.get(call, FOREVER) + _TINY
            assert not call.is_waiting or self.now < call.exchange.queue_deadline

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """I13: no waiter beside room, and whoever waits is dialed for as soon as there may be a dial."""
        wanting = self.stage.quota.wanted_since < FOREVER
        for key, pool in self.stage.pools.items():
            books, recovery = pool.ledger, pool.recovery
            waiting = [one for one in [*books.returned, *books.waiting] if not one.done]
            if not waiting:
                continue
            if isinstance(books, StreamLedger) and not all(one.needs_fresh for one in waiting):
                open_ones = [one for one in [*books.leased, *books.idle] if self.now < one.expires_at]
                assert not any(one.has_room for one in open_ones), f"{key.origin}: a waiter beside room"
            if recovery.may_dial(self.now):
                assert not books.wants_dial or wanting, f"{key.origin} could dial"
                assert books.connections or wanting, "everybody waits, and nothing is under way"
            elif not books.connections:
                assert self.now < recovery.due <= self.now + _SLOWEST_STEP + _TINY, "no attempt is to come"

    @invariant()
    def queues_are_first_come_first_served(self) -> None:
        """I13, BEH-P37: nobody gets a stream before one who asked earlier and still waits."""
        waiting = dict.fromkeys(KEYS, FOREVER)
        for number, call in enumerate(self.stage.calls):
            key, exchange = call.exchange.key, call.exchange
            if key.version != "2" or exchange.replays:
                continue
            if call.is_waiting:
                waiting[key] = min(waiting[key], number)
            elif exchange.connection is not None:
                assert number < waiting[key], f"{exchange.request} overtook"

    @invariant()
    def responses_belong_to_their_requests(self) -> None:
        """I7, I8."""
        for call in self.stage.calls:
            if call.future.done() and not call.future.cancelled() and call.error is None:
                assert call.response.text == self.stage.path(call) * 6

    @invariant()
    def connections_that_ended_get_no_more(self) -> None:
        """I11, I12, FLT-S1: after GOAWAY, or a break; and each serves its own host."""
        for peer, count in self.sealed.items():
            assert len(peer.requests) == count, "a retired connection was used"
        keys = {dial.channel: dial.key for dial in self.stage.dialer.dials}
        for channel, peer in self.stage.peers.items():
            assert all(request.header(":authority") == keys[channel].host for request in peer.requests)

    @invariant()
    def requests_are_not_sent_too_often(self) -> None:
        """I9, I10: what no server disowned was sent once, or twice if that is harmless."""
        sent: Counter[str] = Counter()
        for peer in self.stage.peers.values():
            sent.update(peer.paths)
        for channel in self.foreign:
            sent.update(line.split()[1].decode() for line in REQUEST.findall(channel.sent))
        for call in self.stage.calls:
            path = self.stage.path(call)
            assert sent[path] - self.proofs[path] <= (2 if call.exchange.wire.idempotent else 1)
            assert sent[path] <= 6

    @invariant()
    def connections_are_evicted_in_time(self) -> None:
        """I23."""
        for pool in self.stage.pools.values():
            assert all(self.now < connection.idle_until for connection in pool.ledger.idle)

    @invariant()
    def nothing_piles_up(self) -> None:
        """I24."""
        for pool in self.stage.pools.values():
            books = pool.ledger
            assert set(pool.recovery.unproven) <= {*books.idle, *books.carriers(), *books.dialing}
            assert pool.recovery.state is not State.COLD or not pool.recovery.has_answered
        heap = self.stage.dispatcher._timers._heap  # noqa: SLF001 - a timer may be in it twice, which a census counts
        armed = {timer for when, _, timer in heap if timer.wakes == when}
        assert len(armed) <= 1 + 4 * len(self.stage.pools) + len(self.stage.open)

    @invariant()
    def errors_are_own_and_true(self) -> None:
        """I27: where it happened, and what is known of the request."""
        errors = [(call, call.error) for call in self.stage.calls if call.future.done() and not call.future.cancelled()]
        found = [(call, error) for call, error in errors if error is not None]
        assert len({id(error) for _, error in found}) == len(found), "an error was shared"
        for call, error in found:
            assert isinstance(error, TurboPoolError), repr(error)
            self.check_error(call, error)

    def check_error(self, call: Call, error: TurboPoolError) -> None:
        """What it says is what the servers saw."""
        assert error.phase in _PHASES, f"{error!r} has phase {error.phase}"
        assert error.origin == call.exchange.key.origin
        path = self.stage.path(call)
        seen = any(path in peer.paths for peer in self.stage.peers.values())
        assert error.request_sent or not seen, f"{error!r} was seen"
        assert error.processed != "no" or not seen or self.proofs[path], f"{error!r} may have been processed"
        assert not error.may_retry or call.exchange.wire.idempotent or not seen or self.proofs[path]

    @invariant()
    def nothing_begins_after_the_end(self) -> None:
        """I16: what came before the end is finished or failed in its time; what comes later fails at once."""
        if self.disposed_at == FOREVER:
            return
        for call in self.stage.calls[self.sent_before :]:
            assert isinstance(call.error, ClientDisposed)
        if self.now >= self.disposed_at + self.given:
            assert self.done.is_set()
            assert not self.pending


StreamStorm.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, print_blob=True)
TestStreamStorm = StreamStorm.TestCase
