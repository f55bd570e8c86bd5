"""turbopool: an HTTP client pool for threaded services, run by actors."""

from __future__ import annotations

import logging

from turbopool.client import Client
from turbopool.config import ClientOptions, Http1Options, Http2Options, Http3Options, ReconnectOptions, Timeout
from turbopool.errors import (
    ClientDisposed,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DecodeError,
    DnsError,
    HTTPStatusError,
    IncompleteRead,
    InvalidRequest,
    LimitExceeded,
    LocalProtocolError,
    ManagerCrashed,
    PoolError,
    PoolFull,
    PoolTimeout,
    ProtocolError,
    ProxyError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    ResourceError,
    StreamClosed,
    StreamConsumed,
    TlsError,
    TlsVerifyError,
    TransportError,
    TurboPoolError,
    UnsupportedVersion,
    WriteError,
    WriteTimeout,
)
from turbopool.factory import ClientFactory
from turbopool.future import ResponseFuture
from turbopool.headers import Headers
from turbopool.models import HttpVersion, Request, Response, VersionPolicy
from turbopool.stats import PoolKey, PoolStats, RuntimeStats
from turbopool.version import __version__

__all__ = [
    "Client",
    "ClientDisposed",
    "ClientFactory",
    "ClientOptions",
    "ConnectError",
    "ConnectTimeout",
    "DeadlineExceeded",
    "DecodeError",
    "DnsError",
    "HTTPStatusError",
    "Headers",
    "Http1Options",
    "Http2Options",
    "Http3Options",
    "HttpVersion",
    "IncompleteRead",
    "InvalidRequest",
    "LimitExceeded",
    "LocalProtocolError",
    "ManagerCrashed",
    "PoolError",
    "PoolFull",
    "PoolKey",
    "PoolStats",
    "PoolTimeout",
    "ProtocolError",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "ReconnectOptions",
    "RemoteProtocolError",
    "Request",
    "ResourceError",
    "Response",
    "ResponseFuture",
    "RuntimeStats",
    "StreamClosed",
    "StreamConsumed",
    "Timeout",
    "TlsError",
    "TlsVerifyError",
    "TransportError",
    "TurboPoolError",
    "UnsupportedVersion",
    "VersionPolicy",
    "WriteError",
    "WriteTimeout",
    "__version__",
]

logging.getLogger("turbopool").addHandler(logging.NullHandler())
