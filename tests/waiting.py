"""Waiting for a fact that announces itself by no event.

Where an event, a condition or a future exists, wait for that instead. All times are
seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

_PAUSE = 0.002

T = TypeVar("T")


def eventually(predicate: Callable[[], T], timeout: float = 5.0) -> T:
    """Call `predicate` until its answer is truthy, and return that answer.

    Raises:
        AssertionError: it is still falsy after `timeout` seconds; the last answer is named.
    """
    deadline = time.monotonic() + timeout
    never = threading.Event()
    while not (answer := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"still {answer!r} after {timeout} s: {predicate!r}")
        never.wait(_PAUSE)
    return answer
