"""One chaos run: servers, clients, callers and a monkey; then calm, disposal, and a look at what is left."""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from tests.chaos.callers import GRACE, THREADS, Caller, Shared
from tests.chaos.canceller import Canceller
from tests.chaos.monkey import Monkey
from tests.chaos.orders import Deck, Target
from tests.chaos.record import Record, Rule
from tests.chaos.remains import Memory, living
from tests.chaos.servers import ChaosNginx, Peers
from tests.chaos.verdict import Sightings, judge_memory
from tests.leaks import Held, wait_for_return_to
from tests.servers.certs import Authority
from tests.waiting import eventually
from turbopool import Client, ClientFactory, Http1Options, Http2Options, ReconnectOptions

_LONGEST_REQUEST = 30.0
_JOIN_SECONDS = _LONGEST_REQUEST + GRACE + 30.0
_LEAK_SECONDS = 10.0


@dataclass(slots=True)
class Findings:
    """All that a run has to tell."""

    seconds: float
    """Of chaos; the calm after it not counted."""
    seed: int
    versions: Sequence[str]
    record: Record
    deeds: Counter[str]
    down_seconds: float
    proxy: dict[str, int]
    pools: dict[str, dict[str, Any]]
    memory: list[float]
    """MiB, once a second."""


def run(folder: Path, seconds: float, rate: float, seed: int, versions: Sequence[str]) -> Findings:
    """Run; what was broken stands in the record.

    Args:
        folder: an existing empty one, for the servers.
        seconds: of chaos.
        rate: requests a second, of all threads together.
        seed: of all choices.
        versions: of HTTP, in which the callers ask; a server for each.
    """
    (folder / "ca").mkdir()
    (folder / "nginx").mkdir()
    authority = Authority(folder / "ca")
    nginx = ChaosNginx(folder / "nginx", authority, random.Random(seed))  # noqa: S311 - not a secret
    with nginx, Peers(nginx, seed) as peers:
        return _Run(nginx, peers, authority, rate, seed, versions).run(seconds)


class _Run:
    """The client's side of a run, while the servers stand."""

    def __init__(
        self, nginx: ChaosNginx, peers: Peers, authority: Authority, rate: float, seed: int, versions: Sequence[str]
    ) -> None:
        self._nginx = nginx
        self._versions = versions
        self._peers = peers
        self._authority = authority
        self._rate = rate
        self._seed = seed
        self._record = Record()

    def run(self, seconds: float) -> Findings:
        """Run, and gather what all threads saw."""
        baseline, objects = Held.now(), living()
        memory, monkey = Memory(), Monkey(self._nginx, self._seed)
        memory.start()
        pools, proxy = self._with_clients(seconds, monkey)
        memory.end()
        self._look_for_leaks(baseline, objects)
        self._record.add(monkey.record)
        self._compare_counts(pools)
        Sightings.read(self._nginx.log_file, self._nginx.tally_file, Deck.drawn()).judge(self._record)
        judge_memory(self._record, memory)
        return Findings(
            seconds=seconds, seed=self._seed, versions=self._versions, record=self._record, deeds=monkey.deeds,
            down_seconds=monkey.down_seconds, proxy=proxy, pools=pools, memory=memory.samples,
        )  # fmt: skip

    def _with_clients(self, seconds: float, monkey: Monkey) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
        with ClientFactory() as factory, ExitStack() as lone:
            targets = [
                target
                for version in self._versions
                for target in self._targets(version, factory, lone.enter_context(Client(http_version=version)))
            ]
            proxy = self._send(targets, seconds, monkey)
            self._wait_for_rest(targets)
            return {target.name: self._figures(target) for target in targets}, proxy

    def _targets(self, version: str, factory: ClientFactory, lone: Client) -> list[Target]:
        urls, mark = self._nginx.urls[version], f"HTTP/{version}"
        factory.add(
            f"plain {mark}", http_version=version, http1=Http1Options(max_connections_per_server=8),
            http2=Http2Options(max_connections_per_server=3, max_concurrent_streams=8), max_total_connections=18,
        )  # fmt: skip
        verify = str(self._authority.ca_file)
        soon = ReconnectOptions(wait=wait_fixed(0.2), stop=stop_after_attempt(4))  # outages last longer
        factory.add(
            f"secure {mark}", http_version=version, verify=verify, reconnect=soon, connection_lifetime=5.0,
            idle_timeout=0.1,
        )  # fmt: skip
        plain, secure = factory.create_client(f"plain {mark}"), factory.create_client(f"secure {mark}")
        return [
            Target(f"{mark} plain", plain, urls.plain, version),
            Target(f"{mark} few requests a connection", plain, urls.few, version),
            Target(f"{mark} short keep-alive", plain, urls.impatient, version),
            Target(f"{mark} TLS", secure, urls.tls, version),
            Target(f"{mark} spoiling proxy", lone, self._peers.proxy_urls[version], version),
        ]

    def _send(self, targets: list[Target], seconds: float, monkey: Monkey) -> dict[str, int]:
        """Let the callers call, first amid chaos, then in calm."""
        canceller = Canceller()
        shared = Shared(targets, self._nginx.bodies, canceller, self._seed, self._rate)
        callers = [Caller(number, shared) for number in range(THREADS)]
        for thread in (canceller, *callers, monkey):
            thread.start()
        monkey.join(seconds)
        monkey.calm()
        proxy = self._peers.calm()
        shared.calm_since = time.monotonic()
        shared.calm.set()
        for caller in callers:
            caller.join(max(0.0, shared.calm_since + _JOIN_SECONDS - time.monotonic()))
            if caller.is_alive():
                frame = sys._current_frames()[caller.ident or 0]  # noqa: SLF001 - the only way to say where it hangs
                self._record.violate(Rule.UNRESOLVED, "".join(traceback.format_stack(frame)))
            self._record.add(caller.record)
        canceller.end()
        return proxy

    def _wait_for_rest(self, targets: list[Target]) -> None:
        try:
            eventually(lambda: all(_is_at_rest(target) for target in targets))
        except AssertionError:
            self._record.violate(Rule.BUSY, f"{[target.client.stats() for target in targets]}")

    def _look_for_leaks(self, baseline: Held, objects: Counter[str]) -> None:
        for left in wait_for_return_to(baseline, _LEAK_SECONDS):
            self._record.violate(Rule.LEAKED, left)
        for kind, count in (living() - objects).items():
            self._record.violate(Rule.LEAKED, f"{count} objects of {kind}")

    def _figures(self, target: Target) -> dict[str, Any]:
        port = int(target.url.rpartition(":")[2])
        pools = target.client.stats().pools
        (stats,) = (stats for key, stats in pools.items() if (key.port, key.version) == (port, target.version))
        return asdict(stats) | {"lost": self._record.lost[target.url]}

    def _compare_counts(self, pools: dict[str, dict[str, Any]]) -> None:
        counted = sum(pool[name] for pool in pools.values() for name in ("completed", "failed", "cancelled"))
        sent = self._record.outcomes.total()
        if counted != sent:
            self._record.violate(Rule.MISSED, f"{sent} requests had an outcome, the pools counted {counted}")


def _is_at_rest(target: Target) -> bool:
    stats = target.client.stats()
    return stats.leased == stats.waiting == stats.connecting == 0
