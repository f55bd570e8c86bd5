from __future__ import annotations

from pathlib import Path

import pytest
from h2.events import ConnectionTerminated
from h2.settings import SettingCodes

from tests.infrastructure.h2client import H2Client
from tests.servers.certs import Authority
from tests.servers.h2send import raw_frame
from tests.servers.h2serve import pattern
from tests.servers.http2 import Caddy, Http2Nginx, Nghttpd, needs_nghttpd
from tests.servers.nginx import SMALL, Nginx

Server = Http2Nginx | Nghttpd | Caddy


@pytest.fixture(params=["nginx2", "nghttpd", "caddy"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each real server in its turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


def test_each_server_speaks_http2_in_both_ways(server: Server, authority: Authority) -> None:
    with H2Client(("127.0.0.1", server.h2_port)) as client:
        assert client.get("/small") == SMALL
        assert client.answer(client.ask("/status/404"))[0] == 404
    with H2Client(("127.0.0.1", server.h2_tls_port), authority.client_context()) as client:
        assert client.get("/small") == SMALL
        body = client.get("/bytes/1m")

    assert body == (bytes(1 << 20) if isinstance(server, Nginx) else pattern(1 << 20))


def test_nginx_counts_what_it_does_over_http2(nginx2: Http2Nginx) -> None:
    with H2Client(("127.0.0.1", nginx2.h2_port)) as client:
        for _ in range(2):
            client.get("/counted/")

    lines = nginx2.log("/counted/", at_least=2)
    assert {(line.protocol, line.port) for line in lines} == {("HTTP/2.0", nginx2.h2_port)}
    assert len(nginx2.connections("/counted/")) == 1


def test_nginx_can_be_told_its_limits_and_says_goaway(nginx2: Http2Nginx, authority: Authority, tmp_path: Path) -> None:
    del nginx2  # where it is missing, so is this one
    with Http2Nginx(tmp_path, authority, max_streams=2, keepalive_requests=3) as server:
        with H2Client(("127.0.0.1", server.h2_port)) as client:
            for _ in range(2):
                client.get("/")
            client.ask("/")
            rest = client.rest()
            assert raw_frame(7, 0, 0, b"\0\0\0\5\0\0\0\0") in rest  # before the answer, which h2 would not take
            assert rest.endswith(SMALL)
            assert client.h2.remote_settings.max_concurrent_streams == 2
        with H2Client(("127.0.0.1", server.h2_port)) as client:
            client.get("/")
            server.reload()
            assert client.wait(ConnectionTerminated).error_code == 0


@needs_nghttpd
def test_nghttpd_takes_its_own_options(authority: Authority, tmp_path: Path) -> None:
    with Nghttpd(
        tmp_path, authority, max_concurrent_streams=2, window_bits=20, trailer="x-last: one", echo_upload=True
    ) as server:
        with H2Client(("127.0.0.1", server.h2_port)) as client:
            assert client.answer(client.ask("/", "POST", b"echoed"))[2:] == (b"echoed", {"x-last": "one"})
            settings = client.h2.remote_settings
            assert settings.max_concurrent_streams == 2
            assert settings[SettingCodes.INITIAL_WINDOW_SIZE] == (1 << 20) - 1
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            H2Client(("127.0.0.1", server.h2_port))
        server.start()
        (server.root / "own").write_bytes(b"own")
        with H2Client(("127.0.0.1", server.h2_port)) as client:
            assert client.get("/own") == b"own"


@needs_nghttpd
def test_server_that_does_not_start_says_why(authority: Authority, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="no-such-option"),
        Nghttpd(tmp_path, authority, no_such_option=True),
    ):
        pytest.fail("it must not start")
