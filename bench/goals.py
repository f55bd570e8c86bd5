"""What is hoped for: bounds for the ratio of two figures, each pair taken from one round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from scenarios import SCENARIOS

HTTP2_GOAL = 3.5


@dataclass(frozen=True)
class Cell:
    """One client in one scenario."""

    scenario: str
    peer: str = "turbopool"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound for a ratio, and perhaps a second one that is hoped for."""

    title: str
    of: Cell
    to: tuple[Cell, ...]
    """It is compared with the best of these."""
    at_least: float | None = None
    at_most: float | None = None
    """For a ratio of rates it is turned round, to one of times."""
    then: float | None = None
    """The second goal, of the same kind as the first."""
    figure: str = "rate"
    """Or ``kib``, of which less is better."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All that must be measured."""
        return (self.of, *self.to)


def beside(
    title: str, scenario: str, ours: str, *theirs: str, at_least: float, then: float | None = None
) -> Goal:  # fmt: skip
    """Return a goal for one of ours beside others in the same scenario."""
    to = tuple(Cell(scenario, peer) for peer in theirs)
    return Goal(title=title, of=Cell(scenario, ours), to=to, at_least=at_least, then=then)


def many_keys() -> Iterator[Goal]:
    """Yield what 64 keys may cost beside one."""
    for title, of, to, peer in (
        ("`send()`, 64 keys, 16 threads", "keys-64", "keys-1", "turbopool-send"),
        ("`send_async().result()`, 64 keys, 16 threads", "keys-64", "keys-1", "turbopool"),
        ("`send_async()`, 64 keys, 10,000 in flight", "flight-64", "flight-1", "turbopool"),
    ):
        yield Goal(title=title, of=Cell(of, peer), to=(Cell(to, peer),), at_least=0.9)


def over_http2() -> Iterator[Goal]:
    """Yield the goals over HTTP/2, on each server."""
    for ways, words, first, then in (("one", "one URL", 0.7, 1.0), ("unique", "unique path and header", 0.5, 0.8)):
        for suffix, server in (("", "nginx"), ("-nghttpd", "nghttpd")):
            title = f"HTTP/2 (TLS), 16 threads, `send_async().result()`, {words}, {server}"
            scenario = f"h2-tls-{ways}-16{suffix}"
            yield beside(title, scenario, "turbopool", "pyreqwest", "pyreqwest-mt", at_least=first, then=then)


RUST = ("pyreqwest", "pyreqwest-mt")

SPEED_GOALS = (
    beside("`send()`, 1 thread", "threads-1", "turbopool-send", "pycurl", at_least=1.2),
    beside("`send()`, 16 threads, 16 connections", "threads-16", "turbopool-send", *RUST, at_least=1.0, then=1.3),
    beside("`send()`, 64 threads, 16 connections", "threads-64", "turbopool-send", *RUST, at_least=0.8, then=1.0),
    beside("`send_async().result()`, 1 thread", "threads-1", "turbopool", "pycurl", at_least=0.8, then=1.1),
    beside("`send_async().result()`, 16 threads", "threads-16", "turbopool", *RUST, at_least=0.6, then=1.0),
    beside(
        "10,000 `send_async()` in flight, 16 connections", "flight", "turbopool",
        "aiohttp", "pyreqwest-async", "pyreqwest-async-mt", at_least=1.8, then=2.5,
    ),
    *many_keys(),
    *over_http2(),
    beside(
        "HTTP/2 (TLS), 10,000 in flight, 6 x 100 streams", "h2-tls-one-flight-6", "turbopool",
        "pyreqwest-async", "pyreqwest-async-mt", "pyreqwest-async-each", at_least=1.5, then=2.5,
    ),
    beside("HTTPS over HTTP/1.1, 16 threads, `send()`", "https-16", "turbopool-send", *RUST, at_least=0.6, then=0.8),
    beside("1 MiB bodies, 4 threads, `send()`", "mib-4", "turbopool-send", "pycurl", at_least=0.9),
    Goal(
        title="memory of 1,000 idle connections", figure="kib", at_most=1.0,
        of=Cell("idle-1000", "turbopool-send"), to=(Cell("idle-1000", "aiohttp"),),
    ),
)  # fmt: skip
"""Faster than the clients in Rust and C."""


def on_one_core(goals: Iterable[Goal]) -> Iterator[Goal]:
    """Yield the goals again, ours on one core, beside the best of the others on one or on all, or beside itself."""
    for goal in goals:
        if f"{goal.of.scenario}-core" in ONE_CORE:
            of, *to = (replace(cell, scenario=f"{cell.scenario}-core") for cell in goal.cells)
            yield replace(goal, of=of, to=(*to, *(cell for cell in goal.to if cell.peer != of.peer)))


ONE_CORE = frozenset(scenario.name for scenario in SCENARIOS if scenario.one_core)
ONE_CORE_GOALS = tuple(on_one_core(SPEED_GOALS))
"""The same, where the client's process is kept on one core."""

SHOWN_WITH_THEM = (
    *(Cell("mib-4", peer) for peer in RUST),
    *(
        Cell(name, peer)
        for name in ("idle-1000", "idle-1000-tls")
        for peer in ("turbopool", "turbopool-send", "aiohttp")
    ),
    *(Cell("queued-10000", peer) for peer in ("turbopool", "aiohttp")),
    *(Cell("h2-tls-one-flight", peer) for peer in ("turbopool", "pyreqwest-async")),
)
"""What is measured beside these goals, though it has none."""

GOALS = (
    beside("16 threads, beside httpx2", "threads-16", "turbopool", "httpx2", at_least=5.0),
    beside("16 threads, beside urllib3", "threads-16", "turbopool", "urllib3", at_least=3.0),
    beside("10,000 in flight, beside aiohttp", "flight", "turbopool", "aiohttp", at_least=1.5),
    Goal(
        title="20 clients of 3 keys, beside one key, 16 threads",
        of=Cell("clients-20"), to=(Cell("keys-1"),), at_least=0.9,
    ),
    Goal(
        title="20 clients of 3 keys, beside one key, in flight",
        of=Cell("flight-20"), to=(Cell("flight-1"),), at_least=0.9,
    ),
    Goal(
        title="time a request takes with 10,000 waiting, beside 10",
        of=Cell("waiters-10000"), to=(Cell("waiters-10"),), at_most=1.2,
    ),
    Goal(
        title="the same without Python's garbage collector: the pool's own share",
        of=Cell("waiters-10000-plain"), to=(Cell("waiters-10-plain"),), at_most=1.2,
    ),
    *(
        beside(f"{scenario.title}, beside {peer}", scenario.name, "turbopool", peer, at_least=HTTP2_GOAL)
        for scenario in SCENARIOS
        for peer in ("httpx2", "niquests")
        if scenario.http2 and scenario.kind == "load" and scenario.concurrency > 1 and not scenario.one_core
    ),
)  # fmt: skip
"""Faster than the clients in Python, and as fast however many keys and waiters there are."""
