"""The life of a client from its first request to its end, for a process in which something fails.

``python -m tests.faults.torture URL [CA]`` lives it and prints, as JSON, a :class:`Life`. The server
must answer every target but /silent, and POST with nothing but the length of what it got.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field

from tenacity import wait_fixed

from tests.leaks import Held, wait_for_return_to
from tests.waiting import eventually
from turbopool import Client, ReconnectOptions, TurboPoolError

BIG = 300_000
PATIENCE = 1.5
"""Seconds a request may take."""


@dataclass
class Life:
    """What became of it."""

    sent: int = 0
    """Requests made."""
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    """Of the steps that failed: which, the class of the error, and its ``processed``."""
    lost: int = 0
    """Requests without an outcome in the books, though the pool they were counted in is still there."""
    live: int = 0
    """Connections opened and neither closed nor idle, by the books."""
    left: list[str] = field(default_factory=list)
    """What is still held after the end."""


def live(url: str, authority: str | None = None) -> Life:
    """Connect, GET, POST, stream, cancel, GET on a new connection and again, dispose."""
    before, life = Held.now(), Life()
    client = Client(
        base_url=url,
        verify=authority or True,
        max_conns_per_host=2,
        request_timeout=PATIENCE,
        reconnect=ReconnectOptions(wait=wait_fixed(0.02)),
    )
    for step in (_get, _post, _stream, _cancel, _get, _get):
        life.sent += 1
        try:
            step(client)
        except TurboPoolError as error:
            life.failed.append((step.__name__, type(error).__name__, error.processed))
    eventually(lambda: client.stats().leased == client.stats().waiting == client.stats().connecting == 0)
    for pool in client.stats().pools.values():
        life.lost += life.sent - pool.completed - pool.failed - pool.cancelled
        life.live += pool.opened - pool.closed - pool.idle
    client.dispose(drain_timeout=PATIENCE)
    life.left = wait_for_return_to(before)
    return life


def _get(client: Client) -> None:
    assert client.get("/x").content == b"x"


def _post(client: Client) -> None:
    assert client.post("/post", content=bytes(BIG)).content == str(BIG).encode()


def _stream(client: Client) -> None:
    with client.stream("GET", "/big") as response:
        assert sum(map(len, response.iter_bytes())) == BIG


def _cancel(client: Client) -> None:
    future = client.send_async("GET", "/silent")
    eventually(lambda: future.running() or future.done())
    future.cancel()
    if not future.cancelled() and (error := future.exception()) is not None:
        raise error


if __name__ == "__main__":
    print(json.dumps(asdict(live(*sys.argv[1:]))))  # noqa: T201 - to whoever started this process
