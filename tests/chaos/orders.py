"""What a chaos run sends: requests drawn at random, each of which knows what must come back."""

from __future__ import annotations

import io
import itertools
import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from tests.chaos.record import Record, Rule
from tests.chaos.servers import Body
from turbopool import Client, Response

CANCELLED_SHARE = 0.25
"""Of the requests that can be cancelled, which are two thirds; a third of these is done before: a tenth of all."""

_GETS = {
    "/echo": 50, "/files/1k": 18, "/files/64k": 10, "/chunked/64k": 7, "/chunked/1m": 1, "/gzip/text": 6,
    "/chunked/text": 2, "/files/1m": 3, "/slow/64k": 3, "/late": 5,
}  # fmt: skip
_UPLOAD_PATHS = {"/echo": 10, "/tally": 12, "/tally-buffered": 5, "/late": 3}
_METHODS = {"GET": 65, "POST": 30, "PUT": 5}
_UPLOAD_SIZES = (0, 100, 4_000, 100_000)
_PIECE_BYTES = 1000
_OK_STATUS = 200


class Target(NamedTuple):
    """A server as one client sees it: a pool of its own."""

    name: str
    client: Client
    url: str
    version: str
    """Of HTTP, that it is asked in and must answer in."""


@dataclass(slots=True)
class Order:
    """One request, and what must come back."""

    method: str
    client: Client
    url: str
    version: str
    nonce: int
    timeout: float
    content: bytes | BinaryIO | Generator[bytes, None, None] | None
    expected: Body
    cancel_after: float | None
    began: float

    @property
    def what(self) -> str:
        """The request in words."""
        return f"{self.method} {self.url} with a timeout of {self.timeout:.3f} s"

    @property
    def deadline(self) -> float:
        """When its caller must know, graces apart."""
        return self.began + self.timeout


class Deck:
    """Draws orders. Each thread has its own; the nonces are unique over all of them."""

    _nonces = itertools.count(1)

    def __init__(self, rng: random.Random, targets: list[Target], bodies: dict[str, Body]) -> None:
        self._rng = rng
        self._targets = targets
        self._bodies = bodies
        blob = random.Random(0).randbytes(max(_UPLOAD_SIZES))  # noqa: S311 - not a secret
        self._uploads = [(content, Body.of(content)) for content in (blob[:size] for size in _UPLOAD_SIZES)]

    @classmethod
    def drawn(cls) -> int:
        """All nonces so far are at most this."""
        return next(cls._nonces)

    def draw(self, *, cancellable: bool = False) -> Order:
        """A request of any kind, to any server."""
        rng = self._rng
        target = rng.choice(self._targets)
        (method,) = rng.choices(list(_METHODS), list(_METHODS.values()))
        order = self._get(target) if method == "GET" else self._upload(method, target)
        order.timeout = self._timeout()
        if cancellable and rng.random() < CANCELLED_SHARE:
            order.cancel_after = rng.choice([0.0, rng.expovariate(500.0), rng.expovariate(20.0)])
        return order

    def plain(self, target: Target, timeout: float) -> Order:
        """A GET that any healthy server answers at once."""
        return self._order("GET", target, "/echo", timeout)

    def _get(self, target: Target) -> Order:
        (path,) = self._rng.choices(list(_GETS), list(_GETS.values()))
        order = self._order("GET", target, path)
        if path == "/late":
            order.expected = _told(order.nonce, Body.of(b""))
        elif path != "/echo":
            order.expected = self._bodies[path.rpartition("/")[2]]
        return order

    def _upload(self, method: str, target: Target) -> Order:
        (path,) = self._rng.choices(list(_UPLOAD_PATHS), list(_UPLOAD_PATHS.values()))
        order = self._order(method, target, path)
        content, body = self._rng.choice(self._uploads)
        order.content = content
        if path == "/tally-buffered":
            order.content = io.BytesIO(content) if method == "PUT" else _pieces(content)
        if path != "/echo":
            order.expected = _told(order.nonce, body)
        return order

    def _order(self, method: str, target: Target, path: str, timeout: float = 0.0) -> Order:
        nonce = next(self._nonces)
        return Order(
            method=method, client=target.client, url=f"{target.url}{path}?nonce={nonce}", version=target.version,
            nonce=nonce, timeout=timeout, content=None, expected=Body.of(b"%d" % nonce), cancel_after=None,
            began=time.monotonic(),
        )  # fmt: skip

    def _timeout(self) -> float:
        rng = self._rng
        (bounds,) = rng.choices([(0.001, 0.1), (0.1, 2.0), (2.0, 15.0), (30.0, 30.0)], (10, 20, 60, 10))
        return rng.uniform(*bounds)


def check_head(order: Order, response: Response, record: Record) -> None:
    """Judge whether the response is the answer to this very request."""
    if response.status_code != _OK_STATUS:
        record.violate(Rule.STATUS, f"{response.status_code} for {order.what}: {dict(response.headers)}")
    nonce = response.headers.get("x-nonce")
    if nonce != str(order.nonce):
        record.violate(Rule.NONCE, f"{nonce} for {order.what}")
    if response.http_version != f"HTTP/{order.version}":
        record.violate(Rule.VERSION, f"{response.http_version} for {order.what}")


def check_body(order: Order, response: Response, body: Body, record: Record) -> None:
    """Judge whether a body that was delivered as complete is that."""
    if response.status_code == _OK_STATUS and body != order.expected:
        record.violate(Rule.SHORT, f"{body} instead of {order.expected} for {order.what}")


def _told(nonce: int, body: Body) -> Body:
    """What the tally answers to a request with this body."""
    return Body.of(b"%d %d %d" % (nonce, body.size, body.crc))


def _pieces(content: bytes) -> Generator[bytes, None, None]:
    """A body that can be drawn only once."""
    return (content[start : start + _PIECE_BYTES] for start in range(0, len(content), _PIECE_BYTES))
