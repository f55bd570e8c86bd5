"""FLT-T: certificates, handshakes and endings of TLS, through a real client."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.aftermath import NEXT, POISON, assert_balanced, assert_recovered, healthy, says
from tests.servers.certs import Authority, Kind
from tests.servers.connection import Conn
from tests.servers.proxy import ChaosProxy, Faults
from tests.servers.raw import Handler, RawServer, always
from tests.servers.wire import chunked, respond
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import (
    Client,
    ConnectError,
    ConnectTimeout,
    IncompleteRead,
    ReadError,
    TlsError,
    TlsVerifyError,
    TurboPoolError,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BAD: list[Kind] = ["expired", "not_yet_valid", "wrong_host", "unknown_ca", "self_signed"]


def _secure(handler: Handler | list[Handler], authority: Authority, kind: Kind = "good") -> RawServer:
    return RawServer(handler, ssl_context=authority.server_context(kind))


# -- T1: certificates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_bad_certificate_is_refused_before_a_byte_of_the_request_is_sent(
    authority: Authority, kind: Kind, method: str
) -> None:
    """FLT-T1: never tried again, and never in clear; a good server is not affected."""
    with (
        _secure(healthy, authority, kind) as bad,
        _secure(healthy, authority) as good,
        Client(verify=authority.ca_file) as client,
    ):
        with pytest.raises(TlsVerifyError, match="certificate") as caught:
            client.request(method, bad.url, content=b"secret")

        error = caught.value
        assert isinstance(error, ConnectError)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert (error.origin, error.phase, error.processed) == (bad.url, "tls", "no")
        assert (error.request_sent, error.may_retry, error.attempts) == (False, False, 1)
        bad.wait_until(lambda server: server.connections[0].handshake_error)
        assert isinstance(bad.connections[0].handshake_error, ssl.SSLError)  # by an alert, not by a mere end
        assert (len(bad.connections), bad.connections[0].received, bad.requests) == (1, 0, [])
        assert client.get(good.url).content == NEXT
        assert client.stats().connecting == client.stats().waiting == client.stats().leased == 0


def test_a_bad_certificate_fails_everybody_who_waits_for_it(authority: Authority) -> None:
    """FLT-T1, BEH-P48: with an instance each, and one handshake for all."""
    with _secure(healthy, authority, "expired") as server, Client(verify=authority.ca_file) as client:
        client.warm_up(server.url)
        futures = [client.send_async("GET", server.url) for _ in range(5)]

        errors = [future.exception(30) for future in futures]

        assert {type(error) for error in errors} == {TlsVerifyError}
        assert len({id(error) for error in errors}) == 5
        assert server.requests == []


def test_every_connection_is_verified_anew(authority: Authority) -> None:
    """FLT-T6: a server that changes its certificate is not trusted for what it was."""
    answer = respond(NEXT, headers=[("Connection", "close")])
    with (
        _secure(always(answer), authority) as good,
        Client(base_url=good.url, verify=authority.ca_file) as client,
    ):
        assert client.get("/x").content == NEXT
        good.refuse()
        context = authority.server_context("unknown_ca")
        with RawServer(healthy, port=good.port, ssl_context=context) as bad, pytest.raises(TlsVerifyError):
            client.get("/x")
        assert bad.requests == []


def test_the_systems_authorities_are_trusted_by_default_and_no_others(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLT-T1: SSL_CERT_FILE says which they are."""
    with _secure(healthy, authority) as server:
        with Client(base_url=server.url) as client, pytest.raises(TlsVerifyError):
            client.get("/x")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        with Client(base_url=server.url) as client:
            assert client.get("/x").content == NEXT


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_ca_file_is_trusted(authority: Authority, as_type: Callable[[Path], object]) -> None:
    with (
        _secure(healthy, authority) as server,
        Client(base_url=server.url, verify=as_type(authority.ca_file)) as client,
    ):
        assert_recovered(client, server, connections=1)


@pytest.mark.parametrize("kind", BAD)
def test_without_verification_any_certificate_will_do(authority: Authority, kind: Kind) -> None:
    with _secure(healthy, authority, kind) as server, Client(base_url=server.url, verify=False) as client:
        assert_recovered(client, server, connections=1)


def test_a_client_that_verifies_never_uses_a_connection_of_one_that_does_not(authority: Authority) -> None:
    """FLT security 1, 2: not even through the session tickets of that connection."""
    with (
        _secure(healthy, authority, "unknown_ca") as server,
        Client(base_url=server.url, verify=False) as careless,
        Client(base_url=server.url, verify=authority.ca_file) as careful,
        Client(base_url=server.url, verify=False) as careless_too,
    ):
        for _ in range(3):
            assert careless.get("/x").content == NEXT
            with pytest.raises(TlsVerifyError):
                careful.get("/x")
        assert careless_too.get("/x").content == NEXT

        ((loose, _),) = careless.stats().pools.items()
        ((strict, _),) = careful.stats().pools.items()
        assert loose != strict
        assert loose._replace(identity=None) == strict._replace(identity=None)
        ((other, _),) = careless_too.stats().pools.items()
        assert other == loose
        assert len(server.connections) == 1 + 3 + 1


class CountingContext(ssl.SSLContext):
    """A user's own context, which counts the connections made with it."""

    made = 0

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401  # passed on as they are
        """Count."""
        self.made += 1
        return super().wrap_bio(*args, **kwargs)


def test_a_context_of_the_users_is_used_for_every_connection(authority: Authority) -> None:
    """FLT-T6: and its settings are left alone."""
    context = CountingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    answer = respond(NEXT, headers=[("Connection", "close")])
    with _secure(always(answer), authority) as server, Client(base_url=server.url, verify=context) as client:
        for _ in range(3):
            assert client.get("/x").content == NEXT

        assert context.made == len(server.connections) == 3
        assert (context.minimum_version, context.verify_mode) == (ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED)
        assert context.check_hostname


def test_a_context_of_the_users_may_refuse_what_ours_would_take(authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    server_context = authority.server_context()
    server_context.maximum_version = ssl.TLSVersion.TLSv1_2
    with RawServer(healthy, ssl_context=server_context) as server:
        with Client(base_url=server.url, verify=context) as client, pytest.raises(TlsError) as caught:
            client.get("/x")
        with Client(base_url=server.url, verify=authority.ca_file) as client:
            assert client.get("/x").content == NEXT
    assert type(caught.value) is TlsError


def test_old_versions_of_tls_are_not_spoken(authority: Authority) -> None:
    """FLT security 11: TLS 1.2 at least, verified or not."""
    server_context = authority.server_context()
    with pytest.warns(DeprecationWarning, match="deprecated"):
        server_context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        server_context.maximum_version = ssl.TLSVersion.TLSv1_1
    server_context.set_ciphers("ALL:@SECLEVEL=0")
    with RawServer(healthy, ssl_context=server_context) as server:
        for verify in (authority.ca_file, False):
            with Client(base_url=server.url, verify=verify) as client, pytest.raises(TlsError):
                client.get("/x")
        assert server.requests == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("form", ["file", "pair"])
def test_a_client_certificate_is_shown(authority: Authority, version: ssl.TLSVersion, form: str) -> None:
    cert = authority.client_file if form == "file" else (authority.client_cert_file, authority.client_key_file)
    context = authority.server_context(client_auth=True)
    context.minimum_version = context.maximum_version = version
    with (
        RawServer(healthy, ssl_context=context) as server,
        Client(base_url=server.url, verify=authority.ca_file, cert=cert) as client,
    ):
        assert_recovered(client, server, connections=1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_the_client_certificate_a_server_demands_nothing_is_answered(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """FLT-T3: in TLS 1.3 the refusal comes after our side of the handshake is over."""
    context = authority.server_context(client_auth=True)
    context.minimum_version = context.maximum_version = version
    with (
        RawServer(healthy, ssl_context=context) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        for _ in range(2):
            with pytest.raises((TlsError, ReadError)) as caught:
                client.get("/x")
            assert isinstance(caught.value.__cause__, OSError)

        assert server.requests == []
        assert len(server.connections) == 2
        assert client.stats().opened == client.stats().closed
        server.wait_until(lambda server: server.open == 0)


# -- T2: silence -----------------------------------------------------------------------------------------


def test_silence_in_the_handshake_is_within_the_connect_budget(authority: Authority) -> None:
    """FLT-T2: accepted at once, and then nothing."""
    with (
        RawServer(Conn.hold) as silent,
        _secure(healthy, authority) as good,
        Client(verify=authority.ca_file, connect_timeout=0.2) as client,
    ):
        began = time.monotonic()
        with pytest.raises(ConnectTimeout, match="TLS") as caught:
            client.get(f"https://127.0.0.1:{silent.port}/")

        assert 0.2 <= time.monotonic() - began < 0.2 + SPENT
        assert (caught.value.phase, caught.value.processed, caught.value.may_retry) == ("tls", "no", True)
        silent.wait_until(lambda server: server.open == 0)
        assert client.get(good.url).content == NEXT


@with_short_times
def test_a_handshake_that_drips_does_not_extend_the_connect_budget(authority: Authority, short: float) -> None:
    """FLT-T2, N13: each byte within a moment of the last, and never the whole."""
    slow = Faults(slice_bytes=1, latency=0.005)
    with (
        _secure(healthy, authority) as server,
        ChaosProxy(server.address, down=slow) as proxy,
        Client(
            base_url=f"https://127.0.0.1:{proxy.port}", verify=authority.ca_file, connect_timeout=2 * short
        ) as client,
    ):
        with pytest.raises(ConnectTimeout):
            client.get("/x")

        reached(proxy.counters.segments_down > 10)
        assert client.stats().connecting == 0


# -- T3: no TLS on the port ------------------------------------------------------------------------------


def _speaks_http(conn: Conn) -> None:
    conn.recv(1)
    conn.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    conn.hold()


def _sends_an_alert(conn: Conn) -> None:
    conn.recv(1)
    conn.send(b"\x15\x03\x03\x00\x02\x02\x28")
    conn.hold()


def _hangs_up(conn: Conn) -> None:
    conn.recv(1)


def _resets(conn: Conn) -> None:
    conn.recv(1)
    conn.reset()


@pytest.mark.parametrize("handler", [_speaks_http, _sends_an_alert, _hangs_up, _resets])
def test_a_port_that_does_not_speak_tls_is_a_tls_error(authority: Authority, handler: Handler) -> None:
    """FLT-T3: one attempt a request, and nothing of the request on the wire."""
    with (
        RawServer(handler) as server,
        _secure(healthy, authority) as good,
        Client(verify=authority.ca_file) as client,
    ):
        for attempt in range(1, 3):
            with pytest.raises(TlsError) as caught:
                client.post(f"https://127.0.0.1:{server.port}/", content=b"secret")
            assert type(caught.value) is TlsError
            assert (caught.value.phase, caught.value.processed, caught.value.attempts) == ("tls", "no", 1)
            assert len(server.connections) == attempt

        assert client.get(good.url).content == NEXT
        server.wait_until(lambda server: server.open == 0)


def test_tls_on_a_port_that_is_asked_in_clear_is_no_http(authority: Authority) -> None:
    """FLT-T3, H10: the other way round."""
    with _secure(healthy, authority) as server, Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        with pytest.raises(TurboPoolError) as caught:
            client.get("/x")

        assert caught.value.request_sent
        assert client.stats().leased == client.stats().idle == 0


# -- T4: protocols and names -----------------------------------------------------------------------------


@pytest.mark.parametrize(("offered", "agreed"), [(("http/1.1",), "http/1.1"), (("h2", "http/1.1"), "http/1.1"),
                                                 (("h2",), None), ((), None)])  # fmt: skip
def test_http_1_1_is_spoken_whatever_the_server_would_rather(
    authority: Authority, offered: tuple[str, ...], agreed: str | None
) -> None:
    """FLT-T4: never h2 frames to a server that did not agree, nor h1 to one that agreed on h2: it is not offered."""
    with (
        RawServer(healthy, ssl_context=authority.server_context(alpn=offered)) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        response = client.get("/x")

        assert response.http_version == "HTTP/1.1"
        assert server.connections[0].alpn == agreed
        assert_recovered(client, server, connections=1)


def test_the_server_is_asked_for_by_its_name_and_not_by_its_address(authority: Authority) -> None:
    """RFC 6066 section 3."""
    with _secure(healthy, authority) as server, Client(verify=authority.ca_file) as client:
        client.get(server.url)
        client.get(f"https://localhost:{server.port}/")
        client.get(f"https://LOCALHOST.:{server.port}/")

        assert [conn.server_name for conn in server.connections] == [None, "localhost"]


# -- T5: how it ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("answer", [respond(b"hello"), CHUNKED + chunked(b"hello")], ids=["sized", "chunked"])
def test_a_whole_response_needs_no_close_notify(authority: Authority, answer: bytes, stream: bool) -> None:  # noqa: FBT001
    """FLT-T5."""
    with (
        _secure([says(answer, Conn.cut), healthy], authority) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        if stream:
            with client.stream("GET", "/x") as response:
                assert response.read() == b"hello"
        else:
            assert client.get("/x").content == b"hello"
        eventually(lambda: client.stats().closed == 1)
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("answer", "end"), [
    (OK + b"\r\nhello", Conn.cut),
    (OK + b"Connection: close\r\n\r\n", Conn.cut),
    (OK + b"Content-Length: 6\r\n\r\nhello", Conn.cut),
    (OK + b"Content-Length: 6\r\n\r\nhello", Conn.close),
    (CHUNKED + b"5\r\nhello\r\n", Conn.cut),
    (CHUNKED + b"5\r\nhello\r\n", Conn.close),
    (CHUNKED + b"5\r\nhello\r\n0\r\n", Conn.cut),
], ids=["unframed", "empty", "sized", "sized, notified", "chunked", "chunked, notified", "trailers"])  # fmt: skip
def test_a_body_cut_without_its_end_is_not_a_success(
    authority: Authority,
    answer: bytes,
    end: Callable[[Conn], None],
    stream: bool,  # noqa: FBT001
) -> None:
    """FLT-T5, H3, M9: an end without close_notify may be anybody's doing."""
    with (
        _secure([says(answer, end), healthy], authority) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        with pytest.raises(IncompleteRead) as caught:
            _read(client, stream=stream)

        assert caught.value.facts["received"] == (0 if answer.endswith(b"close\r\n\r\n") else 5)
        assert_recovered(client, server, connections=2)


def _read(client: Client, *, stream: bool) -> bytes:
    if not stream:
        return client.get("/x").content
    with client.stream("GET", "/x") as response:
        return response.read()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_body_without_framing_is_whole_with_close_notify(authority: Authority, stream: bool) -> None:  # noqa: FBT001
    """FLT-T5, H3."""
    with (
        _secure([says(OK + b"\r\nhello", Conn.close), healthy], authority) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        assert _read(client, stream=stream) == b"hello"
        assert_recovered(client, server, connections=2)


def test_a_proxy_that_cuts_the_stream_makes_no_success_of_any_body(authority: Authority) -> None:
    """FLT-T5: between two records, where only close_notify tells."""
    body = bytes(100_000)
    with _secure(says(OK + b"\r\n" + body, Conn.close), authority) as server:
        with ChaosProxy(server.address, down=Faults(cut_after=60_000)) as proxy:
            base = f"https://127.0.0.1:{proxy.port}"
            with Client(base_url=base, verify=authority.ca_file) as client, pytest.raises(IncompleteRead) as caught:
                client.get("/x")
        assert proxy.counters.cuts == 1
    assert isinstance(caught.value.facts["received"], int)
    assert caught.value.facts["received"] < len(body)


# -- reuse over TLS --------------------------------------------------------------------------------------


def test_session_tickets_do_not_end_an_idle_connection(authority: Authority) -> None:
    """DESIGN 4: also on one that was warmed up, and never used."""
    with _secure(healthy, authority) as server, Client(base_url=server.url, verify=authority.ca_file) as client:
        client.warm_up("/")
        eventually(lambda: client.stats().idle == 1)
        server.wait_until(lambda server: server.connections[0].alpn)  # the handshake is over on that side too

        for _ in range(20):
            assert client.get("/x").content == NEXT

        assert_balanced(client, server, connections=1)


@pytest.mark.parametrize("pieces", [
    [respond(b"right") + POISON],
    [respond(b"right"), POISON],
], ids=["in one record", "in the next record"])  # fmt: skip
def test_bytes_after_a_response_are_never_the_next_response_over_tls(authority: Authority, pieces: list[bytes]) -> None:
    """FLT-H4, H5."""

    def poisons(conn: Conn) -> None:
        conn.read_request()
        for piece in pieces:
            conn.send(piece)
        conn.hold()

    with (
        _secure([poisons, healthy], authority) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        assert client.get("/x").content == b"right"
        eventually(lambda: client.stats().closed == 1)
        assert_recovered(client, server, connections=2)


def test_half_a_record_after_a_response_ends_the_connection(authority: Authority) -> None:
    """FLT-H4: nothing of it can be read yet, and the rest would be the beginning of the next response."""
    answered = threading.Event()

    def poisons(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(b"right"))
        assert answered.wait(30)
        conn.send(POISON)
        conn.hold()

    with (
        _secure([says(respond(b"right")), poisons, healthy], authority) as server,
        ChaosProxy(server.address) as proxy,
        Client(base_url=f"https://127.0.0.1:{proxy.port}", verify=authority.ca_file) as client,
    ):
        client.get("/x", headers={"Connection": "close"})
        eventually(lambda: client.stats().closed == 1)
        # A second connection takes as many bytes, but for the length of a signature; the poison's record has 80.
        proxy.down = Faults(stall_after=proxy.counters.bytes_down + 40)

        assert client.get("/x").content == b"right"
        proxy.down = Faults()
        answered.set()
        eventually(lambda: proxy.counters.stalls == 1)

        assert_recovered(client, server, connections=3)
