"""The manager of one key's TCP connections: it answers leases, takes releases, dials, reconnects, evicts, drains.

It decides and never blocks. Who holds what stands in its ledger, when it may dial in the key's recovery, and whether
there is room in the quota; the connections themselves run on the same thread and call
:meth:`TcpConnectionManagerActor.on_released` directly, without a message.
"""

from __future__ import annotations

from typing import Any, Literal, assert_never

import pykka

from turbopool.actors import refusals
from turbopool.actors.base import DispatchedActor, leave, tell
from turbopool.actors.claims import Claims
from turbopool.actors.dialing import Dialing
from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.ledger import Ledger
from turbopool.actors.messages import (
    Abandon,
    AbandonAll,
    Adopt,
    BackUp,
    Drain,
    Established,
    EstablishFailed,
    EvictIdle,
    EvictOne,
    ExpireWaiters,
    Halt,
    Joined,
    Lease,
    ManagerCrashed,
    ManagerDrained,
    ManagerIdled,
    ManagerMessage,
    Reconnect,
    Release,
    RoomMade,
    Shelved,
    SupervisorMessage,
    TakeOver,
    WarmUp,
)
from turbopool.actors.pool import Pool
from turbopool.actors.quota import Quota
from turbopool.actors.recovery import FAILING, OPEN
from turbopool.actors.room import Room
from turbopool.errors import TurboPoolError
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange
from turbopool.transport.interfaces import Channel, Dialer
from turbopool.transport.landlord import Lendable
from turbopool.transport.replay import ReplayBudget

ARRIVALS = 256
"""How many who joined the demand are taken in at once, before descriptors get their turn."""


class TcpConnectionManagerActor(DispatchedActor):
    """Owns the connections of one key; as it stands, HTTP/1 connections, each lent whole.

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
        self._recovery = pool.recovery
        self._settings = pool.settings
        self._supervisor = supervisor
        self._room = Room(quota, pool, dispatcher, self._tell_supervisor)
        self._dialing = Dialing(self, pool, dispatcher, dialer, self._room)
        self._claims = Claims(pool, dispatcher, self._drop)
        pool.quota = quota
        pool.is_shared = dispatcher.can_share
        pool.is_draining = False
        self._arriving: Exchange | None = None
        self._ending: refusals.Ending = refusals.stopped
        """What those are told whom its end meets; as long as nobody ordered it, it would come from outside."""
        self._crash: BaseException | None = None
        self._budget = ReplayBudget(dispatcher.now)
        self._eviction = dispatcher.timer(lambda: self.on_receive(EvictIdle()), self.crash)
        self._expiry = dispatcher.timer(lambda: self.on_receive(ExpireWaiters()), self.crash)
        self._retirement = dispatcher.timer(self._retire, self.crash)

    def on_start(self) -> None:
        """Think of retiring from the first: the request that made this manager may come to nothing."""
        self._end_if_empty()
        if self._pool.orphans:
            self._look_at(self._dispatcher.now)

    def on_receive(self, message: ManagerMessage) -> None:  # noqa: C901, PLR0912, PLR0915  # a line a message
        """Handle one message."""
        match message:
            case Joined():
                self._on_joined()
            case Lease():
                self._on_lease(message.lessee)
                self._serve_shelf()
            case Shelved():
                self._on_shelved()
            case BackUp():
                message.connection.back_up(message.lessee)
            case TakeOver():
                self._claims.take_over(message.connection, message.lessee)
            case Release():
                self._on_release(message)
            case Abandon():
                self._on_abandon(message.lessee)
            case AbandonAll():
                self._on_abandon_all(message.owner)
            case EvictIdle():
                self._on_evict_idle(everything=message.everything)
            case ExpireWaiters():
                self._on_expire_waiters()
            case EvictOne():
                self._on_evict_one(message.connection)
            case Established():
                self._dialing.established(message.dial, message.channel)
            case Adopt():
                self._on_adopt(message)
            case EstablishFailed():
                self._dialing.failed(message.dial, message.error)
            case Reconnect():
                self._dialing.reconnect(probing=not self._pool.is_draining)
            case RoomMade():
                self._dialing.begin()
                self._room.changed()  # used or not, it is the next key's turn
            case WarmUp():
                if not self._pool.is_draining:
                    self._dialing.warm_up(message.connections, message.timeout)
            case Drain():
                self._on_drain(message.queued)
            case Halt():
                self._on_halt()
            case _:
                assert_never(message)

    # -- lease and release -----------------------------------------------------------------------------------

    def _on_joined(self) -> None:
        """Take in those who joined the demand, then look at the shelf again: somebody may have put back meanwhile."""
        ledger, early = self._ledger, self._pool.early
        count = ledger.hear()
        while early and (early[0].tally is not None or early[0].done):
            early.popleft()
        most = 0 if early else min(count, ARRIVALS)  # early ones come by another way, and asked before these
        for lessee in ledger.arrivals(most):
            self._arriving = lessee
            self._on_lease(lessee)
        self._arriving = None
        if most < count:
            ledger.is_told = True
            tell(self.actor_ref, Joined())
        if ledger.queued and self._pool.has_launched:  # their connections are wanted
            self._claims.land_all()
        self._serve_shelf()

    def _on_lease(self, lessee: Exchange) -> None:
        ledger, now = self._ledger, self._dispatcher.now
        if lessee.done:
            return
        lessee.tally = self._pool
        if self._pool.is_draining:
            lessee.refused(self._ending(self._pool.key.origin))
            return
        if lessee.deadline <= now:
            lessee.expired(round(now - lessee.asked_at, 3), self._pool.counts(), self._recovery.cause)
            return
        if not lessee.needs_fresh and self._grant_idle(lessee):
            return
        if self._dialing.is_hopeless:
            self._dialing.refuse(lessee)
            return
        if ledger.queued >= self._settings.max_pending + ledger.opening:
            lessee.refused(refusals.queue_full(self._pool))
            return
        if lessee.needs_fresh:  # a crashed predecessor's
            ledger.take_back(lessee)
        else:
            ledger.enqueue(lessee)
        self._dialing.begin(lessee)
        self._expiry.arm(min(self._expiry.due, lessee.queue_deadline))

    def _grant_idle(self, lessee: Exchange) -> bool:
        """Lend the newest idle connection that is fit for use, if there is one, closing those that are not."""
        ledger, now = self._ledger, self._dispatcher.now
        assert isinstance(ledger, Ledger)  # noqa: S101  # that of whole connections
        while (connection := ledger.lease(lessee)) is not None:
            self._room.roused(connection)
            if connection.is_usable(now, careful=lessee.replays > 0 or not lessee.wire.idempotent):
                self._grant(connection, lessee)
                return True
            self._drop(connection)
        return False

    def _on_release(self, message: Release) -> None:
        connection = message.connection
        lessee, reusable = message.lessee, message.reusable
        if (
            isinstance(connection, ClaimableConnection)
            and connection.claimed
            and not self._claims.hand_in(connection, lessee, reusable=reusable)
        ):
            return
        self.on_released(connection, lessee, reusable=reusable)

    def _on_shelved(self) -> None:
        """Look at what callers have put back."""
        self._serve_shelf()
        if self._pool.is_draining:
            self._drop_idle()
            self.on_vacancy()
            return
        for connection in list(self._ledger.idle):
            self._look_at(connection.idle_until)
            self._room.rested(connection)

    def _serve_shelf(self) -> None:
        """Hand idle connections to those who wait."""
        ledger, now = self._ledger, self._dispatcher.now
        while ledger.idle and ledger.queued and isinstance(ledger, Ledger):
            connection = ledger.grab()
            following = None if connection is None else ledger.hand_on(connection)
            if connection is None or following is None:
                break  # claimed in the meantime, or those who are left need a fresh one
            self._room.roused(connection)
            if connection.is_usable(now, careful=following.replays > 0 or not following.wire.idempotent):
                self._grant(connection, following)
            else:
                ledger.take_back(following)
                self._drop(connection)
                self._dialing.begin()

    def on_released(self, connection: Lendable, lessee: Exchange, *, reusable: bool) -> None:
        """Take a connection back, and hand it on. Called by the connection."""
        ledger, now = self._ledger, self._dispatcher.now
        if not ledger.has_lent(connection, lessee):
            return
        is_news = self._note_answer(connection)
        if not reusable or self._must_close(connection, now):
            self._drop(connection)
            self.on_vacancy()
            return
        following = ledger.release(connection, lessee)
        if following is None:
            self._rest(connection)
        elif following.wire.idempotent or connection.is_quiet():
            self._grant(connection, following)
        else:
            ledger.take_back(following)
            self._drop(connection)
            self.on_vacancy()
        if is_news:  # others may have been held back until the server answers
            self._dialing.begin()

    def _note_answer(self, connection: Lendable) -> bool:
        """Tell the recovery of an answer, if it is one that it waits for; return whether it was."""
        recovery = self._recovery
        is_first = bool(recovery.unproven) and connection in recovery.unproven
        is_news = (is_first or recovery.state is not OPEN) and connection.has_answered
        if is_news:
            recovery.answered(connection)
        return is_news

    def on_answered(self, connection: Lendable) -> None:
        """Learn of the head of a streamed response, whose end may be far away. Called by the connection."""
        self._recovery.answered(connection)
        self._dialing.begin()

    def on_broken(self, connection: Lendable, error: Exception) -> None:
        """Learn that a request's connection died before an answer; it is released next. Called by the connection."""
        self._recovery.broke(connection, error, self._dispatcher.now)

    @property
    def has_answered(self) -> bool:
        """Whether this key ever answered. Asked by the connection."""
        return self._recovery.has_answered

    def on_lost(self, connection: Lendable, error: Exception | None) -> None:
        """Strike out an idle connection that its peer closed. Called by the connection."""
        del error
        self._drop(connection)
        self.on_vacancy()

    def on_returned(self, connection: Lendable, lessee: Exchange, error: TurboPoolError) -> None:
        """Send a request again, or fail it if the budget for that is spent. Called by the connection."""
        self._drop(connection)
        if not self._may_return(lessee):
            lessee.fail(error)
            self.on_vacancy()
            return
        if lessee.needs_fresh or not self._grant_idle(lessee):
            self._ledger.take_back(lessee)
            self._expiry.arm(min(self._expiry.due, lessee.queue_deadline))
        self._dialing.begin(lessee)

    def _may_return(self, lessee: Exchange) -> bool:
        """Count a replay, if the server can be reached and the budget for those that may do harm allows it."""
        if self._recovery.state is FAILING and not self._ledger.is_live:
            return False
        is_risky = lessee.needs_fresh and lessee.resent  # a misdirected one needs a fresh connection, and is none
        if is_risky and not self._budget.spend(self._dispatcher.now, self._pool.requests + self._pool.by_callers()[0]):
            return False
        lessee.returned(self._dispatcher.now)
        self._pool.replays += 1
        return True

    def on_bug(self, error: BaseException) -> None:
        """Crash: code of ours raised what it should not. Called by the connection."""
        self.crash(error)

    def _grant(self, connection: Lendable, lessee: Exchange) -> None:
        self._pool.requests += 1
        if self._pool.is_draining:
            connection.drain()
        lessee.granted(connection)

    def _must_close(self, connection: Lendable, now: float) -> bool:
        """Whether a connection is not to be handed on: too old, or another key waits longer for its room."""
        if connection.is_closed or now >= connection.expires_at:
            return True
        return self._room.is_owed_by(next(iter(self._ledger.waiting), None))

    def _rest(self, connection: Lendable) -> None:
        now = self._dispatcher.now
        connection.rest(now)
        if self._pool.is_draining or connection.idle_until <= now:
            self._drop(connection)
            self.on_vacancy()
            return
        self._look_at(connection.idle_until)
        self._room.rested(connection)

    def _look_at(self, when: float) -> None:
        """Look at what is idle then, if not before."""
        if when < self._eviction.due:
            self._eviction.arm(when)
            self._pool.looks_at = when

    def on_stirred(self, connection: Lendable) -> bool:
        """Claim an idle connection, which has something to read. Called by the connection."""
        return self._ledger.take(connection)

    def on_calmed(self, connection: Lendable) -> None:
        """Make it idle again. Called by the connection."""
        self._ledger.idle[connection] = None
        self._serve_shelf()

    def _drop(self, connection: Lendable) -> None:
        """Close a connection and strike it out everywhere."""
        connection.close()
        self._ledger.discard(connection)
        self._recovery.gone(connection)
        self._pool.count_out(connection)
        self._room.roused(connection)
        self._room.give()

    def connect(self, channel: Channel) -> Lendable | None:
        """Make a connection of what was dialed. Called by the dialing part."""
        settings = self._settings.connection
        return ClaimableConnection(channel, self._pool.key, self._dispatcher, self, settings)

    def _on_adopt(self, message: Adopt) -> None:
        """Go on with requests, and the connection, that another version's manager had to give up."""
        channel = message.channel
        for lessee in message.lessees:
            if lessee.done:
                continue
            lessee.tally = self._pool
            if not self._grant_idle(lessee):
                self._ledger.enqueue(lessee)
                self._expiry.arm(min(self._expiry.due, lessee.queue_deadline))
        if channel is not None and (self._ledger.is_full or not self._room.take()):
            channel.close()
            channel = None
        if channel is not None:
            self._dialing.adopt(channel)
        self.on_vacancy()

    def on_connected(self, connection: Lendable, lessee: Exchange | None) -> None:
        """Take a new connection. Called by the dialing part, as the next one is."""
        if lessee is not None:
            self._grant(connection, lessee)
        else:
            self._rest(connection)

    def on_vacancy(self) -> None:
        """There is room again: use it, give up, or think of retiring."""
        self._dialing.begin()
        self._dialing.give_up_if_lost()
        self._end_if_empty()

    # -- leaving the queue -----------------------------------------------------------------------------------

    def _on_abandon(self, lessee: Exchange) -> None:
        if lessee.key != self._pool.key:  # it went on over another version
            tell(self._supervisor, Abandon(lessee))
            return
        self._pool.cancelled += 1
        self._claims.land(lessee)
        if not self._ledger.withdraw(lessee) and lessee.connection is not None:
            lessee.connection.abort()
        self._end_if_empty()

    def _on_abandon_all(self, owner: object) -> None:
        ledger = self._ledger
        self._claims.land_all()
        carried = [lessee for one in ledger.claimed() if (lessee := one.exchange) is not None]
        for lessee in [*ledger.returned, *ledger.waiting, *ledger.demand.copy(), *ledger.lessees(), *carried]:
            if lessee.owner is owner and lessee.completion.cancel_now():
                self._on_abandon(lessee)

    def _on_expire_waiters(self) -> None:
        now, counts = self._dispatcher.now, self._pool.counts()
        for lessee in self._ledger.expire(now):
            lessee.expired(round(now - lessee.asked_at, 3), counts, self._recovery.cause)
        self._expiry.arm(self._ledger.next_expiry())
        self._end_if_empty()

    # -- eviction and the end --------------------------------------------------------------------------------

    def _on_evict_idle(self, *, everything: bool) -> None:
        now, ledger = self._dispatcher.now, self._ledger
        expired = [one for one in list(ledger.idle) if everything or now >= one.idle_until]
        spare = 0 if everything else max(0, self._settings.min_idle - (ledger.connections - len(expired)))
        first_spare = len(expired) - spare
        for at, connection in enumerate(expired):  # those that went idle last stay
            if not ledger.take(connection):
                continue
            if at < first_spare or not connection.stay(now):
                self._drop(connection)
            else:
                ledger.idle[connection] = None
        self._claims.patrol(now)
        due = min([self._claims.next_patrol(now), *(one.idle_until for one in list(ledger.idle))])
        self._eviction.arm(due)
        self._pool.looks_at = due
        self._on_joined()  # whoever was to tell of that may have been killed
        self.on_vacancy()

    def _on_evict_one(self, connection: Lendable) -> None:
        if self._ledger.take(connection):
            self._drop(connection)
            self.on_vacancy()
        else:  # it has been lent in the meantime: another may make the room
            self._room.roused(connection)
            self._room.changed()

    def _on_drain(self, queued: Literal["finish", "fail"]) -> None:
        self._pool.is_draining = True
        self._ending = refusals.disposed
        self._serve_shelf()  # word of what was put back may be under way
        self._drop_idle()
        self._claims.land_all()
        for connection in self._ledger.carriers():
            connection.drain()
        if queued == "fail":
            self._fail_queue()
        if not self._ledger.queued:
            self._dialing.cancel()
        self._end_if_empty()

    def _on_halt(self) -> None:
        self._ending = refusals.disposed
        self._halt()
        self._end_if_empty()

    def _halt(self) -> None:
        self._pool.is_draining = True
        self._fail_queue()
        self._dialing.cancel()
        self._claims.land_all()
        for connection in self._ledger.carriers():
            connection.kill(self._ended)
            self._drop(connection)
        self._drop_idle()
        if self._claims.revoke(self._ended):
            self._look_at(self._claims.next_patrol(self._dispatcher.now))

    def _ended(self, sent: bool) -> TurboPoolError:  # noqa: FBT001  # an Ending
        if self._crash is not None:
            return refusals.crashed(self._pool.key, self._crash, sent=sent)
        return self._ending(self._pool.key.origin, refusals.UNDER_WAY, sent=sent)

    def _drop_idle(self) -> None:
        while (connection := self._ledger.grab()) is not None:
            self._drop(connection)

    def _fail_queue(self) -> None:
        for lessee in self._ledger.empty_queue():
            lessee.refused(self._ending(self._pool.key.origin, refusals.QUEUED))

    def _end_if_empty(self) -> None:
        """Stop when drained; otherwise think of retiring when there is nothing left."""
        if self._pool.is_draining and self._ledger.dialing and not self._ledger.queued:
            self._dialing.cancel()
        if self._ledger.connections or self._ledger.is_wanted:
            return
        if self._pool.is_draining:
            self._close_timers()
            self._tell_supervisor(ManagerDrained(self._pool.key))
            self.stop()
        else:
            self._retirement.arm(self._dispatcher.now + self._settings.retire_after)

    def _retire(self) -> None:
        if not self._ledger.connections and not self._ledger.is_wanted:
            self._tell_supervisor(ManagerIdled(self._pool.key))
            self._retirement.arm(self._dispatcher.now + self._settings.retire_after)  # it may say no

    def on_stop(self) -> None:
        """Leave nothing behind, whoever stopped this actor: a foreign ``stop_all`` comes here as well."""
        if not self._pool.is_draining:  # what came just before the order to stop goes the way of what comes after it
            for lessee in self._ledger.empty_queue():
                leave(self._supervisor, Lease(lessee))
        self._halt()
        self._room.changed()  # or it would stand in line for ever, and others behind it
        self._close_timers()

    def on_crash(self, error: BaseException) -> None:
        """Leave the books to the supervisor, which hands them to a replacement; nobody claims of them any more."""
        self._crash = error
        self._pool.is_shared = False
        self._close_timers()
        self._tell_supervisor(ManagerCrashed(self._pool.key, error))

    def dropped(self, message: object, error: BaseException) -> None:
        """Fail the request whose lease was fatal, unless it stands in the books, which a replacement takes over."""
        lessee = message.lessee if isinstance(message, Lease) else self._arriving
        if isinstance(message, Lease | Joined) and lessee is not None and not self._ledger.holds(lessee):
            lessee.refused(refusals.crashed(self._pool.key, error, sent=False))

    def undelivered(self, message: object) -> None:
        """Send what came too late the way of all new requests; everything else is of the past."""
        match message:
            case Lease() | Abandon():
                leave(self._supervisor, message)  # which knows what to answer, even if it has stopped as well
            case Joined():
                for lessee in self._ledger.drain():
                    leave(self._supervisor, Lease(lessee))
            case Shelved():
                while (connection := self._ledger.grab()) is not None:
                    self._claims.scrap(connection)
            case TakeOver() | Release():
                self._claims.scrap(message.connection, None if isinstance(message, TakeOver) else message.lessee)
            case _:
                return

    def _tell_supervisor(self, message: SupervisorMessage) -> None:
        tell(self._supervisor, message)  # if it stopped first, there is nobody to tell

    def _close_timers(self) -> None:
        for timer in (self._eviction, self._expiry, self._dialing, self._retirement):
            timer.close()
