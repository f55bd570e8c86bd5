"""No test leaves this machine: connects and look-ups are watched by an audit hook.

An audit hook sees every way to the socket module, C code of the standard library
included, and patches nothing. It can never be removed, so there is one for the process,
and it is switched on and off.
"""

from __future__ import annotations

import functools
import ipaddress
import sys

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

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        """Judge one audit event; runs in the thread that caused it.

        Raises:
            OutsideLoopback: the event would leave the machine.
        """
        if not self.on or not event.startswith("socket."):
            return
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = args[1]
            host = address[0] if isinstance(address, tuple) else None  # str: a Unix socket
            allowed = host is None or _is_local(host)
        elif event == "socket.getaddrinfo":
            host = args[0]
            allowed = host is None or _is_local(host) or _is_literal(host)
        else:
            return
        if not allowed:
            self.refused.append(f"{event} {host!r}")
            raise OutsideLoopback(f"tests stay on loopback, but there was {event} to {host!r}")


@functools.cache
def the_guard() -> LoopbackGuard:
    """The one guard of this process; the first call installs it."""
    guard = LoopbackGuard()
    sys.addaudithook(guard.hook)
    return guard


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
