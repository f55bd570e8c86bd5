"""FLT-S7 to S10: streams that are refused, reset or sent elsewhere, and the others, which do not notice."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    answers,
    assert_answered,
    assert_recovered,
    attends,
    error_of,
    figures,
    of,
    orders,
    resets,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2peer import http1
from tests.servers.raw import always
from tests.servers.wire import respond
from tests.waiting import eventually
from turbopool import Http2Options, RemoteProtocolError, UnsupportedVersion

CANCEL = ErrorCodes.CANCEL

# -- refused ---------------------------------------------------------------------------------------------


ONE = Http2Options(max_connections_per_server=1)


@SCHEMES
def test_a_refused_request_is_sent_again_on_the_same_connection(scheme: str, authority: Authority) -> None:
    """FLT-S7, BEH-M11: a POST with its body; the server has not looked at it."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        (future,) = sent_all(client, peer, ("POST", "/again"), content=b"body")
        conn = peer.connections[0]
        conn.do(conn.send_rst, 1, ErrorCodes.REFUSED_STREAM)
        peer.wait_for_requests(2)
        conn.do(conn.read_body, peer.requests[1])
        conn.do(conn.respond, 3)

        assert_answered([future])
        assert [bytes(request.body) for request in of(peer, "/again")] == [b"body", b"body"]
        assert_recovered(client, peer, connections=1, replays=1)


def test_a_refused_request_waits_for_others_to_end_and_a_second_refusal_retires_the_connection() -> None:
    """FLT-S7: the server takes fewer than it said; what it has of others goes on all the while."""
    with scene(attends, answers, http2=ONE) as (client, peer):
        first, second, future = sent_all(client, peer, "/first", "/second", ("POST", "/again"))
        conn = peer.connections[0]
        conn.do(conn.send_rst, 5, ErrorCodes.REFUSED_STREAM)
        eventually(lambda: figures(client) == (1, 2, 1))
        conn.do(conn.respond, 1)
        assert_answered([first])
        peer.wait_for_requests(4)
        conn.do(conn.send_rst, 7, ErrorCodes.REFUSED_STREAM)

        assert_answered([future], NEXT)
        assert client.get("/other").content == NEXT
        conn.do(conn.respond, 3)
        assert_answered([second])
        assert [request.connection for request in of(peer, "/again")] == [0, 0, 1]
        assert_recovered(client, peer, connections=2, replays=2)


def test_many_that_are_refused_at_once_are_one_refusal() -> None:
    """FLT-S7: streams that were opened before the first refusal came say nothing new; all are sent again."""
    with scene(http2=ONE) as (client, peer):
        futures = sent_all(client, peer, *[("POST", f"/{n}") for n in range(4)])
        conn = peer.connections[0]
        orders(conn, *[lambda n=n: conn.send_rst(n, ErrorCodes.REFUSED_STREAM) for n in (3, 5, 7)])
        eventually(lambda: figures(client) == (1, 1, 3))
        for number in (0, 4, 5, 6):
            peer.wait_for_requests(number + 1)
            conn.do(conn.respond, peer.requests[number].stream_id)

        assert_answered(futures)
        assert [request.path for request in peer.requests[4:]] == ["/1", "/2", "/3"]
        assert_recovered(client, peer, connections=1, replays=3)


# -- reset -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name"),
    [(ErrorCodes.CANCEL, "CANCEL"), (ErrorCodes.INTERNAL_ERROR, "INTERNAL_ERROR"), (ErrorCodes.NO_ERROR, "NO_ERROR"),
     (ErrorCodes.ENHANCE_YOUR_CALM, "ENHANCE_YOUR_CALM"), (0xBEEF, "48879")],
)  # fmt: skip
def test_a_stream_that_is_reset_fails_at_once_and_alone(code: int, name: str) -> None:
    """FLT-S8, BEH-M8, BEH-M11: whatever the code; what was in it is partly an answer or none at all."""
    with scene() as (client, peer):
        get, post, partly, sibling = sent_all(client, peer, "/get", ("POST", "/post"), "/partly", "/sibling")
        conn = peer.connections[0]
        orders(conn, lambda: conn.respond(5, body=b"part", end=False), *[lambda n=n: conn.send_rst(n, code)
               for n in (1, 3, 5)])  # fmt: skip

        error = error_of(get, RemoteProtocolError, "maybe", may_retry=True)
        error_of(post, RemoteProtocolError, "maybe", may_retry=False)
        error_of(partly, RemoteProtocolError, "yes", may_retry=True, phase="recv")
        assert error.facts["error_code"] == name
        conn.do(conn.respond, 7, body=b"whole")
        assert_answered([sibling], b"whole")
        assert_recovered(client, peer, connections=1)
        assert resets(conn) == []


def test_a_server_that_asks_for_calm_gets_fewer_requests_at_once() -> None:
    """FLT-S8: half of those it had."""
    with scene(max_conns_per_host=1) as (client, peer):
        hot, *rest = sent_all(client, peer, *[f"/{n}" for n in range(4)])
        conn = peer.connections[0]
        conn.do(conn.send_rst, 1, ErrorCodes.ENHANCE_YOUR_CALM)
        error_of(hot, RemoteProtocolError, "maybe", may_retry=True)
        orders(conn, *[lambda n=n: conn.respond(n) for n in (3, 5, 7)])
        assert_answered(rest)

        more = [client.send_async("GET", f"/more{n}") for n in range(4)]
        peer.wait_for_requests(6)
        eventually(lambda: figures(client) == (1, 2, 2))
        conn.do(conn.sync)
        assert len(peer.requests) == 6
        for at in (4, 5, 6, 7):
            peer.wait_for_requests(at + 1)
            conn.do(conn.respond, peer.requests[at].stream_id)
        assert_answered(more)
        assert_recovered(client, peer, connections=1)


def test_an_answer_that_is_whole_outlives_the_reset_after_it() -> None:
    """FLT-S9: RFC 9113 section 8.1: the server wants no more of the request, and that is no failure."""
    with scene() as (client, peer):
        future = client.send_async("POST", "/early", content=bytes(200_000))
        peer.wait_for_requests(1)
        conn = peer.connections[0]
        orders(conn, lambda: conn.respond(1, 413, body=b"too much"), lambda: conn.send_rst(1, ErrorCodes.NO_ERROR))

        response = future.result(PATIENCE)
        assert (response.status_code, response.content) == (413, b"too much")
        assert_recovered(client, peer, connections=1)


# -- over HTTP/1.1, please -------------------------------------------------------------------------------

OLD = respond(b"old")


def _lowers(conn: H2Conn, how: str) -> None:
    conn.handshake()
    stream_id = conn.read_request().stream_id
    if how == "reset":
        conn.send_rst(stream_id, ErrorCodes.HTTP_1_1_REQUIRED)
    else:
        conn.send_goaway(0, ErrorCodes.HTTP_1_1_REQUIRED)
    conn.drain()


@SCHEMES
@pytest.mark.parametrize("how", ["reset", "goaway"])
def test_a_request_that_wants_an_older_version_gets_it_and_that_is_remembered(
    how: str, scheme: str, authority: Authority
) -> None:
    """FLT-S10: a POST with its body; the next request goes over HTTP/1.1 at once, and over the same connection."""
    peers = [lambda conn: _lowers(conn, how), http1(always(OLD))]
    with scene(*peers, authority=authority, scheme=scheme) as (client, peer):
        response = client.post("/x", content=b"body")
        assert (response.http_version, response.content) == ("HTTP/1.1", b"old")
        assert [bytes(request.body) for request in peer.raw.requests] == [b"body"]

        assert client.get("/y").http_version == "HTTP/1.1"
        eventually(lambda: not any(figures(client)))
        assert len(peer.connections) == 2


def test_a_request_that_wants_an_older_version_and_may_not_have_it_fails() -> None:
    """FLT-S10: with the policy "exact"."""
    with scene(lambda conn: _lowers(conn, "reset"), version_policy="exact") as (client, _):
        future = client.send_async("GET", "/x")

        error = future.exception(PATIENCE)
        assert isinstance(error, UnsupportedVersion)
        assert error.processed == "no"
        eventually(lambda: not any(figures(client)))
