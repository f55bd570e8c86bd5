"""Real threads of which one runs at a time: a schedule says after how many lines which one goes on.

A thread is held up only within the modules that are looked into, before any of their lines, or instructions if the
schedule is ``fine``; and where it waits for a fact, which it does by :meth:`Scheduler.wait` and in no other way.
So a run is a function of its schedule, and one that failed can be run again.
"""

from __future__ import annotations

import sys
import threading
from _thread import allocate_lock
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any

Fact = Callable[[], object]
Trace = Callable[[FrameType, str, Any], Any]
_MOST_STEPS = 200_000


@dataclass(frozen=True)
class Schedule:
    """Who is held up where."""

    switches: Sequence[tuple[int, int]] = ()
    """After so many more steps, which of the others that can go on does; nobody is held up after the last."""
    kills: dict[str, Sequence[int]] = field(default_factory=dict)
    """By the thread's name, after how many more steps it is interrupted."""
    is_fine: bool = False
    """Whether a step is an instruction, else a line."""


class Killed(BaseException):
    """What interrupts a thread."""


class _Over(BaseException):
    """Ends the threads that would go on waiting."""


class _Thread:
    """One of the threads."""

    def __init__(self, name: str, task: Callable[[], None], kills: Iterable[int], *, is_daemon: bool) -> None:
        self.name = name
        self.task = task
        self.is_daemon = is_daemon
        self.baton = allocate_lock()
        self.baton.acquire()
        self.fact: Fact | None = None
        self.has_ended = self.was_killed = False
        self.error: BaseException | None = None
        self.kills = list(kills)
        self.left = self.kills.pop(0) if self.kills else 0

    @property
    def can_go_on(self) -> bool:
        return not self.has_ended and (self.fact is None or bool(self.fact()))


class Scheduler:
    """Runs threads in turn.

    Args:
        schedule: who is held up where.
        modules: those that are looked into.
        safe: those in which nobody is killed.
        on_rest: called when all wait, and not in vain; returns whether that changed anything.
        look: called at each switch; what it raises fails the run.
    """

    def __init__(
        self,
        schedule: Schedule,
        modules: Collection[ModuleType],
        safe: Collection[ModuleType] = (),
        on_rest: Callable[[], bool] = lambda: False,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._schedule = schedule
        self._files = {module.__file__: module not in safe for module in modules}
        self._on_rest = on_rest
        self._look = look
        self._switches = iter(schedule.switches)
        self._left, self._whom = next(self._switches, (0, 0))
        self._threads: list[_Thread] = []
        self._running: _Thread | None = None
        self._rested = allocate_lock()
        self._rested.acquire()
        self._is_over = False
        self._fault: BaseException | None = None
        self.steps = 0

    def add(self, name: str, task: Callable[[], None], *, is_daemon: bool = False) -> None:
        """Add a thread; one that is a daemon may wait for ever."""
        self._threads.append(_Thread(name, task, self._schedule.kills.get(name, ()), is_daemon=is_daemon))

    @property
    def now_running(self) -> str | None:
        """The name of the thread that runs; None outside :meth:`run`."""
        return None if self._running is None or self._is_over else self._running.name

    @property
    def killed(self) -> set[str]:
        """The names of those that were interrupted."""
        return {thread.name for thread in self._threads if thread.was_killed}

    def run(self) -> None:
        """Run all to their ends.

        Raises:
            AssertionError: some wait for ever.
        """
        threads = [threading.Thread(target=self._main, args=(thread,), name=thread.name) for thread in self._threads]
        for thread in threads:
            thread.start()
        self._running = self._threads[0]
        self._running.baton.release()
        self._rested.acquire()
        stuck = [one.name for one in self._threads if not one.has_ended and not one.is_daemon]
        self._is_over = True
        for one, thread in zip(self._threads, threads, strict=True):
            with suppress(RuntimeError):  # it does not wait: it has ended
                one.baton.release()
            thread.join()
        self._running = None
        for fault in (self._fault, *(one.error for one in self._threads)):
            if fault is not None:
                raise fault
        assert not stuck, f"these wait for ever: {stuck}"

    # -- on the threads ------------------------------------------------------------------

    def wait(self, fact: Fact) -> None:
        """Let the others go on until ``fact`` is true."""
        thread = self._running
        assert thread is not None
        while not self._is_over and not fact():
            thread.fact = fact
            self._hand_over(thread, 0)
            thread.fact = None
        if self._is_over:
            raise _Over

    def give_way(self) -> None:
        """Let another go on, if any can."""
        thread = self._running
        if thread is not None and not self._is_over:
            self._hand_over(thread, 0)
        if self._is_over:
            raise _Over

    def _main(self, thread: _Thread) -> None:
        thread.baton.acquire()
        before = sys.gettrace()
        sys.settrace(self._tracer(thread))
        try:
            if not self._is_over:
                thread.task()
        except _Over:
            pass
        except Killed:
            thread.was_killed = True
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            thread.error = error
        finally:
            sys.settrace(before)
            thread.has_ended = True
            if thread.error is not None:
                self._end()
            elif not self._is_over:
                self._hand_over(thread, 0)

    def _tracer(self, thread: _Thread) -> Trace:
        files, step, is_fine = self._files, self._step, self._schedule.is_fine

        def local(frame: FrameType, event: str, argument: object) -> Trace:
            del argument
            if event in ("line", "opcode"):
                step(thread, tracer, is_deadly=files[frame.f_code.co_filename])
            return local

        def tracer(frame: FrameType, event: str, argument: object) -> Trace | None:
            del event, argument
            if frame.f_code.co_filename not in files:
                return None
            if is_fine:
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return local

        return tracer

    def _step(self, thread: _Thread, tracer: Trace, *, is_deadly: bool) -> None:
        if self._is_over:
            return
        self.steps += 1
        if thread.left and is_deadly:
            thread.left -= 1
            if not thread.left:
                thread.left = thread.kills.pop(0) if thread.kills else 0
                _go_on_tracing(tracer)
                raise Killed
        self._left -= 1
        if not self._left:
            whom = self._whom
            self._left, self._whom = next(self._switches, (0, 0))
            self._hand_over(thread, whom)

    def _hand_over(self, thread: _Thread, whom: int) -> None:
        """Let another go on, and wait for one's turn."""
        try:
            self._look()
            chosen = self._choose(thread, whom)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._fault = error
            chosen = None
        if self._fault is not None or self.steps > _MOST_STEPS or chosen is None:
            self._end()
        elif chosen is thread:
            return
        else:
            self._running = chosen
            chosen.baton.release()
        if not thread.has_ended:
            thread.baton.acquire()

    def _choose(self, thread: _Thread, whom: int) -> _Thread | None:
        """Return who goes on, or None if nobody can, or need."""
        at = self._threads.index(thread)
        others = self._threads[at + 1 :] + self._threads[:at]
        while True:
            able = [one for one in others if one.can_go_on] or [one for one in (thread,) if one.can_go_on]
            if able:
                return able[whom % len(able)]
            if all(one.has_ended or one.is_daemon for one in self._threads) or not self._on_rest():
                return None

    def _end(self) -> None:
        with suppress(RuntimeError):  # said before
            self._rested.release()


def _go_on_tracing(tracer: Trace) -> None:
    """Set the trace function anew as soon as possible: an exception it raises unsets it."""

    def profile(other: FrameType, event: str, argument: object) -> None:
        del event, argument
        sys.setprofile(None)
        sys.settrace(tracer)
        other.f_trace = tracer(other, "call", None)

    sys.setprofile(profile)
