"""A connection that any thread may claim while it is idle, and drive by itself: ``Client.send``.

Whoever took it off the shelf (:mod:`turbopool.actors.ledger`) has it alone, and drives the same parser and sender as
the reactor does: one send, one receive, and no message in either direction. Only the straight road is gone there.
Whatever else happens (an error, the end of the stream, a timeout, a request that does not fit the send buffer) is left
to the reactor, which goes on where the caller stopped: :meth:`ClaimableConnection.take_over`.

The reactor goes on watching meanwhile, for the peer's end alone and edge-triggered, so that a response wakes nobody but
the thread that waits for it. It never closes a descriptor that another thread has: it hangs up, and the caller wakes.
Whoever settles a claimed exchange from outside (a cancel, a disposal) is the one who may hang up, and who finds
its exchange settled gives the connection back to be closed: so nobody ever hangs up what has been lent anew.

Benchmark of this path: ``make bench``, rows ``turbopool-send``.
"""

from __future__ import annotations

import errno

from turbopool.clock import NEVER, SystemClock
from turbopool.errors import DeadlineExceeded, TurboPoolError
from turbopool.stats import PoolKey
from turbopool.transport.connection import Http1Connection
from turbopool.transport.exchange import Exchange, unmoor
from turbopool.transport.interfaces import END_EDGE, READ, WRITE, Channel, Reactor
from turbopool.transport.landlord import ConnectionSettings, Ending, Landlord

BEHIND = 0.25
"""Seconds after the deadline at which the reactor ends what a claimer should have ended by itself."""
FORGOTTEN_AFTER = 1.0
"""Seconds after its deadline at which a request that a caller drives has none."""
_CUT = ConnectionAbortedError(errno.ECONNABORTED, "an interrupt cut the response")
_clock = SystemClock.now


class ClaimableConnection(Http1Connection):
    """An HTTP/1.x connection that callers' threads may claim.

    Attributes:
        claimed: whether a caller's thread has it; then that thread alone touches anything but this.
        driven: requests that callers have sent over it themselves; its generation.
        completed: responses that they have received.
        is_hung_up: whether the peer ended it while a caller had it.
        is_orphaned: whether the reactor's thread ended while a caller had it, who then closes it.
    """

    __slots__ = ("_concluded_at", "_fault", "_is_at_end", "claimed", "completed", "driven", "is_hung_up", "is_orphaned")

    def __init__(
        self,
        channel: Channel,
        key: PoolKey,
        reactor: Reactor,
        landlord: Landlord[Http1Connection],
        settings: ConnectionSettings,
    ) -> None:
        super().__init__(channel, key, reactor, landlord, settings)
        self.claimed = self.is_hung_up = self.is_orphaned = False
        self.driven = self.completed = 0
        self._fault: OSError | TurboPoolError | None = None
        self._is_at_end = False
        self._concluded_at = 0.0

    # -- the claimer's thread --------------------------------------------------------------------------------

    def stamp(self, exchange: Exchange) -> None:
        """Note who has it. The claimer looks afterwards whether the exchange is still wanted, and the key open."""
        self.claimed = True
        self.exchange = exchange
        exchange.connection = self

    def is_fit(self, now: float) -> bool:
        """Whether it may be used: in its time, and its peer quiet.

        That is always looked for, since nobody else does: what has arrived would be taken for the response.
        """
        if now >= self.idle_until or self.is_hung_up or self._closed:
            return False
        channel = self._channel
        return channel.is_still() or (not channel.buffered and channel.is_quiet())

    def attend(self, mask: int) -> bool:
        """Have the reactor watch for nothing but this; return False if the system will not."""
        before = self._watched
        if before == mask:
            return True
        try:
            self._watch(mask)
        except OSError:
            self._watched = before
            return False
        return True

    def drive(self, exchange: Exchange, now: float) -> bool:
        """Send the request and receive its response; return False if the reactor has to go on. Blocks.

        The reactor also ends what may not simply be put back: a first response over a connection is news, for one.
        """
        return self.send(exchange) and self.receive(exchange, now, exchange.deadline)

    def receive(self, exchange: Exchange, now: float, patience: float) -> bool:
        """Receive the response, waiting until ``patience``; return False if the reactor has to go on. Blocks."""
        channel, parser = self._channel, self._parser
        parsed = channel.taken
        until, read_timeout = patience, exchange.read_timeout
        try:
            while True:
                if read_timeout is not None:
                    self._read_deadline = now + read_timeout
                    until = min(patience, self._read_deadline)
                room = parser.room
                data = channel.await_bytes(until - now) if room is None else channel.await_into(room, until - now)
                if data:
                    parser.receive(data)
                parsed = channel.taken  # or kept by the channel: a part of a record
                if parser.complete:
                    break
                self._is_at_end = data == b"" or channel.ended
                if self._is_at_end or (now := _clock()) >= until:
                    return False
        except TurboPoolError as error:
            self._fault = error
            return False
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None:
                self._fault = error
                return False
            # An interrupt: what had been received when it struck is lost. Noted first, since another may strike.
            self._fault = _CUT
            if parser.complete or (channel.taken == parsed and channel.has_lost_nothing()):
                self._fault = None
            raise
        return self.requests > 1 and not self.is_hung_up and self._is_reusable(exchange)

    def conclude(self, exchange: Exchange) -> bool:
        """Complete the exchange with the response; return False if it was settled from outside."""
        now = self._concluded_at = _clock()
        pieces = self._parser.pieces
        self.completed += 1
        try:
            if exchange.completion.succeed(self._conclude(exchange, now)):
                self._channel.note_answer(now - exchange.asked_at, now)
                return True
        except BaseException:  # an interrupt: the reactor concludes it, with all of the body
            self._parser.pieces = pieces
            self.completed -= not exchange.done
            raise
        self.completed -= 1
        return False

    def is_backed_up(self, exchange: Exchange) -> bool:
        """Whether the reactor will see to the deadline; else it has to be told to :meth:`back_up` the claimer."""
        return self._timer.postpone(exchange.deadline + BEHIND)

    def send(self, exchange: Exchange) -> bool:
        """Send the request; return False if the reactor has to go on."""
        wire, sender = exchange.wire, self._sender
        self.requests += 1
        self.driven += 1
        self._parser.start(wire.method)
        self._fault = None
        self._is_at_end = False
        try:
            sender.start(wire, exchange.write_timeout)
        except OSError as error:
            if error.errno is None:  # a signal handler's: a TimeoutError, mostly
                raise
            sender.error = self._fault = error
            return False
        finally:
            exchange.sent = sender.sent or exchange.sent
        return not sender.is_sending

    def give_back(self) -> None:
        """Be nobody's, and begin to stand idle; the shelf comes next."""
        self.exchange = None
        self._read_deadline = NEVER
        self.claimed = False
        self.rest(self._concluded_at)

    # -- the reactor's thread --------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """Wake whoever has it, whose exchange the caller of this has settled."""
        self._channel.hang_up()

    def revoke(self, ending: Ending) -> None:
        """Fail the exchange of the caller who has it, and wake that; it will be handed back."""
        exchange = self.exchange
        if exchange is not None and exchange.fail(ending(True)):  # noqa: FBT003  # who knows how far it came
            self.hang_up()

    def returned(self) -> Exchange | None:
        """Be nobody's, and carry nothing: its caller gave it up, or is gone. Return what it carried."""
        self.claimed = False
        exchange, self.exchange = self.exchange, None
        return exchange

    def is_forgotten(self, now: float) -> bool:
        """Whether nobody seems to use it, though it is claimed."""
        exchange = self.exchange
        return exchange is None or exchange.done or now > exchange.deadline + FORGOTTEN_AFTER

    def abort(self) -> None:
        """End the exchange, which its caller wants no more: wake whoever has it, else close."""
        if self.claimed:
            self.hang_up()
        else:
            super().abort()

    def take_over(self, exchange: Exchange) -> None:
        """Go on where the caller's thread stopped; the exchange counts as lent now."""
        self.claimed = False
        fault, self._fault = self._fault, None
        if not self.attend(READ):
            fault = fault or OSError("the system would not watch it")
        if exchange.done:
            self.abort()
        elif isinstance(fault, TurboPoolError):
            self._fail(exchange, fault)
        elif isinstance(fault, OSError):
            if fault is self._sender.error:
                self._on_write_error(exchange, fault)
            else:
                self._on_broken(fault, by_peer=fault is not _CUT)
        elif self._parser.complete:
            self._complete(exchange)
        elif self._is_at_end:
            self._on_end()
        elif self._sender.is_sending:
            self._go_on()
        else:
            if self._read_deadline == NEVER:
                self._expect_bytes(exchange)
            self._rearm(exchange)

    def on_ready(self, mask: int) -> None:
        """Go on reading or writing; what is idle is claimed first, and what a caller has is left alone."""
        if mask & ~(READ | WRITE):
            self.is_hung_up = True  # noted for a claimer, who looks before it puts it back, and after
        exchange = self.exchange  # first: who claims it notes that it is claimed before
        if not self.claimed:
            if exchange is not None and self.exchange is exchange:
                super().on_ready(mask)
                return
            if self._landlord.on_stirred(self):
                super().on_ready(mask)
                if not self._closed:  # it was nothing: a session ticket
                    self._landlord.on_calmed(self)
                return
        if mask & READ:
            self.attend(END_EDGE)  # as its claimer is about to; one that was killed before never will

    def back_up(self, exchange: Exchange) -> None:
        """Stand behind the claimer, whose wait for bytes may be put off by signals for as long as they come."""
        if self.exchange is exchange and exchange.deadline != NEVER:
            self._timer.arm(exchange.deadline + BEHIND)

    def _on_timer(self) -> None:
        exchange = self.exchange  # as in on_ready
        if exchange is None:
            return
        if not self.claimed:
            if self.exchange is exchange:
                super()._on_timer()
        elif self._reactor.now < exchange.deadline:
            self.back_up(exchange)
        elif exchange.fail(self._late(DeadlineExceeded, "the deadline of the request passed", exchange)):
            self.hang_up()

    def let_go(self) -> None:
        """Give up the descriptor with the reactor's thread, or wake whoever has it."""
        if self.claimed:
            self.is_orphaned = True
            exchange = self.exchange
            if exchange is None or unmoor(exchange.raft) is None:
                self.hang_up()
            else:  # launched, and nobody has it
                self.claimed = False
        if not self.claimed:  # any more: who put it back meanwhile had not seen it
            self.abandon()
