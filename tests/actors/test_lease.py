"""One connection from its creation to its end, as its lessees and its manager see it."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from tests.actors.stage import Stage
from tests.servers.wire import respond
from turbopool.clock import NEVER
from turbopool.errors import ConnectError, ConnectTimeout, TransportError, TurboPoolError
from turbopool.transport.memory import MemoryChannel

StageOf = Callable[..., Stage]


def test_connection_is_alive_when_made_and_dead_once_closed(stage: Stage) -> None:
    """BEH-L1."""
    call, channel = stage.connected()
    connection = stage.connection_of(call)
    assert not connection.is_closed
    assert not channel.closed

    stage.answer(call, b"bye", ("Connection", "close"))

    assert connection.is_closed
    assert channel.closed
    assert not connection.is_usable(stage.clock.now(), careful=True)


class OutOfBuffers(MemoryChannel):
    """Takes a part of a request; then the kernel has no memory for more, and the peer knows nothing of it."""

    def send(self, data: bytes | memoryview) -> int:
        """Take a part once."""
        if self.sent:
            raise OSError(errno.ENOBUFS, "no buffer space available")
        return super().send(bytes(data[:100]))


@pytest.mark.parametrize("read", [None, 2.0])
def test_request_whose_sending_breaks_at_once_still_has_its_deadlines(stage: Stage, read: float | None) -> None:
    """I1, I4: the server has nothing to say to half a request, and the slot must not wait for it for ever."""
    call = stage.send(method="POST", body=bytes(100_000), timeout=5.0, read=read)
    stage.dialer.pending[0].succeed(OutOfBuffers(stage.poller))
    stage.settle()
    assert call.is_running

    stage.advance(5.0)

    assert isinstance(call.error, TimeoutError)
    assert isinstance(call.error, TurboPoolError)
    assert call.error.processed == "maybe"
    assert stage.stats().leased == 0


def test_closing_twice_is_closing_once(stage: Stage) -> None:
    """BEH-L1."""
    (channel,) = stage.idle()
    (connection,) = stage.pools[stage.calls[0].exchange.key].ledger.idle

    connection.close()
    connection.close()

    assert channel.closed
    assert stage.dispatcher.census()[0] == 0


def test_closing_lets_go_of_the_descriptor_and_the_timer(stage: Stage) -> None:
    """BEH-L1: nothing of it is watched, and nothing of it wakes the dispatcher."""
    call, _ = stage.connected(timeout=30.0)
    descriptors, timers = stage.dispatcher.census()

    stage.cancel(call)

    assert stage.dispatcher.census() == (descriptors - 1, timers - 1 + 1)  # the key thinks of retiring instead
    stage.advance(30.0)
    assert call.future.cancelled()


def test_closed_connection_is_not_closed_again_by_its_peer(stage: Stage) -> None:
    """BEH-L1."""
    call, channel = stage.connected()
    stage.cancel(call)

    channel.feed(b"HTTP/1.1 200 OK\r\n\r\n", b"")
    stage.settle()

    assert (stage.stats().opened, stage.stats().closed) == (1, 1)


@pytest.mark.parametrize(
    ("lifetime", "age", "is_usable"),
    [(None, 1e9, True), (100.0, 0.0, True), (100.0, 89.9, True), (100.0, 100.0, False), (0.0, 0.0, False)],
)
def test_connection_may_be_lent_within_its_lifetime(
    stage_of: StageOf, lifetime: float | None, age: float, *, is_usable: bool
) -> None:
    """BEH-L2."""
    stage = stage_of(lifetime=lifetime, idle_timeout=None)
    call, _ = stage.connected()
    connection = stage.connection_of(call)

    now = stage.clock.now() + age

    assert (now < connection.expires_at) == is_usable
    assert lifetime is not None or connection.expires_at == NEVER


def test_dial_gives_a_live_connection(stage: Stage) -> None:
    """BEH-L4."""
    call, channel = stage.connected()

    assert stage.connection_of(call).requests == 1
    assert not channel.closed


@pytest.mark.parametrize("kind", [ConnectError, ConnectTimeout])
def test_refused_and_late_dials_raise_what_they_are(stage: Stage, kind: type[TransportError]) -> None:
    """BEH-L4."""
    call = stage.send()

    stage.refuse(error=kind("scripted", origin="http://one.test:80"))

    assert type(call.error) is kind
    assert isinstance(call.error, TimeoutError) == (kind is ConnectTimeout)


def test_disposing_after_a_failed_dial_is_safe(stage: Stage) -> None:
    """BEH-L4."""
    stage.send()
    stage.refuse()

    assert stage.dispose().is_set()
    assert stage.dialer.pending == []


def test_cancel_in_the_middle_of_a_dial_is_final(stage: Stage) -> None:
    """BEH-L4: the connection that comes of it is nobody's, or the next one's."""
    call = stage.send()

    stage.cancel(call)
    channel = stage.connect()

    assert call.future.cancelled()
    assert call.outcomes == 1
    assert channel.sent == b""


def test_released_connection_that_its_peer_ends_is_not_lent_to_who_cannot_be_sent_again(stage_of: StageOf) -> None:
    """BEH-P47: the end arrives right behind the response that frees the connection for a waiting POST."""
    stage = stage_of(limit=1)
    call, channel = stage.connected()
    waiter = stage.send(method="POST")

    channel.feed(respond(b"ok"), b"")
    stage.settle()

    assert call.response.content == b"ok"
    assert channel.closed
    assert b"POST" not in channel.sent
    stage.connect()
    stage.answer(waiter)
    assert waiter.response.status_code == 200
