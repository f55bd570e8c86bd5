from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.loopback import LoopbackGuard, OutsideLoopback, the_guard


@pytest.fixture
def guard() -> LoopbackGuard:
    """A guard that wraps nothing, and judges what the test hands it."""
    guard = LoopbackGuard()
    guard.on = True
    return guard


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 80), ("127.9.9.9", 80), ("::1", 80, 0, 0), ("localhost", 80), "/run/socket", b"\0name"]
)
def test_connect_within_the_machine_is_allowed(guard: LoopbackGuard, address: object) -> None:
    guard.connects(address)

    assert guard.refused == []


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0), ("example.com", 80)])
def test_connect_elsewhere_is_refused_and_remembered(guard: LoopbackGuard, address: object) -> None:
    with pytest.raises(OutsideLoopback):
        guard.connects(address)

    assert len(guard.refused) == 1


@pytest.mark.parametrize("host", [None, "", "localhost", b"127.0.0.1", "192.0.2.1", "nobody.invalid", "a.localhost"])
def test_names_that_reach_nobody_may_be_looked_up(guard: LoopbackGuard, host: object) -> None:
    guard.looks_up(host)

    assert guard.refused == []


def test_other_names_may_not_be_looked_up(guard: LoopbackGuard) -> None:
    with pytest.raises(OutsideLoopback):
        guard.looks_up("example.com")


def test_guard_that_is_off_judges_nothing(guard: LoopbackGuard) -> None:
    guard.on = False

    guard.connects(("192.0.2.1", 80))
    guard.looks_up("example.com")

    assert guard.refused == []


@pytest.mark.parametrize("way", ["connect", "connect_ex", "sendto", "getaddrinfo"])
def test_every_way_out_of_a_socket_is_judged(way: str) -> None:
    kind = socket.SOCK_DGRAM if way == "sendto" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as plain:
        ways: dict[str, Callable[[], object]] = {
            "connect": lambda: plain.connect(("192.0.2.1", 9)),
            "connect_ex": lambda: plain.connect_ex(("192.0.2.1", 9)),
            "sendto": lambda: plain.sendto(b"x", ("192.0.2.1", 9)),
            "getaddrinfo": lambda: socket.getaddrinfo("example.com", 80),
        }
        with pytest.raises(OutsideLoopback):
            ways[way]()
    the_guard().refused.clear()  # which was this test's purpose
