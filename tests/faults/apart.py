"""What test_namespaces.py runs, each function in a network of its own; see tests.servers.namespace."""

from __future__ import annotations

import errno
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.face.handlers import Gate
from tests.faults.aftermath import NEXT, healthy
from tests.faults.names import Names, install
from tests.servers.connection import Conn
from tests.servers.namespace import ip, main
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.transport.lookups import ipv4
from tests.waiting import SPENT, eventually
from turbopool import Client, ConnectError, DeadlineExceeded, ReconnectOptions, ResourceError
from turbopool.transport import attempt

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_PORTS = 4
_HASTY = (socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 1)
_SOON = ReconnectOptions(wait=wait_fixed(0.1), stop=stop_after_attempt(100))


def routes() -> None:
    """FLT-N3: each refusal of the kernel is an error at once, and the other address is tried."""
    refusals = {"unreachable": errno.EHOSTUNREACH, "prohibit": errno.EACCES, "blackhole": errno.EINVAL}
    for n, kind in enumerate(refusals):
        ip("route", "add", kind, f"10.9.9.{n}")
    with RawServer(healthy) as server, pytest.MonkeyPatch.context() as patch:
        names = Names()
        install(patch, names)
        for n, (kind, number) in enumerate({**refusals, "no route": errno.ENETUNREACH}.items()):
            began = time.monotonic()
            with Client(connect_timeout=30) as client:
                with pytest.raises(ConnectError) as caught:
                    client.get(f"http://10.9.9.{n}:{server.port}/")
                assert caught.value.errno == number, kind
                names.addresses = [ipv4(server.port, f"10.9.9.{n}"), ipv4(server.port)]
                assert client.get("http://two.invalid/").content == NEXT
            assert time.monotonic() - began < SPENT, kind


def ports() -> None:
    """FLT-N18: no port left for a further connection; cold, and then while connections serve."""
    connects: list[object] = []
    plain = socket.socket.connect

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        connects.append(address)
        plain(self, address)

    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"50000 {50000 + _PORTS - 1}", "ascii")
    gate = Gate(respond(NEXT))
    with RawServer(gate, port=20_000) as server, Client(base_url=server.url) as client:
        with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
            for _ in range(_PORTS):
                taken = stack.enter_context(socket.create_connection(server.address))
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            patch.setattr(socket.socket, "connect", connect)
            _assert_no_port(client, connects)
        server.wait_until(lambda server: server.open == 0)

        futures = [client.send_async("GET", "/x") for _ in range(_PORTS)]
        server.wait_for_requests(_PORTS)  # at once: nothing was held against the host
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket.socket, "connect", connect)
            _assert_no_port(client, connects)
        assert not any(future.done() for future in futures)
        gate.opened.set()
        assert all(future.result(30).content == NEXT for future in futures)
        assert client.get("/x").content == NEXT
        eventually(lambda: client.stats().idle == _PORTS)
        (pool,) = client.stats().pools.values()
        assert (pool.opened, pool.closed, pool.failed, pool.state) == (_PORTS, 0, 6, "open")


def _assert_no_port(client: Client, connects: list[object]) -> None:
    """Three requests make three connects, and then it is quiet."""
    connects.clear()
    (state,) = [pool.state for pool in client.stats().pools.values()] or ["cold"]
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(ResourceError) as caught:
            client.get("/fast")
        assert time.monotonic() - began < SPENT
        error = caught.value
        assert error.errno == errno.EADDRNOTAVAIL
        assert (error.phase, error.processed, error.request_sent, error.may_retry) == ("connect", "no", False, True)
    spent = time.process_time()
    time.sleep(0.3)  # in which nothing may happen
    assert time.process_time() - spent < 0.1
    assert len(connects) == 3
    (pool,) = client.stats().pools.values()
    assert (pool.state, pool.waiting, pool.connecting) == (state, 0, 0)


def silence() -> None:
    """FLT-N12: the network swallows everything: one request waits, one is sent then, and one connection is idle."""

    def handler(conn: Conn) -> None:
        while True:
            target = conn.read_request().target
            if [request.target for request in server.requests].count("/waits") == 1:
                conn.hold()
            conn.send(respond(target.encode()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempt, "_PROBES", _HASTY)
        with RawServer(handler) as server, Client(base_url=server.url, reconnect=_SOON) as client:
            client.warm_up(server.url, connections=3)
            client.get("/first")
            waits = client.send_async("GET", "/waits")
            server.wait_for_requests(2)
            eventually(lambda: client.stats().idle == 2 and _is_acknowledged())
            ip("link", "set", "lo", "down")
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                client.get("/into-silence", timeout=0.3)
            assert (caught.value.phase, caught.value.processed) == ("wait", "maybe")
            eventually(lambda: (client.stats().idle, client.stats().leased) == (0, 0), timeout=30)
            assert 1 < time.monotonic() - began < 6 + SPENT
            assert not waits.done()
            ip("link", "set", "lo", "up")

            assert waits.result(30).content == b"/waits"
            assert client.get("/last").content == b"/last"
            assert (client.stats().replays, client.stats().closed) == (1, 3)


def _is_acknowledged() -> bool:
    """Whether no socket of this network has sent what its peer did not acknowledge."""
    rows = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    return all(row.split()[4].startswith("00000000:") for row in rows)


if __name__ == "__main__":
    main(globals())
