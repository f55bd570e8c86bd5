"""The client: what services call, from any number of threads.

A call prepares its request in the calling thread, where bad input raises, and hands it to the runtime, unless that
thread can carry it out by itself. Everything that happens later is set on the future.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Protocol, Self, Unpack, overload

from turbopool.config import ClientOptions, Timeout
from turbopool.config.options import check_count
from turbopool.config.timeouts import TimeoutTypes, check_seconds
from turbopool.errors import ClientDisposed, InvalidRequest
from turbopool.external import ExternalClient
from turbopool.future import ResponseFuture
from turbopool.headers import Headers, HeaderTypes
from turbopool.models import UNSET, Request, Response, Unset, UrlTypes
from turbopool.prepare import (
    Defaults,
    Prepared,
    RequestParts,
    built_version,
    chosen_version,
    known_policy,
    known_version,
)
from turbopool.runtime import Runtime, check_disposal, finalize
from turbopool.stats import RuntimeStats
from turbopool.transport.exchange import Exchange
from turbopool.urls import QueryTypes, parse_base, parse_url, query_pairs
from turbopool.version import __version__

_log = logging.getLogger("turbopool")

USER_AGENT = f"turbopool/{__version__}"


class Owner(Protocol):
    """Whoever shares a runtime out to several handles."""

    def let_go(self, client: Client, drain_timeout: float | None, queued: Literal["finish", "fail"]) -> None:
        """Count a disposed handle."""
        ...


class Client:
    """An HTTP client whose connections are pooled by actors.

    Args:
        options: all options at once; or
        **knobs: each option by its name (see :class:`ClientOptions`), aliases included.

    A client built like this owns its runtime, and :meth:`dispose` ends it. Handles from a :class:`ClientFactory` share
    the runtime of their name. Nothing is started before the first request. Thread-safe.

    Raises:
        ValueError: an option makes no sense; the message names it.
    """

    def __init__(self, options: ClientOptions | None = None, /, **knobs: object) -> None:
        if options is None:
            options = ClientOptions.of(**knobs)
        elif knobs:
            options = options.replace(**knobs)
        self._begin(options, None)
        _log.info("client constructed: %s", options.summary())

    @classmethod
    def _on(cls, runtime: Runtime, owner: Owner) -> Self:
        """Return a handle on a runtime that ``owner`` shares out."""
        client = cls.__new__(cls)
        client._begin(runtime.options, (runtime, owner))  # noqa: SLF001  # it is one of us
        return client

    def _begin(self, options: ClientOptions, shared: tuple[Runtime, Owner] | None) -> None:
        self.settings = options
        self._disposed = False
        self._timeout: Any = float(options.request_timeout) if options.request_timeout else None
        self._body_limit = options.max_buffered_body
        self._owner: Owner | None = None
        self._external = None if options.http_client is None else ExternalClient(options.http_client)
        if shared is None:
            self._runtime = Runtime(options)
            self._finalizer = finalize(self, self._runtime)
        else:
            self._runtime, self._owner = shared
        self._defaults = Defaults(options, USER_AGENT, self._runtime.tls.identity)
        self._scope = object()
        """What :meth:`cancel_pending_requests` goes by; not the handle itself, or its requests would keep it alive."""

    # -- requests --------------------------------------------------------------------------------------------

    @overload
    def send_async(self, request: Request, /) -> ResponseFuture: ...
    @overload
    def send_async(self, method: str, url: UrlTypes, /, **parts: Unpack[RequestParts]) -> ResponseFuture: ...

    def send_async(
        self, request: Request | str, url: UrlTypes | None = None, /, **parts: Unpack[RequestParts]
    ) -> ResponseFuture:
        """Send a request and return its future at once.

        Over an idle HTTP/1.1 connection the calling thread sends it, and a thread that waits in ``result()`` receives
        the response; the dispatcher does all that if none is idle, and receives what nobody waits for.

        Args:
            request: a :class:`Request`; or a method, followed by
            url: absolute, or relative to ``base_url``, and
            **parts: ``params``, ``headers``, ``json``, ``data``, ``content``, ``timeout`` (seconds in all, or a
                :class:`Timeout`), ``http_version``, ``version_policy``.

        Raises:
            InvalidRequest: something about it cannot be sent.
            UnsupportedVersion: the HTTP version asked for is not available.
            ClientDisposed: the client takes no new work.
        """
        if self._external is not None:
            self._refuse_disposed()
            return self._external.send_async(*_as_call(request, url, parts))  # type: ignore[return-value]
        timeout = parts.pop("timeout", UNSET) if parts else UNSET
        return self._submit(self._prepare(request, url, parts, timeout), timeout)

    @overload
    def send(self, request: Request, /) -> Response: ...
    @overload
    def send(self, method: str, url: UrlTypes, /, **parts: Unpack[RequestParts]) -> Response: ...

    def send(self, request: Request | str, url: UrlTypes | None = None, /, **parts: Unpack[RequestParts]) -> Response:
        """Send a request and wait for its response. Arguments and errors are those of :meth:`send_async`.

        Over an idle HTTP/1.1 connection the calling thread does all of it; else the dispatcher does, and wakes it.

        Raises:
            TurboPoolError: the request failed.
            CancelledError: :meth:`cancel_pending_requests` ended it.
        """
        return self._send(request, url, parts)

    def _send(self, request: Request | str, url: UrlTypes | None, parts: RequestParts) -> Response:
        if self._external is not None:
            self._refuse_disposed()
            return self._external.send(*_as_call(request, url, parts))  # type: ignore[no-any-return]
        timeout = parts.pop("timeout", UNSET) if parts else UNSET
        exchange, future = self._exchange(self._prepare(request, url, parts, timeout), timeout)
        if not self._runtime.drive(exchange):
            self._runtime.submit(exchange)
        return _wait(future)

    def request(self, method: str, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send a request of any method; see :meth:`send`."""
        return self._send(method, url, parts)

    def get(self, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send a GET request; see :meth:`send`."""
        return self._send("GET", url, parts)

    def post(self, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send a POST request; see :meth:`send`."""
        return self._send("POST", url, parts)

    def put(self, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send a PUT request; see :meth:`send`."""
        return self._send("PUT", url, parts)

    def patch(self, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send a PATCH request; see :meth:`send`."""
        return self._send("PATCH", url, parts)

    def delete(self, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send a DELETE request; see :meth:`send`."""
        return self._send("DELETE", url, parts)

    def head(self, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send a HEAD request; see :meth:`send`."""
        return self._send("HEAD", url, parts)

    def options(self, url: UrlTypes, **parts: Unpack[RequestParts]) -> Response:
        """Send an OPTIONS request; see :meth:`send`."""
        return self._send("OPTIONS", url, parts)

    def stream(self, method: str, url: UrlTypes, **parts: Unpack[RequestParts]) -> AbstractContextManager[Response]:
        """Send a request; the block gets the response once its head is there, and draws the body as it reads.

        The total timeout ends with the head; from then on ``Timeout(read=)`` bounds each wait for bytes (default: the
        total). Leaving the block gives the connection back; it is closed if the body was not read to its end. So it is
        when the response is dropped without a block, with a ``ResourceWarning`` that names the caller's line.
        """
        if self._external is not None:
            self._refuse_disposed()
            return self._external.stream(method, url, parts)
        timeout = parts.pop("timeout", UNSET)
        caller = sys._getframe(1)  # noqa: SLF001  # a whole stack would cost more than the request
        made_at = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        return _Streaming(lambda: self._submit(self._prepare(method, url, parts, timeout), timeout, made_at=made_at))

    def _prepare(
        self, request: Request | str, url: UrlTypes | None, parts: RequestParts, timeout: TimeoutTypes | Unset
    ) -> Prepared:
        if isinstance(request, Request):
            if url is not None or parts or timeout is not UNSET:
                msg = "a Request was given together with other arguments"
                raise InvalidRequest(msg, advice="put them into the Request")
            return self._defaults.prepare(request)
        if url is None:
            msg = "no URL was given"
            raise InvalidRequest(msg, advice="pass a method and a URL, or a Request")
        if not parts or not any(part is not None for part in parts.values()):
            return self._defaults.plain(request, url)
        return self._defaults.prepare(Request(request, url, **parts))

    def _submit(
        self, prepared: Prepared, timeout: TimeoutTypes | Unset, *, made_at: str | None = None
    ) -> ResponseFuture:
        """Send; the response is streamed if it is known where it was ``made_at``."""
        exchange, future = self._exchange(prepared, timeout, made_at=made_at)
        self._runtime.submit(exchange)
        return future

    def _exchange(
        self, prepared: Prepared, timeout: TimeoutTypes | Unset, *, made_at: str | None = None
    ) -> tuple[Exchange, ResponseFuture]:
        if self._disposed:
            self._refuse_disposed()
        request, url, key, wire, may_lower = prepared
        chosen: Any = timeout
        if chosen is UNSET:
            chosen = self._timeout if request.timeout is UNSET else request.timeout
        total: float | None = chosen
        phases = None
        if chosen is not None and (type(chosen) is not float or not chosen > 0.0):  # which nan is not
            phases = Timeout.of(chosen)  # it refuses what is none
            total = phases.total or None
        exchange = Exchange(request, url, key, wire, self._scope, time.monotonic(), total, self._body_limit, made_at)
        exchange.may_lower = may_lower
        if phases is not None:
            _set_phases(exchange, phases)
        if made_at is not None and exchange.read_timeout is None:
            exchange.read_timeout = total
        return exchange, ResponseFuture(exchange, self._runtime)

    # -- the pool --------------------------------------------------------------------------------------------

    def warm_up(self, url: UrlTypes, connections: int = 1, *, timeout: float | None = None) -> None:
        """Open connections ahead of requests, up to the key's limit, without waiting for them.

        Args:
            url: of the server; its path does not matter.
            connections: how many the pool shall have.
            timeout: seconds to connect, or None for the client's ``connect_timeout``.

        Raises:
            InvalidRequest, ValueError: an argument makes no sense; the message names it.
            UnsupportedVersion: the client's HTTP version is not available.
            ClientDisposed: the client takes no new work.
        """
        self._refuse_disposed()
        check_count("connections", connections)
        check_seconds("timeout", timeout)
        if self._external is not None:
            return
        target = parse_url(url, base=self._defaults.base_url)
        version = built_version(self._defaults.http_version)
        version, _ = chosen_version(version, self._defaults.version_policy, target.scheme)
        key = self._defaults.key(target, version)
        self._runtime.warm_up(key, connections, timeout)

    def stats(self) -> RuntimeStats:
        """Return a snapshot of the pools, by key. Never blocks."""
        return RuntimeStats(pools_are_ours=False) if self._external is not None else self._runtime.stats()

    def cancel_pending_requests(self) -> None:
        """Cancel every request this handle has queued or under way, blocking ones included.

        Returns when all of them are.
        """
        if self._external is not None:
            self._external.cancel_pending()
        else:
            self._runtime.abandon_all(self._scope)

    # -- the end ---------------------------------------------------------------------------------------------

    def dispose(self, drain_timeout: float | None = None, *, queued: Literal["finish", "fail"] = "finish") -> None:
        """Refuse new work, let what is queued and under way end, close all connections, stop all actors.

        Idempotent, and callable from any thread; a second call waits for the first. A handle from a factory lets go
        of its share; the last one ends the runtime.

        Args:
            drain_timeout: seconds until what is left is failed with ``ClientDisposed``; None waits for the requests'
                own deadlines.
            queued: ``"fail"`` fails the queue at once.

        Raises:
            ValueError: an argument makes no sense; nothing is disposed then.
        """
        check_disposal(drain_timeout, queued)
        self._disposed = True
        if self._external is not None:
            self._external.close(drain_timeout, queued)
        if self._owner is not None:
            self._owner.let_go(self, drain_timeout, queued)
        else:
            self._finalizer.detach()
            self._runtime.dispose(drain_timeout, queued)

    def close(self) -> None:
        """Do what :meth:`dispose` does."""
        self.dispose()

    @property
    def is_disposed(self) -> bool:
        """Whether the client takes no new work."""
        return self._disposed or self._runtime.is_disposed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.dispose()

    def __repr__(self) -> str:
        return f"<Client base_url={self._defaults.base_url!r}{' disposed' if self.is_disposed else ''}>"

    def _refuse_disposed(self) -> None:
        if self.is_disposed:
            msg = "the client was disposed"
            raise ClientDisposed(msg, advice="make a new client, or dispose later")

    # -- the handle's own defaults ---------------------------------------------------------------------------

    @property
    def base_url(self) -> str | None:
        """Where relative URLs are appended; may be set between requests. Also ``base_address``."""
        return self._defaults.base_url

    @base_url.setter
    def base_url(self, url: UrlTypes | None) -> None:
        self._defaults.base_url = None if url is None else str(parse_base(str(url)))

    base_address = base_url

    @property
    def headers(self) -> Headers:
        """The fields of every request; may be changed between requests."""
        return self._defaults.headers

    @headers.setter
    def headers(self, headers: HeaderTypes | None) -> None:
        self._defaults.headers = Headers(headers)

    @property
    def params(self) -> tuple[tuple[str, str], ...]:
        """The query parameters of every request; may be set between requests."""
        return self._defaults.params

    @params.setter
    def params(self, params: QueryTypes | None) -> None:
        self._defaults.params = tuple(query_pairs(params))

    @property
    def timeout(self) -> float | Timeout | None:
        """The timeout of requests that have none of their own; may be set between requests."""
        return self._timeout  # type: ignore[no-any-return]

    @timeout.setter
    def timeout(self, timeout: TimeoutTypes) -> None:
        self._timeout = None if timeout is None else Timeout.of(timeout)

    @property
    def http_version(self) -> str:
        """The version of requests that ask for none; may be set between requests."""
        return self._defaults.http_version

    @http_version.setter
    def http_version(self, version: str) -> None:
        self._defaults.http_version = known_version(version)

    default_request_version = http_version

    @property
    def version_policy(self) -> str:
        """The version policy of requests that have none; may be set between requests."""
        return self._defaults.version_policy

    @version_policy.setter
    def version_policy(self, policy: str) -> None:
        self._defaults.version_policy = known_policy(policy)

    default_version_policy = version_policy


def _set_phases(exchange: Exchange, phases: Timeout) -> None:
    if phases.queue:
        exchange.queue_timeout = phases.queue
        exchange.queue_deadline = min(exchange.deadline, exchange.asked_at + phases.queue)
    exchange.connect_timeout = phases.connect  # 0 stays: no limit, where None is the client's
    exchange.write_timeout = phases.write or None
    exchange.read_timeout = phases.read or None


def _as_call(request: Request | str, url: UrlTypes, parts: RequestParts) -> tuple[str, UrlTypes | None, dict[str, Any]]:
    """Return method, URL and keyword arguments, as other libraries take them."""
    if not isinstance(request, Request):
        return request, url, dict(parts)
    given = {name: getattr(request, name) for name in ("params", "headers", "json", "data", "content")}
    if request.timeout is not UNSET:
        given["timeout"] = request.timeout
    return request.method, request.url, {name: value for name, value in given.items() if value is not None}


class _Streaming(AbstractContextManager[Response]):
    """The block of a streamed response."""

    __slots__ = ("_response", "_send")

    def __init__(self, send: Callable[[], ResponseFuture]) -> None:
        self._send = send
        self._response: Response | None = None

    def __enter__(self) -> Response:
        self._response = _wait(self._send())
        return self._response

    def __exit__(self, *_: object) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()


def _wait(future: ResponseFuture) -> Response:
    """Wait for a future of this thread's own; an interrupt takes the request back."""
    try:
        return future.result()
    except (KeyboardInterrupt, SystemExit):
        future.cancel()
        raise
