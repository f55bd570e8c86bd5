"""One connection of a scripted server, as its handler uses it and the test inspects it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from tests.servers.endpoint import IO_SECONDS, Endpoint
from tests.servers.wire import RawRequest, Reader, read_body, read_head


class Conn(Endpoint):
    """HTTP/1 over an endpoint; made by the server for each connection it accepts."""

    def __init__(
        self,
        sock: socket.socket,
        number: int,
        closing: threading.Event,
        notice: Callable[[RawRequest | None], None],
    ) -> None:
        """Take over a connected socket; `notice` is told of requests and of ends (None)."""
        super().__init__(sock)
        self._closing = closing
        self._notice = notice
        self._reader = Reader(self.receive)
        self.number = number
        """Its place in accept order, from 0."""
        self.accepted_at = time.monotonic()
        self.requests: list[RawRequest] = []
        """The requests whose head was read, in order."""

    def read_request(self) -> RawRequest:
        """The next request with its body.

        Raises:
            PeerClosed: the client closed instead; handlers may let it pass.
            BadRequest: the client wrote something that is not HTTP/1.
        """
        request = self.read_head()
        self.read_body(request)
        return request

    def read_head(self) -> RawRequest:
        """The next request without its body, as :meth:`read_request`."""
        request = read_head(self._reader, self.number)
        self.requests.append(request)
        self._notice(request)
        return request

    def read_body(self, request: RawRequest) -> None:
        """Read the body of a request that came from :meth:`read_head` into it."""
        read_body(self._reader, request)

    def recv(self, size: int = 65536) -> bytes:
        """Up to `size` bytes as they are; empty when the client closed."""
        return self._reader.some(size)

    def send_slowly(self, data: bytes, size: int = 1, delay: float = 0.0) -> None:
        """Write `data` in segments of `size` bytes, `delay` seconds after each.

        Ends early when the server is being left.
        """
        for start in range(0, len(data), size):
            self.send(data[start : start + size])
            if self._closing.wait(delay):
                return

    def hold(self) -> None:
        """Say nothing more until the client closes or the server is left."""
        self.wait_closed(IO_SECONDS)

    def _peer_closed(self) -> None:
        super()._peer_closed()
        self._notice(None)

    def _release(self) -> None:
        super()._release()
        self._notice(None)
