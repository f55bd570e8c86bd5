"""One small adapter for each client that is measured over HTTP/1.1, in its fastest documented use.

A threaded adapter has ``get() -> bytes``, callable from many threads, and ``batch(size)`` if it is measured with many
requests in flight; an asyncio one has ``async get() -> bytes``. Each keeps at most ``connections`` connections open,
whatever the number of callers, and over TLS verifies the certificate. Adapters import their client only when made: each
is used in an environment where that client is itself.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from itertools import cycle
from queue import SimpleQueue
from typing import Any, Self

from target import BIG, Target

TIMEOUT = 60.0
"""Seconds a request may take, for everyone: ten thousand may wait before it."""

LARGE_BUFFER = 1 << 19
"""curl's largest buffer for what it receives; for large bodies it makes it twice as fast."""


def trusting(target: Target) -> ssl.SSLContext | None:
    """Return a context that trusts the target's authority alone, if there is TLS."""
    return ssl.create_default_context(cafile=target.authority) if target.authority else None


class Turbopool:
    """``send_async().result()``; with several keys and clients the requests go round them all."""

    def __init__(self, target: Target) -> None:
        from turbopool import Client, Http1Options

        clients = target.clients
        limit = Http1Options(max_connections_per_server=target.limit)
        verify = str(target.authority) if target.authority else True
        self.clients = [Client(http1=limit, verify=verify, request_timeout=TIMEOUT) for _ in range(clients)]
        # A host of its own for each pool: 127.0.0.1 to 127.0.0.64 are all this machine.
        targets = [
            (self.clients[n % clients], target.url.replace("127.0.0.1", f"127.0.0.{n % 64 + 1}"))
            for n in range(target.pools)
        ]
        self._targets = cycle(targets)

    def submit(self) -> Future[Any]:
        client, url = next(self._targets)
        return client.send_async("GET", url)

    def get(self) -> bytes:
        return self.submit().result().content

    def batch(self, size: int) -> Iterator[bytes]:
        for future in [self.submit() for _ in range(size)]:
            yield future.result().content

    def give_up(self) -> None:
        """Take back all that waits."""
        for client in self.clients:
            client.cancel_pending_requests()

    def close(self) -> None:
        for client in self.clients:
            client.dispose()


class TurbopoolSend(Turbopool):
    """``send()``, in the calling thread."""

    def get(self) -> bytes:
        client, url = next(self._targets)
        return client.send("GET", url).content


class Requests:
    def __init__(self, target: Target) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        self._session.trust_env = False
        if target.authority:
            self._session.verify = str(target.authority)
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=target.connections, pool_block=True)
        self._session.mount(target.base, adapter)
        self._url = target.url

    def get(self) -> bytes:
        return self._session.get(self._url, timeout=TIMEOUT).content

    def close(self) -> None:
        self._session.close()


class Urllib3:
    def __init__(self, target: Target) -> None:
        import urllib3

        limits = {"maxsize": target.connections, "block": True, "timeout": TIMEOUT, "retries": False}
        tls = {"ssl_context": trusting(target)} if target.authority else {}
        self._pool = urllib3.connection_from_url(target.base, **limits, **tls)
        self._path = target.path

    def get(self) -> bytes:
        return self._pool.request("GET", self._path).data

    def close(self) -> None:
        self._pool.close()


class Httpx:
    """Also httpx2, which has the same face."""

    package = "httpx"

    def __init__(self, target: Target) -> None:
        httpx = __import__(self.package)
        limits = httpx.Limits(max_connections=target.connections, max_keepalive_connections=target.connections)
        verify = trusting(target) or True
        self._client = httpx.Client(limits=limits, timeout=TIMEOUT, trust_env=False, verify=verify)
        self._url = target.url

    def get(self) -> bytes:
        return self._client.get(self._url).content

    def close(self) -> None:
        self._client.close()


class Httpx2(Httpx):
    package = "httpx2"


class Pycurl:
    """A handle has one connection and belongs to one thread at a time: the handles are the pool."""

    def __init__(self, target: Target) -> None:
        import pycurl

        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(target.connections):
            handle = pycurl.Curl()
            handle.setopt(pycurl.URL, target.url)
            handle.setopt(pycurl.NOSIGNAL, 1)
            handle.setopt(pycurl.PROXY, "")
            handle.setopt(pycurl.TIMEOUT, int(TIMEOUT))
            handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
            if target.authority:
                handle.setopt(pycurl.CAINFO, str(target.authority))
            if target.path == BIG:
                handle.setopt(pycurl.BUFFERSIZE, LARGE_BUFFER)
            self._idle.put(handle)
        self._write_option = pycurl.WRITEDATA

    def get(self) -> bytes:
        handle = self._idle.get()
        body = io.BytesIO()
        handle.setopt(self._write_option, body)
        handle.perform()
        self._idle.put(handle)
        return body.getvalue()

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()


class Pyreqwest:
    """Bodies are its own kind of bytes, which copies nothing; they compare like bytes."""

    multithreaded = False

    def __init__(self, target: Target) -> None:
        from pyreqwest.client import SyncClientBuilder

        self._client = pyreqwest_builder(SyncClientBuilder(), target, multithreaded=self.multithreaded).build()
        self._url = target.url

    def get(self) -> Any:
        return self._client.get(self._url).build().send().bytes()

    def close(self) -> None:
        self._client.close()


class PyreqwestMt(Pyreqwest):
    """On its multi-threaded runtime, which it recommends for high concurrency."""

    multithreaded = True


class AsyncPyreqwest:
    multithreaded = False

    def __init__(self, target: Target) -> None:
        from pyreqwest.client import ClientBuilder

        self._client = pyreqwest_builder(ClientBuilder(), target, multithreaded=self.multithreaded).build()
        self._url = target.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def get(self) -> Any:
        response = await self._client.get(self._url).build().send()
        return await response.bytes()


class AsyncPyreqwestMt(AsyncPyreqwest):
    multithreaded = True


def pyreqwest_builder(builder: Any, target: Target, *, multithreaded: bool) -> Any:
    """Tell a builder what all of its clients are told. Its ``max_connections`` bounds requests."""
    builder = builder.max_connections(target.connections).no_proxy().timeout(timedelta(seconds=TIMEOUT))
    builder = builder.runtime_multithreaded(multithreaded)
    return builder.add_root_certificate_pem(target.authority.read_bytes()) if target.authority else builder


class Aiohttp:
    """aiohttp on uvloop, behind a semaphore: with thousands of tasks that is faster than its connector's own queue."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> Self:
        import aiohttp

        limit = self._target.connections
        self._turns = asyncio.Semaphore(limit)
        connector = aiohttp.TCPConnector(limit=limit, ssl=trusting(self._target) or True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        self._url = self._target.url
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self) -> bytes:
        async with self._turns, self._session.get(self._url) as response:
            return await response.read()


THREADED: dict[str, type[Any]] = {
    "turbopool": Turbopool,
    "turbopool-send": TurbopoolSend,
    "requests": Requests,
    "urllib3": Urllib3,
    "httpx": Httpx,
    "httpx2": Httpx2,
    "pycurl": Pycurl,
    "pyreqwest": Pyreqwest,
    "pyreqwest-mt": PyreqwestMt,
}
ASYNCIO: dict[str, type[Any]] = {
    "aiohttp": Aiohttp,
    "pyreqwest-async": AsyncPyreqwest,
    "pyreqwest-async-mt": AsyncPyreqwestMt,
}
