"""What every error says of the request it ended. Pure."""

from __future__ import annotations

from typing import Any

from turbopool.errors import InvalidRequest, LimitExceeded, ResourceError, TurboPoolError, WriteError
from turbopool.transport.exchange import Exchange
from turbopool.transport.sender import BodyFailed


def facts(exchange: Exchange, phase: str, *, has_head: bool) -> dict[str, Any]:
    """Return what is known of a request under way; ``has_head`` is whether its response has begun."""
    return {
        "origin": exchange.origin,
        "phase": phase,
        "request_sent": exchange.was_sent,
        "processed": "yes" if has_head else "maybe" if exchange.was_sent else "no",
        "may_retry": exchange.rewindable and (not exchange.was_sent or exchange.wire.idempotent),
        "attempts": exchange.replays + 1,
        "bytes_sent": exchange.sent,
    }


def late(
    kind: type[TurboPoolError], message: str, exchange: Exchange, phase: str, *, has_head: bool, now: float
) -> TurboPoolError:
    """Return the error of a request whose time is up."""
    known = facts(exchange, phase, has_head=has_head)
    return kind(message, waited=round(now - exchange.asked_at, 3), **known, advice="allow more time with timeout=")


def accounted(error: TurboPoolError, exchange: Exchange, phase: str, *, has_head: bool) -> TurboPoolError:
    """Return the error with all that is known of its request, unless it says so already."""
    if error.origin:
        return error
    known = facts(exchange, phase, has_head=has_head)
    if isinstance(error, InvalidRequest | LimitExceeded):  # again, it would end the same
        known["may_retry"] = False
    return error.with_(**known)


def body_failure(failure: BodyFailed, exchange: Exchange) -> TurboPoolError:
    """Return the error of a request whose body raised, or could not be drawn for want of a thread."""
    error = failure.__cause__
    if isinstance(error, TurboPoolError):
        return error
    kind = ResourceError if isinstance(error, RuntimeError) and not exchange.sent else WriteError
    known = facts(exchange, "send", has_head=False)
    problem = kind("the request body could not be read to its end", **known)
    problem.__cause__ = error
    return problem
