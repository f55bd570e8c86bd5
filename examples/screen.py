"""What the demo shows: a bar that is redrawn on a terminal, lines above it, a table. A file gets lines alone."""

from __future__ import annotations

import sys

_BAR = 16
_WIDTH = 79


class Screen:
    """Writes to standard output."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._shown = -1

    def progress(self, share: float, text: str) -> None:
        """Redraw the bar; a file is given a line for every tenth."""
        line = f"[{'#' * int(share * _BAR):<{_BAR}}] {share:4.0%}  {text}"
        if self._is_terminal:
            print("\r" + line[:_WIDTH].ljust(_WIDTH), end="", flush=True)
        elif int(share * 10) > self._shown:
            self._shown = int(share * 10)
            print(line, flush=True)

    def line(self, text: str = "") -> None:
        """Write a line where the bar is; the bar goes on below it."""
        print("\r" + text.ljust(_WIDTH) if self._is_terminal else text, flush=True)

    def table(self, rows: list[list[str]]) -> None:
        """Write rows in columns, the first to the left, the others to the right."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, *cells in rows:
            numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
            print("  ".join([name.ljust(widths[0]), *numbers]))
