from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Literal

import pytest

from tests.servers.connection import Conn
from tests.servers.proxy import ChaosProxy, Faults
from tests.servers.raw import RawServer
from tests.waiting import eventually


def _echo(conn: Conn) -> None:
    while data := conn.recv():
        conn.send(data)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer(_echo) as server:
        yield server


def _exchange(proxy: ChaosProxy, data: bytes) -> bytes:
    with socket.create_connection(proxy.address, timeout=10) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_bytes_and_half_closes_pass_both_ways(server: RawServer) -> None:
    data = bytes(range(256)) * 2000
    with ChaosProxy(server.address) as proxy:
        assert _exchange(proxy, data) == data

    assert (proxy.counters.bytes_up, proxy.counters.bytes_down) == (len(data), len(data))
    assert proxy.counters.connections == 1


def test_bytes_are_sliced_and_delayed(server: RawServer) -> None:
    with ChaosProxy(server.address, down=Faults(slice_bytes=1, latency=0.01)) as proxy:
        began = time.monotonic()

        assert _exchange(proxy, b"0123456789") == b"0123456789"

    assert time.monotonic() - began >= 0.1
    assert (proxy.counters.segments_up, proxy.counters.segments_down) == (1, 10)


def test_stream_stalls_after_so_many_bytes(server: RawServer) -> None:
    with (
        ChaosProxy(server.address, down=Faults(stall_after=4)) as proxy,
        socket.create_connection(proxy.address, timeout=10) as sock,
    ):
        sock.sendall(b"0123456789")
        assert sock.recv(4, socket.MSG_WAITALL) == b"0123"
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)

    assert proxy.counters.stalls == 1


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_stream_is_cut_after_so_many_bytes(server: RawServer, how: Literal["fin", "rst"]) -> None:
    with ChaosProxy(server.address, down=Faults(cut_after=4, cut_with=how)) as proxy:
        with socket.create_connection(proxy.address, timeout=10) as sock:
            sock.sendall(b"0123456789")
            assert sock.recv(4, socket.MSG_WAITALL) == b"0123"
            _assert_ended(sock, how)
        server.wait_until(lambda server: server.open == 0)

    assert proxy.counters.cuts == 1


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_all_connections_are_cut_at_once_even_those_that_take_nothing(
    server: RawServer, how: Literal["fin", "rst"]
) -> None:
    with ChaosProxy(server.address) as proxy:
        with socket.create_connection(proxy.address, timeout=10) as idle, _flooded(proxy):
            eventually(lambda: proxy.counters.connections == 2)
            server.wait_for_connections(2)

            proxy.cut_all(how)

            _assert_ended(idle, how)
        server.wait_until(lambda server: server.open == 0)

    assert proxy.counters.cuts == 2


def test_fault_changed_while_running_counts_for_later_connections(server: RawServer) -> None:
    with ChaosProxy(server.address) as proxy:
        assert _exchange(proxy, b"0123") == b"0123"
        proxy.down = Faults(cut_after=2)
        assert _exchange(proxy, b"0123") == b"01"


def test_proxy_that_refuses_and_a_server_that_is_gone(server: RawServer) -> None:
    with ChaosProxy(server.address) as proxy:
        server.refuse()
        with socket.create_connection(proxy.address, timeout=10) as sock:
            assert sock.recv(1) == b""
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address)


def _flooded(proxy: ChaosProxy) -> socket.socket:
    """A client that sends until nothing more fits, and reads nothing."""
    sock = socket.create_connection(proxy.address, timeout=0.3)
    with pytest.raises(TimeoutError):
        sock.sendall(bytes(256 << 20))
    return sock


def _assert_ended(sock: socket.socket, how: Literal["fin", "rst"]) -> None:
    if how == "fin":
        assert sock.recv(1) == b""
    else:
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
