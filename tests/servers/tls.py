"""The server's side of TLS on a socket, over memory BIOs.

Not `ssl.SSLSocket`: its `unwrap` reads after it sent close_notify, and so loses what a
half-closed client still sends.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from weakref import WeakKeyDictionary

_RECEIVE_BYTES = 65536
_WRITE_BYTES = 1 << 18

_server_names: WeakKeyDictionary[ssl.SSLSocket | ssl.SSLObject, str | None] = WeakKeyDictionary()


class TlsLayer:
    """Encrypts what one thread sends and receives; never closes the socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """`context` gets an SNI callback that remembers the name asked for."""
        context.sni_callback = _keep_server_name
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    @property
    def alpn(self) -> str | None:
        """The protocol agreed in the handshake."""
        return self._object.selected_alpn_protocol()

    @property
    def server_name(self) -> str | None:
        """The name the client asked for in the handshake (SNI)."""
        return _server_names.get(self._object)

    def handshake(self) -> None:
        """Shake hands; a failure is an OSError, after the client was sent its alert."""
        try:
            while not self._done():
                self._fill()
        finally:
            with contextlib.suppress(ConnectionError):  # the failure is more telling
                self._flush()

    def receive(self) -> bytes:
        """The next bytes; empty after close_notify, and at the end of the socket without it."""
        while True:
            try:
                return self._object.read(_RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def send(self, data: bytes) -> None:
        """Write all of `data`."""
        for start in range(0, len(data), _WRITE_BYTES):
            self._object.write(data[start : start + _WRITE_BYTES])
            self._flush()

    def close_notify(self) -> None:
        """Say that nothing more will be sent; reads nothing from the socket."""
        with contextlib.suppress(ssl.SSLError):  # WantRead: the client's own is yet to come
            self._object.unwrap()
        self._flush()

    def _done(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        return True

    def _fill(self) -> None:
        if data := self._socket.recv(_RECEIVE_BYTES):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._socket.sendall(data)


def _keep_server_name(sock: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    del context
    _server_names[sock] = name
