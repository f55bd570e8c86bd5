"""Requests that are stuck at a known phase until the test lets their peer go on.

Every client here has one connection, so that whoever comes next needs just what the stuck request holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.faults.aftermath import NEXT, POISON, assert_recovered, healthy
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer
from tests.servers.wire import respond
from tests.transport.lookups import ScriptedLookup, ipv4
from tests.waiting import PATIENCE, eventually, reached
from turbopool import Client, ResponseFuture, Timeout
from turbopool.actors.hub import Hub, live_hubs
from turbopool.transport.resolver import Resolver

_BIG = bytes(16 << 20)


@dataclass(slots=True, kw_only=True)
class Stuck:
    """A request at a phase, and what must be true once it has ended there."""

    client: Client
    server: RawServer
    future: ResponseFuture
    go_on: threading.Event
    """Set it to let the peer go on; the stuck request would get its answer then."""
    phase: str
    """What an error says of it."""
    processed: str
    keeps: bool
    """Whether the connection lives on without the request; else it must be closed with it."""

    def assert_given_back(self) -> None:
        """The next request gets what the stuck one held, what comes late reaches nobody, and the books balance."""
        following = self.client.send_async("GET", "/following", timeout=20)
        if self.keeps:
            eventually(lambda: self.client.stats().waiting == 1)
            self.go_on.set()
        assert following.result(30).content == NEXT
        self.go_on.set()
        if not self.keeps:
            self.server.wait_until(lambda server: server.connections[0].closed_at)
        sent = self.processed != "no"
        assert_recovered(self.client, self.server, connections=1 if self.keeps else 2, never_sent=0 if sent else 1)
        assert sum(request.target == "/stuck" for request in self.server.requests) == sent


Phase = Callable[[Authority, Timeout | float], AbstractContextManager[Stuck]]
"""Enters a phase with a request of that timeout; raises `TooSlow` if that was up before."""


def _reach(future: ResponseFuture, phase: Callable[[], object], go_on: threading.Event) -> None:
    """Wait until a request is where it is to be stuck."""
    eventually(lambda: future.done() or phase())
    if future.done():
        go_on.set()  # nobody will wait for it
    reached(not future.done())


@contextmanager
def shared_hub() -> Iterator[Hub]:
    """Have the hub that all clients share running."""
    with RawServer(healthy) as server, Client(base_url=server.url) as client:
        client.get("/")
        (hub,) = live_hubs()
        yield hub


@contextmanager
def slow_names(lookup: ScriptedLookup) -> Iterator[None]:
    """Have the clients of this block resolve names by `lookup`."""
    with shared_hub() as hub:
        hub.resolver = Resolver(hub.dispatcher, lookup)
        try:
            yield
        finally:
            lookup.go.set()


@contextmanager
def in_the_queue(authority: Authority, timeout: Timeout | float) -> Iterator[Stuck]:
    """Behind another, which has the only connection."""
    del authority
    go_on = threading.Event()

    def busy(conn: Conn) -> None:
        conn.read_request()
        assert go_on.wait(PATIENCE)
        conn.send(respond(b"first"))
        healthy(conn)

    with RawServer(busy) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first")
        server.wait_for_requests(1)
        future = client.send_async("GET", "/stuck", timeout=timeout)
        _reach(future, lambda: client.stats().waiting == 1, go_on)
        yield Stuck(client=client, server=server, future=future, go_on=go_on, phase="queue", processed="no", keeps=True)
        assert first.result(30).content == b"first"


@contextmanager
def in_a_look_up(authority: Authority, timeout: Timeout | float) -> Iterator[Stuck]:
    """The resolver does not answer."""
    del authority
    with RawServer(healthy) as server:
        lookup = ScriptedLookup([ipv4(server.port)], hangs=True)
        url = f"http://slow.invalid:{server.port}"
        with slow_names(lookup), Client(base_url=url, max_conns_per_host=1) as client:
            future = client.send_async("GET", "/stuck", timeout=timeout)
            _reach(future, lambda: lookup.asked, lookup.go)
            lookup.wait_until_present(1)
            yield Stuck(
                client=client, server=server, future=future, go_on=lookup.go, phase="queue", processed="no", keeps=True
            )
            assert len(lookup.asked) == 1


@contextmanager
def in_a_handshake(authority: Authority, timeout: Timeout | float) -> Iterator[Stuck]:
    """Connected, and the server does not go on with TLS."""
    go_on = threading.Event()

    def slow(conn: Conn) -> None:
        assert go_on.wait(PATIENCE)
        if conn.start_tls(authority.server_context()):
            healthy(conn)

    with RawServer(slow) as server:
        url = f"https://127.0.0.1:{server.port}"
        with Client(base_url=url, verify=authority.ca_file, max_conns_per_host=1) as client:
            future = client.send_async("GET", "/stuck", timeout=timeout)
            _reach(future, lambda: server.connections, go_on)
            yield Stuck(
                client=client, server=server, future=future, go_on=go_on, phase="queue", processed="no", keeps=True
            )


@contextmanager
def while_sending(authority: Authority, timeout: Timeout | float) -> Iterator[Stuck]:
    """The server reads the head, and nothing of a large body."""
    del authority
    go_on = threading.Event()

    def deaf(conn: Conn) -> None:
        conn.read_head()
        assert go_on.wait(PATIENCE)
        while conn.recv():  # while a window is full, not even a FIN gets through
            pass
        conn.send(POISON)

    with _of_two(deaf, receive_buffer=4096) as (server, client):
        future = client.send_async("PUT", "/stuck", content=_BIG, timeout=timeout)
        _reach(future, lambda: server.requests, go_on)
        yield Stuck(
            client=client, server=server, future=future, go_on=go_on, phase="send", processed="maybe", keeps=False
        )


@contextmanager
def while_waiting(authority: Authority, timeout: Timeout | float) -> Iterator[Stuck]:
    """The server has the request, and does not answer."""
    del authority
    with _answering(b"", POISON, timeout, phase="wait", processed="maybe") as stuck:
        yield stuck


@contextmanager
def while_reading(authority: Authority, timeout: Timeout | float) -> Iterator[Stuck]:
    """The server stops in the middle of the body."""
    del authority
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"
    with _answering(half, b"67890" + POISON, timeout, phase="recv", processed="yes") as stuck:
        yield stuck


@contextmanager
def _answering(early: bytes, late: bytes, timeout: Timeout | float, *, phase: str, processed: str) -> Iterator[Stuck]:
    go_on, stopped = threading.Event(), threading.Event()

    def stops(conn: Conn) -> None:
        conn.read_request()
        conn.send(early)
        stopped.set()
        assert go_on.wait(PATIENCE)
        conn.send(late)

    with _of_two(stops) as (server, client):
        future = client.send_async("POST", "/stuck", content=b"x", timeout=timeout)
        _reach(future, stopped.is_set, go_on)
        yield Stuck(
            client=client, server=server, future=future, go_on=go_on, phase=phase, processed=processed, keeps=False
        )


@contextmanager
def _of_two(first: Handler, **knobs: Any) -> Iterator[tuple[RawServer, Client]]:  # noqa: ANN401 - the server's own
    """A server whose first connection does `first`, and whose further ones are healthy."""
    with (
        RawServer([first, healthy], **knobs) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
    ):
        yield server, client


PHASES: list[Phase] = [in_the_queue, in_a_look_up, in_a_handshake, while_sending, while_waiting, while_reading]
