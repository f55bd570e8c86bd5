"""The future of a response: a real ``concurrent.futures.Future``, made light.

Every change of state happens under one lock for all of them, so a future completes exactly once, whoever comes first:
the dispatcher, a caller who cancels, or the deadline. It is held for a few assignments. Nothing is called, made or let
go of under it: a signal handler, the garbage collector or a destructor could run there, and those may wait for whoever
wants the lock. Who waits in :meth:`ResponseFuture.result` brings a lock of its own; and where the standard future keeps
a condition, which ``wait`` and ``as_completed`` only ever lock, this one makes a lock when they ask for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from _thread import LockType, RLock, allocate_lock
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol

from turbopool.errors import DeadlineExceeded
from turbopool.models import Response
from turbopool.transport.exchange import Exchange
from turbopool.transport.huddle import huddle
from turbopool.transport.spinning import sleepers
from turbopool.transport.trials import HUDDLED

_log = logging.getLogger("concurrent.futures")
"""Where Python reports what a done-callback raises; it is seen without any configuration."""

PATROL = 30.0
"""Seconds between two looks at the runtime, for a request without a deadline."""
GRACE = 1.0
"""Seconds after a request's deadline at which :meth:`ResponseFuture.result` ends by itself, whatever happened."""

_state_lock = RLock()

_PENDING, _CANCELLED, _FINISHED = "PENDING", "CANCELLED_AND_NOTIFIED", "FINISHED"

Callback = Callable[["ResponseFuture"], object]


# Nobody else holds it while a process forks, and a destructor that runs in the child meanwhile may take it again.
os.register_at_fork(before=_state_lock.acquire, after_in_parent=_state_lock.release, after_in_child=_state_lock.release)


class Host(Protocol):
    """Where a future's request lives: the runtime."""

    def abandon(self, exchange: Exchange) -> None:
        """Free what a cancelled request holds."""
        ...

    def check(self) -> None:
        """Look whether what should answer still works."""
        ...

    def receive(self, exchange: Exchange, timeout: float | None) -> None:
        """Receive a launched request's response in the calling thread, unless somebody does already."""
        ...

    def engage(self, exchange: Exchange) -> None:
        """Have the dispatcher receive a launched request's response, unless somebody does already."""
        ...

    def run_callback(self, task: Callable[[], None]) -> None:
        """Run a caller's code on a worker thread."""
        ...


class ResponseFuture(Future[Response]):
    """What :meth:`Client.send_async` returns. Every method may be called from any thread.

    Done-callbacks run on worker threads, in the order they were added; those added to a finished future, and those of
    a future its caller cancels, run in the calling thread, as everywhere in Python.

    Thousands may be in flight, and the garbage collector visits what they hold: lists and locks are made when first
    needed.
    """

    __slots__ = (
        "_done_callbacks", "_exception", "_exchange", "_host", "_lock", "_result", "_sleepers", "_state",
        "_stdlib_waiters", "settled",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, host: Host) -> None:  # the standard constructor would make a condition
        self._lock: RLock | None = None
        self._state = _PENDING
        self._result: Response | None = None
        self._exception: BaseException | None = None
        self._stdlib_waiters: list[Any] | None = None
        self._done_callbacks: list[Callback] | None = None
        self._sleepers: dict[LockType, None] | None = None
        self._exchange: Exchange | None = exchange  # until settled: the two refer to each other
        self._host = host
        self.settled = False
        exchange.completion = self

    # -- asking ----------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state is _CANCELLED

    def running(self) -> bool:
        """Whether the request is on a connection now."""
        exchange = self._exchange
        return exchange is not None and exchange.connection is not None

    def done(self) -> bool:
        """Whether it has a response, an error, or was cancelled."""
        if not self.settled:
            self._engage()
        return self.settled

    def result(self, timeout: float | None = None) -> Response:
        """Return the response, waiting for it.

        Args:
            timeout: seconds to wait; None waits for the request's own deadline and :data:`GRACE`.

        Raises:
            TimeoutError: ``timeout`` passed; the request goes on.
            CancelledError: it was cancelled.
            TurboPoolError: the request failed.
        """
        if not self.settled:
            self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642  # the traceback would hold the future
        if self._state is _CANCELLED:
            raise CancelledError
        assert self._result is not None  # noqa: S101  # finished without an exception
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the request failed with, or None, waiting like :meth:`result`."""
        if not self.settled:
            self._wait(timeout)
        if self._state is _CANCELLED:
            raise CancelledError
        return self._exception

    def __await__(self) -> Generator[Any, None, Response]:
        """Wait inside a running asyncio loop."""
        return asyncio.wrap_future(self).__await__()

    # -- ending ----------------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """End the request now, at whatever phase it is; return False only if it was done before.

        A queued request leaves the queue, one under way gives its connection up.
        """
        exchange = self._exchange
        if exchange is None or not self._settle(_CANCELLED, None, None):
            return self._state is _CANCELLED
        self._host.abandon(exchange)
        self._call_back_here()
        return True

    def cancel_now(self) -> bool:
        """Cancel, unless settled; the caller frees what the exchange holds. The runtime's side."""
        if not self._settle(_CANCELLED, None, None):
            return False
        if self._done_callbacks:
            self._call_back()
        return True

    def succeed(self, response: Response) -> bool:
        """Set the response, unless settled. The runtime's side."""
        if not self._settle(_FINISHED, response, None):
            return False
        if self._done_callbacks:
            self._call_back()
        return True

    def fail(self, error: BaseException) -> bool:
        """Set the error, unless settled. The runtime's side."""
        if not self._settle(_FINISHED, None, error):
            return False
        if self._done_callbacks:
            self._call_back()
        return True

    def add_done_callback(self, fn: Callback) -> None:
        """Call ``fn`` with this future once it is done."""
        first = [fn]
        with _state_lock:
            is_pending = not self.settled
            if is_pending:
                if self._done_callbacks is None:
                    self._done_callbacks = first
                else:
                    self._done_callbacks += first
        if is_pending:
            self._engage()
        else:
            _call(fn, self)

    def set_running_or_notify_cancel(self) -> bool:
        """Return whether it is to be run: what an executor asks of its futures."""
        return not self.cancelled()

    set_result = succeed  # type: ignore[assignment]
    set_exception = fail  # type: ignore[assignment]

    # -- inside ----------------------------------------------------------------------------------------------

    def _settle(self, state: str, response: Response | None, error: BaseException | None) -> bool:
        exchange, is_ours = self._exchange, False  # kept, or its destructor might run under the lock
        try:
            with _state_lock:
                if self.settled:
                    return False
                watched = self._lock
                if watched is None:
                    self._result = response
                    self._exception = error
                    self._state = state
                    self._exchange = None
                    self.settled = is_ours = True
        finally:  # whatever interrupts this thread, others must not sleep on
            if is_ours and self._sleepers is not None:
                self._wake_sleepers()
        del exchange
        if watched is not None:
            return self._settle_watched(watched, state, response, error)
        return True

    def _settle_watched(self, lock: RLock, state: str, response: Response | None, error: BaseException | None) -> bool:
        """Settle what ``wait`` or ``as_completed`` look at: what they have seen under its ``lock`` holds until then."""
        exchange, is_ours = self._exchange, False  # as in _settle
        try:
            with lock:
                with _state_lock:
                    if self.settled:
                        return False
                    self._result = response
                    self._exception = error
                    self._state = state
                    self._exchange = None
                    self.settled = is_ours = True
                for waiter in self._stdlib_waiters or ():
                    if state is _CANCELLED:
                        waiter.add_cancelled(self)
                    elif error is not None:
                        waiter.add_exception(self)
                    else:
                        waiter.add_result(self)
        finally:
            if is_ours:
                self._wake_sleepers()
        del exchange
        return True

    def _wake_sleepers(self) -> None:
        for sleeper in self._sleepers or ():
            sleeper.release()

    @property
    def _condition(self) -> Any:  # noqa: ANN401  # no condition; see the module's docstring
        """What ``concurrent.futures`` locks while it looks at the state and leaves a waiter."""
        lock = RLock()  # as the standard one is: a signal handler may cancel what its thread is about to wait for
        with _state_lock:
            if self._lock is None:
                self._lock = lock
        return self._lock

    @_condition.setter
    def _condition(self, lock: Any) -> None:  # noqa: ANN401  # nobody sets it, but it is declared as an attribute
        self._lock = lock

    @property
    def _waiters(self) -> list[Any]:
        """What ``concurrent.futures.wait`` and ``as_completed`` leave here, holding the lock."""
        if self._stdlib_waiters is None:
            self._stdlib_waiters = []
        self._engage()
        return self._stdlib_waiters

    @_waiters.setter
    def _waiters(self, waiters: list[Any]) -> None:  # nobody sets it, but an attribute is what they are declared as
        self._stdlib_waiters = waiters

    def _engage(self) -> None:
        """Let the dispatcher receive the response: nobody waits for it in a thread that could."""
        exchange = self._exchange
        if exchange is not None and exchange.raft:
            self._host.engage(exchange)

    def _wait(self, timeout: float | None) -> None:
        """Receive the response here, if it was launched from a caller's thread and nobody else does; else sleep."""
        exchange = self._exchange
        if exchange is not None and exchange.raft:
            began = time.monotonic()
            self._host.receive(exchange, timeout)
            if timeout is not None:
                timeout = max(0.0, timeout - (time.monotonic() - began))
        if not self.settled:
            self._sleep(timeout)
            if sleepers is not None and exchange is not None:
                now = time.monotonic()
                sleepers.note(now - exchange.asked_at, now)

    def _sleep(self, timeout: float | None) -> None:
        """Sleep until settled; at the request's deadline and a grace, settle it here."""
        sleeper = allocate_lock()
        sleeper.acquire()
        first: dict[LockType, None] = {sleeper: None}
        with _state_lock:
            exchange = self._exchange
            if exchange is None:
                return
            if self._sleepers is None:
                self._sleepers = first
            else:
                self._sleepers[sleeper] = None
        now, own = time.monotonic(), exchange.deadline + GRACE
        end = own if timeout is None else min(own, now + timeout)
        while not _acquire(sleeper, max(0.0, min(end - now, PATROL))):
            if self.settled:  # by a thread that was interrupted before it had woken this one
                return
            now = time.monotonic()
            if now >= own:
                msg = "the runtime did not answer by the request's deadline"
                if self.fail(DeadlineExceeded(msg, origin=exchange.origin, processed="maybe", grace=GRACE)):
                    self._host.abandon(exchange)
                return  # to look at the runtime takes time; the next request does
            if now >= end:
                with _state_lock:
                    is_late = not self.settled  # or it is being woken this very moment
                    if is_late:
                        del self._sleepers[sleeper]
                if is_late:
                    raise TimeoutError
                return
            self._host.check()

    def _call_back(self) -> None:
        """Call the callbacks where they belong: asyncio's own at once, the caller's on a worker thread."""
        callbacks, self._done_callbacks = self._done_callbacks, None
        foreign = []
        for callback in callbacks or ():
            if getattr(callback, "__module__", None) == "asyncio.futures":
                _call(callback, self)
            else:
                foreign.append(callback)
        if not foreign:
            return

        def call_all() -> None:
            for callback in foreign:
                _call(callback, self, BaseException)  # there is no caller here whom it could mean

        try:
            self._host.run_callback(call_all)
        except RuntimeError:
            _log.exception("no thread could be started for the callbacks of %r", self)

    def _call_back_here(self) -> None:
        callbacks, self._done_callbacks = self._done_callbacks, None
        for callback in callbacks or ():
            _call(callback, self)

    def __repr__(self) -> str:
        return f"<ResponseFuture {self._state.lower()}>"


def _acquire(lock: LockType, timeout: float) -> bool:
    """Acquire a lock, waiting in the manner that has proved best."""
    if sleepers is None or huddle is None or sleepers.phase.manner is not HUDDLED:
        return lock.acquire(timeout=timeout)
    return huddle.acquire(lock, timeout)


def _call(callback: Callback, future: ResponseFuture, harmless: type[BaseException] = Exception) -> None:
    try:
        callback(future)
    except harmless:  # the caller's code: logged, as the standard library does
        _log.exception("a done-callback raised")
