"""Daemon threads for what may block: the resolver, callers' callbacks, callers' body iterators.

A pool grows one thread at a time up to its cap, only while no thread is free, and lets idle threads go.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable

from turbopool.clock import SystemClock
from turbopool.transport.huddle import unhuddled

_log = logging.getLogger("turbopool.workers")

IDLE_SECONDS = 5.0
"""How long a thread without work stays."""


_all: weakref.WeakSet[Workers] = weakref.WeakSet()
_here = threading.local()


def _after_fork() -> None:
    _here.is_worker = False
    for workers in list(_all):
        workers.forget()


os.register_at_fork(after_in_child=_after_fork)


def on_worker() -> bool:
    """Whether the calling thread is one of ours, which must not wait for one that may be joining it."""
    return getattr(_here, "is_worker", False)


class Workers:
    """An elastic pool of daemon threads.

    Args:
        name: the threads' name, followed by a number.
        cap: the most threads at once; further tasks wait their turn.
    """

    def __init__(self, name: str, cap: int) -> None:
        self._name = name
        self._cap = cap
        self._started = 0
        self._closed = False
        self._clock = SystemClock()
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Begin anew in a forked child: the threads, and what they were to do, are the parent's."""
        self._tasks: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()  # its lock is reentrant: a finalizer may submit in the middle of a submit
        self._threads: set[threading.Thread] = set()
        self._free = 0

    def submit(self, task: Callable[[], None]) -> None:
        """Run ``task`` on a thread of the pool. Callable from any thread.

        Raises:
            RuntimeError: no thread could be started and there is none.
        """
        with self._changed:
            self._tasks.append(task)
            if self._free >= len(self._tasks) or len(self._threads) >= self._cap:
                self._changed.notify()
                return
            self._started += 1
            name = f"{self._name}-{self._started}"
            thread = threading.Thread(target=unhuddled(self._run), name=name, daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:
                self._threads.discard(thread)
                if not self._threads:
                    self._tasks.remove(task)
                    raise

    def close(self, timeout: float = 1.0) -> None:
        """Let the threads end after their present task, and wait for them up to ``timeout`` seconds in all."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        deadline = self._clock.now() + timeout
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - self._clock.now()))

    def _run(self) -> None:
        _here.is_worker = True
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException:  # noqa: BLE001  # a caller's code: logged, and the thread goes on
                _log.exception("a task of %s raised", self._name)
            del task  # or it would be kept alive until the next one comes

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._free += 1
            while not self._tasks:
                if self._closed or not self._changed.wait(IDLE_SECONDS):
                    if self._tasks:  # one came in the moment the wait ended
                        break
                    self._free -= 1
                    self._threads.discard(threading.current_thread())
                    return None
            self._free -= 1
            return self._tasks.popleft()
