"""FLT-N8, BEH-R11: servers that close idle connections whenever they like; nobody who sends requests notices."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import cast

import psutil
import pytest

from tests.faults.aftermath import NEXT, assert_recovered, healthy
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.nginx import SMALL, Nginx
from tests.servers.raw import Handler, RawServer
from tests.servers.wire import respond
from tests.waiting import eventually
from turbopool import Client, ClientOptions, ReadError, RemoteProtocolError, WriteError

END: dict[str, Callable[[Conn], None]] = {"fin": Conn.close, "rst": Conn.reset, "cut": Conn.cut}
PROBES = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
MANY = 10_000
ONE_IN_TEN = 0.1


def fickle(seed: int) -> Handler:
    """A handler that closes its connection after a tenth of its responses, at random, by FIN or RST."""
    chance = random.Random(seed)  # noqa: S311  # the same every time; one connection is served at a time
    lock = threading.Lock()

    def handler(conn: Conn) -> None:
        while True:
            conn.read_request()
            with lock:
                fate = chance.random()
            conn.send(respond(NEXT))
            if fate < ONE_IN_TEN:
                END["fin" if fate < ONE_IN_TEN / 2 else "rst"](conn)
                return

    return handler


def visits(server: RawServer) -> Counter[str]:
    """Return how often each target was seen."""
    return Counter(request.target for request in server.requests)


def is_settled(client: Client, server: RawServer) -> bool:
    """Whether nothing is under way, and what the client has open is what the server has."""
    stats = client.stats()
    return (stats.leased, stats.waiting, stats.connecting) == (0, 0, 0) and (
        stats.opened - stats.closed == stats.idle == server.open
    )


@pytest.mark.slow
def test_ten_thousand_gets_meet_no_error_though_every_tenth_connection_closes() -> None:
    """FLT-N8, I10: seen once or twice each, and none in vain."""
    with RawServer(fickle(seed=8)) as server, Client(base_url=server.url) as client:
        for n in range(MANY):
            assert client.get(f"/{n}").content == NEXT

        counts = visits(server)
        assert set(counts) == {f"/{n}" for n in range(MANY)}
        assert max(counts.values()) <= 2
        assert len(server.connections) > MANY * ONE_IN_TEN / 2
        replays = sum(counts.values()) - MANY
        assert replays <= client.stats().replays  # one that met the close as well was never seen
        eventually(lambda: is_settled(client, server))


@pytest.mark.slow
def test_ten_thousand_posts_are_never_seen_twice() -> None:
    """FLT-N8, I9: one may meet each close on its way; its error says that nobody knows what became of it."""
    lost: list[str] = []
    with RawServer(fickle(seed=9)) as server, Client(base_url=server.url) as client:
        for n in range(MANY):
            error = client.send_async("POST", f"/{n}", content=b"x").exception(30)
            if error is not None:
                assert isinstance(error, RemoteProtocolError | ReadError | WriteError)
                assert (error.processed, error.may_retry, error.attempts) == ("maybe", False, 1)
                lost.append(f"/{n}")

        counts = visits(server)
        assert max(counts.values()) == 1
        assert set(counts) | set(lost) == {f"/{n}" for n in range(MANY)}
        closes = len(server.connections)
        assert closes > MANY * ONE_IN_TEN / 2
        assert len(lost) <= closes, f"{len(lost)} of {MANY} were lost at {closes} closes"
        eventually(lambda: is_settled(client, server))


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("secure", [False, True], ids=["clear", "tls"])
def test_a_close_is_noticed_while_the_connection_stands_idle_and_nothing_is_dialed(
    authority: Authority,
    secure: bool,  # noqa: FBT001
    end: str,
) -> None:
    """FLT-N8, BEH-R4, R11: no request is spent on finding out."""
    go = threading.Event()

    def first(conn: Conn) -> None:
        conn.read_request()
        conn.send(respond(NEXT))
        assert go.wait(30)
        END[end](conn)

    context = authority.server_context() if secure else None
    with (
        RawServer([first, healthy], ssl_context=context) as server,
        Client(base_url=server.url, verify=authority.ca_file) as client,
    ):
        client.get("/1")
        assert client.stats().idle == 1
        go.set()

        eventually(lambda: (client.stats().idle, client.stats().closed) == (0, 1))

        assert (client.stats().connecting, client.stats().reconnects) == (0, 0)
        assert len(server.connections) == 1
        assert client.post("/2").content == NEXT
        assert [(request.target, request.connection) for request in server.requests] == [("/1", 0), ("/2", 1)]
        assert_recovered(client, server, connections=2)


def test_a_whole_pool_of_idle_connections_may_close_at_once() -> None:
    """FLT-N8: twenty of them, and twenty POSTs right after."""
    go, limit = threading.Event(), 20

    def first(conn: Conn) -> None:
        conn.read_request()
        server.wait_for_requests(limit)
        conn.send(respond(NEXT))
        assert go.wait(30)

    with (
        RawServer([first] * limit + [healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=limit) as client,
    ):
        for future in [client.send_async("GET", f"/{n}") for n in range(limit)]:
            future.result(30)
        go.set()
        eventually(lambda: client.stats().closed == limit)

        assert all(future.result(30).is_success for future in [client.send_async("POST", "/x") for _ in range(limit)])

        assert visits(server)["/x"] == limit
        assert_recovered(client, server, connections=len(server.connections))


def test_a_path_that_is_cut_without_a_word_is_looked_for(nginx: Nginx) -> None:
    """FLT-N12: what the kernel does of it takes half a minute; tests.faults.test_namespaces has it in a hurry."""
    with Client(base_url=nginx.url) as client:
        client.get("/stale-probes")
        (mine,) = [one.fd for one in psutil.Process().net_connections("tcp") if one.raddr[1:] == (nginx.port,)]
        with socket.socket(fileno=os.dup(mine)) as copy:
            assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, pause, count = (copy.getsockopt(socket.IPPROTO_TCP, option) for option in PROBES)
        assert idle + pause * count < cast("float", ClientOptions().idle_timeout)


# -- a real server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_request_is_served_by_a_server_that_closes_after_three(nginx: Nginx, method: str) -> None:
    """BEH-R12, FLT-N8: nginx announces it."""
    path = f"/stale-few-{method}"
    with Client(base_url=nginx.few_url) as client:
        assert all(client.request(method, path).content == SMALL for _ in range(100))
        assert client.stats().replays == 0
    lines = nginx.log(path, at_least=100)
    assert len(lines) == 100
    assert max(line.nth for line in lines) == 3


def test_a_server_that_closes_what_is_idle_for_a_second_costs_no_post(nginx: Nginx) -> None:
    """FLT-N8, BEH-R11."""
    with Client(base_url=nginx.impatient_url) as client:
        assert client.post("/stale-idle").content == SMALL
        eventually(lambda: client.stats().idle == 0)

        assert client.post("/stale-idle").content == SMALL
        assert client.stats().opened == 2
    assert len(nginx.log("/stale-idle", at_least=2)) == 2


def test_a_reload_of_the_server_costs_nothing_that_is_idle(nginx: Nginx) -> None:
    """FLT-N8, BEH-R11: it is closed without a word."""
    with Client(base_url=nginx.url) as client:
        for turn in range(3):
            assert client.post(f"/stale-reload-{turn}").content == SMALL
            nginx.reload()
            eventually(lambda: client.stats().idle == 0)

        assert client.post("/stale-reload-last").content == SMALL
    assert len(nginx.log("/stale-reload-", at_least=4)) == 4
