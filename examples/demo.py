"""A threaded service with two named clients, watched: ``make demo``.

Thirty-two threads call a local server through ``send_async`` for some seconds. Then a table says what the two pools
did, and after ``factory.dispose()`` the last line says what is left of them: nothing.
"""

from __future__ import annotations

import argparse
import os
import stat
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field

import pykka

from local_server import local_server
from turbopool import Client, ClientFactory, Http1Options

THREADS = 32
CONNECTIONS = {"users": 6, "orders": 10}
"""The named clients, and how many connections each may have."""


@dataclass
class Watched:
    """One named client, and what was seen of it."""

    name: str
    client: Client
    seconds: list[float] = field(default_factory=list)
    """How long each request took its caller; appending is atomic."""
    waiting_peak: int = 0
    opened: int = 0

    def row(self) -> list[str]:
        """Return the client's row of the table."""
        cuts = statistics.quantiles(self.seconds, n=100)
        reuse = len(self.seconds) / self.opened
        counts = (f"{len(self.seconds):,}", str(self.opened), f"{reuse:,.0f} x", str(self.waiting_peak))
        return [self.name, *counts, f"{cuts[49] * 1e3:.1f}", f"{cuts[98] * 1e3:.1f}"]


def work(watched: Watched, stop_at: float) -> None:
    """What one thread of the service does: call, wait, call again."""
    while (start := time.perf_counter()) < stop_at:
        future = watched.client.send_async("GET", "/hello", params={"page": 2}, timeout=5.0)
        future.result().raise_for_status()
        watched.seconds.append(time.perf_counter() - start)


def watch(clients: list[Watched], seconds: float, threads: list[threading.Thread]) -> None:
    """Draw the progress bar, and note how many requests wait, ten times a second until the threads are done."""
    start = time.perf_counter()
    drawn = ""
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.1)
        for watched in clients:
            snapshot = watched.client.stats()
            watched.waiting_peak = max(watched.waiting_peak, snapshot.waiting)
            watched.opened = snapshot.opened
        drawn = progress(min(0.99, (time.perf_counter() - start) / seconds), clients, drawn)
    progress(1.0, clients, drawn)
    print()


def progress(share: float, clients: list[Watched], drawn: str) -> str:
    """Print the bar in place on a terminal, else a line for every tenth; returns what a file was last given."""
    bar = "#" * int(share * 30)
    text = f"[{bar:<30}] {share:4.0%}  {sum(len(watched.seconds) for watched in clients):8,} requests"
    if sys.stdout.isatty():
        print("\r" + text, end="", flush=True)
    elif drawn != (tenth := f"{int(share * 10)}"):
        print(text, flush=True)
        return tenth
    return drawn


def print_table(rows: list[list[str]]) -> None:
    """Print rows in columns, the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        print(
            name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)), sep="  "
        )


def in_use() -> tuple[int, int, int]:
    """Count this process's threads, sockets and actors."""
    sockets = 0
    for descriptor in os.listdir("/dev/fd"):  # noqa: PTH208  # names of descriptors, not paths
        try:
            sockets += stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode)
        except OSError:
            continue  # the descriptor of this very listing
    return threading.active_count(), sockets, len(pykka.ActorRegistry.get_all())


def main() -> int:
    """Run the demo; returns 1 if anything was left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the service runs")
    seconds: float = parser.parse_args().seconds

    with local_server() as url:
        before = in_use()
        factory = ClientFactory()
        for name, connections in CONNECTIONS.items():
            factory.add(name, base_url=url, http1=Http1Options(max_connections_per_server=connections))
        clients = [Watched(name, factory.create_client(name)) for name in CONNECTIONS]

        print(f"{THREADS} threads, {len(clients)} named clients, one local server at {url}")
        stop_at = time.perf_counter() + seconds
        threads = [
            threading.Thread(target=work, args=(clients[i % len(clients)], stop_at), name=f"service-{i}")
            for i in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        watch(clients, seconds, threads)

        header = ["client", "requests", "connections opened", "reuse", "waiting (peak)", "p50 ms", "p99 ms"]
        print_table([header, *(watched.row() for watched in clients)])
        factory.dispose()
        left = [now - then for now, then in zip(in_use(), before, strict=True)]

    print(f"after dispose: {left[0]} threads, {left[1]} sockets, {left[2]} actors left")
    return 1 if any(left) else 0


if __name__ == "__main__":
    sys.exit(main())
