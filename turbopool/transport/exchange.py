"""One request and its response under way: the lessee of a connection.

An exchange is made on the caller's thread and from then on belongs to the reactor's. It completes its future exactly
once; the future itself decides races with a caller who cancels.
"""

from __future__ import annotations

from typing import Any, Protocol

from turbopool.bodies import Body
from turbopool.clock import NEVER
from turbopool.errors import DeadlineExceeded, PoolTimeout, TurboPoolError
from turbopool.models import BodySource, Request, Response
from turbopool.stats import PoolKey
from turbopool.transport.head import ResponseHead
from turbopool.transport.http2_wire import StreamRequest
from turbopool.transport.wire import WireRequest


class Completion(Protocol):
    """Where the outcome goes: a future."""

    settled: bool
    """Whether it has an outcome, a cancel included."""

    def succeed(self, response: Response) -> bool:
        """Set the response, unless settled."""
        ...

    def fail(self, error: BaseException) -> bool:
        """Set the error, unless settled."""
        ...

    def cancel_now(self) -> bool:
        """Cancel, unless settled; the one who calls it frees what the exchange holds."""
        ...


class _Delivered:
    """What stands for the future once it has its response: the exchange goes on, and must not keep that alive."""

    settled = True

    def succeed(self, response: Response) -> bool:
        del response
        return False

    def fail(self, error: BaseException) -> bool:
        del error
        return False

    def cancel_now(self) -> bool:
        return False


_DELIVERED = _Delivered()

Raft = list[Any]
"""What a launched request floats on: a list of one, ``(pool, books, connection, exchange)``, emptied by whoever claims
the right to receive its response."""
_NO_RAFT: Raft = []
"""Of all that float on nothing: always empty."""


def unmoor(raft: Raft) -> Any | None:  # noqa: ANN401  # what whoever launched it put there
    """Claim what is on a raft, with the right to receive the response; None if somebody has. Any thread.

    Signal handlers run between calls, not after a ``del``: an interrupt cannot make it vanish from here.
    """
    try:
        launched = raft[0]
        del raft[0]  # one of those who try it succeeds
    except IndexError:
        return None
    return launched


class Runner(Protocol):
    """What a request can be put on: a connection."""

    def run(self, exchange: Exchange) -> None:
        """Send the request, deliver its response."""
        ...


class Carrier(Protocol):
    """What a request runs on: a connection, or a stream of one."""

    def abort(self) -> None:
        """Give the request up."""
        ...


class Tally(Protocol):
    """Where outcomes are counted: the key's pool."""

    completed: int
    failed: int


class Exchange:
    """A request, its deadlines, and what became of it so far.

    Attributes:
        request, url, key, wire: what to send, as the caller put it and as it goes over the wire.
        completion: told of the outcome.
        owner: the handle that sent it; ``cancel_pending_requests`` goes by it.
        asked_at, deadline, queue_deadline: moments.
        queue_timeout: seconds; ``queue_deadline`` follows from it.
        connect_timeout, read_timeout, write_timeout: seconds, or None.
        in_memory: whether the response is kept whole; else it is streamed.
        made_at: where the caller asked for a streamed one, as ``file:line``; None of one that is kept whole.
        body_limit: bytes a response may decode to.
        connection: what it runs on now.
        may_lower: whether it may go over HTTP/1.1 if the server does not speak HTTP/2.
        sent: bytes handed to the kernel in the last attempt that handed any over.
        replays: how often it was tried again.
        resent: how often that was after bytes of it had been handed to the kernel.
        needs_fresh: whether only a connection that never carried a request will do.
        tally: where the outcome is counted.
        raft: what it floats on while it is sent and nobody receives its response yet; see :func:`unmoor`.
    """

    __slots__ = (
        "asked_at", "body_limit", "completion", "connect_timeout", "connection", "deadline", "in_memory", "key",
        "made_at", "may_lower", "needs_fresh", "owner", "queue_deadline", "queue_timeout", "raft", "read_timeout",
        "replays", "request", "resent", "sent", "tally", "url", "wire", "write_timeout",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917  # built in one place, by the client, once a request
        self,
        request: Request,
        url: str,
        key: PoolKey,
        wire: WireRequest,
        owner: object,
        now: float,
        total: float | None,
        body_limit: int,
        made_at: str | None = None,
    ) -> None:
        self.request = request
        self.url = url
        self.key = key
        self.wire = wire
        self.owner = owner
        self.asked_at = now
        self.deadline = self.queue_deadline = NEVER if total is None else now + total
        self.queue_timeout = NEVER
        self.connect_timeout: float | None = None
        self.read_timeout: float | None = None
        self.write_timeout: float | None = None
        self.in_memory = made_at is None
        self.made_at = made_at
        self.body_limit = body_limit
        self.connection: Carrier | None = None
        self.sent = 0
        self.replays = self.resent = 0
        self.needs_fresh = self.may_lower = False
        self.tally: Tally | None = None
        self.raft = _NO_RAFT
        self.completion: Completion

    @property
    def done(self) -> bool:
        """Whether the caller has an outcome already."""
        return self.completion.settled

    @property
    def origin(self) -> str:
        """For error messages."""
        return self.key.origin

    @property
    def was_sent(self) -> bool:
        """Whether a byte of it was ever handed over, in this attempt or one before."""
        return self.sent > 0 or self.resent > 0

    @property
    def rewindable(self) -> bool:
        """Whether the body can be sent again from its beginning."""
        body = self.wire.body
        return not isinstance(body, Body) or body.rewindable

    def lower(self) -> None:
        """Go on as HTTP/1.1, which the server speaks instead: another key, and another form."""
        if isinstance(self.wire, StreamRequest):
            self.key = self.key._replace(version="1.1")
            self.wire = self.wire.as_http1()

    def granted(self, connection: Runner) -> None:
        """Run on this connection."""
        connection.run(self)

    def returned(self, now: float) -> None:
        """Go back to the queue: it is to be sent again, and its wait for a connection begins anew."""
        self.replays += 1
        self.queue_deadline = min(self.deadline, now + self.queue_timeout)

    def refused(self, error: Exception) -> None:
        """Fail: no connection will come, or none again."""
        if self.was_sent and isinstance(error, TurboPoolError):
            may_retry = error.may_retry and self.wire.idempotent and self.rewindable
            error = error.with_(request_sent=True, processed="maybe", may_retry=may_retry)
        self.fail(error)

    def expired(self, waited: float, counts: dict[str, int], cause: Exception | None = None) -> None:
        """Fail: the wait for a connection took too long; ``cause`` is what broke the server's last one, if it did."""
        processed = "maybe" if self.was_sent else "no"  # sent before, and back in the queue
        may_retry = self.rewindable and (not self.was_sent or self.wire.idempotent)
        facts = {"origin": self.origin, "phase": "queue", "request_sent": self.was_sent, "processed": processed,
                 "may_retry": may_retry, "waited": waited}  # fmt: skip
        if self.queue_deadline < self.deadline:
            msg = "no connection became free in time"
            kind: type[TurboPoolError] = PoolTimeout
        elif counts["connecting"] and not counts["leased"] and not counts["idle"]:
            msg = "the deadline of the request passed while its connection was being established"
            kind = DeadlineExceeded
        else:
            msg = "the deadline of the request passed in the queue"
            kind = DeadlineExceeded
        advice = "allow more connections, a longer timeout, or send less at once"
        if cause is not None:
            msg += " while the server was being reconnected to"
            advice = "check the server, or allow a longer timeout"
        error = kind(msg, attempts=self.replays, advice=advice, **facts, **counts)  # type: ignore[arg-type]  # facts of mixed types
        error.__cause__ = cause
        self.fail(error)

    def respond(self, head: ResponseHead, raw: bytes | None, source: BodySource | None, now: float) -> Response:
        """Build the response."""
        return Response(head, raw, source, self.request, self.url, now - self.asked_at, self.body_limit)

    def begin(self, response: Response) -> bool:
        """Complete with a streamed response, and let go of it: its caller may drop it before its end."""
        succeeded = self.succeed(response)
        self.completion = _DELIVERED
        return succeeded

    def succeed(self, response: Response) -> bool:
        """Complete with a response, unless the caller has an outcome already."""
        tally = self.tally
        if tally is not None:  # counted first, so that whoever sees the response sees it counted
            tally.completed += 1
        done = self.completion.succeed(response)
        if not done and tally is not None:
            tally.completed -= 1
        return done

    def fail(self, error: BaseException) -> bool:
        """Complete with an error, unless the caller has an outcome already."""
        tally = self.tally
        if tally is not None:
            tally.failed += 1
        done = self.completion.fail(error)
        if not done and tally is not None:
            tally.failed -= 1
        return done
