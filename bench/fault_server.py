"""What the scripted faults are made of: servers' handlers, the client's process as a row sees it, words for a cell.

A server answers a request with its path, so that an answer that belongs to another is seen; requests are counted where
they arrive.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fault_acts import Call
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import respond


class Child(Protocol):
    """One client in a process of its own, as faults.py starts it."""

    def await_pause(self) -> None:
        """Wait until the client has come to a pause."""

    def resume(self) -> None:
        """Let it go on."""

    def calls(self) -> list[Call]:
        """Wait until it has ended, and return what its callers saw."""


Start = Callable[[dict[str, Any]], Child]


@dataclass(frozen=True)
class Seen:
    """What was measured of one client under one fault."""

    right: bool
    text: str


def answer(conn: Conn) -> None:
    """Answer one request with its path."""
    conn.send(respond(conn.read_request().target.encode()))


def plain(conn: Conn) -> None:
    """Answer every request with its path."""
    while True:
        answer(conn)


def scripted(start: Start, server: RawServer, steps: Sequence[tuple[str, str]], timeout: float = 5.0) -> list[Call]:
    """Let the client send these requests, and return what it saw."""
    return start({"act": "script", "url": server.url, "steps": steps, "timeout": timeout}).calls()


def errors(calls: Sequence[Call]) -> str:
    """Word how many calls failed, and with what."""
    seen = Counter(call.error for call in calls if call.error)
    return f"{seen.total():,} failed" + (f" ({', '.join(map(str, seen))})" if seen else "")


def strangers(calls: Sequence[Call]) -> str:
    """Word how many calls were given the answer of another one."""
    return f"{sum(call.answer not in (None, call.path) for call in calls)} got another's answer"


def outcome(call: Call) -> str:
    """Word how one call went."""
    return call.error or (
        "answered" if call.answer == call.path else f"got {call.answer!r}" if call.answer else "got an empty body"
    )


def counted(server: RawServer, path: str) -> int:
    """Return how often the server read a request for this path."""
    return sum(request.target == path for request in server.requests)


class Gate:
    """Lets requests pass when enough of them are there, or after a while."""

    def __init__(self, enough: int, patience: float = 2.0) -> None:
        self._changed = threading.Condition()
        self._enough, self._patience = enough, patience
        self.peak = self._inside = 0
        """The most that were there at once."""

    def __call__(self) -> None:
        """Wait for the others."""
        with self._changed:
            self._inside += 1
            self.peak = max(self.peak, self._inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.peak >= self._enough, self._patience)
            self._inside -= 1


def go_down(server: RawServer) -> None:
    """Refuse further connects, then cut every connection."""
    server.refuse()
    for conn in server.connections:
        conn.cut()
