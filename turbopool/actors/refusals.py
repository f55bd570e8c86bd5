"""The errors that the actors give instead of a connection: what happened, with which numbers, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from turbopool.actors.pool import Pool
from turbopool.errors import ClientDisposed, ConnectError, ManagerCrashed, PoolFull, ResourceError, TurboPoolError
from turbopool.stats import PoolKey

Ending = Callable[..., TurboPoolError]
"""One of :func:`disposed` and :func:`stopped`."""

UNDER_WAY = "while the request was under way"
QUEUED = "while the request waited in the queue"


def disposed(origin: str, when: str = "before the request began", *, sent: bool = False) -> ClientDisposed:
    """The client ended first."""
    return ClientDisposed(
        f"the client was disposed {when}", origin=origin, phase="wait" if sent else "queue", request_sent=sent,
        processed="maybe" if sent else "no", may_retry=not sent, advice="make a new client",
    )  # fmt: skip


def stopped(origin: str, when: str = "before the request began", *, sent: bool = False) -> ManagerCrashed:
    """Somebody else stopped our actors."""
    return ManagerCrashed(
        f"the actors of the client were stopped from outside {when}", origin=origin,
        phase="wait" if sent else "queue", request_sent=sent, processed="maybe" if sent else "no", may_retry=not sent,
        advice="look for a call of pykka.ActorRegistry.stop_all(); the next request starts them anew",
    )  # fmt: skip


def queue_full(pool: Pool) -> PoolFull:
    """Too many wait already."""
    facts: dict[str, Any] = pool.counts()  # Any: they are facts among named fields
    return PoolFull(
        "too many requests wait for a connection", origin=pool.key.origin, phase="queue", may_retry=True,
        option="max_pending_requests", max_pending_requests=pool.settings.max_pending,
        advice="send less at once, allow more connections, or raise max_pending_requests", **facts,
    )  # fmt: skip


def not_dialed(pool: Pool, error: Exception) -> Exception:
    """The dial it caused, or that all hoped for, failed: an own instance for each."""
    if not isinstance(error, TurboPoolError):
        return error
    counts = pool.counts()
    return error.with_(waiting=counts["waiting"], leased=counts["leased"])


def not_started(cause: OSError | RuntimeError) -> ResourceError:
    """This machine has no descriptor or no thread left, not even for the dispatcher."""
    facts: dict[str, Any] = {"errno": cause.errno} if isinstance(cause, OSError) and cause.errno else {}
    return ResourceError(
        f"the dispatcher could not be started: {cause}", phase="queue", may_retry=True,
        advice="raise the limits of files and threads", **facts,
    )  # fmt: skip


def unreachable(pool: Pool, now: float) -> TurboPoolError:
    """The attempts to come back have ended; the last failure is the cause of all."""
    recovery = pool.recovery
    cause, attempts = recovery.cause, recovery.failures
    facts: dict[str, Any] = {"attempts": attempts, "waiting": pool.ledger.queued}  # Any: some are named fields
    facts["next_look_in"] = max(0.0, recovery.due - now)
    advice = "check the server; it is looked for again by itself"
    if isinstance(cause, ConnectError | TimeoutError) and isinstance(cause, TurboPoolError):
        message = f"{attempts} attempts to reconnect failed, the last of them so: {cause.message}"
        return cause.with_(message=message, advice=advice, **facts)
    error = ConnectError(
        f"{attempts} attempts to reconnect failed: the server closes every new connection without an answer",
        origin=pool.key.origin, phase="connect", may_retry=True, advice=advice, **facts,
    )  # fmt: skip
    error.__cause__ = cause
    return error


def crashed(key: PoolKey, cause: BaseException, *, sent: bool, what: str = "the manager of the pool") -> ManagerCrashed:
    """A part of the runtime ended of a bug."""
    error = ManagerCrashed(
        f"{what} crashed: {cause!r}", origin=key.origin, phase="wait" if sent else "queue", request_sent=sent,
        processed="maybe" if sent else "no", may_retry=not sent, advice="this is a bug of turbopool; please report it",
    )  # fmt: skip
    error.__cause__ = cause
    return error
