"""How the options of a client reach the connections it opens."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from tests.face.handlers import Echoed, echo, first_left
from tests.servers.certs import Authority, Kind
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from turbopool import Client, ClientFactory, ConnectError, TlsError, TlsVerifyError


@pytest.mark.parametrize(("version", "alpn"), [("1.1", "http/1.1"), ("1.0", None)])
def test_each_version_offers_its_own_protocols(authority: Authority, version: str, alpn: str | None) -> None:
    """BEH-L8: none for 1.0."""
    context = authority.server_context(alpn=("h2", "http/1.1"))
    with (
        RawServer(always(echo), ssl_context=context) as server,
        Client(base_url=server.url, verify=str(authority.ca_file), http_version=version) as client,
    ):
        assert Echoed.of(client.get("/x")).version == f"HTTP/{version}"
        assert server.connections[0].alpn == alpn


@pytest.mark.parametrize(
    ("host", "name"), [("localhost", "localhost"), ("LOCALHOST.", "localhost"), ("127.0.0.1", None)]
)
def test_the_server_is_asked_for_by_its_name(authority: Authority, host: str, name: str | None) -> None:
    """BEH-L8: SNI, which an address has none of (RFC 6066 section 3)."""
    with (
        RawServer(always(echo), ssl_context=authority.server_context()) as server,
        Client(verify=str(authority.ca_file)) as client,
    ):
        assert client.get(f"https://{host}:{server.port}/x").is_success
        assert server.connections[0].server_name == name


@pytest.mark.parametrize("kind", ["file", "context", "unverified"])
def test_verification_follows_the_option(authority: Authority, kind: str) -> None:
    """BEH-L8."""
    verify: dict[str, Any] = {"file": authority.ca_file, "context": authority.client_context(), "unverified": False}
    with (
        RawServer(always(echo), ssl_context=authority.server_context()) as server,
        Client(base_url=server.url, verify=verify[kind]) as client,
    ):
        for _ in range(3):
            assert client.get("/x").is_success
        assert len(server.connections) == 1


@pytest.mark.parametrize("kind", ["expired", "not_yet_valid", "wrong_host", "unknown_ca", "self_signed"])
def test_a_certificate_that_is_not_accepted_is_an_error_and_nothing_is_sent(authority: Authority, kind: Kind) -> None:
    """BEH-L8."""
    with (
        RawServer(always(echo), ssl_context=authority.server_context(kind)) as server,
        Client(base_url=server.url, verify=str(authority.ca_file)) as client,
    ):
        with pytest.raises(TlsVerifyError) as caught:
            client.get("/x", headers={"Authorization": "hush"})

        assert isinstance(caught.value, ConnectError)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert (caught.value.origin, caught.value.processed, caught.value.may_retry) == (server.url, "no", False)
        assert server.requests == []


def test_the_systems_authorities_do_not_know_a_private_one(authority: Authority) -> None:
    with (
        RawServer(always(echo), ssl_context=authority.server_context()) as server,
        Client(base_url=server.url) as client,
        pytest.raises(TlsVerifyError),
    ):
        client.get("/x")


def test_the_environment_names_further_authorities(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """BEH-L8: SSL_CERT_FILE is honoured."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    with (
        RawServer(always(echo), ssl_context=authority.server_context()) as server,
        Client(base_url=server.url) as client,
    ):
        assert client.get("/x").is_success


@pytest.mark.parametrize("form", ["one file", "two files"])
def test_a_client_certificate_is_shown(authority: Authority, form: str) -> None:
    """BEH-L8: certificates propagate."""
    cert: dict[str, Any] = {
        "one file": str(authority.client_file),
        "two files": (authority.client_cert_file, authority.client_key_file),
    }
    with RawServer(always(echo), ssl_context=authority.server_context(client_auth=True)) as server:
        with Client(base_url=server.url, verify=authority.ca_file, cert=cert[form]) as client:
            assert client.get("/x").is_success
        with Client(base_url=server.url, verify=authority.ca_file) as client, pytest.raises((TlsError, OSError)):
            client.get("/x", timeout=20)


def test_handles_of_different_names_keep_their_own_verification(authority: Authority) -> None:
    """BEH-C7, F21: nothing of a configuration is shared by accident."""
    with RawServer(always(echo), ssl_context=authority.server_context()) as server:
        factory = ClientFactory().add("lax", verify=False).add("strict")
        with factory:
            lax, strict = factory.create_client("lax"), factory.create_client("strict")

            assert lax.get(server.url).is_success
            with pytest.raises(TlsVerifyError):
                strict.get(server.url)


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"verify": "/no/such/file"}, "verify"),
        ({"verify": 5}, "verify"),
        ({"cert": "/no/such/file"}, "cert"),
        ({"cert": ("a",) * 4}, "cert"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_at_construction(knobs: dict[str, object], named: str) -> None:
    """BEH-L8."""
    with pytest.raises(ValueError, match=named):
        Client(**knobs)


def test_a_plain_server_behind_an_https_url_is_an_error_that_says_so() -> None:
    def refuse(conn: Conn) -> None:
        conn.recv()
        conn.send(respond(b"speak HTTP", 400))
        conn.hold()

    with RawServer(refuse) as server, Client(verify=False) as client:
        with pytest.raises(TlsError, match="TLS") as caught:
            client.get(f"https://127.0.0.1:{server.port}/x", timeout=20)

        assert isinstance(caught.value.__cause__, ssl.SSLError)
        server.wait_until(first_left)
