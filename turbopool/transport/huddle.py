"""A huddle: threads that pass the interpreter on to each other wait on one core.

Python runs one thread at a time. Whoever lets go of the interpreter wakes the next, and the kernel wakes a thread where
a core is idle: on another one, through an interrupt, only to find that the interpreter has been taken meanwhile. That
takes longer than a request. On one core the next is at hand; there the same threads do up to twice the work.

So while that is measured to make requests shorter (:mod:`turbopool.transport.trials`), a thread that waits does it on
one core, the huddle's home. Its affinity is narrowed for the time of the wait, or for the moment that it takes to move,
and restored before it goes on: what it starts does not inherit what it has while it waits. That is why the main thread
takes no part: signal handlers run there, in the midst of a wait. The dispatcher's thread lives at home as long as there
is one, and the workers that it starts step out; of callers' code only log handlers and finalizers run there.

Linux only. Benchmark: ``make bench``, every row with more than one thread.
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import LockType, get_ident
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import ParamSpec, Protocol, TypeVar

SWITCH = "TURBOPOOL_HUDDLE"
"""The environment variable that forbids it all, if it is 0 when this is imported."""
AT_MOST = 0.02
"""Seconds for which a caller's thread is kept on one core; a longer wait is no hot path, and others may look."""
STALE = 1.0
"""Seconds after the time for which a party joined, after which it counts as gone: it has too few requests to say so."""

P = ParamSpec("P")
T = TypeVar("T")


class Cores(Protocol):
    """What the system lets a thread say of the cores that it may run on."""

    def here(self) -> int:
        """Return the core on which this thread runs."""
        ...

    def allowed(self) -> AbstractSet[int]:
        """Return those on which this thread may run."""
        ...

    def allow(self, cores: AbstractSet[int]) -> None:
        """Let this thread run on these alone; if it runs elsewhere, it moves.

        Raises:
            OSError: the system does not let it.
        """
        ...


class Huddle:
    """Keeps threads on one core while they wait.

    Args:
        cores: the system's.

    Attributes:
        home: the core, or None while nobody huddles.
    """

    __slots__ = ("_cores", "_is_refused", "_lodgers", "_parties", "home")

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._parties: dict[object, float] = {}
        """Until when each has joined."""
        self._is_refused = False
        self.home: int | None = None
        self._lodgers: dict[int, tuple[int, AbstractSet[int]]] = {}
        """The threads that live at home, where that was, and where they might run before."""

    def join(self, party: object, until: float) -> None:
        """Huddle from now on. A ``party`` that is alone chooses the core: the one on which this thread runs.

        Args:
            party: of whom it was measured that it pays.
            until: when it says so again, or not.
        """
        self._parties[party] = until + STALE
        if len(self._parties) == 1 and not self._is_refused:
            self.home = self._cores.here()

    def leave(self, party: object) -> None:
        """Huddle no more; the last ends it."""
        self._parties.pop(party, None)
        if not self._parties:
            self.home = None

    def settle(self, now: float) -> None:
        """Count out those who have not been heard of for a while."""
        for party, until in self._parties.copy().items():  # any thread may join meanwhile
            if now > until:
                self.leave(party)

    def gather(self) -> None:
        """Move this thread home, if it is elsewhere and may. It may leave again at once; mostly it stays."""
        home = self.home
        if home is not None and self._cores.here() != home:
            self.keep(_go_on)

    def keep(self, wait: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``wait`` returns, and keep this thread at home until it does."""
        home, me = self.home, get_ident()
        if home is None or me == _main:
            return wait(*args, **kwargs)
        before = self._allowed()
        if len(before) == 1:  # so it was chosen, or an exception struck below before it was restored
            before = self._lodgers.pop(me, (home, before))[1]
        if home not in before or len(before) == 1:
            return wait(*args, **kwargs)
        narrow = {home}
        try:
            self._lodgers[me] = home, before  # for what a finalizer starts meanwhile
            self._allow(narrow)
            return wait(*args, **kwargs)
        finally:
            if self._allowed() == narrow:  # else somebody else has said where it is to run
                self._allow(before)
            self._lodgers.pop(me, None)

    def acquire(self, lock: LockType, timeout: float) -> bool:
        """Acquire a lock, waiting at home for a while; return whether that was done within ``timeout`` seconds."""
        if self.home is None or timeout <= 0.0:
            return lock.acquire(timeout=timeout)
        if self.keep(lock.acquire, timeout=min(timeout, AT_MOST)):
            return True
        return timeout > AT_MOST and lock.acquire(timeout=timeout - AT_MOST)

    def lodge(self) -> int | None:
        """Let this thread, one of ours, live at home, or where it did before if there is none any more.

        Return home.
        """
        home = self.home
        lived, outside = self._lodgers.pop(get_ident(), (None, None))
        allowed = self._allowed()
        if outside is not None and allowed == {lived}:  # else somebody else has said where it is to run
            self._allow(outside)
            allowed = outside
        if home is not None and home in allowed:
            self._lodgers[get_ident()] = home, allowed
            self._allow({home})
        return home

    def outside(self) -> AbstractSet[int] | None:
        """Return where this thread might run, if it did not live at home; None if it does not."""
        lodger = self._lodgers.get(get_ident())
        return None if lodger is None else lodger[1]

    def step_out(self, outside: AbstractSet[int] | None) -> None:
        """Let this thread run ``outside``, as whoever started it may; it may be that one itself, at its end."""
        self._lodgers.pop(get_ident(), None)
        if outside is not None:
            self._allow(outside)

    def forget(self) -> None:
        """Begin anew in a forked child: all that huddle are the parent's."""
        self._lodgers.clear()
        self._parties.clear()
        self.home = None

    def _allowed(self) -> AbstractSet[int]:
        try:
            return self._cores.allowed()
        except OSError:
            self._refuse()
            return frozenset()

    def _allow(self, cores: AbstractSet[int]) -> None:
        try:
            self._cores.allow(cores)
        except OSError:
            self._refuse()

    def _refuse(self) -> None:
        """Huddle no more: a sandbox forbids it, or the core was taken from us."""
        self._is_refused = True
        self.home = None


def _go_on() -> None:
    """Wait for nothing."""


class _LinuxCores:
    def __init__(self) -> None:
        import ctypes  # noqa: PLC0415  # some builds of Python come without it

        self.here: Callable[[], int] = ctypes.PyDLL(None).sched_getcpu
        self.allowed()  # or it is learned now that the system does not say

    @staticmethod
    def allowed() -> AbstractSet[int]:
        return os.sched_getaffinity(0)

    @staticmethod
    def allow(cores: AbstractSet[int]) -> None:
        os.sched_setaffinity(0, cores)


def unhuddled(task: Callable[[], None]) -> Callable[[], None]:
    """Return a task for a thread that this one is about to start, which does not live at home even if this one does."""
    if huddle is None or (outside := huddle.outside()) is None:
        return task
    host = huddle

    def run() -> None:
        host.step_out(outside)
        task()

    return run


def _after_fork() -> None:
    global _main  # noqa: PLW0603  # the one thread that a child has is its main one
    _main = get_ident()
    if huddle is not None:
        huddle.forget()


_main = threading.main_thread().ident
huddle: Huddle | None = None
"""The process's; None where there is no such thing."""
if sys.platform == "linux" and hasattr(os, "sched_setaffinity") and os.environ.get(SWITCH, "").strip() != "0":
    try:
        huddle = Huddle(_LinuxCores())
    except (ImportError, OSError, AttributeError):
        huddle = None
    os.register_at_fork(after_in_child=_after_fork)
