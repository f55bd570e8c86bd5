"""What callers' threads have claimed of one key's connections, as its manager sees it.

Callers help themselves (:mod:`turbopool.actors.shelf`) and mostly put back without a word. What the manager does about
it: it goes on where a caller stopped, takes over what was launched and nobody has come to receive, and takes back what
a killed thread left behind. Thread: the dispatcher's.
"""

from __future__ import annotations

from collections.abc import Callable

from turbopool.actors.dispatcher import Dispatcher
from turbopool.actors.ledger import Ledger
from turbopool.actors.pool import Pool
from turbopool.clock import NEVER
from turbopool.transport.claimable import ClaimableConnection
from turbopool.transport.exchange import Exchange, unmoor
from turbopool.transport.interfaces import READ
from turbopool.transport.landlord import Ending, Lendable

AGAIN = 2.0
"""Seconds until the second look at what nobody seems to use."""
PATROL = 60.0
"""Seconds between two looks at what callers' threads have claimed: one that was killed leaves its connection behind."""


class Claims:
    """The claimed connections of one key.

    Args:
        pool: whose they are.
        dispatcher: whose thread it runs on.
        drop: closes a connection and strikes it out.
    """

    __slots__ = ("_dispatcher", "_drop", "_ledger", "_pool", "_suspects")

    def __init__(self, pool: Pool, dispatcher: Dispatcher, drop: Callable[[Lendable], None]) -> None:
        self._pool = pool
        self._ledger = pool.ledger
        self._dispatcher = dispatcher
        self._drop = drop
        self._suspects: dict[Lendable, tuple[int, float]] = {}
        """What was claimed at the last patrol and nobody may be using: its generation, and when it is taken back."""

    # -- handed in by callers --------------------------------------------------------------------------------

    def hand_in(self, connection: ClaimableConnection, lessee: Exchange, *, reusable: bool) -> bool:
        """Take a connection back that carries nothing; return False if another has it by now."""
        if connection.exchange is not lessee:
            return False
        connection.returned()
        known = self._ledger.has_lent(connection, lessee)  # else a predecessor's, which crashed
        if not known or (reusable and not connection.attend(READ)):
            connection.close()
        return True

    def take_over(self, connection: ClaimableConnection, lessee: Exchange) -> None:
        """Go on with a request where its caller stopped, unless that is past."""
        if connection.claimed and connection.exchange is lessee:
            self._carry_on(connection, lessee)

    def _carry_on(self, connection: ClaimableConnection, lessee: Exchange) -> None:
        if isinstance(self._ledger, Ledger) and self._ledger.enter(connection, lessee):
            connection.take_over(lessee)
        else:  # a predecessor's, which crashed and failed the request
            connection.close()

    def scrap(self, connection: Lendable, lessee: Exchange | None = None) -> None:
        """Close what was put back or handed in when the manager had stopped; ``lessee``, if there is one, had it.

        It is struck out, too, unless the supervisor has buried these books and counted it already, or is going to: then
        it fails the request as well.
        """
        connection.close()
        ledger = self._ledger
        exchange = connection.exchange if isinstance(connection, ClaimableConnection) else None
        if exchange is lessee:  # it goes on without
            exchange = None
        is_over = exchange is None or exchange.done
        if is_over and self._pool.ledger is ledger and isinstance(ledger, Ledger) and connection in ledger.members:
            self._drop(connection)

    # -- launched by callers ---------------------------------------------------------------------------------

    def land_all(self) -> None:
        """Take over what was launched over this key's connections, and nobody receives."""
        self._pool.has_launched = False  # first: who launches one from now on says so
        for connection in self._ledger.claimed():
            if (exchange := connection.exchange) is not None:
                self.land(exchange)

    def land(self, exchange: Exchange) -> None:
        """Take over this request, if it was launched and nobody receives it."""
        launched = unmoor(exchange.raft)
        if launched is not None:
            _, _, connection, lessee = launched
            self._carry_on(connection, lessee)

    # -- left behind by callers ------------------------------------------------------------------------------

    def patrol(self, now: float) -> None:
        """Take back what a killed thread has left behind: still claimed at the second look, and nobody's."""
        self._pool.afloat.watch()
        forgotten: dict[Lendable, tuple[int, float]] = {}
        orphans = self._pool.orphans
        for orphan in [one for one in orphans if one.is_closed]:
            del orphans[orphan]
        for connection in [one for one in [*self._ledger.claimed(), *orphans] if one.is_forgotten(now)]:
            generation, due = self._suspects.get(connection, (connection.driven, now + AGAIN))
            if generation != connection.driven:
                generation, due = connection.driven, now + AGAIN
            if now < due:
                forgotten[connection] = generation, due
                continue
            connection.is_hung_up = True  # first: a thread that goes on after all does not put it back
            lessee = connection.returned()
            if lessee is not None:
                lessee.completion.cancel_now()
            if connection in orphans:
                connection.close()
            else:
                self._drop(connection)
        self._suspects = forgotten

    def next_patrol(self, now: float) -> float:
        """When the next one is due; NEVER if there is nothing to look at."""
        if self._suspects:
            return now + AGAIN
        return now + PATROL if self._ledger.connections and self._dispatcher.can_share else NEVER

    def revoke(self, ending: Ending) -> bool:
        """Fail all requests that callers drive, who wake up and hand their connections in; return whether any does."""
        claimed = self._ledger.claimed()
        for connection in claimed:
            connection.revoke(ending)
            self._suspects[connection] = connection.driven, self._dispatcher.now + AGAIN
        return bool(claimed)
