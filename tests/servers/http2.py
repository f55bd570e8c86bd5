"""Real HTTP/2 servers in the foreground: nginx, nghttpd and caddy, each by prior knowledge and over TLS with ALPN.

They differ where clients go wrong: nginx keeps an HPACK table of size 0 and counts requests a connection, nghttpd has
an option for every setting, caddy is Go's own server and speaks HTTP/1.1 on the same ports.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pytest

from tests.servers.certs import Authority
from tests.servers.h2serve import pattern
from tests.servers.nginx import SMALL, Nginx, free_ports
from tests.waiting import eventually

FILES = {"1k": 1 << 10, "64k": 1 << 16, "1m": 1 << 20, "1g": 1 << 30}
"""What nghttpd and caddy serve below /bytes/: :func:`pattern`, and zeros in the largest."""

_SPARSE = 1 << 26
_SECONDS = 20.0
_ADDRESS = "127.0.0.1"


needs_nghttpd = pytest.mark.skipif(shutil.which("nghttpd") is None, reason="nghttpd is not installed")
needs_caddy = pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")

_NGINX = """
server {{
    listen 127.0.0.1:{prior} http2 backlog=1024;
    listen 127.0.0.1:{tls} ssl http2 backlog=1024;
    http2_max_concurrent_streams {max_streams};
    keepalive_requests {requests};
    include locations.conf;
}}
"""

_CADDY = """
{{
    admin off
    auto_https off
    servers {{
        protocols h1 h2 h2c
    }}
}}
(paths) {{
    bind 127.0.0.1
    root * {root}
    handle /bytes/* {{
        file_server
    }}
    respond /status/204 204
    respond /status/404 404
    respond /status/500 500
    respond "{small}"
}}
http://:{prior} {{
    import paths
}}
https://:{tls} {{
    tls {certificate} {certificate}
    import paths
}}
"""


class Http2Nginx(Nginx):
    """The nginx of the other tests, and the same locations over HTTP/2 at ports of their own.

    Attributes:
        h2_url, h2_tls_url: HTTP/2 by prior knowledge, and over TLS with ALPN.
    """

    program = "nginx"

    def __init__(
        self, folder: Path, authority: Authority, *, max_streams: int = 128, keepalive_requests: int = 100_000_000
    ) -> None:
        """Args: max_streams: SETTINGS_MAX_CONCURRENT_STREAMS. keepalive_requests: then it says GOAWAY."""
        self.h2_port, self.h2_tls_port = free_ports(2)
        self.h2_url, self.h2_tls_url = _urls(self.h2_port, self.h2_tls_port)
        server = _NGINX.format(
            prior=self.h2_port, tls=self.h2_tls_port, max_streams=max_streams, requests=keepalive_requests
        )
        super().__init__(folder, authority, more=server)


class _Programs:
    """Processes that run from ``__enter__`` to ``__exit__``, and listen at both ports in between."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.h2_port, self.h2_tls_port = free_ports(2)
        self.h2_url, self.h2_tls_url = _urls(self.h2_port, self.h2_tls_port)

    def commands(self) -> list[list[str]]:
        """What to run."""
        raise NotImplementedError

    def output(self) -> str:
        """All that was printed."""
        return (self._folder / "output").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start it, at the same ports as ever; returns as soon as it accepts."""
        own = {**os.environ, "HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder)}
        for command in self.commands():
            with (self._folder / "output").open("ab") as output:
                self._processes.append(
                    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=own)
                )
        eventually(self._accepts, _SECONDS)

    def stop(self) -> None:
        """End it at once; connects are refused from then on, connections are closed."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(_SECONDS)
        self._processes.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _accepts(self) -> bool:
        if any(process.poll() is not None for process in self._processes):
            self.stop()
            raise AssertionError(f"it did not start: {self.output()}")
        return all(_is_open(port) for port in (self.h2_port, self.h2_tls_port))


class Nghttpd(_Programs):
    """Serves /bytes/NAME for each of :data:`FILES`, /small, and what is put into `root`; 404 else.

    Attributes:
        h2_url, h2_tls_url: HTTP/2 by prior knowledge, and over TLS with ALPN.
        root: the folder of its files.
    """

    program = "nghttpd"

    def __init__(self, folder: Path, authority: Authority, **options: int | str | bool) -> None:
        """Make it with nghttpd's own long options: `max_concurrent_streams=2, early_response=True`.

        Others are header_table_size, encoder_header_table_size, window_bits, connection_window_bits, padding,
        trailer ("name: value"), echo_upload, no_content_length, and verbose for :meth:`output`.
        """
        super().__init__(folder)
        self.root = _write_files(folder)
        self._certificate = str(authority.server_file())
        self._options = [_flag(name, value) for name, value in options.items() if value is not False]

    def commands(self) -> list[list[str]]:
        """One process without TLS, and one with."""
        common = ["nghttpd", "-a", _ADDRESS, "-d", str(self.root), *self._options]
        return [
            [*common, "--no-tls", str(self.h2_port)],
            [*common, str(self.h2_tls_port), self._certificate, self._certificate],
        ]


class Caddy(_Programs):
    """Serves /bytes/NAME for each of :data:`FILES`, /status/204, 404 and 500; the small body else.

    Attributes:
        h2_url, h2_tls_url: HTTP/2 by prior knowledge, and over TLS with ALPN; HTTP/1.1 for who asks for it.
        root: the folder of its files.
    """

    program = "caddy"

    def __init__(self, folder: Path, authority: Authority) -> None:
        """Args: folder: an existing empty one. authority: issues the certificate for TLS."""
        super().__init__(folder)
        self.root = _write_files(folder)
        values = {"prior": self.h2_port, "tls": self.h2_tls_port, "certificate": authority.server_file()}
        text = _CADDY.format(**values, root=self.root, small=SMALL.decode())
        (folder / "Caddyfile").write_text(text, "utf-8")

    def commands(self) -> list[list[str]]:
        """One process for both ports."""
        return [["caddy", "run", "--config", str(self._folder / "Caddyfile"), "--adapter", "caddyfile"]]


S = TypeVar("S", Http2Nginx, Nghttpd, Caddy)


def in_session(kind: type[S], factory: pytest.TempPathFactory, authority: Authority) -> Iterator[S]:
    """One that lives as long as the session; what asks for it is skipped if it is missing."""
    if shutil.which(kind.program) is None:
        pytest.skip(f"{kind.program} is not installed")
    with kind(factory.mktemp(kind.program), authority) as server:
        yield server


def _urls(prior: int, tls: int) -> Sequence[str]:
    return f"http://{_ADDRESS}:{prior}", f"https://{_ADDRESS}:{tls}"


def _flag(name: str, value: int | str) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={value}"


def _write_files(folder: Path) -> Path:
    root = folder / "files"
    (root / "bytes").mkdir(parents=True)
    (root / "small").write_bytes(SMALL)
    for name, size in FILES.items():
        with (root / "bytes" / name).open("wb") as file:
            if size < _SPARSE:
                file.write(pattern(size))
            else:
                file.truncate(size)  # it takes no room
    return root


def _is_open(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((_ADDRESS, port), timeout=_SECONDS):
        return True
    return False
