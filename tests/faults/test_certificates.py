"""FLT-T6: a server whose certificate changes between two connections of a client that knows it well."""

from __future__ import annotations

import ssl
import time
from typing import cast

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.faults.aftermath import NEXT, assert_balanced, assert_recovered, healthy
from tests.servers.certs import Authority, Kind
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer, always
from tests.servers.wire import respond
from tests.waiting import SPENT, eventually
from turbopool import Client, ReconnectOptions, RemoteProtocolError, TlsVerifyError

BAD: list[Kind] = ["expired", "not_yet_valid", "wrong_host", "unknown_ca", "self_signed"]
_SOON = ReconnectOptions(wait=wait_fixed(0.05), stop=stop_after_attempt(1000))
once: Handler = always(respond(NEXT, headers=[("Connection", "close")]))
"""Answers well, and has the next request come on a new connection."""


class Changing:
    """A server's TLS, whose certificate may be changed for connections to come."""

    def __init__(self, authority: Authority) -> None:
        """Begin with a good one."""
        self._authority = authority
        self.context = authority.server_context()

    def show(self, kind: Kind) -> None:
        """Show this certificate from now on."""
        self.context.load_cert_chain(self._authority.server_file(kind))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_known_server_with_a_bad_certificate_is_refused_at_once_and_taken_back_with_a_good_one(
    authority: Authority, method: str
) -> None:
    """FLT-T6: no patience and no memory, in either direction; nothing of a request is on the wire."""
    changing = Changing(authority)
    with (
        RawServer(once, ssl_context=changing.context) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        assert client.request(method, "/first", content=b"x").content == NEXT
        for kind in BAD:
            changing.show(kind)
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(TlsVerifyError, match="certificate") as caught:
                    client.request(method, "/x", content=b"secret")

                assert time.monotonic() - began < SPENT
                error = caught.value
                assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
                assert (error.phase, error.processed, error.may_retry, error.attempts) == ("tls", "no", False, 1)
                assert not error.request_sent
            changing.show("good")
            assert client.request(method, "/again", content=b"x").content == NEXT

        assert {request.target for request in server.requests} == {"/first", "/again"}
        refused = [conn for conn in server.connections if not conn.requests]
        assert [conn.received for conn in refused] == [0] * 2 * len(BAD)
        server.wait_until(lambda _: all(conn.handshake_error for conn in refused))
        (pool,) = client.stats().pools.values()
        assert (pool.failed, pool.completed, pool.opened) == (2 * len(BAD), 1 + len(BAD), 1 + len(BAD))


def test_everybody_who_waits_for_a_known_server_fails_with_its_bad_certificate(authority: Authority) -> None:
    """FLT-T6: whoever was on the connection that dropped, and the queue behind it; each with an instance of its own."""
    changing = Changing(authority)

    def drops(conn: Conn) -> None:
        assert conn.read_request().target == "/first"
        conn.send(respond(NEXT))
        conn.read_request()
        eventually(lambda: client.stats().waiting == 5)
        changing.show("expired")

    with (
        RawServer([drops, healthy], ssl_context=changing.context) as server,
        Client(base_url=server.url, verify=authority.ca_file, max_conns_per_host=1) as client,
    ):
        client.get("/first")
        futures = [client.send_async("GET", f"/{n}") for n in range(6)]
        errors = [cast("TlsVerifyError", future.exception(30)) for future in futures]

        assert {type(error) for error in errors} == {TlsVerifyError}
        assert len({id(error) for error in errors}) == 6
        assert [error.processed for error in errors] == ["maybe"] + ["no"] * 5
        assert [error.request_sent for error in errors] == [True] + [False] * 5
        assert not any(error.may_retry for error in errors)
        assert [request.target for request in server.requests] == ["/first", "/0"]
        assert sum(conn.received for conn in server.connections[1:]) == 0
        changing.show("good")
        assert client.get("/next").content == NEXT


def test_a_request_that_may_not_be_sent_twice_does_not_even_look_at_the_new_certificate(authority: Authority) -> None:
    """FLT-T6: it fails with the connection that it was on."""
    changing = Changing(authority)

    def drops(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(NEXT))
        conn.read_request()
        changing.show("expired")

    with (
        RawServer([drops, healthy], ssl_context=changing.context) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        client.get("/first")
        with pytest.raises(RemoteProtocolError) as caught:
            client.post("/x", content=b"x")

        assert caught.value.processed == "maybe"
        with pytest.raises(TlsVerifyError):
            client.get("/x")
        changing.show("good")
        eventually(lambda: client.stats().connecting == 0)
        assert client.get("/next").content == NEXT


def test_a_server_that_comes_back_with_a_bad_certificate_ends_the_patience_of_those_who_wait(
    authority: Authority,
) -> None:
    """FLT-T6: it was down, they waited; what answers now is not what they wait for."""
    with (
        RawServer(once, ssl_context=authority.server_context()) as gone,
        Client(base_url=gone.url, verify=authority.ca_file, reconnect=_SOON) as client,
    ):
        assert client.get("/first").content == NEXT
        gone.refuse()
        futures = [client.send_async("POST", f"/{n}", content=b"secret") for n in range(5)]
        eventually(lambda: next(iter(client.stats().pools.values())).reconnects >= 2)
        assert not any(future.done() for future in futures)

        bad = authority.server_context("unknown_ca")
        with RawServer(healthy, port=gone.port, ssl_context=bad) as server:
            errors = [future.exception(30) for future in futures]

            assert {type(error) for error in errors} == {TlsVerifyError}
            assert len({id(error) for error in errors}) == 5
            assert server.requests == []
            assert [conn.received for conn in server.connections] == [0] * len(server.connections)
        good = authority.server_context()
        with RawServer(healthy, port=gone.port, ssl_context=good) as server:
            assert client.get("/next").content == NEXT


def test_a_connection_outlives_the_certificate_it_was_made_with(authority: Authority) -> None:
    """FLT-T6: verification is for connects; what was verified is used on, and only what is new is looked at."""
    changing = Changing(authority)
    with (
        RawServer(healthy, ssl_context=changing.context) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        assert client.get("/x").content == NEXT
        changing.show("expired")
        for _ in range(3):
            assert client.post("/x").content == NEXT

        assert_recovered(client, server, connections=1)


class Counting(ssl.SSLContext):
    """A client's context that counts how often it begins a handshake, and whether it would resume an old session."""

    begun = 0
    resumed = 0

    def wrap_bio(self, *args: object, **kwargs: object) -> ssl.SSLObject:
        """Count it."""
        self.begun += 1
        made: ssl.SSLObject = super().wrap_bio(*args, **kwargs)  # type: ignore[arg-type]  # handed on as they came
        self.resumed += made.session is not None
        return made


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_connect_is_a_full_verification_and_no_session_is_resumed(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """FLT-T6: a resumed session would bring no certificate to look at; checks = connects."""
    context = Counting(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.ca_file)
    context.maximum_version = version
    theirs = authority.server_context()
    with RawServer(once, ssl_context=theirs) as server, Client(base_url=server.url, verify=context) as client:
        for _ in range(5):
            assert client.get("/x").content == NEXT

        stats = theirs.session_stats()
        assert (stats["accept_good"], stats["hits"]) == (5, 0)
        assert (context.begun, context.resumed) == (5, 0)
        assert_balanced(client, server, connections=5)
