"""What the servers of these tests answer, and what a test reads out of an echo."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import Fields, RawRequest, respond
from turbopool import Response

AnyForm: TypeAlias = Any
"""An argument of which a test gives every form, wrong ones included."""


def echo(request: RawRequest) -> bytes:
    """Answer with what was asked, for :meth:`Echoed.of`."""
    said = {
        "method": request.method,
        "target": request.target,
        "version": request.version,
        "headers": request.headers,
        "body": request.body.decode("latin-1"),
        "connection": request.connection,
    }
    return respond(json.dumps(said).encode(), headers=[("Content-Type", "application/json")])


@dataclass(frozen=True, slots=True)
class Echoed:
    """A request as :func:`echo` saw it."""

    method: str
    target: str
    version: str
    headers: Fields
    body: bytes
    connection: int

    @classmethod
    def of(cls, response: Response) -> Self:
        """Read the answer of an echo."""
        said = response.raise_for_status().json()
        said["headers"] = [(name, value) for name, value in said["headers"]]
        said["body"] = said["body"].encode("latin-1")
        return cls(**said)

    def all(self, name: str) -> list[str]:
        """Return the values of all fields of that name."""
        return [value for own, value in self.headers if own.lower() == name.lower()]


def silent(conn: Conn) -> None:
    """Read a request and never answer."""
    conn.read_request()
    conn.hold()


def half(conn: Conn) -> None:
    """Answer with half of the body that was announced, and say no more."""
    conn.read_request()
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    conn.hold()


def first_ended(server: RawServer) -> object:
    """Whether the first connection is closed on both sides; for `RawServer.wait_until`."""
    return server.connections and server.connections[0].closed_at


def first_left(server: RawServer) -> object:
    """Whether the client closed the first connection; for `RawServer.wait_until`."""
    return server.connections and server.connections[0].peer_closed_at


class Gate:
    """Answers every request once it is opened; those whose target begins with /fast at once."""

    def __init__(self, answer: bytes | None = None) -> None:
        """Args: answer: the same for all; None echoes."""
        self._answer = answer
        self.opened = threading.Event()

    def __call__(self, conn: Conn) -> None:
        """Serve one connection."""
        while True:
            request = conn.read_request()
            while not request.target.startswith("/fast") and not self.opened.wait(0.01):
                if not conn.is_open():
                    return
            conn.send(self._answer or echo(request))
