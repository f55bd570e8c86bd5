"""No test leaves this machine: every connect and look-up of this process is judged first.

The methods of `socket.socket` and `socket.getaddrinfo` are wrapped once, before anything
that is under test is imported. An audit hook would need no wrapping, but CPython 3.11 runs
one, with the GIL to lose, inside `sys.settrace`; two threads that start at that moment under
a tracer then end with "another trace function is being installed".
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable

_RESERVED = ("localhost", ".localhost", ".invalid")
"""Names that can be looked up: RFC 6761 lets them reach nobody."""


class OutsideLoopback(AssertionError):
    """A test tried to reach another machine."""


class LoopbackGuard:
    """Refuses connects and look-ups that leave the machine, and remembers them.

    It remembers since code under test may well turn the refusal into an error of its own.
    """

    def __init__(self) -> None:
        """Start switched off, with nothing refused."""
        self.on = False
        self.refused: list[str] = []

    def connects(self, address: object) -> None:
        """Judge an address that is about to be connected or sent to.

        Raises:
            OutsideLoopback: it is not on this machine.
        """
        host = address[0] if isinstance(address, tuple) else None  # str and bytes: a Unix socket
        if host is not None and not _is_local(host):
            self._refuse("a connect to", host)

    def looks_up(self, host: object) -> None:
        """Judge a name that is about to be looked up.

        Raises:
            OutsideLoopback: a name server would be asked for it.
        """
        if host is not None and not _is_local(host) and not _is_literal(host):
            self._refuse("a look-up of", host)

    def _refuse(self, what: str, host: object) -> None:
        if self.on:
            self.refused.append(f"{what} {host!r}")
            raise OutsideLoopback(f"tests stay on loopback, but there was {what} {host!r}")


@functools.cache
def the_guard() -> LoopbackGuard:
    """The one guard of this process; the first call installs it."""
    guard = LoopbackGuard()
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, _judged(getattr(socket.socket, name), guard))
    lookup: Callable[..., object] = socket.getaddrinfo

    @functools.wraps(lookup)
    def getaddrinfo(host: object, *args: object, **kwargs: object) -> object:
        guard.looks_up(host)
        return lookup(host, *args, **kwargs)

    setattr(socket, "getaddrinfo", getaddrinfo)  # noqa: B010 - the wrapper has no such type
    return guard


def _judged(method: Callable[..., object], guard: LoopbackGuard) -> Callable[..., object]:
    """A socket's `method`, which takes the peer's address last, behind the guard."""

    @functools.wraps(method)
    def judged(self: socket.socket, *args: object) -> object:
        guard.connects(args[-1])
        return method(self, *args)

    return judged


def _is_local(host: object) -> bool:
    name = _text(host)
    if _is_literal(name):
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    return not name or name.lower().rstrip(".").endswith(_RESERVED)


def _is_literal(host: object) -> bool:
    # Resolving a literal asks nobody; connecting to it is judged by itself.
    try:
        ipaddress.ip_address(_text(host).partition("%")[0])
    except ValueError:
        return False
    return True


def _text(host: object) -> str:
    return host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
