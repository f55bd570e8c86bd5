"""The report of a chaos run, as JSON for programs and as Markdown for people."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tests.chaos.callers import THREADS
from tests.chaos.record import CANCELLED, OK, Rule
from tests.chaos.run import Findings

_TEXT_LIMIT = 500
"""Characters of an example that a person is shown."""


def figures(found: Findings) -> dict[str, Any]:
    """All that is known of a run, as plain data."""
    record = found.record
    outcomes = sorted(record.outcomes.items())
    return {
        "seconds": found.seconds,
        "seed": found.seed,
        "versions": list(found.versions),
        "requests": record.outcomes.total(),
        "responses": sum(count for outcome, count in outcomes if outcome.kind == OK),
        "cancelled": sum(count for outcome, count in outcomes if outcome.kind == CANCELLED),
        "outcomes": [
            {**outcome._asdict(), "count": count, "example": record.examples.get(outcome)}
            for outcome, count in outcomes
        ],
        "latency": {"p50": record.quantile(0.5), "p99": record.quantile(0.99), "max": record.longest},
        "visits": record.visits,
        "deeds": dict(found.deeds),
        "down_seconds": found.down_seconds,
        "proxy": found.proxy,
        "pools": found.pools,
        "recovered_after": record.recovered,
        "latest": record.latest,
        "rss_mib": {"start": found.memory[0], "peak": max(found.memory), "end": found.memory[-1]},
        "asserted": {rule.value: record.broken[rule] for rule in Rule},
        "broken": {rule.value: told for rule, told in record.told.items()},
    }


def markdown(facts: dict[str, Any]) -> str:
    """The same as tables."""
    return "\n\n".join([_summary(facts), _asserted(facts), _outcomes(facts), _pools(facts), _errors(facts)])


def _summary(facts: dict[str, Any]) -> str:
    latency, memory, proxy = facts["latency"], facts["rss_mib"], facts["proxy"]
    deeds = ", ".join(f"{name} {count}" for name, count in sorted(facts["deeds"].items()))
    rows = [
        ("threads, seconds of chaos, seed", f"{THREADS}, {facts['seconds']:g}, {facts['seed']}"),
        ("versions of HTTP", " and ".join(facts["versions"])),
        ("where", f"Python {platform.python_version()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"),
        ("what nginx suffered", f"{deeds}; down for {facts['down_seconds']:.0f} s in all"),
        ("what the proxy did", ", ".join(f"{name} {count:,}" for name, count in proxy.items())),
        ("requests", f"{facts['requests']:,}"),
        ("responses", f"{facts['responses']:,} ({facts['responses'] / facts['requests']:.1%})"),
        ("cancelled", f"{facts['cancelled']:,} ({facts['cancelled'] / facts['requests']:.1%})"),
        ("clients made and disposed of under way", f"{facts['visits']:,}"),
        ("replays, reconnects", " and ".join(f"{_sum(facts, name):,}" for name in ("replays", "reconnects"))),
        ("latency of responses", ", ".join(f"{name} {value * 1e3:,.1f} ms" for name, value in latency.items())),
        ("last return after its deadline", f"{facts['latest']:.2f} s"),
        ("all threads served again after calm", f"{facts['recovered_after']:.2f} s"),
        ("resident memory", ", ".join(f"{name} {value:.0f} MiB" for name, value in memory.items())),
    ]
    return _table(("the run", ""), rows)


def _asserted(facts: dict[str, Any]) -> str:
    table = _table(("must be 0", "is"), [(name, f"{count:,}") for name, count in facts["asserted"].items()])
    told = [f"- {name}: {text}" for name, texts in facts["broken"].items() for text in texts]
    return "\n\n".join([table, "\n".join(told)] if told else [table])


def _outcomes(facts: dict[str, Any]) -> str:
    rows = [(one["method"], one["kind"], one["processed"], f"{one['count']:,}") for one in facts["outcomes"]]
    return _table(("method", "outcome", "processed", "requests"), rows)


def _pools(facts: dict[str, Any]) -> str:
    names = ("requests", "opened", "closed", "replays", "reconnects", "lost")
    rows = [(pool, *(f"{counts[name]:,}" for name in names)) for pool, counts in facts["pools"].items()]
    return _table(("pool", *names[:-1], "GETs lost in spite of a replay"), rows)


def _errors(facts: dict[str, Any]) -> str:
    """One example of each error that a GET or POST ended with."""
    rows = [
        (one["method"], one["example"][:_TEXT_LIMIT].replace("|", "\\|").replace("\n", " "))
        for one in facts["outcomes"]
        if one["example"]
    ]
    return _table(("method", "an example of each error"), rows)


def _sum(facts: dict[str, Any], name: str) -> int:
    return sum(counts[name] for counts in facts["pools"].values())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
