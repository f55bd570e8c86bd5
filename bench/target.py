"""What the clients ask for, and that the answer is the right one over the right version of HTTP.

Imported by the servers' side and by the clients', each in an environment of its own: it needs nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import count, repeat
from pathlib import Path
from typing import Any, Self

SMALL, BIG = "/d", "/mib"
BODIES = {
    SMALL: b"hello world, this is a small body\n",
    BIG: random.Random(1).randbytes(1 << 20),  # noqa: S311  # it shall be the same everywhere, not secret
}
"""What the servers answer, by path."""

STREAMS = 100
"""Requests at once on a connection, for those that can be told. It is httpx2's own limit; niquests has the server's."""

FIELD = "x-request-id"

Ask = tuple[str, Mapping[str, str] | None]


class WrongAnswerError(Exception):
    """The body is not the one that the server sends."""


class NotHttp2Error(Exception):
    """The client spoke another version."""


def require(spoken: object, http2: object) -> None:
    """Refuse a version that is not the client's own word for HTTP/2."""
    if spoken != http2:
        raise NotHttp2Error(f"not HTTP/2 ({http2!r}) but {spoken!r}")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked for, and what a client may use for it."""

    port: int
    authority: Path | None = None
    """Whom to trust over TLS; without it there is none, and over HTTP/2 the client has to know what is spoken."""
    path: str = SMALL
    unique: str = ""
    """Makes one path of each number, and a header field with it; without it there is one URL."""
    callers: int = 1
    """How many threads will call ``get``."""
    connections: int = 16
    """To one pool, at most; each of several has its part of them, and two at least."""
    streams: int = STREAMS
    """Requests at once on each connection, over HTTP/2."""
    keys: int = 1
    """Pools of each client (turbopool)."""
    clients: int = 1
    """Clients that share the load (turbopool)."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Read what ``as_text`` wrote."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values | {"authority": Path(values["authority"]) if values["authority"] else None})

    def as_text(self) -> str:
        """Return all of it on one line."""
        return json.dumps(asdict(self) | {"authority": str(self.authority or "")})

    @property
    def pools(self) -> int:
        """How many pools there are of all clients."""
        return self.keys * self.clients

    @property
    def limit(self) -> int:
        """How many connections a pool may have."""
        return self.connections if self.pools == 1 else max(2, self.connections // self.pools)

    @property
    def base(self) -> str:
        """The URL without a path."""
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The one URL, if there is one."""
        return self.base + self.path

    @cached_property
    def body(self) -> bytes:
        """What the server answers."""
        return BODIES[self.path]

    def check(self, body: Any) -> None:
        """Refuse any body but the server's."""
        if body != self.body:
            raise WrongAnswerError(bytes(body)[:80])

    def requests(self) -> Callable[[], Ask]:
        """Return what gives the URL and the header fields of each request; any thread may call it."""
        base, unique, numbers = self.base, self.unique, count()
        if not unique:
            return repeat((self.url, None)).__next__

        def request() -> Ask:
            number = next(numbers)
            return f"{base}{unique.format(number)}", {FIELD: f"{number:032x}"}

        return request
