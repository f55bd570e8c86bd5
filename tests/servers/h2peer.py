"""A scripted HTTP/2 server: the test decides each frame, and sees each connection.

As :class:`tests.servers.raw.RawServer`, which does the work below: a behaviour serves each connection in a thread of
its own, and what it raises fails the test, unless it is the client's going away.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.h2conn import H2Conn
from tests.servers.h2recv import H2Request
from tests.servers.raw import GONE, Handler, RawServer

Behaviour = Callable[[H2Conn], None]


def http1(handler: Handler) -> Behaviour:
    """A behaviour that speaks HTTP/1, by a handler for RawServer."""

    def behaviour(conn: H2Conn) -> None:
        handler(conn.raw)

    return behaviour


def by_alpn(h2: Behaviour, h1: Handler) -> Behaviour:
    """A behaviour that speaks what was agreed upon in the TLS handshake; HTTP/1 if nothing was."""

    def behaviour(conn: H2Conn) -> None:
        (h2 if conn.raw.alpn == "h2" else http1(h1))(conn)

    return behaviour


class H2Peer:
    """Serves from ``__enter__`` to ``__exit__``, which closes all and raises what behaviours raised."""

    def __init__(
        self,
        behaviour: Behaviour | Sequence[Behaviour],
        *,
        authority: Authority | None = None,
        alpn: Sequence[str] = ("h2",),
        port: int = 0,
        receive_buffer: int | None = None,
    ) -> None:
        """Listen at once: a client may connect before ``__enter__``, and waits.

        Args:
            behaviour: serves each connection; of a sequence, each serves the connection of its place, and the last one
                all further connections.
            authority: speak TLS, with its good certificate; None is plain TCP, for prior knowledge.
            alpn: over TLS, the protocols it agrees to; none switches ALPN off.
            port: of 127.0.0.1; 0 lets the kernel choose.
            receive_buffer: bytes the kernel takes for a behaviour that does not read.
        """
        behaviours = [behaviour] if callable(behaviour) else list(behaviour)
        context = authority.server_context(alpn=alpn) if authority else None
        self._changed = threading.Condition(threading.RLock())
        self.connections: list[H2Conn] = []
        """All connections that behaviours were begun for, in accept order."""
        self.faults: list[BaseException] = []
        """What behaviours raised, apart from clients going away."""
        handlers = [self._handler(each) for each in behaviours]
        self.raw = RawServer(handlers, ssl_context=context, port=port, receive_buffer=receive_buffer)
        """The server below; its `connections` count also those whose TLS handshake failed."""
        self.url = self.raw.url
        self.host = self.raw.host
        self.port = self.raw.port
        self.address = self.raw.address
        self.closing = self.raw.closing
        """Set when the peer is being left; behaviours wait on it instead of sleeping."""

    @property
    def requests(self) -> list[H2Request]:
        """The requests of all connections, in the order their headers were complete."""
        found = [request for conn in list(self.connections) for request in list(conn.requests)]
        return sorted(found, key=lambda request: request.at)

    @property
    def open(self) -> int:
        """Connections that neither side has begun to close, as the kernel knows it now."""
        return self.raw.open

    @property
    def peak(self) -> int:
        """The most connections that were open at one accept."""
        return self.raw.peak

    def wait_until(self, predicate: Callable[[Self], object], timeout: float = 20.0) -> None:
        """Wait until `predicate(peer)` holds; it is asked after each connection, frame read, fault and close.

        Raises:
            AssertionError: it does not within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                last = [conn.frames[-5:] for conn in self.connections]
                raise AssertionError(f"not within {timeout} s; the last frames of each connection: {last}")

    def wait_for_connections(self, count: int, timeout: float = 20.0) -> None:
        """Wait until behaviours were begun for `count` connections."""
        self.wait_until(lambda peer: len(peer.connections) >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = 20.0) -> None:
        """Wait until the headers of `count` requests have arrived."""
        self.wait_until(lambda peer: sum(len(conn.requests) for conn in peer.connections) >= count, timeout)

    def refuse(self) -> None:
        """Refuse further connects; what was accepted lives on. A new peer at the same `port` comes back."""
        self.raw.refuse()

    def __enter__(self) -> Self:
        """Begin to accept."""
        self.raw.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything, join every thread, then raise the first fault of a behaviour."""
        self.raw.__exit__(kind, error, trace)

    def _handler(self, behaviour: Behaviour) -> Handler:
        def handler(raw: Conn) -> None:
            conn = H2Conn(raw, self._notice)
            with self._changed:
                bisect.insort(self.connections, conn, key=lambda conn: conn.number)
                self._changed.notify_all()
            try:
                behaviour(conn)
            except GONE:
                raise
            except BaseException as fault:
                self.faults.append(fault)  # raised again by __exit__, in the test's thread
                raise
            finally:
                conn.finish()
                self._notice()

        return handler

    def _notice(self) -> None:
        with self._changed:
            self._changed.notify_all()
