"""A TCP proxy that spoils what passes: delays, small segments, stalls and cuts.

Put it between the client and a real server. Each fault it injected is counted, so that a
test can show that the fault did happen. Half-closes and resets are passed on.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from tests.servers.listening import Listener

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_RELAY_BYTES = 65536
_LOOK_UP_SECONDS = 0.2
"""How often a relay looks whether its pair is ended while a peer takes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to the bytes of one direction of each connection."""

    latency: float = 0.0
    """Seconds to wait before each segment is passed on."""

    slice_bytes: int = _RELAY_BYTES
    """The largest segment that is passed on at once."""

    stall_after: int | None = None
    """Pass on this many bytes, then nothing more, and leave the connection open."""

    cut_after: int | None = None
    """Pass on this many bytes, then end both sides of the connection."""

    cut_with: Literal["fin", "rst"] = "fin"
    """How the connection is ended."""


@dataclass(slots=True)
class Counters:
    """What a proxy did so far, over all connections."""

    connections: int = 0
    bytes_up: int = 0
    """Passed on from clients to the server."""
    bytes_down: int = 0
    """Passed on from the server to clients."""
    segments_up: int = 0
    segments_down: int = 0
    stalls: int = 0
    cuts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **amounts: int) -> None:
        """Add to the counters named; from any thread."""
        with self.lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)


class ChaosProxy:
    """Passes connections on to `target` from ``__enter__`` to ``__exit__``."""

    def __init__(self, target: tuple[str, int], *, up: Faults | None = None, down: Faults | None = None) -> None:
        """Listen at once.

        Args:
            target: host and port of the real server.
            up: faults of what clients send.
            down: faults of what the server answers.
        """
        self._target = target
        self._listener = Listener(self._serve)
        self._lock = threading.Lock()
        self._pairs: list[_Pair] = []
        self.up = up or Faults()
        """May be changed at any time; it counts for connections made later."""
        self.down = down or Faults()
        """As `up`."""
        self.counters = Counters()
        self.port = self._listener.port

    @property
    def url(self) -> str:
        """An http URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self.port

    def cut_all(self, how: Literal["fin", "rst"] = "rst") -> None:
        """End every connection that is open now, on both sides."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.end(how)
            self.counters.add(cuts=1)

    def refuse(self) -> None:
        """Refuse further connects; what was accepted lives on."""
        self._listener.refuse()

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.closing.set()
        self._listener.refuse()
        with self._lock:
            for pair in self._pairs:
                pair.end("fin")
        self._listener.join()

    def _serve(self, client: socket.socket, number: int) -> None:
        with client, contextlib.suppress(ConnectionError), socket.create_connection(self._target, 10) as server:
            self.counters.add(connections=1)
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.append(pair)
            if self._listener.closing.is_set():  # too late for __exit__ to see it
                pair.end("fin")
            upward = threading.Thread(
                target=self._relay, args=(pair, self.up, "up"), name=f"upward-{self.port}-{number}", daemon=True
            )
            upward.start()
            self._relay(pair, self.down, "down")
            upward.join()
            with self._lock, contextlib.suppress(ValueError):  # cut_all() took it out
                self._pairs.remove(pair)

    def _relay(self, pair: _Pair, faults: Faults, way: Literal["up", "down"]) -> None:
        source, sink = (pair.client, pair.server) if way == "up" else (pair.server, pair.client)
        passed = 0
        try:
            while data := pair.receive(source, faults.slice_bytes):
                self._listener.closing.wait(faults.latency)
                data = data[: _room(faults, passed)]
                pair.send(sink, data)
                passed += len(data)
                self.counters.add(**{f"bytes_{way}": len(data), f"segments_{way}": 1 if data else 0})
                if _room(faults, passed) == 0:
                    self._spoil(pair, faults, passed)
                    return
            if not pair.ended.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side was reset: so is the other
            pair.end("rst")

    def _spoil(self, pair: _Pair, faults: Faults, passed: int) -> None:
        if faults.cut_after is not None and passed >= faults.cut_after:
            self.counters.add(cuts=1)
            pair.end(faults.cut_with)
        else:
            self.counters.add(stalls=1)
            pair.ended.wait()


class _Pair:
    """The two sockets of one connection; closed by the thread that serves it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.ended = threading.Event()
        for sock in (client, server):
            sock.settimeout(_LOOK_UP_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self, source: socket.socket, size: int) -> bytes:
        """The next bytes; empty if there are no more, or the pair is ended."""
        while not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                return source.recv(size)
        return b""

    def send(self, sink: socket.socket, data: bytes) -> None:
        """Pass on all of `data`, or less if the pair is ended meanwhile."""
        while data and not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                data = data[sink.send(data) :]

    def end(self, how: Literal["fin", "rst"]) -> None:
        """End both relays; the first call decides how both sides see it."""
        if self.ended.is_set():
            return
        self.ended.set()
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):  # closed or reset by its peer
                if how == "rst":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                # Receiving only: a FIN now would come before the RST that closing sends.
                sock.shutdown(socket.SHUT_RD if how == "rst" else socket.SHUT_RDWR)


def _room(faults: Faults, passed: int) -> int:
    limits = [limit for limit in (faults.stall_after, faults.cut_after) if limit is not None]
    return max(0, min(limits) - passed) if limits else _RELAY_BYTES
