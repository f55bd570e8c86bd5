"""A server that answers a crowd: it holds every answer back until ``CROWD`` requests wait, each on its own connection.

The very first request is answered at once. So a client that sends ``CROWD`` requests at a time opens that many
connections, for real; one that may not, waits for ever. ``python gate.py CROWD [CHAIN KEY]`` prints its port, and ends
when its standard input does.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
from typing import cast

from target import BODIES, SMALL

BACKLOG = 4096
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODIES[SMALL]),
    BODIES[SMALL],
)


class Crowd:
    """Who waits for an answer."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: list[asyncio.Transport] = []
        self._is_first = True

    def join(self, transport: asyncio.Transport) -> None:
        """Let a request wait, or answer all."""
        self._waiting.append(transport)
        if self._is_first or len(self._waiting) == self._size:
            self._is_first = False
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.write(ANSWER)


class Connection(asyncio.Protocol):
    """One client's connection. Requests have no body."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the head."""
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            self._head = b""
            self._crowd.join(self._transport)


async def serve(crowd: Crowd, context: ssl.SSLContext | None) -> None:
    """Serve until nobody wants it any more."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(crowd), "127.0.0.1", 0, backlog=BACKLOG, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Read the arguments, and serve."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = None
    if len(sys.argv) > 2:  # noqa: PLR2004  # a chain and a key
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*sys.argv[2:])
    asyncio.run(serve(Crowd(int(sys.argv[1])), context))


if __name__ == "__main__":
    main()
