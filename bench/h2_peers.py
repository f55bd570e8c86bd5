# ruff: noqa: D101, D102  # the module says what an adapter and its methods do
"""The clients over HTTP/2, in their fastest documented use: see peers.py for what holds for all adapters.

A client that multiplexes has one connection, of ``STREAMS`` streams. Threaded adapters have ``warm_up()`` and
``get() -> bytes``, those that submit many at once also ``batch(size)``; asyncio ones are warm when entered, and have
``async get() -> bytes``. To be warm is to have spoken HTTP/2, and nothing else.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Self

from h2_target import STREAMS, TIMEOUT, Target, require


class Turbopool:
    """``send_async().result()``."""

    def __init__(self, target: Target) -> None:
        from turbopool import Client, Http2Options

        self._client = Client(
            http_version="2",
            version_policy="exact",
            http2=Http2Options(max_connections_per_server=1, max_concurrent_streams=STREAMS),
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
        for _ in range(target.threads):
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


def pyreqwest_builder(builder: Any, target: Target) -> Any:
    """Tell a builder what both of its clients are told; its ``max_connections`` bounds requests, not connections."""
    builder = builder.no_proxy().timeout(timedelta(seconds=TIMEOUT)).max_connections(STREAMS)
    if target.authority:
        return builder.http2(enable=True).add_root_certificate_pem(target.authority.read_bytes())
    return builder.http2_prior_knowledge()


class Pyreqwest:
    def __init__(self, target: Target) -> None:
        from pyreqwest.client import SyncClientBuilder

        self._client = pyreqwest_builder(SyncClientBuilder(), target).build()
        self._request = target.requests()

    def warm_up(self) -> None:
        require(self._send().version, "HTTP/2.0")

    def get(self) -> bytes:
        return bytes(self._send().bytes())

    def close(self) -> None:
        self._client.close()

    def _send(self) -> Any:
        url, headers = self._request()
        request = self._client.get(url)
        return (request.headers(headers) if headers else request).build().send()


class AsyncPyreqwest:
    def __init__(self, target: Target) -> None:
        from pyreqwest.client import ClientBuilder

        self._client = pyreqwest_builder(ClientBuilder(), target).build()
        self._request = target.requests()

    async def __aenter__(self) -> Self:
        require((await self._send()).version, "HTTP/2.0")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def get(self) -> bytes:
        return bytes(await (await self._send()).bytes())

    async def _send(self) -> Any:
        url, headers = self._request()
        request = self._client.get(url)
        return await (request.headers(headers) if headers else request).build().send()


THREADED: dict[str, type[Any]] = {
    "turbopool": Turbopool,
    "httpx2": Httpx2,
    "niquests": Niquests,
    "niquests-gather": NiquestsGather,
    "pycurl": Pycurl,
    "pyreqwest": Pyreqwest,
}
ASYNCIO: dict[str, type[Any]] = {"httpx2-async": AsyncHttpx2, "pyreqwest-async": AsyncPyreqwest}
