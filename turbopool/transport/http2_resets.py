"""Streams of an HTTP/2 connection that ended before their time, and what they go on costing. Pure.

Servers ban clients that reset streams too fast (CVE-2023-44487), so resets are rationed: beyond the ration a response
that nobody wants runs out by itself, unread, as far as its window goes. And a stream that was reset counts until a PING
has been answered: until then the server may not have heard of it.
"""

from __future__ import annotations

from turbopool.clock import NEVER
from turbopool.transport.http2 import Http2Codec
from turbopool.transport.http2_conduct import Budget
from turbopool.transport.http2_state import Code, StreamState

AT_ONCE = 100
"""Streams that may be reset at once."""
A_SECOND = 33
"""What nghttp2 lets a client do for ever; others count less strictly, or over longer."""


class Resets:
    """The streams of one connection that nobody wants any more.

    Args:
        codec: resets them.
        now: the present moment.
    """

    __slots__ = ("_codec", "_lingering", "_ration", "_unasked", "_unwanted")

    def __init__(self, codec: Http2Codec, now: float) -> None:
        self._codec = codec
        self._ration = Budget(AT_ONCE, A_SECOND, now)
        self._unwanted: dict[int, StreamState] = {}
        self._lingering = self._unasked = 0

    @property
    def active(self) -> int:
        """Streams that count at the server, as far as can be known."""
        return len(self._unwanted) + self._lingering

    @property
    def wants_ping(self) -> bool:
        """Whether a PING would tell that the server has heard of resets."""
        return self._unasked > 0

    def end(self, state: StreamState, code: int, now: float) -> None:
        """Reset a stream that has not ended, or let it run out."""
        if self._ration.spend(now):
            self._reset(state, code)
        else:
            state.pieces = []
            self._unwanted[state.stream_id] = state

    def on_news(self, state: StreamState) -> bool:
        """Throw away what came of a stream that nobody wants; return whether it has ended now."""
        state.pieces = []
        if state.stream_id not in self._unwanted:
            return False
        if state.complete:  # what is left is our own half
            self._codec.reset(state, Code.NO_ERROR)
        if state.stream_id in self._codec.streams:
            return False
        del self._unwanted[state.stream_id]
        return True

    def catch_up(self, now: float) -> None:
        """Reset what the ration allows by now."""
        while self._unwanted and self._ration.spend(now):
            _, state = self._unwanted.popitem()
            self._reset(state, Code.CANCEL)

    def asked(self) -> None:
        """A PING goes out, behind all resets so far."""
        self._unasked = 0

    def answered(self) -> None:
        """The PING was answered: the resets before it are known to the server."""
        self._lingering = self._unasked

    def due(self, now: float) -> float:
        """When to call :meth:`catch_up`."""
        return now + 1.0 / A_SECOND if self._unwanted else NEVER

    def _reset(self, state: StreamState, code: int) -> None:
        self._codec.reset(state, code)
        self._lingering += 1
        self._unasked += 1
