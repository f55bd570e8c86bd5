"""FLT-N4, N5, N6: hosts with several addresses, names that change, names that nobody answers for."""

from __future__ import annotations

import time

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.face.handlers import Gate, echo
from tests.face.remains import our_threads, sockets_to
from tests.faults.aftermath import NEXT, assert_balanced, healthy
from tests.faults.names import Names, install
from tests.servers.blackhole import Blackhole, refusing_port
from tests.servers.raw import RawServer, always, script
from tests.servers.wire import respond
from tests.transport.lookups import UNREACHABLE, ScriptedLookup, ipv4, ipv6
from tests.waiting import SPENT, eventually, reached, with_short_times
from turbopool import Client, ConnectError, ConnectTimeout, DeadlineExceeded, DnsError, ReconnectOptions
from turbopool.transport.dialer import STAGGER
from turbopool.transport.resolver import MAX_THREADS

LAST = respond(NEXT, headers=[("Connection", "close")])


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The addresses of every name, for clients made in the test."""
    found = Names()
    install(monkeypatch, found)
    return found


# -- N4: one family dead ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", ["::1", "127.0.9.1"])
def test_a_dead_family_costs_a_quarter_of_a_second_and_the_loser_is_closed(names: Names, dead: str) -> None:
    """FLT-N4: the SYN of one family is swallowed, the other one answers."""
    alive = "127.0.0.1" if ":" in dead else "::1"
    with (
        Blackhole(dead) as hole,
        RawServer(healthy, host=alive) as server,
        Client(base_url="http://two.invalid", connect_timeout=20) as client,
    ):
        made = {"::1": ipv6, "127.0.0.1": ipv4, "127.0.9.1": ipv4}
        names.addresses = [made[dead](hole.port, dead), made[alive](server.port, alive)]
        ours = sockets_to(hole.port)  # what fills the hole
        began = time.monotonic()

        assert client.get("/x").content == NEXT

        assert STAGGER <= time.monotonic() - began < STAGGER + SPENT
        assert (sockets_to(hole.port), sockets_to(server.port)) == (ours, 1)
        assert client.get("/y").content == NEXT
        assert_balanced(client, server, connections=1)


def test_the_family_that_worked_is_tried_first_from_then_on(names: Names) -> None:
    """FLT-N4: a dead one costs its quarter of a second once, and not at every connect."""
    with (
        Blackhole("::1") as hole,
        RawServer(always(LAST)) as server,
        Client(base_url="http://two.invalid", connect_timeout=20) as client,
    ):
        names.addresses = [ipv6(hole.port, "::1"), ipv4(server.port, "127.0.0.1")]
        client.get("/first")
        seconds: list[float] = []
        while len(seconds) < 3 or (min(seconds) >= STAGGER and len(seconds) < 10):  # the machine may be busy
            began = time.monotonic()
            assert client.get("/x").content == NEXT
            seconds.append(time.monotonic() - began)

        assert min(seconds) < STAGGER


@pytest.mark.parametrize("dead", ["refused", "unreachable"])
def test_an_address_that_refuses_costs_no_time_at_all(names: Names, dead: str) -> None:
    """FLT-N3, N4: the next one is tried at once, long before its turn."""
    with refusing_port("::1") as port, RawServer(healthy) as server, Client(base_url="http://two.invalid") as client:
        first = ipv6(port) if dead == "refused" else UNREACHABLE
        names.addresses = [first, first, ipv4(server.port)]
        seconds: list[float] = []
        while len(seconds) < 3 or (min(seconds) >= STAGGER and len(seconds) < 10):  # the machine may be busy
            began = time.monotonic()
            assert client.get("/x", headers={"Connection": "close"}).content == NEXT
            seconds.append(time.monotonic() - began)

        assert min(seconds) < STAGGER
        assert names.asked == ["two.invalid"] * len(seconds)  # on every dial
        assert_balanced(client, server, connections=len(seconds))


def test_when_both_families_are_dead_one_budget_covers_both(names: Names) -> None:
    """FLT-N2, N4: and no socket of either is left."""
    with (
        Blackhole("::1") as six,
        Blackhole() as four,
        RawServer(healthy) as server,
        Client(base_url="http://two.invalid", connect_timeout=0.6) as client,
    ):
        names.addresses = [ipv6(six.port), ipv4(four.port)]
        ours = sockets_to(six.port, four.port)
        began = time.monotonic()
        with pytest.raises(ConnectTimeout):
            client.get("/x")

        assert 0.6 <= time.monotonic() - began < 0.6 + SPENT
        assert sockets_to(six.port, four.port) == ours
        names.addresses = [ipv4(server.port)]
        assert client.get("/x").content == NEXT
        assert_balanced(client, server, connections=1, never_sent=1)


def test_the_last_failure_is_told_when_no_address_answers(names: Names) -> None:
    """FLT-N1, N4: and how many were tried."""
    with refusing_port() as port, RawServer(healthy) as server, Client(base_url="http://two.invalid") as client:
        names.addresses = [UNREACHABLE, ipv4(port)]
        with pytest.raises(ConnectError, match="refused") as caught:
            client.get("/x")

        assert caught.value.facts["addresses_tried"] == 2
        names.addresses = [ipv4(server.port)]
        assert client.get("/x").content == NEXT
        assert_balanced(client, server, connections=1, never_sent=1)


# -- N5: nobody answers for the name -----------------------------------------------------------------------------


def test_lookups_that_hang_cost_neither_threads_without_end_nor_anybody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLT-N5: 1,000 names; whoever waits ends at its own deadline, and a healthy host notices nothing."""
    lookup = ScriptedLookup([ipv4(9)], hangs=True)
    install(monkeypatch, lookup)
    with RawServer(healthy) as server, Client() as client:
        assert client.get(server.url).content == NEXT
        futures = [client.send_async("GET", f"http://n{n}.invalid/", timeout=1.0) for n in range(1000)]
        lookup.wait_until_present(MAX_THREADS)

        assert all(client.get(server.url).content == NEXT for _ in range(20))
        errors = [future.exception(30) for future in futures]

        assert {type(error) for error in errors} == {DeadlineExceeded}
        assert sum("resolver" in name for name in our_threads()) == lookup.peak == MAX_THREADS
        assert (client.stats().waiting, client.stats().leased) == (0, 0)
        assert len(server.connections) == 1
        lookup.go.set()


# -- N6: the answer changes --------------------------------------------------------------------------------------


def test_the_next_connect_uses_the_new_address_and_what_is_under_way_finishes(names: Names) -> None:
    """FLT-N6: the old connection finishes its request, and is used until its lifetime has passed."""
    gate = Gate()
    with (
        RawServer(gate) as old,
        RawServer(always(echo), host="127.0.0.2", port=old.port) as new,
        Client(base_url=f"http://moves.invalid:{old.port}", connection_lifetime=1.0) as client,
    ):
        names.addresses = [ipv4(0)]
        under_way = client.send_async("GET", "/old")
        old.wait_for_requests(1)
        names.addresses = [ipv4(0, "127.0.0.2")]

        assert client.get("/new").is_success

        assert [request.target for request in new.requests] == ["/new"]
        gate.opened.set()
        assert under_way.result(30).is_success
        old.wait_until(lambda old: old.connections[0].peer_closed_at)
        left = old.connections[0]
        assert left.peer_closed_at is not None
        assert 0.9 <= left.peer_closed_at - left.accepted_at < 1.0 + SPENT
        assert all(client.get(f"/{n}").is_success for n in range(5))
        assert [request.target for request in old.requests] == ["/old"]
        assert names.asked[:2] == ["moves.invalid"] * 2


def test_a_busy_connection_outlives_its_lifetime_but_gets_no_further_request(names: Names) -> None:
    """FLT-N6: drained, not cut."""
    gate = Gate()
    with (
        RawServer(gate) as old,
        RawServer(always(echo), host="127.0.0.2", port=old.port) as new,
        Client(base_url=f"http://moves.invalid:{old.port}", connection_lifetime=0.2, max_conns_per_host=1) as client,
    ):
        names.addresses = [ipv4(0)]
        busy, waits = (client.send_async("GET", target) for target in ("/busy", "/waits"))
        old.wait_for_requests(1)
        names.addresses = [ipv4(0, "127.0.0.2")]
        assert not old.closing.wait(0.3)  # the lifetime passes
        assert not busy.done()

        gate.opened.set()

        assert busy.result(30).is_success
        assert waits.result(30).is_success
        assert [request.target for request in old.requests] == ["/busy"]
        assert [request.target for request in new.requests] == ["/waits"]
        old.wait_until(lambda old: old.open == 0)


@pytest.mark.parametrize("gone", ["name", "host"])
@with_short_times
def test_a_server_whose_name_or_address_is_gone_for_a_while_is_waited_for(
    names: Names, gone: str, short: float
) -> None:
    """FLT-N2, N5, N6, BEH-R1: each attempt looks the name up, and those who wait keep their deadlines."""
    soon = ReconnectOptions(wait=wait_fixed(0.05), stop=stop_after_attempt(1000))
    with Blackhole() as hole, RawServer(healthy) as back, RawServer(script(LAST)) as server:
        names.addresses = [ipv4(server.port)]
        with Client(base_url="http://moves.invalid", connect_timeout=short, reconnect=soon) as client:
            client.get("/x")
            names.addresses = [] if gone == "name" else [ipv4(hole.port)]
            waits, late = (client.send_async("POST", "/y", timeout=limit) for limit in (120, 5 * short))
            eventually(lambda: late.done() or client.stats().reconnects > 1)
            reached(not late.done())
            error = late.exception(30)
            assert isinstance(error, DeadlineExceeded)
            assert type(error.__cause__) is (DnsError if gone == "name" else ConnectTimeout)
            assert not waits.done()
            names.addresses = [ipv4(back.port)]

            assert waits.result(30).content == NEXT
            assert len(back.requests) == len(back.connections) == 1


def test_a_name_that_does_not_resolve_any_more_does_no_harm_to_what_is_open(names: Names) -> None:
    """FLT-N5, N6: the open connection serves on."""
    with RawServer(healthy) as server, Client(base_url=f"http://moves.invalid:{server.port}") as client:
        names.addresses = [ipv4(0)]
        assert client.get("/x").content == NEXT
        names.addresses = []

        assert client.get("/y").content == NEXT

        assert_balanced(client, server, connections=1)
