"""What the handles of one name share: a supervisor, its pools, and a place on the process's dispatcher.

Nothing is started before the first request. Every method may be called from any thread, but none from the
dispatcher's, where no caller's code ever runs.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Literal

from turbopool.actors import hub as hubs
from turbopool.actors import refusals, shelf
from turbopool.actors.base import bury, in_hand, tell, unread
from turbopool.actors.messages import Abandon, AbandonAll, Acknowledge, Dispose, Joined, Lease, Reclaim, WarmUp
from turbopool.actors.pool import Pool, PoolSettings
from turbopool.actors.quota import Quota
from turbopool.actors.spoken import Spoken
from turbopool.actors.supervisor import SupervisorActor, SupervisorRef
from turbopool.clock import NEVER
from turbopool.config import ClientOptions
from turbopool.config.timeouts import check_seconds
from turbopool.config.tls import TlsContext, context_for
from turbopool.errors import ClientDisposed, ManagerCrashed, PoolFull, ResourceError
from turbopool.stats import PoolKey, RuntimeStats
from turbopool.transport.dialer import Dialer
from turbopool.transport.exchange import Exchange
from turbopool.transport.head import Limits
from turbopool.transport.huddle import unhuddled
from turbopool.transport.landlord import ConnectionSettings
from turbopool.transport.workers import on_worker

_ALPN = {"1.0": (), "1.1": ("http/1.1",), "2": ("h2", "http/1.1")}
_PATIENCE = 5.0
"""Seconds to wait for a dispatcher that does not answer."""


class Runtime:
    """The actors of one or more handles.

    Args:
        options: of the client.
    """

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self.tls = options.tls()
        self._pools: dict[PoolKey, Pool] = {}
        self._spoken = Spoken()
        self._hub: hubs.Hub | None = None
        self._supervisor: SupervisorRef | None = None
        self._lock = threading.Lock()
        self._disposed = False
        self._released = threading.Event()
        hubs.forget_after_fork(self)

    @property
    def is_disposed(self) -> bool:
        """Whether new work is refused."""
        return self._disposed

    @property
    def is_released(self) -> bool:
        """Whether nothing of it is left."""
        return self._released.is_set() or (self._disposed and self._hub is None)

    def submit(self, exchange: Exchange) -> None:
        """Hand a request to its key's manager.

        Raises:
            ClientDisposed: no new work is taken.
        """
        self._admit(exchange)
        pool, hub = self._pools.get(exchange.key), self._hub
        if pool is None or hub is None or hub.is_lost(exchange.asked_at):
            unheard = [exchange]
        else:
            unheard = self._ask_manager(pool, exchange)
        for lessee in unheard:
            try:
                hub = self._tell_supervisor(Lease(lessee))
                if (published := self._pools.get(lessee.key)) is not None:
                    published.early.append(lessee)  # or what this thread sends next might overtake it
            except (ResourceError, ClientDisposed) as error:  # what happens after the preparation is the future's
                lessee.fail(error.with_(origin=lessee.origin))
        if hub is None:
            return
        if hub.dispatcher.has_ended:  # while it was told, and perhaps nobody was left to read the message
            is_over, sent = self.is_disposed, exchange.was_sent
            ended = RuntimeError("it has ended")
            exchange.fail(refusals.disposed(exchange.origin, sent=sent) if is_over else _lost(exchange, ended))

    def _admit(self, exchange: Exchange) -> None:
        """Refuse new work if there is to be none, and ask for no version that the server is known not to speak."""
        if self._disposed:
            raise self._refusal()
        if exchange.may_lower and self._spoken.lacks(exchange.key, exchange.asked_at):
            exchange.lower()

    def drive(self, exchange: Exchange) -> bool:
        """Run a request in the calling thread, if a connection is idle; return False if it is to be submitted.

        Raises:
            ClientDisposed: no new work is taken.
        """
        self._admit(exchange)
        pool = self._pools.get(exchange.key)
        if pool is None:
            return False
        exchange.tally = pool
        return shelf.drive(pool, exchange)

    def receive(self, exchange: Exchange, timeout: float | None) -> None:
        """Receive the response of a launched request in the calling thread, unless somebody does already."""
        shelf.receive(exchange, timeout)

    def engage(self, exchange: Exchange) -> None:
        """Have the dispatcher receive the response of a launched request, unless somebody does already."""
        shelf.land(exchange.raft)

    def check(self) -> None:
        """Look whether the dispatcher still works; if not, everything under way is failed. For whoever waits long."""
        hub = self._hub
        if hub is not None:
            hub.is_lost(hub.dispatcher.clock_now())

    def on_hub_lost(self, hub: hubs.Hub, error: BaseException) -> None:
        """Fail what was under way; the next request starts anew. Called by whichever thread learned it first."""
        with self._lock:
            if self._hub is hub:
                self._let_go(error)

    def abandon(self, exchange: Exchange) -> None:
        """Take a request back that its caller wants no more."""
        pool = self._pools.get(exchange.key)
        ref = self._supervisor if pool is None else pool.ref
        if ref is not None:
            tell(ref, Abandon(exchange))  # whoever stopped a dead one ended all its requests

    def abandon_all(self, owner: object) -> None:
        """Cancel all requests of a handle, and return when that is done."""
        hub, supervisor = self._hub, self._supervisor
        if hub is None or supervisor is None:
            return
        done = threading.Event()
        if tell(supervisor, AbandonAll(owner, done)) and not hub.dispatcher.is_current:
            done.wait(_PATIENCE)

    def run_callback(self, task: Callable[[], None]) -> None:
        """Run a caller's code on a worker thread."""
        hub = self._hub
        if hub is None:  # let go a moment ago, and its thread still refuses what came too late
            threading.Thread(target=unhuddled(task), name="turbopool-callback", daemon=True).start()
        else:
            hub.callbacks.submit(task)

    def warm_up(self, key: PoolKey, connections: int, timeout: float | None) -> None:
        """Open connections ahead of requests.

        Raises:
            ClientDisposed: no new work is taken.
            ResourceError: the dispatcher could not be started.
        """
        if self._disposed:
            raise self._refusal()
        self._tell_supervisor(WarmUp(key, connections, timeout))

    def stats(self) -> RuntimeStats:
        """Return a snapshot of all pools."""
        return RuntimeStats({key: pool.snapshot() for key, pool in list(self._pools.items())})

    def dispose(self, drain_timeout: float | None = None, queued: Literal["finish", "fail"] = "finish") -> None:
        """Refuse new work, let the rest end, and leave nothing behind. Idempotent; a later call may hurry the first.

        Args:
            drain_timeout: seconds until what is left is failed; None waits for the requests' own deadlines.
            queued: whether queued requests are carried out, or failed at once.
        """
        hub = self._hub
        if hub is not None and hub.dispatcher.is_current:
            self.dispose_soon()  # a finalizer that ran on the dispatcher: it must not wait for itself
            return
        with self._lock:
            first, self._disposed = not self._disposed, True
            hub, supervisor = self._hub, self._supervisor
        try:
            if hub is not None and supervisor is not None:
                self._drain(hub, supervisor, drain_timeout, queued)
        except BaseException:  # an interrupt: the caller waits no longer
            if first and hub is not None and supervisor is not None:
                self._drain(hub, supervisor, 0.0, "fail")
            raise
        finally:
            if first:
                with self._lock:  # the hub's thread may be dying at this very moment
                    self._let_go()
                self._released.set()
        if not first and not on_worker():  # whom the first may be waiting for
            self._released.wait(_PATIENCE)

    def dispose_soon(self) -> None:
        """Dispose without waiting: for finalizers, on whatever thread they run."""
        if self._hub is None:
            self._disposed = True
        else:
            self._hub.callbacks.submit(self.dispose)

    def forget(self) -> None:
        """Start anew in a forked child: everything so far is the parent's."""
        self._pools.clear()
        self._hub = self._supervisor = None
        self._lock = threading.Lock()
        self._released = threading.Event()
        if self._disposed:
            self._released.set()

    def _drain(
        self, hub: hubs.Hub, supervisor: SupervisorRef, drain_timeout: float | None, queued: Literal["finish", "fail"]
    ) -> None:
        """Have the supervisor end everything, and wait for it as long as there is a dispatcher to do it."""
        now = hub.dispatcher.clock_now
        deadline = NEVER if drain_timeout is None else now() + drain_timeout
        finished = threading.Event()
        if not tell(supervisor, Dispose(queued, deadline, finished)):
            return
        while not finished.wait(_PATIENCE) and not hub.is_lost(now()) and now() < deadline + _PATIENCE:
            pass

    def _ask_manager(self, pool: Pool, exchange: Exchange) -> list[Exchange]:
        """Have a request carried out; return those that the supervisor must be told of, for the manager is gone."""
        exchange.tally = pool
        if shelf.launch(pool, exchange):
            return []
        pending = len(pool.ledger.demand)
        # The queue's bound, before what the manager has not seen grows beyond it.
        if pending > self.options.max_pending_requests + pool.most:
            msg = "too many requests wait for a connection"
            exchange.fail(PoolFull(
                msg, origin=exchange.origin, phase="queue", may_retry=True, option="max_pending_requests",
                waiting=pending, max_pending_requests=self.options.max_pending_requests,
                advice="send less at once, or raise max_pending_requests",
            ))  # fmt: skip
            return []
        return shelf.join(pool, exchange)  # a dead one retired, crashed or was stopped: the supervisor knows

    def _tell_supervisor(self, message: Lease | WarmUp) -> hubs.Hub:
        while True:
            hub, supervisor = self._start()
            if tell(supervisor, message):
                return hub
            with self._lock:  # a foreign stop_all(), or a bug: begin anew, unless another thread has done so
                if self._supervisor is supervisor:
                    self._let_go()

    def _start(self) -> tuple[hubs.Hub, SupervisorRef]:
        """Return the hub and the supervisor, starting them first if need be."""
        with self._lock:
            if self._disposed:
                raise self._refusal()
            if self._hub is not None and self._hub.dispatcher.has_ended:
                self._let_go()
            try:
                hub = self._hub = self._hub or hubs.acquire(self, own=self.options.own_dispatcher)
            except (OSError, RuntimeError) as error:
                raise refusals.not_started(error) from error
            if self._supervisor is None:
                self._supervisor = self._start_supervisor(hub)
            return hub, self._supervisor

    def _let_go(self, error: BaseException | None = None) -> None:
        """Give up the actors and the hub; if its thread ended of ``error``, nobody else fails what was under way."""
        hub = self._hub
        if hub is not None and hub.dispatcher.has_ended:
            _forsake(self._supervisor, list(self._pools.values()), error or RuntimeError("it has ended"))
        self._pools = {}
        self._hub = self._supervisor = None
        if hub is not None:
            hubs.release(self, hub)

    def _start_supervisor(self, hub: hubs.Hub) -> SupervisorRef:
        options = self.options
        settings = ConnectionSettings(
            limits=Limits(
                options.max_response_headers, options.max_header_count, options.max_informational,
                options.max_buffered_body,
            ),
            lifetime=options.connection_lifetime,
            idle_timeout=options.idle_timeout,
            spawn=hub.bodies.submit,
            http2=options.http2,
        )  # fmt: skip

        def new_pool(key: PoolKey) -> Pool:
            return Pool(key=key, afloat=hub.afloat, settings=PoolSettings(
                limit=options.connections_for(key.version),
                max_pending=options.max_pending_requests,
                connect_timeout=options.connect_timeout or None,
                connection=settings,
                reconnect=options.reconnect,
                min_idle=options.http1.min_idle_connections if key.version != "2" else 0,
                streams=options.http2.max_concurrent_streams if key.version == "2" else 1,
            ))  # fmt: skip

        def reclaim(go_on: Callable[[], None]) -> None:
            if not tell(supervisor, Reclaim(go_on)):
                go_on()

        dialer = Dialer(hub.dispatcher, hub.resolver, self._context_for, reclaim)
        quota = Quota(options.max_conns_per_host, options.max_total_connections)
        supervisor = SupervisorActor.start(hub.dispatcher, dialer, quota, self._spoken, new_pool, self._pools)
        return supervisor

    def _context_for(self, key: PoolKey) -> TlsContext:
        return context_for(self.tls, _ALPN[key.version])

    def _refusal(self) -> ClientDisposed:
        msg = "the client was disposed"
        return ClientDisposed(msg, advice="make a new client, or dispose later")


def _forsake(supervisor: SupervisorRef | None, pools: list[Pool], error: BaseException) -> None:
    """Fail all that the actors and the pools of a lost thread hold."""
    actors = [pool.ref for pool in pools] + ([] if supervisor is None else [supervisor])
    bury(*actors)  # nothing is told to them from now on
    for message in in_hand(actors):
        if isinstance(message, Lease):  # nobody knows how far a stuck thread gets with it, should it ever go on
            message.lessee.fail(_crash(message.lessee.key, error, sent=True))
    for pool in pools:
        is_taking_in = any(isinstance(message, Joined) for message in in_hand([pool.ref]))
        pool.forsake(lambda sent, key=pool.key: _crash(key, error, sent=sent), is_taking_in=is_taking_in)  # type: ignore[misc]
    for message in unread(actors):
        if isinstance(message, Lease):
            message.lessee.fail(_lost(message.lessee, error))
        elif isinstance(message, AbandonAll | Acknowledge | Dispose):
            message.done.set()


def _crash(key: PoolKey, error: BaseException, *, sent: bool) -> ManagerCrashed:
    return refusals.crashed(key, error, sent=sent, what="the dispatcher's thread")


def _lost(exchange: Exchange, error: BaseException) -> ManagerCrashed:
    return _crash(exchange.key, error, sent=exchange.was_sent)


def check_disposal(drain_timeout: float | None, queued: str) -> None:
    """Refuse what makes no sense.

    Raises:
        ValueError: the message names the argument.
    """
    check_seconds("drain_timeout", drain_timeout)
    if queued not in ("finish", "fail"):
        msg = f"queued must be 'finish' or 'fail', not {queued!r}"
        raise ValueError(msg)


def finalize(handle: object, runtime: Runtime) -> weakref.finalize[[], Any]:
    """Dispose a runtime when the handle that owns it is garbage-collected."""
    finalizer = weakref.finalize(handle, runtime.dispose_soon)
    finalizer.atexit = False  # the hub has its own way to end with the process
    return finalizer
