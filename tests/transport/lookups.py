"""Look-ups that a test answers: what `getaddrinfo` is to the resolver."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

from turbopool.transport.resolver import Address


def ipv4(port: int, host: str = "127.0.0.1") -> Address:
    """An IPv4 address."""
    return socket.AF_INET, (host, port)


def ipv6(port: int, host: str = "::1") -> Address:
    """An IPv6 address."""
    return socket.AF_INET6, (host, port, 0, 0)


UNREACHABLE = ipv4(9, "127.255.255.255")
"""A broadcast address: the kernel refuses to connect to it at once, with ENETUNREACH."""


class ScriptedLookup:
    """Answers at once, or hangs until it is let go; remembers who was asked for."""

    def __init__(self, answer: Sequence[Address] | Exception = (), *, hangs: bool = False) -> None:
        """Args: answer: for every name; an exception is raised instead."""
        self._answer = answer
        self.go = threading.Event()
        """Set it to let all that hang, and all that come later, have their answer."""
        if not hangs:
            self.go.set()
        self._changed = threading.Condition()
        self.asked: list[tuple[str, int]] = []
        self.present = 0
        self.peak = 0
        """The most look-ups that ran at once."""

    def __call__(self, host: str, port: int, **hints: object) -> list[tuple[Any, ...]]:
        """Do what `socket.getaddrinfo` does, on the resolver's thread."""
        assert hints == {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}
        with self._changed:
            self.asked.append((host, port))
            self.present += 1
            self.peak = max(self.peak, self.present)
            self._changed.notify_all()
        assert self.go.wait(30)
        with self._changed:
            self.present -= 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for family, address in self._answer]

    def wait_until_present(self, count: int) -> None:
        """Wait until so many look-ups are under way."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.present >= count, 10), f"{self.present} of {count} look-ups"
