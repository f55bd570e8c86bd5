"""Everything a client can be told, with its defaults. All times are float seconds, all sizes bytes.

A default may come from the environment (:mod:`turbopool.config.environment`), read when the options are built. An
argument always wins over it, also when it is 0 or None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast

from turbopool.config.environment import count_or, read_environment, seconds_or
from turbopool.config.reconnect import ReconnectOptions
from turbopool.config.timeouts import check_seconds
from turbopool.config.tls import CertTypes, TlsOptions, VerifyTypes
from turbopool.errors import InvalidRequest
from turbopool.headers import Headers, HeaderTypes
from turbopool.urls import QueryTypes, SupportsStr, parse_base, query_pairs

ALIASES = {
    "base_address": "base_url",
    "pooled_connection_idle_timeout": "idle_timeout",
    "pooled_connection_lifetime": "connection_lifetime",
}
"""Other names that options are known by."""

HTTP_VERSIONS = ("1.0", "1.1", "2", "3")
VERSION_POLICIES = ("exact", "or_lower", "or_higher")

_SDK_DEFAULTS = {"max_conns_per_host": 5, "idle_timeout": 55.0, "connect_timeout": 10.0, "request_timeout": 30.0}
_MIB = 1 << 20
_SMALLEST_WINDOW = 65_535  # RFC 9113 section 6.9.2: the window before SETTINGS
_LARGEST_WINDOW = (1 << 31) - 1


def check_count(option: str, value: object, *, least: int = 1, most: int | None = None) -> None:
    """Refuse what is no whole number between ``least`` and ``most``.

    Raises:
        ValueError: the message names ``option``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        msg = f"{option} must be a whole number {bounds}, not {value!r}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Options:
    """HTTP/1.0 and HTTP/1.1."""

    max_connections_per_server: int = 6
    """Connections per server."""
    min_idle_connections: int = 0
    """How many connections per server the idle timeout leaves open, so that the next request finds one."""

    def __post_init__(self) -> None:
        check_count("http1.max_connections_per_server", self.max_connections_per_server)
        check_count("http1.min_idle_connections", self.min_idle_connections, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Options:
    """HTTP/2."""

    max_connections_per_server: int = 6
    """Connections per server; a further one opens when the others are at their stream limit."""
    max_concurrent_streams: int = 100
    """Requests at once on a connection; a lower limit of the server's wins."""
    connection_window: int = 64 * _MIB
    """Bytes a server may send on a connection before they are read."""
    stream_window: int = 2 * _MIB
    """Bytes a server may send of one response before they are read."""
    keep_alive_interval: float | None = 30.0
    """Seconds without a byte from the server, while requests wait, after which it is asked for a sign of life by PING.
    0 or None: never."""
    keep_alive_timeout: float = 20.0
    """Seconds to wait for that sign until the connection is given up."""
    fast_lane: bool = True
    """Whether streams are carried by faster code than ``h2``'s own. Off, to rule it out when something looks wrong."""

    def __post_init__(self) -> None:
        check_seconds("http2.keep_alive_interval", self.keep_alive_interval)
        check_seconds("http2.keep_alive_timeout", self.keep_alive_timeout)
        if not self.keep_alive_timeout:
            msg = "http2.keep_alive_timeout must be more than 0 seconds"
            raise ValueError(msg)
        check_count("http2.max_connections_per_server", self.max_connections_per_server)
        check_count("http2.max_concurrent_streams", self.max_concurrent_streams)
        for name in ("connection_window", "stream_window"):
            check_count(f"http2.{name}", getattr(self, name), least=_SMALLEST_WINDOW, most=_LARGEST_WINDOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http3Options:
    """HTTP/3."""

    max_connections_per_server: int = 4
    """QUIC connections per server."""
    idle_timeout: float | None = None
    """Seconds without a packet until a connection is closed; None takes the client's ``idle_timeout``."""

    def __post_init__(self) -> None:
        check_count("http3.max_connections_per_server", self.max_connections_per_server)
        check_seconds("http3.idle_timeout", self.idle_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The options of a client.

    Raises:
        ValueError: a value makes no sense; the message names the option, and the environment variable if it is one's.
    """

    base_url: str | SupportsStr | None = None
    """Where relative URLs are appended. Also known as ``base_address``."""
    headers: HeaderTypes | None = None
    """Header fields of every request; a request's own win. Kept as :class:`Headers`."""
    params: QueryTypes | None = None
    """Query parameters of every request; a request's own win. Kept as pairs of text."""
    http1: Http1Options = field(default_factory=Http1Options)
    http2: Http2Options = field(default_factory=Http2Options)
    http3: Http3Options = field(default_factory=Http3Options)
    max_conns_per_host: int | None = field(default_factory=lambda: count_or("max_conns_per_host", None))
    """One bound over all versions of a host together; when set, it wins over the three above. 0 or None: not set."""
    max_total_connections: int | None = None
    """A bound over all hosts; the least recently used idle connection makes room. None: no bound."""
    idle_timeout: float | None = field(default_factory=lambda: seconds_or("idle_timeout", 55.0))
    """Since its last release, until an idle connection is closed. 0 or None: never. Also known as
    ``pooled_connection_idle_timeout``."""
    connection_lifetime: float | None = field(default_factory=lambda: seconds_or("connection_lifetime", 600.0))
    """Age at which a connection is used no more, so that DNS changes are seen. 0: used once; None: no limit. Also
    known as ``pooled_connection_lifetime``."""
    connect_timeout: float | None = field(default_factory=lambda: seconds_or("connect_timeout", 10.0))
    """TCP and TLS handshake together. 0 or None: no limit."""
    request_timeout: float | None = field(default_factory=lambda: seconds_or("request_timeout", 30.0))
    """From the call to the complete response, waiting for a connection included. 0 or None: no limit."""
    max_pending_requests: int = 65_536
    """Requests that may wait for one server; beyond it ``PoolFull`` at once."""
    reconnect: ReconnectOptions = field(default_factory=ReconnectOptions)
    """How a lost connection is dialed again."""
    max_response_headers: int = 65_536
    """Bytes of a response's header section."""
    max_header_count: int = 256
    """Fields of a response's header section."""
    max_informational: int = 16
    """1xx answers before the response."""
    max_buffered_body: int = 256 * _MIB
    """Bytes of a body kept in memory, received or decoded. Streaming has no bound."""
    http_version: str = "1.1"
    """The version asked for: 1.0, 1.1, 2 or 3."""
    version_policy: str = "or_lower"
    """What may happen when a server does not speak it: exact, or_lower or or_higher."""
    verify: VerifyTypes = True
    """True, a CA file or folder, an ``ssl.SSLContext``, or False."""
    cert: CertTypes = field(default=None, repr=False)
    """The client certificate: a path, (certificate, key) or (certificate, key, password)."""
    http_client: object | None = None
    """A client of another library to use instead; none of the other options apply to it, and it is never closed."""
    own_dispatcher: bool = False
    """Whether this client's actors run on a thread of their own instead of the one all clients share."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_kinds()
        self._normalise()
        self.tls()

    @classmethod
    def of(cls, **options: object) -> Self:
        """Build options from keyword arguments, aliases included.

        Raises:
            ValueError: a value makes no sense, or an option and its alias differ.
            TypeError: there is no such option.
        """
        return cls(**_without_aliases(options))

    @classmethod
    def sdk_defaults(cls, **overrides: object) -> Self:
        """Return the defaults of GetStream's SDKs: 5 connections per host, 55 s idle, 10 s connect, 30 s request.

        As with any default, the environment wins over them and ``overrides`` over both.
        """
        return cls(**(_SDK_DEFAULTS | read_environment() | _without_aliases(overrides)))

    def replace(self, **changes: object) -> Self:
        """Return a copy with some options changed; aliases are understood."""
        return dataclasses.replace(self, **_without_aliases(changes))

    def connections_for(self, version: str) -> int:
        """Return how many connections one server may have that speak ``version``: 1.0, 1.1, 2 or 3."""
        if self.max_conns_per_host:
            return self.max_conns_per_host
        http1 = self.http1.max_connections_per_server
        http2, http3 = self.http2.max_connections_per_server, self.http3.max_connections_per_server
        return {"1.0": http1, "1.1": http1, "2": http2, "3": http3}[version]

    def tls(self) -> TlsOptions:
        """Return the TLS configuration. Files count as they are now."""
        return TlsOptions(self.verify, self.cert)

    @property
    def pooled_connection_idle_timeout(self) -> float | None:
        """The same as ``idle_timeout``."""
        return self.idle_timeout

    @property
    def pooled_connection_lifetime(self) -> float | None:
        """The same as ``connection_lifetime``."""
        return self.connection_lifetime

    @property
    def base_address(self) -> str | SupportsStr | None:
        """The same as ``base_url``."""
        return self.base_url

    def summary(self) -> str:
        """Return the effective values in one line, for the log; no secret is among them."""
        if self.http_client is not None:
            kind = type(self.http_client)
            return f"http_client={kind.__module__}.{kind.__qualname__} (used as it is: no option of ours applies)"
        values: dict[str, object] = {
            "base_url": None if self.base_url is None else parse_base(str(self.base_url)).origin,
            "max_conns_per_host": self.max_conns_per_host,
            "http1": self.connections_for("1.1"),
            "http2": f"{self.connections_for('2')}x{self.http2.max_concurrent_streams}",
            "http3": self.connections_for("3"),
            **{name: getattr(self, name) for name in _SUMMARY},
            "verify": self.verify if isinstance(self.verify, bool) else "custom",
            "client_certificate": self.cert is not None,
        }
        return " ".join(f"{name}={value}" for name, value in values.items())

    def _check_numbers(self) -> None:
        for name in ("idle_timeout", "connection_lifetime", "connect_timeout", "request_timeout"):
            check_seconds(name, getattr(self, name))
        if self.max_conns_per_host is not None:
            check_count("max_conns_per_host", self.max_conns_per_host, least=0)
        if self.max_total_connections is not None:
            check_count("max_total_connections", self.max_total_connections)
        for name in _LIMITS:
            check_count(name, getattr(self, name))

    def _check_kinds(self) -> None:
        for name, kind in _KINDS.items():
            if not isinstance(getattr(self, name), kind):
                msg = f"{name} must be {kind.__name__}, not {getattr(self, name)!r}"
                raise ValueError(msg)  # noqa: TRY004  # every option is refused with ValueError
        for name, known in (("http_version", HTTP_VERSIONS), ("version_policy", VERSION_POLICIES)):
            if getattr(self, name) not in known:
                msg = f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                raise ValueError(msg)

    def _normalise(self) -> None:
        """Keep copies: what the caller changes later must not reach a running client."""
        try:
            option = "base_url"
            if self.base_url is not None:
                parse_base(str(self.base_url))
                object.__setattr__(self, option, str(self.base_url))
            option = "headers"
            object.__setattr__(self, option, Headers(self.headers))
            option = "params"
            object.__setattr__(self, option, tuple(query_pairs(self.params)))
        except InvalidRequest as error:
            msg = f"{option}: {error}"
            raise ValueError(msg) from error


_LIMITS = (
    "max_pending_requests", "max_response_headers", "max_header_count", "max_informational", "max_buffered_body",
)  # fmt: skip
_SUMMARY = (
    "max_total_connections", "idle_timeout", "connection_lifetime", "connect_timeout", "request_timeout",
    "max_pending_requests", "http_version", "version_policy",
)  # fmt: skip
_KINDS = {
    "http1": Http1Options, "http2": Http2Options, "http3": Http3Options, "reconnect": ReconnectOptions,
    "own_dispatcher": bool,
}  # fmt: skip


def _without_aliases(options: Mapping[str, object]) -> dict[str, Any]:
    plain = {name: value for name, value in options.items() if name not in ALIASES}
    for alias, name in ALIASES.items():
        if alias not in options:
            continue
        if name in options and options[name] != options[alias]:
            msg = f"{name}={options[name]!r} and its alias {alias}={options[alias]!r} differ: give only one"
            raise ValueError(msg)
        plain[name] = options[alias]
    return cast("dict[str, Any]", plain)
