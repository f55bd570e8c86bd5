"""What the clients ask for over HTTP/2, and that it is HTTP/2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path

from peers import PATH

STREAMS = 100
"""Requests at once on a connection, for those that can be told. It is httpx2's own limit; niquests has the server's."""

TIMEOUT = 15.0
"""Seconds that a request may take, for everyone: threads that share a client lose an answer now and then."""

FIELD = "x-request-id"

Ask = tuple[str, Mapping[str, str] | None]


class NotHttp2Error(Exception):
    """The client spoke another version."""


def require(spoken: object, http2: object) -> None:
    """Refuse a version that is not the client's own word for HTTP/2."""
    if spoken != http2:
        raise NotHttp2Error(f"not HTTP/2 ({http2!r}) but {spoken!r}")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked for."""

    port: int
    authority: Path | None = None
    """Whom to trust over TLS; without it the client has to know that the server speaks HTTP/2."""
    unique: str = ""
    """Makes one path of each number; without it there is one URL."""
    threads: int = 1
    """How many will call ``get``."""

    @property
    def base(self) -> str:
        """The URL without a path."""
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}"

    def requests(self) -> Callable[[], Ask]:
        """Return what gives the URL and the header fields of each request; any thread may call it."""
        base, unique, numbers = self.base, self.unique, count()
        if not unique:
            return repeat((f"{base}{PATH}", None)).__next__

        def request() -> Ask:
            number = next(numbers)
            return f"{base}{unique.format(number)}", {FIELD: f"{number:032x}"}

        return request
