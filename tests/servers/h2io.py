"""Frames over one connection of a scripted server: read off the wire, noted, and answered as far as that is routine.

PING and SETTINGS are acknowledged and credit is given back for DATA along the way of every read, unless
`answers_pings`, `acks_settings` or `gives_credit` is set to False.

One thread owns a connection: the one its behaviour runs in. Other threads look at it, and give it orders with `do`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

from hyperframe.frame import DataFrame, Frame, PingFrame, SettingsFrame

from tests.servers.connection import Conn
from tests.servers.h2recv import FRAME_HEAD, PREFACE, FrameReader
from tests.servers.h2send import FrameSender
from tests.servers.orders import Orders
from tests.servers.wire import BadRequest, PeerClosed

PATIENCE = 20.0
"""Seconds within which what a behaviour waits for has to come."""

_GLANCE = 0.005
"""Seconds between two looks at what another thread may have changed."""

_TABLE_SIZE = SettingsFrame.HEADER_TABLE_SIZE

F = TypeVar("F", bound=Frame)


class FrameIO(FrameSender, FrameReader):
    """Frames in both directions; no state machine, so anything may be written at any time."""

    def __init__(self, raw: Conn, notice: Callable[[], None]) -> None:
        """Args: raw: the bytes below. notice: told of every change that a test may wait for."""
        FrameSender.__init__(self, self._write)
        FrameReader.__init__(self, raw.number)
        self.raw = raw
        """The connection below: its moments (`accepted_at`, `peer_closed_at`, `closed_at`), `alpn`, and for HTTP/1."""
        self.number = raw.number
        self.answers_pings = True
        self.acks_settings = True
        self.gives_credit = True
        self._notice = notice
        self._buffer = bytearray()
        self._expected: set[int] = set()
        self._syncs = 0
        self.last_bytes = b""
        """Of the last frame that was read."""
        self._orders = Orders()
        self.do = self._orders.do
        """From another thread: `conn.do(conn.send_goaway, last=3)`, made by the owner when it reads next."""

    def read_preface(self) -> None:
        """Read what every client begins with."""
        deadline = time.monotonic() + PATIENCE
        while len(self._buffer) < len(PREFACE):
            self._take_in_before(deadline)
        if (preface := self._take(len(PREFACE))) != PREFACE:
            raise BadRequest(f"preface {preface!r}")

    def read_frame(self, timeout: float = PATIENCE) -> Frame:
        """The next frame off the wire.

        Raises:
            PeerClosed: the client closed instead; behaviours may let it pass.
            AssertionError: neither within `timeout` seconds.
            BadRequest: it is malformed.
        """
        deadline = time.monotonic() + timeout
        while not self.has_frame():
            self._take_in_before(deadline)
        head = self._take(FRAME_HEAD)
        payload = self._take(_payload_size(head))
        self.last_bytes = head + payload
        frame = self.note(head, payload)
        with contextlib.suppress(ConnectionError):  # what the client wrote before it went is still to be read
            self._react(frame)
        self._notice()
        return frame

    def expect(self, kind: type[F], predicate: Callable[[F], object] = lambda _: True, timeout: float = PATIENCE) -> F:
        """The first frame of this kind, read already or yet to come, that holds and was not expected before."""
        deadline = time.monotonic() + timeout
        at = 0
        while True:
            while at < len(self.frames):
                frame = self.frames[at]
                if at not in self._expected and isinstance(frame, kind) and predicate(frame):
                    self._expected.add(at)
                    return frame
                at += 1
            self.read_frame(deadline - time.monotonic())

    def read_until(self, predicate: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Read frames, and do orders, until `predicate()` holds; another thread's event will do."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if self.has_frame():
                self.read_frame()
            else:
                self._take_in_before(deadline, _GLANCE)

    def drain(self) -> None:
        """Read frames, and do orders, until the client closes."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.read_frame(float("inf"))

    def sync(self) -> None:
        """Read on until the client has answered a PING: all that it did before is in :attr:`frames` then."""
        self._syncs += 1
        mark = b"sync" + self._syncs.to_bytes(4, "big")
        self.send_ping(mark)
        self.expect(PingFrame, lambda ping: "ACK" in ping.flags and ping.opaque_data == mark)

    def finish(self) -> None:
        """Close, and take no more orders; for the peer."""
        self.raw.close()
        self._orders.close()

    def take_in(self, seconds: float) -> None:
        """Wait up to `seconds` for bytes or an order, take the bytes and do the orders.

        Raises:
            PeerClosed: there will be none any more.
        """
        data: bytes | None = b""
        try:
            if self.raw.closed_at is None:  # else an order closed
                data = self.raw.receive_within(seconds, self._orders.waker)
        finally:
            if data == b"":
                self._notice()  # of the end
        self._buffer += data or b""  # first: an order may read on
        self._orders.obey()
        if data == b"":
            raise PeerClosed(bytes(self._buffer))

    def has_frame(self) -> bool:
        """Whether the next frame is taken in already."""
        head = self._buffer[:FRAME_HEAD]
        return len(head) == FRAME_HEAD and len(self._buffer) >= FRAME_HEAD + _payload_size(head)

    def _take_in_before(self, deadline: float, glance: float = PATIENCE) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise AssertionError(f"not in time; the last frames were {self.frames[-5:]}")
        self.take_in(min(left, glance))

    def _write(self, data: bytes) -> None:
        if self.raw.closed_at is not None:  # an order closed, while frames were still to be worked off
            raise PeerClosed(b"")
        self.raw.send(data)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _react(self, frame: Frame) -> None:
        acknowledges = "ACK" in frame.flags
        match frame:
            case PingFrame() if self.answers_pings and not acknowledges:
                self.send_ping(frame.opaque_data, ack=True)
            case SettingsFrame() if acknowledges:
                self._settle(self.unacked.pop(0) if self.unacked else {})  # there may be more than send_settings wrote
            case SettingsFrame():
                self.encoder.header_table_size = frame.settings.get(_TABLE_SIZE, self.encoder.header_table_size)
                if self.acks_settings:
                    self.send_settings_ack()
            case DataFrame(flow_controlled_length=size) if self.gives_credit and size:
                self.send_window_update(0, size)
                if "END_STREAM" not in frame.flags:
                    self.send_window_update(frame.stream_id, size)

    def _settle(self, settings: dict[int, int]) -> None:
        self.decoder.max_allowed_table_size = settings.get(_TABLE_SIZE, self.decoder.max_allowed_table_size)


def _payload_size(head: bytes | bytearray) -> int:
    return int.from_bytes(head[:3], "big")
