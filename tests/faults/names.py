"""Names whose addresses a test decides, for a real client."""

from __future__ import annotations

import functools
import socket
from typing import Any

import pytest

from turbopool.actors import hub
from turbopool.transport.resolver import Address, Lookup, Resolver


class Names:
    """What the name server says now: to every name, these addresses; with none, that it does not exist."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.asked: list[str] = []
        """Every name that was looked up, in order."""

    def __call__(self, host: str, port: int, **hints: object) -> list[tuple[Any, ...]]:
        """Do what `socket.getaddrinfo` does; an address without a port, 0, gets the one asked for."""
        del hints
        self.asked.append(host)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (place, own or port, *rest))
            for family, (place, own, *rest) in self.addresses
        ]


def install(monkeypatch: pytest.MonkeyPatch, lookup: Lookup) -> None:
    """Have the clients made from now on look their names up here; call it before the first request of all."""
    assert hub.live_hubs() == [], "a dispatcher that runs has its resolver already"
    monkeypatch.setattr(hub, "Resolver", functools.partial(Resolver, lookup=lookup))
