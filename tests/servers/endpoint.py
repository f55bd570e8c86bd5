"""The server's end of one TCP or TLS connection, with every way to end it.

One thread owns an endpoint: the one that made it. It reads and writes; the others may
look, and may call :meth:`Endpoint.cut`, :meth:`Endpoint.reset` and :meth:`Endpoint.abort`.
Closing is what tests are about, so each way has its own name:

- :meth:`Endpoint.close`: orderly; over TLS with close_notify first.
- :meth:`Endpoint.cut`: a bare FIN; over TLS without close_notify, which is a truncation.
- :meth:`Endpoint.reset`: a RST.
- :meth:`Endpoint.shutdown_write`: half-close; reading goes on.

Linux turns the FIN of a close into a RST if bytes of the client are left unread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time

from tests.servers.tls import TlsLayer
from tests.waiting import PATIENCE

IO_SECONDS = 30.0
"""How long the owner may wait for bytes or for room: a hang becomes a TimeoutError."""

_LIVE_STATES = (1, 4, 5)
"""TCP states in which the peer has not closed: ESTABLISHED, FIN_WAIT1, FIN_WAIT2."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_RECEIVE_BYTES = 65536


class Endpoint:
    """Owns a connected socket from the start to :attr:`closed_at`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(IO_SECONDS)
        self._socket = sock
        self._tls: TlsLayer | None = None
        self._owner = threading.get_ident()
        self._ending = False  # another thread of ours asked for the end: the client did not close
        self.received = 0
        """Bytes read so far, after decryption; the handshake's do not count."""
        self.peer_closed_at: float | None = None
        """When a read or wait first saw the client's FIN or RST; seconds, monotonic."""
        self.closed_at: float | None = None
        """When this side closed; seconds, monotonic."""
        self.handshake_error: OSError | None = None
        """Why the TLS handshake failed, if it did."""

    def start_tls(self, context: ssl.SSLContext) -> bool:
        """Do the server's side of a TLS handshake; whether it worked.

        All further bytes are encrypted. A failure is kept in :attr:`handshake_error`.
        """
        tls = TlsLayer(self._socket, context)
        try:
            tls.handshake()
        except OSError as error:
            self.handshake_error = error
            return False
        self._tls = tls
        return True

    @property
    def alpn(self) -> str | None:
        """The protocol agreed in the TLS handshake."""
        return self._tls.alpn if self._tls else None

    @property
    def server_name(self) -> str | None:
        """The name the client asked for in the TLS handshake (SNI)."""
        return self._tls.server_name if self._tls else None

    def receive(self) -> bytes:
        """The next bytes; empty when the client closed."""
        try:
            data = self._tls.receive() if self._tls else self._socket.recv(_RECEIVE_BYTES)
        except ConnectionError:
            self._peer_closed()
            raise
        if not data:
            self._peer_closed()
        self.received += len(data)
        return data

    def receive_within(self, seconds: float, waker: int) -> bytes | None:
        """As :meth:`receive`, but None after `seconds`, or when the descriptor `waker` is readable."""
        if (data := self._receive_at_once()) is not None:
            return data
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(waker, select.POLLIN)
        poller.poll(seconds * 1000)
        return self._receive_at_once()

    def send(self, data: bytes) -> None:
        """Write all of `data`."""
        if self._tls:
            self._tls.send(data)
        else:
            self._socket.sendall(data)

    def wait_closed(self, timeout: float = PATIENCE) -> bool:
        """Whether the client closes within `timeout` seconds; reads nothing meanwhile."""
        poller = select.poll()
        poller.register(self._socket, select.POLLRDHUP)
        if not poller.poll(timeout * 1000) or self._ending:
            return False
        self._peer_closed()
        return True

    def is_open(self) -> bool:
        """Whether neither side has closed, as the kernel knows it at this moment."""
        if self.closed_at is not None:
            return False
        try:
            state = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:  # closed by the owner since
            return False
        return state in _LIVE_STATES

    def shutdown_write(self) -> None:
        """Send close_notify (over TLS) and FIN; reading goes on."""
        if self._tls:
            self._tls.close_notify()
        self._shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Send close_notify (over TLS) and FIN, and give the socket back. Idempotent."""
        if self._tls and self.closed_at is None and not self._ending:
            with contextlib.suppress(OSError):  # the client is gone
                self._tls.close_notify()
        self._release()

    def cut(self) -> None:
        """Send FIN without close_notify, and give the socket back. Idempotent.

        Called by another thread, the socket is given back by the owner, who sees an end.
        """
        self._end(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Send RST, and give the socket back. Idempotent.

        Called by another thread, the owner does it: it sees an end at its next read.
        """
        if self.closed_at is None:
            with contextlib.suppress(OSError):  # closed by the owner since
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._end(socket.SHUT_RD)

    def abort(self) -> None:
        """End whatever the owner waits for; for other threads."""
        self._ending = True
        self._shutdown(socket.SHUT_RDWR)

    def _receive_at_once(self) -> bytes | None:
        self._socket.settimeout(0)
        try:
            return self.receive()
        except BlockingIOError:
            return None
        finally:
            self._socket.settimeout(IO_SECONDS)

    def _end(self, how: int) -> None:
        if threading.get_ident() == self._owner:
            self._release()
        else:
            # close() would not wake the owner, and send nothing before the owner's poll ends.
            self._ending = True
            self._shutdown(how)

    def _release(self) -> None:
        if self.closed_at is None:
            self.closed_at = time.monotonic()
            self._socket.close()

    def _peer_closed(self) -> None:
        if self.peer_closed_at is None and not self._ending:
            self.peer_closed_at = time.monotonic()

    def _shutdown(self, how: int) -> None:
        with contextlib.suppress(OSError):  # closed by either side since
            self._socket.shutdown(how)
