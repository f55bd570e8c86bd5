"""What callers are told, and what is left, when a request that their own thread drives does not end well.

The dispatcher's thread goes on where a caller stops, so each error says what it says of a request that the dispatcher
received from the beginning: all are made here, and compared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from tenacity import wait_none

from tests.faults.aftermath import NEXT, POISON, assert_recovered, healthy, says
from tests.faults.driven import WAYS, Way, failure, idle, told
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import Handler
from tests.servers.wire import respond
from tests.waiting import PATIENCE, SPENT, eventually, not_too_soon, reached, with_short_times
from turbopool import ReadTimeout, ReconnectOptions, Timeout, TurboPoolError

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 10\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FIN, CUT, RST, STAYS = Conn.close, Conn.cut, Conn.reset, Conn.hold
LOST, WAIT, RECV = "maybe", "wait", "recv"


def every_way(handler: Handler, knobs: dict[str, Any], method: str, **parts: Any) -> TurboPoolError:  # noqa: ANN401
    """Have a request fail every way, with the same story and the same aftermath, and return the error of `send`."""
    errors = []
    for way in WAYS:
        with idle(handler, **knobs) as (server, client):
            error = failure(way, client, method, "/x", **parts)
            assert error.origin == server.url
            assert client.stats().idle == 0
            assert_recovered(client, server, connections=2)
            assert [one.connection for one in server.requests if one.target == "/x"] == [0]
            (pool,) = client.stats().pools.values()
            assert (pool.failed, pool.completed, pool.cancelled) == (1, 2, 0)
        errors.append(error)
    assert told(errors[0]) == told(errors[1]) == told(errors[2])
    return errors[0]


# -- the server ends it ------------------------------------------------------------------------------------

ENDS: dict[str, tuple[bytes, Handler, str, str, str]] = {
    "no response, FIN": (b"", FIN, "RemoteProtocolError", WAIT, LOST),
    "no response, cut": (b"", CUT, "RemoteProtocolError", WAIT, LOST),
    "no response, RST": (b"", RST, "ReadError", WAIT, LOST),
    "half a head, FIN": (OK + b"Content-Le", FIN, "RemoteProtocolError", RECV, LOST),
    "half a head, RST": (OK + b"Content-Le", RST, "ReadError", RECV, LOST),
    "a hint, FIN": (b"HTTP/1.1 103 Early Hints\r\n\r\n", FIN, "RemoteProtocolError", RECV, LOST),
    "no body, FIN": (SIZED, FIN, "IncompleteRead", RECV, "yes"),
    "half a body, FIN": (SIZED + b"12345", FIN, "IncompleteRead", RECV, "yes"),
    "half a body, RST": (SIZED + b"12345", RST, "ReadError", RECV, "yes"),
    "half a large body, FIN": (OK + b"Content-Length: 9000000\r\n\r\n" + bytes(500_000), FIN, "IncompleteRead", RECV,
                               "yes"),
    "half a chunk, FIN": (CHUNKED + b"5\r\nhel", FIN, "IncompleteRead", RECV, "yes"),
    "no last chunk, FIN": (CHUNKED + b"5\r\nhello\r\n", FIN, "IncompleteRead", RECV, "yes"),
    "half the trailers, FIN": (CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n", FIN, "IncompleteRead", RECV, "yes"),
    "garbage": (b"garbage\r\n\r\n", STAYS, "RemoteProtocolError", RECV, LOST),
    "a chunk of no size": (CHUNKED + b"x\r\n", STAYS, "RemoteProtocolError", RECV, "yes"),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", STAYS, "RemoteProtocolError", RECV, LOST),
    "an upgrade": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", STAYS, "RemoteProtocolError", RECV, LOST),
    "hints without end": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5_000, STAYS, "LimitExceeded", RECV, LOST),
    "too many fields": (OK + b"X: y\r\n" * 60_000, STAYS, "LimitExceeded", RECV, LOST),
    "too large a field": (OK + b"X: " + b"y" * 900_000, STAYS, "LimitExceeded", RECV, LOST),
}  # fmt: skip
"""By name: what is said, how it ends, the error's class, its phase, and whether the request was processed."""


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_a_response_is_told_as_of_any_other_request(end: str) -> None:
    """BEH-H7, R10, FLT-N7, N9, H1, H2, H8, H9, H10, H13, H16: a POST, which is seen once."""
    said, then, kind, phase, processed = ENDS[end]
    error = every_way(says(said, then), {}, "POST", content=b"x")

    assert (type(error).__name__, error.phase, error.processed) == (kind, phase, processed)
    assert (error.request_sent, error.attempts) == (True, 1)


@pytest.mark.parametrize("end", ["no response, FIN", "half a head, RST", "half a body, FIN", "half a chunk, FIN"])
def test_the_same_over_tls(end: str, authority: Authority) -> None:
    """BEH-H7, FLT-N7, N9, T5."""
    said, then, _, _, processed = ENDS[end]
    error = every_way(says(said, then), {"authority": authority}, "POST", content=b"x")

    assert (error.processed, error.request_sent, error.attempts) == (processed, True, 1)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("way", WAYS)
def test_a_response_that_a_reset_follows_at_once_is_received(
    way: Way,
    tls: bool,  # noqa: FBT001
    authority: Authority,
) -> None:
    """FLT-N7, N9: it came, and a POST that is told to be lost would be sent again by somebody."""
    with idle(says(respond(b"hello"), RST), authority=authority if tls else None) as (server, client):
        assert way(client, "POST", "/x", content=b"x").content == b"hello"
        eventually(lambda: client.stats().closed == 1)
        assert_recovered(client, server, connections=2)


def test_a_body_without_an_end_is_complete_over_tls_only_if_the_server_says_so(authority: Authority) -> None:
    """FLT-H3, T5: cut off without close_notify it may be the half of it."""
    error = every_way(says(OK + b"\r\nhello", CUT), {"authority": authority}, "GET")

    assert (type(error).__name__, error.processed) == ("IncompleteRead", "yes")


def test_a_body_that_is_larger_than_allowed_ends_its_connection() -> None:
    """FLT-H22."""
    error = every_way(says(respond(bytes(2_000))), {"max_buffered_body": 1_000}, "GET")

    assert type(error).__name__ == "LimitExceeded"


@pytest.mark.parametrize("end", [FIN, CUT, RST])
@pytest.mark.parametrize("way", WAYS)
def test_what_may_be_repeated_is_sent_once_more_over_a_fresh_connection(
    way: Way, end: Callable[[Conn], None], authority: Authority
) -> None:
    """BEH-R10, FLT-N9: if no byte of the response came; and if that dies as well, it is an error."""

    def dies(conn: Conn) -> None:
        conn.read_request()
        end(conn)

    for knobs in ({}, {"authority": authority}):
        with idle(dies, **knobs) as (server, client):
            assert way(client, "PUT", "/x", content=b"the same").content == NEXT
            assert [(one.connection, one.body) for one in server.requests[1:]] == [(0, b"the same"), (1, b"the same")]
            assert_recovered(client, server, connections=2, replays=1)
    with idle(dies, dies, reconnect=ReconnectOptions(wait=wait_none())) as (server, client):
        error = failure(way, client, "GET")
        assert (error.processed, error.request_sent, error.attempts) == ("maybe", True, 2)
        assert_recovered(client, server, connections=3, replays=1)


# -- the time is up ----------------------------------------------------------------------------------------

STALLS = {
    "silent": (b"", WAIT, LOST),
    "half a head": (OK + b"Content-Le", RECV, LOST),
    "a hint": (b"HTTP/1.1 103 Early Hints\r\n\r\n", RECV, LOST),
    "half a body": (SIZED + b"12345", RECV, "yes"),
    "half a chunk": (CHUNKED + b"5\r\nhel", RECV, "yes"),
}
"""By name: what is said before the silence, the error's phase, and whether the request was processed."""


@pytest.mark.parametrize(
    ("stall", "bound", "tls"),
    [
        *((stall, "total", False) for stall in STALLS),
        ("silent", "read", False),
        ("half a body", "read", False),
        ("silent", "total", True),
        ("half a body", "read", True),
    ],
)
@with_short_times
def test_a_response_that_stops_is_given_up_in_time(
    stall: str,
    bound: str,
    tls: bool,  # noqa: FBT001
    authority: Authority,
    short: float,
) -> None:
    """BEH-H8, C3, FLT-N13, N14: what comes late reaches nobody, and the next request has another connection."""
    said, phase, processed = STALLS[stall]
    stopped: list[float] = []

    def stops(conn: Conn) -> None:
        conn.read_request()
        conn.send(said)
        stopped.append(time.monotonic())
        conn.hold()

    limits = Timeout(**{"total": 60, bound: short})
    began = time.monotonic()
    error = every_way(stops, {"authority": authority} if tls else {}, "POST", content=b"x", timeout=limits)
    took = time.monotonic() - began
    reached(len(stopped) == len(WAYS))
    assert type(error).__name__ == ("DeadlineExceeded" if bound == "total" else "ReadTimeout")
    assert (error.phase, error.processed, error.request_sent) == (phase, processed, True)
    assert len(WAYS) * short <= took < len(WAYS) * (short + SPENT)


@pytest.mark.parametrize("way", WAYS)
@with_short_times
def test_a_response_in_drops_is_bounded_by_the_total_and_not_by_the_read_timeout(way: Way, short: float) -> None:
    """FLT-N13: each piece comes in time, and they never end."""

    def drips(conn: Conn) -> None:
        conn.read_request()
        conn.send(OK + b"Content-Length: 1000000\r\n\r\n")
        while not conn.wait_closed(short / 5):
            conn.send(b"x")

    with idle(drips) as (server, client):
        began = time.monotonic()
        with not_too_soon(ReadTimeout):
            error = failure(way, client, "GET", timeout=Timeout(4 * short, read=short))
            if isinstance(error, ReadTimeout):
                raise error
        assert 4 * short <= time.monotonic() - began < 4 * short + SPENT
        assert (type(error).__name__, error.processed) == ("DeadlineExceeded", "yes")
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@with_short_times
def test_each_request_of_a_connection_has_the_time_it_asked_for(
    tls: bool,  # noqa: FBT001
    authority: Authority,
    short: float,
) -> None:
    """BEH-H8: none of its own is left of the one before, whichever way that was sent; at last it is up."""

    def late(conn: Conn) -> None:
        while True:
            target = conn.read_request().target
            if target == "/silent":
                conn.hold()
                return
            server.closing.wait(1.5 * short if target == "/late" else 0)
            conn.send(respond(NEXT))

    with idle(late, **({"authority": authority} if tls else {})) as (server, client):
        for way in WAYS:
            for timeout in (None, Timeout(60, read=30)):
                for brief in (short, Timeout(60, read=short)):
                    with not_too_soon(TurboPoolError):
                        assert way(client, "GET", "/soon", timeout=brief).content == NEXT
                assert way(client, "GET", "/late", timeout=timeout).content == NEXT
        began = time.monotonic()
        error = failure(WAYS[0], client, "GET", "/silent", timeout=short)
        assert type(error).__name__ == "DeadlineExceeded"
        assert short <= time.monotonic() - began < short + SPENT
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("way", WAYS)
def test_a_read_timeout_ends_with_its_request(way: Way) -> None:
    """BEH-H8: whoever sends over the connection when it would be up, and has none, is not given up for it."""

    def slow(conn: Conn) -> None:
        while True:
            request = conn.read_head()
            server.closing.wait(0.1 if request.method == "PUT" else 0)
            conn.read_body(request)
            conn.send(respond(NEXT))

    with idle(slow) as (server, client):
        assert way(client, "GET", "/x", timeout=Timeout(60, read=0.2)).content == NEXT
        server.closing.wait(0.25)
        assert client.put("/x", content=bytes(16 << 20)).content == NEXT
        assert_recovered(client, server, connections=1)


@pytest.mark.parametrize("way", WAYS)
@with_short_times
def test_a_server_that_does_not_read_is_given_up_in_time(way: Way, short: float) -> None:
    """FLT-N15: the write timeout, of a request that the kernel did not take at once."""
    go_on = threading.Event()

    def deaf(conn: Conn) -> None:
        conn.read_head()
        assert go_on.wait(PATIENCE)

    with idle(deaf) as (server, client):
        error = failure(way, client, "PUT", content=bytes(16 << 20), timeout=Timeout(60, write=short))
        go_on.set()
        assert (type(error).__name__, error.phase, error.processed) == ("WriteTimeout", "send", "maybe")
        assert_recovered(client, server, connections=2)


def test_late_bytes_of_a_request_that_was_given_up_reach_nobody() -> None:
    """BEH-H9, FLT-N14: sent the moment the time was up, again and again."""

    def late(conn: Conn) -> None:
        conn.read_request()
        server.closing.wait(0.02)
        conn.send(POISON)
        healthy(conn)

    with idle(late) as (server, client):
        for _ in range(30):
            try:
                content = client.get("/x", timeout=0.02).content
            except TurboPoolError:
                content = client.get("/y", timeout=PATIENCE).content
            assert content in (b"POISON", NEXT)
            assert client.post("/z").content == NEXT
