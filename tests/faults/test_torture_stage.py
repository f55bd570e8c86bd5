"""FLT-P18 on a fake clock: the k-th call of a part fails, for every k, until a whole life makes no more."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from tests.actors.stage import KEY, Call, Stage
from tests.servers.wire import respond
from turbopool.actors.dialing import Dialing
from turbopool.actors.quota import Quota
from turbopool.actors.timers import LazyTimer
from turbopool.errors import TurboPoolError
from turbopool.transport.connection import Http1Connection
from turbopool.transport.exchange import Exchange
from turbopool.transport.http1 import ResponseParser
from turbopool.transport.memory import MemoryChannel, MemoryDialer, MemoryPoller
from turbopool.transport.wire import write_request

PARTS: dict[str, list[tuple[type, str]]] = {
    "channel": [(MemoryChannel, name) for name in ("send", "receive", "is_quiet")],
    "poller": [(MemoryPoller, name) for name in ("watch", "unwatch")],
    "dialer": [(MemoryDialer, "dial")],
    "timers": [(LazyTimer, "arm")],
    "parser": [(ResponseParser, name) for name in ("start", "receive")],
    "connection": [(Http1Connection, name) for name in ("run", "rest", "is_usable")],
    "exchange": [(Exchange, name) for name in ("granted", "respond")],
    "quota": [(Quota, name) for name in ("take", "give", "rested", "roused")],
    "dialing": [(Dialing, name) for name in ("begin", "failed", "reconnect")],
}
FAULTS = [MemoryError(), OSError(errno.ENOMEM, "out of memory"), SystemExit("not even an Exception")]
BODY = bytes(1000)
PATIENCE = 15.0
"""Seconds, on the fake clock."""
_HEAD = re.compile(rb"(GET|POST) (/\d+) HTTP/1\.1\r\n(?:[^\r]+\r\n)*\r\n")


class Fuse:
    """Raises at the k-th call of whatever it guards, and then never again."""

    def __init__(self, k: int, fault: BaseException) -> None:
        self.left = k
        self._fault = fault

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which may now fail: before it does anything, or after it was undone for good."""
        undoes = function is MemoryPoller.unwatch

        def guarded(*arguments: object, **named: object) -> object:
            self.left -= 1
            if undoes or self.left:
                answer = function(*arguments, **named)
            if not self.left:
                raise self._fault
            return answer

        return guarded


class Life:
    """Connect, GET, POST with a body, stream, cancel, and a GET on a connection of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._heard: dict[MemoryChannel, bytes] = {}

    def live(self) -> None:
        """From beginning to end."""
        self._served(self.stage.send(timeout=PATIENCE))
        self._served(self._post())
        self._read(self._served(self._streamed()))
        silent = self.stage.send(timeout=PATIENCE)
        if not silent.future.done():
            self.stage.cancel(silent)
        self._served(self.stage.send(timeout=PATIENCE))

    def follow_up(self) -> None:
        """One more request, after all that: it is answered."""
        assert self._served(self.stage.send(timeout=PATIENCE)).response.content == b"ok"

    def _served(self, call: Call) -> Call:
        """Play a healthy network until the request has an outcome."""
        for _ in range(20):
            while not call.future.done() and self._be_well():
                pass
            if call.future.done():
                return call
            self.stage.advance(1.0)  # whoever waits for the next attempt
        pytest.fail(f"without an outcome: {call.exchange.request}")

    def _be_well(self) -> bool:
        """Accept what is dialed and answer what was asked; return whether there was anything."""
        busy = False
        for dial in self.stage.dialer.pending:
            self.stage.connect(dial)
            busy = True
        for channel in self.stage.open:
            heard = self._heard.get(channel, b"") + channel.take()
            asked = _HEAD.match(heard)
            if asked is not None and len(heard) >= asked.end() + (len(BODY) if asked[1] == b"POST" else 0):
                channel.feed(respond(b"ok"))
                heard, busy = b"", True
            self._heard[channel] = heard
        self.stage.settle()
        return busy

    def _post(self) -> Call:
        call = self.stage.prepare(method="POST", timeout=PATIENCE)
        call.exchange.wire = write_request("POST", f"/{len(self.stage.calls) - 1}", KEY.host, (), BODY, KEY.version)
        for channel in self.stage.open:
            channel.room = 300  # the rest goes when there is room again
        self.stage.submit(call)
        self.stage.settle()
        for channel in self.stage.open:
            channel.room = None
        self.stage.settle()
        return call

    def _streamed(self) -> Call:
        call = self.stage.prepare(timeout=PATIENCE)
        call.exchange.in_memory = False
        call.exchange.read_timeout = 1.0
        self.stage.submit(call)
        self.stage.settle()
        return call

    def _read(self, call: Call) -> None:
        if call.error is None:
            try:
                assert call.response.read() == b"ok"
            except TurboPoolError:
                call.response.close()
        self.stage.settle()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("part", PARTS)
def test_whichever_call_of_a_part_fails_each_request_has_one_outcome_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, part: str, fault: BaseException
) -> None:
    """FLT-P18, I3, I5, I26, P0 for every k: what cannot be served fails, and the next request is served."""
    for k in count(1):
        fuse, stage = Fuse(k, fault), Stage()
        life = Life(stage)
        with monkeypatch.context() as patch:
            for kind, name in PARTS[part]:
                patch.setattr(kind, name, fuse.guard(getattr(kind, name)))
            life.live()
        if stage.supervisor.is_alive():
            life.follow_up()
            stats = stage.stats()
            assert (stats.leased, stats.connecting, stats.waiting) == (0, 0, 0)
            assert stats.opened == stats.closed + stats.idle
            assert stats.completed + stats.failed + stats.cancelled == len(stage.calls)
        stage.close()
        if fuse.left > 0:
            return
