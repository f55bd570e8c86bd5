"""What callers and servers know of a stage, for machines that play both sides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis.stateful import RuleBasedStateMachine

from tests.actors.schedule import Schedule
from tests.actors.stage import Call, Stage
from tests.servers.wire import respond
from turbopool.errors import ConnectError, ConnectTimeout, ResourceError, TlsVerifyError, TurboPoolError
from turbopool.stats import PoolKey
from turbopool.transport.memory import MemoryChannel, MemoryDial

FOREVER = 1e9
REQUEST = re.compile(rb"([A-Z]+ /\d+ )HTTP/1\.[01]\r\n(?:[^\r]+\r\n)*\r\n(?:hello)?")
_TINY = 1e-9


@dataclass
class Download:
    """A response that is streamed to its caller, or by its server, or both."""

    call: Call
    channel: MemoryChannel
    whole: bytes
    fed: int = 0
    read: bytes = b""
    pieces: Iterator[bytes] = field(default_factory=lambda: iter(()))
    is_over: bool = False
    """Whether its caller is done with it."""


class World(RuleBasedStateMachine):
    """A stage, and what was fed and read so far."""

    stage: Stage

    def set_up(self, stage: Stage) -> None:
        """Begin."""
        self.stage = stage
        self.answered: Counter[MemoryChannel] = Counter()
        self.doomed: dict[MemoryChannel, int] = {}
        """Channels that must not be used again, with the requests they had carried by then."""
        self.hurt_now: list[MemoryChannel] = []
        self.downloads: list[Download] = []
        self.begun: list[Download] = []
        """Those that were unfinished when last looked at."""
        self.schedule = Schedule()

    # -- callers -------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The present moment."""
        return self.stage.clock.now()

    @property
    def pending(self) -> list[Call]:
        """Requests without an outcome."""
        return [call for call in self.stage.calls if not call.future.done()]

    @property
    def readable(self) -> list[Download]:
        """Streamed responses that can be read without waiting."""
        return [
            one for one in self.downloads
            if one.call.exchange.made_at and not one.is_over and one.call.future.done()
            and not one.call.future.cancelled() and one.call.error is None
            and (len(one.read) < one.fed or one.fed == len(one.whole) or one.channel.closed)
        ]  # fmt: skip

    def read(self, download: Download) -> None:
        """I8: what is read is what was sent, up to the end of it or to an error, never silently less."""
        if not download.read:
            download.pieces = download.call.response.iter_raw()
        try:
            download.read += next(download.pieces)
        except StopIteration:
            download.is_over = True
            assert download.read == download.whole, "a short body without an error"
        except TurboPoolError as error:
            download.is_over = True
            self.check_error(download.call, error)
        assert download.whole.startswith(download.read)

    def check_error(self, call: Call, error: TurboPoolError) -> None:
        """I27; the machine says how."""

    # -- time ----------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything happen that can, and look at it."""
        self.stage.settle()
        self.look()
        for channel in self.hurt_now:
            self.doomed[channel] = len(REQUEST.findall(channel.sent))
            self.schedule.disturbed(self.key_of(channel))  # some dials may have begun before it was noticed
        self.hurt_now.clear()

    def look(self) -> None:
        """Note the dials that are new; a response that had begun counts as one, whenever and however it ends."""
        for download in self.begun:
            self.schedule.well(download.call.exchange.key)
        self.begun = self.unfinished
        self.on_dials(self.schedule.note(self.stage.dialer.dials, self.now))

    def on_dials(self, dials: list[MemoryDial]) -> None:
        """Look at new dials."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what nobody accepts is given up when its own time is over."""
        end = self.now + seconds
        while True:
            timer = self.stage.poller.timeout
            limits = [self.schedule.begun[dial] + (dial.timeout or FOREVER) - self.now for dial in self.dials]
            self.stage.clock.advance(max(0.0, min([end - self.now, timer if timer >= 0 else FOREVER, *limits])))
            self.settle()
            for dial in self.dials:
                if dial.timeout and self.schedule.begun[dial] + dial.timeout <= self.now + _TINY:
                    self.fail(dial, ConnectTimeout)
                    self.settle()
            if self.now >= end - _TINY:
                return

    # -- servers -------------------------------------------------------------------------

    @property
    def dials(self) -> list[MemoryDial]:
        """Dials under way, the oldest first."""
        return self.stage.dialer.pending

    @property
    def asked(self) -> list[tuple[MemoryChannel, bytes]]:
        """Open channels with a request that was not answered, and its method and target."""
        found = []
        for channel in self.stage.open:
            requests = REQUEST.findall(channel.sent)
            answered = self.answered[channel]
            assert len(requests) - answered in (0, 1), "two requests at once on one connection"
            if len(requests) > answered:
                found.append((channel, requests[-1]))
        return found

    @property
    def unfinished(self) -> list[Download]:
        """Responses whose servers have more to say."""
        return [one for one in self.downloads if one.fed < len(one.whole) and not one.channel.closed]

    def succeed(self, dial: MemoryDial, room: int | None = None, error: OSError | None = None) -> MemoryChannel:
        """Let a dial succeed, with a connection that takes so much, or that breaks at once."""
        self.schedule.well(dial.key)
        channel = MemoryChannel(self.stage.poller)
        channel.room, channel.error = room, error
        if error is not None:
            self.schedule.disturbed(dial.key)
        dial.succeed(channel)
        self.look()
        return channel

    def fail(self, dial: MemoryDial, kind: type[TurboPoolError] = ConnectError) -> None:
        """Let a dial fail."""
        pool = self.stage.pools[dial.key]
        is_patient = pool.recovery.state != "cold" or pool.settings.reconnect.first_connect
        if is_patient and not issubclass(kind, TlsVerifyError | ResourceError):
            self.schedule.failed(dial, self.now)
        dial.fail(kind("refused by the script", origin=dial.key.origin, phase="connect", may_retry=True))
        self.look()

    def injure(self, channel: MemoryChannel, how: str) -> None:
        """Close, break, or talk out of turn."""
        self.schedule.disturbed(self.key_of(channel))
        self.hurt_now.append(channel)
        if how == "break":
            channel.error = ConnectionResetError("reset")
        elif how == "end" or any(one.channel is channel for one in self.unfinished):  # all it said would be body
            channel.feed(b"")
        elif how == "late":
            self.schedule.well(self.key_of(channel))  # whoever waits for an answer takes it for one
            channel.feed(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"")
        else:
            channel.feed(b"this is no HTTP")

    def respond(self, channel: MemoryChannel, line: bytes, how: str) -> None:
        """Answer a request with its own target, six times over, or with something like it."""
        target = line.split()[1]
        call, whole = self.stage.calls[int(target[1:])], target * 6
        sent = len(whole) if how != "part" else len(whole) // 3
        promised = whole + b"?" * 10 if how == "short" else whole
        headers = [("Connection", "close" if how == "close" else "keep-alive"), ("Content-Length", str(len(promised)))]
        self.schedule.well(call.exchange.key)
        self.answered[channel] += 1
        self.downloads.append(Download(call, channel, promised, sent))
        channel.feed(respond(whole[:sent], headers=headers) + (b"EXTRA" if how == "extra" else b""))
        if how == "short":
            channel.feed(b"")
        if how in ("close", "extra", "short"):
            self.hurt_now.append(channel)

    def feed(self, download: Download, size: int) -> None:
        """Let more of a response come."""
        self.schedule.well(download.call.exchange.key)
        piece = download.whole[download.fed : download.fed + size]
        download.fed += len(piece)
        download.channel.feed(piece)

    def key_of(self, channel: MemoryChannel) -> PoolKey:
        """Whose it is."""
        return next(dial.key for dial in self.stage.dialer.dials if dial.channel is channel)
