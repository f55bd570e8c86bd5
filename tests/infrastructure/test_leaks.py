from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pykka

from tests.leaks import Held, wait_for_return_to
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from turbopool import Client

_ROOT = Path(__file__).parents[2]
_SUITE = """
from __future__ import annotations
import socket, sys, threading
import pytest

kept = []

def test_that_keeps_a_socket():
    kept.append(socket.socket())

def test_after_it_with_nothing_kept():
    pass

def test_that_keeps_a_thread():
    thread = threading.Thread(target=threading.Event().wait, args=(60,), name="forgotten", daemon=True)
    thread.start()

def test_that_leaves_the_machine():
    with pytest.raises(AssertionError), socket.socket() as sock:
        sock.connect(("192.0.2.1", 80))

@pytest.mark.concurrency
def test_at_two_intervals():
    print("interval", sys.getswitchinterval())
"""


class _Idle(pykka.ThreadingActor):
    """An actor that does nothing."""


def test_nothing_is_reported_when_nothing_was_taken() -> None:
    assert Held.now().beyond(Held.now()) == []


def test_thread_is_reported_by_its_name_and_place_until_it_ends() -> None:
    baseline, gate = Held.now(), threading.Event()
    thread = threading.Thread(target=gate.wait, args=(30,), name="left-behind")
    thread.start()

    (report,) = wait_for_return_to(baseline, grace=0)
    gate.set()

    assert "left-behind" in report
    assert "threading.py" in report
    assert wait_for_return_to(baseline) == []


def test_socket_eventfd_epoll_and_pipe_are_each_reported() -> None:
    baseline = Held.now()
    with socket.create_server(("127.0.0.1", 0)) as sock, select.epoll():
        descriptors = [os.eventfd(0), *os.pipe()]
        reports = Held.now().beyond(baseline)
        for descriptor in descriptors:
            os.close(descriptor)
        port = sock.getsockname()[1]

    assert len(reports) == 5
    for kind in (f"('127.0.0.1', {port})", "[eventfd]", "[eventpoll]", "pipe:"):
        assert any(kind in report for report in reports), kind
    assert wait_for_return_to(baseline) == []


def test_actor_is_reported_until_it_stops() -> None:
    baseline = Held.now()
    actor = _Idle.start()

    reports = Held.now().beyond(baseline)
    actor.stop()

    assert f"actor {actor.actor_urn}" in reports
    assert wait_for_return_to(baseline) == []


def test_guards_of_conftest_fail_exactly_the_tests_that_break_a_rule(tmp_path: Path) -> None:
    suite = tmp_path / "test_suite.py"
    suite.write_text(_SUITE)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-rA", "-c", str(tmp_path / "pytest.ini")]
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = concurrency\nleak_grace = 0.1\n")

    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(suite)],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    lines = run.stdout.splitlines()
    errors = {line.split("::")[1].split(" ")[0] for line in lines if line.startswith("ERROR ")}
    assert errors == {"test_that_keeps_a_socket", "test_that_keeps_a_thread", "test_that_leaves_the_machine"}
    assert "6 passed, 3 errors" in lines[-1], run.stdout
    assert "thread 'forgotten' (daemon=True)" in run.stdout
    assert "a connect to '192.0.2.1'" in run.stdout
    intervals = [line for line in lines if line.startswith("interval ")]
    assert sorted(intervals) == ["interval 0.005", "interval 1e-06"]


def test_dispatcher_is_reported_until_its_last_client_is_disposed() -> None:
    baseline = Held.now()
    with RawServer(always(respond())) as server, Client() as client:
        client.get(server.url)
        reports = Held.now().beyond(baseline)

    assert sum(report.startswith("dispatcher of ") for report in reports) == 1
    assert wait_for_return_to(baseline) == []
