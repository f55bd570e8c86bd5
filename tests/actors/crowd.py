"""Callers' threads, a server and somebody who disturbs them, on a stage whose dispatcher is one more thread.

All of them are real threads that a :class:`~tests.actors.scheduler.Scheduler` runs in turn. What callers do is what
`turbopool.client` and `turbopool.runtime` do for them.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial

from tests.actors.calls import Call
from tests.actors.scheduler import Schedule, Scheduler
from tests.actors.stage import KEY, Bug, Stage
from tests.actors.world import REQUEST
from tests.servers.wire import respond
from turbopool.actors import afloat, base, claims, ledger, pool, refusals, shelf, tcp_manager
from turbopool.actors.base import tell
from turbopool.actors.messages import AbandonAll, Dispose, EvictIdle, Lease
from turbopool.clock import NEVER, SystemClock
from turbopool.errors import TurboPoolError
from turbopool.transport import claimable
from turbopool.transport.interfaces import END_EDGE
from turbopool.transport.memory import MemoryChannel, MemoryDial

MODULES = (shelf, afloat, ledger, claimable, claims, tcp_manager, pool, base)
PATROLS = 2 * (claims.PATROL + claims.AGAIN)
"""Seconds within which everything a killed thread left behind is found."""
_AFLOAT = 1.0
"""Seconds within which the dispatcher goes on with what was launched, and is longer than all that it waits for then."""
_RECONNECTED = 32.0
"""Seconds within which connections that ended without an answer are dialed anew."""
_TIMEOUT = 30.0
"""Seconds, for requests that nobody cancels when the thread that made them is killed."""
_TURNS = 4
"""How many turns the dispatcher makes, if there is always something to do, before another goes on."""


@dataclass(frozen=True)
class Plan:
    """What happens, but for when."""

    callers: tuple[tuple[str, ...], ...] = (("send",), ("send",))
    """What each caller does, one after the other. ``send`` and ``post`` drive an idle connection, if there is one. The
    others launch a GET: ``async`` receives its response, ``engage`` has the dispatcher do so, ``leave`` just waits."""
    limit: int = 1
    server: tuple[str, ...] = ()
    """What the server does with the first requests: ``ok``, ``close`` (and says so), ``end`` (without an answer),
    ``late`` (closes after the answer, without a word), ``split`` (answers in two pieces). Then all is ``ok``."""
    events: tuple[str, ...] = ()
    """What happens besides; see :meth:`Crowd.disturb`."""

    @property
    def is_calm(self) -> bool:
        """Whether no connection ends but by the server's announcement, and nothing else happens."""
        return not {"end", "late"} & set(self.server) and not self.events


class Channel(MemoryChannel):
    """A channel that blocks whoever awaits its bytes, and whose server sees what it must not."""

    def __init__(self, crowd: Crowd) -> None:
        super().__init__(crowd.stage.poller)
        self.crowd = crowd
        self.asked: deque[bytes] = deque()
        """The requests that are not answered."""
        self.is_over = self.is_reported = False
        """Whether the server ended it; whether the dispatcher was told."""
        self.reader: str | None = None

    def feed(self, *pieces: bytes) -> None:
        """Let bytes arrive."""
        self.is_over = self.is_over or b"" in pieces
        super().feed(*pieces)

    def send(self, data: bytes | memoryview) -> int:
        """Take it, and look at what came."""
        if self.closed:
            self.crowd.faults.append(f"{self.crowd.who} wrote to a closed channel")
        size = super().send(data)
        for line in REQUEST.findall(bytes(data)):
            if self.asked:
                self.crowd.faults.append(f"{line!r} sent while {self.asked[0]!r} is under way")
            self.asked.append(line)
            self.crowd.on_request(line)
        return size

    def receive(self) -> bytes | None:
        """Look who reads."""
        if self.reader not in {None, self.crowd.who}:
            self.crowd.faults.append(f"{self.crowd.who} reads while {self.reader} does")
        return super().receive()

    def await_bytes(self, patience: float) -> bytes | None:
        """Wait until there is something."""
        self._await()
        return super().await_bytes(patience)

    def await_into(self, room: memoryview, patience: float) -> bytes | memoryview | None:
        """Wait until there is something."""
        self._await()
        return super().await_into(room, patience)

    def _await(self) -> None:
        self.reader = self.crowd.who
        try:
            self.crowd.scheduler.wait(lambda: not self.is_quiet() or self.closed)
        finally:
            self.reader = None

    def close(self) -> None:
        """Look whether somebody reads."""
        if self.reader is not None:
            self.crowd.faults.append(f"closed under the feet of {self.reader}")
        super().close()

    def _readiness(self) -> int:
        return super()._readiness() | (END_EDGE if self.is_over and not self.is_reported else 0)


class Crowd:
    """One run of a plan by a schedule; :meth:`run` is all there is to call."""

    def __init__(self, plan: Plan, schedule: Schedule) -> None:
        self.plan = plan
        self.stage = Stage(limit=plan.limit)
        self.stage.clock.moment = SystemClock.now()  # a caller who drives a connection asks that for the time
        self.scheduler = Scheduler(schedule, MODULES, (base,), self._pass_time, self.look)
        self.faults: list[str] = []
        self.written: Counter[bytes] = Counter()
        self.joined: list[Call] = []
        """Those who have stood in line."""
        self.ahead: dict[bytes, list[Call]] = {}
        """Who stood in line already when somebody came, by its first line."""
        self._is_deadly = bool(schedule.kills)
        seconds = PATROLS if self._is_deadly else _RECONNECTED if "end" in plan.server else _AFLOAT
        self._end = self.stage.clock.moment + seconds
        self._timeout = -1.0
        self._script = deque(plan.server)
        self._rests: deque[tuple[Channel, bytes]] = deque()
        self._dialed: set[MemoryDial] = set()
        self._warm_up()
        self._poll, self._watch = self.stage.poller.poll, self.stage.poller.watch
        self.stage.poller.poll = self._patient_poll  # type: ignore[method-assign]  # the stage has made it already
        self.stage.poller.watch = self._edge_watch  # type: ignore[method-assign]
        for number, kinds in enumerate(plan.callers):
            self.scheduler.add(f"caller {number}", partial(self._call, kinds))
        self.scheduler.add("dispatcher", self._dispatch, is_daemon=True)
        self.scheduler.add("server", self._serve, is_daemon=True)
        if plan.events:
            self.scheduler.add("events", self._disturb_all)

    @property
    def who(self) -> str | None:
        """Who is running."""
        return self.scheduler.now_running

    def run(self) -> None:
        """Run to the end, and look at what is left."""
        try:
            self.scheduler.run()
        except BaseException:
            self._abort()
            raise
        self.look()
        if self.scheduler.killed:
            self.stage.advance(PATROLS)
            for call in self.stage.calls:
                call.future.cancel()  # nobody has it any more
        self.stage.advance(_AFLOAT)
        try:
            self._check()
        finally:
            self._abort()

    def _abort(self) -> None:
        self.stage.poller.poll, self.stage.poller.watch = self._poll, self._watch  # type: ignore[method-assign]
        self.stage.dispatcher.stop()
        for ref in [self.stage.supervisor, *(one.ref for one in self.stage.pools.values())]:
            base.bury(ref)

    # -- what must hold ------------------------------------------------------------------

    def look(self) -> None:
        """Look at the bounds, and at what the channels saw."""
        assert not self.faults, self.faults
        if {"crash", "stop"} & set(self.plan.events):
            return  # what callers' threads have of a dead manager's connections is theirs until they see it
        count = len(self.stage.open) + len(self.stage.dialer.pending)
        assert count <= self.plan.limit, f"{count} connections"

    def on_request(self, line: bytes) -> None:
        """A request reached the server: nobody was overtaken, unless a connection was on its way to whoever that is."""
        self.written[line] += 1
        if not self.plan.is_calm or self.scheduler.killed:
            return
        books = self.stage.pools[KEY].ledger
        assert isinstance(books, ledger.Ledger)
        served = books.lessees()
        overtaken = [
            call.start_line for call in self.ahead.get(line, ())
            if not call.exchange.done and not self.written[call.start_line] and call.exchange not in served
        ]  # fmt: skip
        in_hand = [one for one in books.claimed() if not one.claimed and one.exchange is None]
        if overtaken and not in_hand:
            self.faults.append(f"{line!r} overtook {overtaken}")

    def _check(self) -> None:
        """Everybody has one outcome, and his own; the counts are right."""
        good = bad = 0
        for call in self.stage.calls:
            assert call.outcomes == 1, call.start_line
            assert self.written[call.start_line] <= (1 if call.start_line.startswith(b"POST") else 2)
            try:
                assert call.response.content == call.start_line.split()[1], "another's response"
                good += 1
            except CancelledError:
                pass
            except TurboPoolError:
                bad += 1
        assert not self.plan.is_calm or self.scheduler.killed or not bad
        self.stage.settle()
        if KEY in self.stage.pools and not self.scheduler.killed:
            stats = self.stage.stats()
            if not {"crash", "stop"} & set(self.plan.events):  # then what was under way may be counted too low
                assert (stats.completed, stats.failed) == (good, bad), stats
            assert (stats.in_flight, stats.waiting, stats.leased) == (0, 0, 0), stats
            assert stats.opened - stats.closed == stats.idle == len(self.stage.open), stats
        self.stage.close()

    # -- the threads ---------------------------------------------------------------------

    def _call(self, kinds: tuple[str, ...]) -> None:
        for kind in kinds:
            timeout = _TIMEOUT if self._is_deadly else None  # what nobody waits for any more is not cancelled
            method, body = ("POST", b"hello") if kind == "post" else ("GET", None)
            call = self.stage.prepare(method=method, body=body, timeout=timeout)
            self.ahead[call.start_line] = [one for one in self.joined if not one.exchange.done]
            its = self.stage.pools.get(KEY)
            call.exchange.tally = its
            if kind not in ("send", "post") or its is None or not shelf.drive(its, call.exchange):
                self._submit(call)
            if call.exchange.raft and kind != "leave":
                shelf.land(call.exchange.raft) if kind == "engage" else shelf.receive(call.exchange, None)
            self.scheduler.wait(partial(getattr, call.exchange, "done"))

    def _submit(self, call: Call) -> None:
        its, unheard = self.stage.pools.get(KEY), [call.exchange]
        if its is not None:
            call.exchange.tally = its
            if shelf.launch(its, call.exchange):
                return
            unheard = shelf.join(its, call.exchange)
            self.joined.append(call)
        for lessee in unheard:
            if not tell(self.stage.supervisor, Lease(lessee)):
                lessee.fail(refusals.disposed(lessee.origin))

    def _dispatch(self) -> None:
        while True:
            for _ in range(_TURNS):
                self.stage.dispatcher.turn(-1.0)
            self.scheduler.give_way()

    def _serve(self) -> None:
        while True:
            self.scheduler.wait(lambda: self._rests or self._dials or self._asked)
            if self._dials:
                dial = self._dials[0]
                self._dialed.add(dial)
                self.stage.dispatcher.post(partial(self._connect, dial))
            elif self._rests:
                channel, rest = self._rests.popleft()
                channel.feed(rest)
            else:
                channel = self._asked[0]
                self._answer(channel, self._script.popleft() if self._script else "ok")

    def _connect(self, dial: MemoryDial) -> None:
        dial.succeed(Channel(self))

    @property
    def _dials(self) -> list[MemoryDial]:
        return [dial for dial in self.stage.dialer.pending if dial not in self._dialed]

    @property
    def _asked(self) -> list[Channel]:
        return [one for one in self._channels if one.asked and not one.is_over]

    @property
    def _channels(self) -> list[Channel]:
        return [one for one in self.stage.open if isinstance(one, Channel)]

    def _answer(self, channel: Channel, how: str) -> None:
        if how == "end":
            channel.feed(b"")
            return
        fields = [("Connection", "close")] if how == "close" else []
        whole = respond(channel.asked.popleft().split()[1], headers=fields)
        if how == "split":
            channel.feed(whole[:20])
            self._rests.append((channel, whole[20:]))
        else:
            channel.feed(whole, *([b""] if how in ("close", "late") else []))

    def _disturb_all(self) -> None:
        for event in self.plan.events:
            self.scheduler.give_way()
            self.disturb(event)

    def disturb(self, event: str) -> None:  # noqa: C901, PLR0912 - a line an event
        """Let something happen."""
        stage = self.stage
        its = stage.pools.get(KEY)
        match event:
            case "evict" | "patrol" if its is not None:
                tell(its.ref, EvictIdle(everything=event == "evict"))
            case "crash" if its is not None:
                tell(its.ref, Bug())
            case "stop" if its is not None:
                base.stop(its.ref)
            case "stop all":  # the supervisor does the rest
                base.stop(stage.supervisor)
            case "drain" | "halt":
                stage.is_disposed = True
                ending = (
                    Dispose("finish", NEVER, threading.Event())
                    if event == "drain"
                    else Dispose("fail", stage.clock.now(), threading.Event())
                )
                tell(stage.supervisor, ending)
            case "cancel":
                for call in [one for one in stage.calls if not one.exchange.done][:1]:
                    call.future.cancel()
            case "engage":
                for call in [one for one in stage.calls if one.exchange.raft][:1]:
                    shelf.land(call.exchange.raft)
            case "cancel all":
                tell(stage.supervisor, AbandonAll(None, threading.Event()))
            case "end" | "stray":
                for channel in [one for one in self._channels if not one.asked and not one.is_over][:1]:
                    channel.feed(*([] if event == "end" else [b"stray"]), b"")
            case _:
                assert its is None, event

    # -- the stage -----------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Have as many idle connections as there may be, each of which has served a request."""
        calls = []
        for _ in range(self.plan.limit):
            calls.append(self.stage.send())
            self.stage.dialer.pending[0].succeed(Channel(self))
            self.stage.settle()
        for channel in self._asked:
            self._answer(channel, "ok")
        self.stage.settle()
        assert all(call.exchange.done for call in calls)

    def _patient_poll(self, timeout: float) -> list[tuple[int, int]]:
        """Poll, and wait as a real one does, if the dispatcher runs as a thread; an end is reported once."""
        if timeout and self.who == "dispatcher":
            self._timeout = timeout
            due = NEVER if timeout < 0 else self.stage.clock.now() + timeout
            self.scheduler.wait(lambda: self._poll(0) or self.stage.clock.now() >= due)
            timeout = 0
        events = self._poll(timeout)
        for channel in self._channels:
            if any(fd == channel.fd and mask & END_EDGE for fd, mask in events):
                channel.is_reported = True
        return events

    def _edge_watch(self, fd: int, mask: int) -> None:
        for channel in self._channels:
            if channel.fd == fd:
                channel.is_reported = False
        self._watch(fd, mask)

    def _pass_time(self) -> bool:
        """Let time pass until the next timer fires, if that is for what is afloat, or was left by a killed thread."""
        clock = self.stage.clock
        if self._timeout < 0 or clock.now() + self._timeout > self._end:
            return False
        clock.advance(self._timeout)
        return True
