"""Storms over real actors: random orders of all that callers, servers, time and bugs can do.

After every step everything is at rest, and the promises are checked from the figures that
callers see, from the channels' side, and from the requests themselves. I2 is HTTP/2's: a
connection of HTTP/1 has one stream, and I4 holds it to that.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import invariant

from tests.actors.stage import Call
from tests.actors.weather import KEYS, Weather
from tests.actors.world import FOREVER, REQUEST
from turbopool.actors.recovery import State
from turbopool.errors import ClientDisposed, TurboPoolError
from turbopool.transport.memory import MemoryDial

_DOCUMENTED = set(re.findall(r"^\| `(\w+)`", Path("docs/errors.md").read_text(), re.MULTILINE))
_PHASES = {"queue", "dns", "connect", "tls", "send", "wait", "recv"}
_SLOWEST_STEP = 16.0
_TINY = 1e-6


class Storm(Weather):
    """What always holds, and what holds at the end."""

    def teardown(self) -> None:
        """I21: once servers accept and answer again, all recovers within the longest step; then everything ends."""
        if not hasattr(self, "stage"):
            return
        if self.disposed_at == FOREVER:
            self.heal()
            for key in KEYS:
                call = self.stage.send(key)
                self.be_served()
                assert call.future.done(), f"not served after {_SLOWEST_STEP} s: {self.stage.pools}"
                assert call.error is None, f"not well after {_SLOWEST_STEP} s: {call.error!r}"
            for pool in self.stage.pools.values():
                stats = pool.snapshot()
                assert (stats.leased, stats.connecting, stats.waiting) == (0, 0, 0)
        self.stage.close()

    def heal(self) -> None:
        """Play healthy servers and patient readers for the longest step."""
        end = self.now + _SLOWEST_STEP
        self.be_served()
        while self.now < end - _TINY:
            timer = self.stage.poller.timeout
            self.pass_time(min(end - self.now, timer if timer >= 0 else FOREVER))
            self.be_served()
        assert not self.pending, f"still waiting: {[call.exchange.request for call in self.pending]}"

    def be_served(self) -> None:
        """Accept, answer, finish and read all there is."""
        while True:
            for channel in self.stage.open:
                channel.room = None
            for download in self.unfinished:
                self.feed(download, len(download.whole))
            for channel, line in self.asked:
                self.respond(channel, line, "keep")
            self.settle()
            readable = self.readable
            for download in readable:
                self.read(download)
            if self.dials:
                self.accept_all()
            elif not readable and not self.asked and not self.unfinished:
                return

    def on_dials(self, dials: list[MemoryDial]) -> None:
        """I17: after the end began, only those who wait are connected for, and after it nobody."""
        if dials and self.disposed_at < FOREVER:
            for dial in dials:
                assert not dial.is_pending or not self.done.is_set(), "connected after the end"
                assert not dial.is_pending or any(call.exchange.key == dial.key for call in self.pending), (
                    "connected for nobody"
                )

    def check_error(self, call: Call, error: TurboPoolError) -> None:
        """I27, FLT-P13: a documented class, where it happened, and what is known of the request."""
        assert type(error).__name__ in _DOCUMENTED
        assert error.phase in _PHASES, f"{error!r} has phase {error.phase}"
        assert error.origin == call.exchange.key.origin
        sent = any(call.start_line in channel.sent for channel in self.stage.channels)
        assert error.request_sent == sent, f"{error!r} says request_sent={error.request_sent}"
        assert (error.processed == "no") == (not sent), f"{error!r} says processed={error.processed}"
        assert not (error.may_retry and sent) or call.exchange.wire.idempotent

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
    def books_balance(self) -> None:
        """I26: whatever was counted as begun has ended, or is waiting, or under way."""
        for key, pool in self.stage.pools.items():
            stats = pool.snapshot()
            calls = [call for call in self.stage.calls if call.exchange.tally is pool]
            assert stats.completed + stats.failed + stats.cancelled == sum(call.future.done() for call in calls)
            assert stats.waiting == sum(call.is_waiting for call in calls)
            assert stats.requests <= len(calls) + stats.replays
            assert stats.reconnects <= sum(dial.key == key for dial in self.stage.dialer.dials)

    @invariant()
    def requests_are_somewhere_exactly_once(self) -> None:
        """I4, I5: one outcome, or a place in a queue, or a connection of one's own."""
        calls = self.stage.calls
        assert all(call.outcomes == call.future.done() for call in calls)
        running = [call.exchange.connection for call in calls if call.is_running]
        assert len(running) == len(set(running))

    @invariant()
    def nobody_is_late(self) -> None:
        """I6: on this clock there is nothing a deadline would have to wait for."""
        for call in self.stage.calls:
            end = self.now if call.done_at is None else call.done_at
            assert end <= call.exchange.asked_at + self.patience.get(call, FOREVER) + _TINY
            assert not call.is_waiting or self.now < call.exchange.queue_deadline

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """I13: whoever waits is dialed for as soon as there may be a dial; else something is to come."""
        quota = self.stage.quota
        for key, pool in self.stage.pools.items():
            books, recovery = pool.ledger, pool.recovery
            if not books.queued:
                continue
            if recovery.may_dial(self.now):
                assert not books.wants_dial or quota.wanted_since < FOREVER, f"{key.origin} could dial"
                fresh = sum(lessee.needs_fresh for lessee in books.returned)
                assert books.queued <= fresh or not books.idle, "a waiter beside an idle connection"
                if not books.busy and not books.dialing:
                    assert quota.wanted_since < FOREVER, "everybody waits, and nothing is under way"
            elif not books.busy and not books.dialing:
                assert self.now < recovery.due <= self.now + _SLOWEST_STEP + _TINY, "no attempt is to come"

    @invariant()
    def failing_keys_keep_nobody(self) -> None:
        """BEH-R3: when the attempts have ended, only those wait whom a connection, a dial or room may serve."""
        for pool in self.stage.pools.values():
            stats = pool.snapshot()
            if stats.state == "failing" and stats.waiting:
                assert stats.idle + stats.leased + stats.connecting or self.stage.quota.wanted_since < FOREVER

    @invariant()
    def queues_are_first_come_first_served(self) -> None:
        """I13, BEH-P37: nobody gets a connection before one who asked earlier and still waits."""
        waiting = dict.fromkeys(KEYS, FOREVER)
        for number, call in enumerate(self.stage.calls):
            key, exchange = call.exchange.key, call.exchange
            if call.is_waiting and not exchange.replays:
                waiting[key] = min(waiting[key], number)
            elif call.is_running:
                assert number < waiting[key] or exchange.replays, f"{exchange.request} overtook"

    @invariant()
    def responses_belong_to_their_requests(self) -> None:
        """I7, I8."""
        for call in self.stage.calls:
            if call.future.done() and not call.future.cancelled() and call.error is None and not call.exchange.made_at:
                target = call.exchange.wire.head.split(b" ")[1]
                assert call.response.content == target * 6 or call.response.status_code == 408

    @invariant()
    def connections_serve_one_key_until_they_saw_trouble(self) -> None:
        """I11, I12."""
        for dial in self.stage.dialer.dials:
            if dial.channel is not None:
                lines = REQUEST.findall(dial.channel.sent)
                assert len(lines) <= self.doomed.get(dial.channel, len(lines)), "a doomed connection was used"
                assert all(self.stage.calls[int(line.split(b"/")[1])].exchange.key == dial.key for line in lines)

    @invariant()
    def requests_are_not_sent_too_often(self) -> None:
        """I9, I10."""
        sent: Counter[bytes] = Counter()
        for call in self.stage.calls:
            line = call.start_line
            sent[line] = sum(line in channel.sent for channel in self.stage.channels)
            assert sent[line] <= (2 if call.exchange.wire.idempotent else 1)

    @invariant()
    def connections_are_evicted_in_time(self) -> None:
        """I23."""
        for pool in self.stage.pools.values():
            assert all(self.now < connection.idle_until for connection in pool.ledger.idle)
            late = [one for one in pool.ledger.idle if self.now >= one.idle_since + 10.0]
            assert len(late) <= pool.settings.min_idle

    @invariant()
    def nothing_piles_up(self) -> None:
        """I24: what reconnecting remembers is what there is, and timers are those of actors and connections."""
        for pool in self.stage.pools.values():
            books = pool.ledger
            assert set(pool.recovery.unproven) <= {*books.idle, *books.carriers(), *books.dialing}
            assert pool.recovery.state is not State.COLD or not pool.recovery.has_answered
        timers = self.stage.dispatcher.census()[1]
        assert timers <= 1 + 4 * len(self.stage.pools) + len(self.stage.open)

    @invariant()
    def errors_are_documented_and_own(self) -> None:
        """I27."""
        errors = [(call, call.error) for call in self.stage.calls if call.future.done() and not call.future.cancelled()]
        found = [(call, error) for call, error in errors if error is not None]
        assert len({id(error) for _, error in found}) == len(found), "an error was shared"
        for call, error in found:
            assert isinstance(error, TurboPoolError), repr(error)
            self.check_error(call, error)

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


Storm.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, print_blob=True)
TestStorm = Storm.TestCase
