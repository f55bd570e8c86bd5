"""From figures to a Markdown report with a chart: medians, and ratios with the least and the most seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from chart import bars, lines
from scenarios import GOALS, ITSELF_CONNECTIONS, Cell, Goal, Scenario, threads

Result = dict[str, Any] | None
Figures = Mapping[str, Mapping[str, Sequence[Result]]]
"""Scenario -> peer -> one result for each round."""

US = "turbopool"

MANY = 64
"""Threads whose rate is compared with one thread's."""


def write(
    folder: Path, how: str, scenarios: Sequence[Scenario], figures: Figures, failures: Sequence[tuple[str, str, str]]
) -> str:  # fmt: skip
    """Write report.md, chart.svg and figures.json into ``folder``; returns the report."""
    folder.mkdir(parents=True, exist_ok=True)
    beside_peers = [scenario for scenario in scenarios if len(scenario.peers) > 1]
    alone = [scenario for scenario in scenarios if len(scenario.peers) == 1]
    text = "\n\n".join(
        [
            "# turbopool beside its peers",
            how,
            "\n\n".join(peers_table(scenario, figures) for scenario in beside_peers),
            retention(beside_peers, figures),
            *([itself(alone, figures)] if alone else []),
            goals(scenarios, figures),
            failed(failures),
        ]
    )
    (folder / "report.md").write_text(text + "\n")
    charted = {
        scenario.title: {peer: value for peer in scenario.peers if (value := middle(figures, scenario.name, peer))}
        for scenario in beside_peers
    }
    (folder / "chart.svg").write_text(bars("requests per second (median)", charted, ours=US))
    (folder / "figures.json").write_text(json.dumps({"how": how, "figures": figures, "failures": failures}, indent=1))
    chart = f"Requests per second (median)\n{lines(charted)}"
    return f"{text}\n\n{chart}\n\nwritten to {folder}: report.md, chart.svg, figures.json"


def peers_table(scenario: Scenario, figures: Figures) -> str:
    """Tabulate one scenario: the ratio is our rate through theirs, within a round."""
    rows = []
    for peer in scenario.peers:
        seen = [result for result in figures.get(scenario.name, {}).get(peer, ()) if result]
        if not seen:
            rows.append([peer, *["not measured"] * 7])
            continue
        last = seen[-1]
        fewer = f" ({last['concurrency']:,})" if last["concurrency"] != scenario.concurrency else ""
        rows.append(
            [
                f"{peer}{fewer}",
                last["version"],
                f"{median(result['rate'] for result in seen):,.0f}",
                "1" if peer == US else spread(ratios(figures, Cell(scenario.name), Cell(scenario.name, peer))),
                *(across(seen, name) for name in ("p50_ms", "p99_ms", "cpu_us")),
                most(seen, "connections"),
            ]
        )
    header = [
        "client",
        "version",
        "requests/s",
        "turbopool / it",
        "p50 ms",
        "p99 ms",
        "CPU us/request",
        "connections",
    ]
    return f"## {scenario.title}: {scenario.allowed}\n\n{table(header, rows)}"


def retention(scenarios: Sequence[Scenario], figures: Figures) -> str:
    """Tabulate what is left of a client's rate when 64 threads use it instead of one."""
    rows = []
    for scenario in scenarios:
        if scenario.kind == "load" and scenario.concurrency == MANY:
            one = f"{scenario.name.removesuffix(str(MANY))}1"
            for peer in scenario.peers:
                seen = ratios(figures, Cell(scenario.name, peer), Cell(one, peer))
                rows.append([scenario.title.removesuffix(f", {threads(MANY)}"), peer, spread(seen)])
    return f"## Retention: rate with {MANY} threads / with 1\n\n{table(['load', 'client', 'retention'], rows)}"


def itself(scenarios: Sequence[Scenario], figures: Figures) -> str:
    """Tabulate turbopool against itself."""
    rows = []
    for scenario in scenarios:
        seen = [result for result in figures.get(scenario.name, {}).get(US, ()) if result]
        cells = [across(seen, name) for name in ("rate", "p50_ms", "p99_ms", "cpu_us")]
        rows.append([scenario.title, *cells, most(seen, "connections")])
    header = ["load", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "connections"]
    return f"## turbopool itself, at most {ITSELF_CONNECTIONS} connections in all\n\n{table(header, rows)}"


def goals(scenarios: Sequence[Scenario], figures: Figures) -> str:
    """Tabulate the goals: judged by the median ratio of the rates; CPU time is steadier on a busy machine."""
    rows, names = [], {scenario.name for scenario in scenarios}
    for goal in GOALS:
        if names.isdisjoint([goal.of.scenario, goal.to.scenario]):
            continue
        seen, by_cpu = goal_ratios(goal, figures, "rate"), goal_ratios(goal, figures, "cpu_us")
        rows.append([goal.title, bound(goal), spread(seen), verdict(goal, seen), spread(by_cpu)])
    return f"## Goals\n\n{table(['scenario', 'goal', 'seen', '', 'the same by CPU time'], rows)}"


def bound(goal: Goal) -> str:
    """Word what a goal asks."""
    return f">= {goal.at_least:g}" if goal.at_least is not None else f"<= {goal.at_most:g}"


def goal_ratios(goal: Goal, figures: Figures, figure: str) -> list[float]:
    """Return a goal's ratio in each round; rates and times are turned the way that the goal words it."""
    seen = ratios(figures, goal.of, goal.to, figure)
    as_it_is = (goal.at_most is None) == (figure == "rate")
    return seen if as_it_is else [1 / value for value in seen]


def verdict(goal: Goal, seen: Sequence[float]) -> str:
    """Say whether a goal was met."""
    if not seen:
        return "not measured"
    met = median(seen) >= goal.at_least if goal.at_least is not None else median(seen) <= (goal.at_most or 0)
    return "met" if met else "NOT met"


def failed(failures: Sequence[tuple[str, str, str]]) -> str:
    """List what failed or could not be measured, so that nothing is missing silently."""
    places: dict[tuple[str, str], list[str]] = {}
    for peer, scenario, reason in failures:
        seen = places.setdefault((peer, reason), [])
        if scenario not in seen:
            seen.append(scenario)
    lines = [f"- {peer}: {reason} ({'; '.join(where)})" for (peer, reason), where in places.items()]
    return "## Failures\n\n" + "\n".join(lines or ["None: everything was measured, and every request answered."])


def ratios(figures: Figures, of: Cell, to: Cell, figure: str = "rate") -> list[float]:
    """Return the ratio of a figure of two cells in every round that has both."""
    ours = figures.get(of.scenario, {}).get(of.peer, ())
    theirs = figures.get(to.scenario, {}).get(to.peer, ())
    return [mine[figure] / other[figure] for mine, other in zip(ours, theirs, strict=False) if mine and other]


def middle(figures: Figures, scenario: str, peer: str) -> float | None:
    """Return the median rate of a cell."""
    rates = [result["rate"] for result in figures.get(scenario, {}).get(peer, ()) if result]
    return median(rates) if rates else None


def across(seen: Sequence[dict[str, Any]], name: str) -> str:
    """Word the median of a figure over the rounds."""
    values = [result[name] for result in seen if result[name] is not None]
    return f"{median(values):,.2f}" if name.endswith("_ms") and values else f"{median(values):,.0f}" if values else "-"


def most(seen: Sequence[dict[str, Any]], name: str) -> str:
    """Word the greatest of a figure."""
    return str(max((result[name] for result in seen if result[name] is not None), default="-"))


def spread(values: Sequence[float]) -> str:
    """Word a ratio: median (least to most)."""
    return f"**{median(values):.2f}** ({min(values):.2f} to {max(values):.2f})" if values else "-"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns also line up as plain text."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
