from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.servers.certs import Authority
from tests.servers.nginx import SMALL, Nginx
from tests.waiting import eventually


@contextlib.contextmanager
def _client(url: str, context: ssl.SSLContext | None = None) -> Iterator[http.client.HTTPConnection]:
    host = urlsplit(url).netloc
    made = http.client.HTTPSConnection(host, timeout=10, context=context) if context else None
    with contextlib.closing(made or http.client.HTTPConnection(host, timeout=10)) as client:
        yield client


def _get(client: http.client.HTTPConnection, path: str) -> bytes:
    client.request("GET", path)
    return client.getresponse().read()


def test_log_counts_requests_and_connections(nginx: Nginx) -> None:
    for requests in (3, 2):
        with _client(nginx.url) as client:
            assert [_get(client, "/counted/a") for _ in range(requests)] == [SMALL] * requests

    lines = nginx.log("/counted/", at_least=5)
    assert [line.nth for line in lines] == [1, 2, 3, 1, 2]
    assert {(line.status, line.method, line.protocol, line.port) for line in lines} == {
        (200, "GET", "HTTP/1.1", nginx.port)
    }
    assert len(nginx.connections("/counted/")) == 2
    assert nginx.log("/never-asked") == []


def test_open_connections_are_those_established_now(nginx: Nginx) -> None:
    before = nginx.open_connections()
    with _client(nginx.url) as first, _client(nginx.url) as second:
        assert _get(first, "/open") == _get(second, "/open") == SMALL
        assert nginx.open_connections() == before + 2
        assert nginx.open_connections(nginx.tls_port) == 0
    eventually(lambda: nginx.open_connections() == before)


def test_tls_port_shows_a_certificate_of_the_authority(nginx: Nginx, authority: Authority) -> None:
    with _client(nginx.tls_url, authority.client_context()) as client:
        assert _get(client, "/tls") == SMALL
    with _client(nginx.tls_url, ssl.create_default_context()) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.connect()


@pytest.mark.parametrize(("name", "size"), [("1k", 1 << 10), ("1m", 1 << 20), ("1g", 1 << 30)])
def test_files_have_the_sizes_of_their_names(nginx: Nginx, name: str, size: int) -> None:
    with _client(nginx.url) as client:
        client.request("GET", f"/bytes/{name}")
        response = client.getresponse()

        assert response.length == size
        assert len(response.read(4096)) == min(size, 4096)


def test_slow_location_keeps_to_the_rate_asked_for(nginx: Nginx) -> None:
    with _client(nginx.url) as client:
        assert len(_get(client, "/slow/1m?rate=700k&own")) == 1 << 20

    (line,) = nginx.log("/slow/1m?rate=700k&own", at_least=1)
    assert 0.3 <= line.seconds < 5


def test_echo_tells_what_arrived(nginx: Nginx) -> None:
    with _client(nginx.url) as client:
        client.request("POST", "/echo?x=1", b"body", {"X-Probe": "seen"})
        lines = client.getresponse().read().decode().splitlines()

    assert lines[0] == "POST /echo?x=1 HTTP/1.1"
    assert {"content-length: 4", "x-probe: seen", f"host: 127.0.0.1:{nginx.port}"} <= set(lines)


@pytest.mark.parametrize("chunked", [False, True])
def test_upload_is_answered_with_its_size_and_a_put_file_is_kept(nginx: Nginx, *, chunked: bool) -> None:
    body = bytes(range(256)) * 8192
    with _client(nginx.url) as client:
        for method, path, status in (("POST", "/upload", 200), ("PUT", f"/put/{chunked}/file", 201)):
            pieces = iter([body[:1000], body[1000:]]) if chunked else body
            client.request(method, path, pieces, encode_chunked=chunked, headers=_framing(chunked=chunked))
            response = client.getresponse()
            assert response.status == status
            assert response.read() == (str(len(body)).encode() if method == "POST" else b"")

        assert _get(client, f"/put/{chunked}/file") == body


def _framing(*, chunked: bool) -> dict[str, str]:
    return {"Transfer-Encoding": "chunked"} if chunked else {}


@pytest.mark.parametrize("status", [204, 404, 500])
def test_status_can_be_asked_for(nginx: Nginx, status: int) -> None:
    with _client(nginx.url) as client:
        client.request("GET", f"/status/{status}")

        assert client.getresponse().status == status


def test_three_hundred_hosts_answer_at_one_port(nginx: Nginx) -> None:
    hosts = nginx.hosts()
    for host in (hosts[0], hosts[149], hosts[299]):
        with _client(host) as client:
            assert _get(client, "/hosts") == SMALL

    assert len(set(hosts)) == 300


def test_server_of_few_requests_closes_after_the_third(nginx: Nginx) -> None:
    with _client(nginx.few_url) as client:
        for expected in (None, None, "close"):
            client.request("GET", "/few")
            response = client.getresponse()
            assert response.getheader("Connection") in (expected, "keep-alive" if expected is None else expected)
            response.read()


def test_impatient_server_closes_an_idle_connection(nginx: Nginx) -> None:
    with _client(nginx.impatient_url) as client:
        assert _get(client, "/impatient") == SMALL
        assert client.sock.recv(1) == b""  # at most the 10 s of the client


def test_stub_status_counts_connections(nginx: Nginx) -> None:
    with _client(nginx.url) as client:
        assert _get(client, "/stub_status").startswith(b"Active connections: ")


def test_reload_closes_idle_connections_and_keeps_serving(nginx: Nginx) -> None:
    with _client(nginx.url) as client:
        assert _get(client, "/reload") == SMALL

        nginx.reload()

        assert client.sock.recv(1) == b""
    with _client(nginx.url) as client:
        assert _get(client, "/reload") == SMALL


def test_stopped_server_refuses_and_a_restarted_one_serves_at_the_same_port(nginx: Nginx) -> None:
    nginx.stop()
    try:
        with _client(nginx.url) as client, pytest.raises(ConnectionRefusedError):
            client.connect()
    finally:
        nginx.start()
    nginx.restart()
    with _client(nginx.url) as client:
        assert _get(client, "/restart") == SMALL
