"""A minute of chaos against a real nginx; ``make chaos`` is the longer one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.nginx import missing_nginx

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.nginx,
    pytest.mark.soak,
    pytest.mark.skipif(missing_nginx(), reason="nginx is not installed"),
    pytest.mark.timeout(240),
]


def test_nobody_is_harmed_who_need_not_be_while_nginx_is_reloaded_killed_and_restarted(tmp_path: Path) -> None:
    """I5-I9, I14, I21, I26, I27: every answer belongs to its request and is whole, no POST is sent twice, none is lost.

    In a process of its own, so that neither tracing nor the suite's own threads have a part in it. The seed is fixed:
    it makes the monkey do each of its deeds early.
    """
    report = tmp_path / "report.json"
    command = [sys.executable, "-W", "error", "-m", "tests.chaos", "--seconds", "60", "--seed", "358"]

    run = subprocess.run([*command, "--json", str(report)], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    facts = json.loads(report.read_text("utf-8"))
    assert set(facts["asserted"].values()) == {0}
    assert facts["versions"] == ["1.1", "2"]
    assert set(facts["deeds"]) == {"reload", "kill", "graceful stop", "stop"}
    assert facts["requests"] > 10_000
    assert facts["responses"] > facts["requests"] / 2
    assert facts["cancelled"] > facts["requests"] / 20
    assert all(pool["reconnects"] > 0 for pool in facts["pools"].values())
