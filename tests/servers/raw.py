"""A scripted TCP or TLS server: the test decides each byte, and sees each connection.

Every connection is served by a handler in a thread of its own. When the handler returns,
the connection is closed in an orderly way. A client that goes away ends its handler
without fault; any other exception of a handler fails the test when the server is left.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tests.servers.connection import Conn
from tests.servers.listening import Listener
from tests.servers.wire import RawRequest
from tests.waiting import PATIENCE

Handler = Callable[[Conn], None]
Answer = bytes | Callable[[RawRequest], bytes]

GONE = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""How a client that went away shows in a handler."""


def script(*answers: Answer) -> Handler:
    """A handler that answers one request with each of `answers`, then closes."""

    def handler(conn: Conn) -> None:
        for answer in answers:
            _answer(conn, answer)

    return handler


def always(answer: Answer) -> Handler:
    """A handler that answers every request the same way until the client closes."""

    def handler(conn: Conn) -> None:
        while True:
            _answer(conn, answer)

    return handler


class RawServer:
    """Serves from ``__enter__`` to ``__exit__``, which closes all and reports faults."""

    def __init__(
        self,
        handler: Handler | Sequence[Handler],
        *,
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        receive_buffer: int | None = None,
    ) -> None:
        """Listen at once: a client may connect before ``__enter__``, and waits.

        Args:
            handler: serves each connection; of a sequence, each serves the connection of
                its place, and the last one all further connections.
            ssl_context: do a TLS handshake before the handler begins. A failed one is in
                ``Conn.handshake_error``, the handler is not called then, and it is no fault.
            host: a loopback address, IPv4 or IPv6.
            port: 0 lets the kernel choose.
            receive_buffer: bytes the kernel takes for a handler that does not read.
        """
        self._handlers = [handler] if callable(handler) else list(handler)
        self._ssl_context = ssl_context
        self._listener = Listener(self._serve, host=host, port=port, receive_buffer=receive_buffer)
        self._changed = threading.Condition(threading.RLock())
        self.closing = self._listener.closing
        """Set when the server is being left; handlers wait on it instead of sleeping."""
        self.host = host
        self.port = self._listener.port
        self.connections: list[Conn] = []
        """All connections ever accepted, in that order."""
        self.requests: list[RawRequest] = []
        """All requests of all connections, in the order their heads were complete."""
        self.faults: list[BaseException] = []
        """What handlers raised, apart from clients going away."""
        self.peak = 0
        """The most connections that were open at one accept."""

    @property
    def url(self) -> str:
        """Scheme, host and port, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._ssl_context else 'http'}://{host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def open(self) -> int:
        """Connections that neither side has begun to close, as the kernel knows it now."""
        with self._changed:
            return sum(conn.is_open() for conn in self.connections)

    def wait_until(self, predicate: Callable[[Self], object], timeout: float = PATIENCE) -> None:
        """Wait until `predicate(server)` holds; it is asked after each accept, request and close.

        Raises:
            AssertionError: it does not within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                raise AssertionError(f"not within {timeout} s: {len(self.connections)} connections, {self.requests}")

    def wait_for_connections(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until `count` connections were accepted."""
        self.wait_until(lambda server: len(server.connections) >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until the heads of `count` requests have arrived."""
        self.wait_until(lambda server: len(server.requests) >= count, timeout)

    def refuse(self) -> None:
        """Refuse further connects; what was accepted lives on.

        A new server at the same `port` makes the host come back.
        """
        self._listener.refuse()

    def __enter__(self) -> Self:
        """Begin to accept."""
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything, join every thread, then raise the first fault of a handler.

        If the test is failing already, the faults are notes of its own error.
        """
        self.closing.set()
        self._listener.refuse()
        for conn in self.connections:
            conn.abort()
        self._listener.join()
        if error is None and self.faults:
            raise self.faults[0]
        for fault in self.faults:
            error.add_note(f"and in a server's handler: {fault!r}")  # type: ignore[union-attr]

    def _serve(self, accepted: socket.socket, number: int) -> None:
        conn = Conn(accepted, number, self.closing, self._notice)
        with self._changed:
            self.connections.append(conn)
            self.peak = max(self.peak, self.open)
            self._changed.notify_all()
        if self.closing.is_set():  # too late for __exit__ to see it
            conn.abort()
        try:
            if self._ssl_context is None or conn.start_tls(self._ssl_context):
                self._handlers[min(number, len(self._handlers) - 1)](conn)
        except GONE:
            pass  # the client may go at any time: the test sees it by the times of `conn`
        except BaseException as fault:  # noqa: BLE001 - raised by __exit__, in the test's thread
            self.faults.append(fault)
        finally:
            conn.close()

    def _notice(self, request: RawRequest | None) -> None:
        with self._changed:
            if request is not None:
                self.requests.append(request)
            self._changed.notify_all()


def _answer(conn: Conn, answer: Answer) -> None:
    request = conn.read_request()
    conn.send(answer if isinstance(answer, bytes) else answer(request))
