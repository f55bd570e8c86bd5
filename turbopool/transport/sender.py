"""The sending half of an exchange: the head, a body in memory, or a body drawn on a worker thread.

Writes as much as goes at once, within a turn's share, and the rest when the socket has room. Knows nothing of the
response: that a server may answer before all is sent is its connection's business.
"""

from __future__ import annotations

from collections.abc import Callable

from turbopool.bodies import Body
from turbopool.clock import NEVER
from turbopool.transport.channel import TcpChannel
from turbopool.transport.interfaces import RECEIVE_BYTES, Reactor, Sink
from turbopool.transport.upload import Upload, broken_length
from turbopool.transport.wire import WireRequest

Spawn = Callable[[Callable[[], None]], None]
"""Runs a task on a worker thread."""


class BodyFailed(Exception):  # a fact, and never seen by a caller
    """The caller's body could not be drawn; the cause says why."""


class Sender:
    """Sends one request after the other over a channel.

    Args:
        channel: where to.
        reactor: brings what a worker thread has drawn to its thread.
        spawn: runs a caller's body on a worker thread.
        go_on: called on the reactor's thread when there is something to send again.
        on_crash: told of a bug in ``go_on``.

    Attributes:
        is_sending: whether something is left to be sent.
        is_blocked: whether the socket has no room for it now.
        sent: bytes of the present request handed over, to the kernel or to the TLS layer.
        write_deadline: when the server must have taken more; NEVER if nothing is left or nothing bounds it.
        error: what broke the sending, or None.
    """

    __slots__ = (
        "_channel", "_go_on", "_on_crash", "_pending", "_reactor", "_spawn", "_timeout", "_upload", "error",
        "is_blocked", "is_sending", "sent", "write_deadline",
    )  # fmt: skip

    def __init__(
        self,
        channel: Sink,
        reactor: Reactor,
        spawn: Spawn,
        go_on: Callable[[], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._channel = channel
        self._reactor = reactor
        self._spawn = spawn
        self._go_on = go_on
        self._on_crash = on_crash
        self._pending: list[memoryview] = []  # three at most; a deque would be a fifth of an idle connection
        self._upload: Upload | None = None
        self._timeout: float | None = None
        self.is_sending = self.is_blocked = False
        self.sent = 0
        self.write_deadline = NEVER
        self.error: OSError | None = None

    def start(self, wire: WireRequest, timeout: float | None) -> None:
        """Begin a request; ``timeout`` bounds each wait for the server to take more, in seconds.

        Raises:
            OSError: the connection is broken.
            BodyFailed: no thread could be started to draw the body.
        """
        self.sent = 0
        self._timeout = timeout
        whole, body = wire.whole, wire.body
        if whole is not None:
            sent = self.sent = self._channel.send(whole)
            if sent == len(whole) and self._channel.flush():
                return
            if sent < len(whole):
                self._pending.append(memoryview(whole)[sent:])
        elif isinstance(body, Body):
            self._draw(body, chunked=wire.chunked)
            self._pending.append(memoryview(wire.head))
        else:
            self._pending += (memoryview(wire.head), memoryview(body or b""))
        self._write(drawn=False)

    def go_on(self) -> None:
        """Send more. Called when the socket has room, or the worker has drawn something.

        Raises:
            OSError: the connection is broken.
            BodyFailed: the caller's body raised, or broke its length.
        """
        self._write()

    def stop(self, error: OSError | None = None) -> None:
        """Send no more of this request, and let the worker end."""
        self.error = error
        self._pending.clear()
        self.is_sending = self.is_blocked = False
        self.write_deadline = NEVER
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None

    def _write(self, *, drawn: bool = True) -> None:
        """Send what is pending, then, unless it is too early for that, what the worker has ``drawn``."""
        pending, left = self._pending, RECEIVE_BYTES
        while left > 0 and (pending or (drawn and self._refill())):
            data = pending[0]
            taken = self._channel.send(data[:left])
            self.sent += taken
            left -= taken
            if taken == len(data):
                del pending[0]
            elif taken:
                pending[0] = data[taken:]
            else:
                break
        # What the worker drew while this was blocked is announced no more: it is looked for until there is none.
        more = bool(pending) or (left <= 0 and self._upload is not None) or (drawn and self._send_file(left))
        self.is_blocked = more or not self._channel.flush()
        self.is_sending = self.is_blocked or self._upload is not None
        bounded = self.is_blocked and self._timeout is not None
        self.write_deadline = self._reactor.now + self._timeout if bounded else NEVER  # type: ignore[operator]

    def _refill(self) -> bool:
        """Take what the worker has drawn; return whether there was anything."""
        upload = self._upload
        if upload is None:
            return False
        drawn, is_rest = upload.take()
        if upload.error is not None:
            raise BodyFailed from upload.error
        if upload.file is not None:
            return False
        if drawn:
            self._pending.append(memoryview(drawn))
        if is_rest:
            self._upload = None
        return bool(drawn)

    def _send_file(self, most: int) -> bool:
        """Let the kernel send up to ``most`` bytes of a file; return whether more can go when the socket has room."""
        upload, channel = self._upload, self._channel
        if upload is None or upload.file is None or upload.file.is_cold or not isinstance(channel, TcpChannel):
            return False
        file = upload.file
        self.sent += file.send(channel, most)
        if file.is_short:
            raise BodyFailed from broken_length(file.length, file.sent)
        if file.is_whole:
            upload.cancel()
            self._upload = None
        elif file.is_cold:
            try:
                self._spawn(upload.warm)
            except RuntimeError as error:
                file.is_cold = False
                raise BodyFailed from error
        return not file.is_whole and not file.is_cold

    def _draw(self, body: Body, *, chunked: bool) -> None:
        upload = self._upload = Upload(
            body, chunked=chunked, wake=lambda: self._wake(upload), by_kernel=isinstance(self._channel, TcpChannel)
        )
        try:
            self._spawn(upload.run)
        except RuntimeError as error:
            self._upload = None
            raise BodyFailed from error

    def _wake(self, upload: Upload) -> None:
        """Bring the news to the reactor's thread. Runs on the worker's."""
        self._reactor.post(lambda: self._on_drawn(upload), self._on_crash)

    def _on_drawn(self, upload: Upload) -> None:
        if self._upload is upload and not self.is_blocked:
            self._go_on()
