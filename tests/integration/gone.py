"""A client whose server has gone: what the tests of reconnecting begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tenacity import RetryCallState, stop_after_attempt, wait_fixed
from tenacity.wait import wait_base

from tests.face.handlers import echo
from tests.servers.listening import kept
from tests.servers.raw import RawServer, always
from tests.waiting import eventually
from turbopool import Client, PoolStats, ReconnectOptions

SOON = ReconnectOptions(wait=wait_fixed(0.05), stop=stop_after_attempt(1000))
NEVER_SOON = ReconnectOptions(wait=wait_fixed(60), stop=stop_after_attempt(1000))


class Recorded(wait_base):
    """Wait a moment, and note the number of the attempt that failed."""

    def __init__(self) -> None:
        self.failed: list[int] = []

    def __call__(self, retry_state: RetryCallState) -> float:
        self.failed.append(retry_state.attempt_number)
        return 0.02


def pool(client: Client) -> PoolStats:
    """Return the figures of the client's only pool, which its first request makes."""
    (only,) = eventually(lambda: client.stats().pools).values()
    return only


def backs_off(client: Client) -> bool:
    """Whether an attempt has failed, and requests wait for the next one."""
    one = pool(client)
    return one.state == "reconnecting" and one.waiting > 0 == one.connecting


@contextmanager
def warm(reconnect: ReconnectOptions = SOON, **options: object) -> Iterator[tuple[Client, int]]:
    """A client whose server has answered once and is gone, and the server's port."""
    with RawServer(always(echo)) as server:
        client = Client(base_url=server.url, reconnect=reconnect, **options)
        assert client.get("/warm").is_success
    with ExitStack() as stack:
        if holder := kept("127.0.0.1", server.port):
            stack.enter_context(holder)
        stack.enter_context(client)
        eventually(lambda: client.stats().idle == 0)
        yield client, server.port


def targets(server: RawServer) -> list[str]:
    """Return what was asked for, in order."""
    return [request.target for request in server.requests]
