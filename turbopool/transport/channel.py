"""Non-blocking byte streams over a TCP socket: in clear, and through TLS.

TLS is an ``ssl.SSLObject`` between two memory buffers, with the raw socket outside: the socket's readiness, errors
and end stay visible, and closing never sends anything in clear.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl

from turbopool.config.tls import TlsContext
from turbopool.transport.interfaces import RECEIVE_BYTES

_USUAL_BYTES = 65_536
"""Bytes asked for at first; a buffer beyond 128 KiB costs a system call to allocate, so it is used when filled."""
_RECORD_HEADER = 5


class TcpChannel:
    """A connected, non-blocking TCP socket."""

    __slots__ = ("_size", "_sock", "fd")

    version: str | None = None
    truncated = False
    buffered = False
    ended = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.fd = sock.fileno()
        self._size = _USUAL_BYTES

    def send(self, data: bytes | memoryview) -> int:
        """Take as many bytes as the kernel does now."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def flush(self) -> bool:
        """Nothing is ever held back."""
        return True

    def receive(self) -> bytes | None:
        """Return what has arrived, ``b""`` at the end, None when nothing has."""
        try:
            data = self._sock.recv(self._size)
        except (BlockingIOError, InterruptedError):
            return None
        self._size = RECEIVE_BYTES if len(data) >= _USUAL_BYTES else _USUAL_BYTES
        return data

    def has_spoken(self) -> bool:
        """Whether there is something to read."""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def is_quiet(self) -> bool:
        """Whether the peer has neither sent nor closed anything since: one system call."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def abandon(self) -> None:
        """Close the copied descriptor, and nothing more."""
        fd = self._sock.detach()
        if fd >= 0:
            os.close(fd)


class TlsChannel:
    """A TLS client session over a connected, non-blocking TCP socket."""

    __slots__ = ("_established", "_incoming", "_missing", "_outgoing", "_partial", "_tcp", "_tls", "_unsent", "ended",
                 "fd", "truncated", "version")  # fmt: skip

    def __init__(self, sock: socket.socket, context: TlsContext, server_hostname: str) -> None:
        self._tcp = TcpChannel(sock)
        self.fd = self._tcp.fd
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap(self._incoming, self._outgoing, server_hostname)
        self._unsent = memoryview(b"")
        self._partial = b""  # of a record's header
        self._missing = 0  # bytes of a record whose header has come
        self._established = False
        self.ended = False
        self.truncated = False
        self.version: str | None = None

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is complete.

        Raises:
            ssl.SSLError: it failed, by the certificate or otherwise.
            OSError: the connection broke.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._collect()
                self.flush()
                if not self._fill():
                    return False
                continue
            except ssl.SSLError:
                with contextlib.suppress(OSError):  # the alert that tells the server why
                    self._collect()
                    self.flush()
                raise
            self._collect()
            self._established = True
            self.version = self._tls.selected_alpn_protocol()
            self.flush()
            return True

    @property
    def peer_certificate(self) -> bytes | None:
        """The server's certificate in DER form."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def buffered(self) -> bool:
        """Whether bytes of a record, not yet whole, have arrived."""
        return bool(self._missing or self._partial)

    @property
    def wants_write(self) -> bool:
        """Whether ciphertext waits for room in the send buffer."""
        return len(self._unsent) > 0

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send; nothing more is taken while ciphertext waits."""
        if not self.flush():
            return 0
        taken = self._tls.write(memoryview(data)[:RECEIVE_BYTES])
        self._collect()
        left = len(self._unsent)
        try:
            self.flush()
        except OSError:
            if len(self._unsent) == left:
                raise
            # a part of it is on its way: it counts as sent, and whoever sends or reads next learns what broke
        return taken

    def flush(self) -> bool:
        """Send the ciphertext that waits; return whether none is left."""
        while self._unsent:
            sent = self._tcp.send(self._unsent)
            if not sent:
                return False
            self._unsent = self._unsent[sent:]
        return True

    def receive(self) -> bytes | None:
        """Return the plaintext of what has arrived, ``b""`` at the end, None when there is none."""
        pieces: list[bytes] = []
        filled = False
        while True:
            try:
                piece = self._tls.read(RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                if filled or not self._fill():
                    break
                filled = True
                continue
            except ssl.SSLEOFError:
                self.ended = self.truncated = True
                return b"".join(pieces)
            if not piece:  # close_notify
                self.ended = True
                return b"".join(pieces)
            pieces.append(piece)
        self._collect()  # a key update asks for an answer
        self.flush()
        return b"".join(pieces) if pieces else None

    def is_quiet(self) -> bool:
        """Whether the peer has sent no data and not closed; session tickets do not count."""
        try:
            return self.receive() is None and not self.buffered
        except OSError:
            return False

    def close(self) -> None:
        """Say close_notify if there is room for it, and close the socket."""
        if self._established and not self._unsent:
            with contextlib.suppress(OSError):
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                self._collect()
                self.flush()
        self._tcp.close()

    def abandon(self) -> None:
        """Close the copied descriptor, and nothing more: no close_notify."""
        self._tcp.abandon()

    def _fill(self) -> bool:
        """Move what has arrived into the TLS layer; return whether there was anything, the end included."""
        data = self._tcp.receive()
        if data is None:
            return False
        if data:
            self._incoming.write(data)
            self._follow(data)
        else:
            self._incoming.write_eof()
        return True

    def _follow(self, data: bytes) -> None:
        """Note where records end (RFC 8446 section 5.1): OpenSSL does not tell whether it holds a part of one."""
        data, at = self._partial + data, self._missing
        while at + _RECORD_HEADER <= len(data):
            at += _RECORD_HEADER + int.from_bytes(data[at + 3 : at + _RECORD_HEADER])
        self._partial = data[at:]
        self._missing = max(0, at - len(data))

    def _collect(self) -> None:
        if self._outgoing.pending:
            self._unsent = memoryview(bytes(self._unsent) + self._outgoing.read())
