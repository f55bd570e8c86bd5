"""A request body on its way from the caller's iterator, on a worker thread, to the connection, on the reactor's.

The two meet in a bounded buffer: the worker waits while it is full, the connection is told when it is not empty.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from turbopool.bodies import Body
from turbopool.errors import InvalidRequest
from turbopool.transport.file_body import FileBody

HIGH_WATER = 262_144
"""Bytes held before the iterator is paused."""


class Upload:
    """One body being sent once.

    Args:
        body: what to draw.
        chunked: whether each piece is framed as a chunk (RFC 9112 section 7.1), else a known length is enforced.
        wake: called on the worker thread when there is something to take, once until it is taken.
        by_kernel: whether what it goes to lets the kernel send a file.

    Attributes:
        file: what the kernel is to send instead of all that could be taken, or None.
        error: what the caller's iterator raised, or the length it broke.
    """

    def __init__(self, body: Body, *, chunked: bool, wake: Callable[[], None], by_kernel: bool = False) -> None:
        self._body = body
        self._chunked = chunked
        self._by_kernel = by_kernel and not chunked
        self._wake = wake
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._room = threading.Condition(threading.Lock())
        self._drawn = False
        self._cancelled = False
        self.file: FileBody | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Draw the body. Runs on a worker thread, because it is the caller's own code."""
        try:
            if self._begin() and not self._hand_over():
                self._draw()
        except BaseException as error:  # noqa: BLE001  # whatever the caller's iterator raises is the request's outcome
            self.error = error
        finally:
            with self._room:
                self._drawn = True
            self._wake()

    def take(self) -> tuple[bytes, bool]:
        """Return all that is held, and whether that is the rest of the body. Reactor's thread."""
        with self._room:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._held = 0
            self._room.notify()
            return data, self._drawn

    def cancel(self) -> None:
        """Let the worker stop drawing, and close the iterator on its own thread."""
        with self._room:
            self._cancelled = True
            if self.file is not None and not self.file.is_cold:
                self.file.close()
            self._room.notify()

    def warm(self) -> None:
        """Bring what is next of a file into memory. Runs on a worker thread."""
        file = self.file
        assert file is not None  # noqa: S101  # it is what is cold
        try:
            file.read_ahead()
        except (OSError, MemoryError) as error:
            self.error = error
        with self._room:
            file.is_cold = False
            if self._cancelled:
                file.close()
        self._wake()

    def _begin(self) -> bool:
        """Look whether it is still wanted; one cancelled before that draws nothing, and can be sent again."""
        with self._room:
            self._body.started = self._body.started or not self._cancelled
            return not self._cancelled

    def _hand_over(self) -> bool:
        """Leave the body to the kernel, if it is a file that it can send."""
        file = self._body.as_file() if self._by_kernel else None
        if file is None:
            return False
        with self._room:
            if self._cancelled:
                file.close()
            self.file = FileBody(file)
        return True

    def _draw(self) -> None:
        length, drawn = self._body.length, 0
        pieces = self._body.pieces()
        last = b"0\r\n\r\n" if self._chunked else b""
        try:
            for piece in pieces:
                drawn += len(piece)
                if not self._chunked and length is not None and drawn >= length:
                    last = piece  # held back: if more comes, the server must not take this for a whole body
                    if drawn > length:
                        break
                elif not self._put(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece):
                    return
        finally:
            pieces.close()
        if not self._chunked and length is not None and drawn != length:
            raise broken_length(length, drawn)
        self._put(last, is_last=True)

    def _put(self, data: bytes, *, is_last: bool = False) -> bool:
        with self._room:
            while self._held >= HIGH_WATER and not self._cancelled:
                self._room.wait()
            if self._cancelled:
                return False
            first = not self._pieces
            self._pieces.append(data)
            self._held += len(data)
            self._drawn = is_last  # in one step with the data: an answer to it may come at once
        if first:
            self._wake()
        return True


def broken_length(expected: int, received: int) -> InvalidRequest:
    """Return the error of a body that is not of the length it was said to have."""
    msg = f"the body yielded {'more' if received > expected else 'less'} than its content-length"
    return InvalidRequest(msg, advice="correct the header, or leave it out", expected=expected, received=received)
