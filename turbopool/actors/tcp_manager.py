"""The manager of one key's TCP connections: it answers leases, takes releases, dials, evicts, drains.

It decides and never blocks. Who holds what stands in its ledger, who may open what in the quota; the connections
themselves run on the same thread and call :meth:`TcpConnectionManagerActor.on_released` directly, without a message.
"""

from __future__ import annotations

from typing import Any, Literal, assert_never

import pykka

from turbopool.actors.base import DispatchedActor, tell
from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.messages import (
    Abandon,
    AbandonAll,
    Drain,
    Established,
    EstablishFailed,
    EvictIdle,
    EvictOne,
    ExpireWaiters,
    Halt,
    Lease,
    ManagerCrashed,
    ManagerDrained,
    ManagerIdled,
    ManagerMessage,
    Release,
    RoomChanged,
    RoomMade,
    RoomWanted,
    SupervisorMessage,
    WarmUp,
)
from turbopool.actors.pool import Pool
from turbopool.actors.quota import Quota
from turbopool.clock import NEVER
from turbopool.errors import ClientDisposed, PoolFull, TurboPoolError
from turbopool.transport.connection import Http1Connection
from turbopool.transport.exchange import Exchange
from turbopool.transport.interfaces import Channel, Dial, Dialer
from turbopool.transport.replay import ReplayBudget


class TcpConnectionManagerActor(DispatchedActor):
    """Owns the connections of one key.

    Args:
        pool: the key's books, empty or those of a crashed predecessor.
        dispatcher: whose thread it runs on.
        dialer: establishes connections.
        quota: the bounds over all keys.
        supervisor: told when this manager idles, drains, crashes or wants room.
    """

    def __init__(
        self, pool: Pool, dispatcher: Dispatcher, dialer: Dialer, quota: Quota, supervisor: pykka.ActorRef[Any]
    ) -> None:
        super().__init__(dispatcher)
        self._pool = pool
        self._ledger = pool.ledger
        self._settings = pool.settings
        self._dialer = dialer
        self._quota = quota
        self._supervisor = supervisor
        self._draining = False
        self._budget = ReplayBudget(dispatcher.now)
        self._eviction = dispatcher.timer(lambda: self.on_receive(EvictIdle()), self.crash)
        self._expiry = dispatcher.timer(lambda: self.on_receive(ExpireWaiters()), self.crash)
        self._retirement = dispatcher.timer(self._retire, self.crash)

    def on_start(self) -> None:
        """Think of retiring from the first: the request that made this manager may come to nothing."""
        self._end_if_empty()

    def on_receive(self, message: ManagerMessage) -> None:  # noqa: C901, PLR0912  # a line a message
        """Handle one message."""
        match message:
            case Lease():
                self._on_lease(message.lessee)
            case Release():
                self._on_release(message)
            case Abandon():
                self._on_abandon(message.lessee)
            case AbandonAll():
                self._on_abandon_all(message.owner)
            case EvictIdle():
                self._on_evict_idle()
            case ExpireWaiters():
                self._on_expire_waiters()
            case EvictOne():
                self._on_evict_one(message.connection)
            case Established():
                self._on_established(message.dial, message.channel)
            case EstablishFailed():
                self._on_establish_failed(message.dial, message.error)
            case RoomMade():
                self._on_room_made()
            case WarmUp():
                self._on_warm_up(message)
            case Drain():
                self._on_drain(message.queued)
            case Halt():
                self._on_halt()
            case _:
                assert_never(message)

    # -- lease and release -----------------------------------------------------------------------------------

    def _on_lease(self, lessee: Exchange) -> None:
        ledger, now = self._ledger, self._dispatcher.now
        if lessee.done:
            return
        lessee.tally = self._pool
        if self._draining:
            lessee.refused(self._disposed("the client was disposed before the request began"))
            return
        if lessee.deadline <= now:
            lessee.expired(round(now - lessee.asked_at, 3), self._pool.counts())
            return
        if self._grant_idle(lessee):
            return
        if ledger.queued >= self._settings.max_pending + ledger.opening:
            self._refuse_full(lessee)
            return
        ledger.enqueue(lessee)
        self._dial_if_due(lessee)
        self._expiry.arm(min(self._expiry.due, lessee.queue_deadline))

    def _grant_idle(self, lessee: Exchange) -> bool:
        """Lend the newest idle connection that is fit for use, if there is one, closing those that are not."""
        ledger, now = self._ledger, self._dispatcher.now
        while ledger.idle and not ledger.waiting:
            connection = ledger.lease(lessee)
            assert connection is not None  # noqa: S101  # one is idle and nobody waits
            self._quota.roused(connection)
            if connection.is_usable(now, careful=not lessee.wire.idempotent):
                self._grant(connection, lessee)
                return True
            self._drop(connection)
        return False

    def _on_release(self, message: Release) -> None:
        if self._ledger.leased.get(message.connection) is message.lessee:
            self.on_released(message.connection, reusable=message.reusable)

    def on_released(self, connection: Http1Connection, *, reusable: bool) -> None:
        """Take a connection back, and hand it on. Called by the connection."""
        ledger, now = self._ledger, self._dispatcher.now
        if connection not in ledger.leased:
            return
        if not reusable or self._must_close(connection, now):
            self._drop(connection)
            self._after_loss()
            return
        lessee = ledger.release(connection)
        if lessee is not None:
            self._grant(connection, lessee)
        else:
            self._rest(connection)

    def on_lost(self, connection: Http1Connection, error: Exception | None) -> None:
        """Strike out an idle connection that its peer closed. Called by the connection."""
        del error
        self._drop(connection)
        self._after_loss()

    def on_returned(self, lessee: Exchange, error: TurboPoolError) -> None:
        """Send a request again, or fail it if the budget for that is spent. Called by the connection."""
        if lessee.needs_fresh and not self._budget.spend(self._dispatcher.now, self._pool.requests):
            lessee.fail(error)
            return
        lessee.replays += 1
        if not lessee.needs_fresh and self._grant_idle(lessee):
            return
        self._ledger.take_back(lessee)
        self._expiry.arm(min(self._expiry.due, lessee.queue_deadline))
        self._dial_if_due(lessee)

    def on_bug(self, error: BaseException) -> None:
        """Crash: code of ours raised what it should not. Called by the connection."""
        self.crash(error)

    def _grant(self, connection: Http1Connection, lessee: Exchange) -> None:
        self._pool.requests += 1
        if self._draining:
            connection.drain()
        lessee.granted(connection)

    def _must_close(self, connection: Http1Connection, now: float) -> bool:
        """Whether a connection is not to be handed on: too old, or another key waits longer for its room."""
        if connection.is_closed or now >= connection.expires_at:
            return True
        if self._quota.wanted_since == NEVER:
            return False
        first = next(iter(self._ledger.waiting), None)
        return first is not None and first.asked_at > self._quota.wanted_by_others(self._pool.key)

    def _rest(self, connection: Http1Connection) -> None:
        now = self._dispatcher.now
        connection.rest(now)
        if self._draining or connection.idle_until <= now:
            self._drop(connection)
            self._after_loss()
            return
        self._quota.rested(connection, self._pool.key)
        if connection.idle_until < self._eviction.due:
            self._eviction.arm(connection.idle_until)
        self._tell_room_changed()

    def _drop(self, connection: Http1Connection) -> None:
        """Close a connection and strike it out everywhere."""
        connection.close()
        self._ledger.discard(connection)
        self._quota.roused(connection)
        self._quota.give(self._pool.key)
        self._pool.closed += 1
        self._tell_room_changed()

    def _after_loss(self) -> None:
        """There is room again: use it, or think of retiring."""
        self._dial_if_due()
        self._end_if_empty()

    # -- dialing ---------------------------------------------------------------------------------------------

    def _dial_if_due(self, culprit: Exchange | None = None) -> None:
        while self._ledger.wants_dial:
            if not self._quota.take(self._pool.key):
                self._quota.want(self._pool.key, self._dispatcher.now)
                self._report(RoomWanted(self._pool.key))
                return
            timeout = culprit.connect_timeout if culprit is not None else None
            self._ledger.dial(self._dial(timeout), culprit)

    def _on_room_made(self) -> None:
        """Use the room or leave the line; either way it is the next key's turn."""
        self._dial_if_due()
        self._tell_room_changed()

    def _dial(self, timeout: float | None) -> Dial:
        self._retirement.arm(NEVER)
        return self._dialer.dial(
            self._pool.key, timeout if timeout is not None else self._settings.connect_timeout, self._on_dialed
        )

    def _on_dialed(self, dial: Dial, channel: Channel | None, error: Exception | None) -> None:
        try:
            if channel is not None:
                self.on_receive(Established(dial, channel))
            elif error is not None:
                self.on_receive(EstablishFailed(dial, error))
        except BaseException as bug:  # noqa: BLE001  # the dial has ended, and could not report it any more
            self.crash(bug)

    def _on_established(self, dial: Dial, channel: Channel) -> None:
        if dial not in self._ledger.dialing:
            channel.close()
            return
        self._pool.opened += 1
        connection = Http1Connection(channel, self._pool.key, self._dispatcher, self, self._settings.connection)
        lessee = self._ledger.settle(dial, connection)
        if lessee is not None:
            self._grant(connection, lessee)
        else:
            self._rest(connection)
        self._dial_if_due()  # the host answers: those who were held back after a failure go on

    def _on_establish_failed(self, dial: Dial, error: Exception) -> None:
        if dial not in self._ledger.dialing:
            return
        self._quota.give(self._pool.key)
        self._tell_room_changed()
        counts = self._pool.counts()
        for lessee in self._ledger.fail(dial):
            own = error.again() if isinstance(error, TurboPoolError) else error
            if isinstance(own, TurboPoolError):
                own.facts.update(waiting=counts["waiting"], leased=counts["leased"])
            lessee.refused(own)
        self._after_loss()

    def _on_warm_up(self, message: WarmUp) -> None:
        if self._draining:
            return
        while self._ledger.connections < min(message.connections, self._ledger.limit) and self._quota.take(message.key):
            self._ledger.dial(self._dial(message.timeout))

    # -- leaving the queue -----------------------------------------------------------------------------------

    def _on_abandon(self, lessee: Exchange) -> None:
        self._pool.cancelled += 1
        if not self._ledger.withdraw(lessee) and lessee.connection is not None:
            lessee.connection.abort()
        self._end_if_empty()

    def _on_abandon_all(self, owner: object) -> None:
        ledger = self._ledger
        for lessee in [*ledger.returned, *ledger.waiting, *ledger.leased.values()]:
            if lessee.owner is owner and lessee.completion.cancel_now():
                self._on_abandon(lessee)

    def _on_expire_waiters(self) -> None:
        now, counts = self._dispatcher.now, self._pool.counts()
        for lessee in self._ledger.expire(now):
            lessee.expired(round(now - lessee.asked_at, 3), counts)
        self._expiry.arm(self._ledger.next_expiry())
        self._end_if_empty()

    def _refuse_full(self, lessee: Exchange) -> None:
        msg = "too many requests wait for a connection"
        counts: dict[str, Any] = self._pool.counts()  # Any: they are facts among named fields
        lessee.refused(PoolFull(
            msg, origin=self._pool.key.origin, phase="queue", may_retry=True, option="max_pending_requests",
            max_pending_requests=self._settings.max_pending,
            advice="send less at once, allow more connections, or raise max_pending_requests", **counts,
        ))  # fmt: skip

    # -- eviction and the end --------------------------------------------------------------------------------

    def _on_evict_idle(self) -> None:
        now = self._dispatcher.now
        for connection in [one for one in self._ledger.idle if now >= one.idle_until]:
            self._drop(connection)
        self._eviction.arm(min((one.idle_until for one in self._ledger.idle), default=NEVER))
        self._after_loss()

    def _on_evict_one(self, connection: Http1Connection) -> None:
        if connection in self._ledger.idle:
            self._drop(connection)
            self._after_loss()
        else:  # it has been lent in the meantime: another may make the room
            self._quota.roused(connection)
            self._tell_room_changed()

    def _on_drain(self, queued: Literal["finish", "fail"]) -> None:
        self._draining = True
        for connection in list(self._ledger.idle):
            self._drop(connection)
        for connection in self._ledger.leased:
            connection.drain()
        if queued == "fail":
            self._fail_queue("the client was disposed while the request waited in the queue")
        if not self._ledger.queued:
            for dial in list(self._ledger.dialing):
                self._cancel_dial(dial)
        self._end_if_empty()

    def _on_halt(self) -> None:
        self._halt()
        self._end_if_empty()

    def _halt(self) -> None:
        self._draining = True
        self._fail_queue("the client was disposed while the request waited in the queue")
        for dial in list(self._ledger.dialing):
            self._cancel_dial(dial)
        for connection, lessee in list(self._ledger.leased.items()):
            msg = "the client was disposed while the request was under way"
            connection.kill(self._disposed(msg, sent=lessee.sent > 0))
            self._drop(connection)
        for connection in list(self._ledger.idle):
            self._drop(connection)

    def _fail_queue(self, message: str) -> None:
        for lessee in self._ledger.empty_queue():
            lessee.refused(self._disposed(message))

    def _cancel_dial(self, dial: Dial) -> None:
        dial.cancel()
        if self._ledger.dialing.pop(dial, self) is not self:
            self._quota.give(self._pool.key)
            self._tell_room_changed()

    def _disposed(self, message: str, *, sent: bool = False) -> ClientDisposed:
        return ClientDisposed(
            message, origin=self._pool.key.origin, request_sent=sent, processed="maybe" if sent else "no",
            may_retry=not sent, advice="make a new client",
        )  # fmt: skip

    def _end_if_empty(self) -> None:
        """Stop when drained; otherwise think of retiring when there is nothing left."""
        if self._draining and self._ledger.dialing and not self._ledger.queued:
            for dial in list(self._ledger.dialing):
                self._cancel_dial(dial)
        if self._ledger.connections or self._ledger.queued:
            return
        if self._draining:
            self._close_timers()
            self._tell_supervisor(ManagerDrained(self._pool.key))
            self.stop()
        else:
            self._retirement.arm(self._dispatcher.now + self._settings.retire_after)

    def _retire(self) -> None:
        if not self._ledger.connections and not self._ledger.queued:
            self._tell_supervisor(ManagerIdled(self._pool.key))
            self._retirement.arm(self._dispatcher.now + self._settings.retire_after)  # it may say no

    def on_stop(self) -> None:
        """Leave nothing behind, whoever stopped this actor: a foreign ``stop_all`` comes here as well."""
        if not self._draining:  # retired: what came just before the order to stop goes the way of what comes after it
            for lessee in self._ledger.empty_queue():
                self._forward(Lease(lessee))
        self._halt()
        self._close_timers()

    def on_crash(self, error: BaseException) -> None:
        """Leave the books to the supervisor, which hands them to a replacement."""
        self._close_timers()
        self._tell_supervisor(ManagerCrashed(self._pool.key, error))

    def undelivered(self, message: object) -> None:
        """Send a late lease the way of all new ones; everything else is of the past."""
        match message:
            case Lease():
                self._forward(message)
            case _:
                return

    def _forward(self, message: Lease) -> None:
        if not tell(self._supervisor, message):
            message.lessee.refused(self._disposed("the client was disposed before the request began"))

    def _tell_supervisor(self, message: SupervisorMessage) -> None:
        tell(self._supervisor, message)  # if it stopped first, there is nobody to tell

    def _tell_room_changed(self) -> None:
        """Tell those in line that something closed or went idle, unless it was for this key alone."""
        if self._quota.wanted_since == NEVER:
            return
        if not self._ledger.wants_dial:
            self._quota.forget(self._pool.key)
        if self._quota.wanted_since != NEVER:
            self._report(RoomChanged())

    def _report(self, change: RoomWanted | RoomChanged) -> None:
        """Have the supervisor look at who wants room: once for all that changed, or the messages would multiply."""
        if not self._quota.is_reported:
            self._quota.is_reported = True
            self._tell_supervisor(change)

    def _close_timers(self) -> None:
        for timer in (self._eviction, self._expiry, self._retirement):
            timer.close()
