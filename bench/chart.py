"""A bar chart, as SVG written by hand and as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, LABELS, BAR, GAP, HEAD = 760, 150, 18, 6, 34
"""Pixels: the picture, its labels' column, a bar, the space after it, a group's heading."""

COLUMNS = 50
"""Characters of the longest bar in text."""

OURS, THEIRS = "#1f6feb", "#9aa4b2"


def bars(title: str, groups: Mapping[str, Mapping[str, float]], *, ours: str) -> str:
    """Draw one group of horizontal bars for each scenario, longest first; names that begin with ``ours`` stand out."""
    parts = [text(10, 22, title, size=15)]
    y = 40
    for name, values in groups.items():
        if not values:
            continue
        parts.append(text(10, y + 20, name, size=13))
        y += HEAD
        longest = max(values.values())
        for label, value in sorted(values.items(), key=lambda item: -item[1]):
            length = (WIDTH - LABELS - 90) * value / longest
            colour = OURS if label.startswith(ours) else THEIRS
            parts.append(text(LABELS - 8, y + 13, label, anchor="end"))
            parts.append(f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>')
            parts.append(text(LABELS + length + 6, y + 13, f"{value:,.0f}"))
            y += BAR + GAP
    height = y + 10
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif">'
    return "\n".join([frame, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def lines(groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return the same bars as text, ``COLUMNS`` characters for the longest of a group."""
    parts = []
    for name, values in groups.items():
        longest = max(values.values(), default=0.0)
        parts.append(f"\n{name}")
        for label, value in sorted(values.items(), key=lambda item: -item[1]):
            parts.append(f"  {label:20} {'#' * round(COLUMNS * value / longest):{COLUMNS}} {value:9,.0f}")
    return "\n".join(parts)


def text(x: float, y: float, words: str, *, size: int = 12, anchor: str = "start") -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'
