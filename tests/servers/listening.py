"""A listening socket with a thread for each connection; the base of the servers here.

Stopping it leaves nothing behind: the listener is closed, its owner unblocks what the
connections wait for, and all threads are joined within a bounded time.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

_JOIN_SECONDS = 30.0
_BACKLOG = 1024
_RETRY_SECONDS = 0.01


def kept(host: str, port: int) -> socket.socket | None:
    """Return a socket that keeps a port from everybody but servers of ours: connects to it are refused.

    None if somebody has it already, as a server of ours that was quicker.
    """
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, port))
    except OSError:
        holder.close()
        return None
    return holder


class Listener:
    """Accepts connections and hands each to `serve` in a thread of its own.

    The threads are daemons: a test that fails while it holds one does not hang the run.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket, int], None],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        receive_buffer: int | None = None,
    ) -> None:
        """Listen at once; accept from :meth:`start` on.

        Args:
            serve: called with the socket, which it has to close, and its number from 0.
            host: a loopback address, IPv4 or IPv6.
            port: 0 lets the kernel choose.
            receive_buffer: bytes of kernel buffer for each connection; None: the kernel's own.
        """
        self._serve = serve
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self._socket.bind((host, port))
            self._socket.listen(_BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self.closing = threading.Event()
        """Set as soon as the server is being stopped; wait on it instead of sleeping."""
        self._refusing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name=f"acceptor-{self.port}", daemon=True)
        self._threads: list[threading.Thread] = []
        self._kept: socket.socket | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._acceptor.start()

    def refuse(self) -> None:
        """Stop listening: further connects are refused, accepted connections live on, others are reset.

        Until :meth:`join` the port is kept, so that nobody else on this machine gets it; see :func:`kept`.
        """
        if self._refusing.is_set():
            return
        self._refusing.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the accept() below, close() would not
        self._acceptor.join(_JOIN_SECONDS)
        self._socket.close()
        self._kept = kept(self.host, self.port)

    def join(self) -> None:
        """Wait until every connection's thread ended.

        Raises:
            AssertionError: one did not in time; it is named.
        """
        if self._kept is not None:
            self._kept.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [thread.name for thread in (self._acceptor, *self._threads) if thread.is_alive()]
        if stuck:
            raise AssertionError(f"threads of the server at port {self.port} did not end: {stuck}")

    def _accept(self) -> None:
        while not self._refusing.is_set():
            try:
                accepted, _ = self._socket.accept()
            except OSError:  # refusing, or a test took the last descriptor: then try again
                self._refusing.wait(_RETRY_SECONDS)
                continue
            number = len(self._threads)
            name = f"connection-{self.port}-{number}"
            thread = threading.Thread(target=self._serve, args=(accepted, number), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
