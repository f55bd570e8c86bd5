"""How busy the dispatcher is: nothing may spin while it waits."""

from __future__ import annotations

import threading
import time

LOOKED = 0.3
"""Seconds for which the dispatcher is watched."""


def dispatcher_time() -> float:
    """Return the processor time that the dispatcher's thread has used, in seconds."""
    (ident,) = [one.ident for one in threading.enumerate() if one.name.startswith("turbopool-dispatcher")]
    assert ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def assert_at_peace() -> None:
    """The dispatcher does next to nothing."""
    before, never = dispatcher_time(), threading.Event()
    assert not never.wait(LOOKED)
    assert dispatcher_time() - before < 0.1 * LOOKED
