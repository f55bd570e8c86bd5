"""A small HTTP/1.1 server in a process of its own, so that it shares nothing with the client that is watched.

It answers every GET with the same JSON after a few milliseconds, keeps connections open, and ends when its parent
closes its standard input or dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator

BODY = b'{"message": "hello"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LATENCY = (0.001, 0.005)
"""Shortest and longest time to an answer, in seconds."""


@contextlib.contextmanager
def local_server() -> Iterator[str]:
    """Run the server while the block lasts; gives its base URL."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603  # our own file
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


class Answers(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # tells the type checker what TCP gives
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request in it, a little later; requests have no bodies here."""
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        for _ in requests:
            asyncio.get_running_loop().call_later(random.uniform(*LATENCY), self._answer)  # noqa: S311  # no secret

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(ANSWER)


async def serve() -> None:
    """Print the port, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent_left = asyncio.Event()
    loop.add_reader(sys.stdin, parent_left.set)
    await parent_left.wait()


if __name__ == "__main__":
    asyncio.run(serve())
