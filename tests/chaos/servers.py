"""The peers of a chaos run: a real nginx that can be killed, and a process that counts POSTs and spoils connections."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.servers.certs import Authority
from tests.servers.nginx import Nginx, free_ports

ROOT = Path(__file__).parents[2]
_HERE = Path(__file__).parent
_GRACEFUL_SECONDS = 30.0


class Body(NamedTuple):
    """What a complete body must be."""

    size: int
    crc: int

    @classmethod
    def of(cls, content: bytes) -> Body:
        """What `content` is."""
        return cls(len(content), zlib.crc32(content))


class Urls(NamedTuple):
    """Where one version of HTTP is spoken."""

    plain: str
    few: str
    impatient: str
    tls: str


class ChaosNginx(Nginx):
    """An nginx that echoes nonces and serves random files.

    Attributes:
        urls: its servers, by the version they speak.
        bodies: the files, by name, below /files/, /chunked/, /gzip/ and /slow/.
        log_file: a line for each finished request: method and nonce.
        tally_file: a line for each request that reached the tally, the same.
        tally_socket: where nginx looks for the tally.
    """

    def __init__(self, folder: Path, authority: Authority, rng: random.Random) -> None:
        """Args: folder: an existing empty one. authority: issues the certificate. rng: makes the files."""
        self.log_file = folder / "access.log"
        self.tally_file = folder / "tally.log"
        self.tally_socket = folder / "tally.sock"
        self.bodies: dict[str, Body] = {}
        self.urls: dict[str, Urls] = {}
        self._rng = rng
        super().__init__(folder, authority)

    def quit(self) -> None:
        """End it gracefully: connects are refused at once, what is being served is finished first."""
        process = self._running()
        process.send_signal(signal.SIGQUIT)
        process.wait(_GRACEFUL_SECONDS)
        self._process = None

    def _write_folder(self, authority: Authority) -> None:
        (self._folder / "temp").mkdir()
        files = self._folder / "static" / "files"
        files.mkdir(parents=True)
        contents = {"1k": self._rng.randbytes(1 << 10), "64k": self._rng.randbytes(1 << 16)}
        contents |= {"1m": self._rng.randbytes(1 << 20), "text": self._rng.randbytes(1 << 15).hex().encode()}
        for name, content in contents.items():
            (files / name).write_bytes(content)
            self.bodies[name] = Body.of(content)
        ports = (self.port, self.few_port, self.impatient_port, self.tls_port)
        h2_ports = tuple(port for port in free_ports(8) if port not in ports)[:4]
        self.urls = {"1.1": _urls(*ports), "2": _urls(*h2_ports)}
        names = ("PORT", "FEW_PORT", "IMPATIENT_PORT", "TLS_PORT")
        values = {
            **{f"H2_{name}": port for name, port in zip(names, h2_ports, strict=True)},
            **dict(zip(names, ports, strict=True)),
            "USER": "user root;" if os.geteuid() == 0 else "",  # else its workers cannot enter the folder
            "CERTIFICATE": authority.server_file(),
            "TALLY": self.tally_socket,
        }
        for name in ("nginx.conf", "locations.conf"):
            text = (_HERE / name).read_text("utf-8")
            for word, value in values.items():
                text = text.replace(f"@{word}@", str(value))
            (self._folder / name).write_text(text, "utf-8")


class Peers:
    """The process of :mod:`tests.chaos.peers`, from ``__enter__`` to ``__exit__``."""

    def __init__(self, nginx: ChaosNginx, seed: int) -> None:
        ports = (urls.plain.rpartition(":")[2] for urls in nginx.urls.values())
        self._command = [
            sys.executable, "-m", "tests.chaos.peers", "--socket", str(nginx.tally_socket),
            "--log", str(nginx.tally_file), "--seed", str(seed), "--ports", *ports,
        ]  # fmt: skip
        self._versions = list(nginx.urls)
        self._process: subprocess.Popen[str]
        self.proxy_urls: dict[str, str] = {}
        """Of the proxy before nginx's plain server, by version."""

    def calm(self) -> dict[str, int]:
        """Spoil nothing from now on; returns what the proxy did until now."""
        told: dict[str, int] = json.loads(self._tell("calm\n"))
        return told

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        ports: list[int] = json.loads(self._tell(""))
        self.proxy_urls = {version: _url(port) for version, port in zip(self._versions, ports, strict=True)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the process ends when nobody can tell it anything any more
        self._process.wait(_GRACEFUL_SECONDS)
        self._process.stdout.close()

    def _tell(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the peers' process ended"
        return answer


def _url(port: int, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{port}"


def _urls(plain: int, few: int, impatient: int, tls: int) -> Urls:
    return Urls(_url(plain), _url(few), _url(impatient), _url(tls, "https"))
