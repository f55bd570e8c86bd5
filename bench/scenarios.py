"""What is measured: goals.py says what is hoped for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from target import BIG, SMALL

PEERS_WITH_THREADS = (
    "turbopool", "turbopool-send", "requests", "urllib3", "httpx", "httpx2", "aiohttp", "pycurl", "pyreqwest",
    "pyreqwest-mt",
)  # fmt: skip
"""aiohttp has tasks of one event loop where the others have threads."""

PEERS_IN_FLIGHT = ("turbopool", "aiohttp", "pyreqwest-async", "pyreqwest-async-mt")

HTTP2_PEERS = ("turbopool", "httpx2", "niquests", "pycurl", "pyreqwest", "pyreqwest-mt")
"""All of them speak it by prior knowledge, too. What httpx has is also httpx2's; requests and aiohttp have none."""

HTTP2_PEERS_IN_FLIGHT = ("turbopool", "httpx2-async", "niquests-gather", "pyreqwest-async", "pyreqwest-async-mt")

OURS = ("turbopool", "turbopool-send")
"""``send_async().result()`` and ``send()``."""


@dataclass(frozen=True, kw_only=True)
class Http2:
    """How HTTP/2 is spoken."""

    tls: bool
    """With TLS, by ALPN; else by prior knowledge."""
    unique: bool
    """Each request has a path of its own, and a header field of its own."""
    server: str = "nginx"
    """Or nghttpd."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One load, and who is measured under it."""

    name: str
    title: str
    kind: str
    """``load``, ``flight``, ``waiters``, ``idle`` or ``queued``, as worker.py takes it."""
    concurrency: int
    peers: tuple[str, ...] = ("turbopool",)
    keys: int = 1
    """Pools of each client."""
    clients: int = 1
    connections: int = 16
    """To one pool, at most; each of several has its part of them, and two at least."""
    allowed: str = "at most 16 connections"
    """What every client may use, in words."""
    http2: Http2 | None = None
    """Over HTTP/2 and nothing else, else over HTTP/1.1."""
    tls: bool = False
    """HTTP/1.1 over TLS."""
    path: str = SMALL
    fewer: Mapping[str, int] = field(default_factory=dict)
    """Peers that are given another concurrency, since they are slow."""
    share: float = 1.0
    """Of the seconds that a cell takes."""
    collector: bool = True
    """Whether Python's cyclic garbage collector runs, which walks over every request that waits."""
    one_core: bool = False
    """Whether the client's process is kept on one core; the server is not."""


def itself(name: str, title: str, kind: str, concurrency: int, **more: Any) -> Scenario:
    """Return a scenario of turbopool alone."""
    return Scenario(
        name=name,
        title=title,
        kind=kind,
        concurrency=concurrency,
        allowed="at most 16 connections to a single key, 2 to each of several",
        **more,
    )


def http2(*, tls: bool, unique: bool) -> Iterator[Scenario]:
    """Yield the loads over HTTP/2."""
    name = f"h2-{'tls' if tls else 'prior'}-{'unique' if unique else 'one'}"
    way = f"HTTP/2 ({'TLS' if tls else 'prior knowledge'}, {'unique paths' if unique else 'one URL'})"
    for n, server in ((1, "nginx"), (16, "nginx"), *([(16, "nghttpd")] if tls else []), (64, "nginx")):
        other = server != "nginx"
        yield Scenario(
            name=f"{name}-{n}{f'-{server}' if other else ''}",
            title=f"{way}, {threads(n)}{f', {server}' if other else ''}",
            kind="load",
            concurrency=n,
            peers=HTTP2_PEERS,
            http2=Http2(tls=tls, unique=unique, server=server),
            connections=1,
            allowed="one connection of 100 streams (pycurl: a connection for each thread, as a handle has its own)",
            share=0.5,
        )
    yield Scenario(
        name=f"{name}-flight",
        title=f"{way}, 10,000 in flight",
        kind="flight",
        concurrency=10_000,
        peers=HTTP2_PEERS_IN_FLIGHT,
        http2=Http2(tls=tls, unique=unique),
        connections=1,
        fewer={"httpx2-async": 1_000, "niquests-gather": 1_000},
        allowed="one connection of 100 streams (niquests: 128); without pycurl, whose calls block",
        share=0.5,
    )


def memory() -> Iterator[Scenario]:
    """Yield what measures memory."""
    peers = (*OURS, "aiohttp", "pyreqwest-async")
    for tls in (False, True):
        yield Scenario(
            name=f"idle-1000{'-tls' * tls}",
            title=f"memory of 1,000 idle connections{', TLS' * tls}",
            kind="idle",
            concurrency=1_000,
            peers=peers,
            tls=tls,
            connections=1_000,
            allowed="1,000 connections, all opened by requests at the same time; growth of the client's process",
        )
    yield Scenario(
        name="queued-10000",
        title="memory of 10,000 requests that wait",
        kind="queued",
        concurrency=10_000,
        peers=("turbopool", "aiohttp", "pyreqwest-async"),
        allowed="16 connections, none of which answers; growth of the client's process",
    )


def base(peer: str) -> str:
    """Return the name of the package that a peer is a use of."""
    return peer.partition("-")[0]


def threads(n: int) -> str:
    """Word how many."""
    return f"{n} thread{'s' * (n > 1)}"


EVERYWHERE = (
    *(
        Scenario(
            name=f"threads-{n}",
            title=threads(n),
            kind="load",
            concurrency=n,
            peers=PEERS_WITH_THREADS,
        )
        for n in (1, 16, 64)
    ),
    Scenario(name="flight", title="10,000 in flight", kind="flight", concurrency=10_000, peers=PEERS_IN_FLIGHT),
    itself("keys-1", "1 key, 16 threads", "load", 16, peers=OURS),
    itself("keys-64", "64 keys, 16 threads", "load", 16, peers=OURS, keys=64),
    itself("clients-20", "20 clients of 3 keys, 16 threads", "load", 16, keys=3, clients=20),
    itself("flight-1", "1 key, 10,000 in flight", "flight", 10_000),
    itself("flight-64", "64 keys, 10,000 in flight", "flight", 10_000, keys=64),
    itself("flight-20", "20 clients of 3 keys, 10,000 in flight", "flight", 10_000, keys=3, clients=20),
    itself("waiters-10", "10 always waiting", "waiters", 10),
    itself("waiters-10000", "10,000 always waiting", "waiters", 10_000),
    itself("waiters-10-plain", "10 always waiting, gc off", "waiters", 10, collector=False),
    itself("waiters-10000-plain", "10,000 always waiting, gc off", "waiters", 10_000, collector=False),
    *http2(tls=False, unique=False),
    *http2(tls=False, unique=True),
    *http2(tls=True, unique=False),
    *http2(tls=True, unique=True),
    Scenario(
        name="h2-tls-one-flight-6",
        title="HTTP/2 (TLS, one URL), 10,000 in flight, 6 connections",
        kind="flight",
        concurrency=10_000,
        peers=("turbopool", "pyreqwest-async", "pyreqwest-async-mt", "pyreqwest-async-each"),
        http2=Http2(tls=True, unique=False),
        connections=6,
        allowed="6 connections of 100 streams (pyreqwest: a client has one connection, so it may have all 600 on that; "
        "-each: six clients, 100 on each)",
    ),
    Scenario(
        name="https-16",
        title=f"HTTPS, {threads(16)}",
        kind="load",
        concurrency=16,
        peers=(*OURS, "urllib3", "httpx2", "pycurl", "pyreqwest", "pyreqwest-mt"),
        tls=True,
        allowed="at most 16 connections, HTTP/1.1 over TLS, the certificate verified",
    ),
    Scenario(
        name="mib-4",
        title=f"1 MiB bodies, {threads(4)}",
        kind="load",
        concurrency=4,
        peers=(*OURS, "urllib3", "pycurl", "pyreqwest", "pyreqwest-mt"),
        connections=4,
        path=BIG,
        allowed="at most 4 connections; pycurl with its largest receive buffer, pyreqwest without a copy",
    ),
    *memory(),
)
"""Where the scheduler may put a client's threads on any core."""

ON_ONE_CORE = tuple(
    replace(
        scenario,
        name=f"{scenario.name}-core",
        title=f"{scenario.title}, on one core",
        peers=tuple(peer for peer in scenario.peers if base(peer) in ("turbopool", "pyreqwest")),
        one_core=True,
    )
    for scenario in EVERYWHERE
    if scenario.name
    in ("threads-16", "threads-64", "keys-1", "keys-64", "h2-tls-one-16", "h2-tls-unique-16", "https-16")
)

SCENARIOS = (*EVERYWHERE, *ON_ONE_CORE)


def needed(cells: Iterable[tuple[str, str]]) -> list[Scenario]:
    """Return the scenarios of these cells, each with just the clients that are in one; who is first stays first."""
    wanted = frozenset(cells)
    chosen = (
        replace(scenario, peers=tuple(peer for peer in scenario.peers if (scenario.name, peer) in wanted))
        for scenario in SCENARIOS
    )
    return [scenario for scenario in chosen if scenario.peers]
