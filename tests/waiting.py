"""Waiting for a fact that announces itself by no event, and times that must be long enough on any machine.

Where an event, a condition or a future exists, wait for that instead. All times are
seconds.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

PATIENCE = 30.0
"""How long what never comes is waited for; nobody waits so long while all is well."""
SPENT = 5.0
"""How late anything may end: a machine that is busy, or stands still, loses some. What must be exact is measured
otherwise: by a median, or by what happens in which order."""
SHORT_TIMES = (0.1, 1.0, 10.0)
"""What :func:`with_short_times` tries, one after the other."""

_PAUSE = 0.002

T = TypeVar("T")


def eventually(predicate: Callable[[], T], timeout: float = PATIENCE) -> T:
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


class TooSlow(Exception):
    """A short time was up before what it is to end had begun: the machine stood still, and nothing is shown."""


def reached(fact: object) -> None:
    """Go on if `fact` is true: what a short time is to end was under way before it was up.

    It is for the way to what a test is about, never for what it asserts.

    Raises:
        TooSlow: it is not.
    """
    if not fact:
        raise TooSlow


def with_short_times(test: Callable[..., None]) -> Callable[..., None]:
    """Give a test a time that is short, by the name of `short`; from the beginning with a longer one if it is TooSlow.

    Only :class:`TooSlow` begins it anew: an assertion that fails has failed.
    """

    @functools.wraps(test)
    def patient(*args: object, **kwargs: object) -> None:
        for short in SHORT_TIMES:
            try:
                return test(*args, short=short, **kwargs)
            except TooSlow:
                if short == SHORT_TIMES[-1]:
                    raise
        return None

    signature = inspect.signature(test)
    others = [parameter for name, parameter in signature.parameters.items() if name != "short"]
    patient.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]  # pytest reads it
    return patient


@contextlib.contextmanager
def not_too_soon(*ends: type[BaseException]) -> Iterator[None]:
    """Take one of `ends` within the block, which is only the way to what a test is about, for :class:`TooSlow`."""
    try:
        yield
    except ends as error:
        raise TooSlow from error
