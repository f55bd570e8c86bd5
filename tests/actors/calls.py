"""The requests of a stage: what they may differ in, and what became of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from turbopool import Response
from turbopool.bodies import Body
from turbopool.future import ResponseFuture
from turbopool.transport.exchange import Exchange


class Parts(TypedDict, total=False):
    """What a request may differ in: GET, in memory, without a bound on time, by default. Times are seconds."""

    method: str
    body: bytes | Body | None
    fields: tuple[tuple[bytes, bytes], ...]
    stream: bool
    timeout: float | None
    queue: float
    connect: float | None
    read: float | None
    owner: object


class _Host:
    """Where the futures live."""

    def __init__(self, abandon: Callable[[Exchange], None]) -> None:
        self.abandon = abandon

    def check(self) -> None:
        """Find everything in order."""

    def receive(self, exchange: Exchange, timeout: float | None) -> None:
        """Leave it to the manager: nothing is ever launched here."""

    def engage(self, exchange: Exchange) -> None:
        """Find that it is."""

    def run_callback(self, task: Callable[[], None]) -> None:
        """Run it here."""
        task()


class Call:
    """One request under way: its exchange, its future, how often it got an outcome, and when.

    Args:
        exchange: taken over.
        abandon: what a cancel calls.
        now: tells the moment.
    """

    def __init__(self, exchange: Exchange, abandon: Callable[[Exchange], None], now: Callable[[], float]) -> None:
        self.exchange = exchange
        self.outcomes = 0
        self.done_at: float | None = None
        self._now = now
        self.future = ResponseFuture(exchange, _Host(abandon))
        self.future.add_done_callback(lambda _: self._count())

    def _count(self) -> None:
        self.outcomes += 1
        self.done_at = self._now()

    @property
    def is_waiting(self) -> bool:
        """Whether it has neither an outcome nor a connection."""
        return not self.future.done() and self.exchange.connection is None

    @property
    def is_running(self) -> bool:
        """Whether it is on a connection."""
        return self.future.running()

    @property
    def error(self) -> BaseException | None:
        """What it failed with; it must have an outcome."""
        assert self.future.done()
        return self.future.exception()

    @property
    def response(self) -> Response:
        """What it was answered; it must have an outcome."""
        assert self.future.done()
        return self.future.result()

    @property
    def start_line(self) -> bytes:
        """Method and target, by which its bytes are known on a channel."""
        return self.exchange.wire.head[: self.exchange.wire.head.index(b" HTTP/") + 1]

    def drop_response(self) -> None:
        """Let go of the response, as a caller does who forgets it together with the future."""
        self.future._result = None  # noqa: SLF001 - the test keeps the future
