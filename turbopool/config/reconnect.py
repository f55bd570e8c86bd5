"""When a lost connection is dialed again: tenacity's strategies for waiting and stopping, and nothing else of it.

The first attempt follows at once; the wait strategy is asked from the second on. Whether a request may be sent again
is another question, answered in :mod:`turbopool.transport.replay`. All times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_exponential
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

_WAIT = wait_exponential(multiplier=1, max=16)
_STOP = stop_after_attempt(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectOptions:
    """How reconnecting is paced.

    Raises:
        ValueError: a field is of the wrong kind; the message names it.
    """

    wait: WaitBaseT = _WAIT
    """How long to wait between attempts: 1, 2, 4, 8, then 16 seconds, exactly. Add jitter here, such as
    ``wait_exponential(max=16) + wait_random(0, 1)``."""
    stop: StopBaseT = _STOP
    """When to give up: after 6 failed attempts."""
    first_connect: bool = False
    """Whether a host that never answered is tried as patiently as one that did. By default it fails at once."""

    def __post_init__(self) -> None:
        for name in ("wait", "stop"):
            if not callable(getattr(self, name)):
                msg = f"reconnect.{name} must be a tenacity {name} strategy, not {getattr(self, name)!r}"
                raise ValueError(msg)  # noqa: TRY004  # every option is refused with ValueError
        if not isinstance(self.first_connect, bool):
            msg = f"reconnect.first_connect must be True or False, not {self.first_connect!r}"
            raise ValueError(msg)  # noqa: TRY004  # every option is refused with ValueError

    def pace(self, attempt: int, *, elapsed: float = 0.0, cause: BaseException | None = None) -> tuple[float, bool]:
        """Return how many seconds to wait before dialing, and whether to give up instead.

        The strategies run on the dispatcher's thread: they must not block.

        Args:
            attempt: which one is about to be made, from 1; so ``attempt - 1`` have failed.
            elapsed: since the first attempt failed, for strategies that stop by time.
            cause: why the last attempt failed, for strategies that look at it.
        """
        if attempt < 1:
            msg = f"attempts count from 1, not {attempt}"
            raise ValueError(msg)
        failure = cause or ConnectionError("the connection was lost")
        state = RetryCallState(Retrying(wait=self.wait, stop=self.stop), fn=None, args=(), kwargs={})
        state.attempt_number = attempt - 1
        state.set_exception((type(failure), failure, failure.__traceback__))
        state.start_time, state.outcome_timestamp = 0.0, elapsed
        # As tenacity does it: the wait is known before stopping is decided.
        wait = 0.0 if attempt == 1 else max(0.0, float(self.wait(state)))
        state.upcoming_sleep = wait
        return wait, bool(self.stop(state))

    def delay(self, attempt: int, *, elapsed: float = 0.0, cause: BaseException | None = None) -> float | None:
        """Return the seconds of :meth:`pace`, or None to give up."""
        wait, ended = self.pace(attempt, elapsed=elapsed, cause=cause)
        return None if ended else wait
