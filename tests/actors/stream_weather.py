"""All that callers, servers, time and bugs can do to keys of HTTP/2: the rules of a storm over real actors.

After every rule everything is at rest. What must hold then is in `test_http2_pool_properties.py`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.actors.stage import Call
from tests.actors.streams import CALM, CANCEL, HTTP11, OTHER_TWO, REFUSED, TLS_TWO, TWO, Peer, Streams
from tests.actors.world import FOREVER, REQUEST
from tests.servers.h2send import LAST_ID
from tests.servers.wire import respond
from turbopool.actors.messages import EvictIdle, WarmUp
from turbopool.errors import ConnectError, TlsVerifyError
from turbopool.stats import PoolKey
from turbopool.transport.memory import MemoryChannel, MemoryDial

KEYS = (TWO, OTHER_TWO, TLS_TWO)
PICK = st.integers(0, 1_000_000)
"""Which of those there are, counted round."""
LIMITS = st.sampled_from([1, 1, 2, 2, 3, 100])
"""What servers say they allow at first; none at all only later."""
_MOST_DIALS = 200
_MOST_PENDING = 40
_PROOFS = (REFUSED, HTTP11)


class StreamWeather(RuleBasedStateMachine):
    """Callers, servers, time and bugs."""

    stage: Streams

    @initialize(
        limit=st.integers(1, 3),
        streams=st.sampled_from([1, 2, 3, 100]),
        total=st.none() | st.integers(1, 4),
        lifetime=st.sampled_from([None, None, None, 0.0, 20.0]),
        ending=st.sampled_from(["never", "never", "never", "finish", "fail"]),
    )
    def begin(self, ending: str, **options: Any) -> None:  # noqa: ANN401 - drawn values
        """Begin under load."""
        self.limit: int = options["limit"]
        self.streams: int = options["streams"]
        self.total: int | None = options["total"]
        self.ending, self.disposed_at, self.sent_before = ending, FOREVER, 0
        self.patience: dict[Call, float] = {}
        self.limits: dict[Peer, int] = {}
        """What each server has said it allows."""
        self.seen: Counter[Peer] = Counter()
        """Requests it had when last looked at."""
        self.sealed: dict[Peer, int] = {}
        """Requests it had when it was to get no more."""
        self.proofs: Counter[str] = Counter()
        """How often a server said that it had not looked at a request, by path."""
        self.foreign: dict[MemoryChannel, int] = {}
        """Channels to servers that speak HTTP/1.1, with the requests they have answered."""
        self.has_warmed = False
        self.stage = Streams(idle_timeout=10.0, retire_after=FOREVER, **options)
        self.send_many([TWO, TWO, TWO, OTHER_TWO])

    # -- callers -------------------------------------------------------------------------

    @rule(
        key=st.sampled_from(KEYS), method=st.sampled_from(["GET", "GET", "POST"]), lower=st.booleans(),
        patience=st.none() | st.floats(0.0, 40.0), queue=st.none() | st.floats(0.0, 5.0),
    )  # fmt: skip
    def send(self, key: PoolKey, method: str, patience: float | None, queue: float | None, *, lower: bool) -> None:
        call = self.stage.prepare(
            key, lower=lower, method=method, timeout=patience, queue=FOREVER if queue is None else queue,
            body=b"hello" if method == "POST" else None,
        )  # fmt: skip
        if patience is not None:
            self.patience[call] = patience
        self.stage.submit(call)
        self.settle()

    @precondition(lambda self: len(self.pending) < _MOST_PENDING)
    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=2, max_size=8))
    def send_many(self, keys: list[PoolKey]) -> None:
        """Many threads at once."""
        for key in keys:
            self.stage.submit(self.stage.prepare(key, lower=True))
        self.settle()

    @precondition(lambda self: self.pending)
    @rule(picks=st.lists(PICK, min_size=1, max_size=3))
    def cancel(self, picks: list[int]) -> None:
        pending = self.pending
        for pick in picks:
            pending[pick % len(pending)].future.cancel()
        self.settle()

    @precondition(lambda self: self.disposed_at == FOREVER)
    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 3))
    def warm_up(self, key: PoolKey, count: int) -> None:
        self.has_warmed = True
        self.stage.supervisor.tell(WarmUp(key, count, None))
        self.settle()

    @precondition(lambda self: self.ending != "never" and self.disposed_at == FOREVER and len(self.stage.calls) > 8)
    @rule(after=st.sampled_from([0.0, 5.0, 60.0]))
    def dispose(self, after: float) -> None:
        self.disposed_at, self.given, self.sent_before = self.now, after, len(self.stage.calls)
        self.done = self.stage.dispose(queued="finish" if self.ending == "finish" else "fail", after=after)
        self.settle()

    # -- dials ---------------------------------------------------------------------------

    @precondition(lambda self: self.dials)
    @rule(pick=PICK, limit=LIMITS, then=st.sampled_from(["", "", "", "", "leave", "lose"]))
    def accept(self, pick: int, limit: int, then: str) -> None:
        """Sometimes the server says good-bye or hangs up at once."""
        self.let_in(self.dials[pick % len(self.dials)], limit)
        peers = self.alive
        if peers and then == "leave":
            self.say_farewell(peers[-1], 0)
        elif peers and then == "lose":
            self.cut(peers[-1])
        self.settle()

    @precondition(lambda self: self.dials)
    @rule(pick=PICK)
    def accept_as_http1(self, pick: int) -> None:
        """TLS settles on HTTP/1.1, or the server answers the preface as it answers any nonsense."""
        dial = self.dials[pick % len(self.dials)]
        channel = MemoryChannel(self.stage.poller)
        channel.version = "http/1.1"
        if dial.key.version == "1.1" or dial.key.scheme == "https":
            self.foreign[channel] = 0
        else:
            channel.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"")
        dial.succeed(channel)
        self.settle()

    @precondition(lambda self: self.dials)
    @rule(rounds=st.integers(1, 4), limit=LIMITS)
    def be_well(self, rounds: int, limit: int) -> None:
        """Connect and answer for a while, as servers mostly do."""
        for _ in range(rounds):
            self.let_all_in(limit)
            self.answer([0] * 8)

    @precondition(lambda self: self.dials)
    @rule(
        picks=st.lists(PICK, min_size=1, max_size=3), kind=st.sampled_from([ConnectError, ConnectError, TlsVerifyError])
    )
    def refuse_dials(self, picks: list[int], kind: type[ConnectError]) -> None:
        for pick in picks:
            if self.dials:
                dial = self.dials[pick % len(self.dials)]
                dial.fail(kind("refused by the script", origin=dial.key.origin, phase="connect", may_retry=True))
        self.settle()

    # -- servers -------------------------------------------------------------------------

    @precondition(lambda self: self.active or self.asked)
    @rule(picks=st.lists(PICK, min_size=1, max_size=5))
    def answer(self, picks: list[int]) -> None:
        """Each request is answered with its own path, six times over."""
        for pick in picks:
            if self.active:
                peer, stream_id, path = self.active[pick % len(self.active)]
                peer.respond(stream_id, path.encode() * 6)
            if self.asked:
                self.answer_http1(self.asked[pick % len(self.asked)])
        self.settle()

    @precondition(lambda self: self.active)
    @rule(picks=st.lists(PICK, min_size=1, max_size=3), code=st.sampled_from([REFUSED, REFUSED, CANCEL, CALM, HTTP11]))
    def reset(self, picks: list[int], code: int) -> None:
        for pick in picks:
            if self.active:
                peer, stream_id, path = self.active[pick % len(self.active)]
                self.proofs[path] += code in _PROOFS
                peer.refuse(stream_id, code)
        self.settle()

    @precondition(lambda self: self.alive)
    @rule(pick=PICK, limit=st.just(0) | LIMITS)
    def change(self, pick: int, limit: int) -> None:
        """SETTINGS: more or less, below what is in use, or nothing at all."""
        peer = self.alive[pick % len(self.alive)]
        self.limits[peer] = limit
        peer.send_settings(max_concurrent_streams=limit)
        self.settle()

    @precondition(lambda self: self.alive)
    @rule(pick=PICK, share=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
    def leave(self, pick: int, share: float) -> None:
        """GOAWAY that takes all, some or none of what was sent."""
        self.say_farewell(self.alive[pick % len(self.alive)], share)
        self.settle()

    @precondition(lambda self: self.alive)
    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        self.cut(self.alive[pick % len(self.alive)])
        self.settle()

    @precondition(lambda self: self.alive)
    @rule(eager=st.booleans())
    def restart(self, eager: bool) -> None:  # noqa: FBT001 - a drawn value
        """All connections end at once, perhaps in the moment of another request."""
        for peer in self.alive:
            self.cut(peer)
        if eager:
            self.stage.submit(self.stage.prepare(TWO))
        self.settle()

    @precondition(lambda self: self.alive)
    @rule(pick=PICK, falls_silent=st.booleans())
    def hold_pings(self, pick: int, falls_silent: bool) -> None:  # noqa: FBT001 - a drawn value
        peer = self.alive[pick % len(self.alive)]
        if falls_silent:
            peer.answers_pings = False
        else:
            peer.answer_pings()
        self.settle()

    # -- time and bugs -------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0005, 0.5, 1.0, 2.0, 5.0, 16.0]))
    def advance(self, seconds: float) -> None:
        self.stage.advance(seconds)
        self.settle()

    @rule(steps=st.integers(1, 3))
    def step(self, steps: int) -> None:
        """Go exactly to the next moment at which something is to happen."""
        for _ in range(steps):
            if 0 <= self.stage.poller.timeout < 100.0:
                self.advance(self.stage.poller.timeout)

    @rule(key=st.sampled_from(KEYS))
    def crash(self, key: PoolKey) -> None:
        if key in self.stage.pools and self.stage.pools[key].ref.is_alive():
            self.stage.crash(key)
            self.settle()

    @rule(key=st.sampled_from(KEYS))
    def evict(self, key: PoolKey) -> None:
        """Descriptors ran out: all that is idle is closed."""
        if key in self.stage.pools and self.stage.pools[key].ref.is_alive():
            self.stage.pools[key].ref.tell(EvictIdle(everything=True))
            self.settle()

    # -- what there is -------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The present moment."""
        return self.stage.clock.now()

    @property
    def pending(self) -> list[Call]:
        """Requests without an outcome."""
        return [call for call in self.stage.calls if not call.future.done()]

    @property
    def dials(self) -> list[MemoryDial]:
        """Dials under way, the oldest first."""
        return self.stage.dialer.pending

    @property
    def alive(self) -> list[Peer]:
        """Servers whose connections are open, and who have not broken them."""
        return [peer for channel, peer in self.stage.peers.items() if not channel.closed and channel.error is None]

    @property
    def active(self) -> list[tuple[Peer, int, str]]:
        """Streams that wait for an answer."""
        return [(peer, request.stream_id, request.path) for peer in self.alive for request in peer.active]

    @property
    def asked(self) -> list[MemoryChannel]:
        """Channels of HTTP/1.1 with a request that was not answered."""
        return [
            channel for channel, answered in self.foreign.items()
            if not channel.closed and len(REQUEST.findall(channel.sent)) > answered
        ]  # fmt: skip

    # -- inside --------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything happen that can, and look at what has come."""
        self.stage.settle()
        for peer in self.stage.peers.values():
            came, self.seen[peer] = len(peer.requests) - self.seen[peer], len(peer.requests)
            if came and peer in self.limits:
                assert len(peer.active) <= max(self.limits[peer], 0), "more streams than the server allows"
        for peer in list(self.stage.peers.values()):
            self.limits.setdefault(peer, peer.unacked[0].get(3, 100) if peer.unacked else 100)

    def let_in(self, dial: MemoryDial, limit: int) -> None:
        """Let a dial succeed, with whatever its key speaks."""
        if dial.key.version == "1.1":
            channel = MemoryChannel(self.stage.poller)
            self.foreign[channel] = 0
            dial.succeed(channel)
        else:
            self.stage.serve(dial, max_concurrent_streams=limit)
        self.settle()

    def let_all_in(self, limit: int) -> None:
        """Let all dials succeed, and those that follow from that."""
        for _ in range(_MOST_DIALS + 2 * len(self.pending)):  # with a lifetime of 0, each has one of its own
            if not self.dials:
                return
            self.let_in(self.dials[0], limit)
        raise AssertionError("it dials over and over")

    def say_farewell(self, peer: Peer, share: float) -> None:
        """GOAWAY; nothing more may come."""
        ids = [request.stream_id for request in peer.requests]
        last = LAST_ID if share > 1.0 else ids[int(share * (len(ids) - 1))] if ids and share else 0
        for request in peer.active:
            self.proofs[request.path] += request.stream_id > last
        peer.leave(last)
        self.sealed.setdefault(peer, len(peer.requests))

    def cut(self, peer: Peer) -> None:
        """Break a connection."""
        peer.channel.error = ConnectionResetError("reset")
        self.sealed.setdefault(peer, len(peer.requests))

    def answer_http1(self, channel: MemoryChannel) -> None:
        """Answer the last request of a channel."""
        line = REQUEST.findall(channel.sent)[-1]
        self.foreign[channel] += 1
        channel.feed(respond(line.split()[1] * 6))
        self.settle()
