"""BEH-P2, P44: callers that find an idle connection send over it, and receive, without anybody's help.

Everything here is asked over a connection that has answered before. What happens to it meanwhile is in
test_caller_driven_idle.py, what ends a request in test_caller_driven_ends.py and test_caller_driven_stops.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.face.handlers import Gate
from tests.faults.aftermath import NEXT, POISON, assert_balanced, assert_recovered, healthy, says
from tests.faults.driven import WAYS, Way, held_dispatcher, idle, send, send_async, wakeups
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import chunked, respond
from tests.waiting import eventually
from turbopool import Client, PoolFull

OK = b"HTTP/1.1 200 OK\r\n"
LARGE = bytes(range(256)) * 4096
TRAILED = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"0123456789" * 99, 64, [("X-Sum", "7")])
PATHS: dict[str, tuple[str, bytes, int, bytes]] = {
    "/sized": ("GET", respond(b"hello"), 200, b"hello"),
    "/posted": ("POST", respond(b"thanks", 201), 201, b"thanks"),
    "/large": ("GET", respond(LARGE), 200, LARGE),
    "/chunked": ("GET", TRAILED, 200, b"0123456789" * 99),
    "/head": ("HEAD", OK + b"Content-Length: 5\r\n\r\n", 200, b""),
    "/204": ("GET", respond(status=204), 204, b""),
    "/304": ("GET", respond(status=304), 304, b""),
    "/hints": ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 3 + respond(b"at last"), 200, b"at last"),
}
"""By target: the method, what is answered, and what the caller gets."""


def answers(conn: Conn) -> None:
    """Answer each request as :data:`PATHS` says; with a query, in pieces of so many bytes."""
    while True:
        path, _, size = conn.read_request().target.partition("?")
        answer = PATHS[path][1]
        if size:
            conn.send_slowly(answer, int(size))
        else:
            conn.send(answer)


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> Authority | None:
    """The authority of a server that speaks TLS, or None."""
    return request.getfixturevalue("authority") if request.param == "https" else None


# -- the straight road ---------------------------------------------------------------------------------------


def test_every_kind_of_response_is_received_while_the_dispatcher_stands_still(scheme: Authority | None) -> None:
    """BEH-H5, H6, P44, FLT-N16: one connection for them all, in one piece and in many, and all of them counted."""
    with idle(answers, authority=scheme) as (server, client):
        with held_dispatcher():
            for path, (method, _, status, body) in PATHS.items():
                for size in ("", "?1000") if body is LARGE else ("", "?1", "?7"):
                    response = client.send(method, path + size, content=b"x" * 60_000 if method == "POST" else None)
                    assert (response.status_code, response.content) == (status, body), (path, size)
                    assert response.extensions.get("trailers") == ([(b"X-Sum", b"7")] if path == "/chunked" else None)
            (pool,) = client.stats().pools.values()
            assert (pool.idle, pool.leased, pool.waiting) == (1, 0, 0)
            assert pool.requests == pool.completed == len(server.requests) == 1 + 3 * len(PATHS) - 1
        assert [one.body for one in server.requests if one.method == "POST"] == [b"x" * 60_000] * 3
        assert len(server.connections) == 1


def test_a_caller_that_drives_a_connection_wakes_nobody(scheme: Authority | None) -> None:
    """BEH-P44: neither a message nor the response itself; the dispatcher sleeps through hundreds of requests."""
    with idle(healthy, authority=scheme) as (server, client):
        client.get("/second")
        before = wakeups()
        for _ in range(200):
            assert client.get("/x").content == NEXT
        assert wakeups() - before < 20
        assert_balanced(client, server, connections=1)


def test_a_request_is_on_its_way_before_the_dispatcher_has_a_turn(scheme: Authority | None) -> None:
    """BEH-P2: who does not wait for the response sends all the same."""
    with idle(healthy, authority=scheme) as (server, client):
        with held_dispatcher():
            future = client.send_async("POST", "/x", content=b"at once")
            server.wait_until(lambda server: len(server.requests) == 2 and server.requests[1].body == b"at once")
            assert (future.done(), future.running()) == (False, True)
        assert future.result(30).content == NEXT
        assert_balanced(client, server, connections=1)


def test_who_finds_nothing_idle_waits_in_line_whatever_the_dispatcher_does() -> None:
    """BEH-P26, P37, P45, FLT-P1, P9: in order, seen and cancelled there, and refused when there are too many."""
    gate = Gate(respond(NEXT))
    with (
        RawServer(gate) as server,
        Client(base_url=server.url, max_conns_per_host=1, max_pending_requests=6) as client,
    ):
        client.get("/fast")
        held = client.send_async("GET", "/held")
        with held_dispatcher():
            futures = [client.send_async("GET", f"/{n}") for n in range(6)]
            eventually(lambda: client.stats().waiting == 6)
            assert futures[2].cancel()
            full = [client.send_async("GET", "/full") for _ in range(10)]
            assert isinstance(full[-1].exception(30), PoolFull)
        gate.opened.set()
        assert {future.result(30).content for future in (held, *futures[:2], *futures[3:])} == {NEXT}
        said = [request.target for request in server.requests if request.target != "/full"]
        assert said == ["/fast", "/held", "/0", "/1", "/3", "/4", "/5"]
        eventually(lambda: client.stats().waiting == 0)  # some of the many were let in


def test_blocking_calls_and_futures_are_served_in_the_order_they_came() -> None:
    """BEH-P26, P37, FLT-P1: nobody who comes late and finds the connection put back overtakes those in line."""
    gate = Gate(respond(NEXT))
    with (
        RawServer(gate) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
        ThreadPoolExecutor(12) as threads,
    ):
        client.get("/fast")
        done = [threads.submit(client.get, "/held")]
        server.wait_for_requests(2)
        for n in range(10):
            done.append(threads.submit([send, send_async][n % 2], client, "GET", f"/{n}"))
            eventually(lambda n=n: client.stats().waiting == n + 1)  # type: ignore[misc]
        gate.opened.set()
        late = [client.get(f"/late/{n}") for n in range(3)]

        assert {one.result(30).content for one in done} == {NEXT} == {one.content for one in late}
        said = [request.target for request in server.requests[2:]]
        assert said == [*(f"/{n}" for n in range(10)), *(f"/late/{n}" for n in range(3))]


def test_every_way_to_send_takes_turns_on_one_connection(scheme: Authority | None) -> None:
    """BEH-P44, H9, H11: blocking, future, stream, large uploads, in any order; what came in pieces before as well."""

    def streamed(client: Client, method: str, url: str) -> bytes:
        with client.stream(method, url) as response:
            return b"".join(response.iter_bytes(3 if len(url) % 2 else None))

    def uploaded(client: Client, method: str, url: str) -> bytes:
        del method
        return client.post(url, content=LARGE).content

    ways: list[Callable[[Client, str, str], bytes]] = [
        lambda *call: send(*call).content, lambda *call: send_async(*call).content, streamed, uploaded,
    ]  # fmt: skip
    with idle(always(lambda one: respond(one.target.encode())), authority=scheme) as (server, client):
        for n in range(64):  # each after each other, and after itself
            for way in (ways[n % 4], ways[n // 4 % 4]):
                assert way(client, "GET", f"/{n}") == f"/{n}".encode()
        assert_balanced(client, server, connections=1)


def test_connections_that_were_made_ahead_serve_callers_as_any_other() -> None:
    """BEH-P1, P2: warmed up, first used by two at once, and then by whoever comes."""
    gate = Gate(respond(NEXT))
    with RawServer(gate) as server, Client(base_url=server.url, max_conns_per_host=2) as client:
        client.warm_up(server.url, 2)
        eventually(lambda: client.stats().idle == 2)
        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(client.get, "/x") for _ in range(2)]
            server.wait_for_requests(2)
            gate.opened.set()
            assert [one.result(30).content for one in both] == [NEXT] * 2
        with held_dispatcher():
            assert client.get("/x").content == NEXT
        assert {request.connection for request in server.requests} == {0, 1}
        assert_balanced(client, server, connections=2)


def test_of_a_crowd_everybody_drives_who_finds_a_connection_idle(scheme: Authority | None) -> None:
    """BEH-P44: over TLS as well."""
    gate, most = Gate(respond(NEXT)), 6
    context, verify = (None, True) if scheme is None else (scheme.server_context(), scheme.ca_file)
    with (
        RawServer(gate, ssl_context=context) as server,
        Client(base_url=server.url, max_conns_per_host=most, verify=verify) as client,
        ThreadPoolExecutor(most) as threads,
    ):
        client.get("/fast")
        client.warm_up(server.url, most)
        eventually(lambda: client.stats().idle == most)
        with held_dispatcher():
            calls = []
            for n in range(most):
                calls.append(threads.submit([send, send_async][n % 2], client, "GET", "/x"))
                eventually(lambda n=n: len(server.requests) + client.stats().waiting == n + 2)  # type: ignore[misc]
            assert len(server.requests) - 1 == most
        server.wait_for_requests(most + 1)
        gate.opened.set()
        assert [call.result(30).content for call in calls] == [NEXT] * most
        assert_balanced(client, server, connections=most)


# -- what does not fit, and what ends the connection -----------------------------------------------------------


@pytest.mark.parametrize("size", [65_000, 65_536, 65_537, 4_000_000])
@pytest.mark.parametrize("way", WAYS)
def test_a_request_may_be_larger_than_one_send(way: Way, size: int, scheme: Authority | None) -> None:
    """BEH-H6, FLT-N16: to a server that reads it slowly, and then the next one over the same connection."""

    def slow(conn: Conn) -> None:
        request = conn.read_head()
        server.closing.wait(0.02)
        conn.read_body(request)
        conn.send(respond(f"{len(request.body)}".encode()))
        healthy(conn)

    with idle(slow, authority=scheme) as (server, client):
        assert way(client, "POST", "/x", content=bytes(size)).content == f"{size}".encode()
        assert_recovered(client, server, connections=1)


@pytest.mark.parametrize("size", [0, 60_000, 8_000_000])
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_comes_before_the_request_was_read_is_seen(way: Way, size: int) -> None:
    """FLT-N17, H24: a 413 to the head alone; the connection is not used again."""

    def refuses(conn: Conn) -> None:
        conn.read_head()
        conn.send(respond(b"too large", 413, headers=[("Connection", "close")]))
        conn.shutdown_write()
        while conn.recv():
            pass

    with idle(refuses) as (server, client):
        response = way(client, "POST", "/x", content=bytes(size))

        assert (response.status_code, response.content) == (413, b"too large")
        assert_recovered(client, server, connections=2)


LAST = {
    "until close": (OK + b"\r\nhello", Conn.close),
    "until close, with others waiting": (b"HTTP/1.0 200 OK\r\n\r\nhello", Conn.close),
    "Connection: close": (respond(b"hello", headers=[("Connection", "close")]), Conn.hold),
    "HTTP/1.0": (respond(b"hello", version="HTTP/1.0"), Conn.hold),
    "no time left": (respond(b"hello", headers=[("Keep-Alive", "timeout=1")]), Conn.hold),
    "a response too many": (respond(b"hello") + POISON, Conn.hold),
    "a byte too many": (respond(b"hello") + b"\n", Conn.hold),
    "chunked, and a byte too many": (OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"hello") + b"x", Conn.hold),
}


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("way", WAYS)
def test_a_last_response_is_right_and_its_connection_is_never_used_again(
    way: Way, last: str, scheme: Authority | None
) -> None:
    """BEH-H3, H4, R12, FLT-H3, H4, H23, T5: whoever comes next has another one, and no byte of this."""
    answer, end = LAST[last]
    with idle(says(answer, end), authority=scheme, max_conns_per_host=1) as (server, client):
        assert way(client, "GET", "/x").content == b"hello"

        assert client.post("/y").content == NEXT  # which may not be sent twice
        server.wait_until(lambda server: server.connections[0].closed_at or server.connections[0].peer_closed_at)
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("kind", ["HEAD", "204", "304"])
@pytest.mark.parametrize("way", WAYS)
def test_a_body_where_none_belongs_is_never_the_next_response(way: Way, kind: str) -> None:
    """FLT-H6."""
    status = 200 if kind == "HEAD" else int(kind)
    answer = b"HTTP/1.1 %d Odd\r\nContent-Length: %d\r\n\r\n" % (status, len(POISON)) + POISON
    with idle(says(answer)) as (server, client):
        assert way(client, "HEAD" if kind == "HEAD" else "GET", "/x").content == b""
        assert_recovered(client, server, connections=2)
