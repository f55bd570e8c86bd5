"""Peers that do one thing wrong, and what must be true after every fault."""

from __future__ import annotations

from collections.abc import Callable

from tests.servers.connection import Conn
from tests.servers.raw import Answer, Handler, RawServer, always
from tests.servers.wire import respond
from tests.waiting import eventually
from turbopool import Client

NEXT = b"next"
POISON = respond(b"POISON", headers=[("X-Poison", "yes")])

healthy: Handler = always(respond(NEXT))
"""Answers everything as :func:`assert_recovered` wants it."""


def says(answer: Answer, then: Callable[[Conn], object] = Conn.hold) -> Handler:
    """A handler that reads a request, answers it with these bytes, and then does `then`."""

    def handler(conn: Conn) -> None:
        request = conn.read_request()
        conn.send(answer if isinstance(answer, bytes) else answer(request))
        then(conn)

    return handler


def stays(conn: Conn) -> None:
    """Answer further requests as if nothing had happened: a client that comes back is seen."""
    healthy(conn)


def assert_recovered(
    client: Client, server: RawServer, *, connections: int, replays: int = 0, never_sent: int = 0
) -> None:
    """The next request works; so many connections were made in all; what is open is idle, and the books balance.

    Args:
        client: whose only pool is that of `server`.
        server: answers the next request with :data:`NEXT`.
        connections: how many the server has seen, that of the next request included.
        replays: how often a request was sent a second time.
        never_sent: how many requests ended without being given to a connection.
    """
    assert client.get("/next", timeout=10).content == NEXT
    assert_balanced(client, server, connections=connections, replays=replays, never_sent=never_sent)


def assert_balanced(
    client: Client, server: RawServer, *, connections: int, replays: int = 0, never_sent: int = 0
) -> None:
    """As :func:`assert_recovered`, without a next request."""
    (pool,) = client.stats().pools.values()
    eventually(lambda: _is_at_rest(client))
    (pool,) = client.stats().pools.values()
    assert pool.opened == len(server.connections) == connections
    assert pool.opened - pool.closed == pool.idle
    assert pool.completed + pool.failed + pool.cancelled == pool.requests - replays + never_sent
    server.wait_until(lambda server: server.open == pool.idle)


def _is_at_rest(client: Client) -> bool:
    stats = client.stats()
    return stats.leased == stats.waiting == stats.connecting == 0
