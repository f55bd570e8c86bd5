"""One small adapter for each client that is measured, in its fastest documented use.

A threaded adapter has ``get() -> bytes``, callable from many threads, and ``batch(size)`` if it is measured with many
requests in flight; an asyncio one has ``async get() -> bytes``. Each keeps at most ``connections`` connections open,
whatever the number of callers. Adapters import their client only when made: each is used in an environment where that
client is itself.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from itertools import cycle
from queue import SimpleQueue
from typing import Any, Self

PATH = "/d"
TIMEOUT = 60.0
"""Seconds a request may take, for everyone: ten thousand may wait before it."""


class Turbopool:
    """``send_async().result()``; with several keys and clients the requests go round them all."""

    def __init__(self, port: int, connections: int, keys: int = 1, clients: int = 1) -> None:
        from turbopool import Client, Http1Options

        limit = Http1Options(max_connections_per_server=max(1, connections // (keys * clients)))
        self.clients = [Client(http1=limit, request_timeout=TIMEOUT) for _ in range(clients)]
        # A host of its own for each pool: 127.0.0.1 to 127.0.0.64 are all this machine.
        targets = [
            (self.clients[n % clients], f"http://127.0.0.{n % 64 + 1}:{port}{PATH}") for n in range(keys * clients)
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

    def close(self) -> None:
        for client in self.clients:
            client.dispose()


class TurbopoolSend(Turbopool):
    """``send()``, in the calling thread."""

    def get(self) -> bytes:
        client, url = next(self._targets)
        return client.send("GET", url).content


class Requests:
    def __init__(self, port: int, connections: int) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=connections, pool_block=True))
        self._url = f"http://127.0.0.1:{port}{PATH}"

    def get(self) -> bytes:
        return self._session.get(self._url, timeout=TIMEOUT).content

    def close(self) -> None:
        self._session.close()


class Urllib3:
    def __init__(self, port: int, connections: int) -> None:
        import urllib3

        self._pool = urllib3.HTTPConnectionPool(
            "127.0.0.1", port, maxsize=connections, block=True, timeout=TIMEOUT, retries=False
        )

    def get(self) -> bytes:
        return self._pool.request("GET", PATH).data

    def close(self) -> None:
        self._pool.close()


class Httpx:
    """Also httpx2, which has the same face."""

    def __init__(self, port: int, connections: int, package: str = "httpx") -> None:
        httpx = __import__(package)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.Client(limits=limits, timeout=TIMEOUT, trust_env=False)
        self._url = f"http://127.0.0.1:{port}{PATH}"

    def get(self) -> bytes:
        return self._client.get(self._url).content

    def close(self) -> None:
        self._client.close()


class Httpx2(Httpx):
    def __init__(self, port: int, connections: int) -> None:
        super().__init__(port, connections, "httpx2")


class Pycurl:
    """A handle has one connection and belongs to one thread at a time: the handles are the pool."""

    def __init__(self, port: int, connections: int) -> None:
        import pycurl

        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(connections):
            handle = pycurl.Curl()
            handle.setopt(pycurl.URL, f"http://127.0.0.1:{port}{PATH}")
            handle.setopt(pycurl.NOSIGNAL, 1)
            handle.setopt(pycurl.PROXY, "")
            handle.setopt(pycurl.TIMEOUT, int(TIMEOUT))
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
    def __init__(self, port: int, connections: int) -> None:
        from pyreqwest.client import SyncClientBuilder

        builder = SyncClientBuilder().max_connections(connections).no_proxy()
        self._client = builder.timeout(timedelta(seconds=TIMEOUT)).build()
        self._url = f"http://127.0.0.1:{port}{PATH}"

    def get(self) -> bytes:
        return bytes(self._client.get(self._url).build().send().bytes())

    def close(self) -> None:
        self._client.close()


class AsyncPyreqwest:
    def __init__(self, port: int, connections: int) -> None:
        from pyreqwest.client import ClientBuilder

        builder = ClientBuilder().max_connections(connections).no_proxy()
        self._client = builder.timeout(timedelta(seconds=TIMEOUT)).build()
        self._url = f"http://127.0.0.1:{port}{PATH}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def get(self) -> bytes:
        response = await self._client.get(self._url).build().send()
        return bytes(await response.bytes())


class Aiohttp:
    """aiohttp on uvloop, behind a semaphore: with thousands of tasks that is faster than its connector's own queue."""

    def __init__(self, port: int, connections: int) -> None:
        self._connections = connections
        self._url = f"http://127.0.0.1:{port}{PATH}"

    async def __aenter__(self) -> Self:
        import aiohttp

        self._turns = asyncio.Semaphore(self._connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections), timeout=aiohttp.ClientTimeout(total=TIMEOUT)
        )
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
}
ASYNCIO: dict[str, type[Any]] = {"aiohttp": Aiohttp, "pyreqwest-async": AsyncPyreqwest}
