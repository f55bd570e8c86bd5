"""The callers of a chaos run: threads that send mixed requests, cancel some, and check all that comes back."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, wait
from dataclasses import dataclass, field

from tests.chaos.canceller import Canceller
from tests.chaos.orders import Deck, Order, Target, check_body, check_head
from tests.chaos.record import Record, Rule
from tests.chaos.servers import Body
from turbopool import Client, Response, ResponseFuture, Timeout

GRACE = 6.0
"""Seconds after its deadline at which a caller must have its answer: turbopool's own second, and a stalled machine."""
RECOVERY_SECONDS = 31.0
"""The longest backoff, and fifteen seconds."""
THREADS = 64

_BATCH = 4
_READ_SECONDS = 5.0
_RETRY_SECONDS = 0.1
_QUIET_ROUNDS = 5
_QUIET_TIMEOUT = 10.0
_LEFT_SHARE = 0.4
_REQUESTS_A_STEP = 1.3


@dataclass(slots=True)
class Shared:
    """What all callers of a run share."""

    targets: list[Target]
    bodies: dict[str, Body]
    canceller: Canceller
    seed: int
    rate: float
    """Requests a second, of all threads together."""
    calm: threading.Event = field(default_factory=threading.Event)
    """Set when the servers are well and remain so."""
    calm_since: float = 0.0
    """When that was; valid once it is set."""


class Caller(threading.Thread):
    """Sends until it is calm, then shows that every server serves it again."""

    def __init__(self, number: int, shared: Shared) -> None:
        super().__init__(name=f"caller-{number}", daemon=True)
        self.record = Record()
        self._shared = shared
        self._rng = random.Random(f"caller-{number}-{shared.seed}")  # noqa: S311 - not a secret
        self._deck = Deck(self._rng, shared.targets, shared.bodies)
        self._orphans: deque[tuple[Order, ResponseFuture]] = deque()
        self._ways = {self._send: 25, self._wait: 40, self._batch: 10, self._leave: 5, self._stream: 20, self._visit: 1}

    def run(self) -> None:
        try:
            self._load()
            self._recover()
            while self._orphans:
                self._look_after(*self._orphans.popleft())
        except BaseException as error:  # noqa: BLE001 - a thread has no other way to say it
            self.record.violate(Rule.HARNESS, repr(error))

    def _load(self) -> None:
        pause = THREADS * _REQUESTS_A_STEP / self._shared.rate
        next_at = time.monotonic() + self._rng.random() * pause
        while not self._shared.calm.wait(max(0.0, next_at - time.monotonic())):
            (way,) = self._rng.choices(list(self._ways), list(self._ways.values()))
            way()
            while self._orphans and self._orphans[0][0].deadline + GRACE < time.monotonic():
                self._look_after(*self._orphans.popleft())
            next_at = max(next_at + pause, time.monotonic() - 10 * pause)  # an outage is not made up for

    # -- the ways to send ------------------------------------------------------------------------------------

    def _send(self) -> None:
        order = self._deck.draw()

        def send() -> Response:
            return order.client.send(order.method, order.url, content=order.content, timeout=order.timeout)

        self._judge(order, send)

    def _wait(self) -> None:
        order = self._deck.draw(cancellable=True)
        self._judge(order, self._submit(order).result)

    def _batch(self) -> None:
        orders = [self._deck.draw(cancellable=True) for _ in range(_BATCH)]
        for order, future in [(order, self._submit(order)) for order in orders]:
            self._judge(order, future.result, timed=False)

    def _leave(self) -> None:
        """Send, and look much later what became of it: nobody waits, so the runtime alone must end it."""
        order = self._deck.draw(cancellable=True)
        self._orphans.append((order, self._submit(order)))

    def _stream(self) -> None:
        order = self._deck.draw()
        share = self._rng.random() if self._rng.random() < _LEFT_SHARE else None
        self._judge(order, lambda: self._read(order, share), timed=False)

    def _visit(self) -> None:
        """Use a client of one's own, and dispose of it while it is at work: nothing may be left open."""
        with Client() as client:
            orders = [self._deck.draw() for _ in range(_BATCH)]
            futures = [
                client.send_async(order.method, order.url, content=order.content, http_version=order.version)
                for order in orders
            ]
            client.dispose(self._rng.choice([0.0, 0.05, 1.0]), queued=self._rng.choice(["finish", "fail"]))
        self.record.visits += 1
        for order, future in zip(orders, futures, strict=True):
            if not future.done():
                self.record.violate(Rule.UNRESOLVED, f"its client was disposed of: {order.what}")

    def _submit(self, order: Order) -> ResponseFuture:
        future = order.client.send_async(order.method, order.url, content=order.content, timeout=order.timeout)
        if order.cancel_after == 0.0:
            future.cancel()
        elif order.cancel_after is not None:
            self._shared.canceller.cancel(future, order.cancel_after)
        return future

    def _read(self, order: Order, share: float | None) -> None:
        """Stream a response, or a share of it."""
        limits = Timeout(order.timeout, read=_READ_SECONDS)
        with order.client.stream(order.method, order.url, content=order.content, timeout=limits) as response:
            self._note_lateness(order, order.deadline)
            check_head(order, response, self.record)
            size = crc = 0
            for piece in self._pieces(order, response):
                size, crc = size + len(piece), zlib.crc32(piece, crc)
                if share is not None and size >= share * order.expected.size:
                    return
            check_body(order, response, Body(size, crc), self.record)

    def _pieces(self, order: Order, response: Response) -> Iterator[bytes]:
        pieces = response.iter_bytes()
        piece: bytes | None = b""
        while piece is not None:
            asked = time.monotonic()
            try:
                piece = next(pieces, None)
            finally:
                self._note_lateness(order, asked + _READ_SECONDS)
            yield piece or b""

    def _look_after(self, order: Order, future: ResponseFuture) -> None:
        wait([future], max(0.0, order.deadline + GRACE - time.monotonic()))  # which, unlike result(), ends nothing
        if future.done():
            self._judge(order, future.result, timed=False)
        else:
            self.record.violate(Rule.UNRESOLVED, order.what)

    # -- judging ---------------------------------------------------------------------------------------------

    def _judge(self, order: Order, answer: Callable[[], Response | None], *, timed: bool = True) -> bool:
        """Wait for the outcome and check it; tells whether it is a response. None is one checked already."""
        try:
            response = answer()
        except CancelledError:
            self.record.cancelled(order.method)
            if order.cancel_after is None:
                self.record.violate(Rule.UNASKED, order.what)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome, and judged
            rewindable = not isinstance(order.content, Generator)
            self.record.failed(order.method, order.nonce, error, rewindable=rewindable)
        else:
            self.record.answered(order.method, time.monotonic() - order.began if timed else None)
            if response is not None:
                check_head(order, response, self.record)
                check_body(order, response, Body.of(response.content), self.record)
            return True
        finally:
            if timed:
                self._note_lateness(order, order.deadline)
        return False

    def _note_lateness(self, order: Order, deadline: float) -> None:
        late = time.monotonic() - deadline
        self.record.latest = max(self.record.latest, late)
        if late > GRACE:
            self.record.violate(Rule.LATE, f"{late:.1f} s late: {order.what}")

    # -- the end ---------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Be served by every server within the time allowed, and from then on without an error."""
        since, never = self._shared.calm_since, threading.Event()
        for target in self._shared.targets:
            while not self._is_served(target):
                if time.monotonic() > since + RECOVERY_SECONDS:
                    self.record.violate(Rule.RECOVERY, target.name)
                    return
                never.wait(_RETRY_SECONDS)
        self.record.recovered = time.monotonic() - since
        for target in self._shared.targets * _QUIET_ROUNDS:
            if not self._is_served(target):
                self.record.violate(Rule.RELAPSE, target.name)

    def _is_served(self, target: Target) -> bool:
        order = self._deck.plain(target, _QUIET_TIMEOUT)
        return self._judge(order, self._submit(order).result)
