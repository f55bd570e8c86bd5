"""What all runtimes of a process share: one dispatcher, its resolver, and the threads callers' code runs on.

Started by the first runtime that needs it, stopped by the last that lets it go. A forked child gives its copy up and
starts anew on first use; the parent's is untouched.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Protocol

from turbopool.actors.base import renew_registry_after_fork
from turbopool.actors.dispatcher import Dispatcher
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


class Hub:
    """A running dispatcher and what belongs to it.

    Attributes:
        dispatcher, resolver: see there.
        callbacks: runs callers' done-callbacks.
        bodies: runs callers' body iterators.
    """

    def __init__(self) -> None:
        self.dispatcher = Dispatcher(SystemClock(), system_poller(), system_waker())
        self.resolver = Resolver(self.dispatcher)
        self.callbacks = Workers("turbopool-callback", MAX_CALLBACK_THREADS)
        self.bodies = Workers("turbopool-body", MAX_BODY_THREADS)
        self.count = 0
        self.dispatcher.start()
        _hubs.add(self)

    def close(self) -> None:
        """Stop all threads; the calling one, if it is among them, ends by itself afterwards."""
        self.dispatcher.stop()
        self.resolver.close()
        self.callbacks.close()
        self.bodies.close()


_lock = threading.Lock()
_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()
_users: weakref.WeakSet[Forgettable] = weakref.WeakSet()
_shared: Hub | None = None


def forget_after_fork(user: Forgettable) -> None:
    """Have ``user.forget()`` called in every forked child: another thread may hold its locks at that moment."""
    _users.add(user)


def acquire(*, own: bool) -> Hub:
    """Return the process's hub, starting it if need be, or a new one if the user wants its ``own``."""
    global _shared  # noqa: PLW0603  # one per process is what it is about
    with _lock:
        hub = None if own else _shared
        if hub is None or not hub.dispatcher.is_alive:
            hub = Hub()
            if not own:
                _shared = hub
        hub.count += 1
        return hub


def release(hub: Hub) -> None:
    """Let the hub go; the last user stops it."""
    global _shared  # noqa: PLW0603
    with _lock:
        hub.count -= 1
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
        hub.dispatcher.stop(timeout=1.0)


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
