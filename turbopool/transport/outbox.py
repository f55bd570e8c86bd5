"""What waits for a connection's socket to have room."""

from __future__ import annotations

from collections import deque

from turbopool.transport.interfaces import Channel

CONGESTED = 262_144
"""Bytes that may wait before nothing more should be written."""


class Outbox:
    """Bytes on their way to a channel, in order."""

    __slots__ = ("_channel", "_pending", "_size")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pending: deque[memoryview] = deque()
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def is_congested(self) -> bool:
        """Whether so much waits that nothing more should be written."""
        return self._size >= CONGESTED

    def add(self, data: bytes) -> None:
        """Send this, after all that was added before."""
        if data:
            self._pending.append(memoryview(data))
            self._size += len(data)

    def clear(self) -> None:
        """Send nothing more."""
        self._pending.clear()
        self._size = 0

    def flush(self) -> bool:
        """Send what goes; return whether anything did.

        Raises:
            OSError: the connection is broken.
        """
        pending, sent = self._pending, False
        while pending:
            try:
                taken = self._channel.send(pending[0])
            except OSError:
                if sent:
                    break  # whoever sends or reads next learns what broke
                raise
            sent = sent or taken > 0
            self._size -= taken
            if taken < len(pending[0]):
                pending[0] = pending[0][taken:]
                break
            pending.popleft()
        return sent
