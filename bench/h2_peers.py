# ruff: noqa: D101, D102  # the module says what an adapter and its methods do
"""The clients over HTTP/2, in their fastest documented use: see peers.py for what holds for all adapters.

A client that multiplexes has ``connections`` of ``streams`` streams. Threaded adapters have ``warm_up()`` and
``get() -> bytes``, those that submit many at once also ``batch(size)``; asyncio ones are warm when entered, and have
``async get() -> bytes``. To be warm is to have spoken HTTP/2, and nothing else.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from itertools import cycle
from queue import SimpleQueue
from typing import Any, Self

from target import Target, require

TIMEOUT = 15.0
"""Seconds that a request may take, for everyone: threads that share a client lose an answer now and then."""


class Turbopool:
    """``send_async().result()``."""

    def __init__(self, target: Target) -> None:
        from turbopool import Client, Http2Options

        self._client = Client(
            http_version="2",
            version_policy="exact",
            http2=Http2Options(max_connections_per_server=target.connections, max_concurrent_streams=target.streams),
            verify=str(target.authority) if target.authority else True,
            request_timeout=TIMEOUT,
        )
        self._request = target.requests()

    def warm_up(self) -> None:
        require(self.submit().result().http_version, "HTTP/2")

    def submit(self) -> Future[Any]:
        url, headers = self._request()
        return self._client.send_async("GET", url, headers=headers)

    def get(self) -> bytes:
        return self.submit().result().content

    def batch(self, size: int) -> Iterator[bytes]:
        for future in [self.submit() for _ in range(size)]:
            yield future.result().content

    def close(self) -> None:
        self._client.dispose()


def httpx2_options(target: Target) -> dict[str, Any]:
    """Return what both of its clients are told."""
    import httpx2

    verify = {"verify": ssl.create_default_context(cafile=target.authority)} if target.authority else {}
    limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1)
    return {"http1": False, "http2": True, "limits": limits, "timeout": TIMEOUT, "trust_env": False, **verify}


class Httpx2:
    """One client for all threads, as it documents."""

    def __init__(self, target: Target) -> None:
        import httpx2

        self._client = httpx2.Client(**httpx2_options(target))
        self._request = target.requests()

    def warm_up(self) -> None:
        url, headers = self._request()
        require(self._client.get(url, headers=headers).http_version, "HTTP/2")

    def get(self) -> bytes:
        url, headers = self._request()
        return self._client.get(url, headers=headers).content

    def close(self) -> None:
        self._client.close()


class AsyncHttpx2:
    def __init__(self, target: Target) -> None:
        import httpx2

        self._client = httpx2.AsyncClient(**httpx2_options(target))
        self._request = target.requests()

    async def __aenter__(self) -> Self:
        url, headers = self._request()
        require((await self._client.get(url, headers=headers)).http_version, "HTTP/2")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self) -> bytes:
        url, headers = self._request()
        return (await self._client.get(url, headers=headers)).content


class Niquests:
    """Without ``multiplexed``, which makes threads that wait for each answer no faster."""

    multiplexed = False

    def __init__(self, target: Target) -> None:
        import niquests

        only = {"disable_http1": True, "disable_http3": True, "pool_connections": 1, "pool_maxsize": 1}
        self._session = niquests.Session(multiplexed=self.multiplexed, timeout=TIMEOUT, **only)
        self._session.trust_env = False
        if target.authority:
            self._session.verify = str(target.authority)
        self._request = target.requests()

    def warm_up(self) -> None:
        response = self._ask()
        self._session.gather()
        require(response.content and response.http_version, 20)

    def get(self) -> bytes:
        return self._ask().content or b""

    def close(self) -> None:
        self._session.close()

    def _ask(self) -> Any:
        url, headers = self._request()
        return self._session.get(url, headers=headers)


class NiquestsGather(Niquests):
    """All of a batch are sent, then gathered: faster than its asyncio session."""

    multiplexed = True

    def batch(self, size: int) -> Iterator[bytes]:
        responses = [self._ask() for _ in range(size)]
        self._session.gather()
        for response in responses:
            yield response.content or b""


class Pycurl:
    """A handle has one request at a time and a connection of its own, so there is one for each thread."""

    def __init__(self, target: Target) -> None:
        import pycurl

        self._pycurl, self._unique, self._request = pycurl, target.unique, target.requests()
        self._idle: SimpleQueue[Any] = SimpleQueue()
        url, _ = self._request()
        for _ in range(target.callers):
            handle = pycurl.Curl()
            handle.setopt(pycurl.URL, url)
            handle.setopt(pycurl.NOSIGNAL, 1)
            handle.setopt(pycurl.PROXY, "")
            handle.setopt(pycurl.TIMEOUT, int(TIMEOUT))
            if target.authority:
                handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
                handle.setopt(pycurl.CAINFO, str(target.authority))
            else:
                handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
            self._idle.put(handle)

    def warm_up(self) -> None:
        for _ in range(self._idle.qsize()):  # the handles take turns
            self.get()
        for _ in range(self._idle.qsize()):
            handle = self._idle.get()
            require(handle.getinfo(self._pycurl.INFO_HTTP_VERSION), self._pycurl.CURL_HTTP_VERSION_2_0)
            self._idle.put(handle)

    def get(self) -> bytes:
        handle = self._idle.get()
        if self._unique:
            url, headers = self._request()
            handle.setopt(self._pycurl.URL, url)
            handle.setopt(self._pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in (headers or {}).items()])
        body = io.BytesIO()
        handle.setopt(self._pycurl.WRITEDATA, body)
        handle.perform()
        self._idle.put(handle)
        return body.getvalue()

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()


class Pyreqwest:
    multithreaded = False

    def __init__(self, target: Target) -> None:
        from pyreqwest.client import SyncClientBuilder

        streams = target.connections * target.streams
        self._client = pyreqwest_builder(SyncClientBuilder(), target, streams, multithreaded=self.multithreaded).build()
        self._request = target.requests()

    def warm_up(self) -> None:
        require(self._send().version, "HTTP/2.0")

    def get(self) -> Any:
        return self._send().bytes()

    def close(self) -> None:
        self._client.close()

    def _send(self) -> Any:
        url, headers = self._request()
        request = self._client.get(url)
        return (request.headers(headers) if headers else request).build().send()


class PyreqwestMt(Pyreqwest):
    multithreaded = True


class AsyncPyreqwest:
    """One client: it has one connection, whatever it is told, so all the streams are asked of that."""

    multithreaded = False
    one_each = False
    """Whether there is a client for each connection; the requests go round them."""

    def __init__(self, target: Target) -> None:
        from pyreqwest.client import ClientBuilder

        count = target.connections if self.one_each else 1
        streams = target.connections * target.streams // count
        self._clients = [
            pyreqwest_builder(ClientBuilder(), target, streams, multithreaded=self.multithreaded).build()
            for _ in range(count)
        ]
        self._turn = cycle(self._clients)
        self._request = target.requests()

    async def __aenter__(self) -> Self:
        for _ in self._clients:
            require((await self._send()).version, "HTTP/2.0")
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()

    async def get(self) -> Any:
        return await (await self._send()).bytes()

    async def _send(self) -> Any:
        url, headers = self._request()
        request = next(self._turn).get(url)
        return await (request.headers(headers) if headers else request).build().send()


class AsyncPyreqwestMt(AsyncPyreqwest):
    multithreaded = True


class AsyncPyreqwestEach(AsyncPyreqwest):
    one_each = True


def pyreqwest_builder(builder: Any, target: Target, streams: int, *, multithreaded: bool) -> Any:
    """Tell a builder what all of its clients are told; its ``max_connections`` bounds requests, not connections."""
    builder = builder.no_proxy().timeout(timedelta(seconds=TIMEOUT)).max_connections(streams)
    builder = builder.runtime_multithreaded(multithreaded)
    if target.authority:
        return builder.http2(enable=True).add_root_certificate_pem(target.authority.read_bytes())
    return builder.http2_prior_knowledge()


THREADED: dict[str, type[Any]] = {
    "turbopool": Turbopool,
    "httpx2": Httpx2,
    "niquests": Niquests,
    "niquests-gather": NiquestsGather,
    "pycurl": Pycurl,
    "pyreqwest": Pyreqwest,
    "pyreqwest-mt": PyreqwestMt,
}
ASYNCIO: dict[str, type[Any]] = {
    "httpx2-async": AsyncHttpx2,
    "pyreqwest-async": AsyncPyreqwest,
    "pyreqwest-async-mt": AsyncPyreqwestMt,
    "pyreqwest-async-each": AsyncPyreqwestEach,
}
