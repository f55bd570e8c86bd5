"""A server that is being killed: its connections end before its listening socket does."""

from __future__ import annotations

import select
import socket
import threading

import pytest

from tests.faults.aftermath import NEXT
from tests.integration.gone import SOON, pool
from tests.servers.wire import respond
from turbopool import Client
from turbopool.transport import attempt


def test_who_reconnects_to_a_dying_server_is_not_lost_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """BEH-R10, I10: the kernel lets a client in that nobody will ever serve; nothing is sent there."""
    monkeypatch.setattr(attempt, "SETTLING", 0.5)
    ended = threading.Event()

    def live(listener: socket.socket) -> None:
        served, _ = listener.accept()
        served.recv(65_536)
        served.sendall(respond(NEXT))
        served.recv(65_536)
        served.close()
        select.select([listener], [], [], 5)  # the client is back, and in the kernel's queue
        ended.wait(0.1)  # in which a hasty client sends its request
        listener.close()
        ended.set()

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = threading.Thread(target=live, args=(listener,))
    server.start()
    with Client(base_url=f"http://127.0.0.1:{port}", reconnect=SOON) as client:
        client.get("/warm")
        future = client.send_async("GET", "/x", timeout=10)
        assert ended.wait(5)
        server.join()
        with socket.create_server(("127.0.0.1", port)) as again:
            again.settimeout(5)
            served, _ = again.accept()
            with served:
                served.recv(65_536)
                served.sendall(respond(NEXT))
                assert future.result().content == NEXT
                assert (pool(client).replays, pool(client).state) == (1, "open")
