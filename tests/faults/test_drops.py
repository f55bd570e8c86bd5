"""FLT-N9, N10: a connection that dies with a request on it, before a byte of the response came."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
from tenacity import wait_fixed, wait_none

from tests.faults.aftermath import NEXT, assert_recovered, says
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer
from tests.servers.wire import respond
from tests.waiting import reached, with_short_times
from turbopool import (
    Client,
    PoolTimeout,
    ReadError,
    ReconnectOptions,
    RemoteProtocolError,
    Timeout,
    TurboPoolError,
    WriteError,
)
from turbopool.bodies import ContentTypes

SOON = ReconnectOptions(wait=wait_fixed(0.05))
AT_ONCE = ReconnectOptions(wait=wait_none())

END: dict[str, Callable[[Conn], None]] = {"fin": Conn.close, "rst": Conn.reset, "cut": Conn.cut}
BODY = b"0123456789" * 50
BIG = bytes(range(256)) * 16_384


class Kind(NamedTuple):
    """A kind of request."""

    method: str
    make: Callable[[], ContentTypes | None] = lambda: None
    headers: Mapping[str, str] = MappingProxyType({})


KEY = {"Idempotency-Key": "7"}
REPLAYED = {
    **{method: Kind(method) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "DELETE")},
    "GET with a body": Kind("GET", lambda: BODY),
    "PUT": Kind("PUT", lambda: BODY),
    "PUT a file": Kind("PUT", lambda: io.BytesIO(BODY)),
    "POST with a key": Kind("POST", lambda: BODY, KEY),
}
LOST = {
    "POST": Kind("POST", lambda: BODY),
    "POST nothing": Kind("POST"),
    "PATCH": Kind("PATCH", lambda: BODY),
    "PUT pieces": Kind("PUT", lambda: iter([BODY[:7], BODY[7:]])),
    "POST pieces with a key": Kind("POST", lambda: iter([BODY]), KEY),
}


def answers(conn: Conn) -> None:
    """Answer one request."""
    request = conn.read_request()
    conn.send(respond(b"" if request.method == "HEAD" else NEXT))


def serves(conn: Conn) -> None:
    """Answer all requests."""
    while True:
        answers(conn)


def dies(end: Callable[[Conn], object], *, after: int) -> Handler:
    """A handler that answers so many requests, reads one more and ends the connection."""

    def handler(conn: Conn) -> None:
        for _ in range(after):
            answers(conn)
        conn.read_request()
        end(conn)

    return handler


def send(client: Client, kind: Kind) -> bytes:
    """Send a request of this kind to /x, and return what was answered."""
    return client.request(kind.method, "/x", headers=kind.headers, content=kind.make()).content


def seen(server: RawServer, target: str = "/x") -> list[int]:
    """Return the connections over which the server saw requests to a target."""
    return [request.connection for request in server.requests if request.target == target]


def assert_lost(error: TurboPoolError, server: RawServer, *, attempts: int = 1) -> None:
    """The error says that the request was sent so often, and that nobody knows what became of it."""
    assert type(error) in (RemoteProtocolError, ReadError, WriteError)
    assert (error.origin, error.processed, error.request_sent) == (server.url, "maybe", True)
    assert error.attempts == attempts


# -- N9: on a connection that had answered before --------------------------------------------------------------


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("kind", REPLAYED)
def test_a_request_that_may_be_repeated_is_sent_once_more_on_a_fresh_connection(kind: str, end: str) -> None:
    """FLT-N9, BEH-R10: with the same body, and not over another connection that stands idle."""
    doomed = dies(END[end], after=1)
    with RawServer([doomed, doomed, serves]) as server, Client(base_url=server.url) as client:
        client.warm_up(server.url, connections=2)
        server.wait_for_connections(2)
        client.get("/first")

        send(client, REPLAYED[kind])

        assert seen(server) == [*seen(server, "/first"), 2]
        assert len({request.body for request in server.requests if request.target == "/x"}) == 1
        assert client.stats().replays == 1
        assert_recovered(client, server, connections=3, replays=1)


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("kind", LOST)
def test_a_request_that_may_not_be_repeated_is_an_error_and_seen_once(kind: str, end: str) -> None:
    """FLT-N9, BEH-R10: nobody can know whether it was carried out."""
    with RawServer([dies(END[end], after=1), serves]) as server, Client(base_url=server.url) as client:
        client.get("/first")
        with pytest.raises(TurboPoolError) as caught:
            send(client, LOST[kind])

        assert_lost(caught.value, server)
        assert not caught.value.may_retry  # of pieces nothing is left to send: whoever made them must make others
        assert seen(server) == [0]
        assert client.stats().replays == 0
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("end", END)
def test_the_same_over_tls(authority: Authority, end: str) -> None:
    """FLT-N9: with close_notify, without, and by a reset."""
    handlers = [dies(END[end], after=1), dies(END[end], after=0), serves]
    with (
        RawServer(handlers, ssl_context=authority.server_context()) as server,
        Client(base_url=server.url, verify=authority.ca_file, reconnect=SOON) as client,
    ):
        client.get("/first")
        with pytest.raises(TurboPoolError) as caught:
            client.post("/x", content=BODY)
        assert_lost(caught.value, server)
        with pytest.raises(TurboPoolError) as caught:
            client.post("/x", content=BODY)
        assert_lost(caught.value, server)

        assert client.get("/y").content == NEXT

        assert (seen(server), seen(server, "/y")) == ([0, 1], [2])
        assert_recovered(client, server, connections=3)


@pytest.mark.parametrize("end", END)
def test_an_upload_that_breaks_off_is_sent_again_from_its_beginning(end: str) -> None:
    """FLT-N9: nothing but the head was read."""

    def breaks(conn: Conn) -> None:
        answers(conn)
        conn.read_head()
        END[end](conn)

    with RawServer([breaks, serves]) as server, Client(base_url=server.url) as client:
        client.get("/first")
        assert client.put("/x", content=BIG).content == NEXT
        assert [len(request.body) for request in server.requests if request.target == "/x"] == [0, len(BIG)]
        assert server.requests[-1].body == BIG
        assert_recovered(client, server, connections=2, replays=1)


def test_a_stream_is_opened_again_as_well() -> None:
    """FLT-N9: nobody has seen anything of the first attempt."""
    with RawServer([dies(Conn.close, after=1), serves]) as server, Client(base_url=server.url) as client:
        client.get("/first")
        with client.stream("GET", "/x") as response:
            assert response.read() == NEXT
        assert seen(server) == [0, 1]
        assert_recovered(client, server, connections=2, replays=1)


@pytest.mark.parametrize("end", END)
def test_a_second_drop_is_the_end(end: str) -> None:
    """FLT-N9: a request is sent twice at most, and the error says so."""
    handlers = [dies(END[end], after=1), dies(END[end], after=0), serves]
    with RawServer(handlers) as server, Client(base_url=server.url, reconnect=SOON) as client:
        client.get("/first")
        with pytest.raises(TurboPoolError) as caught:
            client.get("/x")

        assert_lost(caught.value, server, attempts=2)
        assert caught.value.may_retry
        assert seen(server) == [0, 1]
        assert_recovered(client, server, connections=3, replays=1)


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n", respond(NEXT)[:-1]])
@pytest.mark.parametrize("end", END)
def test_after_a_byte_of_the_response_nothing_is_sent_again(said: bytes, end: str) -> None:
    """FLT-N9, I9: an interim response counts."""

    def handler(conn: Conn) -> None:
        answers(conn)
        says(said, END[end])(conn)

    with RawServer([handler, serves]) as server, Client(base_url=server.url) as client:
        client.get("/first")
        with pytest.raises(TurboPoolError) as caught:
            client.get("/x")

        assert caught.value.processed == ("yes" if b"200" in said else "maybe")
        assert seen(server) == [0]
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("bound", ["total", "read"])
@with_short_times
def test_our_own_timeout_is_never_a_reason_to_send_again(bound: str, short: float) -> None:
    """FLT-N9: the server may be at work."""
    with RawServer([dies(Conn.hold, after=1), serves]) as server, Client(base_url=server.url) as client:
        client.get("/first")
        with pytest.raises(TimeoutError) as caught:
            client.get("/x", timeout=Timeout(**{"total": 60, bound: short}))

        reached(len(server.requests) == 2)
        assert isinstance(caught.value, TurboPoolError)
        assert (caught.value.processed, caught.value.attempts) == ("maybe", 1)
        assert seen(server) == [0]
        assert_recovered(client, server, connections=2)


@with_short_times
def test_the_wait_for_a_fresh_connection_begins_anew(short: float) -> None:
    """FLT-N9: the queue timeout was over long before the request came back to the queue."""

    def dies_late(conn: Conn) -> None:
        answers(conn)
        conn.read_request()
        assert not server.closing.wait(4 * short)

    with RawServer([dies_late, serves]) as server, Client(base_url=server.url) as client:
        client.get("/first")
        began = time.monotonic()
        try:
            assert client.get("/x", timeout=Timeout(90, queue=3 * short)).content == NEXT
        except PoolTimeout:
            reached(time.monotonic() - began < (4 + 3) * short)  # else even a wait that began anew may have ended
            raise
        assert_recovered(client, server, connections=2, replays=1)


def test_recovery_is_no_storm() -> None:
    """FLT-N9: replays stay within a fifth of the requests and ten a second."""
    with RawServer(dies(Conn.close, after=1)) as server, Client(base_url=server.url, reconnect=AT_ONCE) as client:
        began, lost = time.monotonic(), 0
        for _ in range(200):
            try:
                client.get("/x")
            except TurboPoolError as error:
                assert_lost(error, server, attempts=error.attempts)
                lost += 1
        replays = client.stats().replays

        assert 0 < replays <= 10 + 10 * (time.monotonic() - began) + 0.2 * client.stats().requests
        assert lost > 0
        assert len(server.requests) == 200 + replays


# -- N10: on a fresh connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("kind", ["GET", "PUT", "POST with a key"])
def test_a_server_that_never_answered_is_not_asked_twice(kind: str, end: str) -> None:
    """FLT-N10: it does not want us; one connect, one error."""
    with RawServer([dies(END[end], after=0), serves]) as server, Client(base_url=server.url) as client:
        with pytest.raises(TurboPoolError) as caught:
            send(client, REPLAYED[kind])

        assert_lost(caught.value, server)
        assert seen(server) == [0]
        assert len(server.connections) == 1
        assert client.stats().replays == 0
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("kind", ["GET", "PUT", "POST with a key"])
def test_a_server_that_has_answered_is_asked_once_more(kind: str, end: str) -> None:
    """FLT-N10, N9: a fresh connection of a key that is known to work."""
    closes = says(respond(NEXT, headers=[("Connection", "close")]), Conn.close)
    with RawServer([closes, dies(END[end], after=0), serves]) as server, Client(base_url=server.url) as client:
        client.get("/first")
        assert send(client, REPLAYED[kind]) == NEXT

        assert seen(server) == [1, 2]
        assert_recovered(client, server, connections=3, replays=1)
