"""FLT-S1 to S4: servers that say good-bye, in all their ways."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from threading import Lock

import pytest
from h2.errors import ErrorCodes

from tests.faults.stream_stage import StreamStage
from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    assert_answered,
    assert_recovered,
    attends,
    error_of,
    figures,
    of,
    orders,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2send import LAST_ID
from tests.waiting import eventually
from turbopool import ConnectError, Http2Options, RemoteProtocolError

ALL = LAST_ID

# -- graceful --------------------------------------------------------------------------------------------


def test_farewells_of_a_server_at_work_are_followed_as_often_as_they_come() -> None:
    """FLT-S1, BEH-M12: each connection takes one request of ten; a bound of three would lose most of them."""

    def one(conn: H2Conn) -> None:
        conn.handshake()
        request = conn.read_request()
        conn.respond(request.stream_id, body=NEXT)
        conn.send_goaway(request.stream_id)
        conn.drain()

    with scene(one, http2=Http2Options(max_connections_per_server=1)) as (client, peer):
        futures = [client.send_async("POST", f"/{number}", content=b"once") for number in range(10)]

        assert_answered(futures, NEXT)
        assert len(peer.connections) == 10


@SCHEMES
def test_what_a_farewell_admits_is_finished_and_the_rest_goes_on_elsewhere(scheme: str, authority: Authority) -> None:
    """FLT-S1, BEH-M12: GOAWAY for all, then one for the first two: the third, a POST, is sent again, once."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        first, second, third = sent_all(client, peer, "/1", ("POST", "/2"), ("POST", "/3"))
        conn = peer.connections[0]
        conn.do(conn.send_goaway, ALL)
        conn.do(conn.sync)
        assert client.get("/next").content == NEXT
        assert len(of(peer, "/3")) == 1
        conn.do(conn.send_goaway, 3)
        peer.wait_until(lambda _: len(of(peer, "/3")) == 2)
        assert figures(client) == (2, 3, 0)

        orders(conn, lambda: conn.respond(1), lambda: conn.respond(3))
        peer.connections[1].do(peer.connections[1].respond, of(peer, "/3")[1].stream_id)

        assert_answered([first, second, third])
        eventually(lambda: conn.raw.peer_closed_at, PATIENCE)
        assert [request.path for request in conn.requests] == ["/1", "/2", "/3"]
        assert_recovered(client, peer, connections=2, replays=1)


def test_windows_and_header_tables_outlive_a_farewell() -> None:
    """BEH-M5, FLT-S1: the stream goes on with indexed fields, and is given credit for a body of many windows."""
    with scene(window=65_535) as (client, peer):
        before, after = sent_all(client, peer, "/1", "/2")
        conn = peer.connections[0]
        conn.do(conn.respond, 1, headers=[("x-told", "once")])
        before.result(PATIENCE)
        conn.do(conn.send_goaway, 3)
        conn.do(conn.respond, 3, headers=[("x-told", "once")], body=bytes(400_000))

        response = after.result(PATIENCE)
        assert (response.headers["x-told"], len(response.content)) == ("once", 400_000)
        assert_recovered(client, peer, connections=2)


def test_a_body_is_sent_to_its_end_after_a_farewell_that_admits_it() -> None:
    """FLT-S1: an upload under way is none of the requests that are refused."""
    with scene() as (client, peer):
        future = client.send_async("POST", "/up", content=bytes(300_000))
        peer.wait_for_requests(1)
        conn = peer.connections[0]
        conn.do(conn.send_goaway, 1)
        conn.do(conn.read_body, peer.requests[0])
        conn.do(conn.respond, 1)

        assert_answered([future])
        assert len(peer.requests[0].body) == 300_000
        assert_recovered(client, peer, connections=2)


def test_a_later_farewell_cannot_admit_more_than_an_earlier_one() -> None:
    """FLT-S1: RFC 9113 section 6.8; what was refused has gone elsewhere already."""
    with scene() as (client, peer):
        first, second = sent_all(client, peer, "/1", ("POST", "/2"))
        conn = peer.connections[0]
        orders(conn, lambda: conn.send_goaway(1), lambda: conn.send_goaway(ALL), lambda: conn.respond(3, 500),
               lambda: conn.respond(1))  # fmt: skip
        peer.wait_for_requests(3)
        peer.connections[1].do(peer.connections[1].respond, 1)

        assert_answered([first, second])
        assert_recovered(client, peer, connections=2, replays=1)


@pytest.mark.concurrency
def test_no_caller_notices_a_server_that_says_farewell_under_load() -> None:
    """FLT-S1, I9: each connection processes 20 requests, refuses those it got beyond, and is replaced."""
    processed: list[str] = []
    lock = Lock()

    def retiring(conn: H2Conn) -> None:
        conn.handshake()
        for left in reversed(range(20)):
            request = conn.read_request()
            with lock:
                processed.append(request.path)
            if not left:
                conn.send_goaway(request.stream_id)
            conn.respond(request.stream_id, body=request.path.encode())
        conn.drain()

    def ask(number: int) -> bool:
        return client.post(f"/{number}").content == b"/%d" % number

    with scene(retiring) as (client, peer), ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(200)))
        assert sorted(processed) == sorted(f"/{number}" for number in range(200))
        assert len(peer.connections) >= 10


# -- nothing was processed -------------------------------------------------------------------------------


@SCHEMES
def test_requests_that_a_farewell_refuses_altogether_are_all_sent_again(scheme: str, authority: Authority) -> None:
    """FLT-S2, BEH-R8: any method, bodies of bytes and files; what can be drawn only once fails, and says so."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        futures = sent_all(client, peer, "/1", ("POST", "/2"), content=b"bytes")
        futures += sent_all(client, peer, ("POST", "/3"), content=BytesIO(b"a file"))
        once = sent_all(client, peer, ("POST", "/4"), content=iter([b"once"]))[0]
        conn = peer.connections[0]
        conn.do(conn.read_body, peer.requests[3])
        conn.do(conn.send_goaway, 0)
        error = error_of(once, RemoteProtocolError, "no", may_retry=False)
        peer.wait_for_requests(7)
        other = peer.connections[1]
        bodies = {}
        for request in list(other.requests):
            bodies[request.path] = other.do(other.read_body, request)
            other.do(other.respond, request.stream_id)

        assert_answered(futures)
        assert error.facts["error_code"] == "NO_ERROR"
        assert bodies == {"/1": b"bytes", "/2": b"bytes", "/3": b"a file"}
        assert_recovered(client, peer, connections=2, replays=3)


def test_a_farewell_with_an_error_to_the_first_request_of_a_connection_is_not_asked_for_again() -> None:
    """FLT-S3: it would be the same on any connection."""
    with scene() as (client, peer):
        (future,) = sent_all(client, peer, "/1")
        conn = peer.connections[0]
        conn.do(conn.send_goaway, 0, ErrorCodes.ENHANCE_YOUR_CALM, b"too many of you")

        error = error_of(future, RemoteProtocolError, "no", may_retry=True)
        assert error.facts["error_code"] == "ENHANCE_YOUR_CALM"
        assert len(peer.connections) == 1
        assert_recovered(client, peer, connections=2)


def test_a_farewell_with_an_error_to_later_requests_is_no_reason_to_fail_them() -> None:
    """FLT-S3: the connection has carried some, so that it is not they who are at fault."""
    with scene(attends) as (client, peer):
        assert client.get("/next").content == NEXT
        (future,) = sent_all(client, peer, ("POST", "/next"))[:1]
        assert future.result(PATIENCE).content == NEXT
        (future,) = sent_all(client, peer, ("POST", "/2"))
        conn = peer.connections[0]
        conn.do(conn.send_goaway, 3, ErrorCodes.INTERNAL_ERROR)
        peer.wait_until(lambda _: len(of(peer, "/2")) == 2)
        peer.connections[1].do(peer.connections[1].respond, 1)

        assert_answered([future])
        assert_recovered(client, peer, connections=2, replays=1)


def _refuses(conn: H2Conn) -> None:
    conn.handshake()
    while True:
        conn.send_rst(conn.read_head().stream_id, ErrorCodes.REFUSED_STREAM)


def _says_farewell(conn: H2Conn) -> None:
    conn.handshake()
    conn.read_head()
    conn.send_goaway(0)
    conn.drain()


@pytest.mark.parametrize(("behaviour", "connections"), [(_says_farewell, 4), (_refuses, 2)])
def test_a_request_that_is_refused_wherever_it_comes_fails_at_the_fourth_time(
    behaviour: Callable[[H2Conn], None], connections: int
) -> None:
    """FLT-S4, FLT-S7: by GOAWAY each connection once, by REFUSED_STREAM each connection twice."""
    with scene(*[behaviour] * connections, attends) as (client, peer):
        future = client.send_async("POST", "/never")

        error_of(future, RemoteProtocolError, "no", may_retry=True, attempts=4)
        assert len(of(peer, "/never")) == 4
        assert len(peer.connections) == connections
        assert_recovered(client, peer, connections=connections + 1, replays=3)


@pytest.mark.parametrize("ends", ["goaway", "fin"])
def test_a_server_that_ends_each_connection_before_it_carries_anything_is_not_dialed_without_pause(ends: str) -> None:
    """FLT-S4, FLT-N19, I22: it allows no streams; such a connection counts as an attempt that failed."""
    stage, peer = StreamStage.proven(limit=1)
    peer.send_settings(max_concurrent_streams=0)
    stage.settle()
    peer.send_goaway(1)
    stage.settle()
    call = stage.asked(method="POST", timeout=10.0)
    for _ in range(1000):
        if call.future.done():
            break
        if not stage.dialer.pending:
            stage.advance(0.1)
            continue
        new = stage.serve(max_concurrent_streams=0)
        new.send_goaway(0) if ends == "goaway" else new.channel.feed(b"")
        stage.settle()

    assert call.error is not None
    assert len(stage.channels) <= 8
    stage.close()


def test_a_server_that_never_answered_and_takes_no_requests_fails_those_who_wait() -> None:
    """FLT-S4, FLT-N10: as a dial that failed; the request had been sent to the first connection, in vain."""

    def takes_none(conn: H2Conn) -> None:
        conn.handshake({"max_concurrent_streams": 0})
        conn.send_goaway(0)
        conn.drain()

    with scene(takes_none, http2=Http2Options(max_connections_per_server=1)) as (client, peer):
        future = client.send_async("POST", "/x")

        assert isinstance(future.exception(PATIENCE), ConnectError)
        assert len(peer.connections) == 2
        eventually(lambda: not any(figures(client)))
