"""Killing the runtime's own parts, and the books that must balance afterwards."""

from __future__ import annotations

from concurrent.futures import wait
from typing import Any

import pykka

from tests.servers.raw import RawServer
from tests.waiting import eventually
from turbopool import Client, ResponseFuture, TurboPoolError
from turbopool.actors.tcp_manager import TcpConnectionManagerActor
from turbopool.stats import PoolStats

Ref = pykka.ActorRef[Any]


def client_of(server: RawServer, limit: int = 6) -> Client:
    """A client whose requests all end in time, so that a test that fails does."""
    return Client(base_url=server.url, max_conns_per_host=limit, request_timeout=10)


class Fatal:
    """A message that no actor understands: one that looks at it dies of `error`."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __repr__(self) -> str:
        raise self._error


def managers() -> list[Ref]:
    """The managers of all clients of this process."""
    return pykka.ActorRegistry.get_by_class(TcpConnectionManagerActor)


def kill(ref: Ref, error: BaseException | None = None) -> None:
    """Let an actor die of an exception, and wait until it has."""
    ref.tell(Fatal(error or RuntimeError("a bug")))
    eventually(lambda: not ref.is_alive())


def pool_of(client: Client, origin: str) -> PoolStats:
    """The figures of the one pool of an origin."""
    (pool,) = [pool for key, pool in client.stats().pools.items() if key.origin == origin]
    return pool


def assert_accounted(client: Client, origin: str, sent: int) -> None:
    """I3, I26: nothing is under way, all that was opened is closed or idle, and each request has one outcome."""

    def at_rest() -> bool:
        pool = pool_of(client, origin)
        return not (pool.leased or pool.waiting or pool.connecting)

    eventually(at_rest)
    pool = pool_of(client, origin)
    assert pool.opened == pool.closed + pool.idle
    assert pool.completed + pool.failed + pool.cancelled == sent


def assert_says_what_is_known(error: BaseException | None, kind: type[TurboPoolError], *, sent: bool) -> None:
    """I27: of the right class, and ``processed`` is ``maybe`` once a byte of the request was handed over."""
    assert isinstance(error, kind), repr(error)
    assert (error.request_sent, error.processed) == (sent, "maybe" if sent else "no"), repr(error)
    assert error.origin


def outcomes_of(futures: list[ResponseFuture]) -> list[BaseException | None]:
    """The errors of futures, or None for those that were answered; all of them end soon."""
    assert not wait(futures, 10).not_done
    return [future.exception() for future in futures]
