"""Deadlines at every phase (FLT-N2, N13 to N15, P1, P2): the pool gets back what the late request held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import cast

import pytest

from tests.faults.aftermath import NEXT, POISON, assert_recovered, healthy
from tests.faults.phases import (
    PHASES,
    Phase,
    in_a_handshake,
    in_a_look_up,
    in_the_queue,
    while_reading,
    while_sending,
    while_waiting,
)
from tests.servers.blackhole import Blackhole
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.waiting import PATIENCE, SPENT, eventually, reached, with_short_times
from turbopool import (
    Client,
    ConnectTimeout,
    DeadlineExceeded,
    DnsError,
    PoolTimeout,
    ReadTimeout,
    Timeout,
    TurboPoolError,
    WriteTimeout,
)


@pytest.mark.parametrize("phase", PHASES)
@with_short_times
def test_a_request_whose_time_is_up_gives_back_what_it_holds(phase: Phase, authority: Authority, short: float) -> None:
    """FLT-P2: its error says where it was, and the next one is served; nobody is given its late bytes."""
    with phase(authority, short) as stuck:
        error = cast("DeadlineExceeded", stuck.future.exception(30))

        assert type(error) is DeadlineExceeded
        assert isinstance(error, TimeoutError)
        assert short <= cast("float", error.facts["waited"]) < short + SPENT
        assert (error.phase, error.processed) == (stuck.phase, stuck.processed)
        assert error.request_sent == (stuck.processed != "no")
        stuck.assert_given_back()
        (pool,) = stuck.client.stats().pools.values()
        assert (pool.failed, pool.cancelled) == (1, 0)


BOUNDS: list[tuple[Phase, str, type[TurboPoolError]]] = [
    (in_the_queue, "queue", PoolTimeout),
    (while_sending, "write", WriteTimeout),
    (while_waiting, "read", ReadTimeout),
    (while_reading, "read", ReadTimeout),
]


@pytest.mark.parametrize(("phase", "bound", "kind"), BOUNDS)
@with_short_times
def test_the_bound_of_one_phase_ends_a_request_like_the_deadline_of_them_all(
    phase: Phase, bound: str, kind: type[TurboPoolError], authority: Authority, short: float
) -> None:
    """FLT-P1, N14, N15: with an error of its own name."""
    with phase(authority, Timeout(60, **{bound: short})) as stuck:
        error = cast("TurboPoolError", stuck.future.exception(30))

        assert type(error) is kind
        assert (error.phase, error.processed) == (stuck.phase, stuck.processed)
        stuck.assert_given_back()


@pytest.mark.parametrize(("phase", "kind", "named"), [
    (in_a_look_up, DnsError, "dns"),
    (in_a_handshake, ConnectTimeout, "tls"),
])  # fmt: skip
@with_short_times
def test_the_bound_of_the_connect_ends_the_dial_and_the_request(
    phase: Phase, kind: type[TurboPoolError], named: str, authority: Authority, short: float
) -> None:
    """FLT-N2, N5, T2: its place is free, and the next request dials anew."""
    with phase(authority, Timeout(60, connect=short)) as stuck:
        error = cast("TurboPoolError", stuck.future.exception(30))

        assert type(error) is kind
        assert (error.phase, error.processed, error.request_sent) == (named, "no", False)
        eventually(lambda: stuck.client.stats().connecting == 0)
        following = stuck.client.send_async("GET", "/following", timeout=20)
        eventually(lambda: stuck.client.stats().connecting == 1)  # before what hung goes on: it shares a look-up
        stuck.go_on.set()
        assert following.result(30).content == NEXT
        (pool,) = stuck.client.stats().pools.values()
        assert (pool.opened, pool.failed, pool.completed) == (1, 1, 1)


@with_short_times
def test_a_deadline_while_a_connect_hangs_leaves_the_dial_to_the_next(short: float) -> None:
    """FLT-N2, P2: it may take longer than the one who caused it had."""
    with Blackhole() as hole, Client(base_url=hole.url, connect_timeout=60, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first", timeout=short)
        second = client.send_async("GET", "/second", timeout=60)
        eventually(lambda: first.done() or client.stats().waiting == 2)
        reached(not first.done())
        assert isinstance(first.exception(30), DeadlineExceeded)
        assert client.stats().waiting == 1
        hole.heal()

        eventually(second.running)
        assert client.stats().opened == 1
        assert second.cancel()
        eventually(lambda: client.stats().closed == 1)


def _stalls_before_the_head(conn: Conn, stalled: threading.Event, go_on: threading.Event) -> None:
    conn.read_request()
    stalled.set()
    assert go_on.wait(PATIENCE)
    conn.send(POISON)


def _stalls_within_the_body(conn: Conn, stalled: threading.Event, go_on: threading.Event) -> None:
    conn.read_request()
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
    stalled.set()
    assert go_on.wait(PATIENCE)
    conn.send(b"67890" + POISON)


@pytest.mark.parametrize(("stalls", "kind"), [
    (_stalls_before_the_head, DeadlineExceeded),
    (_stalls_within_the_body, ReadTimeout),
])  # fmt: skip
@with_short_times
def test_a_stream_whose_time_is_up_gives_its_place_to_the_next_within_its_block(
    stalls: Callable[[Conn, threading.Event, threading.Event], None], kind: type[TurboPoolError], short: float
) -> None:
    """FLT-N14: the total bounds the head, the read timeout each wait after it; late bytes reach nobody."""
    stalled, go_on = threading.Event(), threading.Event()

    def read_and_ask_within(client: Client) -> None:
        with client.stream("GET", "/x", timeout=short) as response:
            try:
                response.read()
            finally:
                assert client.get("/within").content == NEXT

    with (
        RawServer([lambda conn: stalls(conn, stalled, go_on), healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
    ):
        began = time.monotonic()
        with pytest.raises(TurboPoolError) as caught:
            read_and_ask_within(client)
        in_time = stalled.is_set()
        go_on.set()
        reached(in_time)

        assert type(caught.value) is kind
        assert short <= time.monotonic() - began < short + 2 * SPENT
        server.wait_until(lambda server: server.connections[0].closed_at)
        assert_recovered(client, server, connections=2)
