"""A threaded service with two named clients, watched: ``make demo``.

Thirty-two threads call a local server through ``send_async`` for some seconds. In the middle of it the server is
killed, and started again two seconds later: the requests wait, the clients reconnect, and no caller sees an error.
Then a table says what the two pools did, and after ``factory.dispose()`` the last line says what is left of them:
nothing.
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

from local_server import LocalServer
from screen import Screen
from turbopool import Client, ClientFactory, Http1Options, PoolStats, ReconnectOptions, TurboPoolError

THREADS = 32
CONNECTIONS = {"users": 6, "orders": 10}
"""The named clients, and how many connections each may have."""
TIMEOUT = 10.0
DOWN = 2.0
"""Seconds between the server's death and its new start."""
TICK = 0.1
"""Seconds between two looks at the pools."""
APART = 0.5
"""Seconds that lie at least between two attempts to reconnect; the first one may be several dials at once."""


@dataclass
class Watched:
    """One named client, and what was seen of it."""

    name: str
    client: Client
    calls: list[tuple[float, float]] = field(default_factory=list)
    """When each call began and ended; appending is atomic."""
    errors: list[TurboPoolError] = field(default_factory=list)
    """What callers were told instead of an answer."""
    pool: PoolStats | None = None
    """How the pool stood when it was looked at last."""
    waiting_peak: int = 0
    attempts: int = 0
    attempted_at: float = 0.0

    def look(self, now: float) -> None:
        """Take a snapshot, and note what is more than before."""
        for pool in self.client.stats().pools.values():
            before = self.pool.reconnects if self.pool else 0
            if pool.reconnects > before and now - self.attempted_at > APART:
                self.attempts += 1
                self.attempted_at = now
            self.waiting_peak = max(self.waiting_peak, pool.waiting)
            self.pool = pool

    @property
    def state(self) -> str:
        """Where the pool stands."""
        return self.pool.state if self.pool else "cold"

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self.pool.waiting if self.pool else 0

    def column(self) -> list[str]:
        """Return the client's column of the table."""
        seconds = [end - begin for begin, end in self.calls]
        cuts = statistics.quantiles(seconds, n=100)
        pool = self.pool
        assert pool is not None  # noqa: S101  # there were calls
        return [
            self.name, f"{len(seconds):,}", str(pool.opened), f"{len(seconds) / pool.opened:,.0f} x",
            str(self.waiting_peak), str(pool.replays), str(pool.reconnects), str(len(self.errors)),
            f"{cuts[49] * 1e3:.1f} ms", f"{cuts[98] * 1e3:.1f} ms", f"{max(seconds) * 1e3:,.1f} ms",
        ]  # fmt: skip


ROWS = [
    "client", "requests", "connections opened", "reuse", "waiting (peak)", "replays", "reconnects",
    "errors seen by callers", "p50", "p99", "longest",
]  # fmt: skip


def work(watched: Watched, stop_at: float) -> None:
    """What one thread of the service does: call, wait, call again."""
    while (begin := time.perf_counter()) < stop_at:
        try:
            future = watched.client.send_async("GET", "/hello", params={"page": 2}, timeout=TIMEOUT)
            future.result().raise_for_status()
        except TurboPoolError as error:
            watched.errors.append(error)
        watched.calls.append((begin, time.perf_counter()))


class Outage:
    """Kills the server once and starts it again, and tells what becomes of the requests meanwhile."""

    def __init__(self, server: LocalServer, clients: list[Watched], screen: Screen) -> None:
        self._server = server
        self._clients = clients
        self._screen = screen
        self._told = 0
        self._killed_at: float | None = None
        self._started_at: float | None = None
        self._waiting = 0
        self.is_over = False

    def kill(self) -> None:
        """Kill the server."""
        connections = sum(one.pool.idle + one.pool.leased for one in self._clients if one.pool)
        self._server.kill()
        self._killed_at = time.perf_counter()
        self._screen.line(f"server killed, and {connections} connections with it")

    def go_on(self, now: float) -> None:
        """Do and tell what is due."""
        if self._killed_at is None or self.is_over:
            return
        if self._started_at is not None:
            self._tell_end(self._started_at)
        elif now - self._killed_at > DOWN:
            self._waiting = sum(one.waiting for one in self._clients)
            self._server.start()
            self._started_at = time.perf_counter()
        else:
            self._tell_attempt(now)

    def _tell_attempt(self, now: float) -> None:
        one = self._clients[0]
        pause = ReconnectOptions().delay(one.attempts + 1)
        if one.attempts == self._told or pause is None:
            return
        self._told = one.attempts
        waiting = sum(one.waiting for one in self._clients)
        due = max(0.0, one.attempted_at + pause - now)
        self._screen.line(
            f"server down: {waiting} requests wait; attempt {one.attempts} failed, the next in {due:.1f} s"
        )

    def _tell_end(self, started_at: float) -> None:
        calls = [call for one in self._clients for call in list(one.calls)]
        ends = [end for begin, end in calls if begin < started_at <= end]
        if self._killed_at is not None and ends and len(ends) >= self._waiting:
            self.is_over = True
            self._screen.line(
                f"server back after {started_at - self._killed_at:.1f} s, reconnected after "
                f"{min(ends) - self._killed_at:.1f} s; queue replayed: {len(ends)} requests in "
                f"{max(ends) - min(ends):.2f} s"
            )


def watch(
    clients: list[Watched], outage: Outage, screen: Screen, seconds: float, threads: list[threading.Thread]
) -> None:
    """Show how it goes until the threads are done; a quarter on, the outage begins."""
    start = time.perf_counter()
    is_killed = False
    while alive := [thread for thread in threads if thread.is_alive()]:
        alive[0].join(TICK)
        now = time.perf_counter()
        for watched in clients:
            watched.look(now)
        if not is_killed and now - start > seconds / 4:
            is_killed = True
            outage.kill()
        outage.go_on(now)
        screen.progress(min(0.99, (now - start) / seconds), figures(clients))
    outage.go_on(time.perf_counter())
    screen.progress(1.0, figures(clients))
    screen.line()


def figures(clients: list[Watched]) -> str:
    """Return the live figures of all clients, as they stand beside the bar."""
    done, waiting = sum(len(one.calls) for one in clients), sum(one.waiting for one in clients)
    states = {state: [one.name for one in clients if one.state == state] for state in [one.state for one in clients]}
    where = "  ".join(f"{', '.join(names)}: {state}" for state, names in states.items())
    return f"{done:6,} done  {waiting:2} wait  {where}"


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
    """Run the demo; returns 1 if a caller saw an error, or anything was left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the service runs")
    seconds: float = parser.parse_args().seconds
    screen = Screen()

    with LocalServer() as server:
        before = in_use()
        factory = ClientFactory()
        for name, connections in CONNECTIONS.items():
            factory.add(name, base_url=server.url, http1=Http1Options(max_connections_per_server=connections))
        clients = [Watched(name, factory.create_client(name)) for name in CONNECTIONS]

        screen.line(f"{THREADS} threads, {len(clients)} named clients, one local server at {server.url}")
        stop_at = time.perf_counter() + seconds
        threads = [
            threading.Thread(target=work, args=(clients[i % len(clients)], stop_at), name=f"service-{i}")
            for i in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        watch(clients, Outage(server, clients, screen), screen, seconds, threads)

        screen.table([list(row) for row in zip(ROWS, *(watched.column() for watched in clients), strict=True)])
        factory.dispose()
        left = [now - then for now, then in zip(in_use(), before, strict=True)]

    errors = [error for watched in clients for error in watched.errors]
    for error in errors[:3]:
        screen.line(f"a caller saw {error!r}")
    screen.line(f"after dispose: {left[0]} threads, {left[1]} sockets, {left[2]} actors left")
    return 1 if any(left) or errors else 0


if __name__ == "__main__":
    sys.exit(main())
