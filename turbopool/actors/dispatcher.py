"""One thread that runs many actors: it waits for messages, descriptors and timers at once.

A turn handles at most :data:`MESSAGES_A_TURN` messages, then whatever is ready, then what is due, and sleeps only
when nothing is left. Another thread wakes it by a write to the waker, and only if it sleeps: the sleeper announces
its sleep first and looks once more, the other queues first and looks at the announcement afterwards, so that one of
them sees the other.

Poller, clock and waker are injected: a test calls :meth:`Dispatcher.turn` itself, and nothing happens in between.
An exception that a handler lets out is reported to that handler's owner; the thread goes on.
Benchmark: ``make bench``, every row of turbopool.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from turbopool.actors.poller import Poller, Waker
from turbopool.actors.timers import LazyTimer, Timers
from turbopool.clock import NEVER, Clock
from turbopool.transport.huddle import huddle
from turbopool.transport.interfaces import READ, Handler, Outcome

_log = logging.getLogger("turbopool.dispatcher")

MESSAGES_A_TURN = 64
"""How many messages are handled before descriptors and timers get their turn."""
LATE = 5.0
"""Seconds: a turn takes milliseconds, so a thread that has been in one for so long is suspected to be stuck."""


class Runnable(Protocol):
    """Something that has one step to do: an inbox with a message, a posted call."""

    def step(self) -> None:
        """Do it. Dispatcher's thread."""
        ...


class _Call:
    """A posted call."""

    __slots__ = ("_callback", "_on_crash")

    def __init__(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> None:
        self._callback = callback
        self._on_crash = on_crash

    def step(self) -> None:
        try:
            self._callback()
        except BaseException as error:  # noqa: BLE001  # a bug: its owner is told, the thread goes on
            _log.exception("a posted call raised")
            self._on_crash(error)


def _ignore(_: BaseException) -> None:
    """Leave it at the log entry."""


class Dispatcher:
    """Runs actors, and is the reactor of their connections.

    Args:
        clock, poller, waker: where time and readiness come from.

        on_end: called by the thread when it ends, with what it died of, or None if it was stopped.

    Attributes:
        now: the present moment, as of this turn.
        polled_at: when descriptors were last looked at.
        has_ended: whether its thread has ended, or was given up.
    """

    def __init__(
        self,
        clock: Clock,
        poller: Poller,
        waker: Waker,
        on_end: Callable[[BaseException | None], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._poller = poller
        self.can_share = poller.can_share
        self._waker = waker
        self._ready: deque[Runnable] = deque()
        self._handlers: dict[int, Handler] = {}
        self._newcomers: set[int] = set()
        self._announcements: list[tuple[Callable[[Any], object], Any]] = []
        self._deferred: list[_Call] = []
        self._timers = Timers()
        self._sleeping = False
        self._woken_at = clock.now()
        self._stopping = False
        self._is_lost = False
        self._on_end = on_end
        self.has_ended = False
        self._thread: threading.Thread | None = None
        self._home: int | None = None
        self.now = self.polled_at = clock.now()
        poller.watch(waker.fileno(), READ)

    # -- any thread ------------------------------------------------------------------------------------------

    def start(self, name: str = "turbopool-dispatcher") -> None:
        """Run turns on a daemon thread of its own until :meth:`stop`."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def schedule(self, runnable: Runnable) -> None:
        """Do a step of ``runnable`` soon, in the order of the calls."""
        self._ready.append(runnable)
        if self._sleeping:
            self._woken_at = self._clock.now()  # or a thread that slept for long would look late now
            try:
                self._sleeping = False
            finally:  # or nobody would wake it any more
                self._waker.wake()

    def post(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None] = _ignore) -> None:
        """Run ``callback`` on the dispatcher's thread, in the order of the calls."""
        self.schedule(_Call(callback, on_crash))

    def clock_now(self) -> float:
        """Return the present moment, for whoever sets a deadline from outside."""
        return self._clock.now()

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is the dispatcher's."""
        return self._thread is threading.current_thread()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and not self.has_ended

    def is_late(self, now: float) -> bool:
        """Whether it is awake, and has not begun a turn for :data:`LATE` seconds."""
        return not self._sleeping and now - self.now > LATE and now - self._woken_at > LATE and not self.is_current

    def answers(self, timeout: float) -> bool:
        """Whether it does a step within ``timeout`` seconds, which a stuck one does not."""
        answered = threading.Event()
        self.post(answered.set)
        return answered.wait(timeout)

    def give_up(self) -> None:
        """Count a stuck thread as ended; should it ever go on, it closes what it holds and ends."""
        self._is_lost = self.has_ended = self._stopping = True
        for tell, outcome in self._announcements.copy():  # settled here: it may never come to it
            tell(outcome)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread after its present turn, and release poller and waker. Never joins itself."""
        self._stopping = True
        self._waker.wake()
        if self._thread is None:
            self._release()
        elif not self.is_current and not self._is_lost:
            self._thread.join(timeout)

    # -- the dispatcher's thread -----------------------------------------------------------------------------

    def watch(self, fd: int, handler: Handler, mask: int) -> None:
        """Begin to watch a descriptor, level-triggered."""
        self._poller.watch(fd, mask)
        self._handlers[fd] = handler
        self._newcomers.add(fd)

    def rewatch(self, fd: int, mask: int) -> None:
        """Change what a descriptor is watched for; 0 pauses it altogether, errors included."""
        self._poller.watch(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Stop watching; before the descriptor is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unwatch(fd)

    def timer(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> LazyTimer:
        """Return a timer, not armed. What ``callback`` lets out goes to ``on_crash``."""
        return self._timers.timer(callback, on_crash)

    def announce(self, tell: Callable[[Outcome], object], outcome: Outcome) -> None:
        """Call ``tell(outcome)`` at the end of this turn.

        A thread that is woken takes the interpreter at the next system call. So all are woken together, when the
        turn's reads and writes are done.
        """
        self._announcements.append((tell, outcome))

    def defer(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> None:
        """Run ``callback`` when the work at hand is done: what many requests of a turn have to say goes out at once."""
        self._deferred.append(_Call(callback, on_crash))

    def turn(self, timeout: float = 0.0) -> None:
        """Handle what there is, waiting up to ``timeout`` seconds (negative: as long as it takes) if nothing is."""
        self.now = self._clock.now()
        ready = self._ready
        for _ in range(min(len(ready), MESSAGES_A_TURN)):
            self._step()
        if self._deferred:
            self._run_deferred()
        awake = ready or self._announcements or not timeout  # what the messages settled must not wait for the poll
        events = self._poller.poll(0) if awake else self._sleep(timeout)
        self.now = self.polled_at = self._clock.now()
        self._handle(events)
        if self._timers.next_due() <= self.now:
            try:
                self._timers.fire(self.now)
            except BaseException:  # noqa: BLE001  # a bug within the report of a bug
                _log.exception("a timer's crash could not be reported")
        if self._deferred:
            self._run_deferred()
        if self._announcements:
            self._announce()

    def _handle(self, events: Iterable[tuple[int, int]]) -> None:
        handlers, newcomers = self._handlers, self._newcomers
        newcomers.clear()
        waker = self._waker.fileno()
        for fd, mask in events:
            handler = handlers.get(fd)
            if fd in newcomers:
                continue  # the event was another's, whose number the system has given out again in this very turn
            if handler is not None:  # else it was closed in this very turn
                try:
                    handler.on_ready(mask)
                except BaseException as error:  # noqa: BLE001  # a bug: its owner is told, the others go on
                    self._report(handler, error)
            elif fd == waker:
                self._waker.drain()

    def abandon(self) -> None:
        """Give up everything in a forked child: descriptors are closed, and nothing is sent or unregistered."""
        for handler in list(self._handlers.values()):
            handler.abandon()
        self._handlers.clear()
        self._ready.clear()
        self._poller.abandon()
        self._waker.close()

    def census(self) -> tuple[int, int]:
        """Return how many descriptors are watched and how many timers are armed."""
        return len(self._handlers), len(self._timers)

    def _run(self) -> None:
        death: BaseException | None = None
        try:
            while not self._stopping:
                self.turn(-1)
        except BaseException as error:  # noqa: BLE001  # a bug of ours: those who rely on the thread are told
            _log.critical("the dispatcher's thread died", exc_info=error)
            death = error
            self._is_lost = True
            self._ready.clear()  # nothing is done half: whoever waits is failed
        self.has_ended = True
        if huddle is not None:
            huddle.step_out(huddle.outside())
        try:
            self._release()
        finally:
            self._on_end(death)

    def _sleep(self, timeout: float) -> list[tuple[int, int]]:
        due = self._timers.next_due()
        if due != NEVER:
            left = max(0.0, due - self.now)
            timeout = left if timeout < 0 else min(timeout, left)
        self._sleeping = True
        if huddle is not None:
            if huddle.home is not None:
                huddle.settle(self.now)
            if huddle.home != self._home:
                self._home = huddle.lodge()
        events = self._poller.poll(0 if self._ready or self._stopping else timeout)
        self.now = self._clock.now()  # before it counts as awake; see is_late
        self._sleeping = False
        return list(events)

    def _step(self) -> None:
        try:
            self._ready.popleft().step()
        except BaseException:  # noqa: BLE001  # a bug within the report of a bug
            _log.exception("a step's crash could not be reported")

    def _run_deferred(self) -> None:
        while self._deferred:
            deferred, self._deferred = self._deferred, []
            for call in deferred:
                try:
                    call.step()
                except BaseException:  # noqa: BLE001  # a bug within the report of a bug
                    _log.exception("a crash could not be reported")

    def _announce(self) -> None:
        announcements, self._announcements = self._announcements, []
        for tell, outcome in announcements:
            try:
                tell(outcome)
            except BaseException:  # noqa: BLE001  # a bug: it is logged, the others are told
                _log.exception("an outcome could not be announced")

    @staticmethod
    def _report(handler: Handler, error: BaseException) -> None:
        _log.error("a handler raised", exc_info=error)
        try:
            handler.on_crash(error)
        except BaseException:  # noqa: BLE001  # it is logged, and the thread goes on
            _log.exception("a crash could not be reported")

    def _release(self) -> None:
        while self._ready:  # told to actors that have stopped: answered, not lost
            self._step()
        self._run_deferred()
        self._announce()
        for fd, handler in list(self._handlers.items()):  # none, unless the thread died or the process ends
            self.unwatch(fd)
            handler.let_go()
        self._poller.close()
        self._waker.close()
