"""What a dispatcher waits on: readiness of descriptors, and a waker that another thread can touch."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterable
from typing import Protocol

from turbopool.transport import quick
from turbopool.transport.interfaces import READ, WRITE


class Poller(Protocol):
    """Readiness of descriptors, level-triggered."""

    can_share: bool
    """Whether it knows ``END_EDGE``, and any thread may call :meth:`watch` for a descriptor it has to itself."""

    def watch(self, fd: int, mask: int) -> None:
        """Watch for ``mask``; 0 watches for nothing at all, not even errors."""
        ...

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor; it need not be watched."""
        ...

    def poll(self, timeout: float) -> Iterable[tuple[int, int]]:
        """Wait up to ``timeout`` seconds (negative: for ever), return what is ready."""
        ...

    def close(self) -> None:
        """Release the poller."""
        ...

    def abandon(self) -> None:
        """Release a forked child's copy, touching nothing the parent shares."""
        ...


class Waker(Protocol):
    """Something a poller can be woken by."""

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        ...

    def wake(self) -> None:
        """Make it readable. Any thread."""
        ...

    def drain(self) -> None:
        """Make it unreadable again."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class EpollPoller:
    """``epoll`` (Linux)."""

    can_share = True

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._masks: dict[int, int] = {}
        self.poll = self._epoll.poll

    def watch(self, fd: int, mask: int) -> None:
        """Watch for ``mask``."""
        before = self._masks.get(fd, 0)
        if mask and before:
            self._epoll.modify(fd, mask)
        elif mask:
            self._epoll.register(fd, mask)
        elif before:
            self._epoll.unregister(fd)
        self._masks[fd] = mask

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor."""
        if self._masks.pop(fd, 0):
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    abandon = close


class SelectorPoller:
    """``kqueue`` or what else the platform has, through ``selectors``."""

    can_share = False

    def __init__(self) -> None:
        import selectors  # noqa: PLC0415  # not needed where epoll is

        self._selector = selectors.DefaultSelector()
        self._events = ((READ, selectors.EVENT_READ), (WRITE, selectors.EVENT_WRITE))

    def watch(self, fd: int, mask: int) -> None:
        """Watch for ``mask``."""
        self.unwatch(fd)
        events = sum(event for bit, event in self._events if mask & bit)
        if events:
            self._selector.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def poll(self, timeout: float) -> Iterable[tuple[int, int]]:
        """Wait, and return what is ready."""
        return [
            (key.fd, sum(bit for bit, event in self._events if events & event))
            for key, events in self._selector.select(None if timeout < 0 else timeout)
        ]

    def close(self) -> None:
        """Close the selector."""
        self._selector.close()

    abandon = close


class EventfdWaker:
    """An ``eventfd`` (Linux)."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def wake(self) -> None:
        """Make it readable; a closed one is not worth waking."""
        if quick.wake is not None:
            quick.wake(self._fd)
            return
        with contextlib.suppress(OSError, ValueError):
            os.eventfd_write(self._fd, 1)

    def drain(self) -> None:
        """Reset it."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Close it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class SocketWaker:
    """A socket pair, where there is no ``eventfd``."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.settimeout(0.0)
        self._writer.settimeout(0.0)

    def fileno(self) -> int:
        """Return the reading end's descriptor."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Write a byte; a full buffer wakes as well."""
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def drain(self) -> None:
        """Read what is there."""
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        self._reader.close()
        self._writer.close()


def system_poller() -> Poller:
    """Return the best poller of this platform."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()


def system_waker() -> Waker:
    """Return the cheapest waker of this platform."""
    return EventfdWaker() if hasattr(os, "eventfd") else SocketWaker()
