"""FLT-S5, S6, S26: connections that end, idle or in the middle of everything, or take no more requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from h2.errors import ErrorCodes

from tests.faults.stream_stage import StreamStage
from tests.faults.streams import (
    FOREVER,
    NEXT,
    PATIENCE,
    SCHEMES,
    answers,
    assert_answered,
    assert_recovered,
    attends,
    error_of,
    of,
    pool_of,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2send import LAST_ID
from tests.waiting import eventually
from turbopool import Http2Options, ReadError, RemoteProtocolError

LAST_OF_OURS = 2**31 - 1

ALL = LAST_ID

# -- idle ------------------------------------------------------------------------------------------------

ENDS: dict[str, Callable[[H2Conn], object]] = {
    "goaway": lambda conn: conn.send_goaway(ALL),
    "goaway-error": lambda conn: conn.send_goaway(1, ErrorCodes.INTERNAL_ERROR),
    "fin": lambda conn: conn.close(),
    "rst": lambda conn: conn.raw.reset(),
    "cut": lambda conn: conn.raw.cut(),
}


@SCHEMES
@pytest.mark.parametrize("end", ENDS)
def test_a_connection_that_ends_while_idle_is_seen_to_and_gone_before_the_next_request(
    end: str, scheme: str, authority: Authority
) -> None:
    """FLT-S5: without a request that would meet it; the next POST goes over a new one."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        assert client.get("/next").content == NEXT
        conn = peer.connections[0]
        conn.do(lambda: ENDS[end](conn))

        eventually(lambda: (client.stats().idle, client.stats().closed) == (0, 1), PATIENCE)
        assert_recovered(client, peer, connections=2)


# -- lost ------------------------------------------------------------------------------------------------

LOSSES: dict[str, Callable[[H2Conn], object]] = {
    "fin": lambda conn: conn.raw.shutdown_write(),
    "rst": lambda conn: conn.raw.reset(),
    "truncated": lambda conn: conn.raw.cut(),
}


@pytest.mark.parametrize(
    ("loss", "scheme"), [("fin", "http"), ("rst", "http"), ("fin", "https"), ("truncated", "https")]
)
def test_streams_of_a_connection_that_is_lost_are_judged_one_by_one(
    loss: str, scheme: str, authority: Authority
) -> None:
    """FLT-S6, BEH-R8: GETs are sent again, on a new connection; POSTs and what was answered in part fail."""
    with scene(attends, answers, authority=authority, scheme=scheme) as (client, peer):
        assert client.get("/next").content == NEXT
        partly, get, post, put = sent_all(client, peer, "/partly", "/get", ("POST", "/post"), ("PUT", "/put"))
        conn = peer.connections[0]
        conn.do(conn.respond, 3, body=b"a part", end=False)
        conn.do(conn.sync)
        conn.do(lambda: LOSSES[loss](conn))

        kind = ReadError if loss == "rst" else RemoteProtocolError
        assert_answered([get, put], NEXT)
        error_of(post, kind, "maybe", may_retry=False)
        error_of(partly, kind, "yes", may_retry=True, phase="recv")
        assert [len(of(peer, path)) for path in ("/partly", "/get", "/post", "/put")] == [1, 2, 1, 2]
        assert_recovered(client, peer, connections=2, replays=2)


def test_streams_of_a_lost_connection_whose_server_never_answered_all_fail() -> None:
    """FLT-S6, FLT-N10: it may dislike what it is asked; a second connection would be lost the same way."""
    with scene() as (client, peer):
        get, post = sent_all(client, peer, "/get", ("POST", "/post"))
        conn = peer.connections[0]
        conn.do(conn.sync)  # the client has nothing left to write, which would meet the reset first
        conn.do(conn.raw.reset)

        error_of(get, ReadError, "maybe", may_retry=True)
        error_of(post, ReadError, "maybe", may_retry=False)
        assert_recovered(client, peer, connections=2)


def test_streams_that_a_farewell_admitted_and_the_connection_then_dropped_are_judged_one_by_one() -> None:
    """FLT-S1, FLT-S6: a farewell that admits a request is no proof of anything about it."""
    with scene(attends, answers) as (client, peer):
        assert client.get("/next").content == NEXT
        get, post, refused = sent_all(client, peer, "/get", ("POST", "/post"), ("POST", "/refused"))
        conn = peer.connections[0]
        conn.do(conn.send_goaway, 5)
        assert_answered([refused], NEXT)
        conn.do(conn.raw.shutdown_write)

        assert_answered([get], NEXT)
        error_of(post, RemoteProtocolError, "maybe", may_retry=False)
        assert [request.connection for request in of(peer, "/get")] == [0, 2]  # one that has carried nothing
        assert_recovered(client, peer, connections=3, replays=2)


@pytest.mark.parametrize("bound", [{"http2": Http2Options(max_connections_per_server=1)}, {"max_conns_per_host": 1}])
def test_a_request_that_is_to_be_sent_again_does_not_wait_for_what_the_limit_forbids(bound: dict[str, Any]) -> None:
    """FLT-S6, I13: one that was lost wants a fresh connection; where only one is allowed, it takes what there is."""
    with scene(attends, answers, **bound) as (client, peer):
        assert client.get("/next").content == NEXT
        get, refused = sent_all(client, peer, "/get", ("POST", "/refused"))
        conn = peer.connections[0]
        conn.do(conn.send_goaway, 3)
        conn.do(conn.sync)
        conn.do(conn.raw.reset)

        assert_answered([get, refused], NEXT)
        assert_recovered(client, peer, connections=2, replays=2)


@SCHEMES
def test_a_server_that_speaks_first_is_reconnected_to_at_once(scheme: str, authority: Authority) -> None:
    """FLT-S6, FLT-N9: its SETTINGS come before we have said anything, and show that it lives; nobody backs off."""
    with scene(attends, answers, authority=authority, scheme=scheme) as (client, peer):
        assert client.get("/next").content == NEXT
        (future,) = sent_all(client, peer, "/get")
        conn = peer.connections[0]
        conn.do(conn.raw.reset)

        assert_answered([future], NEXT)
        assert pool_of(client).reconnects == 1
        assert_recovered(client, peer, connections=2, replays=1)


# -- connections that take no more -----------------------------------------------------------------------


def test_a_connection_whose_ids_are_used_up_makes_way_for_a_new_one() -> None:
    """FLT-S26, BEH-M12: what runs on it goes on."""
    stage = StreamStage()
    first = stage.asked()
    old = stage.serve()
    stage.connection().codec.next_id = LAST_OF_OURS
    last = stage.asked()
    assert stage.dialer.pending == []
    following = stage.asked()
    new = stage.serve()

    new.respond(1, b"new")
    old.respond(1, b"first")
    old.respond(LAST_OF_OURS, b"last")
    stage.settle()

    assert [call.response.content for call in (first, last, following)] == [b"first", b"last", b"new"]
    assert (old.channel.closed, new.channel.closed) == (True, False)
    stage.close()


@SCHEMES
def test_a_misdirected_request_is_sent_once_more_over_a_connection_of_its_own(
    scheme: str, authority: Authority
) -> None:
    """FLT-S26: 421 (RFC 9110 section 15.5.20); any method; the first connection takes nothing more of this host."""
    with scene(attends, answers, authority=authority, scheme=scheme) as (client, peer):
        sibling, future = sent_all(client, peer, "/sibling", ("POST", "/elsewhere"), content=b"body")
        conn = peer.connections[0]
        conn.do(conn.respond, 3, 421, body=b"not here")

        assert_answered([future], NEXT)
        assert of(peer, "/elsewhere")[1].body == b"body"
        conn.do(conn.respond, 1)
        assert_answered([sibling])
        assert_recovered(client, peer, connections=2, replays=1)


def test_a_second_misdirection_is_the_answer_as_it_is_for_a_body_that_is_gone() -> None:
    """FLT-S26: 421 is replayed once, and only with what can be sent again."""

    def misdirects(conn: H2Conn) -> None:
        conn.handshake()
        while True:
            conn.respond(conn.read_request(FOREVER).stream_id, 421, body=b"not here")

    with scene(misdirects, misdirects, attends) as (client, peer):
        assert client.get("/421").status_code == 421
        assert len(peer.connections) == 2
        response = client.post("/421", content=iter([b"once"]))
        assert (response.status_code, response.content) == (421, b"not here")
        assert len(of(peer, "/421")) == 3
