"""Establishing a connection without ever blocking: resolve, connect (happy eyeballs, RFC 8305), TLS handshake.

Thread: the reactor's. One budget covers it all. Whatever happens, the dial reports exactly once, unless cancelled.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
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
from turbopool.transport.channel import TcpChannel, TlsChannel
from turbopool.transport.interfaces import READ, WRITE, Channel, Reactor
from turbopool.transport.resolver import Address, Answer, Resolver

STAGGER = 0.25
"""Seconds before the next address is tried beside the one under way (RFC 8305 section 5)."""
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Done = Callable[["Dial", Channel | None, Exception | None], None]


class Dialer:
    """Makes dials for a runtime.

    Args:
        reactor: drives them.
        resolver: turns names into addresses.
        contexts: the TLS context for a key's version.
    """

    def __init__(self, reactor: Reactor, resolver: Resolver, contexts: Callable[[PoolKey], TlsContext]) -> None:
        self.reactor = reactor
        self.resolver = resolver
        self.contexts = contexts

    def dial(self, key: PoolKey, timeout: float | None, done: Done) -> Dial:
        """Begin to establish a connection; ``done`` is never called before this returns."""
        return Dial(self, key, timeout, done)


class Dial:
    """One connection being established."""

    __slots__ = (
        "_addresses", "_deadline", "_dialer", "_done", "_errors", "_handshake", "_phase", "_racing", "_reactor",
        "_stagger", "_timeout", "_timer", "key",
    )  # fmt: skip

    def __init__(self, dialer: Dialer, key: PoolKey, timeout: float | None, done: Done) -> None:
        self._dialer = dialer
        self._reactor = dialer.reactor
        self.key = key
        self._done: Done | None = done
        self._timeout = timeout
        self._deadline = self._reactor.now + timeout if timeout else NEVER

        self._timer = self._reactor.timer(self._on_late, self.on_crash)
        self._stagger = self._reactor.timer(self._try_next, self.on_crash)
        self._racing: list[_Attempt] = []
        self._addresses: list[Address] = []
        self._errors: list[OSError] = []
        self._handshake: _Handshake | None = None
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
        if isinstance(answer, OSError):
            msg = f"the name {self.key.host} could not be resolved: {answer}"
            self._report(None, self._error(DnsError, msg, "check the host name and the resolver", answer))
            return
        self._phase = "connect"
        self._addresses = _interleaved(answer)
        self._try_next()

    # -- connecting ------------------------------------------------------------------------------------------

    def _try_next(self) -> None:
        """Try the next address, beside those under way."""
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                attempt = _Attempt(self, family, address)
            except Exception as error:  # noqa: BLE001  # what connect() does not understand is no address either
                self._errors.append(error if isinstance(error, OSError) else OSError(str(error)))
                continue
            self._racing.append(attempt)
            if self._addresses:
                self._stagger.arm(self._reactor.now + STAGGER)
            return
        if not self._racing:
            self._report(None, self._unreachable())

    def on_connected(self, attempt: _Attempt) -> None:
        """The first address answered: it wins, the others are closed."""
        self._racing.remove(attempt)
        self._close_race()
        if self.key.scheme != "https":
            self._report(TcpChannel(attempt.sock), None)
            return
        self._phase = "tls"
        try:
            channel = TlsChannel(attempt.sock, self._dialer.contexts(self.key), self.key.host)
        except (ssl.SSLError, ValueError) as error:
            attempt.sock.close()
            self._report(
                None,
                self._error(TlsError, f"TLS could not begin: {error}", "check verify=, cert= and the host name", error),
            )
            return
        self._handshake = _Handshake(self, channel)
        self._handshake.on_ready(READ)

    def on_refused(self, attempt: _Attempt, error: OSError) -> None:
        """One address did not answer: the next is tried at once."""
        self._racing.remove(attempt)
        self._errors.append(error)
        self._try_next()

    def _unreachable(self) -> TurboPoolError:
        error = self._errors[-1] if self._errors else OSError("no addresses")
        if error.errno in _OUT_OF_FILES:
            return self._error(ResourceError, f"no socket could be opened: {error}", "raise the limit of files", error)
        msg = f"the connection was not established: {error}"
        return self._error(ConnectError, msg, "check that the server runs and listens there", error)

    # -- TLS -------------------------------------------------------------------------------------------------

    def on_secure(self, handshake: _Handshake) -> None:
        """The handshake is complete."""
        self._handshake = None
        handshake.release()
        self._report(handshake.channel, None)

    def on_insecure(self, error: OSError) -> None:
        """The handshake failed."""
        if isinstance(error, ssl.SSLCertVerificationError):
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
        if self._handshake is not None:
            self._handshake.close()
            self._handshake = None

    def _close_race(self) -> None:
        self._stagger.close()
        for attempt in self._racing:
            attempt.close()
        self._racing.clear()


class _Attempt:
    """One address being connected to."""

    __slots__ = ("_dial", "_reactor", "sock")

    def __init__(self, dial: Dial, family: int, address: tuple[object, ...]) -> None:
        self._dial = dial
        self._reactor = dial._reactor  # noqa: SLF001  # a part of the dial
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(0.0)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with contextlib.suppress(BlockingIOError):  # it is under way
                self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise
        self._reactor.watch(self.sock.fileno(), self, WRITE)

    def on_ready(self, mask: int) -> None:
        """Connected, or failed: the socket tells. ``mask`` does not."""
        del mask
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._reactor.unwatch(self.sock.fileno())
        if code:
            self.sock.close()
            self._dial.on_refused(self, OSError(code, os.strerror(code)))
        else:
            self._dial.on_connected(self)

    def on_crash(self, error: BaseException) -> None:
        """Fail the dial with a bug of ours."""
        self._dial.on_crash(error)

    def close(self) -> None:
        """Stop watching and close."""
        self._reactor.unwatch(self.sock.fileno())
        self.sock.close()

    def abandon(self) -> None:
        """Give up the descriptor in a forked child."""
        fd = self.sock.detach()
        if fd >= 0:
            os.close(fd)


class _Handshake:
    """A TLS handshake under way."""

    __slots__ = ("_dial", "_mask", "_reactor", "channel")

    def __init__(self, dial: Dial, channel: TlsChannel) -> None:
        self._dial = dial
        self._reactor = dial._reactor  # noqa: SLF001  # a part of the dial
        self.channel = channel
        self._mask = READ
        self._reactor.watch(channel.fd, self, READ)

    def on_ready(self, mask: int) -> None:
        """Go on."""
        del mask
        try:
            complete = self.channel.handshake()
        except OSError as error:  # ssl.SSLError is one
            self._dial.on_insecure(error)
            return
        if complete:
            self._dial.on_secure(self)
            return
        mask = READ | WRITE if self.channel.wants_write else READ
        if mask != self._mask:
            self._mask = mask
            self._reactor.rewatch(self.channel.fd, mask)

    def on_crash(self, error: BaseException) -> None:
        """Fail the dial with a bug of ours."""
        self._dial.on_crash(error)

    def release(self) -> None:
        """Stop watching; the channel goes to its connection."""
        self._reactor.unwatch(self.channel.fd)

    def close(self) -> None:
        """Stop watching and close."""
        self.release()
        self.channel.close()

    def abandon(self) -> None:
        """Give up the descriptor in a forked child."""
        self.channel.abandon()


def _interleaved(addresses: list[Address]) -> list[Address]:
    """Alternate the families, the resolver's first choice first (RFC 8305 section 4)."""
    unique = list(dict.fromkeys(addresses))
    first = [address for address in unique if address[0] == unique[0][0]] if unique else []
    others = [address for address in unique if address[0] != unique[0][0]] if unique else []
    return [address for address in chain.from_iterable(zip_longest(first, others)) if address is not None]
