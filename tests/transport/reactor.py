"""A reactor a test turns by itself: the real dispatcher, real sockets, and a clock of the test's."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.waiting import PATIENCE
from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.poller import system_poller, system_waker
from turbopool.transport.memory import FakeClock

_TURN_SECONDS = 0.01


class Turned:
    """Runs in the test's thread, and only within its methods."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.reactor = Dispatcher(self.clock, system_poller(), system_waker())

    def turn_until(self, predicate: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Turn until `predicate()` holds.

        Raises:
            AssertionError: it does not within `timeout` seconds of real time.
        """
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s: {predicate!r}")
            self.reactor.turn(_TURN_SECONDS)

    def turn(self, times: int = 3) -> None:
        """Turn a few times: whatever is posted, ready or due now is done."""
        for _ in range(times):
            self.reactor.turn()

    def advance(self, seconds: float) -> None:
        """Let the clock go forward, and do what is due."""
        self.clock.advance(seconds)
        self.turn()

    @property
    def watched(self) -> int:
        """How many descriptors are watched, the waker apart."""
        return self.reactor.census()[0]

    @property
    def timers(self) -> int:
        """How many timers are armed."""
        return self.reactor.census()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reactor.stop()
