"""Establishing a connection without ever blocking: resolve, connect (happy eyeballs, RFC 8305), TLS handshake.

Thread: the reactor's. One budget covers it all. Whatever happens, the dial reports exactly once, unless cancelled.
"""

from __future__ import annotations

import errno
import ssl
from collections import OrderedDict
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

from turbopool.clock import NEVER
from turbopool.config.tls import TlsContext
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
from turbopool.transport.attempt import Attempt, Handshake, Proof, Settling
from turbopool.transport.channel import TcpChannel, TlsChannel
from turbopool.transport.interfaces import READ, Channel, Reactor
from turbopool.transport.resolver import Address, Answer, Resolver

STAGGER = 0.25
"""Seconds before the next address is tried beside the one under way (RFC 8305 section 5)."""
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_OUT_OF_PORTS = frozenset({errno.EADDRNOTAVAIL})
_MOST_HOSTS = 1024
"""Of which the working address family is remembered."""

Done = Callable[["Dial", Channel | None, Exception | None], None]
Reclaim = Callable[[Callable[[], None]], None]
"""Has idle connections closed to give descriptors back, then calls its argument on the reactor's thread."""


class Dialer:
    """Makes dials for a runtime.

    Args:
        reactor: drives them.
        resolver: turns names into addresses.
        contexts: the TLS context for a key's version.
        reclaim: asked once by a dial for which no descriptor is left; by default there is none to be had.
    """

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        contexts: Callable[[PoolKey], TlsContext],
        reclaim: Reclaim = lambda go_on: go_on(),
    ) -> None:
        self.reactor = reactor
        self.resolver = resolver
        self.contexts = contexts
        self.reclaim = reclaim
        self._families: OrderedDict[str, int] = OrderedDict()

    def family_of(self, host: str) -> int | None:
        """Return the address family that last worked for a host with several, as far as it is remembered."""
        return self._families.get(host)

    def remember(self, host: str, family: int) -> None:
        """Try this family first next time, so that a dead one costs the stagger only once (RFC 8305 section 4)."""
        self._families[host] = family
        self._families.move_to_end(host)
        if len(self._families) > _MOST_HOSTS:
            self._families.popitem(last=False)

    def dial(self, key: PoolKey, timeout: float | None, done: Done, *, wary: bool = False) -> Dial:
        """Begin to establish a connection; ``done`` is never called before this returns.

        A ``wary`` dial succeeds only with a connection that outlives a moment; a TLS handshake proves that by itself.
        """
        return Dial(self, key, timeout, done, wary=wary)


class Dial:
    """One connection being established."""

    __slots__ = (
        "_addresses", "_deadline", "_dialer", "_done", "_errors", "_has_choice", "_has_reclaimed", "_is_wary",
        "_phase", "_proof", "_racing", "_reactor", "_stagger", "_timeout", "_timer", "key",
    )  # fmt: skip

    def __init__(self, dialer: Dialer, key: PoolKey, timeout: float | None, done: Done, *, wary: bool) -> None:
        self._dialer = dialer
        self._reactor = dialer.reactor
        self.key = key
        self._done: Done | None = done
        self._timeout = timeout
        self._is_wary = wary
        self._deadline = self._reactor.now + timeout if timeout else NEVER

        self._timer = self._reactor.timer(self._on_late, self.on_crash)
        self._stagger = self._reactor.timer(self._try_next, self.on_crash)
        self._racing: list[Attempt] = []
        self._addresses: list[Address] = []
        self._errors: list[OSError] = []
        self._proof: Proof | None = None
        self._has_choice = self._has_reclaimed = False
        self._phase = "dns"
        self._timer.arm(self._deadline)
        self._reactor.post(self._start, self.on_crash)

    def cancel(self) -> None:
        """Give up, close everything, report nothing."""
        self._done = None
        self._clean_up()

    def on_crash(self, error: BaseException) -> None:
        """Fail because of a bug of ours."""
        problem = ConnectError(f"establishing the connection failed of a bug: {error!r}", origin=self.key.origin)
        problem.__cause__ = error
        self._report(None, problem)

    # -- resolving -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._done is not None:
            self._dialer.resolver.resolve(self.key.host, self.key.port, self._on_answer)

    def _on_answer(self, answer: Answer) -> None:
        if self._done is None:
            return
        if isinstance(answer, OSError) and answer.errno in _OUT_OF_FILES:  # a look-up needs some, too
            if not self._has_reclaimed:
                self._reclaim(self._start)
                return
            msg = f"the name {self.key.host} could not be looked up: {answer}"
            self._report(None, self._error(ResourceError, msg, "raise the limit of files", answer))
            return
        if isinstance(answer, OSError):
            msg = f"the name {self.key.host} could not be resolved: {answer}"
            self._report(None, self._error(DnsError, msg, "check the host name and the resolver", answer))
            return
        self._phase = "connect"
        self._addresses = _interleaved(answer, self._dialer.family_of(self.key.host))
        self._has_choice = len({family for family, _ in self._addresses}) > 1
        self._try_next()

    # -- connecting ------------------------------------------------------------------------------------------

    def _try_next(self) -> None:
        """Try the next address, beside those under way."""
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                attempt = Attempt(self._reactor, family, address, self._on_attempt, self.on_crash)
            except Exception as error:  # noqa: BLE001  # what connect() does not understand is no address either
                problem = error if isinstance(error, OSError) else OSError(str(error))
                if problem.errno in _OUT_OF_FILES and not self._has_reclaimed:
                    self._addresses.insert(0, (family, address))
                    self._reclaim(self._go_on)
                    return
                self._errors.append(problem)
                continue
            self._racing.append(attempt)
            if self._addresses:
                self._stagger.arm(self._reactor.now + STAGGER)
            return
        if not self._racing:
            self._report(None, self._unreachable())

    def _reclaim(self, go_on: Callable[[], None]) -> None:
        """Have descriptors given back, once, and then go on."""
        self._has_reclaimed = True
        self._dialer.reclaim(lambda: self._reactor.post(go_on, self.on_crash))

    def _go_on(self) -> None:
        """Try again what there was no descriptor for."""
        if self._done is not None:
            self._try_next()

    def _on_attempt(self, attempt: Attempt, error: OSError | None) -> None:
        """The first address that answers wins, the others are closed; after one that does not, the next is tried."""
        self._racing.remove(attempt)
        if error is not None:
            self._errors.append(error)
            self._try_next()
            return
        if self._has_choice:
            self._dialer.remember(self.key.host, attempt.sock.family)
        self._close_race()
        if self.key.scheme != "https":
            plain = TcpChannel(attempt.sock)
            if self._is_wary:
                speaks_first = self.key.version == "2"
                self._proof = Settling(self._reactor, plain, self._on_settled, self.on_crash, speaks_first=speaks_first)
            else:
                self._report(plain, None)
            return
        self._phase = "tls"
        try:
            channel = TlsChannel(attempt.sock, self._dialer.contexts(self.key), self.key.host)
        except (OSError, ValueError) as problem:  # ssl.SSLError is one; files may be gone, or none may be opened
            attempt.sock.close()
            if isinstance(problem, OSError) and problem.errno in _OUT_OF_FILES:
                msg = f"TLS could not begin: {problem}"
                self._report(None, self._error(ResourceError, msg, "raise the limit of files", problem))
                return
            msg, advice = f"TLS could not begin: {problem}", "check verify=, cert= and the host name"
            self._report(None, self._error(TlsError, msg, advice, problem))
            return
        self._proof = handshake = Handshake(self._reactor, channel, self._on_handshake, self.on_crash)
        handshake.on_ready(READ)

    def _on_settled(self, settling: Proof, error: OSError | None) -> None:
        if error is None:
            self._use(settling)
        else:
            self._errors.append(error)
            self._report(None, self._unreachable())

    def _use(self, proof: Proof) -> None:
        """Report a channel that has shown what it had to."""
        proof.release()
        self._proof = None
        self._report(proof.channel, None)

    def _unreachable(self) -> TurboPoolError:
        error = self._errors[-1] if self._errors else OSError("no addresses")
        if error.errno in _OUT_OF_FILES:
            return self._error(ResourceError, f"no socket could be opened: {error}", "raise the limit of files", error)
        if all(problem.errno in _OUT_OF_PORTS for problem in self._errors) and self._errors:
            msg, advice = f"no local port or address could be had: {error}", "let connections live longer, or use fewer"
            return self._error(ResourceError, msg, advice, error)
        msg = f"the connection was not established: {error}"
        return self._error(ConnectError, msg, "check that the server runs and listens there", error)

    # -- TLS -------------------------------------------------------------------------------------------------

    def _on_handshake(self, handshake: Proof, error: OSError | None) -> None:
        if error is None:
            self._use(handshake)
        elif isinstance(error, ssl.SSLCertVerificationError):
            msg = f"the certificate of {self.key.host} was not accepted: {error.verify_message}"
            advice = "give its CA with verify=, or correct the server's certificate"
            self._report(None, self._error(TlsVerifyError, msg, advice, error))
        else:
            reason = getattr(error, "reason", None) or error
            msg = f"the TLS handshake failed: {reason}"
            self._report(None, self._error(TlsError, msg, "check that the port speaks TLS", error))

    # -- the end ---------------------------------------------------------------------------------------------

    def _on_late(self) -> None:
        if self._reactor.now < self._deadline:
            return
        if self._phase == "dns":
            msg = f"the name {self.key.host} was not resolved in time"
            kind: type[TurboPoolError] = DnsError
        else:
            what = "the TLS handshake" if self._phase == "tls" else "the connection"
            msg, kind = f"{what} was not established in time", ConnectTimeout
        cause = self._errors[-1] if self._errors else None
        self._report(None, self._error(kind, msg, "check the network, or raise connect_timeout", cause))

    def _error(
        self, kind: type[TurboPoolError], message: str, advice: str, cause: BaseException | None
    ) -> TurboPoolError:
        facts: dict[str, Any] = {"addresses_tried": len(self._errors)} if self._phase == "connect" else {}
        if isinstance(cause, OSError) and cause.errno and issubclass(kind, OSError):
            facts["errno"] = cause.errno
        if self._timeout and kind in (ConnectTimeout, DnsError):
            facts["connect_timeout"] = self._timeout
        error = kind(
            message, origin=self.key.origin, phase=self._phase, processed="no", may_retry=kind is not TlsVerifyError,
            attempts=1, advice=advice, **facts,
        )  # fmt: skip
        error.__cause__ = cause
        return error

    def _report(self, channel: Channel | None, error: Exception | None) -> None:
        done, self._done = self._done, None
        self._clean_up()
        if done is not None:
            done(self, channel, error)
        elif channel is not None:
            channel.close()

    def _clean_up(self) -> None:
        self._timer.close()
        self._close_race()
        if self._proof is not None:
            self._proof.close()
            self._proof = None

    def _close_race(self) -> None:
        self._stagger.close()
        for attempt in self._racing:
            attempt.close()
        self._racing.clear()


def _interleaved(addresses: list[Address], first: int | None) -> list[Address]:
    """Alternate the families, beginning with the ``first`` or else the resolver's choice (RFC 8305 section 4)."""
    unique = list(dict.fromkeys(addresses))
    families = {family for family, _ in unique}
    lead = first if first in families else unique[0][0] if unique else None
    leading = [address for address in unique if address[0] == lead]
    others = [address for address in unique if address[0] != lead]
    return [address for address in chain.from_iterable(zip_longest(leading, others)) if address is not None]
