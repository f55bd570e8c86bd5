"""The tally that counts POSTs as they arrive, and proxies that spoil connections: a process of its own.

It says the proxies' ports in a line of its own, spoils until it is told ``calm`` on stdin, answers with the proxies'
counters, and ends with its stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import threading
import zlib
from pathlib import Path
from typing import Literal

from tests.servers.proxy import ChaosProxy, Faults

_TARGET = re.compile(rb"(\w+) (\S+)\?nonce=(\d+) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_BACKLOG = 1024
_LATE_SECONDS = 0.1
"""How long /late takes, so that many requests are unanswered when a connection is cut."""
_WAYS_TO_CUT: tuple[Literal["fin"], Literal["rst"]] = ("fin", "rst")


class Tally:
    """An HTTP server that writes each nonce down before anything else, and answers with the CRC of the body."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab", buffering=0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's only request; one that is not complete gets no answer."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            request = _TARGET.match(head)
            assert request is not None, head
            method, path, nonce = request.groups()
            self._log.write(b"%s %s\n" % (method, nonce))
            body = await _read_body(reader, head)
            await asyncio.sleep(_LATE_SECONDS if path == b"/late" else 0.0)
            answer = b"%s %d %d" % (nonce, len(body), zlib.crc32(body))
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):  # nginx was killed, or its client went away
            pass
        finally:
            writer.close()


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if _CHUNKED.search(head):
        pieces = []
        while size := int(await reader.readline(), 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        return b"".join(pieces)
    length = _LENGTH.search(head)
    return await reader.readexactly(int(length[1])) if length else b""


class Rogue(threading.Thread):
    """Cuts the proxy's connections at random moments, and spoils some of those that are made next."""

    def __init__(self, proxy: ChaosProxy, seed: int) -> None:
        super().__init__(name="rogue", daemon=True)
        self._proxy = proxy
        self._rng = random.Random(f"rogue-{seed}")  # noqa: S311 - not a secret
        self._calm = threading.Event()

    def run(self) -> None:
        while not self._calm.wait(self._rng.uniform(1.0, 5.0)):
            self._proxy.up, self._proxy.down = self._faults()
            self._proxy.cut_all(self._rng.choice(_WAYS_TO_CUT))
            self._calm.wait(self._rng.uniform(0.02, 0.3))
            self._proxy.up, self._proxy.down = Faults(), Faults()

    def calm(self) -> None:
        """Stop, and end what was spoiled."""
        self._calm.set()
        self.join()
        self._proxy.cut_all()

    def _faults(self) -> tuple[Faults, Faults]:
        rng = self._rng
        how = rng.choice(_WAYS_TO_CUT)
        return rng.choice(
            [
                (Faults(), Faults()),
                (Faults(), Faults(latency=0.005, slice_bytes=rng.randint(500, 9000))),
                (Faults(), Faults(cut_after=rng.randint(0, 200_000), cut_with=how)),
                (Faults(), Faults(stall_after=rng.randint(0, 100_000))),
                (Faults(cut_after=rng.randint(0, 5000), cut_with=how), Faults()),
                (Faults(latency=0.002, slice_bytes=100), Faults()),
            ]
        )


async def _run(socket: Path, log: Path, ports: list[int], seed: int) -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_unix_server(Tally(log).serve, socket, backlog=_BACKLOG)
    async with server:
        with contextlib.ExitStack() as stack:
            proxies = [stack.enter_context(ChaosProxy(("127.0.0.1", port))) for port in ports]
            rogues = [Rogue(proxy, seed + number) for number, proxy in enumerate(proxies)]
            for rogue in rogues:
                rogue.start()
            _say([proxy.port for proxy in proxies])
            await loop.run_in_executor(None, sys.stdin.readline)
            for rogue in rogues:
                await loop.run_in_executor(None, rogue.calm)
            names = ("connections", "cuts", "stalls")
            _say({name: sum(getattr(proxy.counters, name) for proxy in proxies) for name in names})
            await loop.run_in_executor(None, sys.stdin.readline)


def _say(fact: object) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.socket, arguments.log, arguments.ports, arguments.seed))


if __name__ == "__main__":
    main()
