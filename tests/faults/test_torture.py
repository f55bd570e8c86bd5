"""FLT-P18: a process in which the k-th system call of a kind fails, for every k, until the client makes no more."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tests.faults.process import LIMIT, ROOT
from tests.faults.torture import BIG, Life
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import respond

CALLS: list[tuple[str, ...]] = [
    ("socket", "EMFILE"),
    ("setsockopt", "ENOMEM"),
    ("connect", "ECONNRESET"),
    ("connect", "EINTR"),
    ("getsockopt", "ENOMEM"),
    ("epoll_ctl", "ENOMEM"),
    ("sendto", "ECONNRESET"),
    ("epoll_ctl", "ENOMEM", "tls"),
    ("recvfrom", "ECONNRESET", "tls"),
]
AT_ONCE = 3


def _can_trace() -> str:
    """Why system calls cannot be made to fail here; empty if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-qq", "--seccomp-bpf", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr[-200:]!r}"


@pytest.fixture(scope="module", autouse=True)
def traced() -> None:
    """Skip where no process can be traced."""
    if why := _can_trace():
        pytest.skip(why)


def answer(conn: Conn) -> None:
    """What the life wants of its server."""
    while True:
        request = conn.read_request()
        if request.target == "/silent":
            conn.hold()
            return
        body = bytes(BIG) if request.target == "/big" else b"x"
        conn.send(respond(str(len(request.body)).encode() if request.method == "POST" else body))


def _live_with(call: str, error: str, k: int, folder: Path, authority: Authority | None) -> int:
    """Let the k-th such call of each thread fail, and return how many did."""
    trace = folder / str(k)
    context = authority.server_context() if authority else None
    with RawServer(answer, ssl_context=context) as server:
        process = subprocess.run(
            ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={call}",
             "-e", f"inject={call}:error={error}:when={k}", sys.executable, "-W", "error",
             "-m", "tests.faults.torture", server.url, *([str(authority.ca_file)] if authority else [])],
            cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        faults = trace.read_text().count("(INJECTED)")
        assert process.returncode == 0, process.stderr
        assert "Warning" not in process.stderr, process.stderr
        life = Life(**json.loads(process.stdout))
        said = f"{k}: {life}\n{process.stderr}"
        assert (life.left, life.live) == ([], 0), said
        assert len(life.failed) <= faults, said
        assert 0 <= life.lost <= faults, said
        server.wait_until(lambda server: server.open == 0)
        posts = Counter(request.target for request in server.requests if request.method == "POST")
        assert posts["/post"] <= 1, said
        assert posts["/post"] == 1 or "_post" in {step for step, _, _ in life.failed}, said
    return faults


@pytest.mark.parametrize("case", CALLS, ids="-".join)
def test_whichever_system_call_fails_nobody_hangs_and_nothing_is_left(
    case: tuple[str, ...], tmp_path: Path, authority: Authority
) -> None:
    """FLT-P18, I5, I9, I14, I26, P0 for every k: no more requests fail than calls did, and none of those is lost."""
    call, error, *tls = case
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in count(1, AT_ONCE):
            ks = range(first, first + AT_ONCE)
            faults = list(pool.map(lambda k: _live_with(call, error, k, tmp_path, authority if tls else None), ks))
            failed += sum(faults)
            if not faults[-1]:
                break
    assert failed >= 2
