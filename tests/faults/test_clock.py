"""FLT-P19: wall clocks that jump, and processes that stand still."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.face.handlers import Gate
from tests.faults.aftermath import NEXT, assert_balanced, healthy
from tests.faults.process import answers, finishes, started, tell
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import Client

DAY = 86_400.0


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """FLT-P19: nothing expires, nothing is stale, no deadline moves; neither on the dispatcher nor in the caller."""
    gate = Gate(respond(NEXT))
    with (
        RawServer([gate, healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=1, idle_timeout=60, connection_lifetime=600) as client,
    ):
        client.get("/fast")
        running = client.send_async("GET", "/running", timeout=20)
        server.wait_for_requests(2)
        waiting = client.send_async("GET", "/waiting", timeout=20)
        began = time.monotonic()
        short = client.send_async("GET", "/short", timeout=0.3)
        _shift(monkeypatch, jump)

        assert isinstance(short.exception(30), TimeoutError)
        assert 0.3 <= time.monotonic() - began < 0.3 + SPENT
        gate.opened.set()
        for future in (running, waiting):
            response = future.result(30)
            assert response.content == NEXT
            assert 0 <= response.elapsed.total_seconds() < 10
        assert client.get("/next").content == NEXT
        assert_balanced(client, server, connections=1, never_sent=1)


def _shift(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    real, nanoseconds = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + int(jump * 1e9))


# -- a process that stands still ---------------------------------------------------------------------------

SLEEPER = """
    (url, knobs) = sys.argv[1:]
    client = Client(base_url=url, **eval(knobs))
    [one.result() for one in [client.send_async("GET", "/x") for _ in range(3)]]
    eventually(lambda: not client.stats().connecting)
    for line in sys.stdin:
        print(client.stats().idle, client.stats().opened, flush=True)
        sys.stdin.readline()
        error = client.send_async(line.strip(), "/after", timeout=10).exception()
        print(repr(error), client.stats().opened, flush=True)
    client.dispose()
"""


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("soon", "ended"),
    [(True, False), (True, True), (False, True)],
    ids=["overdue", "overdue and closed by the server", "closed by the server"],
)
@with_short_times
def test_a_process_that_stood_still_looks_at_its_idle_connections_before_it_uses_them(
    method: str,
    soon: bool,  # noqa: FBT001 - a parameter
    ended: bool,  # noqa: FBT001 - a parameter
    short: float,
) -> None:
    """FLT-P19, N8: stopped beyond the idle timeout, resumed, and asked at once."""
    knobs = {"idle_timeout": min(4 * short, 10.0) if soon else 60.0}
    with RawServer(healthy) as server, started(SLEEPER, server.url, repr(knobs)) as process:
        idle, opened = map(int, answers(process, method + "\n").split())
        reached(idle == opened)  # none was closed before the process stood still
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: _is_stopped(process))
        if ended:
            server.wait_for_connections(idle)
            for conn in server.connections:
                conn.cut()
        else:
            threading.Event().wait(knobs["idle_timeout"] + 0.2)  # time is what is tested
        tell(process, "go\n")
        process.send_signal(signal.SIGCONT)

        assert answers(process, "") == f"None {idle + 1}"
        assert len(server.requests) == 4
        assert server.requests[3].connection == idle
        finishes(process)


def _is_stopped(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "T"
