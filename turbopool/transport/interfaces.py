"""The seams of the transport: what it needs from whoever runs it, and what it offers to whoever owns it.

Nothing here is implemented here. The dispatcher is a :class:`Reactor`; tests drive a connection with one of their
own. All callbacks of this layer run on the reactor's one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from turbopool.stats import PoolKey

READ = 0x001
"""``EPOLLIN``: there is something to read, the end of the stream included."""
WRITE = 0x004
"""``EPOLLOUT``: the send buffer has room."""

END_EDGE = 0x2000 | 1 << 31
"""``EPOLLRDHUP | EPOLLET``: the peer's end, reported once; what arrives before it is reported to nobody."""

RECEIVE_BYTES = 262_144
"""The most a connection reads in one turn, so that a fast peer starves nobody."""


Outcome = TypeVar("Outcome")


class Handler(Protocol):
    """Whoever watches a descriptor."""

    def on_ready(self, mask: int) -> None:
        """React to the descriptor being readable or writable (or in error, seen when it is used)."""
        ...

    def on_crash(self, error: BaseException) -> None:
        """Clean up after an exception that :meth:`on_ready` let out: a bug, of ours."""
        ...

    def abandon(self) -> None:
        """Give up the descriptor in a forked child: close it with ``os.close`` and touch nothing else."""
        ...

    def let_go(self) -> None:
        """Give up the descriptor because the thread that watches it ends; what another thread uses is only hung up."""
        ...


class Timer(Protocol):
    """One moment to be woken at; arming it anew replaces the old moment."""

    def arm(self, when: float) -> None:
        """Fire at ``when``, a moment; costs nothing if an earlier wake-up is pending."""
        ...

    def postpone(self, when: float) -> bool:
        """Fire at ``when`` if a wake-up before that is pending; else return False: it must be armed. Any thread."""
        ...

    def close(self) -> None:
        """Never fire again."""
        ...


class Reactor(Protocol):
    """One thread that waits for descriptors, moments and calls at once."""

    can_share: bool
    """Whether a descriptor may be watched for its peer's end alone, and :meth:`rewatch` be called by any thread that
    has the descriptor to itself."""

    now: float
    """The present moment, as of this turn. Read on the reactor's thread."""
    polled_at: float
    """When descriptors were last looked at."""

    def watch(self, fd: int, handler: Handler, mask: int) -> None:
        """Begin to watch a descriptor, level-triggered."""
        ...

    def rewatch(self, fd: int, mask: int) -> None:
        """Change what a descriptor is watched for; 0 pauses it altogether, errors included."""
        ...

    def unwatch(self, fd: int) -> None:
        """Stop watching; call it before closing the descriptor."""
        ...

    def timer(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> Timer:
        """Return a new timer, not armed. What ``callback`` lets out goes to ``on_crash``."""
        ...

    def announce(self, tell: Callable[[Outcome], object], outcome: Outcome) -> None:
        """Call ``tell(outcome)`` at the end of this turn: whoever it wakes must not compete with the turn's work."""
        ...

    def defer(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None]) -> None:
        """Run ``callback`` when the work at hand is done, before descriptors are looked at or futures are told."""
        ...

    def post(self, callback: Callable[[], None], on_crash: Callable[[BaseException], None] = ...) -> None:
        """Run ``callback`` on the reactor's thread. Callable from any thread."""
        ...


class Sink(Protocol):
    """Where bytes can be sent without blocking: a channel, or a stream of one."""

    def send(self, data: bytes | memoryview) -> int:
        """Take as many bytes as possible now, and return how many; 0 when none.

        Raises:
            OSError: the connection is broken.
        """
        ...

    def flush(self) -> bool:
        """Send what was taken but not yet written; return whether all is gone."""
        ...


class Channel(Sink, Protocol):
    """A non-blocking byte stream: a TCP socket, with or without TLS over it."""

    fd: int
    version: str | None
    """What ALPN chose, or None."""

    def receive(self) -> bytes | None:
        """Return what there is, ``b""`` at the end of the stream, None when nothing has arrived yet.

        Raises:
            OSError: the connection is broken.
        """
        ...

    def receive_into(self, room: memoryview) -> bytes | memoryview | None:
        """Return what there is, as :meth:`receive` does, or, saving a copy, as the part of ``room`` that it fills.

        Raises:
            OSError: the connection is broken.
        """
        ...

    def await_bytes(self, patience: float) -> bytes | None:
        """Return what arrives, ``b""`` at the end, None when nothing does for about ``patience`` seconds.

        Blocks: for a caller's thread. None may also come early, so look at the time.

        Raises:
            OSError: the connection is broken.
        """
        ...

    def await_into(self, room: memoryview, patience: float) -> bytes | memoryview | None:
        """Return what arrives, as :meth:`await_bytes` does, perhaps as the filled part of ``room``. Blocks."""
        ...

    def note_answer(self, seconds: float, now: float) -> None:
        """Learn how long a whole request took the thread that awaited its response."""
        ...

    def hang_up(self) -> None:
        """End the stream both ways without closing it, so that whoever waits for bytes wakes up. Any thread."""
        ...

    @property
    def buffered(self) -> bool:
        """Whether bytes have arrived that :meth:`receive` could not return yet."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the end of the stream is known, though :meth:`receive` last returned data."""
        ...

    @property
    def truncated(self) -> bool:
        """Whether the stream ended without the peer's close_notify, so that its end proves nothing."""
        ...

    def is_quiet(self) -> bool:
        """Whether the peer has neither sent nor closed anything since it was last looked at."""
        ...

    @property
    def taken(self) -> int:
        """How many bytes were received; in clear or not, for comparison only."""
        ...

    def has_lost_nothing(self) -> bool:
        """Whether all that ever came in waits to be received or is among ``taken``, as far as the system says."""
        ...

    def is_still(self) -> bool:
        """Whether nothing has arrived at all: a quicker way to be sure that it is quiet."""
        ...

    def close(self) -> None:
        """Close the descriptor, without waiting. Idempotent."""
        ...

    def abandon(self) -> None:
        """Close the copied descriptor in a forked child: no shutdown, no close_notify."""
        ...


class Dial(Protocol):
    """A connection being established."""

    key: PoolKey

    def cancel(self) -> None:
        """Give up, close everything, report nothing."""
        ...


Dialed = Callable[[Dial, Channel | None, Exception | None], None]
"""Told once how a dial ended, unless it was cancelled."""


class Dialer(Protocol):
    """Makes dials."""

    def dial(self, key: PoolKey, timeout: float | None, done: Dialed, *, wary: bool = False) -> Dial:
        """Begin to establish a connection within ``timeout`` seconds; ``done`` is never called before this returns.

        A ``wary`` dial makes sure that the server lives.
        """
        ...
