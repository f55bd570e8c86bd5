"""What the microseconds of a request are spent on: ``make profile``; ``ARGS=--write`` puts it into docs/profile.md.

Each way of sending is run against a local server twice, in a process of its own. First undisturbed: CPU per request, by
user and system. Then with py-spy, which stops the process many times a second and looks which function has the
interpreter's lock; that gives the shares of user time. (A profiler within the process would come to look only when that
lock is let go, which is at system calls, and one that traces would double what it measures.) The system calls that no
way of sending can do without are measured alone.

It knows nothing of turbopool but its public face: functions are named as they are found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h2_peers
import peers
import turbopool
from environments import tool
from machine import machine
from server import Server, servers
from tables import table
from target import Target
from worker import flight, load

DOCUMENT = Path(__file__).parent.parent / "docs" / "profile.md"
HOME = str(Path(turbopool.__file__).parent) + os.sep

LOOKS = 250
"""A second, by py-spy."""
GRACE = 60.0
"""Seconds that a process may take for what is not measured."""
SHOWN = 14
"""Functions shown of each way."""
CALLS = 20_000
"""How often a system call is made to measure it."""

FRAME = re.compile(r"(?P<name>.+) \((?P<file>.+):\d+\)")
"""As py-spy writes it; a stack is a line of them, with a number behind it."""

INTRO = """\
# What the microseconds are spent on

Written by `{command}`, on {machine}

Each way of sending runs for {seconds:g} s undisturbed, which gives the CPU time of the client's process per request
(all threads) and how often a thread gave its processor up; then under py-spy, which looks {looks} times a second which
function has the interpreter's lock, which gives the shares of the user time. System time is that of calls that let the
lock go, the first table has them; but a thread is woken with the lock held, so that whoever wakes one has that time in
its share, too. A function's time is its own, with the C functions and the standard library's that it calls, without
other functions of turbopool. `(the caller)` is the benchmark's own loop.
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of sending."""

    title: str
    make: type[Any]
    run: Callable[[Any, Target, float], dict[str, Any]]
    callers: int
    http2: bool = False
    unique: bool = False
    tls: bool = False
    connections: int = 16

    def target(self, server: Server) -> Target:
        """Say what is asked for."""
        there = server.http2["nginx"]
        http1 = server.secure if self.tls else server.port
        return Target(
            port=there.tls if self.http2 else http1,
            authority=server.authority if self.tls or self.http2 else None,
            callers=self.callers,
            connections=self.connections,
            unique=there.unique if self.unique else "",
        )


WAYS = (
    Way(title="`send()`, 1 thread", make=peers.TurbopoolSend, run=load, callers=1),
    Way(title="`send()`, 16 threads", make=peers.TurbopoolSend, run=load, callers=16),
    Way(title="`send()` over TLS, 16 threads", make=peers.TurbopoolSend, run=load, callers=16, tls=True),
    Way(title="`send_async().result()`, 1 thread", make=peers.Turbopool, run=load, callers=1),
    Way(title="`send_async().result()`, 16 threads", make=peers.Turbopool, run=load, callers=16),
    Way(title="10,000 `send_async()` in flight", make=peers.Turbopool, run=flight, callers=10_000),
    Way(
        title="HTTP/2 over TLS, `send_async().result()`, 16 threads, unique path and header",
        make=h2_peers.Turbopool, run=load, callers=16, http2=True, unique=True, connections=1,
    ),
    Way(
        title="HTTP/2 over TLS, 10,000 `send_async()` in flight",
        make=h2_peers.Turbopool, run=flight, callers=10_000, http2=True, connections=6,
    ),
)  # fmt: skip


def measured(way: Way, target: Target, seconds: float) -> dict[str, Any]:
    """Run a way of sending in this process."""
    peer = way.make(target)
    before = resource.getrusage(resource.RUSAGE_SELF)
    result = way.run(peer, target, seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    peer.close()
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {
        "cpu_us": result["cpu_us"],
        "user_us": result["cpu_us"] * user / (user + system),
        "switches": (after.ru_nvcsw - before.ru_nvcsw) / result["requests"],
    }


def profile(way: Way, server: Server, seconds: float) -> str:
    """Run a way of sending in processes of its own, and tabulate what was seen."""
    target = way.target(server)
    command = [sys.executable, __file__, "--seconds", str(seconds), "--here", str(WAYS.index(way)), target.as_text()]
    result: dict[str, float] = json.loads(output(command, seconds + GRACE))
    seen = looked_at(command, seconds)
    total, cpu, user = sum(seen.values()) or 1, result["cpu_us"], result["user_us"]
    shown = seen.most_common(SHOWN)
    shown.append((("the rest", ""), total - sum(looks for _, looks in shown)))
    rows = [
        [file, name and f"`{name}`", f"{looks / total:.1%}", f"{user * looks / total:.2f}"]
        for (file, name), looks in shown
    ]
    files = Counter[str]()
    for (file, _), looks in seen.items():
        files[file] += looks
    by_file = ", ".join(f"{file} {user * looks / total:.1f}" for file, looks in files.most_common())
    return (
        f"## {way.title}\n\n**{cpu:.1f} us** of CPU per request: {user:.1f} user, {cpu - user:.1f} system; "
        f"{result['switches']:.2f} times a thread gave its processor up. From {total:,} looks:\n\n"
        f"{table(['module', 'function', 'of user time', 'us'], rows)}\n\nBy module, in us: {by_file}."
    )


def looked_at(command: list[str], seconds: float) -> Counter[tuple[str, str]]:
    """Run a command under py-spy; returns how often each function of ours was seen, by file and name."""
    seen = Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        spy = [str(tool("py-spy", "py-spy>=0.4")), "record", "--gil", "--full-filenames", "--rate", str(LOOKS)]
        spy += ["--format", "raw", "--output", str(stacks), "--", *command]
        output(spy, seconds + GRACE)
        for line in stacks.read_text().splitlines():
            stack, _, looks = line.rpartition(" ")
            place = innermost(stack.split(";"))
            if place is not None:
                seen[place] += int(looks)
    return seen


def output(command: list[str], timeout: float) -> str:
    """Run a command; what it started ends with it, in time or not."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            printed, complaint = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        raise subprocess.SubprocessError(complaint.strip().rpartition("\n")[2])
    return printed


def innermost(stack: list[str]) -> tuple[str, str] | None:
    """Name the innermost function of ours in a stack; nothing if it belongs to the start or the end."""
    frames = [found for found in map(FRAME.fullmatch, stack) if found]
    if any("importlib" in found["file"] for found in frames):
        return None
    for found in reversed(frames):
        if found["file"].startswith(HOME):
            return found["file"].removeprefix(HOME), found["name"]
    at_work = any(Path(found["file"]).name == "worker.py" and found["name"] != "<module>" for found in frames)
    return ("(the caller)", "") if at_work else None


def system_calls() -> str:
    """Measure alone what the ways of sending cannot do without."""
    ours, theirs = connected()
    epoll = select.epoll()
    epoll.register(ours, select.EPOLLIN)
    request, answer = b"x" * 120, b"y" * 190
    taken = Counter[str]()

    def timed(what: str, call: Callable[[], object]) -> None:
        start = time.thread_time_ns()
        call()
        taken[what] += time.thread_time_ns() - start

    for _ in range(CALLS):
        timed("`send` of a request", lambda: ours.send(request))
        theirs.recv(4096)
        theirs.send(answer)
        timed("`epoll_wait`, one connection is ready", lambda: epoll.poll(0))
        timed("`recv` of an answer that is there", lambda: ours.recv(65536))
        timed("(the clock itself)", lambda: None)
    clock = taken.pop("(the clock itself)")
    for each in (epoll, ours, theirs):
        each.close()
    rows = [[what, f"{(nanoseconds - clock) / CALLS / 1000:.2f}"] for what, nanoseconds in taken.items()]
    rows.append(["to wake a thread that waits for a lock, and to wait oneself", f"{handover():.2f}"])
    return f"## System calls, each measured alone\n\n{table(['call', 'us of CPU'], rows)}"


def connected() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    for end in (ours, theirs):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def handover() -> float:
    """Return the CPU time, of both, of handing something to a thread that waits."""
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()

    def answer() -> None:
        for _ in range(CALLS):
            there.acquire()
            back.release()

    thread = threading.Thread(target=answer)
    thread.start()
    start = time.process_time()
    for _ in range(CALLS):
        there.release()
        back.acquire()
    taken = time.process_time() - start
    thread.join()
    return taken / CALLS / 2 * 1e6


def main() -> int:
    """Profile all ways of sending, and print or write what was seen; returns 1 if one could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each way, twice (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="PART", help="ways whose title holds this")
    parser.add_argument("--write", action="store_true", help="put it into docs/profile.md")
    parser.add_argument(
        "--here", nargs=2, metavar=("NUMBER", "TARGET"), help="run one way in this process, and no more"
    )
    arguments = parser.parse_args()
    if arguments.here:
        number, target = arguments.here
        print(json.dumps(measured(WAYS[int(number)], Target.of(target), arguments.seconds)))
        return 0
    command = f'make profile ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else "make profile"
    intro = INTRO.format(command=command, machine=machine(), seconds=arguments.seconds, looks=LOOKS)
    parts = [intro.strip(), system_calls()]
    print(parts[-1], flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all that was started is ended, too
    failed = False
    with servers() as server:
        for way in WAYS:
            if arguments.only in way.title:
                try:
                    parts.append(profile(way, server, arguments.seconds))
                except subprocess.SubprocessError as error:
                    failed = True
                    parts.append(f"## {way.title}\n\nNot measured: {error}")
                print(f"\n{parts[-1]}", flush=True)
    if arguments.write:
        DOCUMENT.write_text("\n\n".join(parts) + "\n")
        print(f"\nwritten to {DOCUMENT}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
