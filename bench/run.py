"""Measure turbopool beside its peers against one local nginx: ``make bench``.

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
from pathlib import Path
from typing import Any

from environments import prepare
from report import write
from scenarios import SCENARIOS, Scenario
from server import accepted, nginx

WORKER = Path(__file__).with_name("worker.py")
RESULTS = Path(__file__).parent / "results"

QUIET = 0.5
"""Load average below which the machine counts as our own."""


class Bench:
    """A run of the benchmark."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._peers_python, missing = prepare()
        self.figures: dict[str, dict[str, list[dict[str, Any] | None]]] = {}
        """Scenario -> peer -> one result for each round, None where it failed."""
        self.failures = [(peer, "every scenario", f"missing: {reason}") for peer, reason in missing.items()]
        """Who failed, where, and why."""
        self._missing = set(missing)

    def round(self, number: int, port: int, scenarios: list[Scenario]) -> None:
        """Measure everybody once."""
        for scenario in scenarios:
            peers = [peer for peer in scenario.peers if peer.split("-")[0] not in self._missing]
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                result = self._measure(scenario, peer, port)
                self.figures.setdefault(scenario.name, {}).setdefault(peer, []).append(result)
                seen = f"{result['rate']:9,.0f}/s" if result else "failed"
                print(f"round {number + 1}  {scenario.title:42} {peer:16} {seen}", flush=True)

    def _measure(self, scenario: Scenario, peer: str, port: int) -> dict[str, Any] | None:
        """Run one worker; a failure is kept with its last line."""
        python = sys.executable if peer.startswith("turbopool") else self._peers_python
        command = [python, str(WORKER), peer, scenario.kind, "--concurrency", str(scenario.concurrency)]
        command += ["--port", str(port), "--keys", str(scenario.keys), "--clients", str(scenario.clients)]
        command += ["--connections", str(scenario.connections), "--seconds", str(self._seconds)]
        command += ["--no-collector"] * (not scenario.collector)
        before = accepted(port)
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=self._seconds + 60)
        except subprocess.TimeoutExpired:
            self.failures.append((peer, scenario.title, "did not end"))
            return None
        if done.returncode != 0:
            self.failures.append((peer, scenario.title, done.stderr.strip().rpartition("\n")[2]))
            return None
        result: dict[str, Any] = json.loads(done.stdout)
        result["connections"] = accepted(port) - before - 1
        if failed := result.pop("failed", []):
            self.failures.append((peer, scenario.title, f"{len(failed)} requests failed, first with {failed[0]}"))
        return result


def facts(rounds: int, seconds: float, load: float) -> str:
    """Say where and how it was measured; ``load`` is the machine's load average before the first cell."""
    quiet = "" if load < QUIET else " **Other work was running: take the ratios with care.**"
    return (
        f"{rounds} interleaved rounds of {seconds:g} s a cell; {os.cpu_count()} cores, which client and nginx share; "
        f"Python {platform.python_version()}; {time.strftime('%Y-%m-%d')}; load average at the start {load:.1f}.{quiet}"
    )


def main() -> int:
    """Measure, write the report, print it; returns 1 if turbopool itself failed anywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell")
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    arguments = parser.parse_args()

    scenarios = [scenario for scenario in SCENARIOS if arguments.only in scenario.name]
    bench = Bench(arguments.seconds)
    how = facts(arguments.rounds, arguments.seconds, os.getloadavg()[0])
    with nginx() as port:
        for number in range(arguments.rounds):
            bench.round(number, port, scenarios)

    print("\n" + write(RESULTS, how, scenarios, bench.figures, bench.failures))
    return 1 if any(peer.startswith("turbopool") for peer, _, _ in bench.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
