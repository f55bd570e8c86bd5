"""Byte streams over a TCP socket, in clear and through TLS: without blocking for the reactor, blocking for a caller.

The socket itself blocks, and whoever must not wait says so with each call (``MSG_DONTWAIT``): the reactor's thread and
a caller's take turns with it, and changing its mode would cost a system call each time.

TLS is an ``ssl.SSLObject`` between two memory buffers, with the raw socket outside: the socket's readiness, errors
and end stay visible, and closing never sends anything in clear.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
import struct
import sys
import termios

from turbopool.clock import NEVER
from turbopool.config.tls import TlsContext
from turbopool.transport import quick
from turbopool.transport.interfaces import RECEIVE_BYTES
from turbopool.transport.spinning import Spinner, spinner, tls_spinner
from turbopool.transport.trials import SLEEPING

_USUAL_BYTES = 65_536
"""Bytes asked for once few do not do; a buffer beyond 128 KiB costs a system call, so it is used when filled."""
_RECORD_HEADER = 5
_NOW = socket.MSG_DONTWAIT
_BYTES_RECEIVED = slice(128, 136)
"""Where ``TCP_INFO`` has how many bytes ever came in (Linux 4.1), the end of the stream counted as one."""
_ESTABLISHED = 1
"""The state that it has in the first byte until the stream has ended."""
_PATIENCE_STEP = 0.05
"""Seconds by which a wait may be too long or short before the kernel is told another bound: one system call less."""
_LEAST_PATIENCE = 0.001
"""Seconds; the kernel takes 0 for no bound at all."""


class TcpChannel:
    """A connected TCP socket."""

    __slots__ = ("_patience", "_size", "_sock", "_spinner", "fd", "taken")

    version: str | None = None
    truncated = False
    buffered = False
    ended = False

    def __init__(self, sock: socket.socket, spinner: Spinner | None = spinner) -> None:
        sock.settimeout(None)
        self._spinner = spinner
        self._sock = sock
        self.fd = sock.fileno()
        self.taken = 0
        self._size = quick.MOST
        self._patience: float = NEVER

    def send(self, data: bytes | memoryview) -> int:
        """Take as many bytes as the kernel does now."""
        try:
            if quick.send is not None and len(data) <= quick.MOST and type(data) is bytes:
                return quick.send(self.fd, data)
            return self._sock.send(data, _NOW)
        except (BlockingIOError, InterruptedError):
            return 0

    def send_file(self, fd: int, start: int, size: int) -> int | None:
        """Let the kernel take up to ``size`` bytes of a file now; None when there is no room, 0 at the file's end."""
        os.set_blocking(self.fd, False)  # sendfile has no flag that says so
        try:
            return os.sendfile(self.fd, fd, start, size)
        except (BlockingIOError, InterruptedError):
            return None
        finally:
            os.set_blocking(self.fd, True)

    def flush(self) -> bool:
        """Nothing is ever held back."""
        return True

    def receive(self) -> bytes | None:
        """Return what has arrived, ``b""`` at the end, None when nothing has."""
        try:
            if self._size == quick.MOST and quick.receive is not None:
                data = quick.receive(self.fd)
                if data is None:
                    return None
            else:
                data = self._sock.recv(self._size, _NOW)
        except (BlockingIOError, InterruptedError):
            return None
        self.taken += len(data)
        if len(data) >= quick.MOST or self._size != quick.MOST:
            self._note_size(len(data))
        return data

    def _note_size(self, received: int) -> None:
        """Ask for more next time when all that was asked for came."""
        if received < quick.MOST:
            self._size = quick.MOST
        elif received < _USUAL_BYTES:
            self._size = _USUAL_BYTES
        else:
            self._size = RECEIVE_BYTES

    def receive_into(self, room: memoryview) -> bytes | memoryview | None:
        """Return what has arrived, as the filled part of ``room``."""
        try:
            size = self._sock.recv_into(room, min(len(room), RECEIVE_BYTES), _NOW)
        except (BlockingIOError, InterruptedError):
            return None
        self.taken += size
        return room[:size]

    def await_into(self, room: memoryview, patience: float) -> bytes | memoryview | None:
        """Return what arrives, as :meth:`await_bytes` does, as the filled part of ``room``. Blocks."""
        if abs(patience - self._patience) > _PATIENCE_STEP:
            self._set_patience(patience)
        try:
            size = self._sock.recv_into(room, min(len(room), RECEIVE_BYTES))
        except (BlockingIOError, InterruptedError):
            return None
        self.taken += size
        return room[:size]

    def await_bytes(self, patience: float) -> bytes | None:
        """Return what arrives, ``b""`` at the end, None when nothing does for about ``patience`` seconds. Blocks."""
        if self._spinner is not None and self._spinner.trials.phase.manner is not SLEEPING:
            data = self._spinner.look(self.receive)
            if data is not None:
                return data
        if abs(patience - self._patience) > _PATIENCE_STEP:
            self._set_patience(patience)
        try:
            data = self._sock.recv(self._size)
        except (BlockingIOError, InterruptedError):
            return None
        self.taken += len(data)
        if len(data) >= quick.MOST or self._size != quick.MOST:
            self._note_size(len(data))
        return data

    def note_answer(self, seconds: float, now: float) -> None:
        """Learn what a response took whose bytes were awaited."""
        if self._spinner is not None:
            self._spinner.trials.note(seconds, now)

    def _set_patience(self, patience: float) -> None:
        self._patience = patience
        seconds = 0.0 if patience == NEVER else max(_LEAST_PATIENCE, patience)
        timeval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

    def hang_up(self) -> None:
        """End the stream both ways without closing: whoever waits for bytes wakes up to its end. Any thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def has_spoken(self) -> bool:
        """Whether there is something to read."""
        try:
            return bool(self._sock.recv(1, quick.PEEK))
        except OSError:
            return False

    def is_quiet(self) -> bool:
        """Whether the peer has neither sent nor closed anything since: one system call, that lets nobody go first."""
        if quick.is_quiet is not None:
            return quick.is_quiet(self.fd)
        try:
            self._sock.recv(1, quick.PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    is_still = is_quiet

    def has_lost_nothing(self) -> bool:
        """Whether all that ever came in waits to be received or is among ``taken``, as far as the system says.

        An interrupt may strike when the system has handed bytes over, and nobody has them yet.
        """
        if sys.platform != "linux":
            return True
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.stop)
            waiting = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))  # second: more may come in meanwhile
        except OSError:
            return False
        came_in = int.from_bytes(info[_BYTES_RECEIVED], sys.byteorder) - (info[0] != _ESTABLISHED)
        return came_in <= self.taken + int.from_bytes(waiting, sys.byteorder)

    def close(self) -> None:
        """Close the socket."""
        self.fd = -1
        self._sock.close()

    def abandon(self) -> None:
        """Close the copied descriptor, and nothing more."""
        self.fd = -1
        fd = self._sock.detach()
        if fd >= 0:
            os.close(fd)


class TlsChannel:
    """A TLS client session over a connected TCP socket."""

    __slots__ = (
        "_established", "_incoming", "_is_drained", "_missing", "_outgoing", "_partial", "_tcp", "_tls", "_unsent",
        "ended", "fd", "truncated", "version",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, context: TlsContext, server_hostname: str) -> None:
        self._tcp = TcpChannel(sock, tls_spinner)
        self.fd = self._tcp.fd
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap(self._incoming, self._outgoing, server_hostname)
        self._unsent: bytes | memoryview = b""
        self._partial = b""  # of a record's header
        self._missing = 0  # bytes of a record whose header has come
        self._established = self._is_drained = False
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
            if sent == len(self._unsent):
                self._unsent = b""
            elif sent:
                self._unsent = memoryview(self._unsent)[sent:]
            else:
                return False
        return True

    def receive(self) -> bytes | None:
        """Return the plaintext of what has arrived, ``b""`` at the end, None when there is none."""
        pieces: list[bytes] = []
        filled = False
        while True:
            if self._is_drained:  # to ask all the same would cost an exception
                if filled or pieces or not self._fill():  # what breaks now is for the next to learn
                    break
                filled = True
            try:
                piece = self._tls.read(_USUAL_BYTES)
            except ssl.SSLWantReadError:
                self._is_drained = True
                continue
            except ssl.SSLEOFError:
                self.ended = self.truncated = True
                return b"".join(pieces)
            if not piece:  # close_notify
                self.ended = True
                return b"".join(pieces)
            pieces.append(piece)
            # Records are read one by one: if no byte is left of any, asking OpenSSL again can only be in vain.
            self._is_drained = not (self._incoming.pending or self._missing or self._partial)
        self._collect()  # a key update asks for an answer
        self.flush()
        return b"".join(pieces) if pieces else None

    def receive_into(self, room: memoryview) -> bytes | memoryview | None:
        """Return what :meth:`receive` does: of the records that came, all must be read, whatever ``room`` there is."""
        del room
        return self.receive()

    def await_bytes(self, patience: float) -> bytes | None:
        """Return the plaintext of what arrives, ``b""`` at the end, None when nothing does in time. Blocks."""
        if not self._is_drained and (data := self.receive()) is not None:
            return data
        arrived = self._tcp.await_bytes(patience)
        if arrived is None:
            return None
        self._take(arrived)
        return self.receive()  # None if that was a part of a record, or a session ticket

    def await_into(self, room: memoryview, patience: float) -> bytes | None:
        """Return what arrives, not put into ``room``: plaintext has to be made elsewhere. Blocks."""
        del room
        return self.await_bytes(patience)

    @property
    def taken(self) -> int:
        """How many bytes of ciphertext were received."""
        return self._tcp.taken

    def has_lost_nothing(self) -> bool:
        """Whether all that ever came in waits to be received or is among ``taken``, as far as the system says."""
        return self._tcp.has_lost_nothing()

    def note_answer(self, seconds: float, now: float) -> None:
        """Learn what a response took whose bytes were awaited."""
        self._tcp.note_answer(seconds, now)

    def is_still(self) -> bool:
        """Whether nothing has arrived, session tickets included."""
        return not self.buffered and self._tcp.is_quiet()

    def hang_up(self) -> None:
        """End the stream below TLS, so that whoever waits wakes up. Any thread."""
        self._tcp.hang_up()

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
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self._is_drained = False
        if data:
            self._incoming.write(data)
            self._follow(data)
        else:
            self._incoming.write_eof()

    def _follow(self, data: bytes) -> None:
        """Note where records end (RFC 8446 section 5.1): OpenSSL does not tell whether it holds a part of one."""
        data, at = self._partial + data, self._missing
        while at + _RECORD_HEADER <= len(data):
            at += _RECORD_HEADER + int.from_bytes(data[at + 3 : at + _RECORD_HEADER])
        self._partial = data[at:]
        self._missing = max(0, at - len(data))

    def _collect(self) -> None:
        if self._outgoing.pending:
            more = self._outgoing.read()
            self._unsent = bytes(self._unsent) + more if self._unsent else more
