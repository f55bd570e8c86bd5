"""All that callers, servers, time and bugs can do to a runtime: the rules of the storm over real actors.

After every rule everything is at rest. What must hold then is in `test_pool_properties.py`.
"""

from __future__ import annotations

import gc
import warnings
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.actors.stage import KEY, OTHER, Call, Stage
from tests.actors.world import FOREVER, World
from turbopool import ReconnectOptions
from turbopool.actors.messages import WarmUp
from turbopool.bodies import Body
from turbopool.errors import ConnectError, ConnectTimeout, DnsError, ResourceError, TlsVerifyError, TurboPoolError
from turbopool.stats import PoolKey

KEYS = (KEY, OTHER, KEY._replace(version="1.0"))
PICK = st.integers(0, 1_000_000)
"""Which of those there are, counted round."""
BODIES = ("none", "bytes", "list", "iterator")
FAILURES: list[type[TurboPoolError]] = [ConnectError] * 4 + [ConnectTimeout, DnsError, TlsVerifyError, ResourceError]
RESET = ConnectionResetError("reset at once")


def body_of(kind: str) -> bytes | Body | None:
    """The same five bytes: in memory, or drawn from what can be drawn again, or from what cannot."""
    if kind == "none":
        return None
    return b"hello" if kind == "bytes" else Body([b"hello"] if kind == "list" else iter([b"hello"]), 5)


class Weather(World):
    """Callers, servers, time and bugs."""

    @initialize(
        limit=st.integers(1, 3),
        total=st.none() | st.integers(1, 4),
        per_host=st.none() | st.integers(1, 3),
        lifetime=st.sampled_from([None, None, 0.0, 20.0]),
        min_idle=st.sampled_from([0, 0, 1]),
        first_connect=st.booleans(),
        ending=st.sampled_from(["never", "never", "never", "finish", "fail"]),
    )
    def begin(self, ending: str, **options: Any) -> None:  # noqa: ANN401 - drawn values
        """Begin under load: the interesting states are too far away from nothing."""
        self.limit: int = options["limit"]
        self.total: int | None = options["total"]
        self.per_host: int | None = options["per_host"]
        reconnect = ReconnectOptions(first_connect=bool(options.pop("first_connect")))
        self.ending, self.disposed_at, self.sent_before = ending, FOREVER, 0
        self.patience: dict[Call, float] = {}
        """Seconds each caller gives, if it is bounded."""
        self.set_up(Stage(idle_timeout=10.0, retire_after=FOREVER, reconnect=reconnect, **options))
        self.send_many([KEY, KEY, KEY, OTHER])
        self.accept_all()

    # -- callers -------------------------------------------------------------------------

    @rule(
        key=st.sampled_from(KEYS), method=st.sampled_from(["GET", "POST", "PUT"]), body=st.sampled_from(BODIES),
        patience=st.none() | st.floats(0.0, 40.0), queue=st.none() | st.floats(0.0, 5.0), stream=st.booleans(),
        named=st.booleans(),
    )  # fmt: skip
    def send(  # noqa: PLR0913 - what requests differ in
        self, key: PoolKey, method: str, body: str, patience: float | None, queue: float | None, *, stream: bool,
        named: bool,
    ) -> None:  # fmt: skip
        call = self.stage.prepare(
            key, method=method, timeout=patience, stream=stream, connect=None if patience is None else 3.0,
            body=None if method == "GET" else body_of(body), queue=FOREVER if queue is None else queue,
            fields=((b"Idempotency-Key", b"1"),) if named else (),
        )  # fmt: skip
        if patience is not None:
            self.patience[call] = patience
        self.stage.submit(call)
        self.settle()

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=2, max_size=6))
    def send_many(self, keys: list[PoolKey]) -> None:
        """Many threads at once."""
        for key in keys:
            self.stage.submit(self.stage.prepare(key))
        self.settle()

    @precondition(lambda self: self.pending)
    @rule(picks=st.lists(PICK, min_size=1, max_size=3))
    def cancel(self, picks: list[int]) -> None:
        pending = self.pending
        for pick in picks:
            pending[pick % len(pending)].future.cancel()
        self.settle()

    @precondition(lambda self: self.readable)
    @rule(pick=PICK, how=st.sampled_from(["read", "read", "close", "drop"]))
    def use_stream(self, pick: int, how: str) -> None:
        """Read what has come of a streamed body, close it, or forget it."""
        download = self.readable[pick % len(self.readable)]
        if how == "read":
            self.read(download)
        elif how == "close":
            download.call.response.close()
            download.is_over = True
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                download.call.drop_response()
                download.pieces = iter(())
                gc.collect(0)
            download.is_over = True
        self.settle()

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 4))
    def warm_up(self, key: PoolKey, count: int) -> None:
        if self.disposed_at == FOREVER:
            self.stage.revive().tell(WarmUp(key, count, None))
        self.settle()

    @precondition(lambda self: self.ending != "never" and self.disposed_at == FOREVER and len(self.stage.calls) > 8)
    @rule(after=st.sampled_from([0.0, 5.0, 60.0]))
    def dispose(self, after: float) -> None:
        self.stage.revive()
        self.disposed_at, self.given, self.sent_before = self.now, after, len(self.stage.calls)
        self.done = self.stage.dispose(queued="finish" if self.ending == "finish" else "fail", after=after)
        self.settle()

    # -- servers -------------------------------------------------------------------------

    @precondition(lambda self: self.dials)
    @rule(
        pick=PICK,
        room=st.sampled_from([None, None, None, 0, 16]),
        then=st.sampled_from(["", "", "", "end", "break", "broken"]),
    )
    def accept(self, pick: int, room: int | None, then: str) -> None:
        """Sometimes the kernel takes little of what is written, or the server hangs up at once."""
        dial = self.dials[pick % len(self.dials)]
        channel = self.succeed(dial, room, RESET if then == "broken" else None)
        if then in ("end", "break"):
            self.injure(channel, then)
        self.settle()

    @precondition(lambda self: self.dials)
    @rule()
    def accept_all(self) -> None:
        while self.dials:
            self.succeed(self.dials[0])
            self.settle()

    @precondition(lambda self: self.asked)
    @rule(rounds=st.integers(1, 4))
    def be_well(self, rounds: int) -> None:
        """Connect and answer for a while, as servers mostly do."""
        for _ in range(rounds):
            self.accept_all()
            self.answer(picks=[0] * len(self.asked), how="keep")

    @precondition(lambda self: self.dials)
    @rule(picks=st.lists(PICK, min_size=1, max_size=3), kind=st.sampled_from(FAILURES))
    def refuse(self, picks: list[int], kind: type[TurboPoolError]) -> None:
        for pick in picks:
            if self.dials:
                self.fail(self.dials[pick % len(self.dials)], kind)
        self.settle()

    @rule(rounds=st.integers(1, 8))
    def outage(self, rounds: int) -> None:
        """Nobody is let in, from one moment at which something is to happen to the next."""
        for _ in range(rounds):
            while self.dials:
                self.fail(self.dials[0])
                self.settle()
            self.step(1)

    @precondition(lambda self: self.stage.open)
    @rule(pick=PICK)
    def take_more(self, pick: int) -> None:
        self.stage.open[pick % len(self.stage.open)].room = None
        self.settle()

    @precondition(lambda self: self.asked)
    @rule(
        picks=st.lists(PICK, min_size=1, max_size=3),
        how=st.sampled_from(["keep", "keep", "keep", "close", "extra", "short", "part"]),
    )
    def answer(self, picks: list[int], how: str) -> None:
        """Each request is answered with its own target, six times over."""
        for pick in picks:
            if self.asked:
                channel, line = self.asked[pick % len(self.asked)]
                self.respond(channel, line, how)
        self.settle()

    @precondition(lambda self: self.unfinished)
    @rule(pick=PICK, share=st.floats(0.1, 1.0))
    def send_more(self, pick: int, share: float) -> None:
        """More of a response that was begun."""
        download = self.unfinished[pick % len(self.unfinished)]
        self.feed(download, max(1, int(share * (len(download.whole) - download.fed))))
        self.settle()

    @precondition(lambda self: self.stage.open)
    @rule(pick=PICK, how=st.sampled_from(["end", "break", "stray", "late"]))
    def hurt(self, pick: int, how: str) -> None:
        """Whatever a connection is doing, its peer closes, breaks or talks out of turn."""
        self.injure(self.stage.open[pick % len(self.stage.open)], how)
        self.settle()

    @precondition(lambda self: self.stage.open)
    @rule(breaking=st.booleans(), key=st.sampled_from(KEYS), eager=st.booleans())
    def restart(self, breaking: bool, key: PoolKey, eager: bool) -> None:  # noqa: FBT001 - drawn values
        """The server goes away: all its connections end at once, perhaps in the moment of another request."""
        for channel in self.stage.open:
            self.injure(channel, "break" if breaking else "end")
        if eager:
            self.stage.submit(self.stage.prepare(key))
        self.settle()

    # -- time and bugs -------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0005, 0.5, 1.0, 2.0, 5.0, 16.0]))
    def advance(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(steps=st.integers(1, 3))
    def step(self, steps: int) -> None:
        """Go exactly to the next moment at which something is to happen."""
        for _ in range(steps):
            if 0 <= self.stage.poller.timeout < 100.0:
                self.pass_time(self.stage.poller.timeout)

    @rule(key=st.sampled_from(KEYS), times=st.sampled_from([1, 1, 1, 6]))
    def crash(self, key: PoolKey, times: int) -> None:
        """A bug, or so many that the key is given up for a while."""
        for _ in range(times):
            if key in self.stage.pools and self.stage.pools[key].ref.is_alive():
                self.stage.crash(key)
                self.settle()

    @rule(key=st.sampled_from(KEYS))
    def stop_manager(self, key: PoolKey) -> None:
        """Somebody else stops one of ours."""
        if key in self.stage.pools:
            self.stage.pools[key].ref.stop(block=False)
            self.settle()

    @precondition(lambda self: self.disposed_at == FOREVER)
    @rule(order=st.permutations([0, 1, 2, 3]))
    def stop_all(self, order: list[int]) -> None:
        """Somebody else stops every actor of the process."""
        refs = [self.stage.supervisor, *(pool.ref for pool in self.stage.pools.values())]
        for place in order:
            if place < len(refs) and refs[place].is_alive():
                refs[place].stop(block=False)
        self.schedule.forget()
        self.settle()
