"""The one local nginx that every client is measured against."""

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
from collections.abc import Iterator
from pathlib import Path

HOSTS = [f"127.0.0.{n}" for n in range(1, 65)]
"""Loopback addresses, so that 64 keys need no more than one server: a pool's key holds its host."""

CONFIG = """
worker_processes 1; daemon off; pid nginx.pid; error_log error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 100000000; keepalive_timeout 600;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        {listen}
        location /d {{ return 200 "hello world, this is a small body\\n"; }}
        location = /status {{ stub_status; }}
    }}
}}
"""

PATIENCE = 10.0
"""Seconds that nginx may take to answer for the first time."""


class ServerError(Exception):
    """nginx is missing or does not start."""


def accepted(port: int) -> int:
    """Return how many connections nginx has accepted, this question's own left out."""
    with contextlib.closing(http.client.HTTPConnection(HOSTS[0], port, timeout=5)) as connection:
        connection.request("GET", "/status")
        found = re.search(rb"^ *(\d+) +\d+ +\d+ *$", connection.getresponse().read(), re.MULTILINE)
    if found is None:
        message = "nginx /status has no counters"
        raise ServerError(message)
    return int(found[1]) - 1


@contextlib.contextmanager
def nginx() -> Iterator[int]:
    """Run nginx with one worker while the block lasts; gives its port, free on all of HOSTS."""
    executable = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if executable is None:
        message = "nginx is not installed: apt-get install nginx-light"
        raise ServerError(message)
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        listen = " ".join(f"listen {host}:{port};" for host in HOSTS)
        Path(folder, "nginx.conf").write_text(CONFIG.format(listen=listen))
        with subprocess.Popen([executable, "-p", folder, "-e", "error.log", "-c", "nginx.conf"]) as process:
            try:
                await_start(process, port, Path(folder, "error.log"))
                yield port
            finally:
                process.terminate()


def await_start(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until nginx answers."""
    give_up_at = time.monotonic() + PATIENCE
    while time.monotonic() < give_up_at and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOSTS[-1], port), timeout=1):
            return
        time.sleep(0.05)
    message = f"nginx did not start: {log.read_text() if log.exists() else 'it wrote no log'}"
    raise ServerError(message)


def free_port() -> int:
    """Return a port that was free on every host a moment ago."""
    with contextlib.ExitStack() as held:
        first = held.enter_context(socket.socket())
        first.bind((HOSTS[0], 0))
        port: int = first.getsockname()[1]
        for host in HOSTS[1:]:
            held.enter_context(socket.socket()).bind((host, port))
    return port
