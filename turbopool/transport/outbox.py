"""What waits for a connection's socket to have room."""

from __future__ import annotations

from collections import deque

from turbopool.transport.interfaces import Channel

CONGESTED = 262_144
"""Bytes that may wait before nothing more should be written."""


class Outbox:
    """Bytes on their way to a channel, in order.

    Attributes:
        added, taken: how many there were so far, and how many of them the channel has taken.
    """

    __slots__ = ("_channel", "_pending", "added", "taken")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pending: deque[memoryview] = deque()
        self.added = self.taken = 0

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def size(self) -> int:
        """How many wait."""
        return self.added - self.taken

    def add(self, data: bytes) -> None:
        """Send this, after all that was added before."""
        if data:
            self._pending.append(memoryview(data))
            self.added += len(data)

    def clear(self) -> None:
        """Send nothing more."""
        self._pending.clear()
        self.added = self.taken

    def flush(self) -> None:
        """Send what goes.

        Raises:
            OSError: the connection is broken.
        """
        pending, before = self._pending, self.taken
        while pending:
            try:
                taken = self._channel.send(pending[0])
            except OSError:
                if self.taken > before:
                    break  # whoever sends or reads next learns what broke
                raise
            self.taken += taken
            if taken < len(pending[0]):
                pending[0] = pending[0][taken:]
                break
            pending.popleft()
