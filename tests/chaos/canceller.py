"""Cancels futures at given moments, from a thread that is not their caller's."""

from __future__ import annotations

import heapq
import itertools
import threading
import time

from turbopool import ResponseFuture


class Canceller(threading.Thread):
    """Runs from ``start`` to :meth:`end`."""

    def __init__(self) -> None:
        super().__init__(name="canceller", daemon=True)
        self._due: list[tuple[float, int, ResponseFuture]] = []
        self._changed = threading.Condition()
        self._ending = False
        self._ranks = itertools.count()

    def cancel(self, future: ResponseFuture, after: float) -> None:
        """Cancel `future` in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + after, next(self._ranks), future))
            self._changed.notify()

    def run(self) -> None:
        while (future := self._next()) is not None:
            future.cancel()
            del future  # or it would be kept until the next one is due

    def end(self) -> None:
        """Cancel nothing more."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self.join()

    def _next(self) -> ResponseFuture | None:
        with self._changed:
            while not self._ending:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
            self._due.clear()
            return None
