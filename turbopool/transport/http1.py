"""The receiving half of HTTP/1.x: bytes in; head, body and framing verdict out. No socket, thread or clock.

llhttp (through httptools) parses heads and chunks. What it lets pass and RFC 9112 does not is added here: see
:func:`_judge`. Bodies with a length, and those that end with the connection, are sliced without a parser.

A byte that belongs to no response is never parsed as the next one: a response whose segment holds more than itself
is delivered, and ``leftover`` tells the owner to close the connection (RFC 9112 section 6.3, response splitting).
"""

from __future__ import annotations

from enum import Enum, auto
from io import BytesIO

import httptools

from turbopool.errors import IncompleteRead, LimitExceeded, RemoteProtocolError, TurboPoolError, shorten
from turbopool.transport.head import Field, Limits, ResponseHead
from turbopool.transport.http1_chunks import ChunkedBody

_END_OF_HEAD = b"\r\n\r\n"
_FIRST_BYTE = b"H"
_NO_CONTENT, _RESET_CONTENT, _NOT_MODIFIED, _SWITCHING, _FINAL, _MAX_STATUS = 204, 205, 304, 101, 200, 999
_MIN_STATUS = 100
_MAX_LENGTH_DIGITS = 18
_PLACED_FROM, _PLACED_TO = 131_072, 67_108_864
"""Bytes of a body in memory that has its place from the beginning; of a larger one a server must show some first."""
_TAIL = 32_768
"""Bytes at the end of such a body that are received like any others, so that what follows them is seen."""
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})


class _Phase(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()


_HEAD, _DONE = _Phase.HEAD, _Phase.DONE  # to look a member up costs more than to compare it


class ResponseParser:
    """Parses one response after the other from one connection.

    Call :meth:`start` for each request, :meth:`receive` for what arrives and :meth:`receive_end` at the end of the
    stream, then read the attributes.

    Attributes:
        started: whether any byte of this response has come, 1xx included.
        head: the final response's head, once it is complete.
        pieces: what has come of the body; the owner may take them away as it goes.
        received: bytes of body so far.
        room: where the next bytes of a large body may be put, or None.
        complete: whether the response is whole.
        leftover: whether bytes came that belong to no response.
        trailers: fields after a chunked body.
    """

    __slots__ = (
        "_chunks",
        "_head_size",
        "_in_memory",
        "_informational",
        "_is_soiled",
        "_known",
        "_known_head",
        "_known_length",
        "_limits",
        "_llhttp",
        "_method",
        "_phase",
        "_place",
        "_reason",
        "_sink_fields",
        "_tail",
        "_whole",
        "complete",
        "head",
        "leftover",
        "pieces",
        "received",
        "room",
        "started",
        "trailers",
    )  # fmt: skip

    room: memoryview | None
    _place: memoryview | None

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._chunks: ChunkedBody | None = None
        self._known = b""
        self._known_head: ResponseHead | None = None
        self._known_length = 0
        self._is_soiled = True
        self.start("GET")

    def start(self, method: str, *, in_memory: bool = True) -> None:
        """Expect the response to a request of this method; a body kept ``in_memory`` is bounded."""
        self._method = method
        self._in_memory = in_memory
        self._phase = _HEAD
        self.started = self.complete = self.leftover = False
        self.head: ResponseHead | None = None
        self.pieces: list[bytes] = []
        self.received = 0
        if self._is_soiled:
            self._clean()

    def _clean(self) -> None:
        """Reset what only a response leaves behind whose head was not the last one's, or whose body came in parts."""
        self._is_soiled = False
        self._informational = 0
        self._begin_head()
        self._whole: BytesIO | None = None
        self._place = self.room = None
        self.trailers: list[Field] = []

    @property
    def body(self) -> bytes:
        """All pieces as one."""
        pieces = self.pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def receive(self, arrived: bytes | memoryview) -> None:
        """Take the next bytes, of any number; a memoryview is the part of :attr:`room` that has been filled.

        Raises:
            RemoteProtocolError: they are not HTTP.
            LimitExceeded: they are more than a limit allows.
        """
        data: bytes = arrived  # type: ignore[assignment]  # while there is no room, which only sized bodies have
        if self._phase is _HEAD:
            known = self._known_head
            if known is not None and not self.started and data.startswith(self._known) and self._method != "HEAD":
                # The very bytes of the last head mean the same again: most servers repeat theirs within a second.
                self.started = True
                data = data[len(self._known) :]
                if len(data) == self._known_length:
                    self.head = known
                    self.pieces.append(data)
                    self.received = self._known_length
                    self._finish()
                    return
                self._is_soiled = True
                self._open_body(known)
            else:
                self.started = self._is_soiled = True
                data = self._receive_head(data)
            if not data or self.head is None:
                return
        match self._phase:
            case _Phase.SIZED:
                self._receive_sized(data)
            case _Phase.CHUNKED:
                self._receive_chunked(data)
            case _Phase.UNTIL_CLOSE:
                self._keep(data)
            case _:
                self.leftover = True

    def receive_end(self, *, truncated: bool) -> None:
        """Learn that the stream ended; ``truncated`` if its end proves nothing (TLS without close_notify).

        Raises:
            IncompleteRead: the response is not whole.
            RemoteProtocolError: not even its head was.
        """
        match self._phase:
            case _Phase.DONE:
                return
            case _Phase.UNTIL_CLOSE if not truncated:
                self._finish()
            case _Phase.HEAD:
                msg = "the connection was closed within the response's head"
                raise RemoteProtocolError(msg, bytes_received=self._head_size)
            case _:
                msg = "the response was cut short"
                expected = self.head.length if self.head is not None else None
                raise IncompleteRead(msg, received=self.received, expected=expected)

    # -- head ------------------------------------------------------------------------------------------------

    def _begin_head(self) -> None:
        self._llhttp: httptools.HttpResponseParser | None = None
        self._reason = b""
        self._head_size = 0
        self._tail = b""

    def _receive_head(self, data: bytes) -> bytes:
        """Parse up to the end of the final head; return what follows it."""
        while data:
            if self._llhttp is None:
                if data[:1] != _FIRST_BYTE:
                    msg = f"not an HTTP/1.x response: {shorten(data)}"
                    raise RemoteProtocolError(msg)
                self._llhttp = httptools.HttpResponseParser(self)
                self._sink_fields: list[Field] = []
            tail = self._tail
            end = (tail + data).find(_END_OF_HEAD) if tail else data.find(_END_OF_HEAD)
            if end < 0:
                self._tail = (tail + data)[-3:]
                self._feed(data)
                return b""
            cut = end + 4 - len(tail)
            whole, data = data[:cut], data[cut:]
            self._feed(whole)
            head = _judge(self._llhttp, self._reason, self._sink_fields, self._method)
            self._sink_fields = []
            if head.status >= _FINAL:
                if self._head_size == len(whole) and self._method != "HEAD":
                    self._known, self._known_head = whole, head
                    within = 0 < (head.length or 0) <= self._limits.max_buffered_body
                    self._known_length = (head.length or 0) if within else -1
                self._open_body(head)
                return data
            self._informational += 1
            if self._informational > self._limits.max_informational:
                self._exceed("max_informational", self._limits.max_informational, "informational responses")
            self._begin_head()
        return b""

    def _feed(self, data: bytes) -> None:
        self._head_size += len(data)
        if self._head_size > self._limits.max_response_headers:
            self._exceed("max_response_headers", self._limits.max_response_headers, "bytes of response head")
        try:
            self._llhttp.feed_data(data)  # type: ignore[union-attr]  # made by the caller
        except httptools.HttpParserUpgrade:
            return  # 101: judged by its status
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, TurboPoolError):
                raise error.__context__ from None
            if self._llhttp.get_status_code() == _SWITCHING:  # type: ignore[union-attr]
                return
            msg = f"not a valid HTTP/1.x response head ({error}): {shorten(data)}"
            raise RemoteProtocolError(msg) from error

    def on_status(self, reason: bytes) -> None:
        """Take the reason phrase, perhaps in parts. Called by llhttp."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field. Called by llhttp."""
        if len(self._sink_fields) >= self._limits.max_header_count:
            self._exceed("max_header_count", self._limits.max_header_count, "response header fields")
        self._sink_fields.append((name, value))

    # -- body ------------------------------------------------------------------------------------------------

    def _open_body(self, head: ResponseHead) -> None:
        self.head = head
        self._llhttp = None
        if head.length == 0:
            self._finish()
        elif head.chunked:
            self._phase = _Phase.CHUNKED
            if self._chunks is None:
                self._chunks = ChunkedBody(self._limits.max_response_headers, self._limits.max_header_count)
            self._chunks.start()
        elif head.length is None:
            self._phase = _Phase.UNTIL_CLOSE
        else:
            self._phase = _Phase.SIZED
            if self._in_memory and head.length > self._limits.max_buffered_body:
                self._exceed("max_buffered_body", self._limits.max_buffered_body, "bytes of response body")

    def _receive_sized(self, data: bytes | memoryview) -> None:
        missing = self.head.length - self.received  # type: ignore[union-attr,operator]  # both known in this phase
        if len(data) > missing:
            self.leftover = True
            data = data[:missing]
        if self._place is not None or (len(data) < missing and self._make_place(missing)):
            self._put(data)
        else:
            self._keep(data)  # type: ignore[arg-type]  # there is no room
        if len(data) == missing:
            self._finish()

    def _make_place(self, length: int) -> bool:
        """Make room for a large body, which is then written to where it will be read: it need not be joined."""
        if self.received or not self._in_memory or not _PLACED_FROM <= length <= _PLACED_TO:
            return False
        self._whole = BytesIO(bytes(length))
        self._place = self._whole.getbuffer()
        return True

    def _put(self, data: bytes | memoryview) -> None:
        at, place, whole = self.received, self._place, self._whole
        assert place is not None and whole is not None  # noqa: S101, PT018  # made together
        end = self.received = at + len(data)
        if isinstance(data, bytes):
            place[at:end] = data
        length = len(place)
        self.room = place[end : length - _TAIL] if end < length - _TAIL else None
        if end == length:
            self._place = self._whole = None
            del place  # while anybody can write to it, the value would be a copy
            self.pieces.append(whole.getvalue())

    def _receive_chunked(self, data: bytes) -> None:
        chunks = self._chunks
        assert chunks is not None  # noqa: S101  # made when the phase began
        pieces = chunks.receive(data)
        if pieces:  # kept as one: chunks of a few bytes would cost a multiple of them in objects
            self._keep(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if chunks.complete:
            self.trailers = chunks.trailers
            self.leftover = chunks.leftover
            self._finish()

    def _keep(self, data: bytes) -> None:
        self.received += len(data)
        if self._in_memory and self.received > self._limits.max_buffered_body:
            self._exceed("max_buffered_body", self._limits.max_buffered_body, "bytes of response body")
        self.pieces.append(data)

    def _finish(self) -> None:
        self._phase = _DONE
        self.complete = True

    @staticmethod
    def _exceed(option: str, limit: int, what: str) -> None:
        msg = f"more than {limit} {what}"
        raise LimitExceeded(msg, option=option, limit=limit, request_sent=True, processed="maybe")


def _judge(llhttp: httptools.HttpResponseParser, reason: bytes, fields: list[Field], method: str) -> ResponseHead:
    """Decide framing and reuse, and refuse what llhttp lets pass (RFC 9112 sections 6 and 9.3)."""
    status, version = llhttp.get_status_code(), llhttp.get_http_version()
    if not _MIN_STATUS <= status <= _MAX_STATUS or version not in ("1.1", "1.0"):
        msg = f"status line with status {status} and HTTP/{version}"
        raise RemoteProtocolError(msg)
    if status == _SWITCHING:
        msg = "status 101: the server switches protocols, and nobody asked it to"
        raise RemoteProtocolError(msg)
    if b"\0" in reason:
        msg = f"status line with the reason {shorten(reason)}"
        raise RemoteProtocolError(msg)
    # What stands around a value is no part of it (RFC 9110 section 5.5); llhttp leaves what follows it.
    head = ResponseHead(status, reason, [(name, value.rstrip(b" \t")) for name, value in fields], version)
    for name, value in fields:
        lowered = name.lower()
        if lowered in _FRAMING:
            _READERS[lowered](head, value)
    if head.keep_alive is None:
        head.keep_alive = version == "1.1"
    if _has_no_body(method, status):
        head.length, head.chunked = 0, False
    elif status == _RESET_CONTENT:  # it has no body either, but its framing may promise one
        head.keep_alive = head.keep_alive and head.length == 0
        head.length, head.chunked = 0, False
    elif head.length is None and not head.chunked:
        head.keep_alive = False
    return head


def _has_no_body(method: str, status: int) -> bool:
    return status < _FINAL or status in (_NO_CONTENT, _NOT_MODIFIED) or method == "HEAD"


def _read_length(head: ResponseHead, value: bytes) -> None:
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        msg = f"content-length {shorten(value)} is not a number of bytes"
        raise RemoteProtocolError(msg)
    head.length = int(value)


def _read_coding(head: ResponseHead, value: bytes) -> None:
    if value.strip().lower() != b"chunked" or head.version != "1.1" or head.chunked:
        msg = f"transfer-encoding {shorten(value)} in an HTTP/{head.version} response"
        raise RemoteProtocolError(msg)
    head.chunked = True


def _read_connection(head: ResponseHead, value: bytes) -> None:
    options = [option.strip() for option in value.lower().split(b",")]
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options and head.keep_alive is None:
        head.keep_alive = True


def _read_keep_alive(head: ResponseHead, value: bytes) -> None:
    for parameter in value.split(b","):
        name, _, number = parameter.partition(b"=")
        if name.strip().lower() == b"timeout" and (digits := number.strip().strip(b'"')).isdigit():
            head.idle_hint = float(digits[:9])


_READERS = {
    b"content-length": _read_length,
    b"transfer-encoding": _read_coding,
    b"connection": _read_connection,
    b"keep-alive": _read_keep_alive,
}
