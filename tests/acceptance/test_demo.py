"""The demo runs as a person would run it, and gives everything back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_demo_ends_with_nothing_left() -> None:
    """BEH-C13: and its table has a row for each named client."""
    command = [sys.executable, "-W", "error", "examples/demo.py", "--seconds", "1"]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=15,
        check=False,
    )  # fmt: skip

    lines = run.stdout.splitlines()
    assert (run.returncode, run.stderr) == (0, "")
    assert lines[-1] == "after dispose: 0 threads, 0 sockets, 0 actors left"
    assert [line.split()[0] for line in lines[-4:-1]] == ["client", "users", "orders"]
