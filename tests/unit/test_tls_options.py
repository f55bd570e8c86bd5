"""TLS configuration: who shares a context, what is refused, and that ALPN is set per connection."""

from __future__ import annotations

import os
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from turbopool.config.tls import CertTypes, TlsContext, TlsOptions, VerifyTypes, context_for


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def cert_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "client.pem"
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(path)
    return path


def shake(
    client: TlsContext,
    authority: trustme.CA,
    *,
    name: str = "server.example",
    alpn: tuple[str, ...] = ("h2", "http/1.1"),
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands in memory with a server that has a certificate for server.example, and wants one of ours if any."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("server.example").configure_cert(server_context)
    authority.configure_trust(server_context)
    server_context.verify_mode = ssl.CERT_OPTIONAL
    server_context.set_alpn_protocols(list(alpn))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap(to_client, to_server, name)
    theirs = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ours, theirs


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (TlsOptions(), TlsOptions(verify=True), True),
        (TlsOptions(verify=False), TlsOptions(verify=False), True),
        (TlsOptions(), TlsOptions(verify=False), False),
    ],
)
def test_configurations_are_told_apart(one: TlsOptions, other: TlsOptions, same: bool) -> None:  # noqa: FBT001  # a table
    """BEH-L6, in part; BEH-P42, in part."""
    assert (one.identity == other.identity) is same
    assert (one == other) is same
    assert not same or hash(one.identity) == hash(other.identity)


def test_a_file_counts_by_path_and_time(ca_file: Path, cert_file: Path) -> None:
    first = TlsOptions(ca_file, (cert_file, cert_file, "secret"))

    assert TlsOptions(str(ca_file), (str(cert_file), cert_file, "secret")) == first
    assert TlsOptions(ca_file, (cert_file, cert_file, "other")) != first
    assert TlsOptions(ca_file) != first
    assert TlsOptions(verify=False, cert=(cert_file, cert_file, "secret")) != first

    os.utime(ca_file, ns=(1, 1))
    assert TlsOptions(ca_file, (cert_file, cert_file, "secret")) != first


def test_a_relative_path_counts_as_the_file_it_names(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ca_file.parent)

    assert TlsOptions(ca_file.name) == TlsOptions(ca_file)


def test_a_context_of_the_users_counts_as_itself() -> None:
    one, other = ssl.create_default_context(), ssl.create_default_context()

    assert TlsOptions(one) == TlsOptions(one)
    assert TlsOptions(one) != TlsOptions(other)


def test_no_password_shows(cert_file: Path) -> None:
    options = TlsOptions(cert=(cert_file, cert_file, "secret"))

    assert "secret" not in repr(options)
    assert "secret" not in repr(options.identity)


def test_the_variable_for_ca_files_is_part_of_the_identity_and_trusted(
    ca_file: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = TlsOptions()
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))

    options = TlsOptions()

    assert options != before
    ours, _ = shake(context_for(options, ("http/1.1",)), authority)
    assert ours.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("verify", "cert", "wrong"),
    [
        ("/no/such/file", None, "verify='/no/such/file'"),
        (1, None, "verify must be"),
        (None, None, "verify must be"),
        (True, "/no/such/file", "cert='/no/such/file'"),
        (True, (), "cert must be"),
        (True, (1, 2), "cert must be"),
        (True, ("a", "b", "c", "d"), "cert must be"),
        (True, ("a", "b", b"c"), "password in cert"),
        (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "x", "cert cannot be combined"),
    ],
)
def test_bad_values_are_refused_by_name(verify: VerifyTypes, cert: CertTypes, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        TlsOptions(verify, cert)


def test_files_without_a_certificate_are_refused_by_name(tmp_path: Path, ca_file: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")

    with pytest.raises(ValueError, match="verify="):
        context_for(TlsOptions(junk), ())
    with pytest.raises(ValueError, match="cert="):
        context_for(TlsOptions(verify=False, cert=junk), ())
    with pytest.raises(ValueError, match="cert="):
        context_for(TlsOptions(verify=False, cert=ca_file), ())


def test_a_known_authority_is_trusted_and_the_protocol_negotiated(ca_file: Path, authority: trustme.CA) -> None:
    """BEH-L8, in part: ALPN per version, none for 1.0."""
    options = TlsOptions(ca_file)

    assert shake(context_for(options, ("h2", "http/1.1")), authority)[0].selected_alpn_protocol() == "h2"
    assert shake(context_for(options, ("http/1.1",)), authority)[0].selected_alpn_protocol() == "http/1.1"
    assert shake(context_for(options, ()), authority)[0].selected_alpn_protocol() is None


def test_a_folder_of_authorities_is_accepted(tmp_path: Path) -> None:
    assert isinstance(context_for(TlsOptions(tmp_path), ()), TlsContext)


def test_an_unknown_authority_or_a_wrong_name_is_refused(ca_file: Path, authority: trustme.CA) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context_for(TlsOptions(), ()), authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context_for(TlsOptions(ca_file), ()), authority, name="other.example")


def test_verify_false_accepts_any_certificate(authority: trustme.CA) -> None:
    ours, _ = shake(context_for(TlsOptions(verify=False), ()), authority, name="other.example")

    assert ours.version() == "TLSv1.3"


def test_a_client_certificate_is_presented(ca_file: Path, cert_file: Path, authority: trustme.CA) -> None:
    _, theirs = shake(context_for(TlsOptions(ca_file, cert_file), ()), authority)

    certificate = theirs.getpeercert()
    assert certificate is not None
    assert ("DNS", "client.example") in certificate["subjectAltName"]


def test_tls_is_at_least_1_2(ca_file: Path, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    before = context.minimum_version
    context_for(TlsOptions(context), ("h2",))

    assert context.minimum_version == before
    ours, _ = shake(context_for(TlsOptions(ca_file), ()), authority)
    assert ours.context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_equal_configurations_share_one_context_whatever_they_offer(ca_file: Path, authority: trustme.CA) -> None:
    one, _ = shake(context_for(TlsOptions(ca_file), ("h2",)), authority)
    other, _ = shake(context_for(TlsOptions(ca_file), ("http/1.1",)), authority)

    assert one.context is other.context


def test_contexts_kept_are_bounded(ca_file: Path, authority: trustme.CA) -> None:
    one, _ = shake(context_for(TlsOptions(ca_file), ()), authority)
    for second in range(1, 66):
        os.utime(ca_file, (second, second))
        context_for(TlsOptions(ca_file), ())
    os.utime(ca_file, (1, 1))
    other, _ = shake(context_for(TlsOptions(ca_file), ()), authority)

    assert one.context is not other.context


@pytest.mark.concurrency
def test_threads_that_share_a_users_context_each_get_their_own_protocol(ca_file: Path, authority: trustme.CA) -> None:
    context = ssl.create_default_context(cafile=str(ca_file))
    negotiated: list[tuple[str, str | None]] = []

    def run(protocol: str) -> None:
        for _ in range(20):
            ours, _theirs = shake(context_for(TlsOptions(context), (protocol,)), authority)
            negotiated.append((protocol, ours.selected_alpn_protocol()))

    threads = [threading.Thread(target=run, args=(protocol,)) for protocol in ("h2", "http/1.1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(negotiated) == 40
    assert all(offered == chosen for offered, chosen in negotiated)
