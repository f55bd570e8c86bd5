"""A real nginx in the foreground, with a log that tests count connections by.

Its log is the server's own view: which connection each request came over, and the how
manyth it was. What is connected at this moment is read from the kernel. Paths of the
servers are in nginx_locations.conf; every path not listed there answers :data:`SMALL`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.servers.certs import Authority
from tests.waiting import eventually

SMALL = b"hello world, this is a small body\n"
HOSTS = 300
"""How many further loopback addresses are listened on, from 127.0.1.1 on."""

_HERE = Path(__file__).parent
_SIZES = {"1k": 1 << 10, "1m": 1 << 20, "1g": 1 << 30}
_OWN_PORTS = range(20000, 30000)
"""Below the kernel's ephemeral ports, so that no client socket takes one between restarts."""

_STOP_SECONDS = 30.0


class Logged(NamedTuple):
    """One line of the access log."""

    connection: int
    """Unique for each connection, as long as nginx is not restarted."""

    nth: int
    """Which request of its connection it was, from 1."""

    at: float
    """When it was finished: Unix time in seconds."""

    seconds: float
    """How long it took."""

    status: int
    port: int
    protocol: str
    method: str
    target: str


class Nginx:
    """Runs from ``__enter__`` to ``__exit__``, at ports that stay the same over restarts.

    Attributes:
        url, tls_url: the same locations, plain and over TLS.
        few_url: closes each connection after its third request.
        impatient_url: closes connections after a second of idleness.
    """

    def __init__(self, folder: Path, authority: Authority, *, more: str = "") -> None:
        """Args: folder: an existing empty one. authority: issues the certificate for TLS. more: further servers."""
        self._folder = folder
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self._log: list[Logged] = []
        self._log_bytes = 0
        self.port, self.tls_port, self.few_port, self.impatient_port = free_ports(4)
        self.url = f"http://127.0.0.1:{self.port}"
        self.tls_url = f"https://127.0.0.1:{self.tls_port}"
        self.few_url = f"http://127.0.0.1:{self.few_port}"
        self.impatient_url = f"http://127.0.0.1:{self.impatient_port}"
        self._write_folder(authority)

    def hosts(self, count: int = HOSTS) -> list[str]:
        """URLs of `count` hosts, each with an address of its own (at most 300)."""
        return [f"http://{address}:{self.port}" for address in _addresses()[:count]]

    def log(self, prefix: str, at_least: int = 0) -> list[Logged]:
        """The finished requests to targets that begin with `prefix`, in the order they ended.

        nginx writes a line after the response: `at_least` waits for that many.
        """
        eventually(lambda: len(self._logged(prefix)) >= at_least)
        return self._logged(prefix)

    def connections(self, prefix: str, at_least: int = 0) -> set[int]:
        """The numbers of the connections that carried the requests of :meth:`log`."""
        return {line.connection for line in self.log(prefix, at_least)}

    def open_connections(self, port: int | None = None) -> int:
        """How many connections to `port` (default: the plain one) are established right now.

        It is the kernel's view of the server's side: one that the client closed is not counted.
        """
        suffix = f":{port or self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
        # A set: the table is read in pieces, between which a row may move.
        return len(
            {(local, remote) for _, local, remote, state, *_ in rows if local.endswith(suffix) and state == "01"}
        )

    def reload(self) -> None:
        """Load the configuration again: idle connections are closed, busy ones after their response."""
        old = self._workers()
        self._signal(signal.SIGHUP)
        eventually(lambda: self._workers() - old)
        eventually(lambda: all(_is_shutting_down(worker) for worker in old))

    def stop(self) -> None:
        """End it at once; connects are refused from then on, connections are closed."""
        process = self._running()
        process.terminate()
        process.wait(_STOP_SECONDS)
        self._process = None

    def kill(self) -> None:
        """Take master and workers their lives at once, as a crash would; what was being served is cut."""
        process = self._running()
        self._signal(signal.SIGSTOP)  # or it would replace the workers that are killed
        eventually(lambda: _state(process.pid) == "T")
        workers = self._workers()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait(_STOP_SECONDS)
        eventually(lambda: all(_state(worker) in "XZ" for worker in workers))  # they held the listening sockets
        self._process = None

    def start(self) -> None:
        """Start it again after :meth:`stop`; returns as soon as it accepts."""
        with (self._folder / "output").open("ab") as output:
            command = ["nginx", "-p", f"{self._folder}/", "-c", "nginx.conf", "-e", "error.log"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        eventually(self._accepts, _STOP_SECONDS)

    def restart(self) -> None:
        """Stop and start; connection numbers begin anew."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:  # a test may have stopped it
            self.stop()

    def _write_folder(self, authority: Authority) -> None:
        (self._folder / "temp").mkdir()
        files = self._folder / "static" / "bytes"
        files.mkdir(parents=True)
        for name, size in _SIZES.items():
            with (files / name).open("wb") as file:
                file.truncate(size)  # sparse: zeros that take no room
        values = {
            "USER": "user root;" if os.geteuid() == 0 else "",  # else its workers cannot enter the folder
            "PORT": self.port,
            "TLS_PORT": self.tls_port,
            "FEW_PORT": self.few_port,
            "IMPATIENT_PORT": self.impatient_port,
            "CERTIFICATE": authority.server_file(),
            "MORE": self._more,
            "HOSTS": "\n".join(f"listen {address}:{self.port};" for address in _addresses()),
        }
        for source, target in (("nginx.conf", "nginx.conf"), ("nginx_locations.conf", "locations.conf")):
            text = (_HERE / source).read_text("utf-8")
            for name, value in values.items():
                text = text.replace(f"@{name}@", str(value))
            (self._folder / target).write_text(text, "utf-8")

    def _logged(self, prefix: str) -> list[Logged]:
        with (self._folder / "access.log").open("rb") as file:
            file.seek(self._log_bytes)
            fresh, newline, _unfinished = file.read().rpartition(b"\n")
        self._log_bytes += len(fresh) + len(newline)
        self._log += [_parse(line) for line in fresh.decode("latin-1").splitlines()]
        return [line for line in self._log if line.target.startswith(prefix)]

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "nginx is stopped"
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._running().pid, number)

    def _workers(self) -> set[int]:
        pid = self._running().pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()}

    def _accepts(self) -> bool:
        if self._running().poll() is not None:
            errors = (self._folder / "output").read_text("utf-8", "replace")
            raise AssertionError(f"nginx did not start: {errors}")
        with (
            contextlib.suppress(ConnectionRefusedError),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection,
        ):
            connection.request("GET", "/ready")
            return connection.getresponse().read() == SMALL
        return False


def missing_nginx() -> bool:
    """Whether there is no nginx on this machine."""
    return shutil.which("nginx") is None


def _addresses() -> list[str]:
    return [f"127.0.{1 + n // 250}.{1 + n % 250}" for n in range(HOSTS)]


def _parse(line: str) -> Logged:
    connection, nth, at, seconds, status, port, protocol, method, target = line.split(" ", 8)
    return Logged(
        int(connection), int(nth), float(at), float(seconds), int(status), int(port), protocol, method, target
    )


def _is_shutting_down(pid: int) -> bool:
    try:
        return b"shutting down" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it is gone, or goes while it is read
        return True


def _state(pid: int) -> str:
    """A process's state in a letter, see proc(5): T is stopped, Z and X are dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, that no client gets, and that were never given out here before."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_OWN_PORTS)  # noqa: S311 - not a secret
        with socket.socket() as probe, contextlib.suppress(OSError):  # taken: try another
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                found.append(port)
    return found
