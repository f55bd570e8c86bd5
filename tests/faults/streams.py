"""HTTP/2 peers that a test gives orders to, and what must be true of a client after every fault of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame, RstStreamFrame

from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2peer import Behaviour, H2Peer
from tests.servers.h2recv import H2Request
from tests.waiting import eventually
from turbopool import Client, Http2Options, ResponseFuture, TurboPoolError
from turbopool.stats import PoolStats

NEXT = b"next"
PATIENCE = 20.0
FOREVER = float("inf")

# -- peers -----------------------------------------------------------------------------------------------


def attends(conn: H2Conn) -> None:
    """Answer what begins with /next, and leave all else to the test's orders."""
    attending()(conn)


def attending(**settings: int) -> Behaviour:
    """:func:`attends` with settings of the server."""

    def behaviour(conn: H2Conn) -> None:
        conn.handshake(dict(settings.items()))
        attend(conn)

    return behaviour


def attend(conn: H2Conn) -> None:
    """As :func:`attends`, after the handshake."""
    while True:
        request = conn.read_request(FOREVER)
        if request.path.startswith("/next"):
            conn.respond(request.stream_id, body=NEXT)


def answers(conn: H2Conn) -> None:
    """Answer everything with NEXT."""
    conn.handshake()
    while True:
        conn.respond(conn.read_request(FOREVER).stream_id, body=NEXT)


def orders(conn: H2Conn, *calls: Callable[[], object]) -> None:
    """Have the owner of a connection make several calls, with nothing read in between."""

    def obey() -> None:
        for call in calls:
            call()

    conn.do(obey)


SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])


@contextmanager
def scene(
    *behaviours: Behaviour,
    authority: Authority | None = None,
    scheme: str = "https",
    window: int | None = None,
    **options: Any,  # noqa: ANN401  # of several types
) -> Iterator[tuple[Client, H2Peer]]:
    """A client that speaks HTTP/2 to a peer, :func:`attends` unless told otherwise.

    Args:
        behaviours: those of the first connections; the last one is that of all further ones.
        authority: for TLS, if that is the `scheme`.
        scheme: of the peer, if there is an authority.
        window: bytes a server may send before they are read, on the connection and on a stream.
        options: of the client.
    """
    if window is not None:
        options["http2"] = Http2Options(connection_window=window, stream_window=window)
    options.setdefault("request_timeout", PATIENCE)
    authority = authority if scheme == "https" else None
    with (
        H2Peer(list(behaviours) or attends, authority=authority, alpn=("h2", "http/1.1")) as peer,
        Client(
            base_url=peer.url, http_version="2", verify=authority.ca_file if authority else True, **options
        ) as client,
    ):
        yield client, peer


def sent_all(
    client: Client,
    peer: H2Peer,
    *asked: tuple[str, str] | str,
    **parts: Any,  # noqa: ANN401  # of several types
) -> list[ResponseFuture]:
    """Send requests (a path, or method and path), and wait until the peer has the head of each, in this order."""
    futures, before = [], len(peer.requests)
    for each in asked:
        method, path = ("GET", each) if isinstance(each, str) else each
        futures.append(client.send_async(method, path, **parts))
        peer.wait_for_requests(before + len(futures))
    return futures


def of(peer: H2Peer, path: str) -> list[H2Request]:
    """The requests for one path, in the order they came: one that was sent again is there twice."""
    return [request for request in peer.requests if request.path == path]


def resets(conn: H2Conn) -> list[tuple[int, int]]:
    """Stream and code of every RST_STREAM of the client."""
    return [(frame.stream_id, frame.error_code) for frame in list(conn.frames) if isinstance(frame, RstStreamFrame)]


def farewells(conn: H2Conn) -> list[int]:
    """The code of every GOAWAY of the client."""
    return [frame.error_code for frame in list(conn.frames) if isinstance(frame, GoAwayFrame)]


def pings(conn: H2Conn) -> list[bytes]:
    """The payload of every PING that the client asked."""
    return [
        bytes(frame.opaque_data)
        for frame in list(conn.frames)
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags
    ]


# -- what is known afterwards ----------------------------------------------------------------------------


def pool_of(client: Client, version: str = "2") -> PoolStats:
    """The figures of the one pool of a version."""
    (pool,) = [pool for key, pool in client.stats().pools.items() if key.version == version]
    return pool


def figures(client: Client) -> tuple[int, int, int]:
    """Connections that carry something, requests they carry, requests in the queue."""
    stats = client.stats()
    return stats.leased, stats.in_flight, stats.waiting


def error_of(
    future: ResponseFuture, kind: type[TurboPoolError], processed: str, *, may_retry: bool, attempts: int = 1,
    phase: str = "wait",
) -> TurboPoolError:  # fmt: skip
    """The error of a future, which says what is known of its request (I27)."""
    error = future.exception(PATIENCE)
    assert isinstance(error, kind), repr(error)
    known = (error.processed, error.may_retry, error.attempts, error.phase)
    assert known == (processed, may_retry, attempts, phase), f"{known}: {error!r}"
    assert error.origin, repr(error)
    return error


def assert_recovered(
    client: Client,
    peer: H2Peer,
    *,
    connections: int,
    replays: int = 0,
    never_sent: int = 0,
    body: bytes | None = NEXT,
) -> None:
    """FLT-P0: the next request works, so many connections were made in all, what is open is idle, the books balance.

    Args:
        client: whose only pool over HTTP/2 is that of `peer`.
        peer: answers /next.
        connections: how many it has seen, that of the next request included.
        replays: how often a request was sent again.
        never_sent: how many requests ended without being given to a connection.
        body: what it answers; None if that does not matter.
    """
    response = client.post("/next", timeout=PATIENCE)
    assert body in (None, response.content)
    eventually(lambda: not any(figures(client)) and not client.stats().connecting, PATIENCE)
    pool = pool_of(client)
    assert (pool.opened, len(peer.connections)) == (connections, connections)
    assert pool.opened - pool.closed == pool.idle
    assert pool.replays == replays
    assert pool.completed + pool.failed + pool.cancelled == pool.requests - replays + never_sent
    peer.wait_until(lambda peer: peer.open == pool.idle, PATIENCE)


def assert_answered(futures: Iterable[ResponseFuture], body: bytes = b"") -> None:
    """All of them have a response, with this body."""
    for future in futures:
        response = future.result(PATIENCE)
        assert (response.status_code, response.content) == (200, body)
