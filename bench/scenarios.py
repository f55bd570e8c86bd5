"""What is measured, and what is hoped for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PEERS_WITH_THREADS = (
    "turbopool", "turbopool-send", "requests", "urllib3", "httpx", "httpx2", "aiohttp", "pycurl", "pyreqwest",
)  # fmt: skip
"""aiohttp has tasks of one event loop where the others have threads."""

ITSELF_CONNECTIONS = 64
"""Where turbopool is compared with itself: one for each of 64 keys, so that one key may have as many."""

PEERS_IN_FLIGHT = ("turbopool", "aiohttp", "pyreqwest-async")

HTTP2_PEERS = ("turbopool", "httpx2", "niquests", "pycurl", "pyreqwest")
"""All of them speak it by prior knowledge, too. What httpx has is also httpx2's; requests and aiohttp have none."""

HTTP2_PEERS_IN_FLIGHT = ("turbopool", "httpx2-async", "niquests-gather", "pyreqwest-async")

HTTP2_GOAL = 3.5


@dataclass(frozen=True, kw_only=True)
class Http2:
    """How HTTP/2 is spoken."""

    tls: bool
    """With TLS, by ALPN; else by prior knowledge."""
    unique: bool
    """Each request has a path of its own, and a header field of its own."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One load, and who is measured under it."""

    name: str
    title: str
    kind: str
    """``load``, ``flight`` or ``waiters``, as worker.py takes it."""
    concurrency: int
    peers: tuple[str, ...] = ("turbopool",)
    keys: int = 1
    """Pools of each client."""
    clients: int = 1
    connections: int = 16
    """In all, at most: a pool's limit is this through the number of pools."""
    allowed: str = "at most 16 connections"
    """What every client may use, in words."""
    http2: Http2 | None = None
    """Over HTTP/2 and nothing else, else over HTTP/1.1."""
    fewer: Mapping[str, int] = field(default_factory=dict)
    """Peers that are given another concurrency, since they are slow."""
    share: float = 1.0
    """Of the seconds that a cell takes."""
    collector: bool = True
    """Whether Python's cyclic garbage collector runs, which walks over every request that waits."""


@dataclass(frozen=True)
class Cell:
    """One client in one scenario."""

    scenario: str
    peer: str = "turbopool"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound for the ratio of two rates, each pair taken from one round."""

    title: str
    of: Cell
    to: Cell
    at_least: float | None = None
    at_most: float | None = None
    """For a ratio of times: it is turned round."""


def itself(name: str, title: str, kind: str, concurrency: int, **more: Any) -> Scenario:
    """Return a scenario of turbopool alone."""
    return Scenario(name=name, title=title, kind=kind, concurrency=concurrency, connections=ITSELF_CONNECTIONS, **more)


def http2(*, tls: bool, unique: bool) -> Iterator[Scenario]:
    """Yield the loads over HTTP/2."""
    name = f"h2-{'tls' if tls else 'prior'}-{'unique' if unique else 'one'}"
    way = f"HTTP/2 ({'TLS' if tls else 'prior knowledge'}, {'unique paths' if unique else 'one URL'})"
    for n in (1, 16, 64):
        yield Scenario(
            name=f"{name}-{n}",
            title=f"{way}, {threads(n)}",
            kind="load",
            concurrency=n,
            peers=HTTP2_PEERS,
            http2=Http2(tls=tls, unique=unique),
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
        fewer={"httpx2-async": 1_000, "niquests-gather": 1_000},
        allowed="one connection of 100 streams (niquests: 128); without pycurl, whose calls block",
        share=0.5,
    )


def threads(n: int) -> str:
    """Word how many."""
    return f"{n} thread{'s' * (n > 1)}"


SCENARIOS = (
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
    itself("keys-1", "1 key, 16 threads", "load", 16),
    itself("keys-64", "64 keys, 16 threads", "load", 16, keys=64),
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
)

GOALS = (
    Goal(title="16 threads, beside httpx2", of=Cell("threads-16"), to=Cell("threads-16", "httpx2"), at_least=5.0),
    Goal(title="16 threads, beside urllib3", of=Cell("threads-16"), to=Cell("threads-16", "urllib3"), at_least=3.0),
    Goal(title="10,000 in flight, beside aiohttp", of=Cell("flight"), to=Cell("flight", "aiohttp"), at_least=1.5),
    Goal(title="64 keys, beside one, 16 threads", of=Cell("keys-64"), to=Cell("keys-1"), at_least=0.9),
    Goal(title="64 keys, beside one, in flight", of=Cell("flight-64"), to=Cell("flight-1"), at_least=0.9),
    Goal(
        title="20 clients of 3 keys, beside one key, 16 threads", of=Cell("clients-20"), to=Cell("keys-1"), at_least=0.9
    ),
    Goal(
        title="20 clients of 3 keys, beside one key, in flight", of=Cell("flight-20"), to=Cell("flight-1"), at_least=0.9
    ),
    Goal(
        title="time a request takes with 10,000 waiting, beside 10",
        of=Cell("waiters-10000"),
        to=Cell("waiters-10"),
        at_most=1.2,
    ),
    Goal(
        title="the same without Python's garbage collector: the pool's own share",
        of=Cell("waiters-10000-plain"),
        to=Cell("waiters-10-plain"),
        at_most=1.2,
    ),
    *(
        Goal(
            title=f"{scenario.title}, beside {peer}",
            of=Cell(scenario.name),
            to=Cell(scenario.name, peer),
            at_least=HTTP2_GOAL,
        )
        for scenario in SCENARIOS
        for peer in ("httpx2", "niquests")
        if scenario.http2 and scenario.kind == "load" and scenario.concurrency > 1
    ),
)
