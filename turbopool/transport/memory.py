"""Doubles of time, readiness, peers and dials, with which a test decides what happens when. Public.

Give a :class:`~turbopool.actors.dispatcher.Dispatcher` a :class:`FakeClock`, a :class:`MemoryPoller` and a
:class:`MemoryWaker`, and do not start it: it then runs only within :meth:`MemoryPoller.settle`. Give its managers a
:class:`MemoryDialer`: every dial waits until the test lets it succeed, with a :class:`MemoryChannel`, or fail. No
thread, no descriptor, no sleep; the actors, the ledger and the connections are the real ones.

Thread: one, the test's; only :meth:`FakeClock.now` and :meth:`MemoryWaker.wake` may be called from others. Times are
seconds.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable

from turbopool.errors import ConnectError
from turbopool.stats import PoolKey
from turbopool.transport.interfaces import READ, WRITE, Dialed

_FIRST_FD = 1 << 30
"""No kernel numbers its descriptors that high, so none is ever touched by mistake."""
_MOST_TURNS = 100_000


class FakeClock:
    """A clock that stands still; set ``moment``, or :meth:`advance` it."""

    def __init__(self, moment: float = 1000.0) -> None:
        self.moment = moment

    def now(self) -> float:
        """Return the present moment."""
        return self.moment

    def advance(self, seconds: float) -> None:
        """Go forward."""
        self.moment += seconds


class MemoryPoller:
    """Readiness as its sources report it. Polling never waits.

    Attributes:
        timeout: how long the last poll was asked to wait; negative is for ever.
        rested: whether that poll would have slept: it was to wait, and nothing was ready.
        closed: whether it was closed or abandoned.
    """

    can_share = True

    def __init__(self) -> None:
        self._sources: list[Callable[[], int]] = []
        self._masks: dict[int, int] = {}
        self.timeout = 0.0
        self.rested = False
        self.closed = False

    def open(self, readiness: Callable[[], int]) -> int:
        """Return what stands for a descriptor; ``readiness`` is asked for its READ and WRITE at every poll."""
        self._sources.append(readiness)
        return _FIRST_FD + len(self._sources) - 1

    def settle(self, turn: Callable[[float], object]) -> None:
        """Call ``turn`` (a dispatcher's) until it would sleep: all is done that can be done at this moment.

        Raises:
            RuntimeError: it never comes to rest.
        """
        for _ in range(_MOST_TURNS):
            self.rested = False
            turn(-1.0)
            if self.rested:
                return
        msg = f"not at rest after {_MOST_TURNS} turns"
        raise RuntimeError(msg)

    def watch(self, fd: int, mask: int) -> None:
        """Watch for ``mask``."""
        self._masks[fd] = mask

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor."""
        self._masks.pop(fd, None)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Return what is ready now."""
        ready = [(fd, mask & self._sources[fd - _FIRST_FD]()) for fd, mask in self._masks.items()]
        events = [event for event in ready if event[1]]
        self.timeout = timeout
        self.rested = bool(timeout) and not events
        return events

    def close(self) -> None:
        """Watch nothing any more."""
        self._masks.clear()
        self.closed = True

    abandon = close


class MemoryWaker:
    """A waker that counts how often it was touched, in ``wakes``."""

    def __init__(self, poller: MemoryPoller) -> None:
        self._mask = 0
        self._fd = poller.open(lambda: self._mask)
        self.wakes = 0

    def fileno(self) -> int:
        """Return what stands for its descriptor."""
        return self._fd

    def wake(self) -> None:
        """Become readable."""
        self.wakes += 1
        self._mask = READ

    def drain(self) -> None:
        """Become unreadable."""
        self._mask = 0

    close = drain


class MemoryChannel:
    """A byte stream whose peer is the test.

    Attributes:
        sent: all bytes the connection has written.
        room: how many more it may write before it blocks; None is any number.
        error: what reads (once all that was fed is read) and writes raise, as if the connection had broken.
        closed, abandoned: how the connection's side ended, if it has.
        buffered, ended, truncated, version: what a TLS layer would say; set them to play one.
    """

    def __init__(self, poller: MemoryPoller) -> None:
        self.fd = poller.open(self._readiness)
        self._arrived: deque[bytes] = deque()
        self._shown = 0
        self.taken = 0
        self.sent = bytearray()
        self.room: int | None = None
        self.error: OSError | None = None
        self.closed = self.abandoned = False
        self.buffered = self.ended = self.truncated = False
        self.version: str | None = None

    def feed(self, *pieces: bytes) -> None:
        """Let bytes arrive, a read a piece; an empty one is the peer's end."""
        self._arrived += pieces

    def take(self) -> bytes:
        """Return what was written since the last call."""
        news, self._shown = bytes(self.sent[self._shown :]), len(self.sent)
        return news

    def send(self, data: bytes | memoryview) -> int:
        """Take what there is room for."""
        self._raise()
        size = len(data) if self.room is None else min(len(data), self.room)
        self.sent += data[:size]
        if self.room is not None:
            self.room -= size
        return size

    def flush(self) -> bool:
        """Hold nothing back."""
        return True

    def receive(self) -> bytes | None:
        """Return the next piece, None when there is none."""
        if not self._arrived:
            self._raise()
            return None
        piece = self._arrived.popleft() if self._arrived[0] else b""  # the end can be read for ever
        self.taken += len(piece)
        return piece

    def receive_into(self, room: memoryview) -> bytes | memoryview | None:
        """Return the next piece, put into ``room`` if it fits."""
        piece = self.receive()
        if not piece or len(piece) > len(room):
            return piece
        room[: len(piece)] = piece
        return room[: len(piece)]

    def await_bytes(self, patience: float) -> bytes | None:
        """Return the next piece without waiting for it: as if ``patience`` passed at once when there is none."""
        del patience
        return self.receive()

    def await_into(self, room: memoryview, patience: float) -> bytes | memoryview | None:
        """Return the next piece, put into ``room`` if it fits."""
        del patience
        return self.receive_into(room)

    def note_answer(self, seconds: float, now: float) -> None:
        """Learn nothing."""

    def hang_up(self) -> None:
        """End the stream for whoever reads."""
        self.feed(b"")

    def is_quiet(self) -> bool:
        """Whether nothing has arrived and nothing broke."""
        return not self._readiness() & READ

    is_still = is_quiet

    def has_lost_nothing(self) -> bool:
        """Nothing ever is."""
        return True

    def close(self) -> None:
        """End the connection's side."""
        self.closed = True

    def abandon(self) -> None:
        """End it as a forked child does."""
        self.closed = self.abandoned = True

    def _raise(self) -> None:
        if self.closed:
            raise OSError(errno.EBADF, "the channel is closed")
        if self.error is not None:
            raise self.error

    def _readiness(self) -> int:
        broken = self.error is not None
        return (READ if self._arrived or broken else 0) | (WRITE if self.room != 0 or broken else 0)


class MemoryDial:
    """A dial under way: ``is_pending`` until either side ends it; ``channel`` is what it succeeded with."""

    def __init__(self, poller: MemoryPoller, key: PoolKey, timeout: float | None, done: Dialed) -> None:
        self._poller = poller
        self._done = done
        self.key = key
        self.timeout = timeout
        self.channel: MemoryChannel | None = None
        self.is_pending = True

    def cancel(self) -> None:
        """Give up; nothing is reported."""
        self.is_pending = False

    def succeed(self, channel: MemoryChannel | None = None) -> MemoryChannel:
        """Connect, and report it, with a ``channel`` of the test's own if it likes.

        If it was given up, the late channel is closed at once.
        """
        self.channel = channel or MemoryChannel(self._poller)
        if self.is_pending:
            self.is_pending = False
            self._done(self, self.channel, None)
        else:
            self.channel.close()
        return self.channel

    def fail(self, error: Exception | None = None) -> None:
        """Report a failure, by default a refused connect; if it was given up, nothing."""
        if self.is_pending:
            self.is_pending = False
            self._done(self, None, error or ConnectError("refused by the script", origin=self.key.origin))


class MemoryDialer:
    """Makes dials that wait for the test; ``dials`` holds all it ever made, in order."""

    def __init__(self, poller: MemoryPoller) -> None:
        self._poller = poller
        self.dials: list[MemoryDial] = []

    def dial(self, key: PoolKey, timeout: float | None, done: Dialed, *, wary: bool = False) -> MemoryDial:
        """Note a dial; ``done`` is called when the test ends it, so nothing is left to be ``wary`` of."""
        del wary
        dial = MemoryDial(self._poller, key, timeout, done)
        self.dials.append(dial)
        return dial

    @property
    def pending(self) -> list[MemoryDial]:
        """The dials under way, oldest first."""
        return [dial for dial in self.dials if dial.is_pending]
