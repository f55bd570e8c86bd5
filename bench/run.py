"""Measure turbopool beside its peers against local servers: ``make bench``.

``ARGS=--goals`` measures just what the goals beside the fastest clients need, ``ARGS="--goals --write"`` also writes
docs/performance.md, ``ARGS="--only h2"`` does HTTP/2 alone.

Rounds are interleaved: every round measures every client in every scenario, each in a process of its own, in another
order each time, so that a slow minute of the machine meets them all. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from environments import APART, prepare
from goals import ONE_CORE_GOALS, SHOWN_WITH_THEM, SPEED_GOALS
from machine import facts
from report import Run, write
from scenarios import SCENARIOS, Scenario, base, needed
from server import Server, accepted, servers
from target import Target

WORKER = Path(__file__).with_name("worker.py")
RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"

ROUNDS, GOALS_ROUNDS = 3, 5
"""Unless told: where goals are judged, medians shall be steadier."""

GRACE = 60.0
"""Seconds that a client may take for what is not measured."""


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
                print(f"round {number + 1}  {scenario.title:66} {peer:20} {seen(result)}", flush=True)

    def _measure(self, scenario: Scenario, peer: str, server: Server) -> dict[str, Any] | None:
        """Run one worker; a failure is kept with its last line."""
        seconds = self._seconds * scenario.share
        target = target_of(scenario, peer, server)
        command = [self._pythons.get(base(peer), self._peers_python), str(WORKER), peer, scenario.kind]
        command += [target.as_text(), "--seconds", str(seconds)]
        command += ["--http2"] * (scenario.http2 is not None)
        command += ["--no-collector"] * (not scenario.collector)
        command += ["--one-core"] * scenario.one_core
        before = accepted(server.port)
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + GRACE)
        except subprocess.TimeoutExpired:
            self.failures.append((peer, scenario.title, "did not end"))
            return None
        if done.returncode != 0:
            self.failures.append((peer, scenario.title, done.stderr.strip().rpartition("\n")[2]))
            return None
        result: dict[str, Any] = json.loads(done.stdout)
        counted = result.get("rate") and (scenario.http2 is None or server.http2[scenario.http2.server].counted)
        result["connections"] = accepted(server.port) - before - 1 if counted else result.pop("open", None)
        result["concurrency"] = target.callers
        if failed := result.pop("failed", []):
            self.failures.append((peer, scenario.title, f"{len(failed)} requests failed, first with {failed[0]}"))
        return result


def seen(result: dict[str, Any] | None) -> str:
    """Word a result shortly."""
    if result is None:
        return "failed"
    return f"{result['rate']:9,.0f}/s" if "rate" in result else f"{result['kib']:9.2f} KiB each"


def target_of(scenario: Scenario, peer: str, server: Server) -> Target:
    """Say what a client is to ask for."""
    target = Target(
        port=server.secure if scenario.tls else server.port,
        authority=server.authority if scenario.tls else None,
        path=scenario.path,
        callers=scenario.fewer.get(peer, scenario.concurrency),
        connections=scenario.connections,
        keys=scenario.keys,
        clients=scenario.clients,
    )
    if scenario.http2 is None:
        return target
    there = server.http2[scenario.http2.server]
    return replace(
        target,
        port=there.tls if scenario.http2.tls else there.prior,
        authority=server.authority if scenario.http2.tls else None,
        unique=there.unique if scenario.http2.unique else "",
    )


def chosen(arguments: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios that the arguments ask for, with the peers that they ask for."""
    cells = [(cell.scenario, cell.peer) for goal in (*SPEED_GOALS, *ONE_CORE_GOALS) for cell in goal.cells]
    cells += [(cell.scenario, cell.peer) for cell in SHOWN_WITH_THEM]
    scenarios = needed(cells) if arguments.goals else list(SCENARIOS)
    names = frozenset(arguments.peers.split(",")) if arguments.peers else frozenset()
    wanted = (
        (scenario.name, peer)
        for scenario in scenarios
        for peer in scenario.peers
        if arguments.only in scenario.name and (not names or base(peer) == "turbopool" or {peer, base(peer)} & names)
    )
    return needed(wanted)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, with --goals {GOALS_ROUNDS}")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell; half of it for most over HTTP/2")
    parser.add_argument("--only", default="", metavar="PART", help="scenarios whose name holds this")
    parser.add_argument("--peers", default="", metavar="NAME,NAME", help="and turbopool; a package names all its uses")
    parser.add_argument("--goals", action="store_true", help="what the goals beside the fastest clients need, no more")
    parser.add_argument("--write", action="store_true", help="put the report into docs/performance.md")
    arguments = parser.parse_args(words)
    if arguments.write and (arguments.only or arguments.peers):
        parser.error("--write is for a whole run, without --only and --peers")
    if arguments.rounds is None:
        arguments.rounds = GOALS_ROUNDS if arguments.goals else ROUNDS
    return arguments


def main() -> int:
    """Measure, write the report, print it; returns 1 if turbopool itself failed anywhere."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended, too
    scenarios = chosen(arguments)
    bench = Bench(arguments.seconds, scenarios)
    load = os.getloadavg()[0]
    http2 = {scenario.http2.server for scenario in scenarios if scenario.http2}
    with servers(*http2) as server:
        for number in range(arguments.rounds):
            bench.round(number, server)

    command = f'make bench ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else "make bench"
    run = Run(
        command=command,
        facts=facts(bench.figures, http2 | {"nginx"}, load),
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        scenarios=scenarios,
        figures=bench.figures,
        failures=bench.failures,
    )
    print("\n" + write(RESULTS, run))
    if arguments.write:
        for name in ("performance.md", "performance.svg"):
            shutil.copy(RESULTS / name, DOCS / name)
        print(f"and to {DOCS}: performance.md, performance.svg")
    return 1 if any(base(peer) == "turbopool" for peer, _, _ in bench.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
