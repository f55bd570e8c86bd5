from __future__ import annotations

import pytest

from tests.loopback import LoopbackGuard, OutsideLoopback


@pytest.fixture
def guard() -> LoopbackGuard:
    """A guard that is no audit hook, and judges what the test hands it."""
    guard = LoopbackGuard()
    guard.on = True
    return guard


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 80), ("127.9.9.9", 80), ("::1", 80, 0, 0), ("localhost", 80), "/run/socket", b"\0name"]
)
def test_connect_within_the_machine_is_allowed(guard: LoopbackGuard, address: object) -> None:
    guard.hook("socket.connect", (None, address))

    assert guard.refused == []


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0), ("example.com", 80)])
@pytest.mark.parametrize("event", ["socket.connect", "socket.sendto"])
def test_connect_elsewhere_is_refused_and_remembered(guard: LoopbackGuard, event: str, address: object) -> None:
    with pytest.raises(OutsideLoopback):
        guard.hook(event, (None, address))

    assert len(guard.refused) == 1


@pytest.mark.parametrize("host", [None, "", "localhost", b"127.0.0.1", "192.0.2.1", "nobody.invalid", "a.localhost"])
def test_names_that_reach_nobody_may_be_looked_up(guard: LoopbackGuard, host: object) -> None:
    guard.hook("socket.getaddrinfo", (host, 80, 0, 0, 0))

    assert guard.refused == []


def test_other_names_may_not_be_looked_up(guard: LoopbackGuard) -> None:
    with pytest.raises(OutsideLoopback):
        guard.hook("socket.getaddrinfo", ("example.com", 80, 0, 0, 0))


def test_guard_that_is_off_judges_nothing(guard: LoopbackGuard) -> None:
    guard.on = False

    guard.hook("socket.connect", (None, ("192.0.2.1", 80)))

    assert guard.refused == []
