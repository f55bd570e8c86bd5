"""Measure turbopool beside its peers against one local nginx: ``make bench``; ``ARGS="--only h2"`` for HTTP/2 alone.

Rounds are interleaved: every round measures every client in every scenario, each in a process of its own, in another
order each time, so that a slow minute of the machine meets them all. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environments import APART, prepare
from report import write
from scenarios import SCENARIOS, Scenario
from server import Server, accepted, servers

WORKER = Path(__file__).with_name("worker.py")
RESULTS = Path(__file__).parent / "results"

QUIET = 0.5
"""Load average below which the machine counts as our own."""


class Bench:
    """A run of the benchmark."""

    def __init__(self, seconds: float, scenarios: Sequence[Scenario]) -> None:
        self._seconds, self._scenarios = seconds, scenarios
        wanted = {base(peer) for scenario in scenarios for peer in scenario.peers}
        self._peers_python, missing = prepare()
        self._pythons = {"turbopool": sys.executable}
        for peer in wanted & set(APART):
            self._pythons[peer], not_had = prepare({peer: APART[peer]})
            missing |= not_had
        self.figures: dict[str, dict[str, list[dict[str, Any] | None]]] = {}
        """Scenario -> peer -> one result for each round, None where it failed."""
        self.failures = [(peer, "every scenario", f"missing: {reason}") for peer, reason in missing.items()]
        """Who failed, where, and why."""
        self._missing = set(missing)

    def round(self, number: int, server: Server) -> None:
        """Measure everybody once."""
        for scenario in self._scenarios:
            peers = [peer for peer in scenario.peers if base(peer) not in self._missing]
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                result = self._measure(scenario, peer, server)
                self.figures.setdefault(scenario.name, {}).setdefault(peer, []).append(result)
                seen = f"{result['rate']:9,.0f}/s" if result else "failed"
                print(f"round {number + 1}  {scenario.title:56} {peer:16} {seen}", flush=True)

    def _measure(self, scenario: Scenario, peer: str, server: Server) -> dict[str, Any] | None:
        """Run one worker; a failure is kept with its last line."""
        seconds = self._seconds * scenario.share
        concurrency = scenario.fewer.get(peer, scenario.concurrency)
        command = [self._pythons.get(base(peer), self._peers_python), str(WORKER), peer, scenario.kind]
        command += ["--concurrency", str(concurrency), "--seconds", str(seconds)]
        command += ["--keys", str(scenario.keys), "--clients", str(scenario.clients)]
        command += ["--connections", str(scenario.connections), *ways(scenario, server)]
        command += ["--no-collector"] * (not scenario.collector)
        before = accepted(server.port)
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
        except subprocess.TimeoutExpired:
            self.failures.append((peer, scenario.title, "did not end"))
            return None
        if done.returncode != 0:
            self.failures.append((peer, scenario.title, done.stderr.strip().rpartition("\n")[2]))
            return None
        result: dict[str, Any] = json.loads(done.stdout)
        counted = server.counted or not scenario.http2
        result["connections"] = accepted(server.port) - before - 1 if counted else None
        result["concurrency"] = concurrency
        if failed := result.pop("failed", []):
            self.failures.append((peer, scenario.title, f"{len(failed)} requests failed, first with {failed[0]}"))
        return result


def base(peer: str) -> str:
    """Return the name of the package that a peer is a use of."""
    return peer.partition("-")[0]


def ways(scenario: Scenario, server: Server) -> list[str]:
    """Return what tells a worker where the server is, and how to speak to it."""
    if scenario.http2 is None:
        return ["--port", str(server.port)]
    options = ["--http2", "--port", str(server.tls if scenario.http2.tls else server.prior)]
    options += ["--authority", str(server.authority)] * scenario.http2.tls
    return options + ["--unique", server.unique] * scenario.http2.unique


def facts(arguments: argparse.Namespace, load: float) -> str:
    """Say where and how it was measured; ``load`` is the machine's load average before the first cell."""
    quiet = "" if load < QUIET else " **Other work was running: take the ratios with care.**"
    return (
        f"{arguments.rounds} interleaved rounds of {arguments.seconds:g} s a cell (HTTP/2: half of it); "
        f"{os.cpu_count()} cores, which client and server share; server nginx (HTTP/2: {arguments.server}); "
        f"Python {platform.python_version()}; {time.strftime('%Y-%m-%d')}; load average at the start {load:.1f}.{quiet}"
    )


def main() -> int:
    """Measure, write the report, print it; returns 1 if turbopool itself failed anywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell; half of it over HTTP/2")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--server", choices=["nginx", "nghttpd"], default="nginx", help="for HTTP/2")
    arguments = parser.parse_args()

    scenarios = [scenario for scenario in SCENARIOS if arguments.only in scenario.name]
    bench = Bench(arguments.seconds, scenarios)
    how = facts(arguments, os.getloadavg()[0])
    with servers(arguments.server) as server:
        for number in range(arguments.rounds):
            bench.round(number, server)

    print("\n" + write(RESULTS, how, scenarios, bench.figures, bench.failures))
    return 1 if any(peer.startswith("turbopool") for peer, _, _ in bench.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
