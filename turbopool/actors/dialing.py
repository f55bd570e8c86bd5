"""How one key's connections come to be: dials when more wait than can be served, attempts after a drop, warm-up.

A part of the manager, on its thread. The ledger says whether another connection is wanted, the recovery when it may be
dialed, the room whether the bounds over all keys allow it.
"""

from __future__ import annotations

from typing import Protocol

from turbopool.actors import refusals
from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.ledger import Ledger
from turbopool.actors.messages import Established, EstablishFailed, Reconnect
from turbopool.actors.pool import Pool
from turbopool.actors.recovery import FAILING, Verdict
from turbopool.actors.room import Room
from turbopool.clock import NEVER
from turbopool.transport.exchange import Exchange
from turbopool.transport.interfaces import Channel, Dial, Dialer
from turbopool.transport.landlord import Landlord, Lendable


class Owner(Landlord[Lendable], Protocol):
    """The manager, as far as dialing needs it."""

    def on_receive(self, message: Established | EstablishFailed | Reconnect) -> None:
        """Handle what happened as a message of its own."""
        ...

    def connect(self, channel: Channel) -> Lendable | None:
        """Make a connection of a channel, or return None if it went to another version's manager."""
        ...

    def on_connected(self, connection: Lendable, lessee: Exchange | None) -> None:
        """Take a new connection, lent to the first who waited, or idle."""
        ...

    def on_vacancy(self) -> None:
        """Learn that a dial ended without a connection."""
        ...

    def crash(self, error: BaseException) -> None:
        """Stop because of a bug of ours."""
        ...


class Dialing:
    """Opens the connections of one key.

    Args:
        owner: the manager.
        pool: the key's books.
        dispatcher: whose thread it runs on.
        dialer: establishes connections.
        room: the key's part of the bounds over all keys.
    """

    def __init__(self, owner: Owner, pool: Pool, dispatcher: Dispatcher, dialer: Dialer, room: Room) -> None:
        self._owner = owner
        self._pool = pool
        self._ledger = pool.ledger
        self._recovery = pool.recovery
        self._dispatcher = dispatcher
        self._dialer = dialer
        self._room = room
        self._refused_at = dispatcher.now
        self._timer = dispatcher.timer(lambda: owner.on_receive(Reconnect()), owner.crash)

    @property
    def is_hopeless(self) -> bool:
        """Whether a request that comes now fails at once: the attempts have ended, and no probe is due."""
        recovery = self._recovery
        return recovery.state is FAILING and not self._ledger.is_live and not recovery.may_dial(self._dispatcher.now)

    def refuse(self, lessee: Exchange) -> None:
        """Fail a request with what all the attempts failed with."""
        self._refused_at = self._dispatcher.now
        lessee.refused(refusals.unreachable(self._pool, self._dispatcher.now))

    def begin(self, culprit: Exchange | None = None) -> None:
        """Dial for those who wait, as far as it is wanted, due and allowed; ``culprit`` is whoever just came."""
        while self._ledger.wants_dial:
            if not self._recovery.may_dial(self._dispatcher.now):
                self._timer.arm(self._recovery.opens_at(NEVER))
                return
            if not self._room.take():
                self._room.wait(self._dispatcher.now)
                return
            self._dial(culprit, culprit.connect_timeout if culprit is not None else None)

    def reconnect(self, *, probing: bool) -> None:
        """Make the next attempt; while requests fail at once, it is a probe for which nobody waits.

        Probes end when nobody has asked for a while, so that the manager of a host that is gone can retire.
        """
        self.begin()
        recovery, now = self._recovery, self._dispatcher.now
        is_asked_for = now - self._refused_at < self._pool.settings.retire_after
        may_probe = recovery.state is FAILING and recovery.may_dial(now) and not self._ledger.is_full
        if probing and is_asked_for and may_probe and self._room.take():
            self._dial()

    def warm_up(self, connections: int, timeout: float | None) -> None:
        """Dial until there are so many connections."""
        ledger, recovery, now = self._ledger, self._recovery, self._dispatcher.now
        while ledger.connections < connections and not ledger.is_full and recovery.may_dial(now) and self._room.take():
            self._dial(None, timeout)

    def established(self, dial: Dial, channel: Channel) -> None:
        """A dial succeeded: the connection goes to the first who waits."""
        if dial not in self._ledger.dialing:
            channel.close()
            return
        connection = self._made(channel)
        if connection is None:
            self._ledger.call_off(dial)
            self._recovery.gone(dial)
            self._room.give()
            self._owner.on_vacancy()
            return
        self._recovery.established(dial, connection, self._dispatcher.now)
        self._owner.on_connected(connection, self._ledger.settle(dial, connection))
        self.begin()  # the host answers: those who were held back after a failure go on

    def adopt(self, channel: Channel) -> None:
        """Another version's manager dialed it, and room has been taken: it goes to the first who waits."""
        connection = self._made(channel)
        ledger = self._ledger
        if connection is not None and isinstance(ledger, Ledger):
            self._recovery.established(channel, connection, self._dispatcher.now)
            self._owner.on_connected(connection, ledger.adopt(connection))

    def _made(self, channel: Channel) -> Lendable | None:
        try:
            connection = self._owner.connect(channel)
        except BaseException:
            channel.close()
            raise
        self._pool.opened += connection is not None
        return connection

    def failed(self, dial: Dial, error: Exception) -> None:
        """A dial failed: those who wait go on waiting, share the failure, or are given up."""
        if dial not in self._ledger.dialing:
            return
        self._room.give()
        if self._recovery.dial_failed(dial, error, self._dispatcher.now) is Verdict.SHARE:
            for lessee in self._ledger.fail(dial):
                lessee.refused(refusals.not_dialed(self._pool, error))
        else:
            self._ledger.call_off(dial)
        self._owner.on_vacancy()

    def give_up_if_lost(self) -> None:
        """When the attempts have ended and nothing is left, fail all who wait, and look again after a step."""
        if self._recovery.state is FAILING and not self._ledger.connections:
            for lessee in self._ledger.empty_queue():
                self.refuse(lessee)
            self._timer.arm(self._recovery.opens_at(NEVER))

    def cancel(self) -> None:
        """Call off all dials."""
        for dial in list(self._ledger.dialing):
            dial.cancel()
            self._recovery.gone(dial)
            self._ledger.call_off(dial)
            self._room.give()

    def close(self) -> None:
        """Make no further attempt."""
        self._timer.close()

    def _dial(self, culprit: Exchange | None = None, timeout: float | None = None) -> None:
        pool = self._pool
        timeout = timeout if timeout is not None else pool.settings.connect_timeout
        dial = self._dialer.dial(pool.key, timeout, self._on_dialed, wary=self._recovery.is_wary)
        self._recovery.dialing(dial)
        self._ledger.dial(dial, culprit)

    def _on_dialed(self, dial: Dial, channel: Channel | None, error: Exception | None) -> None:
        try:
            if channel is not None:
                self._owner.on_receive(Established(dial, channel))
            elif error is not None:
                self._owner.on_receive(EstablishFailed(dial, error))
        except BaseException as bug:  # noqa: BLE001  # the dial has ended, and could not report it any more
            self._owner.crash(bug)
