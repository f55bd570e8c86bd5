"""Requests over a connection that stands idle and has answered before: there, the calling thread does the work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.aftermath import NEXT, POISON, healthy
from tests.faults.dispatchers import dispatchers
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer
from tests.servers.wire import respond
from tests.waiting import PATIENCE
from turbopool import Client, Response, TurboPoolError
from turbopool.actors.hub import live_hubs

Way = Callable[..., Response]


def send(client: Client, method: str, url: str, **parts: Any) -> Response:  # noqa: ANN401 - those of a request
    """Let this thread drive the connection."""
    return client.send(method, url, **parts)


def send_async(client: Client, method: str, url: str, **parts: Any) -> Response:  # noqa: ANN401 - those of a request
    """Let this thread send, and wait for a future."""
    return client.send_async(method, url, **parts).result()


def dispatched(client: Client, method: str, url: str, **parts: Any) -> Response:  # noqa: ANN401 - those of a request
    """Let the dispatcher receive: nobody waits who could."""
    future = client.send_async(method, url, **parts)
    wait([future])
    return future.result()


WAYS: list[Way] = [send, send_async, dispatched]


def after_one(handler: Handler) -> Handler:
    """A handler that answers one request and then does as `handler` does."""

    def serve(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(NEXT))
        handler(conn)

    return serve


@contextmanager
def idle(
    *handlers: Handler,
    authority: Authority | None = None,
    **knobs: Any,  # noqa: ANN401 - the client's
) -> Iterator[tuple[RawServer, Client]]:
    """A client with one idle connection, which does as the first of `handlers` does, and whose next ones as the others.

    Further connections are healthy.

    Args:
        handlers: as those of a server.
        authority: has the server speak TLS.
        knobs: of the client.
    """
    if authority is not None:
        knobs["verify"] = authority.ca_file
    context = None if authority is None else authority.server_context()
    with (
        RawServer([after_one(handlers[0]), *handlers[1:], healthy], ssl_context=context) as server,
        Client(base_url=server.url, **knobs) as client,
    ):
        assert client.get("/first").content == NEXT
        yield server, client


@contextmanager
def held_dispatcher() -> Iterator[None]:
    """Hold the dispatcher's thread fast: what is done in the block, callers do by themselves."""
    (hub,) = live_hubs()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(PATIENCE)

    hub.dispatcher.post(hold)
    assert held.wait(PATIENCE)
    try:
        yield
    finally:
        release.set()


def wakeups() -> int:
    """How often the dispatcher's thread went to sleep so far."""
    (thread,) = dispatchers()
    lines = Path(f"/proc/self/task/{thread.native_id}/status").read_text("ascii").splitlines()
    (count,) = [line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")]
    return int(count)


def failure(way: Way, client: Client, method: str, url: str = "/x", **parts: Any) -> TurboPoolError:  # noqa: ANN401
    """Send a request that must fail, and return its error."""
    try:
        response = way(client, method, url, **parts)
    except TurboPoolError as error:
        return error
    raise AssertionError(f"it was answered: {response}")


def told(error: TurboPoolError) -> dict[str, object]:
    """What an error says that does not depend on the time and the port."""
    passing = ("waited", "elapsed")
    return {
        "kind": type(error).__name__,
        "message": error.args[0],
        "phase": error.phase,
        "processed": error.processed,
        "request_sent": error.request_sent,
        "attempts": error.attempts,
        "may_retry": error.may_retry,
        **{name: fact for name, fact in error.facts.items() if name not in passing},
    }


SAID = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 O",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123",
}


class Driven(NamedTuple):
    """A request that a thread drives, and whose server has begun to answer or has not."""

    client: Client
    server: RawServer
    result: Future[Response]
    go_on: threading.Event
    """Lets the server answer, with POISON if it has said half of something."""


@contextmanager
def driven(said: bytes = b"", method: str = "GET", own: Client | None = None) -> Iterator[Driven]:
    """Have a thread drive a request whose server says so much and then nothing."""
    go_on, stopped = threading.Event(), threading.Event()

    def stops(conn: Conn) -> None:
        conn.read_request()
        conn.send(said)
        stopped.set()
        assert go_on.wait(PATIENCE)
        conn.send(POISON if said else respond(NEXT))
        healthy(conn)

    with (
        RawServer([after_one(stops), healthy]) as server,
        own or Client(max_conns_per_host=1) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        client.get(server.url)
        result = threads.submit(client.send, method, f"{server.url}/driven", timeout=60)
        assert stopped.wait(PATIENCE)
        try:
            yield Driven(client, server, result, go_on)
        finally:
            go_on.set()
