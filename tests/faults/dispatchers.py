"""The threads that drive everything, and how a test gets at them."""

from __future__ import annotations

import threading

import pytest

from turbopool.actors import hub
from turbopool.actors.poller import EpollPoller

NAME = "turbopool-dispatcher"


class BreakablePoller(EpollPoller):
    """Raises, at the end of its next poll, what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        real = self.poll
        self.fault: BaseException | None = None
        self.is_polling = False

        def poll(timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
            self.is_polling = True
            events = real(timeout, maxevents)
            self.is_polling = False
            if self.fault is not None:
                raise self.fault
            return events

        self.poll = poll


def breakable_pollers(monkeypatch: pytest.MonkeyPatch) -> list[BreakablePoller]:
    """Give such a poller to every dispatcher that is started from now on; they appear in the list."""
    made: list[BreakablePoller] = []

    def make() -> BreakablePoller:
        made.append(BreakablePoller())
        return made[-1]

    monkeypatch.setattr(hub, "system_poller", make)
    return made


def dispatchers() -> list[threading.Thread]:
    """The threads of all dispatchers that live."""
    return [thread for thread in threading.enumerate() if thread.name == NAME]
