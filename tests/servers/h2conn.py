"""One HTTP/2 connection of a scripted server, as its behaviour uses it and the test inspects it.

What is here knows requests and responses; single frames are written with what :mod:`tests.servers.h2send` has, and read
with :mod:`tests.servers.h2io`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from hyperframe.frame import SettingsFrame

from tests.servers.connection import Conn
from tests.servers.h2io import PATIENCE, FrameIO
from tests.servers.h2recv import H2Request
from tests.servers.h2send import MAX_FRAME, Fields, settings_of
from tests.servers.wire import BadRequest


class H2Conn(FrameIO):
    """Requests over frames; made by the peer for each connection whose TLS handshake succeeded."""

    def __init__(self, raw: Conn, notice: Callable[[], None]) -> None:
        """Args: raw: the bytes below. notice: told of every change that a test may wait for."""
        super().__init__(raw, notice)
        self._pending: list[H2Request] = []
        self._listed = 0

    def handshake(
        self, settings: Mapping[str | int, int] | None = None, *, send: bool = True, ack: bool = True
    ) -> None:
        """Read the preface and the client's SETTINGS, and write ours; see :attr:`client_settings`.

        Args:
            settings: ours, as in :meth:`send_settings`.
            send: whether to write ours at all.
            ack: whether to acknowledge the client's, these and later ones.
        """
        self.acks_settings = ack
        if send:
            self.send_settings(settings_of(settings or {}))
        self.read_preface()
        frame = self.read_frame()
        if not isinstance(frame, SettingsFrame) or "ACK" in frame.flags:
            raise BadRequest(f"the first frame is {frame!r}")

    def read_request(self, timeout: float = PATIENCE) -> H2Request:
        """The next request that is complete and was not returned before; a reset one never is."""
        return self._next_request(lambda request: request.ended, timeout)

    def read_head(self, timeout: float = PATIENCE) -> H2Request:
        """The next request that was not returned before, as soon as its header is complete."""
        return self._next_request(lambda _: True, timeout)

    def read_requests(self, count: int, timeout: float = PATIENCE) -> list[H2Request]:
        """The next `count` requests, as :meth:`read_request`."""
        return [self.read_request(timeout) for _ in range(count)]

    def read_body(self, request: H2Request, timeout: float = PATIENCE) -> bytes:
        """Read on until `request` is complete."""
        self.read_until(lambda: request.ended, timeout)
        return bytes(request.body)

    def settings_acked(self, timeout: float = PATIENCE) -> None:
        """Read on until the client acknowledged all our SETTINGS."""
        self.read_until(lambda: not self.unacked, timeout)

    def respond(
        self,
        stream_id: int,
        status: int = 200,
        headers: Fields = (),
        body: bytes = b"",
        *,
        end: bool = True,
        flow: bool = True,
    ) -> None:
        """Write a response.

        Args:
            stream_id: of the request.
            status: its `:status`.
            headers: further fields; there is no content-length unless it is here.
            body: cut into frames of 16 KiB.
            end: whether it ends with END_STREAM.
            flow: wait for the client's windows, reading meanwhile, until the client resets the stream; False writes
                past them.
        """
        self.send_headers(stream_id, [(":status", str(status)), *headers], end_stream=end and not body)
        if body:
            self.send_body(stream_id, body, end=end, flow=flow)

    def send_body(self, stream_id: int, body: bytes, *, end: bool = True, flow: bool = True) -> None:
        """Write DATA frames of at most 16 KiB, as :meth:`respond`."""
        view = memoryview(body)
        while view:
            if flow:
                self.read_until(lambda: self.room(stream_id) > 0 or self._is_reset(stream_id))
                if self._is_reset(stream_id):
                    return
            size = min(len(view), MAX_FRAME, self.room(stream_id) if flow else MAX_FRAME)
            self.send_data(stream_id, bytes(view[:size]), end_stream=end and size == len(view))
            view = view[size:]

    def send_data(self, stream_id: int, data: bytes = b"", *, end_stream: bool = False, pad: int | None = None) -> None:
        """As :meth:`FrameSender.send_data`; the windows are counted, but not kept to."""
        size = len(data) + (0 if pad is None else pad + 1)
        self.windows[0] -= size
        self.windows[stream_id] = self.window_of(stream_id) - size
        super().send_data(stream_id, data, end_stream=end_stream, pad=pad)

    def room(self, stream_id: int) -> int:
        """How many bytes the windows of stream and connection allow now."""
        return min(self.windows[0], self.window_of(stream_id))

    def flood(self, data: bytes, times: int) -> None:
        """Write `data` so often, or until the client closes; then read what it says, and answer nothing."""
        self.answers_pings = self.acks_settings = self.gives_credit = False
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                self.send_raw(data)
        self.drain()

    def leave(self) -> None:
        """Write FIN, and read until the client closes: a RST cannot take away what was written before."""
        self.raw.shutdown_write()
        self.drain()

    def close(self) -> None:
        """Close in an orderly way; `raw.cut()`, `raw.reset()` and `raw.shutdown_write()` are the other ways."""
        self.raw.close()

    def hold(self) -> None:
        """Say nothing more until the client closes or the peer is left; reads nothing, takes no orders."""
        self.raw.hold()

    def _is_reset(self, stream_id: int) -> bool:
        request = self.request(stream_id)
        return request is not None and request.reset is not None

    def _next_request(self, is_ready: Callable[[H2Request], bool], timeout: float) -> H2Request:
        deadline = time.monotonic() + timeout
        while True:
            self._pending += self.requests[self._listed :]
            self._listed = len(self.requests)
            for request in self._pending:
                if is_ready(request):
                    self._pending.remove(request)
                    return request
            self.read_frame(deadline - time.monotonic())
