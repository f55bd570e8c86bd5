"""Clients that are disposed by finalizers, on whatever thread those run."""

from __future__ import annotations

import threading

from tests.face.handlers import Gate
from tests.servers.raw import RawServer
from tests.waiting import eventually
from turbopool import Client, Request


class Service:
    """Disposes its client when nobody needs it any more."""

    def __init__(self, url: str, ended: list[str]) -> None:
        self.client = Client(base_url=url)
        self._ended = ended

    def __del__(self) -> None:
        self.client.dispose()
        self._ended.append(threading.current_thread().name)


def _begin(url: str, ended: list[str], count: int) -> None:
    """Send requests that alone keep the service alive, and forget everything."""
    service = Service(url, ended)
    for n in range(count):
        service.client.send_async(Request("GET", f"/{n}", extensions={"service": service}))


def test_the_last_reference_to_a_client_may_be_dropped_by_the_dispatcher() -> None:
    """BEH-C13: it never waits for itself, and nothing is left."""
    gate, ended = Gate(), list[str]()
    with RawServer(gate) as server:
        _begin(server.url, ended, 3)
        server.wait_for_requests(3)
        gate.opened.set()

        eventually(lambda: ended)
        server.wait_until(lambda server: server.open == 0)
    assert ended == ["turbopool-dispatcher"]


def test_several_clients_may_be_dropped_by_one_dispatcher() -> None:
    """BEH-C13."""
    gate, ended = Gate(), list[str]()
    with RawServer(gate) as server:
        for _ in range(5):
            _begin(server.url, ended, 1)
        server.wait_for_requests(5)
        gate.opened.set()

        eventually(lambda: len(ended) == 5)
        server.wait_until(lambda server: server.open == 0)
