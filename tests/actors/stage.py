"""Real actors and connections on a fake clock, scripted dials and scripted peers.

A :class:`Stage` is what a runtime is, without a thread: requests go in by
:meth:`Stage.send`, the test plays the network. Nothing happens outside
:meth:`Stage.settle`, which most methods call. Leaving the stage disposes of it, and
fails if anything is left: a request without an outcome, a channel, a dial, a timer.
"""

from __future__ import annotations

import threading
from typing import Literal, Unpack

from tests.actors.calls import Call, Parts
from tests.servers.wire import respond
from turbopool import ReconnectOptions, Request
from turbopool.actors import refusals, shelf
from turbopool.actors.afloat import AFLOAT, Afloat
from turbopool.actors.base import tell
from turbopool.actors.dispatcher import Dispatcher, Runnable
from turbopool.actors.messages import Abandon, Dispose, Lease, ManagerMessage
from turbopool.actors.pool import Pool, PoolSettings
from turbopool.actors.quota import Quota
from turbopool.actors.spoken import Spoken
from turbopool.actors.supervisor import SupervisorActor, SupervisorRef
from turbopool.clock import NEVER
from turbopool.stats import PoolKey, PoolStats
from turbopool.transport.connection import Http1Connection
from turbopool.transport.exchange import Exchange
from turbopool.transport.head import Limits
from turbopool.transport.landlord import ConnectionSettings
from turbopool.transport.memory import FakeClock, MemoryChannel, MemoryDial, MemoryDialer, MemoryPoller, MemoryWaker
from turbopool.transport.wire import write_request

__all__ = ["KEY", "OTHER", "THIRD", "Call", "Parts", "Stage"]

KEY = PoolKey.of("http", "one.test")
OTHER = PoolKey.of("http", "other.test")
THIRD = PoolKey.of("http", "third.test")


class CountingDispatcher(Dispatcher):
    """Counts in `scheduled` the messages that were told."""

    scheduled = 0

    def schedule(self, runnable: Runnable) -> None:
        """Count it."""
        self.scheduled += 1
        super().schedule(runnable)


class Stage:
    """A supervisor and all it starts; every option has a default a test may rely on."""

    def __init__(  # noqa: PLR0913 - the options of a runtime are that many
        self,
        *,
        limit: int = 2,
        max_pending: int = 1000,
        connect_timeout: float | None = 10.0,
        lifetime: float | None = None,
        idle_timeout: float | None = 55.0,
        retire_after: float = 60.0,
        min_idle: int = 0,
        reconnect: ReconnectOptions | None = None,
        per_host: int | None = None,
        total: int | None = None,
        quota: Quota | None = None,
    ) -> None:
        """Start the supervisor."""
        self.clock = FakeClock()
        self.poller = MemoryPoller()
        self.dispatcher = CountingDispatcher(self.clock, self.poller, MemoryWaker(self.poller))
        self.afloat = Afloat(self.dispatcher, shelf.land)
        self.dialer = MemoryDialer(self.poller)
        self._bounds = per_host, total
        self.quota = Quota(per_host, total) if quota is None else quota
        self.is_disposed = False
        self.pools: dict[PoolKey, Pool] = {}
        self.calls: list[Call] = []
        connection = ConnectionSettings(
            limits=Limits(), lifetime=lifetime, idle_timeout=idle_timeout, spawn=lambda task: task()
        )
        self._settings = PoolSettings(
            limit=limit,
            max_pending=max_pending,
            connect_timeout=connect_timeout,
            connection=connection,
            retire_after=retire_after,
            min_idle=min_idle,
            reconnect=reconnect or ReconnectOptions(),
        )
        self.spoken = Spoken()
        self.start_supervisor()

    def start_supervisor(self) -> None:
        """Begin, or begin anew."""
        self.supervisor = SupervisorActor.start(
            self.dispatcher, self.dialer, self.quota, self.spoken, self._new_pool, self.pools
        )
        self.settle()

    def _new_pool(self, key: PoolKey) -> Pool:
        return Pool(key=key, settings=self._settings, afloat=self.afloat)

    def revive(self) -> SupervisorRef:
        """Begin anew if the supervisor was stopped from outside; return it."""
        if not self.supervisor.is_alive() and not self.is_disposed:
            self.quota = Quota(*self._bounds)
            self.start_supervisor()
        return self.supervisor

    # -- time ----------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything happen that can happen at this moment."""
        self.poller.settle(self.dispatcher.turn)

    def advance(self, seconds: float) -> None:
        """Let time pass; every timer in between fires at its own moment."""
        end = self.clock.moment + seconds
        self.settle()
        while 0 <= self.poller.timeout <= end - self.clock.moment:
            self.clock.advance(self.poller.timeout)
            self.settle()
        self.clock.moment = end
        self.settle()

    # -- callers -------------------------------------------------------------------------

    def prepare(self, key: PoolKey = KEY, **parts: Unpack[Parts]) -> Call:
        """Make a request without sending it; its target is unique."""
        target, method = f"/{len(self.calls)}", parts.get("method", "GET")
        url, now, total = key.origin + target, self.clock.now(), parts.get("timeout")
        wire = write_request(method, target, key.host, parts.get("fields", ()), parts.get("body"), key.version)
        exchange = Exchange(
            Request(method, url), url, key, wire, parts.get("owner"), now=now, total=total, body_limit=1 << 20,
            made_at="stage.py:1" if parts.get("stream") else None,
        )  # fmt: skip
        exchange.queue_deadline = min(exchange.deadline, now + parts.get("queue", NEVER))
        exchange.connect_timeout, exchange.read_timeout = parts.get("connect"), parts.get("read")
        call = Call(exchange, self._abandon, self.clock.now)
        self.calls.append(call)
        return call

    def submit(self, call: Call) -> Call:
        """Hand a request over as a caller's thread does, without letting anything happen yet."""
        pool, lease = self.pools.get(call.exchange.key), Lease(call.exchange)
        if (pool is None or not tell(pool.ref, lease)) and not tell(self.revive(), lease):
            call.exchange.fail(refusals.disposed(call.exchange.origin))  # as the runtime does it
        return call

    def send(self, key: PoolKey = KEY, **parts: Unpack[Parts]) -> Call:
        """Send a request, and let happen what follows at once."""
        call = self.submit(self.prepare(key, **parts))
        self.settle()
        return call

    def cancel(self, call: Call) -> None:
        """Cancel a request as its caller does."""
        assert call.future.cancel()
        self.settle()

    def _abandon(self, exchange: Exchange) -> None:
        pool = self.pools.get(exchange.key)
        tell(self.supervisor if pool is None else pool.ref, Abandon(exchange))

    # -- the network ---------------------------------------------------------------------

    def connect(self, dial: MemoryDial | None = None) -> MemoryChannel:
        """Let a dial succeed: the oldest one under way, unless another is named."""
        channel = (dial or self.dialer.pending[0]).succeed()
        self.settle()
        return channel

    def refuse(self, dial: MemoryDial | None = None, error: Exception | None = None) -> None:
        """Let a dial fail: the oldest one under way, unless another is named."""
        (dial or self.dialer.pending[0]).fail(error)
        self.settle()

    def connected(self, key: PoolKey = KEY, **parts: Unpack[Parts]) -> tuple[Call, MemoryChannel]:
        """Send a request that has to dial, and let it be connected."""
        call = self.send(key, **parts)
        return call, self.connect(self.dialer.pending[-1])

    def idle(self, count: int = 1, key: PoolKey = KEY) -> list[MemoryChannel]:
        """So many connections that have each served a request and are idle, the oldest first."""
        pairs = [self.connected(key) for _ in range(count)]
        for call, _ in pairs:
            self.answer(call)
        return [channel for _, channel in pairs]

    def answer(self, call: Call, body: bytes = b"ok", *headers: tuple[str, str]) -> None:
        """Let the server answer a request that is on a connection."""
        self.channel_of(call).feed(respond(body, headers=headers))
        self.settle()

    def channel_of(self, call: Call) -> MemoryChannel:
        """The channel that a request was last written to."""
        line = call.exchange.wire.head.split(b"\r\n")[0]
        return next(channel for channel in reversed(self.channels) if line in channel.sent)

    @property
    def channels(self) -> list[MemoryChannel]:
        """The channels of all dials that succeeded, in the order they were dialed."""
        return [dial.channel for dial in self.dialer.dials if dial.channel is not None]

    @property
    def open(self) -> list[MemoryChannel]:
        """Those of them that are open."""
        return [channel for channel in self.channels if not channel.closed]

    # -- the runtime ---------------------------------------------------------------------

    def stats(self, key: PoolKey = KEY) -> PoolStats:
        """The figures of a key, as callers see them."""
        return self.pools[key].snapshot()

    def tell(self, message: ManagerMessage, key: PoolKey = KEY) -> None:
        """Tell a key's manager something, and let happen what follows."""
        self.pools[key].ref.tell(message)
        self.settle()

    def connection_of(self, call: Call) -> Http1Connection:
        """The connection that a request runs on."""
        connection = call.exchange.connection
        assert isinstance(connection, Http1Connection)
        return connection

    def crash(self, key: PoolKey = KEY) -> None:
        """Let a key's manager die of a message that is none; settles nothing."""
        self.pools[key].ref.tell(Bug())

    def dispose(self, *, queued: Literal["finish", "fail"] = "finish", after: float = NEVER) -> threading.Event:
        """Begin the end; what is left after so many seconds is failed. Returns what is set at the end."""
        done = threading.Event()
        self.is_disposed = True
        self.supervisor.tell(Dispose(queued, self.clock.now() + after, done))
        self.settle()
        return done

    def close(self) -> None:
        """End everything now; fail if anything is left."""
        self.settle()
        tell(self.supervisor, Dispose("fail", self.clock.now(), threading.Event()))
        self.advance(0.0)
        assert not self.supervisor.is_alive(), "the supervisor did not stop"
        left = [call.exchange.request for call in self.calls if call.outcomes != 1]
        assert not left, f"without exactly one outcome: {left}"
        assert not self.open, "a connection was left open"
        assert not self.dialer.pending, "a dial was left under way"
        self.advance(3 * AFLOAT)  # for so long the dispatcher looks for what may have been launched
        assert self.dispatcher.census() == (0, 0), "descriptors watched, timers armed"
        self.dispatcher.stop()


class Bug:
    """No message any actor understands."""
