"""Measure one client in one scenario, in this process, and print one line of JSON.

``python worker.py PEER KIND --concurrency N --port PORT ...``, run by run.py in the peer's own environment. Kinds:

- ``load``: N threads (or asyncio tasks) each send one request after the other, for some seconds.
- ``flight``: N requests are submitted at once and awaited, again and again.
- ``waiters``: N requests wait in the queue all the time; for each answered one another is submitted.

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
import platform
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h2_peers
import peers
from h2_target import Target

BODY = b"hello world, this is a small body\n"


class WrongAnswerError(Exception):
    """The body is not the one that the server sends."""


def check(body: bytes) -> None:
    """Refuse any body but the server's."""
    if body != BODY:
        raise WrongAnswerError(body[:80])


def load(peer: Any, threads: int, seconds: float) -> dict[str, Any]:
    """Let ``threads`` threads call ``peer.get``, each again as soon as it is answered."""
    laps: list[list[float]] = [[] for _ in range(threads)]
    wrong: list[WrongAnswerError] = []
    failed: list[str] = []
    answered: list[float] = []

    def work(own: list[float]) -> None:
        get, clock = peer.get, time.perf_counter
        last = clock()
        while (start := clock()) < stop_at:
            try:
                check(get())
            except WrongAnswerError as error:
                wrong.append(error)
            except Exception as error:  # noqa: BLE001  # whatever a peer raises is told
                failed.append(repr(error))
            else:
                last = clock()
                own.append(last - start)
        answered.append(last)

    check(peer.get())
    workers = [threading.Thread(target=work, args=(own,)) for own in laps]
    cpu, start = time.process_time(), time.perf_counter()
    stop_at = start + seconds
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    took, cpu = max(answered) - start, time.process_time() - cpu
    if wrong:
        raise wrong[0]
    return summary(took, cpu, sorted(lap for own in laps for lap in own)) | {"failed": failed}


def flight(peer: Any, in_flight: int, seconds: float) -> dict[str, Any]:
    """Submit ``in_flight`` requests from this thread and wait for all of them, again and again."""

    def batch() -> None:
        for body in peer.batch(in_flight):
            check(body)

    return batches(batch, in_flight, seconds)


def batches(batch: Callable[[], None], size: int, seconds: float) -> dict[str, Any]:
    """Run whole batches for about ``seconds``, after a first one that is not counted."""
    batch()
    cpu, start, done = time.process_time(), time.perf_counter(), 0
    while (took := time.perf_counter() - start) < seconds:
        batch()
        done += size
    return summary(took, time.process_time() - cpu, [], done)


def waiters(peer: Any, waiting: int, connections: int, seconds: float) -> dict[str, Any]:
    """Keep ``waiting`` requests in the queue: the oldest is awaited, then another is submitted.

    The thread always waits for the oldest, so it sleeps and wakes alike however long the queue is.
    """
    queue = deque(peer.submit() for _ in range(waiting + connections))

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


async def async_load(peer: Any, tasks: int, seconds: float) -> dict[str, Any]:
    """Let ``tasks`` asyncio tasks call ``peer.get``, each again as soon as it is answered."""
    laps: list[float] = []
    clock = time.perf_counter

    async def work() -> None:
        while (start := clock()) < stop_at:
            check(await peer.get())
            laps.append(clock() - start)

    async with peer:
        check(await peer.get())
        cpu, start = time.process_time(), clock()
        stop_at = start + seconds
        await asyncio.gather(*(work() for _ in range(tasks)))
        took, cpu = clock() - start, time.process_time() - cpu
    return summary(took, cpu, sorted(laps))


async def async_flight(peer: Any, in_flight: int, seconds: float) -> dict[str, Any]:
    """Gather ``in_flight`` requests, again and again."""
    async with peer:
        for body in await asyncio.gather(*(peer.get() for _ in range(in_flight))):
            check(body)
        cpu, start, done = time.process_time(), time.perf_counter(), 0
        while (took := time.perf_counter() - start) < seconds:
            for body in await asyncio.gather(*(peer.get() for _ in range(in_flight))):
                check(body)
            done += in_flight
    return summary(took, time.process_time() - cpu, [], done)


def summary(took: float, cpu: float, laps: list[float], requests: int = 0) -> dict[str, Any]:
    """Rate per second, p50 and p99 in milliseconds where each request was timed, CPU in microseconds per request."""
    requests = requests or len(laps)
    return {
        "requests": requests,
        "rate": requests / took,
        "p50_ms": laps[len(laps) // 2] * 1e3 if laps else None,
        "p99_ms": laps[int(len(laps) * 0.99)] * 1e3 if laps else None,
        "cpu_us": cpu / requests * 1e6,
    }


def connect(arguments: argparse.Namespace) -> Any:
    """Make the peer."""
    if arguments.http2:
        target = Target(
            port=arguments.port,
            authority=arguments.authority,
            unique=arguments.unique,
            threads=arguments.concurrency,
        )
        return (h2_peers.THREADED | h2_peers.ASYNCIO)[arguments.peer](target)
    spread = {"keys": arguments.keys, "clients": arguments.clients} if arguments.peer.startswith("turbopool") else {}
    connections = (
        min(arguments.connections, arguments.concurrency) if arguments.kind == "load" else arguments.connections
    )
    return (peers.THREADED | peers.ASYNCIO)[arguments.peer](arguments.port, connections, **spread)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the scenario that the arguments name."""
    peer = connect(arguments)
    if arguments.peer in peers.ASYNCIO | h2_peers.ASYNCIO:
        import uvloop

        run = async_load if arguments.kind == "load" else async_flight
        return uvloop.run(run(peer, arguments.concurrency, arguments.seconds))

    if arguments.http2:
        peer.warm_up()
    match arguments.kind:
        case "load":
            result = load(peer, arguments.concurrency, arguments.seconds)
        case "flight":
            result = flight(peer, arguments.concurrency, arguments.seconds)
        case _:
            result = waiters(peer, arguments.concurrency, arguments.connections, arguments.seconds)
    peer.close()
    return result


def main() -> None:
    """Measure, and print the figures with the versions they belong to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=sorted(peers.THREADED | peers.ASYNCIO | h2_peers.THREADED | h2_peers.ASYNCIO))
    parser.add_argument("kind", choices=["load", "flight", "waiters"])
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True, help="in all, at most")
    parser.add_argument("--keys", type=int, default=1, help="pools of each client (turbopool)")
    parser.add_argument("--clients", type=int, default=1, help="clients (turbopool)")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--no-collector", action="store_true", help="switch Python's cyclic garbage collector off")
    parser.add_argument("--http2", action="store_true", help="and nothing else")
    parser.add_argument("--authority", type=Path, help="whom to trust over TLS (with --http2)")
    parser.add_argument("--unique", default="", help="path of each request, with a place for its number (with --http2)")
    arguments = parser.parse_args()
    if arguments.no_collector:
        gc.disable()
    distribution = arguments.peer.split("-")[0]
    result = measure(arguments)
    result |= {"version": importlib.metadata.version(distribution), "python": platform.python_version()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
