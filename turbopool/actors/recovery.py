"""How a key comes back after a drop: when it may dial, and when those who wait are to give up. Pure.

    cold          it never answered: a failed dial is the ledger's rule 4, unless ``first_connect`` makes it patient
    open          it answered, and nothing broke since
    reconnecting  something broke, or an attempt failed: the queue waits
    failing       the attempts have ended: requests fail at once, one probe a step looks

The first attempt after a drop is free, and so are those beside it. Once an attempt has failed, one is made at a time,
when the strategy says. A connect opens the gate to all; but after one that was connected and died unanswered (a server
that accepts and hangs up), it takes an answer, or a step in which nothing is heard: one slow request must not hold up
all others. Only an answer over a new connection sets the count of failures back,
so a server that accepts and hangs up meets the same backoff as one that refuses.

What was begun before the last counted failure does not count as another: six dials refused at once are one failure.
"""

from __future__ import annotations

import errno
import logging
from enum import Enum, StrEnum, auto
from math import isfinite

from turbopool.config.reconnect import ReconnectOptions
from turbopool.errors import ResourceError, TlsVerifyError

_log = logging.getLogger("turbopool.recovery")

PROBE_PAUSE = 1.0
"""Seconds at least between two probes, whatever the strategy says: nobody waits for them."""
_LAST_RESORT = 16.0


class State(StrEnum):
    """Where a key stands; see the module."""

    COLD = "cold"
    OPEN = "open"
    RECONNECTING = "reconnecting"
    FAILING = "failing"


OPEN, FAILING = State.OPEN, State.FAILING
"""For those who compare with them for every request: to look a member up costs more than to compare it."""


class Verdict(Enum):
    """What a failure means for those who wait."""

    SHARE = auto()
    """The ledger's rule 4."""
    WAIT = auto()
    """Nobody fails: another attempt will be made."""
    GIVE_UP = auto()
    """All fail."""


class Recovery:
    """Counts the failures of one key, and says when it may dial.

    Attributes:
        state: see the module.
        has_answered: whether a response ever came.
        failures: attempts that failed since the last response.
        due: when the next attempt may be made, if failures are counted.
        cause: what broke last, until a response comes.
        reconnects: attempts ever made to come back.
        unproven: dials under way and connections that never answered, with the generation they were begun in.
    """

    __slots__ = (
        "_generation", "_is_reached", "_needs_answer", "_options", "_silent", "_since", "_step", "_trial", "cause",
        "due", "failures", "has_answered", "reconnects", "state", "unproven",
    )  # fmt: skip

    def __init__(self, options: ReconnectOptions) -> None:
        self._options = options
        self.state = State.COLD
        self.has_answered = False
        self.failures = 0
        self.due = 0.0
        self.cause: Exception | None = None
        self.reconnects = 0
        self.unproven: dict[object, int] = {}
        self._generation = 0
        self._since = 0.0
        self._step = 0.0
        self._trial: object | None = None
        self._silent: object | None = None
        self._is_reached = False
        self._needs_answer = False

    # -- asking ----------------------------------------------------------------------------------------------

    def may_dial(self, now: float) -> bool:
        """Whether another dial may begin."""
        return not self.failures or self._is_reached or (self._trial is None and now >= self.due)

    def opens_at(self, never: float) -> float:
        """When :meth:`may_dial` is worth asking again; ``never`` while an attempt is under way."""
        return self.due if self._trial is None else never

    @property
    def is_wary(self) -> bool:
        """Whether a server that is dialed now may be about to die: the kernel lets clients in until the very end."""
        return self.state is State.RECONNECTING or self.state is State.FAILING

    # -- what happens ----------------------------------------------------------------------------------------

    def dialing(self, dial: object) -> None:
        """A dial begins."""
        self.unproven[dial] = self._generation
        self.reconnects += self.is_wary
        if self.failures and not self._is_reached:
            self._trial = dial

    def established(self, dial: object, connection: object, now: float) -> None:
        """A dial succeeded."""
        self.unproven[connection] = self.unproven.pop(dial, self._generation)
        if self.state is State.FAILING:
            self.state = State.RECONNECTING
        if not self._needs_answer:
            self._is_reached = True
        if self._trial is dial:
            self._trial, self._silent = None, connection
            self.due = now + self._step

    def answered(self, connection: object) -> None:
        """A response came: all is well again, unless connects fail and it came over a connection from before that."""
        self.has_answered = True
        if self.unproven.pop(connection, None) is None and self.failures and not self._needs_answer:
            return
        self.state = State.OPEN
        self.failures = 0
        self.cause = self._trial = self._silent = None
        self._is_reached = self._needs_answer = False

    def dial_failed(self, dial: object, error: Exception, now: float) -> Verdict:
        """A dial failed."""
        generation = self._end(dial)
        if self.state is State.COLD and not self._options.first_connect:
            return Verdict.SHARE
        if isinstance(error, TlsVerifyError | ResourceError):  # waiting will not cure it, or it is our own fault
            if self.failures:
                self.due = now + max(PROBE_PAUSE, self._pace(error, now)[0])
            return Verdict.SHARE
        if isinstance(error, OSError) and error.errno == errno.ECONNRESET:  # let in, and hung up on
            self._needs_answer = True
        if generation != self._generation:
            return Verdict.WAIT
        return self._count(error, now)

    def broke(self, connection: object, error: Exception, now: float) -> None:
        """A connection died with a request on it, before a byte of its response came."""
        if connection not in self.unproven or self.state is State.OPEN:
            self._end(connection)
            if self.state is State.OPEN:
                self.state, self.cause = State.RECONNECTING, error
                self._generation += 1
        elif self._end(connection) == self._generation and self.state is not State.COLD:
            self._needs_answer = True
            self._count(error, now)

    def gone(self, token: object) -> None:
        """A connection or dial ended, for whatever reason; idempotent."""
        if self.unproven or self._trial is not None:
            self._end(token)

    def orphaned(self) -> None:
        """All dials and connections ended, through no fault of the host: the manager crashed."""
        self._end(self._silent)
        self.unproven.clear()
        self._trial = None

    # -- inside ----------------------------------------------------------------------------------------------

    def _end(self, token: object) -> int:
        if self._trial is token:
            self._trial = None
        if self._silent is not None and self._silent is token:  # nothing more will be heard of it
            self._silent = None
            self.due -= self._step
        return self.unproven.pop(token, -1)

    def _count(self, error: Exception, now: float) -> Verdict:
        if not self.failures:
            self._since = now
        self.failures += 1
        self._generation += 1
        self._is_reached = False
        self._trial = self._silent = None
        self.cause = error
        pause, ended = self._pace(error, now)
        self.state = State.FAILING if ended else State.RECONNECTING
        self._step = max(PROBE_PAUSE, pause) if ended else pause
        self.due = now + self._step
        return Verdict.GIVE_UP if ended else Verdict.WAIT

    def _pace(self, error: Exception, now: float) -> tuple[float, bool]:
        try:
            pause, ended = self._options.pace(self.failures + 1, elapsed=now - self._since, cause=error)
        except Exception:  # noqa: BLE001  # a caller's own strategy: its bug ends the attempts, not the manager
            _log.exception("the reconnect strategy raised; no further attempts are made")
            return _LAST_RESORT, True
        return (pause, ended) if isfinite(pause) else (_LAST_RESORT, True)
