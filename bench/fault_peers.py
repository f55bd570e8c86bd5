"""One adapter for each client that is put into the faults; each imports its client only when made.

Each client is as it comes: no retry or reconnect setting is touched. Given are the call's timeout in the client's own
``timeout=``, where the row needs it a limit of connections, and for TLS an authority. Clients of asyncio live on a loop
in a thread of its own, so that all are called alike.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

BODIES = {"POST": b"x"}
"""What a request of a method carries."""


@dataclass
class Peer:
    """A client with a pool; what its functions raise is what the client raises."""

    send: Callable[[str, str, float], str]
    """Method, path, timeout: blocks, and returns the body of the response."""
    drop: Callable[[str, float], object]
    """Path, timeout: opens a streamed response and forgets it unread."""
    submit: Callable[[str, float], Future[Any]] | None = None
    """Path, timeout: starts a GET whose future can be cancelled; None if calls of this client cannot be."""


def turbopool(url: str, limit: int | None, ca: str | None) -> Peer:
    """Blocking calls; cancelled through the future."""
    from turbopool import Client, Http1Options

    http1 = Http1Options(max_connections_per_server=limit) if limit else Http1Options()
    client = Client(base_url=url, http1=http1, verify=ca or True)

    def send(method: str, path: str, timeout: float) -> str:
        return client.request(method, path, content=BODIES.get(method), timeout=timeout).text

    def drop(path: str, timeout: float) -> None:
        client.stream("GET", path, timeout=timeout).__enter__()

    def submit(path: str, timeout: float) -> Future[Any]:
        return client.send_async("GET", path, timeout=timeout)

    return Peer(send, drop, submit)


def httpx(url: str, limit: int | None, ca: str | None) -> Peer:
    """The blocking client: its calls cannot be cancelled."""
    import httpx

    limits: dict[str, Any] = {"limits": httpx.Limits(max_connections=limit)} if limit else {}
    client = httpx.Client(base_url=url, trust_env=False, verify=context(ca), **limits)

    def send(method: str, path: str, timeout: float) -> str:
        return str(client.request(method, path, content=BODIES.get(method), timeout=timeout).text)

    def drop(path: str, timeout: float) -> None:
        client.send(client.build_request("GET", path, timeout=timeout), stream=True)

    return Peer(send, drop)


def urllib3(url: str, limit: int | None, ca: str | None) -> Peer:
    """A limit needs ``block=True``: a caller then waits without end for a connection."""
    import urllib3

    limits: dict[str, Any] = {"maxsize": limit, "block": True} if limit else {}
    pools = urllib3.PoolManager(ca_certs=ca, **limits)

    def send(method: str, path: str, timeout: float) -> str:
        return str(pools.request(method, url + path, body=BODIES.get(method), timeout=timeout).data.decode())

    def drop(path: str, timeout: float) -> None:
        pools.request("GET", url + path, timeout=timeout, preload_content=False)

    return Peer(send, drop)


def pyreqwest(url: str, limit: int | None, ca: str | None) -> Peer:
    """The blocking client: its calls cannot be cancelled."""
    from pyreqwest.client import SyncClientBuilder

    builder = SyncClientBuilder().no_proxy()
    builder = builder.max_connections(limit) if limit else builder
    builder = builder.add_root_certificate_pem(Path(ca).read_bytes()) if ca else builder
    client = builder.build()

    def send(method: str, path: str, timeout: float) -> str:
        request = client.request(method, url + path).timeout(timedelta(seconds=timeout))
        request = request.body_bytes(BODIES[method]) if method in BODIES else request
        return str(request.build().send().text())

    def drop(path: str, timeout: float) -> None:
        client.get(url + path).timeout(timedelta(seconds=timeout)).build_streamed().__enter__()

    return Peer(send, drop)


class Loop:
    """An event loop in a thread, run by callers of other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Cancelling the future cancels the task."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Wait for the result."""
        return self.submit(work).result()


def aiohttp(url: str, limit: int | None, ca: str | None) -> Peer:
    """One session; cancelled as a task."""
    import aiohttp

    loop = Loop()

    async def start() -> Any:
        connector = aiohttp.TCPConnector(ssl=context(ca), **({"limit": limit} if limit else {}))
        return aiohttp.ClientSession(url, connector=connector)

    session = loop.run(start())

    async def fetch(method: str, path: str, seconds: float) -> str:
        total = aiohttp.ClientTimeout(total=seconds)
        async with session.request(method, path, data=BODIES.get(method), timeout=total) as response:
            return str(await response.text())

    async def forget(path: str, seconds: float) -> None:
        await session.get(path, timeout=aiohttp.ClientTimeout(total=seconds))

    return Peer(
        lambda method, path, timeout: str(loop.run(fetch(method, path, timeout))),
        lambda path, timeout: loop.run(forget(path, timeout)),
        lambda path, timeout: loop.submit(fetch("GET", path, timeout)),
    )


def httpx_async(url: str, limit: int | None, ca: str | None) -> Peer:
    """The client of asyncio: cancelled as a task."""
    import httpx

    loop = Loop()
    limits = httpx.Limits(max_connections=limit)
    client = httpx.AsyncClient(base_url=url, trust_env=False, verify=context(ca), limits=limits)

    async def fetch(path: str, seconds: float) -> str:
        return str((await client.get(path, timeout=seconds)).text)

    return cancellable(loop, fetch)


def pyreqwest_async(url: str, limit: int | None, _: str | None) -> Peer:
    """The client of asyncio: cancelled as a task."""
    from pyreqwest.client import ClientBuilder

    loop = Loop()
    client = ClientBuilder().no_proxy().max_connections(limit).build()

    async def fetch(path: str, seconds: float) -> str:
        response = await client.get(url + path).timeout(timedelta(seconds=seconds)).build().send()
        return str(await response.text())

    return cancellable(loop, fetch)


def cancellable(loop: Loop, fetch: Callable[[str, float], Coroutine[Any, Any, str]]) -> Peer:
    """Return a client of GETs only."""

    def drop(_path: str, _timeout: float) -> None:
        raise NotImplementedError

    return Peer(
        lambda _, path, timeout: str(loop.run(fetch(path, timeout))),
        drop,
        lambda path, timeout: loop.submit(fetch(path, timeout)),
    )


def context(ca: str | None) -> ssl.SSLContext | bool:
    """Return what verifies by an authority's file, or as the client does by itself."""
    return ssl.create_default_context(cafile=ca) if ca else True


CLIENTS = {client.__name__: client for client in (turbopool, httpx, urllib3, aiohttp, pyreqwest)}
CANCELLABLE = CLIENTS | {"httpx": httpx_async, "pyreqwest": pyreqwest_async}
"""The same clients, where they can in the form in which a call can be cancelled."""
