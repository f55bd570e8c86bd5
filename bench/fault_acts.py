"""One client under one fault, in this process: ``python fault_acts.py CLIENT < plan``, run by faults.py.

The plan is one line of JSON; what the caller saw is printed as another. In between the word ``pause`` asks the parent
to do the server's part, and a line from it ends the pause.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from fault_peers import CANCELLABLE, CLIENTS, Peer

THREADS, GROUP = 16, 4
"""How many callers at once abandon their requests, and how many each: at once those that it then cancels."""

LONGEST_WAIT = 0.06
"""Seconds after which the most patient of them gives up."""

FORK_SECONDS = 6.0
"""How long each of two forked processes goes on; what it did not send by then has failed."""


@dataclass
class Call:
    """What a caller saw of one request."""

    path: str
    answer: str | None = None
    error: str | None = None
    seconds: float = 0.0


def name(error: BaseException) -> str:
    """Return the class of an error, and of the reason that it wraps."""
    reason = getattr(error, "reason", None)
    return type(error).__name__ + (f"({type(reason).__name__})" if isinstance(reason, Exception) else "")


def call(peer: Peer, method: str, path: str, timeout: float) -> Call:
    """Send one request and tell how it went."""
    seen, start = Call(path), time.monotonic()
    try:
        seen.answer = peer.send(method, path, timeout)
    except Exception as error:  # noqa: BLE001  # whatever a client raises is told
        seen.error = name(error)
    seen.seconds = round(time.monotonic() - start, 3)
    return seen


def pause() -> None:
    """Let the parent do the server's part."""
    print("pause", flush=True)
    sys.stdin.readline()


def script(peer: Peer, plan: dict[str, Any]) -> list[Call]:
    """Send one request after the other; ``["", ""]`` is a pause."""
    seen = []
    for method, path in plan["steps"]:
        if method:
            seen.append(call(peer, method, path, plan["timeout"]))
        else:
            pause()
    return seen


def together(peer: Peer, paths: list[str], timeout: float) -> list[Call]:
    """Send GETs at once, each from a thread of its own."""
    with ThreadPoolExecutor(len(paths)) as threads:
        return list(threads.map(lambda path: call(peer, "GET", path, timeout), paths))


def burst(peer: Peer, plan: dict[str, Any]) -> list[Call]:
    """Open all connections of the pool, then send many GETs at once."""
    together(peer, plan["first"], plan["timeout"])
    return together(peer, plan["then"], plan["timeout"])


def abandon(peer: Peer, plan: dict[str, Any]) -> list[Call]:
    """Give up half of many requests, at random moments; then look how many connections the pool still lends."""
    chance = random.Random(plan["seed"])  # noqa: S311  # the same for every client
    callers, timeout = plan["count"] // GROUP, plan["timeout"]
    fates = [("kept", timeout)] * (callers // 2)
    fates += [(chance.choice(["late", "cancelled"]), chance.uniform(0.001, LONGEST_WAIT)) for _ in fates]
    chance.shuffle(fates)

    def caller(number: int) -> list[Call]:
        fate, patience = fates[number]
        paths = [f"/{fate}-{number}-{n}" for n in range(GROUP)]
        if fate != "cancelled" or peer.submit is None:
            return [call(peer, "GET", path, patience) for path in paths]
        futures = [peer.submit(path, timeout) for path in paths]
        time.sleep(patience)
        for future in futures:
            future.cancel()
        return []

    with ThreadPoolExecutor(THREADS) as threads:
        seen = [one for calls in threads.map(caller, range(callers)) for one in calls]
    pause()
    return seen + together(peer, plan["then"], timeout)


def drop(peer: Peer, plan: dict[str, Any]) -> list[Call]:
    """Forget a streamed response, then ask again."""
    peer.drop("/stream", plan["timeout"])
    gc.collect()
    return [call(peer, "GET", "/after", plan["timeout"])]


def fork(peer: Peer, plan: dict[str, Any]) -> list[Call]:
    """Use the pool, fork, and use it in both processes at once."""
    call(peer, "GET", "/before", plan["timeout"])
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.read(reader, 1)  # it runs
    else:
        os.write(writer, b" ")
    stop_at = time.monotonic() + FORK_SECONDS
    seen = []
    for number in range(plan["count"]):
        path = f"/{'parent' if child else 'child'}-{number}"
        in_time = time.monotonic() < stop_at
        seen.append(call(peer, "GET", path, plan["timeout"]) if in_time else Call(path, error="not sent in time"))
    os.close(reader if child == 0 else writer)
    if child == 0:
        os.write(writer, json.dumps([asdict(one) for one in seen]).encode())
        os._exit(0)
    with open(reader) as told:  # noqa: PTH123  # a descriptor
        return seen + [Call(**one) for one in json.loads(told.read())]


ACTS = {act.__name__: act for act in (script, burst, abandon, drop, fork)}


def main() -> None:
    """Do what the plan says; leave without clean-up, which may wait for what a fault left behind."""
    client, plan = sys.argv[1], json.loads(sys.stdin.readline())
    clients = CANCELLABLE if plan["act"] == "abandon" else CLIENTS
    calls = ACTS[plan["act"]](clients[client](plan["url"], plan.get("limit"), plan.get("ca")), plan)
    told = {"version": importlib.metadata.version(client), "calls": [asdict(one) for one in calls]}
    print(json.dumps(told), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
