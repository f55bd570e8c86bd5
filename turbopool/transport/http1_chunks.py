"""Chunked bodies (RFC 9112 section 7.1), decoded by llhttp, bounded by us.

One decoder serves all responses of a connection: llhttp is brought to the start of a body by feeding it a head of
our own, so that a message's head and its chunks can be looked at apart.
"""

from __future__ import annotations

import httptools

from turbopool.errors import LimitExceeded, RemoteProtocolError, TurboPoolError, shorten

_PRIMER = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_END = b"\r\n\r\n"
_END_AND_MORE = b"\r\n\r\n\r\n"
_BLANK = b" \t"
_ALLOWANCE = 16
"""Bytes of framing a chunk may cost, beside twice its data, before it counts as overhead (Go's rule)."""
_NEVER_IN_TRAILERS = frozenset({
    b"transfer-encoding", b"content-length", b"host", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade",
    b"content-encoding", b"content-type", b"content-range", b"set-cookie", b"authorization",
})  # fmt: skip
"""RFC 9110 section 6.5.1: fields that frame, route or authenticate have no meaning after the body."""

Field = tuple[bytes, bytes]


class _NextMessageError(Exception):
    """Stops llhttp where the next message would begin: what follows is nobody's."""


class ChunkedBody:
    """Decodes one chunked body after the other.

    Args:
        max_overhead: bytes that may be no data: sizes, extensions, trailers.
        max_trailers: trailer fields.

    Attributes:
        complete: whether the last chunk and the trailers have come.
        leftover: whether bytes came after them.
        trailers: the fields after the last chunk, without those that are not allowed there.
    """

    __slots__ = (
        "_chunks", "_data", "_last", "_llhttp", "_max_overhead", "_max_trailers", "_pieces", "_received",
        "complete", "leftover", "trailers",
    )  # fmt: skip

    def __init__(self, max_overhead: int, max_trailers: int) -> None:
        self._max_overhead = max_overhead
        self._max_trailers = max_trailers
        self._llhttp = httptools.HttpResponseParser(self)
        self.complete = False

    def start(self) -> None:
        """Expect a new body."""
        self.complete = self.leftover = False
        self.trailers: list[Field] = []
        try:
            self._llhttp.feed_data(_PRIMER)
        except httptools.HttpParserError:  # a trailer such as "Connection: close" ended the old one for ever
            self._llhttp = httptools.HttpResponseParser(self)
            self._llhttp.feed_data(_PRIMER)
        self.trailers.clear()  # the primer's own field
        self._pieces: list[bytes] = []
        self._chunks = self._data = self._received = 0
        self._last = b""

    def receive(self, data: bytes) -> list[bytes]:
        """Take the next bytes, return the data in them.

        Raises:
            RemoteProtocolError: they are not chunks.
            LimitExceeded: too many of them are no data.
        """
        self._received += len(data)
        self._last = data[-6:] if len(data) >= 6 else (self._last + data)[-6:]  # noqa: PLR2004  # _END_AND_MORE
        self._pieces = []
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:
                if isinstance(error.__context__, TurboPoolError):
                    raise error.__context__ from None
                msg = f"not a valid chunked body ({error}): {shorten(data)}"
                raise RemoteProtocolError(msg, request_sent=True, processed="maybe") from error
            self.leftover = True
        # llhttp swallows empty lines between messages; nothing but our own end may stand at the end.
        if self.complete and (not self._last.endswith(_END) or self._last == _END_AND_MORE):
            self.leftover = True
        overhead = self._received - 3 * self._data - _ALLOWANCE * self._chunks
        if overhead > self._max_overhead and not self.leftover:
            self._exceed("max_response_headers", self._max_overhead, "bytes of chunk sizes, extensions and trailers")
        return self._pieces

    def on_message_begin(self) -> None:
        """Refuse to begin another message. Called by llhttp."""
        if self.complete:
            raise _NextMessageError

    def on_chunk_header(self) -> None:
        """Count a chunk. Called by llhttp."""
        self._chunks += 1

    def on_body(self, data: bytes) -> None:
        """Take data. Called by llhttp."""
        self._data += len(data)
        self._pieces.append(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer field. Called by llhttp."""
        if len(self.trailers) >= self._max_trailers:
            self._exceed("max_header_count", self._max_trailers, "trailer fields")
        if name.lower() not in _NEVER_IN_TRAILERS:
            self.trailers.append((name, value.rstrip(_BLANK)))

    def on_message_complete(self) -> None:
        """Note the end. Called by llhttp."""
        self.complete = True

    @staticmethod
    def _exceed(option: str, limit: int, what: str) -> None:
        msg = f"more than {limit} {what}"
        raise LimitExceeded(msg, option=option, limit=limit, request_sent=True, processed="maybe")
