"""A streamed response on its way to its caller: the head completes the future, the body is read as it comes."""

from __future__ import annotations

from collections.abc import Callable

from turbopool.clock import NEVER
from turbopool.transport.download import BodyStream, Reader
from turbopool.transport.exchange import Exchange
from turbopool.transport.head import ResponseHead
from turbopool.transport.interfaces import Reactor

READER_PATIENCE = 30.0
"""Seconds that a stream without a read timeout may stand unread while its owner drains."""


def begin(
    exchange: Exchange,
    head: ResponseHead,
    reactor: Reactor,
    on_crash: Callable[[BaseException], None],
    *,
    resume: Callable[[Exchange], None],
    abort: Callable[[Exchange], None],
) -> BodyStream | None:
    """Complete the future with the head; return where the body goes, or None if the caller cancelled meanwhile.

    Args:
        exchange: whose total deadline ends here: from now on the reader's waits are bounded.
        head: of the response.
        reactor: on whose thread this runs, and the callbacks do.
        on_crash: told of a bug in them.
        resume: called when a reader that was slow has made room.
        abort: called when the reader stops before the end.
    """
    stream = BodyStream(
        exchange.origin,
        exchange.read_timeout,
        resume=lambda: reactor.post(lambda: resume(exchange), on_crash),
        abort=lambda: reactor.post(lambda: abort(exchange), on_crash),
    )
    exchange.deadline = NEVER
    reader = Reader(stream, exchange.made_at or "?")
    response = exchange.respond(head, None, reader, reactor.now)
    stream.extensions = response.extensions
    if exchange.begin(response):
        return stream
    stream.finish()
    return None


def patience(exchange: Exchange) -> float:
    """Return the seconds a reader may take while its owner drains."""
    return READER_PATIENCE if exchange.read_timeout is None else exchange.read_timeout
