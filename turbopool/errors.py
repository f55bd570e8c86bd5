"""Every error a user of turbopool can meet, in one tree, and the facts each one carries.

Three rules hold for all of them:

1. An error says what happened, where, with which numbers, and what to change. Bytes of a peer reach a message only
   through :func:`shorten`.
2. Each class also *is* the httpcore exception that means the same, timeouts are :class:`TimeoutError` and network
   errors are :class:`OSError`, so code that catches those keeps working.
3. An instance belongs to one waiter. What many share is handed out with :meth:`TurboPoolError.again`.

Whether a request may be sent again is decided elsewhere; errors only report it. Times among the facts are seconds.
"""

from __future__ import annotations

import pickle
from typing import Any, Literal, Self, TypeVar

import httpcore

Fact = int | float | str | bool | None
"""The value of one fact."""

_FIELDS = ("message", "origin", "phase", "request_sent", "processed", "may_retry", "attempts", "advice")

_E = TypeVar("_E", bound="TurboPoolError")

Processed = Literal["no", "maybe", "yes"]
"""Whether the peer acted on the request, as far as is known."""


def shorten(data: bytes, limit: int = 80) -> str:
    """Return bytes of a peer as at most ``limit`` characters of escaped ASCII, and ``...`` if some were left out."""
    pieces: list[str] = []
    room = limit
    for byte in data[:limit]:
        piece = chr(byte).encode("unicode_escape").decode("ascii")
        room -= len(piece)
        if room < 0:
            break
        pieces.append(piece)
    return "".join(pieces) + ("..." if len(pieces) < len(data) else "")


class TurboPoolError(Exception):
    """Base of every error raised by turbopool.

    Pickling keeps all fields, and the cause when it can be pickled.
    """

    message: str
    """What happened, one clause without a full stop."""
    origin: str | None
    """The server concerned, as ``scheme://host:port``."""
    phase: str | None
    """Where the request was: queue, dns, connect, tls, send, wait or recv."""
    request_sent: bool
    """Whether any byte of the request was handed to the kernel."""
    processed: Processed
    """Whether the server acted on the request: ``maybe`` when nobody can know."""
    may_retry: bool
    """Whether sending the same request again is safe."""
    attempts: int
    """How often the request was tried."""
    advice: str | None
    """What to change, one sentence without a full stop."""
    facts: dict[str, Fact]
    """The numbers and names behind the message."""

    def __init__(  # noqa: PLR0913  # every fact that all errors share
        self,
        message: str,
        *,
        origin: str | None = None,
        phase: str | None = None,
        request_sent: bool = False,
        processed: Processed = "no",
        may_retry: bool = False,
        attempts: int = 0,
        advice: str | None = None,
        **facts: Fact,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.origin = origin
        self.phase = phase
        self.request_sent = request_sent
        self.processed = processed
        self.may_retry = may_retry
        self.attempts = attempts
        self.advice = advice
        self.facts = facts
        if isinstance(self, OSError):
            _carry_errno(self, facts.get("errno"))

    def __str__(self) -> str:
        text = self.message
        if self.origin:
            text += f" [{self.origin}]"
        if self.facts:
            text += f" ({', '.join(f'{name}={_plain(value)}' for name, value in self.facts.items())})"
        if self.advice:
            text += f". {self.advice}"
        return text

    def again(self) -> Self:
        """Return an own instance for another waiter: all fields and the cause, no traceback."""
        return self.with_()

    def with_(self, **changes: object) -> Self:
        """Return :meth:`again` with some fields replaced; other names are added to the facts."""
        fields = self._fields()
        facts: dict[str, Any] = dict(self.facts)
        for name, value in changes.items():
            (fields if name in fields else facts)[name] = value
        return _rebuild(type(self), fields, facts, self.__cause__)

    def _fields(self) -> dict[str, object]:
        """The constructor's named arguments, facts apart."""
        return {name: getattr(self, name) for name in _FIELDS}

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__ if _is_picklable(self.__cause__) else None
        return _rebuild, (type(self), self._fields(), self.facts, cause)


def _carry_errno(error: OSError, errno: Fact) -> None:
    """Callers of network code branch on ``errno``: a fact of that name becomes the attribute too."""
    if isinstance(errno, int):
        error.errno = errno


def _plain(value: Fact) -> str:
    """Milliseconds are enough: ``0.30000000000000004`` tells nobody anything."""
    return str(round(value, 3) if isinstance(value, float) else value)


def _rebuild(kind: type[_E], fields: dict[str, Any], facts: dict[str, Fact], cause: BaseException | None) -> _E:
    error = kind(**(facts | fields))
    error.__cause__ = cause
    return error


def _is_picklable(value: object) -> bool:
    """Loading counts too: many exceptions dump well and then refuse their own arguments."""
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301  # bytes of our own
    except Exception:  # noqa: BLE001  # a foreign __reduce__ may raise anything
        return False
    return True


class PoolError(TurboPoolError):
    """The pool itself refused or could not serve the request; nothing was sent."""


class PoolFull(PoolError):
    """The queue of this key is at ``max_pending_requests``."""


class PoolTimeout(PoolError, httpcore.PoolTimeout, TimeoutError):
    """No connection became free within the queue timeout."""


class ClientDisposed(PoolError, RuntimeError):
    """The client was disposed of before or while it held the request."""


class ManagerCrashed(PoolError):
    """The actor in charge of this key failed; a replacement serves what comes next."""


class UnsupportedVersion(PoolError):
    """The HTTP version asked for is not built, not installed or not spoken by the server."""


class LimitExceeded(PoolError):
    """A bound was exceeded; the fact ``option`` names the option to raise."""

    @property
    def option(self) -> str | None:
        """The name of the option that set the bound."""
        name = self.facts.get("option")
        return None if name is None else str(name)


class ResourceError(PoolError, OSError):
    """This machine ran out of something: descriptors, ports, memory or threads."""


class TransportError(TurboPoolError):
    """The connection could not be made, or broke, or was too slow."""


class ConnectError(TransportError, httpcore.ConnectError, OSError):
    """No connection could be established."""


class DnsError(ConnectError):
    """The host name did not resolve."""


class TlsError(ConnectError):
    """The TLS handshake failed."""


class TlsVerifyError(TlsError):
    """The server's certificate was not accepted. Never tried again."""


class ProxyError(TransportError, httpcore.ProxyError):
    """The proxy refused, or did not answer as a proxy."""


class ConnectTimeout(TransportError, httpcore.ConnectTimeout, TimeoutError):
    """TCP and TLS together took longer than the connect timeout."""


class ReadTimeout(TransportError, httpcore.ReadTimeout, TimeoutError):
    """The server sent nothing for longer than the read timeout."""


class WriteTimeout(TransportError, httpcore.WriteTimeout, TimeoutError):
    """The server accepted nothing for longer than the write timeout."""


class ReadError(TransportError, httpcore.ReadError, OSError):
    """The connection broke while waiting for or reading the response."""


class WriteError(TransportError, httpcore.WriteError, OSError):
    """The connection broke while sending the request."""


class ProtocolError(TurboPoolError, httpcore.ProtocolError):
    """A rule of HTTP was broken."""


class RemoteProtocolError(ProtocolError, httpcore.RemoteProtocolError):
    """The server broke a rule of HTTP."""


class IncompleteRead(RemoteProtocolError):
    """The body ended early; facts ``received`` and ``expected`` count bytes."""


class LocalProtocolError(ProtocolError, httpcore.LocalProtocolError):
    """What was to be sent would break a rule of HTTP."""


class InvalidRequest(LocalProtocolError, ValueError):
    """The request cannot be sent as it is; raised before anything happens."""


class DeadlineExceeded(TurboPoolError, httpcore.TimeoutException, TimeoutError):
    """The total deadline of the request passed, in whatever phase it was."""


class DecodeError(TurboPoolError):
    """The body is not what its Content-Encoding says."""


class HTTPStatusError(TurboPoolError):
    """Raised by ``Response.raise_for_status()`` for a 4xx or 5xx answer."""

    request: Any
    """The request that was answered; None after pickling if it cannot be pickled."""

    response: Any
    """The answer; None after pickling if it cannot be pickled."""

    def __init__(
        self,
        message: str,
        *,
        request: object = None,
        response: object = None,
        **fields: Any,  # noqa: ANN401  # the base's own
    ) -> None:
        super().__init__(message, **fields)
        self.request = request
        self.response = response

    def _fields(self) -> dict[str, object]:
        return super()._fields() | {"request": self.request, "response": self.response}

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, (kind, fields, facts, cause) = super().__reduce__()
        for name in ("request", "response"):
            if not _is_picklable(fields[name]):
                fields[name] = None
        return rebuild, (kind, fields, facts, cause)


class StreamConsumed(TurboPoolError, RuntimeError):
    """The body was already read and is not kept."""


class StreamClosed(TurboPoolError, RuntimeError):
    """The response was closed before its body was read."""
