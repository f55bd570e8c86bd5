"""What a client's process grows by: with each idle connection, and with each request that waits.

Everything else is warm by then: for connections, as many callers have sent a request each over a few connections to
another server, so that their stacks, tasks and answers are there already.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from target import Target

GATE = Path(__file__).with_name("gate.py")
NEVER = 1_000_000_000
"""A crowd that does not come together."""
FEW = 16
"""Connections that everything is warmed up with, or that requests wait for."""
PATIENCE = 60.0
"""Seconds until all must have been answered, or must wait."""
PAUSE = 0.05
STILL = 4
"""Readings in a row, a pause apart, that must be the same until nothing moves any more."""

Make = Callable[[Target], Any]


def rss() -> int:
    """Return the bytes that this process has in memory, without garbage."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def connections_to(port: int) -> int:
    """Return how many connections to a port of this machine are established, by anybody."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "01" for fields in map(str.split, lines))


@contextlib.contextmanager
def gate(crowd: int, target: Target) -> Iterator[Target]:
    """Run a server that waits for a crowd; it speaks TLS if the target does."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    keys = [target.authority.with_name(name) for name in ("chain.pem", "key.pem")] if target.authority else []
    command = [sys.executable, str(GATE), str(crowd), *map(str, keys)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        its_input, its_output = cast("IO[bytes]", server.stdin), cast("IO[bytes]", server.stdout)
        try:
            yield replace(target, port=int(its_output.readline()))
        finally:
            its_input.close()


class Growth:
    """How a process grows with its connections to a port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._seen: list[tuple[int, int]] = []

    def read(self) -> None:
        """Take a reading: the first is what is grown from, the last what is grown to."""
        self._seen.append((rss(), connections_to(self._port)))

    def each(self, count: int | None = None) -> dict[str, Any]:
        """Return the KiB for each of ``count``, or for each connection that was opened."""
        (before, had), (after, has) = self._seen[0], self._seen[-1]
        count = has - had if count is None else count
        return {"kib": (after - before) / 1024 / count, "requests": count, "open": has}


def idle(make: Make, target: Target, *, by_threads: bool) -> dict[str, Any]:
    """Measure ``callers`` idle connections, opened by as many threads or by as many futures."""
    with gate(target.callers, target) as there:
        warm, peer = make(replace(target, connections=FEW)), make(replace(there, connections=target.callers))
        target.check(peer.get())
        growth = Growth(there.port)
        (in_threads if by_threads else in_flight)(warm, peer, target, growth)
        warm.close()
        peer.close()
    return growth.each()


def in_flight(warm: Any, peer: Any, target: Target, growth: Growth) -> None:
    """Send everything from this thread."""
    for each in (warm, peer):
        for body in each.batch(target.callers):
            target.check(body)
        growth.read()


def in_threads(warm: Any, peer: Any, target: Target, growth: Growth) -> None:
    """Send from as many threads, which live through both readings: their stacks are in both."""
    stage = threading.Barrier(target.callers + 1, timeout=PATIENCE)

    failed: list[Exception] = []

    def work() -> None:
        try:
            for each in (warm, peer):
                target.check(each.get())
                stage.wait()  # all are answered
                stage.wait()  # it is read
        except Exception as error:  # noqa: BLE001  # it is raised where it is seen
            failed.append(error)
            stage.abort()

    threads = [threading.Thread(target=work) for _ in range(target.callers)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):  # then one of them has failed
        for _ in (warm, peer):
            stage.wait()
            growth.read()
            stage.wait()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


async def async_idle(make: Make, target: Target) -> dict[str, Any]:
    """Measure ``callers`` idle connections, opened by as many tasks."""
    everyone = range(target.callers)
    with gate(target.callers, target) as there:
        growth = Growth(there.port)
        few, many = make(replace(target, connections=FEW)), make(replace(there, connections=target.callers))
        async with few as warm, many as peer:
            target.check(await peer.get())
            for each in (warm, peer):
                for body in await asyncio.gather(*(each.get() for _ in everyone)):
                    target.check(body)
                growth.read()
    return growth.each()


def queued(make: Make, target: Target) -> dict[str, Any]:
    """Measure ``callers`` requests that wait for a few connections, whose answers do not come."""
    with gate(NEVER, target) as there:
        peer = make(replace(there, connections=FEW))
        target.check(peer.get())
        growth = Growth(there.port)
        growth.read()
        futures = [peer.submit() for _ in range(target.callers)]
        for _ in until_still(there.port):
            time.sleep(PAUSE)
        growth.read()
        peer.give_up()
        peer.close()
    return growth.each(len(futures))


async def async_queued(make: Make, target: Target) -> dict[str, Any]:
    """Measure the same in tasks."""
    with gate(NEVER, target) as there:
        async with make(replace(there, connections=FEW)) as peer:
            target.check(await peer.get())
            growth = Growth(there.port)
            growth.read()
            tasks = [asyncio.create_task(peer.get()) for _ in range(target.callers)]
            for _ in until_still(there.port):
                await asyncio.sleep(PAUSE)
            growth.read()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return growth.each(len(tasks))


def until_still(port: int) -> Iterator[None]:
    """Go on until all connections are there and memory has stopped growing."""
    give_up_at, seen = time.monotonic() + PATIENCE, [0]
    while connections_to(port) < FEW or len(set(seen[-STILL:])) > 1 or len(seen) < STILL:
        if time.monotonic() > give_up_at:
            message = f"{connections_to(port)} of {FEW} connections, and memory still moves: {seen[-STILL:]}"
            raise TimeoutError(message)
        yield
        seen.append(rss())
