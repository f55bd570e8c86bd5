"""The faults: for each a scripted server, what is asked of the client, and what is right."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fault_server import Gate, Seen, Start, answer, counted, errors, go_down, outcome, plain, scripted, strangers
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, script
from tests.servers.wire import BadRequest, respond

SEED = 3
SERIES = 2000
"""Requests, one after the other."""

DROPPED = 0.1
"""After what part of them the server closes."""

CALLERS, POOL = 32, 8
"""Callers at once, and the connections they share, when the server restarts."""

ABANDONING, SLOTS = 200, 4
"""Requests of which half are given up, and the connections they share."""

RUNS = 3
"""How often a fault is tried that harms only sometimes."""

FORKED = 50
"""Requests of each process after a fork."""

FLOOD = 20_000
"""Interim responses before the final one."""

PAUSED = {"act": "script", "steps": [("GET", "/first"), ("", ""), ("GET", "/second")], "timeout": 5.0}
"""One request before the fault, one after it."""


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    title: str
    right: str
    """What a caller may expect."""
    measure: Callable[[Start], Seen]
    only: frozenset[str] | None = None
    """The clients it makes sense for, if not all."""


def idle_close(start: Start) -> Seen:
    """Close the connection while it is idle."""
    with RawServer(plain) as server:
        child = start(PAUSED | {"url": server.url})
        child.await_pause()
        server.connections[0].cut()
        server.closing.wait(0.2)  # it is idle for a while, with the FIN received
        child.resume()
        last = child.calls()[-1]
    return Seen(last.answer == last.path, outcome(last))


def closes_at_random(method: str) -> Callable[[Start], Seen]:
    """Close within 1 ms after a tenth of the responses, while the client sends one request after the other."""

    def measure(start: Start) -> Seen:
        chance = random.Random(SEED)  # noqa: S311  # the same for every client

        def handler(conn: Conn) -> None:
            while True:
                closes, after = chance.random() < DROPPED, chance.uniform(0, 0.001)
                answer(conn)
                if closes:
                    server.closing.wait(after)
                    return

        with RawServer(handler) as server:
            calls = scripted(start, server, [(method, f"/{number}") for number in range(SERIES)])
            twice = sum(count > 1 for count in Counter(request.target for request in server.requests).values())
        if method == "GET":
            return Seen(all(call.answer == call.path for call in calls), errors(calls))
        return Seen(twice == 0, f"{twice} arrived twice; {errors(calls)}")

    return measure


def stale(method: str) -> Callable[[Start], Seen]:
    """Close each connection on receipt of its second request."""

    def handler(conn: Conn) -> None:
        answer(conn)
        conn.read_request()

    def measure(start: Start) -> Seen:
        with RawServer(handler) as server:
            last = scripted(start, server, [("GET", "/first"), (method, "/second")])[-1]
            arrived = counted(server, "/second")
        right = last.answer == last.path if method == "GET" else bool(last.error) and arrived == 1
        return Seen(right, f"{outcome(last)}, arrived {arrived}x")

    return measure


def restart(start: Start) -> Seen:
    """Cut all connections of a full pool and refuse for half a second."""
    gate = Gate(POOL)

    def handler(conn: Conn) -> None:
        path = conn.read_request().target
        while path.startswith("/first"):
            gate()
            conn.send(respond(path.encode()))
            path = conn.read_request().target
        conn.hold()

    with RawServer(handler) as old:
        first, then = [[f"/{kind}-{n}" for n in range(count)] for kind, count in (("first", POOL), ("work", CALLERS))]
        child = start({"act": "burst", "url": old.url, "limit": POOL, "first": first, "then": then, "timeout": 10.0})
        old.wait_for_requests(POOL + POOL, timeout=10.0)
        go_down(old)
        old.closing.wait(0.5)
        with RawServer(plain, port=old.port):
            calls = child.calls()
    return Seen(all(call.answer == call.path for call in calls), f"{errors(calls)} of {CALLERS}")


def late_start(start: Start) -> Seen:
    """Refuse a client that was answered before, for 0.3 s."""
    with RawServer(plain) as old:
        child = start(PAUSED | {"url": old.url})
        child.await_pause()
        go_down(old)
        child.resume()
        old.closing.wait(0.3)
        with RawServer(plain, port=old.port):
            last = child.calls()[-1]
    return Seen(last.answer == last.path, f"{outcome(last)} after {last.seconds:.1f} s")


def poisoned(start: Start) -> Seen:
    """Send a second response in the segment of the first."""

    def handler(conn: Conn) -> None:
        conn.send(respond(conn.read_request().target.encode()) + respond(b"/poison"))
        plain(conn)

    with RawServer([handler, plain]) as server:
        last = scripted(start, server, [("GET", "/first"), ("GET", "/second")])[-1]
    return Seen(last.answer == last.path, outcome(last))


def short(start: Start) -> Seen:
    """Close before the promised length."""
    return truncated(start, RawServer(script(respond(b"x" * 100)[:-90])))


def cut_tls(start: Start) -> Seen:
    """End a body that ends with the connection, without close_notify."""

    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf a bo")
        conn.cut()

    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        server = RawServer(handler, ssl_context=authority.server_context())
        return truncated(start, server, str(authority.ca_file))


def truncated(start: Start, server: RawServer, ca: str | None = None) -> Seen:
    """Ask once: only an error is right."""
    plan = {"act": "script", "url": server.url, "ca": ca, "steps": [("GET", "/")], "timeout": 5.0}
    with server:
        call = start(plan).calls()[0]
    right = bool(call.error) and counted(server, "/") > 0
    return Seen(right, call.error or f"a short body of {len(call.answer or '')} bytes, no error")


def drip(start: Start) -> Seen:
    """Send a byte of the body every 0.1 s."""

    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(b"x" * 40)[:-40])
        conn.send_slowly(b"x" * 40, delay=0.1)

    with RawServer(handler) as server:
        call = scripted(start, server, [("GET", "/")], timeout=1.0)[0]
    in_time = 0.9 <= call.seconds < 2  # noqa: PLR2004  # on a busy machine
    return Seen(in_time and bool(call.error), f"{call.error or 'answered'} after {call.seconds:.1f} s")


def again(measure: Callable[[Start, int], Seen]) -> Callable[[Start], Seen]:
    """Measure what goes wrong only sometimes, until it does; each time with another seed."""

    def measure_all(start: Start) -> Seen:
        for run in range(RUNS):
            if not (seen := measure(start, SEED + run)).right:
                break
        return seen

    return measure_all


def abandoned(start: Start, seed: int) -> Seen:
    """Answer after 10 ms, while half of the callers give up."""
    gate = Gate(SLOTS)

    def handler(conn: Conn) -> None:
        while True:
            path = conn.read_request().target
            gate() if path.startswith("/gate") else server.closing.wait(0.01)
            conn.send(respond(path.encode()))

    then = [f"/gate-{number}" for number in range(SLOTS)]
    plan = {"act": "abandon", "limit": SLOTS, "count": ABANDONING, "seed": seed, "then": then, "timeout": 3.0}
    with RawServer(handler) as server:
        child = start(plan | {"url": server.url})
        child.await_pause()
        server.closing.wait(0.3)  # for answers that come late
        child.resume()
        calls = child.calls()
    kept = [call for call in calls if call.path.startswith(("/kept", "/gate"))]
    trouble = "".join(f"; {words}" for words in (strangers(calls), errors(kept)) if not words.startswith("0 "))
    return Seen(gate.peak == SLOTS and not trouble, f"{gate.peak} of {SLOTS} usable{trouble}")


def dropped(start: Start) -> Seen:
    """Send a part of a long body, then wait."""

    def handler(conn: Conn) -> None:
        path = conn.read_request().target
        if path == "/after":
            conn.send(respond(path.encode()))
        else:
            conn.send(respond(b"x" * 1_000_000)[:500_000])
            conn.hold()

    with RawServer(handler) as server:
        last = start({"act": "drop", "url": server.url, "limit": 1, "timeout": 2.0}).calls()[-1]
    return Seen(last.answer == last.path, outcome(last))


def forked(start: Start, _seed: int) -> Seen:
    """Serve a process and its fork."""

    def handler(conn: Conn) -> None:
        while True:
            path = conn.read_request().target
            server.closing.wait(0.002)  # so that both are at it
            conn.send(respond(path.encode()))

    with RawServer(handler) as server:
        calls = start({"act": "fork", "url": server.url, "count": FORKED, "timeout": 0.5}).calls()
        server.faults = [fault for fault in server.faults if not isinstance(fault, BadRequest)]  # two wrote at once
    right = all(call.answer == call.path for call in calls)
    return Seen(right, f"of {len(calls)}, {strangers(calls)}, {errors(calls)}")


def flood(start: Start) -> Seen:
    """Send very many interim responses."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" * (FLOOD // 2)
    with RawServer(script(interim + respond(b"/"))) as server:
        call = scripted(start, server, [("GET", "/")])[0]
    text = "an interim response taken for the answer" if call.answer == "" else outcome(call)
    return Seen(bool(call.error) and counted(server, "/") == 1, text)


FORKING = frozenset({"turbopool", "httpx", "urllib3"})

ROWS = [
    Row("idle-close", "an idle connection is closed, then a GET", "answered", idle_close),
    Row("random-get", f"closed < 1 ms after 10 % of answers, {SERIES:,} GETs", "none fails", closes_at_random("GET")),
    Row("random-post", f"the same, {SERIES:,} POSTs", "none arrives twice", closes_at_random("POST")),
    Row("stale-get", "a reused connection is closed on receipt of a GET", "answered", stale("GET")),
    Row("stale-post", "the same, a POST", "an error, arrived once", stale("POST")),
    Row("restart", f"down for 0.5 s under {CALLERS} GETs on {POOL} connections", "none fails", restart),
    Row("late-start", "down for 0.3 s, then a GET", "answered", late_start),
    Row("poisoned", "two responses in one segment, then a GET", "its own answer", poisoned),
    Row("short-body", "a body shorter than its Content-Length", "an error", short),
    Row("tls-cut", "TLS: a body without length, cut without close_notify", "an error", cut_tls),
    Row("drip", "a byte every 0.1 s, timeout 1 s", "ends after 1 s", drip),
    Row(
        "abandon",
        f"{RUNS} x {ABANDONING} GETs on {SLOTS} connections, half given up",
        f"{SLOTS} usable after it",
        again(abandoned),
    ),
    Row("drop", "a streamed response dropped unread, limit 1, then a GET", "answered", dropped),
    Row("fork", f"{RUNS} x a fork, {FORKED} GETs in each process", "all answered", again(forked), FORKING),
    Row("flood", f"{FLOOD:,} interim responses (100, 102), then a good one", "an error", flood),
]
