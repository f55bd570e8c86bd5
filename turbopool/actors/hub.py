"""What all runtimes of a process share: one dispatcher, its resolver, and the threads callers' code runs on.

Started by the first runtime that needs it, stopped by the last that lets it go. A forked child gives its copy up and
starts anew on first use; the parent's is untouched.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from contextlib import ExitStack
from typing import Protocol

from turbopool.actors import shelf
from turbopool.actors.afloat import Afloat
from turbopool.actors.base import renew_registry_after_fork
from turbopool.actors.dispatcher import LATE, Dispatcher
from turbopool.actors.poller import system_poller, system_waker
from turbopool.clock import SystemClock
from turbopool.transport.resolver import Resolver
from turbopool.transport.workers import Workers

MAX_CALLBACK_THREADS = 64
"""Callbacks at once; further ones wait. One that blocks for ever holds one of these threads for ever."""
MAX_BODY_THREADS = 1024
"""Request bodies drawn from files and iterators at once."""


class Forgettable(Protocol):
    """Whoever must start anew in a forked child."""

    def forget(self) -> None:
        """Forget everything that is the parent's."""
        ...


class User(Protocol):
    """Whoever relies on a hub: a runtime."""

    def on_hub_lost(self, hub: Hub, error: BaseException) -> None:
        """Fail what was under way, and start anew when asked again. Any thread."""
        ...


class Hub:
    """A running dispatcher and what belongs to it.

    Attributes:
        dispatcher, resolver, afloat: see there.
        callbacks: runs callers' done-callbacks.
        bodies: runs callers' body iterators.
        users: told when the dispatcher is lost.
    """

    def __init__(self) -> None:
        self._closed = False
        self.users: weakref.WeakSet[User] = weakref.WeakSet()
        with ExitStack() as undo:  # a machine that has run out of descriptors or threads
            undo.callback((poller := system_poller()).close)
            undo.callback((waker := system_waker()).close)
            self.dispatcher = Dispatcher(SystemClock(), poller, waker, self._on_end)
            self.dispatcher.start()
            undo.pop_all()
        self.resolver = Resolver(self.dispatcher)
        self.afloat = Afloat(self.dispatcher, shelf.land)
        self.callbacks = Workers("turbopool-callback", MAX_CALLBACK_THREADS)
        self.bodies = Workers("turbopool-body", MAX_BODY_THREADS)
        self.count = 0
        _hubs.add(self)

    def close(self) -> None:
        """Stop all threads; the calling one, if it is among them, ends by itself afterwards."""
        self._closed = True
        self.dispatcher.stop()
        self.resolver.close()
        self.callbacks.close()
        self.bodies.close()

    def stop_at_exit(self) -> None:
        """Stop the dispatcher, and tell nobody: those who still wait are daemons."""
        self._closed = True
        self.dispatcher.stop(timeout=1.0)

    def is_lost(self, now: float) -> bool:
        """Whether the dispatcher's thread ended or is stuck; whoever learns it first has all users told. Any thread.

        Waits a second to be sure, but only if the thread is late: a process that was suspended is late for a moment.
        """
        dispatcher = self.dispatcher
        if not dispatcher.has_ended:
            if not dispatcher.is_late(now) or dispatcher.answers(CONFIRM):
                return False
            dispatcher.give_up()
            self._lose(TimeoutError(f"it has been stuck for more than {LATE:g} seconds"))
        return True

    def _on_end(self, death: BaseException | None) -> None:
        if not self._closed:
            self._lose(death or RuntimeError("it was stopped while clients used it"))

    def _lose(self, error: BaseException) -> None:
        for user in list(self.users):
            user.on_hub_lost(self, error)


CONFIRM = 1.0
"""Seconds of silence that turn the suspicion that a thread is stuck into a fact."""

_lock = threading.Lock()
_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()
_users: weakref.WeakSet[Forgettable] = weakref.WeakSet()
_shared: Hub | None = None


def forget_after_fork(user: Forgettable) -> None:
    """Have ``user.forget()`` called in every forked child: another thread may hold its locks at that moment."""
    _users.add(user)


def acquire(user: User, *, own: bool) -> Hub:
    """Return the process's hub, starting it if need be, or a new one if the user wants its ``own``."""
    global _shared  # noqa: PLW0603  # one per process is what it is about
    with _lock:
        hub = None if own else _shared
        if hub is None or hub.dispatcher.has_ended:
            hub = Hub()
            if not own:
                _shared = hub
        hub.count += 1
        hub.users.add(user)
        return hub


def release(user: User, hub: Hub) -> None:
    """Let the hub go; the last user stops it."""
    global _shared  # noqa: PLW0603
    with _lock:
        hub.count -= 1
        hub.users.discard(user)
        last = hub.count == 0
        if last and hub is _shared:
            _shared = None
    if last:
        hub.close()


def live_hubs() -> list[Hub]:
    """Return the hubs whose thread runs."""
    return [hub for hub in list(_hubs) if hub.dispatcher.is_alive]


def _stop_at_exit() -> None:
    """Stop the threads of a process that never disposed: daemons must not run into a dying interpreter."""
    for hub in live_hubs():
        hub.stop_at_exit()


def _after_fork() -> None:
    """Give up the parent's descriptors in the child. Runs in the one thread the child has."""
    global _lock, _shared  # noqa: PLW0603
    _lock = threading.Lock()
    _shared = None
    hubs = list(_hubs)
    _hubs.clear()
    for hub in hubs:
        hub.dispatcher.abandon()
    for user in list(_users):
        user.forget()
    renew_registry_after_fork()


atexit.register(_stop_at_exit)
os.register_at_fork(after_in_child=_after_fork)
