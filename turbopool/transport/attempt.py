"""What a dial waits for: a socket that connects, a TLS handshake or a moment of quiet. Each reports once how it ended.

Thread: the reactor's. Whoever starts one may close it, and then hears nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable

from turbopool.transport.channel import TcpChannel, TlsChannel
from turbopool.transport.interfaces import READ, WRITE, Reactor

_PROBES = tuple(
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
)
"""Seconds, seconds, count: a path that was silently cut is noticed in half a minute, before the idle timeout."""

SETTLING = 0.02
"""Seconds."""

Proved = Callable[["Proof", OSError | None], None]
Crashed = Callable[[BaseException], None]


class Attempt:
    """One address being connected to.

    Args:
        reactor: watches the socket.
        family, address: as the resolver gave them.
        done: told the end, with the error if there was one; a connected socket is then the caller's.
        on_crash: told of a bug of ours.

    Raises:
        OSError: it could not even begin.
    """

    __slots__ = ("_done", "_on_crash", "_reactor", "sock")

    def __init__(
        self,
        reactor: Reactor,
        family: int,
        address: tuple[object, ...],
        done: Callable[[Attempt, OSError | None], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._reactor = reactor
        self._done = done
        self._on_crash = on_crash
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(0.0)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _PROBES:
                self.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            with contextlib.suppress(BlockingIOError):  # it is under way
                self.sock.connect(address)
            reactor.watch(self.sock.fileno(), self, WRITE)
        except BaseException:
            self.sock.close()
            raise

    def on_ready(self, mask: int) -> None:
        """Connected, or failed: the socket tells. ``mask`` does not."""
        del mask
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._reactor.unwatch(self.sock.fileno())
        if code:
            self.sock.close()
        self._done(self, OSError(code, os.strerror(code)) if code else None)

    def on_crash(self, error: BaseException) -> None:
        """Fail the dial with a bug of ours."""
        self._on_crash(error)

    def close(self) -> None:
        """Stop watching and close."""
        try:
            self._reactor.unwatch(self.sock.fileno())
        finally:
            self.sock.close()

    def abandon(self) -> None:
        """Give up the descriptor in a forked child."""
        fd = self.sock.detach()
        if fd >= 0:
            os.close(fd)

    let_go = abandon


class Proof:
    """What a connected channel has to show before it is used. Reports once, with the error if there is one.

    Args:
        reactor: watches the channel.
        channel: connected; closed if it cannot be watched.
        done: told the end.
        on_crash: told of a bug of ours.
    """

    __slots__ = ("_done", "_on_crash", "_reactor", "channel")

    def __init__(self, reactor: Reactor, channel: TcpChannel | TlsChannel, done: Proved, on_crash: Crashed) -> None:
        self._reactor = reactor
        self._done = done
        self._on_crash = on_crash
        self.channel = channel
        try:
            reactor.watch(channel.fd, self, READ)
        except BaseException:
            channel.close()
            raise

    def on_ready(self, mask: int) -> None:
        """Look at the channel."""
        raise NotImplementedError

    def on_crash(self, error: BaseException) -> None:
        """Fail the dial with a bug of ours."""
        self._on_crash(error)

    def release(self) -> None:
        """Stop watching; the channel goes to its connection."""
        self._reactor.unwatch(self.channel.fd)

    def close(self) -> None:
        """Stop watching and close."""
        try:
            self.release()
        finally:
            self.channel.close()

    def abandon(self) -> None:
        """Give up the descriptor in a forked child."""
        self.channel.abandon()

    let_go = abandon


class Handshake(Proof):
    """A TLS handshake."""

    __slots__ = ("_mask", "_tls")

    def __init__(self, reactor: Reactor, channel: TlsChannel, done: Proved, on_crash: Crashed) -> None:
        super().__init__(reactor, channel, done, on_crash)
        self._tls = channel
        self._mask = READ

    def on_ready(self, mask: int) -> None:
        """Go on."""
        del mask
        try:
            complete = self._tls.handshake()
        except OSError as error:  # ssl.SSLError is one
            self._done(self, error)
            return
        if complete:
            self._done(self, None)
            return
        mask = READ | WRITE if self._tls.wants_write else READ
        if mask != self._mask:
            self._mask = mask
            self._reactor.rewatch(self.channel.fd, mask)


class Settling(Proof):
    """A moment of quiet, after a drop.

    The kernel lets clients in to a server that is being killed: its connections end before its listening socket does.
    A request sent there would be lost, and nobody could know whether it was processed. A server of a protocol in which
    it ``speaks_first`` shows by that that it lives.
    """

    __slots__ = ("_plain", "_speaks_first", "_timer")

    def __init__(
        self, reactor: Reactor, channel: TcpChannel, done: Proved, on_crash: Crashed, *, speaks_first: bool
    ) -> None:
        super().__init__(reactor, channel, done, on_crash)
        self._plain = channel
        self._speaks_first = speaks_first
        self._timer = reactor.timer(lambda: done(self, None), on_crash)
        self._timer.arm(reactor.now + SETTLING)

    def on_ready(self, mask: int) -> None:
        """The peer has ended it, or talks out of turn."""
        del mask
        lives = self._speaks_first and self._plain.has_spoken()
        self._done(self, None if lives else ConnectionResetError(errno.ECONNRESET, "the server hung up at once"))

    def release(self) -> None:
        """Stop watching and waiting."""
        self._timer.close()
        super().release()
