"""Dials over real sockets, with answers to look-ups and a clock that belong to the test."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from tests.servers.blackhole import Blackhole, refusing_port
from tests.servers.certs import Authority, Kind
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer
from tests.transport.lookups import UNREACHABLE, ScriptedLookup, ipv4, ipv6
from tests.transport.reactor import Turned
from tests.transport.scarcity import no_descriptors, no_threads
from turbopool.config.tls import TlsContext, TlsOptions, context_for
from turbopool.errors import (
    ConnectError,
    ConnectTimeout,
    DnsError,
    ResourceError,
    TlsError,
    TlsVerifyError,
    TurboPoolError,
)
from turbopool.stats import PoolKey
from turbopool.transport.dialer import STAGGER, Dial, Dialer
from turbopool.transport.interfaces import Channel
from turbopool.transport.resolver import Address, Resolver

BUDGET = 10.0
KEY = PoolKey.of("http", "name.invalid", 80)


@dataclass(slots=True)
class Dialing:
    """One dial and what it reported."""

    turned: Turned
    dialer: Dialer
    lookup: ScriptedLookup
    outcomes: list[tuple[Channel | None, Exception | None]] = field(default_factory=list)

    def start(self, key: PoolKey = KEY, timeout: float | None = BUDGET) -> Dial:
        """Begin."""
        dial = self.dialer.dial(key, timeout, lambda _, channel, error: self.outcomes.append((channel, error)))
        assert self.outcomes == []
        return dial

    def channel(self) -> Channel:
        """Wait for success."""
        self.turned.turn_until(lambda: self.outcomes)
        ((channel, error),) = self.outcomes
        assert error is None
        assert channel is not None
        return channel

    def error(self) -> TurboPoolError:
        """Wait for failure."""
        self.turned.turn_until(lambda: self.outcomes)
        ((channel, error),) = self.outcomes
        assert channel is None
        assert isinstance(error, TurboPoolError)
        assert (error.origin, error.processed, error.request_sent) == (error.origin, "no", False)
        return error

    def assert_nothing_is_left(self) -> None:
        """No descriptor is watched, no timer armed, and nothing more is reported."""
        reported = len(self.outcomes)
        self.turned.advance(100 * BUDGET)
        assert len(self.outcomes) == reported
        assert self.turned.watched == 0
        assert self.turned.timers == 0


@contextmanager
def _dialing(
    turned: Turned, answer: Sequence[Address] | Exception = (), *, hangs: bool = False, verify: object = True
) -> Iterator[Dialing]:
    def context(key: PoolKey) -> TlsContext:
        return context_for(TlsOptions(verify=verify), ("http/1.1",) if key.version == "1.1" else ())  # type: ignore[arg-type]

    lookup = ScriptedLookup(answer, hangs=hangs)
    resolver = Resolver(turned.reactor, lookup)
    dialing = Dialing(turned, Dialer(turned.reactor, resolver, context), lookup)
    try:
        yield dialing
    finally:
        lookup.go.set()
        resolver.close()
        for channel, _ in dialing.outcomes:
            if channel is not None:
                channel.close()


@pytest.fixture
def server() -> Iterator[RawServer]:
    """A server that says nothing."""
    with RawServer(Conn.hold) as running:
        yield running


# -- one address -----------------------------------------------------------------------------------------


def test_a_dial_gives_a_connected_channel(turned: Turned, server: RawServer) -> None:
    """BEH-L4."""
    with _dialing(turned, [ipv4(server.port)]) as dialing:
        dialing.start()
        channel = dialing.channel()

        assert channel.send(b"hello") == 5
        assert channel.is_quiet()
        dialing.assert_nothing_is_left()
        channel.close()
        server.wait_until(lambda server: server.connections and server.connections[0].peer_closed_at)

    server.wait_for_connections(1)
    assert dialing.lookup.asked == [("name.invalid", 80)]


@pytest.mark.parametrize("timeout", [None, 0.0])
def test_without_a_budget_a_dial_takes_as_long_as_it_takes(turned: Turned, timeout: float | None) -> None:
    with Blackhole() as hole, _dialing(turned, [ipv4(hole.port)]) as dialing:
        dial = dialing.start(timeout=timeout)
        turned.turn_until(lambda: turned.watched)

        turned.advance(1e6)

        assert dialing.outcomes == []
        dial.cancel()
        dialing.assert_nothing_is_left()


def test_a_refused_connect_fails_at_once_with_its_errno(turned: Turned) -> None:
    """FLT-N1."""
    with refusing_port() as port, _dialing(turned, [ipv4(port)]) as dialing:
        dialing.start()

        error = dialing.error()

        assert type(error) is ConnectError
        assert isinstance(error, OSError)
        assert error.errno == error.facts["errno"] == errno.ECONNREFUSED
        assert (error.phase, error.may_retry, error.facts["addresses_tried"]) == ("connect", True, 1)
        assert isinstance(error.__cause__, OSError)
        dialing.assert_nothing_is_left()


def test_a_swallowed_connect_ends_with_the_budget(turned: Turned) -> None:
    """FLT-N2."""
    with Blackhole() as hole, _dialing(turned, [ipv4(hole.port)]) as dialing:
        dialing.start()
        turned.turn_until(lambda: turned.watched)
        turned.advance(BUDGET - 0.001)
        assert dialing.outcomes == []

        turned.advance(0.001)

        error = dialing.error()
        assert type(error) is ConnectTimeout
        assert (error.phase, error.may_retry, error.facts["connect_timeout"]) == ("connect", True, BUDGET)
        dialing.assert_nothing_is_left()


def test_an_unreachable_network_fails_at_once(turned: Turned) -> None:
    """FLT-N3: no sleep to the timeout."""
    with _dialing(turned, [UNREACHABLE]) as dialing:
        dialing.start()

        error = dialing.error()

        assert isinstance(error, ConnectError)
        assert error.errno == errno.ENETUNREACH
        dialing.assert_nothing_is_left()


@pytest.mark.parametrize(
    "address", [(9999, ("127.0.0.1", 80)), (socket.AF_INET, ("127.0.0.1", 70_000)), (socket.AF_INET, ())]
)
def test_an_address_no_socket_can_be_made_for_is_an_error_of_ours(turned: Turned, address: Address) -> None:
    """FLT-N3: whatever it is, the dial reports it once."""
    with _dialing(turned, [address]) as dialing:
        dialing.start()

        assert isinstance(dialing.error(), ConnectError)
        dialing.assert_nothing_is_left()


def test_a_process_without_descriptors_says_so(turned: Turned) -> None:
    """FLT-N18."""
    with refusing_port() as port, _dialing(turned, [ipv4(port)]) as dialing, no_descriptors():
        dialing.start()

        error = dialing.error()

        assert isinstance(error, ResourceError)
        assert error.errno == errno.EMFILE
    dialing.assert_nothing_is_left()


def test_a_process_without_threads_cannot_look_names_up(turned: Turned) -> None:
    """FLT-N5: the dial fails instead of waiting for a thread that will never come."""
    with _dialing(turned, [UNREACHABLE]) as dialing:
        with no_threads():
            dialing.start()
            assert type(dialing.error()) is DnsError
        dialing.outcomes.clear()
        dialing.start()

        assert type(dialing.error()) is ConnectError
        assert len(dialing.lookup.asked) == 1


# -- the name --------------------------------------------------------------------------------------------


def test_a_name_without_addresses_is_a_dns_error(turned: Turned) -> None:
    """FLT-N5."""
    with _dialing(turned, socket.gaierror(socket.EAI_NONAME, "Name or service not known")) as dialing:
        dialing.start()

        error = dialing.error()

        assert type(error) is DnsError
        assert isinstance(error, ConnectError)
        assert (error.phase, error.origin) == ("dns", "http://name.invalid:80")
        assert "name.invalid" in str(error)
        assert isinstance(error.__cause__, socket.gaierror)
        dialing.assert_nothing_is_left()


def test_an_empty_answer_is_an_error(turned: Turned) -> None:
    with _dialing(turned, []) as dialing:
        dialing.start()

        assert isinstance(dialing.error(), ConnectError)
        dialing.assert_nothing_is_left()


def test_a_name_that_is_not_answered_ends_with_the_budget(turned: Turned) -> None:
    """FLT-N5: the look-up goes on, and its late answer is nobody's."""
    with _dialing(turned, [UNREACHABLE], hangs=True) as dialing:
        dialing.start()
        dialing.turned.turn()
        dialing.lookup.wait_until_present(1)

        turned.advance(BUDGET)

        error = dialing.error()
        assert type(error) is DnsError
        assert (error.phase, error.facts["connect_timeout"]) == ("dns", BUDGET)
        dialing.lookup.go.set()
        dialing.assert_nothing_is_left()


# -- several addresses ---------------------------------------------------------------------------------------


def test_an_address_that_refuses_is_followed_by_the_next_at_once(turned: Turned, server: RawServer) -> None:
    """FLT-N1, N3: the clock stands still all the while."""
    with refusing_port() as port, refusing_port("::1") as other:
        answer = [ipv4(port), ipv6(other), UNREACHABLE, ipv4(server.port)]
        with _dialing(turned, answer) as dialing:
            dialing.start()

            assert dialing.channel().is_quiet()
            dialing.assert_nothing_is_left()
            server.wait_for_connections(1)


def test_when_all_addresses_fail_the_error_counts_them(turned: Turned) -> None:
    """FLT-N1."""
    with refusing_port() as port, _dialing(turned, [ipv4(port), UNREACHABLE, ipv6(port)]) as dialing:
        dialing.start()

        error = dialing.error()

        assert isinstance(error, ConnectError)
        assert error.facts["addresses_tried"] == 3
        assert error.attempts == 1
        dialing.assert_nothing_is_left()


def test_the_same_address_twice_is_tried_once(turned: Turned) -> None:
    with refusing_port() as port, _dialing(turned, [ipv4(port)] * 3) as dialing:
        dialing.start()

        assert dialing.error().facts["addresses_tried"] == 1


def test_one_budget_covers_all_addresses(turned: Turned) -> None:
    """FLT-N2: not one budget each."""
    with ExitStack() as stack:
        holes = [stack.enter_context(Blackhole(f"127.0.9.{n + 1}")) for n in range(4)]
        with _dialing(turned, [ipv4(hole.port, hole.host) for hole in holes]) as dialing:
            dialing.start()
            turned.turn_until(lambda: turned.watched)
            for _ in range(3):
                turned.advance(STAGGER)
            assert turned.watched == 4

            turned.advance(BUDGET - 3 * STAGGER)

            assert type(dialing.error()) is ConnectTimeout
            dialing.assert_nothing_is_left()


def test_a_silent_address_is_raced_after_a_quarter_second_and_the_loser_is_closed(
    turned: Turned, server: RawServer
) -> None:
    """FLT-N2, N4: happy eyeballs."""
    with Blackhole() as hole, _dialing(turned, [ipv4(hole.port), ipv4(server.port)]) as dialing:
        dialing.start()
        turned.turn_until(lambda: turned.watched)
        turned.advance(STAGGER - 0.001)
        assert (turned.watched, len(server.connections)) == (1, 0)

        turned.advance(0.001)

        assert dialing.channel().is_quiet()
        dialing.assert_nothing_is_left()
    server.wait_for_connections(1)


def test_the_families_take_turns(turned: Turned) -> None:
    """FLT-N4: a dead family costs one stagger, however many addresses it has."""
    with RawServer(Conn.hold, host="::1") as server, ExitStack() as stack:
        holes = [stack.enter_context(Blackhole(f"127.0.9.{n + 1}")) for n in range(3)]
        answer = [*(ipv4(hole.port, hole.host) for hole in holes), ipv6(server.port)]
        with _dialing(turned, answer) as dialing:
            dialing.start()
            turned.turn_until(lambda: turned.watched)
            assert turned.watched == 1

            turned.advance(STAGGER)

            assert dialing.channel().is_quiet()
            dialing.assert_nothing_is_left()
        server.wait_for_connections(1)


# -- TLS -----------------------------------------------------------------------------------------------------


def _tls_key(server: RawServer, version: str = "1.1") -> PoolKey:
    return PoolKey.of("https", server.host, server.port, version)


def test_a_dial_of_https_gives_a_channel_that_speaks_tls(turned: Turned, authority: Authority) -> None:
    """FLT-T4."""
    with (
        RawServer(Conn.hold, ssl_context=authority.server_context()) as server,
        _dialing(turned, verify=authority.ca_file) as dialing,
    ):
        dialing.start(_tls_key(server))

        channel = dialing.channel()

        assert channel.version == "http/1.1"
        assert dialing.lookup.asked == []
        dialing.assert_nothing_is_left()
        assert server.open == 1


def test_http_1_0_asks_for_no_protocol(turned: Turned, authority: Authority) -> None:
    """BEH-L8."""
    with (
        RawServer(Conn.hold, ssl_context=authority.server_context()) as server,
        _dialing(turned, verify=authority.ca_file) as dialing,
    ):
        dialing.start(_tls_key(server, "1.0"))

        assert dialing.channel().version is None


@pytest.mark.parametrize("kind", ["expired", "not_yet_valid", "wrong_host", "unknown_ca", "self_signed"])
def test_a_bad_certificate_is_never_worth_a_retry(turned: Turned, authority: Authority, kind: Kind) -> None:
    """FLT-T1."""
    with (
        RawServer(Conn.hold, ssl_context=authority.server_context(kind)) as server,
        _dialing(turned, verify=authority.ca_file) as dialing,
    ):
        dialing.start(_tls_key(server))

        error = dialing.error()

        assert type(error) is TlsVerifyError
        assert isinstance(error, ConnectError)
        assert (error.phase, error.may_retry) == ("tls", False)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        dialing.assert_nothing_is_left()
        server.wait_until(lambda server: server.open == 0)


def test_silence_in_the_handshake_is_within_the_same_budget(
    turned: Turned, server: RawServer, authority: Authority
) -> None:
    """FLT-T2: what connecting took is gone from it."""
    with (
        Blackhole() as hole,
        _dialing(turned, [ipv4(hole.port), ipv4(server.port)], verify=authority.ca_file) as dialing,
    ):
        dialing.start(PoolKey.of("https", "name.invalid"))
        turned.turn_until(lambda: turned.watched)
        turned.advance(STAGGER)
        server.wait_for_connections(1)
        turned.turn()
        turned.advance(BUDGET - STAGGER - 0.001)
        assert dialing.outcomes == []

        turned.advance(0.001)

        error = dialing.error()
        assert type(error) is ConnectTimeout
        assert (error.phase, error.facts["connect_timeout"]) == ("tls", BUDGET)
        dialing.assert_nothing_is_left()
    server.wait_until(lambda server: server.open == 0)


def _speaks_http(conn: Conn) -> None:
    conn.recv(1)
    conn.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    conn.hold()


def _sends_an_alert(conn: Conn) -> None:
    conn.recv(1)
    conn.send(b"\x15\x03\x03\x00\x02\x02\x28")  # fatal, handshake_failure
    conn.hold()


def _hangs_up(conn: Conn) -> None:
    conn.recv(1)
    conn.cut()


def _resets(conn: Conn) -> None:
    conn.recv(1)
    conn.reset()


@pytest.mark.parametrize("handler", [_speaks_http, _sends_an_alert, _hangs_up, _resets])
def test_what_is_no_handshake_is_a_tls_error(turned: Turned, authority: Authority, handler: Handler) -> None:
    """FLT-T3: plain HTTP on the port, an alert, the end, a reset."""
    with RawServer(handler) as server, _dialing(turned, verify=authority.ca_file) as dialing:
        dialing.start(_tls_key(server))

        error = dialing.error()

        assert type(error) is TlsError
        assert (error.phase, error.may_retry) == ("tls", True)
        assert isinstance(error.__cause__, OSError)
        dialing.assert_nothing_is_left()
        server.wait_until(lambda server: server.open == 0)


def test_a_host_that_tls_cannot_name_is_a_tls_error(turned: Turned, server: RawServer) -> None:
    with _dialing(turned, [ipv4(server.port)]) as dialing:
        dialing.start(PoolKey.of("https", "." + "x" * 70 + ".invalid"))

        assert type(dialing.error()) is TlsError
        dialing.assert_nothing_is_left()
    server.wait_until(lambda server: server.open == 0)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOENT, TlsError), (errno.EMFILE, ResourceError)])
def test_a_context_that_cannot_be_loaded_ends_the_dial_and_its_socket(
    turned: Turned, server: RawServer, number: int, kind: type[TurboPoolError]
) -> None:
    """FLT-N18, I9."""

    def contexts(_: PoolKey) -> TlsContext:
        raise OSError(number, "scripted")

    with _dialing(turned, [ipv4(server.port)]) as dialing:
        dialing.dialer.contexts = contexts
        dialing.start(_tls_key(server))

        error = dialing.error()  # kept: so would its traceback keep the socket

        assert type(error) is kind
        server.wait_until(lambda server: server.open == 0)
        dialing.assert_nothing_is_left()


# -- cancelling ------------------------------------------------------------------------------------------


def test_a_dial_can_be_cancelled_before_it_began(turned: Turned) -> None:
    """BEH-L4."""
    with _dialing(turned, [UNREACHABLE]) as dialing:
        dialing.start().cancel()

        dialing.assert_nothing_is_left()
        assert dialing.outcomes == []
        assert dialing.lookup.asked == []


def test_a_dial_can_be_cancelled_during_its_look_up(turned: Turned, server: RawServer) -> None:
    """BEH-L4: the answer that comes too late connects nothing."""
    with _dialing(turned, [ipv4(server.port)], hangs=True) as dialing:
        dial = dialing.start()
        turned.turn()
        dialing.lookup.wait_until_present(1)

        dial.cancel()

        dialing.lookup.go.set()
        dialing.assert_nothing_is_left()
        assert dialing.outcomes == []
    assert server.connections == []


def test_a_dial_can_be_cancelled_while_addresses_race(turned: Turned) -> None:
    """BEH-L4."""
    with Blackhole() as one, Blackhole() as two, _dialing(turned, [ipv4(one.port), ipv4(two.port)]) as dialing:
        dial = dialing.start()
        turned.turn_until(lambda: turned.watched)
        turned.advance(STAGGER)
        assert turned.watched == 2

        dial.cancel()

        dialing.assert_nothing_is_left()
        assert dialing.outcomes == []


def test_a_dial_can_be_cancelled_during_its_handshake(turned: Turned, server: RawServer, authority: Authority) -> None:
    """BEH-L4: and again, which changes nothing."""
    with _dialing(turned, verify=authority.ca_file) as dialing:
        dial = dialing.start(_tls_key(server))
        turned.turn_until(lambda: server.connections)
        turned.turn()
        assert turned.watched == 1

        dial.cancel()
        dial.cancel()

        dialing.assert_nothing_is_left()
        assert dialing.outcomes == []
        server.wait_until(lambda server: server.connections[0].peer_closed_at)


def test_a_dial_that_is_over_cannot_be_cancelled(turned: Turned, server: RawServer) -> None:
    with _dialing(turned, [ipv4(server.port)]) as dialing:
        dial = dialing.start()
        channel = dialing.channel()

        dial.cancel()

        assert channel.is_quiet()
        server.wait_until(lambda server: server.open == 1)
