"""The supervisor of one runtime: it starts, watches, replaces and retires the managers, and stops them in order.

It publishes its pools in a dict that callers read without a message; only this actor changes it. A key's first
request comes here, makes the manager, and is handed on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import pykka

from turbopool.actors import refusals
from turbopool.actors.base import DispatchedActor, hand, stop, tell
from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.http2_manager import Http2ConnectionManagerActor
from turbopool.actors.messages import (
    Abandon,
    AbandonAll,
    Acknowledge,
    Adopt,
    Confirmed,
    Dispose,
    Drain,
    EvictIdle,
    EvictOne,
    Halt,
    Lease,
    Lowered,
    ManagerCrashed,
    ManagerDrained,
    ManagerIdled,
    ManagerMessage,
    Reclaim,
    Reclaimed,
    RoomChanged,
    RoomMade,
    RoomWanted,
    SupervisorMessage,
    WarmUp,
)
from turbopool.actors.pool import Pool
from turbopool.actors.quota import Quota
from turbopool.actors.restart import RestartBudget
from turbopool.actors.spoken import Spoken
from turbopool.actors.tcp_manager import TcpConnectionManagerActor
from turbopool.stats import PoolKey
from turbopool.transport.interfaces import Dialer


class SupervisorActor(DispatchedActor):
    """Owns the managers of one runtime.

    Args:
        dispatcher: whose thread it and its managers run on.
        dialer, quota: shared by the managers.
        spoken: what is learned of the servers' versions.
        new_pool: what there is to be of a key.
        pools: published: callers read it, this actor alone changes it.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        dialer: Dialer,
        quota: Quota,
        spoken: Spoken,
        new_pool: Callable[[PoolKey], Pool],
        pools: dict[PoolKey, Pool],
    ) -> None:
        super().__init__(dispatcher)
        self._dialer = dialer
        self._quota = quota
        self._spoken = spoken
        self._new_pool = new_pool
        self._pools = pools
        self._restarts: dict[PoolKey, RestartBudget] = {}
        self._disposals: list[Dispose] = []
        self._deadline = dispatcher.timer(self._on_deadline, self.crash)

    def on_receive(self, message: SupervisorMessage) -> None:  # noqa: C901, PLR0912  # a line a message
        """Handle one message."""
        match message:
            case Lease():
                self._on_lease(message)
            case Abandon():
                self._on_abandon(message)
            case AbandonAll():
                self._tell_all(message)
                done = message.done
                self.actor_ref.tell(
                    Acknowledge(done) if message.is_last else AbandonAll(message.owner, done, is_last=True)
                )
            case Acknowledge():
                message.done.set()
            case WarmUp():
                if not self._disposals:
                    self._tell(self._open(message.key), message)
            case ManagerIdled():
                self._on_manager_idled(message.key)
            case ManagerDrained():
                self._on_manager_drained(message.key)
            case ManagerCrashed():
                self._on_manager_crashed(message.key, message.error)
            case RoomWanted() | RoomChanged():
                self._quota.is_reported = False
                self._make_room()
            case Lowered():
                self._on_lowered(message)
            case Confirmed():
                self._spoken.found_speaking(message.key)
            case Reclaim():
                self._tell_all(EvictIdle(everything=True))
                self.actor_ref.tell(Reclaimed(message.go_on))
            case Reclaimed():
                message.go_on()
            case Dispose():
                self._on_dispose(message)
            case _:
                assert_never(message)

    # -- pools -----------------------------------------------------------------------------------------------

    def _on_lease(self, message: Lease) -> None:
        lessee = message.lessee
        if self._disposals:
            self._refuse(message)
            return
        try:
            pool = self._open(lessee.key)
        except BaseException as error:  # noqa: BLE001  # a bug in the making of a manager harms no other key
            lessee.refused(refusals.crashed(lessee.key, error, sent=False))
            return
        if pool.crash is not None:
            lessee.refused(refusals.crashed(pool.key, pool.crash, sent=False))
        elif not hand(pool.ref, message):
            self._refuse(message)

    def _on_abandon(self, message: Abandon) -> None:
        pool = self._pools.get(message.lessee.key)
        if pool is not None:
            self._tell(pool, message)

    def _open(self, key: PoolKey) -> Pool:
        """Return the pool of a key, making it and its manager if need be; it is dead only if it may not be replaced."""
        pool = self._pools.get(key)
        if pool is None:
            pool = self._new_pool(key)
            self._start(pool)
            self._pools[key] = pool
        elif pool.crash is not None:
            self._replace(pool, pool.crash)
        elif not pool.ref.is_alive():  # news of its crash are under way, or stop_all() stopped it
            self._on_manager_crashed(key, pykka.ActorDeadError("the manager was found dead"))
        return pool

    def _start(self, pool: Pool) -> None:
        kind = Http2ConnectionManagerActor if pool.key.version == "2" else TcpConnectionManagerActor
        pool.ref = kind.start(pool, self._dispatcher, self._dialer, self._quota, self.actor_ref)

    def _on_lowered(self, message: Lowered) -> None:
        """Give what one version's manager cannot carry to another's, in one step, and remember that of the server."""
        self._spoken.found_lacking(message.key, self._dispatcher.now)
        pool = self._open(message.key._replace(version=message.version))
        if pool.crash is not None or not hand(pool.ref, Adopt(message.lessees, message.channel)):
            self._refuse_lowered(message)
        elif self._disposals:  # it was told when this manager did not exist
            self._tell(pool, Drain("finish"))

    def _refuse_lowered(self, message: Lowered) -> None:
        if message.channel is not None:
            message.channel.close()
        for lessee in message.lessees:
            self._refuse(Lease(lessee))

    def _replace(self, pool: Pool, error: BaseException) -> bool:
        """Start a manager anew, unless that was done too often of late."""
        if not self._restarts.setdefault(pool.key, RestartBudget()).spend(self._dispatcher.now):
            pool.crash = error
            return False
        try:
            self._start(pool)
        except BaseException as failure:  # noqa: BLE001  # it cannot even be made
            pool.crash = failure
            return False
        pool.crash = None
        return True

    def _on_manager_idled(self, key: PoolKey) -> None:
        """Retire a manager, unless work has come in the meantime; what comes later is sent here again."""
        pool = self._pools.get(key)
        if pool is None or not pool.ref.is_alive():
            return
        if pool.ref.actor_inbox.empty() and not pool.ledger.connections and not pool.ledger.is_wanted:
            del self._pools[key]
            self._restarts.pop(key, None)
            self._quota.forget(key)
            pool.ref.stop(block=False)

    def _on_manager_crashed(self, key: PoolKey, error: BaseException) -> None:
        """Replace a manager: what it had in flight fails, what waited goes to the replacement, in order."""
        pool = self._pools.get(key)
        if pool is None or pool.ref.is_alive() or pool.crash is not None:  # it has been dealt with already
            return
        for connection in list(pool.ledger.idle):
            self._quota.roused(connection)
        waiting = pool.bury(lambda sent: refusals.crashed(key, error, sent=sent))
        self._quota.reset(key)
        if self._disposals:
            del self._pools[key]
        if not self._disposals and self._replace(pool, error):
            for lessee in waiting:
                if not hand(pool.ref, Lease(lessee)):  # it crashed again: on to its replacement
                    self.actor_ref.tell(Lease(lessee))
        else:
            for lessee in waiting:
                lessee.refused(refusals.crashed(key, error, sent=False))
        self._make_room()
        self._end_if_empty()

    # -- room ------------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        """Tell the keys in line that there is room, and close what has been idle longest for the next one."""
        served = self._quota.served()
        for key in served:
            if key in self._pools:
                self._tell(self._pools[key], RoomMade())
        victim = None if served else self._quota.victim()  # those served bring us here again
        if victim is not None:
            connection, key = victim
            if key in self._pools:
                self._tell(self._pools[key], EvictOne(connection))  # type: ignore[arg-type]  # nothing else rests

    # -- disposal --------------------------------------------------------------------------------------------

    def _on_dispose(self, message: Dispose) -> None:
        self._disposals.append(message)  # a later one may be in more of a hurry
        self._deadline.arm(min(self._deadline.due, message.deadline))  # first: the next line may be the end
        self._tell_all(Drain(message.queued))
        self._end_if_empty()

    def _on_deadline(self) -> None:
        self._tell_all(Halt())

    def _on_manager_drained(self, key: PoolKey) -> None:
        self._pools.pop(key, None)
        self._quota.forget(key)
        self._make_room()
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self._disposals and not self._pools:
            self._deadline.close()
            self.stop()

    def on_stop(self) -> None:
        """Tell whoever waits for the disposal, and stop the managers, as a foreign ``stop_all`` did or is about to do.

        They do not wait for what callers' threads have claimed: their dispatcher may be stopped at any moment now.
        """
        self._deadline.close()
        for pool in self._pools.values():
            if not stop(pool.ref):
                for lessee in pool.bury(lambda sent, key=pool.key: refusals.stopped(key.origin, sent=sent)):  # type: ignore[misc]
                    lessee.refused(refusals.stopped(lessee.origin))
        self._pools.clear()  # callers must not find managers that end
        for disposal in self._disposals:
            disposal.done.set()

    def on_crash(self, error: BaseException) -> None:
        """Stop everything: the client makes a new supervisor."""
        del error
        self.on_stop()

    def dropped(self, message: object, error: BaseException) -> None:
        """Fail the request whose lease was fatal."""
        if isinstance(message, Lease):
            lessee = message.lessee
            lessee.refused(refusals.crashed(lessee.key, error, sent=lessee.was_sent))

    def undelivered(self, message: object) -> None:
        """Answer what came too late."""
        match message:
            case Lease():
                self._refuse(message)
            case Dispose() | Acknowledge() | AbandonAll():
                message.done.set()
            case Reclaim() | Reclaimed():
                message.go_on()
            case Lowered():
                self._refuse_lowered(message)
            case _:
                return

    # -- telling ---------------------------------------------------------------------------------------------

    def _tell(self, pool: Pool, message: ManagerMessage) -> None:
        if not tell(pool.ref, message) and isinstance(message, Lease):
            self._refuse(message)

    def _tell_all(self, message: ManagerMessage) -> None:
        for pool in list(self._pools.values()):
            if pool.crash is not None and self._disposals:
                del self._pools[pool.key]
            elif not pool.ref.is_alive():  # it is replaced, so that nobody misses the message
                self._on_manager_crashed(pool.key, pykka.ActorDeadError("the manager was found dead"))
            if pool.ref.is_alive():
                self._tell(pool, message)

    def _refuse(self, message: Lease) -> None:
        ending = refusals.disposed if self._disposals else refusals.stopped
        message.lessee.refused(ending(message.lessee.origin))


SupervisorRef = pykka.ActorRef[SupervisorActor]
