"""Storms of cancelled requests over one HTTP/2 connection, and how fast a download is before and after."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from turbopool import Client, ResponseFuture

MIB = 1 << 20
ANSWERED, CANCELLED, LEFT = "answered before", "cancelled", "left while streaming"

_THREADS = 8
_BATCH = 25
"""With all threads, twice what a connection carries: some are cancelled in the queue."""
_PATHS = {"/small": 4, "/bytes/1k": 3, "/bytes/1m": 1}
_STREAMED = 5
_STREAMED_SHARE = 0.2
_ANSWERED_SHARE = 0.5
_WAITED_SHARE = 0.1
_MEAN_WAIT = 0.001


def peers_of(port: int) -> set[int]:
    """The ports of those who are connected to a server's port right now, as the kernel knows it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return {
        int(remote[-4:], 16) for _, local, remote, state, *_ in rows if local[-4:] == f"{port:04X}" and state == "01"
    }


def cancel_many(client: Client, count: int) -> Counter[str]:
    """Cancel `count` requests at random moments: queued, sent, being answered, and streamed to a reader.

    Returns:
        How many were cancelled, by how; and how many were answered before.
    """
    share = [count // _THREADS + (number < count % _THREADS) for number in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as threads:
        done = [
            threads.submit(_cancel, client, wanted, random.Random(number))  # noqa: S311 - not a secret
            for number, wanted in enumerate(share)
        ]
        return sum((each.result() for each in done), Counter[str]())


def seconds_of_download(client: Client, mib: int) -> float:
    """How long it takes to read so many MiB of zeros, which must be just that; the rest is cancelled."""
    began, size = time.perf_counter(), 0
    with client.stream("GET", "/bytes/1g") as response:
        for piece in response.iter_raw():
            size += len(piece)
            if size >= mib * MIB:
                break
    assert size >= mib * MIB
    return time.perf_counter() - began


def _cancel(client: Client, wanted: int, rng: random.Random) -> Counter[str]:
    done: Counter[str] = Counter()
    while (left := wanted - done[CANCELLED] - done[LEFT]) > 0:
        if rng.random() < _STREAMED_SHARE:
            for _ in range(min(left, _STREAMED)):
                with client.stream("GET", "/bytes/1m") as response:
                    next(response.iter_raw(1000))
                done[LEFT] += 1
        else:
            names = rng.choices(list(_PATHS), list(_PATHS.values()), k=min(left, _BATCH))
            _cancel_batch([client.send_async("GET", name) for name in names], rng, done)
    return done


def _cancel_batch(futures: list[ResponseFuture], rng: random.Random, done: Counter[str]) -> None:
    if rng.random() < _ANSWERED_SHARE:
        futures[0].result()  # by now, others are being answered
    never = threading.Event()
    for future in futures:
        if rng.random() < _WAITED_SHARE:
            never.wait(rng.expovariate(1.0 / _MEAN_WAIT))
        done[CANCELLED if future.cancel() else ANSWERED] += 1
