"""The demo runs as a person would run it, and gives everything back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STORY = [
    r"32 threads, 2 named clients, one local server at http://127\.0\.0\.1:\d+",
    r"server killed, and \d+ connections with it",
    r"server down: 32 requests wait; attempt 1 failed, the next in 1\.0 s",
    r"server down: 32 requests wait; attempt 2 failed, the next in [12]\.\d s",
    r"server back after \d\.\d s, reconnected after \d\.\d s; queue replayed: 32 requests in \d\.\d\d s",
    r"after dispose: 0 threads, 0 sockets, 0 actors left",
]
"""What a run tells, in this order, apart from its progress and its table."""


@pytest.mark.slow
def test_demo_loses_its_server_in_mid_run_and_no_caller_sees_it() -> None:
    """BEH-C13, R16, I14, I21: the queue waits and is replayed; each client has a column; nothing is left."""
    command = [sys.executable, "-W", "error", "examples/demo.py", "--seconds", "2"]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip

    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    lines = run.stdout.splitlines()
    told = [line for line in lines if line.startswith(("32", "server", "after"))]
    assert len(told) == len(STORY), told
    assert all(re.fullmatch(wanted, line) for wanted, line in zip(STORY, told, strict=True)), told
    assert any("32 wait  users, orders: reconnecting" in line for line in lines)
    table = {name: cells for name, *cells in (re.split(r" {2,}", line) for line in lines)}
    assert table["client"] == ["users", "orders"]
    assert table["errors seen by callers"] == ["0", "0"]
    for row in ("requests", "connections opened", "replays", "reconnects"):
        assert all(int(cell.replace(",", "")) > 0 for cell in table[row]), row
    assert lines[-1] == told[-1]
