"""The one local nginx that every client is measured against, and nghttpd beside it for HTTP/2."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from target import BIG, BODIES, SMALL

HOSTS = [f"127.0.0.{n}" for n in range(1, 65)]
"""Loopback addresses, so that 64 keys need no more than one server: a pool's key holds its host."""

STREAMS = 128
"""Streams at once that the server allows on a connection: no client is held below its own 100."""

CONFIG = """
worker_processes 1; daemon off; pid nginx.pid; error_log error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on;
    keepalive_requests 100000000; keepalive_timeout 600; http2_max_concurrent_streams {streams};
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {chain}; ssl_certificate_key {key};
    server {{
        {listen} listen 127.0.0.1:{secure} ssl;
        location /d {{ return 200 "{body}"; }}
        location = {big} {{ root {folder}; }}
        location = /status {{ stub_status; }}
    }}
    server {{
        listen 127.0.0.1:{prior} http2; listen 127.0.0.1:{tls} ssl http2;
        if ($server_protocol != HTTP/2.0) {{ return 505; }}
        location /d {{ return 200 "{body}"; }}
    }}
}}
"""
"""What is not HTTP/2 on the ports that are for it gets another body, so it is not measured but fails."""

PATIENCE = 10.0
"""Seconds that a server may take to answer for the first time."""


class ServerError(Exception):
    """A server is missing or does not start."""


def accepted(port: int) -> int:
    """Return how many connections nginx has accepted, this question's own left out."""
    with contextlib.closing(http.client.HTTPConnection(HOSTS[0], port, timeout=5)) as connection:
        connection.request("GET", "/status")
        found = re.search(rb"^ *(\d+) +\d+ +\d+ *$", connection.getresponse().read(), re.MULTILINE)
    if found is None:
        message = "nginx /status has no counters"
        raise ServerError(message)
    return int(found[1]) - 1


@dataclass(frozen=True, kw_only=True)
class Http2Server:
    """Where one listens for HTTP/2."""

    prior: int
    """Without TLS: the client has to know."""
    tls: int
    """Over TLS, by ALPN."""
    unique: str
    """Makes one path of each number."""
    counted: bool
    """Whether it is nginx, which counts its connections."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where the servers listen."""

    port: int
    """HTTP/1.1, on all of HOSTS, and the count of connections."""
    secure: int
    """HTTP/1.1 over TLS."""
    authority: Path
    """Who signed the certificate."""
    http2: Mapping[str, Http2Server]
    """By name."""


@contextlib.contextmanager
def servers(*http2: str) -> Iterator[Server]:
    """Run them while the block lasts: nginx, and beside it nghttpd if it is named."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(nginx(folder))
        if "nghttpd" in http2:
            prior, tls = free_ports(2)
            (folder / SMALL[1:]).write_bytes(BODIES[SMALL])
            limits = ["-d", name, "-a", HOSTS[0], "-m", str(STREAMS)]
            keys = [str(folder / "key.pem"), str(folder / "chain.pem")]
            stack.enter_context(running("nghttpd", [*limits, "--no-tls", str(prior)], prior, folder / "prior.log"))
            stack.enter_context(running("nghttpd", [*limits, str(tls), *keys], tls, folder / "tls.log"))
            nghttpd = Http2Server(prior=prior, tls=tls, unique=f"{SMALL}?{{}}", counted=False)
            server = replace(server, http2={**server.http2, "nghttpd": nghttpd})
        yield server


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Server]:
    """Run nginx with one worker."""
    certify(folder)
    folder.chmod(0o755)  # the worker may be another user than its master
    (folder / BIG[1:]).write_bytes(BODIES[BIG])
    port, secure, prior, tls = free_ports(4)
    http2 = Http2Server(prior=prior, tls=tls, unique=f"{SMALL}/{{}}", counted=True)
    server = Server(port=port, secure=secure, authority=folder / "ca.pem", http2={"nginx": http2})
    config = CONFIG.format(
        listen=" ".join(f"listen {host}:{port};" for host in HOSTS),
        secure=secure,
        prior=prior,
        tls=tls,
        streams=STREAMS,
        body=BODIES[SMALL].decode().replace("\n", "\\n"),
        big=BIG,
        folder=folder,
        chain=folder / "chain.pem",
        key=folder / "key.pem",
    )
    (folder / "nginx.conf").write_text(config)
    options = ["-p", str(folder), "-e", "error.log", "-c", "nginx.conf"]
    with running("nginx", options, port, folder / "error.log"):
        yield server


def version(program: str) -> str:
    """Return what a server says of its version."""
    option = "-v" if program == "nginx" else "--version"
    done = subprocess.run([found(program), option], check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().removeprefix("nginx version: ").replace("/", " ")


def certify(folder: Path) -> None:
    """Write ca.pem, and key.pem and chain.pem that it signed for 127.0.0.1."""
    name, days = "/CN=turbopool benchmark", "30"
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days]
    ca = ["-subj", f"{name} authority", "-keyout", "ca.key.pem", "-out", "ca.pem"]
    leaf = ["-subj", name, "-keyout", "key.pem", "-out", "chain.pem", "-CA", "ca.pem", "-CAkey", "ca.key.pem"]
    leaf += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    for more in (ca, leaf):
        done = subprocess.run([found("openssl"), *new, *more], cwd=folder, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            message = f"openssl made no certificate: {done.stderr}"
            raise ServerError(message)


def found(program: str) -> str:
    """Return where a program is."""
    executable = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if executable is None:
        message = f"{program} is not installed: make servers"
        raise ServerError(message)
    return executable


@contextlib.contextmanager
def running(program: str, options: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """Run a server while the block lasts; it answers when the block begins."""
    with (
        log.open("ab") as output,
        subprocess.Popen([found(program), *options], stdout=output, stderr=output, start_new_session=True) as process,
    ):
        try:
            await_start(process, port, log)
            yield
        finally:
            process.terminate()


def await_start(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server answers."""
    give_up_at = time.monotonic() + PATIENCE
    while time.monotonic() < give_up_at and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOSTS[0], port), timeout=1):
            return
        time.sleep(0.05)
    message = f"a server did not start: {log.read_text() or 'it wrote no log'}"
    raise ServerError(message)


def free_ports(count: int) -> list[int]:
    """Return ports that were free on every host a moment ago."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for _ in range(count):
            first = held.enter_context(socket.socket())
            first.bind((HOSTS[0], 0))
            ports.append(first.getsockname()[1])
            for host in HOSTS[1:]:
                held.enter_context(socket.socket()).bind((host, ports[-1]))
        return ports
