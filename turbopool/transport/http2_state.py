"""What is known of one HTTP/2 stream, and how a connection can fail."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

import h2.errors

from turbopool.errors import TurboPoolError
from turbopool.transport.head import Field, ResponseHead

Code = h2.errors.ErrorCodes

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
FRAME_HEADER, NUMBER = 9, 4
HEADER = Struct(">IBI")
"""Length and kind, flags, stream (RFC 9113 section 4.1)."""
LAST_ID = (1 << 31) - 1
_MANY, _SMALL = 64, 1_024
_JOINED = 16_384
"""Pieces of a body beyond which the last one grows by small ones, of fewer bytes than this, until it has so many."""


def framed(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return a frame."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


class ConnectionFailure(Exception):  # a fact for the driver, never seen by a caller
    """The peer broke the protocol, or what we put up with; a GOAWAY that says so is ready to be sent."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotHttp2(ConnectionFailure):
    """The peer answered as HTTP/1 does: it has understood nothing."""


@dataclass(frozen=True, slots=True)
class GoAway:
    """What a peer said in farewell."""

    last_id: int
    code: int
    debug: bytes


class StreamState:
    """One stream, as far as the peer and the protocol go. Its owner reads it when :meth:`Http2Codec.receive` names it.

    Attributes:
        stream_id: odd and increasing.
        head: of the final response.
        pieces: what has come of the body; the owner may take them away as it goes.
        received: bytes of body so far.
        has_begun: whether any part of a response came, 1xx included.
        complete: whether the response is whole.
        trailers: fields after the body, if there were any.
        code: of the RST_STREAM that ended it, or None.
        refused: whether the peer says that it has not been looked at, by RST_STREAM or by GOAWAY, and has not answered.
        problem: why it cannot go on, if that was found here; it has been reset then.
        is_sending: whether its request has not been sent to its end.
        expected, informational: the codec's own: bytes promised, 1xx answers so far.
        in_window, out_window, owed: the lane's own: bytes that may come and go, bytes read and not credited.
    """

    __slots__ = (
        "code", "complete", "expected", "has_begun", "head", "in_window", "informational", "is_head", "is_sending",
        "out_window", "owed", "pieces", "problem", "received", "refused", "stream_id", "trailers",
    )  # fmt: skip

    def __init__(self, stream_id: int, *, is_head: bool, is_sending: bool) -> None:
        self.stream_id = stream_id
        self.is_head = is_head
        self.is_sending = is_sending
        self.head: ResponseHead | None = None
        self.pieces: list[bytes] = []
        self.received = 0
        self.has_begun = self.complete = self.refused = False
        self.trailers: list[Field] | None = None
        self.code: int | None = None
        self.problem: TurboPoolError | None = None
        self.expected: int | None = None
        self.informational = 0
        self.in_window = self.out_window = self.owed = 0

    def keep(self, data: bytes) -> None:
        """Add to the body. Many small pieces are joined: each would take many times the room of what it holds."""
        self.received += len(data)
        pieces = self.pieces
        if len(data) < _SMALL and len(pieces) > _MANY and len(pieces[-1]) < _JOINED:
            pieces[-1] += data
        else:
            pieces.append(data)
