"""From figures to words: medians, ratios with the least and the most seen, verdicts, Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from goals import Cell, Goal

Result = dict[str, Any] | None
Figures = Mapping[str, Mapping[str, Sequence[Result]]]
"""Scenario -> peer -> one result for each round."""


def results(figures: Figures, scenario: str, peer: str) -> list[dict[str, Any]]:
    """Return what a cell has, without the rounds that failed."""
    return [result for result in figures.get(scenario, {}).get(peer, ()) if result]


def middle(figures: Figures, cell: Cell, figure: str = "rate") -> float | None:
    """Return the median of a cell's figure."""
    values = [result[figure] for result in results(figures, cell.scenario, cell.peer) if figure in result]
    return median(values) if values else None


def ratios(figures: Figures, of: Cell, to: Cell, figure: str = "rate") -> list[float]:
    """Return the ratio of a figure of two cells in every round that has both."""
    ours = figures.get(of.scenario, {}).get(of.peer, ())
    theirs = figures.get(to.scenario, {}).get(to.peer, ())
    pairs = ((mine, other) for mine, other in zip(ours, theirs, strict=False) if mine and other)
    return [mine[figure] / other[figure] for mine, other in pairs if figure in mine and figure in other]


def best(goal: Goal, figures: Figures) -> Cell | None:
    """Return the cell with the best median of those that a goal compares with, if any was measured."""
    seen = [(value, cell) for cell in goal.to if (value := middle(figures, cell, goal.figure)) is not None]
    choose = min if goal.figure == "kib" else max
    return choose(seen, key=lambda pair: pair[0])[1] if seen else None


def goal_ratios(goal: Goal, figures: Figures, figure: str) -> list[float]:
    """Return a goal's ratio in each round; rates and times are turned the way that the goal words it."""
    to = best(goal, figures)
    seen = ratios(figures, goal.of, to, figure) if to else []
    as_it_is = (goal.at_most is None) == (figure == "rate") or figure == "kib"
    return seen if as_it_is else [1 / value for value in seen]


def verdict(goal: Goal, seen: Sequence[float]) -> str:
    """Say whether a goal was met, and the one behind it."""
    if not seen:
        return "not measured"
    if not meets(goal, median(seen), goal.at_least if goal.at_most is None else goal.at_most):
        return "**NOT met**"
    return "met" if goal.then is None or meets(goal, median(seen), goal.then) else "first met"


def meets(goal: Goal, value: float, bound: float | None) -> bool:
    """Say whether a ratio is within a bound."""
    return bound is not None and (value <= bound if goal.at_least is None else value >= bound)


def bound(goal: Goal, number: float | None) -> str:
    """Word what a goal asks."""
    return "" if number is None else f"{'<=' if goal.at_least is None else '>='} {number:g}"


def across(seen: Sequence[dict[str, Any]], name: str) -> str:
    """Word the median of a figure over the rounds."""
    values = [result[name] for result in seen if result.get(name) is not None]
    return f"{median(values):,.2f}" if name.endswith("_ms") and values else f"{median(values):,.0f}" if values else "-"


def most(seen: Sequence[dict[str, Any]], name: str) -> str:
    """Word the greatest of a figure."""
    return str(max((result[name] for result in seen if result.get(name) is not None), default="-"))


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
