"""A huddle: threads that pass the interpreter on to each other wait on one core.

Python runs one thread at a time. Whoever lets go of the interpreter wakes the next, and the kernel wakes a thread where
a core is idle: on another one, through an interrupt, only to find that the interpreter has been taken meanwhile. That
takes longer than a request. On one core the next is at hand; there the same threads do up to twice the work.

So while that is measured to make requests shorter (:mod:`turbopool.transport.trials`), a thread that waits does it on
one core, the huddle's home. Its affinity is narrowed for the time of the wait, or for the moment that it takes to move,
and restored before anything else runs: nothing that a caller's thread starts inherits what it has while it waits. That
is why the main thread takes no part: signal handlers run there, in the midst of a wait. The dispatcher's thread lives
at home as long as there is one, and the workers that it starts step out; of callers' code only log handlers run there.

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
        self._parties: set[object] = set()
        self._is_refused = False
        self.home: int | None = None
        self._lodgers: dict[int, tuple[int, AbstractSet[int]]] = {}
        """The threads that live at home, where that was, and where they might run before."""

    def join(self, party: object) -> None:
        """Huddle from now on. The first ``party`` chooses the core: the one on which this thread runs."""
        if not self._parties - {party} and not self._is_refused:
            self.home = self._cores.here()
        self._parties.add(party)

    def leave(self, party: object) -> None:
        """Huddle no more; the last ends it."""
        self._parties.discard(party)
        if not self._parties:
            self.home = None

    def gather(self) -> None:
        """Move this thread home, if it is elsewhere and may. It may leave again at once; mostly it stays."""
        home = self.home
        if home is not None and self._cores.here() != home:
            self.keep(bool)

    def keep(self, wait: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``wait`` returns, and keep this thread at home until it does."""
        home, cores = self.home, self._cores
        if home is None or get_ident() == _main:
            return wait(*args, **kwargs)
        before = cores.allowed()
        if home not in before or len(before) == 1:
            return wait(*args, **kwargs)
        narrow = {home}
        try:
            self._allow(narrow)
            return wait(*args, **kwargs)
        finally:
            if cores.allowed() == narrow:  # else somebody else has said where it is to run
                self._allow(before)

    def acquire(self, lock: LockType, timeout: float) -> bool:
        """Acquire a lock, waiting at home for a while; return whether that was done within ``timeout`` seconds."""
        if self.home is None or timeout <= 0.0:
            return lock.acquire(timeout=timeout)
        if self.keep(lock.acquire, timeout=min(timeout, AT_MOST)):
            return True
        return timeout > AT_MOST and lock.acquire(timeout=timeout - AT_MOST)

    def lodge(self) -> None:
        """Let this thread, one of ours, live at home, or where it did before if there is none any more."""
        home, cores = self.home, self._cores
        lived, outside = self._lodgers.pop(get_ident(), (None, None))
        allowed = cores.allowed()
        if outside is not None and allowed == {lived}:  # else somebody else has said where it is to run
            self._allow(outside)
            allowed = outside
        if home is not None and home in allowed:
            self._lodgers[get_ident()] = home, allowed
            self._allow({home})

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
        """Begin anew in a forked child: those who lived at home are the parent's."""
        self._lodgers.clear()

    def _allow(self, cores: AbstractSet[int]) -> None:
        try:
            self._cores.allow(cores)
        except OSError:  # a sandbox, or the core was taken from us
            self._is_refused = True
            self.home = None


class _LinuxCores:
    def __init__(self) -> None:
        import ctypes  # noqa: PLC0415  # some builds of Python come without it

        self.here: Callable[[], int] = ctypes.PyDLL(None).sched_getcpu

    @staticmethod
    def allowed() -> AbstractSet[int]:
        return os.sched_getaffinity(0)

    @staticmethod
    def allow(cores: AbstractSet[int]) -> None:
        os.sched_setaffinity(0, cores)


def _after_fork() -> None:
    global _main  # noqa: PLW0603  # the one thread that a child has is its main one
    _main = get_ident()
    if huddle is not None:
        huddle.forget()


_main = threading.main_thread().ident
huddle: Huddle | None = None
"""The process's; None where there is no such thing."""
if sys.platform == "linux" and os.environ.get(SWITCH, "").strip() != "0":
    try:
        huddle = Huddle(_LinuxCores())
    except (ImportError, OSError, AttributeError):
        huddle = None
    os.register_at_fork(after_in_child=_after_fork)
