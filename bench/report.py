"""The report of a run, in Markdown with a chart; ``--write`` makes it docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chart import bars, lines
from goals import GOALS, ONE_CORE_GOALS, SPEED_GOALS, Cell, Goal
from scenarios import OURS, Scenario, threads
from tables import (
    Figures,
    across,
    best,
    bound,
    goal_ratios,
    middle,
    most,
    ratios,
    results,
    spread,
    table,
    verdict,
)

US = "turbopool"
CALLS = {"turbopool": "`send_async()`", "turbopool-send": "`send()`"}

MANY = 64
"""Threads whose rate is compared with one thread's."""

METHOD = """\
Every figure on this page is from one run of `{command}`, which wrote the page; ratios are what can be compared with
another machine, absolute figures are not.

- *A round* measures every client in every scenario, each in a process of its own, one after the other, and in another
  order each time. A ratio is taken within a round, so that both sides met the same minute of the machine. Given are the
  median over {rounds} rounds, and the least and the most of them. A cell is measured for {seconds:g} s, most over
  HTTP/2 for half of it, after every caller has been answered once, and every pool as often as it may have connections.
- *Limits are equal*: each scenario says how many connections, and over HTTP/2 streams, every client may use. The column
  *connections* has what was opened or, where the server does not count, was open in the end.
- *Every answer's body is compared*, and over HTTP/2 the version is. Where there is TLS, the certificate is verified. A
  wrong answer ends a cell, a failed request is reported below.
- *Servers run in sessions of their own*, as services do: Linux shares the cores out between sessions (autogroup), and
  only then between the threads of each.
- *CPU* is that of the client's process, all its threads together, user and system; the server's is not in it, but takes
  its share of the cores. p50 and p99 are of single requests; with 10,000 in flight, of the time until all of them are
  answered.
- *Memory* is the growth of the client's resident memory for each connection or waiting request, when all else is warm:
  before connections are counted, as many callers have been answered over 16 connections to another server. The
  kernel's buffers are not in it.

How the clients are used, each in its fastest documented way:

- turbopool: one client; `send()` in each thread, or `send_async().result()`; in flight: all submitted by one thread.
- pyreqwest: one client; `-mt`: on its multi-threaded runtime; `-async`: tasks on uvloop; bodies are taken without a
  copy. A goal is held against the use that is fastest in that scenario by its median.
- pycurl: as many handles as there are connections, each used by one thread at a time; 512 KiB to receive 1 MiB bodies.
- aiohttp: tasks on uvloop, behind a semaphore, which is faster than its connector's own queue.
- urllib3, requests, httpx, httpx2, niquests: one pool or session for all threads, that blocks when it is exhausted.

What the microseconds of a request are spent on: [profile.md](profile.md), by `make profile`.
"""


ONE_CORE_METHOD = """Only one thread at a time runs Python. With cores to choose from, the scheduler wakes each thread
where it finds one idle, and the interpreter's lock is handed from core to core; the tables below show what that costs
here. A process that is kept on one core (`taskset -c 1 python service.py`, or `os.sched_setaffinity(0, {1})`) is spared
that. turbopool itself does so for waits only, and while that pays: beyond them it would be for all that the process
does. Beside it is the best of the others, on one core or on all of them, whatever is better for them; the server is
always free to run anywhere.

"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was measured, and how."""

    command: str
    facts: Sequence[str]
    rounds: int
    seconds: float
    scenarios: Sequence[Scenario]
    figures: Figures
    failures: Sequence[tuple[str, str, str]]
    """Who failed, where, and why."""

    def of(self, *, memory: bool, beside_peers: bool = True) -> list[Scenario]:
        """Return the scenarios of a kind; turbopool may be beside peers in them, or alone."""
        return [
            scenario
            for scenario in self.scenarios
            if (scenario.kind in ("idle", "queued")) == memory
            and any(peer not in OURS for peer in scenario.peers) == beside_peers
        ]


def write(folder: Path, run: Run) -> str:
    """Write performance.md, performance.svg and figures.json into ``folder``; returns the report."""
    folder.mkdir(parents=True, exist_ok=True)
    rated, alone = run.of(memory=False), run.of(memory=False, beside_peers=False)
    sections = [
        "# Performance",
        METHOD.format(command=run.command, rounds=run.rounds, seconds=run.seconds),
        "## The machine\n\n" + "\n".join(f"- {fact}" for fact in run.facts),
        goals("Goals: beside the fastest clients", SPEED_GOALS, run),
        goals("The same goals, the client's process kept on one core", ONE_CORE_GOALS, run, ONE_CORE_METHOD),
        "## Requests per second\n\n![requests per second](performance.svg)",
        *(peers_table(scenario, run.figures) for scenario in rated),
        *(memory_table(scenario, run.figures) for scenario in run.of(memory=True)),
        *([itself(alone, run.figures)] if alone else []),
        retention(rated, run.figures),
        goals("Goals: beside clients in Python, and beside itself", GOALS, run),
        failed(run.failures),
    ]
    text = "\n\n".join(section.strip() for section in sections if section)
    (folder / "performance.md").write_text(text + "\n")
    charted = {
        scenario.title: {
            peer: value
            for peer in scenario.peers
            if (value := middle(run.figures, Cell(scenario.name, peer))) is not None
        }
        for scenario in rated
        if not scenario.one_core
    }
    (folder / "performance.svg").write_text(bars("requests per second (median)", charted, ours=US))
    kept = {"command": run.command, "facts": run.facts, "figures": run.figures, "failures": run.failures}
    (folder / "figures.json").write_text(json.dumps(kept, indent=1))
    chart = f"Requests per second (median)\n{lines(charted)}"
    return f"{text}\n\n{chart}\n\nwritten to {folder}: performance.md, performance.svg, figures.json"


def goals(title: str, wanted: Sequence[Goal], run: Run, words: str = "") -> str:
    """Tabulate goals: judged by the median ratio; CPU time is steadier on a busy machine."""
    rows, names = [], {(scenario.name, peer) for scenario in run.scenarios for peer in scenario.peers}
    for goal in wanted:
        if any(names.isdisjoint((cell.scenario, cell.peer) for cell in side) for side in ((goal.of,), goal.to)):
            continue
        seen, against = goal_ratios(goal, run.figures, goal.figure), best(goal, run.figures)
        first = goal.at_least if goal.at_most is None else goal.at_most
        rows.append(
            [
                goal.title,
                "-" if against is None else "itself" if against.peer in OURS else against.peer,
                spread(seen),
                bound(goal, first),
                bound(goal, goal.then),
                verdict(goal, seen),
                "-" if goal.figure == "kib" else spread(goal_ratios(goal, run.figures, "cpu_us")),
            ]
        )
    header = ["scenario", "against", "ratio", "goal", "second goal", "", "the same by CPU time"]
    return f"## {title}\n\n{words}{table(header, rows)}" if rows else ""


def peers_table(scenario: Scenario, figures: Figures) -> str:
    """Tabulate one scenario: a ratio is our rate through theirs, within a round."""
    ours, rows = [peer for peer in scenario.peers if peer in OURS], []
    for peer in scenario.peers:
        seen = results(figures, scenario.name, peer)
        if not seen:
            rows.append([peer, "not measured", *["-"] * (len(ours) + 4)])
            continue
        last = seen[-1]
        fewer = f" ({last['concurrency']:,})" if last["concurrency"] != scenario.concurrency else ""
        rows.append(
            [
                f"{peer}{fewer}",
                across(seen, "rate"),
                *(compared(figures, scenario.name, mine, peer) for mine in ours),
                *(across(seen, name) for name in ("cpu_us", "p50_ms", "p99_ms")),
                most(seen, "connections"),
            ]
        )
    header = ["client", "requests/s", *(f"{CALLS[peer]} / it" for peer in ours), "CPU us/request"]
    return (
        f"### {scenario.title}\n\n{described(scenario)}\n\n{table([*header, 'p50 ms', 'p99 ms', 'connections'], rows)}"
    )


def described(scenario: Scenario) -> str:
    """Say what a scenario allows, and what it is called."""
    return f'Allowed: {scenario.allowed}. Alone: `make bench ARGS="--only {scenario.name}"`.'


def compared(figures: Figures, scenario: str, mine: str, peer: str, figure: str = "rate") -> str:
    """Word the ratio of one of ours and another."""
    return "1" if mine == peer else spread(ratios(figures, Cell(scenario, mine), Cell(scenario, peer), figure))


def memory_table(scenario: Scenario, figures: Figures) -> str:
    """Tabulate what each connection or request takes; a ratio is ours through theirs."""
    ours, rows = [peer for peer in scenario.peers if peer in OURS], []
    for peer in scenario.peers:
        value = middle(figures, Cell(scenario.name, peer), "kib")
        ratio = (compared(figures, scenario.name, mine, peer, "kib") for mine in ours)
        opened = most(results(figures, scenario.name, peer), "connections")
        rows.append([peer, "not measured" if value is None else f"{value:.2f}", *ratio, opened])
    header = ["client", "KiB each", *(f"{CALLS[peer]} / it" for peer in ours), "connections"]
    return f"### {scenario.title[0].upper()}{scenario.title[1:]}\n\n{described(scenario)}\n\n{table(header, rows)}"


def retention(scenarios: Sequence[Scenario], figures: Figures) -> str:
    """Tabulate what is left of a client's rate when 64 threads use it instead of one."""
    rows = []
    for scenario in scenarios:
        if scenario.kind == "load" and scenario.concurrency == MANY:
            one = f"{scenario.name.removesuffix(str(MANY))}1"
            load = scenario.title.removesuffix(f", {threads(MANY)}")
            kept = ((peer, ratios(figures, Cell(scenario.name, peer), Cell(one, peer))) for peer in scenario.peers)
            rows += [[load, peer, spread(seen)] for peer, seen in kept if seen]
    header = ["load", "client", "retention"]
    return f"## Retention: rate with {MANY} threads / with 1\n\n{table(header, rows)}" if rows else ""


def itself(scenarios: Sequence[Scenario], figures: Figures) -> str:
    """Tabulate turbopool against itself."""
    rows = []
    for scenario in scenarios:
        for peer in scenario.peers:
            seen = results(figures, scenario.name, peer)
            cells = [across(seen, name) for name in ("rate", "cpu_us", "p50_ms", "p99_ms")]
            rows.append([scenario.title, CALLS[peer], *cells, most(seen, "connections")])
    header = ["load", "call", "requests/s", "CPU us/request", "p50 ms", "p99 ms", "connections"]
    return f"## turbopool itself, {scenarios[0].allowed}\n\n{table(header, rows)}"


def failed(failures: Sequence[tuple[str, str, str]]) -> str:
    """List what failed or could not be measured, so that nothing is missing silently."""
    places: dict[tuple[str, str], list[str]] = {}
    for peer, scenario, reason in failures:
        seen = places.setdefault((peer, reason), [])
        if scenario not in seen:
            seen.append(scenario)
    said = [f"- {peer}: {reason} ({'; '.join(where)})" for (peer, reason), where in places.items()]
    return "## Failures\n\n" + "\n".join(said or ["None: everything was measured, and every request answered."])
