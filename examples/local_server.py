"""A small HTTP/1.1 server in a process of its own, so that it shares nothing with the client that is watched.

It answers every GET with the same JSON after a few milliseconds, keeps connections open, and ends when its parent
closes its standard input or dies. It can be killed, and started again on the same port.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from types import TracebackType
from typing import Self

BODY = b'{"message": "hello"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LATENCY = (0.001, 0.005)
"""Shortest and longest time to an answer, in seconds."""


class LocalServer:
    """Runs the server while the block lasts."""

    def __init__(self) -> None:
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL; it stays the same."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start a process, and return when it listens."""
        command = [sys.executable, __file__, str(self._port)]
        # A group of its own: an interrupt from the terminal is for the client alone.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)  # noqa: S603  # our own file
        assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
        self._port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """End the process at once, with all its connections (SIGKILL)."""
        with self._process:
            self._process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process:
            pass  # leaving closes its standard input, and waits


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


async def serve(port: int) -> None:
    """Listen (0: on any port), print the port, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", port))
    await loop.create_server(Answers, sock=listener)
    print(listener.getsockname()[1], flush=True)
    parent_left = asyncio.Event()
    loop.add_reader(sys.stdin, parent_left.set)
    await parent_left.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
