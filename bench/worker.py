"""Measure one client in one scenario, in this process, and print one line of JSON.

``python worker.py PEER KIND TARGET ...``, run by run.py in the peer's own environment; the target is a line of JSON
(see target.py). Kinds:

- ``load``: the callers, threads (or asyncio tasks), each send one request after the other, for some seconds.
- ``flight``: as many requests as there are callers are submitted at once and awaited, again and again.
- ``waiters``: as many requests wait in the queue all the time; for each answered one another is submitted.
- ``idle``, ``queued``: what the process grows by with each idle connection, or with each request that waits.

Every answer's body is compared: a client that mixes up answers is not measured but fails. Under ``load`` a request that
raises is not counted, and reported; its thread's time counts up to the last answer.

With ``--http2`` the peer is one of h2_peers.py, and fails unless HTTP/2 is what it speaks.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import math
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import h2_peers
import memory
import peers
from scenarios import base
from target import Target, WrongAnswerError

ASYNCIO = frozenset(peers.ASYNCIO | h2_peers.ASYNCIO)
EVERYONE = frozenset(peers.THREADED | h2_peers.THREADED) | ASYNCIO


class Load:
    """Threads that call ``peer.get``, each again as soon as it is answered.

    Not counted is the first time, or as often as it takes to ask every pool once for each connection it may have.
    """

    def __init__(self, peer: Any, target: Target, seconds: float) -> None:
        self._get, self._check, self._seconds = peer.get, target.check, seconds
        self._warm_up = math.ceil(target.pools * target.limit / target.callers)
        self._laps = [list[float]() for _ in range(target.callers)]
        self._all_warm = threading.Barrier(target.callers, action=self._begin)
        self._wrong: list[WrongAnswerError] = []
        self._failed: list[str] = []
        self._answered: list[float] = []

    def run(self) -> dict[str, Any]:
        """Let them work, and return what they saw."""
        self._check(self._get())
        workers = [threading.Thread(target=self._work, args=(own,)) for own in self._laps]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took, cpu = max(self._answered) - self._start, time.process_time() - self._cpu
        if self._wrong:
            raise self._wrong[0]
        return summary(took, cpu, sorted(lap for own in self._laps for lap in own)) | {"failed": self._failed}

    def _begin(self) -> None:
        self._cpu, self._start = time.process_time(), time.perf_counter()

    def _work(self, own: list[float]) -> None:
        get, check, clock = self._get, self._check, time.perf_counter
        for _ in range(self._warm_up):
            self._ask()
        self._all_warm.wait()
        last, stop_at = clock(), self._start + self._seconds
        while (start := clock()) < stop_at:
            try:
                check(get())
            except WrongAnswerError as error:
                self._wrong.append(error)
            except Exception as error:  # noqa: BLE001  # whatever a peer raises is told
                self._failed.append(repr(error))
            else:
                last = clock()
                own.append(last - start)
        self._answered.append(last)

    def _ask(self) -> None:
        try:
            self._check(self._get())
        except Exception as error:  # noqa: BLE001  # the others shall not wait for this thread
            self._failed.append(repr(error))


def load(peer: Any, target: Target, seconds: float) -> dict[str, Any]:
    """Let as many threads work as there are callers."""
    return Load(peer, target, seconds).run()


def flight(peer: Any, target: Target, seconds: float) -> dict[str, Any]:
    """Submit all requests from this thread and wait for them, again and again, after a first time not counted."""
    check, laps, took = target.check, list[float](), 0.0
    for body in peer.batch(target.callers):
        check(body)
    cpu = time.process_time()
    while took < seconds:
        start = time.perf_counter()
        for body in peer.batch(target.callers):
            check(body)
        laps.append(time.perf_counter() - start)
        took += laps[-1]
    return summary(took, time.process_time() - cpu, sorted(laps), len(laps) * target.callers)


def waiters(peer: Any, target: Target, seconds: float) -> dict[str, Any]:
    """Keep the queue as long as there are callers: the oldest is awaited, then another is submitted.

    The thread always waits for the oldest, so it sleeps and wakes alike however long the queue is.
    """
    check, queue = target.check, deque(peer.submit() for _ in range(target.callers + target.connections))

    def turn() -> None:
        check(queue.popleft().result().content)
        queue.append(peer.submit())

    for _ in range(len(queue)):
        turn()
    cpu, start, done = time.process_time(), time.perf_counter(), 0
    while (took := time.perf_counter() - start) < seconds:
        for _ in range(100):
            turn()
        done += 100
    result = summary(took, time.process_time() - cpu, [], done)
    for future in queue:
        check(future.result().content)
    return result


async def async_load(peer: Any, target: Target, seconds: float) -> dict[str, Any]:
    """Let asyncio tasks call ``peer.get``, each again as soon as it is answered."""
    check, laps, clock = target.check, list[float](), time.perf_counter

    async def work() -> None:
        while (start := clock()) < stop_at:
            check(await peer.get())
            laps.append(clock() - start)

    async with peer:
        check(await peer.get())
        cpu, start = time.process_time(), clock()
        stop_at = start + seconds
        await asyncio.gather(*(work() for _ in range(target.callers)))
        took, cpu = clock() - start, time.process_time() - cpu
    return summary(took, cpu, sorted(laps))


async def async_flight(peer: Any, target: Target, seconds: float) -> dict[str, Any]:
    """Gather all requests, again and again, after a first time not counted."""
    check, laps, took = target.check, list[float](), 0.0
    async with peer:
        for body in await asyncio.gather(*(peer.get() for _ in range(target.callers))):
            check(body)
        cpu = time.process_time()
        while took < seconds:
            start = time.perf_counter()
            for body in await asyncio.gather(*(peer.get() for _ in range(target.callers))):
                check(body)
            laps.append(time.perf_counter() - start)
            took += laps[-1]
    return summary(took, time.process_time() - cpu, sorted(laps), len(laps) * target.callers)


def summary(took: float, cpu: float, laps: list[float], requests: int = 0) -> dict[str, Any]:
    """Rate per second, p50 and p99 in milliseconds of what was timed, CPU in microseconds per request."""
    requests = requests or len(laps)
    return {
        "requests": requests,
        "rate": requests / took,
        "p50_ms": laps[len(laps) // 2] * 1e3 if laps else None,
        "p99_ms": laps[int(len(laps) * 0.99)] * 1e3 if laps else None,
        "cpu_us": cpu / requests * 1e6,
    }


def measure(arguments: argparse.Namespace, target: Target) -> dict[str, Any]:
    """Run the scenario that the arguments name."""
    adapters = (h2_peers.THREADED | h2_peers.ASYNCIO) if arguments.http2 else (peers.THREADED | peers.ASYNCIO)
    make, kind, seconds = adapters[arguments.peer], arguments.kind, arguments.seconds
    if arguments.peer in ASYNCIO:
        return with_loop(make, target, kind, seconds)
    if kind == "idle":
        return memory.idle(make, target, by_threads=arguments.peer != "turbopool")
    if kind == "queued":
        return memory.queued(make, target)
    peer = make(target)
    if arguments.http2:
        peer.warm_up()
    result: dict[str, Any] = {"load": load, "flight": flight, "waiters": waiters}[kind](peer, target, seconds)
    result["open"] = memory.connections_to(target.port)
    peer.close()
    return result


def with_loop(make: Callable[[Target], Any], target: Target, kind: str, seconds: float) -> dict[str, Any]:
    """Run a scenario with tasks of one event loop."""
    import uvloop

    async def run() -> dict[str, Any]:
        match kind:
            case "idle":
                return await memory.async_idle(make, target)
            case "queued":
                return await memory.async_queued(make, target)
            case "load":
                return await async_load(make(target), target, seconds)
            case _:
                return await async_flight(make(target), target, seconds)

    return uvloop.run(run())  # type: ignore[no-any-return]


def version(peer: str) -> str:
    """Return the version of a peer, and of what it stands on."""
    package = base(peer)
    own = importlib.metadata.version(package)
    if package == "pycurl":
        import pycurl

        return f"{own}, {' '.join(pycurl.version.split()[1:3])}"
    return f"{own}, uvloop {importlib.metadata.version('uvloop')}" if package == "aiohttp" else own


def main() -> None:
    """Measure, and print the figures with the versions they belong to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(EVERYONE))
    parser.add_argument("kind", choices=["load", "flight", "waiters", "idle", "queued"])
    parser.add_argument("target", type=Target.of)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--no-collector", action="store_true", help="switch Python's cyclic garbage collector off")
    parser.add_argument("--http2", action="store_true", help="and nothing else")
    parser.add_argument("--one-core", action="store_true", help="keep this process on one core")
    arguments = parser.parse_args()
    if arguments.one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if arguments.no_collector:
        gc.disable()
    target: Target = arguments.target
    if arguments.kind == "load" and not arguments.http2:  # a caller has no use for more than one
        target = replace(target, connections=min(target.connections, target.callers))
    result = measure(arguments, target)
    print(json.dumps(result | {"version": version(arguments.peer), "python": platform.python_version()}))


if __name__ == "__main__":
    main()
