"""Certificates of every kind a client has to judge, by a throwaway authority.

All are for 127.0.0.1, ::1 and localhost unless their kind says otherwise.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import trustme

Kind = Literal["good", "expired", "not_yet_valid", "wrong_host", "unknown_ca", "self_signed"]
"""What is wrong with a server's certificate, if anything."""

_HOSTS = ("127.0.0.1", "::1", "localhost")
_PAST = datetime(2001, 1, 1, tzinfo=UTC)
_FUTURE = datetime(2037, 1, 1, tzinfo=UTC)


class Authority:
    """Files under one folder; holds no descriptor and no thread."""

    def __init__(self, folder: Path) -> None:
        """Issue everything; takes some 10 ms.

        Args:
            folder: an existing folder for the PEM files.
        """
        known = trustme.CA()
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        """The authority's certificate: what a client has to trust."""
        self.client_file = folder / "client.pem"
        """A client certificate of the same authority, its key in the same file."""
        self.client_cert_file = folder / "client.crt.pem"
        self.client_key_file = folder / "client.key.pem"

        known.cert_pem.write_to_path(self.ca_file)
        self._write("good", known.issue_cert(*_HOSTS))
        self._write("expired", known.issue_cert(*_HOSTS, not_after=_PAST))
        self._write("not_yet_valid", known.issue_cert(*_HOSTS, not_before=_FUTURE))
        self._write("wrong_host", known.issue_cert("elsewhere.invalid"))
        self._write("unknown_ca", trustme.CA().issue_cert(*_HOSTS))
        self._write_self_signed()
        self._write_client(known.issue_cert("client@example.invalid"))

    def server_file(self, kind: Kind = "good") -> Path:
        """The key and certificate chain of a server, in one PEM file."""
        return self._folder / f"server-{kind}.pem"

    def server_context(
        self, kind: Kind = "good", *, alpn: Sequence[str] = ("http/1.1",), client_auth: bool = False
    ) -> ssl.SSLContext:
        """A new context for a server.

        Args:
            kind: which certificate it shows.
            alpn: the protocols it agrees to; none switches ALPN off.
            client_auth: demand a certificate of this authority from the client.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file(kind))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if client_auth:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca_file)
        return context

    def client_context(self, *, client_cert: bool = False) -> ssl.SSLContext:
        """A new verifying context for a client that trusts this authority only."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if client_cert:
            context.load_cert_chain(self.client_file)
        return context

    def _write(self, kind: Kind, issued: trustme.LeafCert) -> None:
        issued.private_key_and_cert_chain_pem.write_to_path(self.server_file(kind))

    def _write_self_signed(self) -> None:
        own = trustme.CA()
        pem = own.private_key_pem.bytes() + own.cert_pem.bytes()
        self.server_file("self_signed").write_bytes(pem)

    def _write_client(self, issued: trustme.LeafCert) -> None:
        issued.private_key_and_cert_chain_pem.write_to_path(self.client_file)
        issued.private_key_pem.write_to_path(self.client_key_file)
        issued.cert_chain_pems[0].write_to_path(self.client_cert_file)
