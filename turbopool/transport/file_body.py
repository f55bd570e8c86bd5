"""A regular file on its way from the page cache to a socket in clear: the kernel sends it (``sendfile``).

The reactor's thread drives it in bounded turns, and never waits for a disk: what is not in memory, a worker
reads first.
The descriptor is a copy of the caller's, so the caller may close the file; its position is passed with every call.
"""

from __future__ import annotations

import os

from turbopool.bodies import OpenFile
from turbopool.transport.channel import TcpChannel

READ_AHEAD = 1_048_576
"""Bytes that a worker reads when the next are not in memory."""


class FileBody:
    """One file being sent once.

    Args:
        file: what to send.

    Attributes:
        sent: how many bytes of it the kernel has taken.
        is_cold: whether a worker has to :meth:`read_ahead`, and nobody else may touch the file until it has.
        is_short: whether the file ended before the length that was promised.
    """

    __slots__ = ("_file", "_near", "is_cold", "is_short", "sent")

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._near = 0  # so many of its bytes are in memory
        self.sent = 0
        self.is_cold = False
        self.is_short = False

    @property
    def length(self) -> int:
        """How many bytes of it were promised."""
        return self._file.length

    @property
    def is_whole(self) -> bool:
        """Whether all is sent."""
        return self.sent == self._file.length

    def send(self, channel: TcpChannel, most: int) -> int:
        """Let the kernel take up to ``most`` bytes more; return how many it took.

        Raises:
            OSError: the connection is broken.
        """
        file, at = self._file, self.sent
        size = min(most, file.length - at)
        if at < self._near:
            size = min(size, self._near - at)
        elif file.is_in_memory(at, size):
            self._near = at + size
        else:
            self.is_cold = True
            return 0
        taken = channel.send_file(file.fd, file.start + at, size)
        if taken is None:
            return 0
        self.is_short = taken == 0
        self.sent += taken
        return taken

    def read_ahead(self) -> None:
        """Read what comes next, so that it is in memory. Runs on a worker thread.

        Raises:
            OSError: the file cannot be read.
        """
        os.pread(self._file.fd, READ_AHEAD, self._file.start + self.sent)
        self._near = self.sent + READ_AHEAD

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        self._file.close()
