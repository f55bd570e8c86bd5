"""Hosts that do not answer: one that swallows connects, and one that refuses them.

A blackhole is a listening socket whose accept queue is full: Linux then drops each SYN,
so a connect hangs in SYN-SENT exactly as with a host that is switched off. It costs two
descriptors, no thread and no privilege.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tests.waiting import eventually

_QUEUED_OFFSET = 24
"""Where TCP_INFO of a listening socket has the length of its accept queue (tcpi_unacked)."""


class Blackhole:
    """Listens from ``__enter__`` to ``__exit__``, and accepts nothing until healed."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        """Args: host: a loopback address."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family)
        self._filler = socket.socket(family)
        self.host = host
        self.port = 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """An http URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def heal(self) -> None:
        """Let connects through from now on; nothing is ever read or answered.

        One that hangs already gets through with its next SYN: 1, 3 or 7 s after its first.
        """
        self._listener.listen(1024)

    def __enter__(self) -> Self:
        self._listener.bind((self.host, 0))
        self._listener.listen(0)  # room for one
        self.port = self._listener.getsockname()[1]
        self._filler.connect(self.address)
        eventually(self._is_full)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._filler.close()
        self._listener.close()

    def _is_full(self) -> bool:
        info = self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED_OFFSET + 4)
        queued: int = struct.unpack_from("=I", info, _QUEUED_OFFSET)[0]
        return queued > 0


@contextlib.contextmanager
def blackholes(count: int) -> Iterator[list[Blackhole]]:
    """Several blackholes, each at an address of its own: 127.0.9.1, 127.0.9.2, ..."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Blackhole(f"127.0.9.{n + 1}")) for n in range(count)]


@contextlib.contextmanager
def refusing_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port at which connects are refused, and which nobody else can take meanwhile."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        yield bound.getsockname()[1]
