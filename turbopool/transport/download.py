"""A response body on its way from the connection, on the reactor's thread, to the thread that reads it.

Bounded: a reader that is slow pauses the connection, and through TCP the server.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable

from turbopool.errors import ReadTimeout, StreamClosed, TurboPoolError

HIGH_WATER = 524_288
"""Bytes held before the connection is paused; it goes on when they are read."""


class BodyStream:
    """One streamed body. The reading side may be any one thread at a time.

    Args:
        origin: for error messages.
        read_timeout: seconds to wait for bytes, or None.
        resume: called in the reading thread when the connection may go on.
        abort: called in the closing thread when the body was not read to its end.

    Attributes:
        extensions: the response's own, for what is known only at the end.
    """

    def __init__(
        self, origin: str, read_timeout: float | None, resume: Callable[[], None], abort: Callable[[], None]
    ) -> None:
        self._origin = origin
        self._read_timeout = read_timeout
        self._resume = resume
        self._abort = abort
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._changed = threading.Condition()  # reentrant: a forgotten response may be collected, and closed, inside
        self._ended = False
        self._closed = False
        self._paused = False
        self._error: Exception | None = None
        self.extensions: dict[str, object] = {}

    def feed(self, pieces: list[bytes]) -> bool:
        """Take what has come; return False when the connection should pause. Reactor's thread."""
        with self._changed:
            self._pieces.extend(pieces)
            self._held += sum(map(len, pieces))
            self._paused = self._held >= HIGH_WATER and not self._closed
            self._changed.notify()
            return not self._paused

    def finish(self, error: Exception | None = None) -> None:
        """Learn that the body is whole, or why it will not be. Reactor's thread."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify()

    def read(self) -> bytes:
        """Return all that is held, waiting for some; ``b""`` at the end.

        Raises:
            ReadTimeout: nothing came for the read timeout.
            StreamClosed: :meth:`close` was called before.
            TurboPoolError: the body ended early; what came before was returned.
        """
        with self._changed:
            if not self._pieces and not self._ended and not self._closed:
                self._changed.wait_for(lambda: self._pieces or self._ended or self._closed, self._read_timeout)
            if self._closed:
                msg = "the streamed response was closed"
                raise StreamClosed(msg, origin=self._origin)
            if not self._pieces and self._ended:
                return self._end()
            pieces, self._pieces = self._pieces, deque()
            self._held = 0
            resume, self._paused = self._paused, False
        if not pieces:
            self.close()
            msg = "no bytes of the streamed body came in time"
            raise ReadTimeout(msg, origin=self._origin, timeout=self._read_timeout, request_sent=True,
                              processed="yes", phase="recv", advice="raise Timeout(read=)")  # fmt: skip
        if resume:
            self._resume()
        return b"".join(pieces)  # outside the lock, which the dispatcher waits for

    def close(self) -> None:
        """Stop reading. Idempotent; any thread."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._pieces.clear()
            ended = self._ended
            self._changed.notify_all()
        if not ended:
            self._abort()

    @property
    def is_open(self) -> bool:
        """Whether it has neither ended nor been closed, so that a connection stands by for it."""
        return not (self._ended or self._closed)

    def _end(self) -> bytes:
        if self._error is not None:
            raise self._error.again() if isinstance(self._error, TurboPoolError) else self._error
        return b""


class Reader:
    """A caller's side of a stream. If it is dropped unread, the connection is given up, with a ``ResourceWarning``.

    Args:
        stream: referred to by its connection as well, and so not collected by itself.
        made_at: where the caller asked for it, as ``file:line``.
    """

    __slots__ = ("_made_at", "_stream")

    def __init__(self, stream: BodyStream, made_at: str) -> None:
        self._stream = stream
        self._made_at = made_at

    def read(self) -> bytes:
        """Return what has come, waiting for some; see :meth:`BodyStream.read`."""
        return self._stream.read()

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._stream.close()

    def __del__(self) -> None:
        if self._stream.is_open:
            self._stream.close()
            msg = f"a streamed response was dropped before its end; it was made at {self._made_at}"
            warnings.warn(msg, ResourceWarning, source=self, stacklevel=2)
