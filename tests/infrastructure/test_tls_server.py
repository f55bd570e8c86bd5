from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.servers.certs import Authority, Kind
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond

_GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


@contextlib.contextmanager
def _connected(server: RawServer, context: ssl.SSLContext, name: str = "127.0.0.1") -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(server.address, timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=name, suppress_ragged_eofs=False) as sock,
    ):
        yield sock


def test_request_travels_over_tls_with_alpn_and_server_name(authority: Authority) -> None:
    context = authority.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])

    with RawServer(always(respond(b"ok")), ssl_context=authority.server_context()) as server:
        assert server.url.startswith("https://127.0.0.1:")
        with _connected(server, context, "localhost") as sock:
            sock.sendall(_GET)
            assert sock.recv(1000).endswith(b"ok")
            assert sock.selected_alpn_protocol() == "http/1.1"
            assert server.connections[0].alpn == "http/1.1"
            assert server.connections[0].server_name == "localhost"
            sock.unwrap()

    assert server.connections[0].received == len(_GET)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", "certificate has expired"),
        ("not_yet_valid", "certificate is not yet valid"),
        ("wrong_host", "IP address mismatch"),
        ("unknown_ca", "unable to get local issuer"),
        ("self_signed", "self-signed certificate"),
    ],
)
def test_bad_certificate_is_refused_for_its_own_reason(authority: Authority, kind: Kind, reason: str) -> None:
    with RawServer(Conn.hold, ssl_context=authority.server_context(kind)) as server:
        with (
            pytest.raises(ssl.SSLCertVerificationError, match=reason),
            _connected(server, authority.client_context()),
        ):
            pytest.fail("the handshake must not succeed")
        server.wait_until(lambda server: server.connections[0].closed_at)

    assert server.connections[0].handshake_error is not None
    assert server.connections[0].received == 0


def test_client_certificate_is_demanded(authority: Authority) -> None:
    context = authority.server_context(client_auth=True)
    with RawServer(always(respond(b"ok")), ssl_context=context) as server:
        with _connected(server, authority.client_context(client_cert=True)) as sock:
            sock.sendall(_GET)
            assert sock.recv(1000).endswith(b"ok")
        with _connected(server, authority.client_context()) as sock, pytest.raises(ssl.SSLError):
            sock.recv(1000)  # with TLS 1.3 the refusal comes after the client's handshake

    assert server.connections[0].handshake_error is None
    assert server.connections[1].handshake_error is not None


def test_orderly_close_is_told_from_a_truncation(authority: Authority) -> None:
    def orderly(conn: Conn) -> None:
        conn.send(b"all")
        conn.close()

    def truncated(conn: Conn) -> None:
        conn.send(b"part")
        conn.cut()

    with RawServer([orderly, truncated], ssl_context=authority.server_context()) as server:
        with _connected(server, authority.client_context()) as sock:
            assert (sock.recv(100), sock.recv(100)) == (b"all", b"")
        with _connected(server, authority.client_context()) as sock:
            assert sock.recv(100) == b"part"
            with pytest.raises(ssl.SSLEOFError):
                sock.recv(100)


def test_half_close_over_tls_ends_what_is_sent_and_still_reads(authority: Authority) -> None:
    def handler(conn: Conn) -> None:
        conn.shutdown_write()
        conn.read_request()

    with (
        RawServer(handler, ssl_context=authority.server_context()) as server,
        _connected(server, authority.client_context()) as sock,
    ):
        assert sock.recv(100) == b""
        sock.sendall(_GET)
        server.wait_for_requests(1)


def test_handshake_can_be_started_by_the_handler(authority: Authority) -> None:
    context = authority.server_context()

    def handler(conn: Conn) -> None:
        assert conn.recv(5) == b"CLEAR"
        conn.send(b"GO")
        assert conn.start_tls(context)
        conn.read_request()
        conn.send(respond(b"safe"))

    with RawServer(handler) as server, socket.create_connection(server.address, timeout=10) as raw:
        raw.sendall(b"CLEAR")
        assert raw.recv(2) == b"GO"
        with authority.client_context().wrap_socket(raw, server_hostname="127.0.0.1") as sock:
            sock.sendall(_GET)
            assert sock.recv(1000).endswith(b"safe")


def test_leaving_unblocks_a_handshake_that_hangs(authority: Authority) -> None:
    with (
        socket.socket() as sock,
        RawServer(Conn.hold, ssl_context=authority.server_context()) as server,
    ):
        sock.connect(server.address)
        server.wait_for_connections(1)

    assert server.connections[0].handshake_error is not None
