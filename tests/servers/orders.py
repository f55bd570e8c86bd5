"""What other threads ask the owner of something to do: it looks when it can, they wait for the outcome."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_SECONDS = 20.0


class Orders:
    """A queue of calls with a descriptor that is readable while there may be some."""

    def __init__(self) -> None:
        """The calling thread is the owner."""
        self._owner = threading.get_ident()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closed = False
        self.waker = os.eventfd(0, os.EFD_NONBLOCK)

    def do(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Have the owner make this call; returns or raises what it does. The owner itself makes it at once.

        Raises:
            ConnectionError: the owner ended before it was made.
        """
        if threading.get_ident() == self._owner:
            return call(*args, **kwargs)
        outcome: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise ConnectionError("the behaviour has ended")
            self._waiting.append((outcome, lambda: call(*args, **kwargs)))
            os.eventfd_write(self.waker, 1)
        return outcome.result(_SECONDS)

    def obey(self) -> None:
        """Make all calls that wait; for the owner."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.waker)
        while self._waiting:
            outcome, call = self._waiting.popleft()
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised where the order came from
                outcome.set_exception(error)

    def close(self) -> None:
        """Take no more; what waits is told so."""
        with self._lock:
            self._closed = True
            os.close(self.waker)
        for outcome, _ in self._waiting:
            outcome.set_exception(ConnectionError("the behaviour has ended"))
        self._waiting.clear()
