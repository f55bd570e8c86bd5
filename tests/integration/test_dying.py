"""A server that is being killed: its connections end before its listening socket does."""

from __future__ import annotations

import select
import socket
import threading
import time

import pytest

from tests.faults.aftermath import NEXT
from tests.integration.gone import SOON, pool
from tests.servers.wire import respond
from tests.waiting import reached, with_short_times
from turbopool import Client
from turbopool.transport import attempt


@with_short_times
def test_who_reconnects_to_a_dying_server_is_not_lost_with_it(monkeypatch: pytest.MonkeyPatch, short: float) -> None:
    """BEH-R10, I10: the kernel lets a client in that nobody will ever serve; nothing is sent there."""
    settling = min(5 * short, 10.0)
    monkeypatch.setattr(attempt, "SETTLING", settling)
    ended = threading.Event()
    took: list[float] = []

    def live(listener: socket.socket) -> None:
        served, _ = listener.accept()
        served.recv(65_536)
        served.sendall(respond(NEXT))
        served.recv(65_536)
        served.close()
        began = time.monotonic()
        select.select([listener], [], [], 30)  # the client is back, and in the kernel's queue
        ended.wait(0.1)  # in which a hasty client sends its request
        listener.close()
        took.append(time.monotonic() - began)
        ended.set()

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = threading.Thread(target=live, args=(listener,))
    server.start()
    with Client(base_url=f"http://127.0.0.1:{port}", reconnect=SOON) as client:
        client.get("/warm")
        future = client.send_async("GET", "/x", timeout=60)
        assert ended.wait(30)
        server.join()
        if took[0] >= settling:
            future.cancel()
        reached(took[0] < settling)
        with socket.create_server(("127.0.0.1", port)) as again:
            again.settimeout(30)
            served, _ = again.accept()
            with served:
                served.recv(65_536)
                served.sendall(respond(NEXT))
                assert future.result().content == NEXT
                assert (pool(client).replays, pool(client).state) == (1, "open")
