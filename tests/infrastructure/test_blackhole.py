from __future__ import annotations

import contextlib
import select
import socket

from tests.servers.blackhole import Blackhole, blackholes


def _connecting(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        sock.connect(address)
    return sock


def test_connects_hang_over_several_syn_retries_in_twenty_hosts_at_once() -> None:
    with blackholes(20) as hosts, contextlib.ExitStack() as socks:
        poller = select.poll()
        for host in hosts:
            for _ in range(2):
                poller.register(socks.enter_context(_connecting(host.address)), select.POLLOUT)

        assert poller.poll(3500) == []  # SYNs go out at 0, 1 and 3 s

    assert len({host.address for host in hosts}) == 20


def test_healed_host_lets_a_hanging_connect_through_and_new_ones_at_once() -> None:
    with Blackhole() as host, _connecting(host.address) as hanging:
        poller = select.poll()
        poller.register(hanging, select.POLLOUT)
        assert poller.poll(100) == []

        host.heal()

        with socket.create_connection(host.address, timeout=20):
            assert poller.poll(30_000) == [(hanging.fileno(), select.POLLOUT)]
