"""HTTP/1.1 as a test server sees it: requests read strictly, responses built from parts.

Reading is strict on purpose: a malformed request is a fault of the client under test and
raises :class:`BadRequest`. Writing checks nothing: a test may need to send anything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus

Fields = list[tuple[str, str]]

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) (HTTP/1\.[01])")
_FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
_MAX_HEAD_BYTES = 1 << 20
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class BadRequest(AssertionError):
    """The client wrote something RFC 9112 does not allow."""


class PeerClosed(ConnectionError):
    """The client ended the connection where more was expected."""

    def __init__(self, received: bytes) -> None:
        """Args: received: the bytes of the unfinished part; empty if it never began."""
        super().__init__(f"peer closed after {len(received)} bytes of an unfinished part")
        self.received = received


@dataclass(slots=True)
class RawRequest:
    """One request as it stood on the wire."""

    method: str
    target: str
    version: str
    """`HTTP/1.0` or `HTTP/1.1`."""

    headers: Fields
    """In order, in the case they were sent."""

    head: bytes
    """The request line and header lines, without the empty line that ends them."""

    connection: int
    """The number of the connection, in accept order from 0."""

    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    at: float = field(default_factory=time.monotonic)
    """When its head was complete: seconds, monotonic."""

    def header(self, name: str) -> str | None:
        """The values of one header joined with a comma; None if absent."""
        values = [value for own, value in self.headers if own.lower() == name.lower()]
        return ", ".join(values) if values else None


class Reader:
    """Cuts a stream of bytes into lines and blocks."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        """Args: receive: gives the next bytes; empty at the end of the stream."""
        self._receive = receive
        self._buffer = bytearray()

    def until(self, marker: bytes) -> bytes:
        """All bytes before `marker`, which is swallowed."""
        start = 0
        while (end := self._buffer.find(marker, start)) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise BadRequest(f"no {marker!r} within {_MAX_HEAD_BYTES} bytes")
            start = max(0, len(self._buffer) - len(marker) + 1)
            self._fill()
        return self._take(end, len(marker))

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self._buffer) < size:
            self._fill()
        return self._take(size)

    def some(self, size: int) -> bytes:
        """Up to `size` bytes, as soon as there are any; empty at the end of the stream."""
        return self._take(min(size, len(self._buffer))) if self._buffer else self._receive()[:size]

    def _fill(self) -> None:
        data = self._receive()
        if not data:
            raise PeerClosed(bytes(self._buffer))
        self._buffer += data

    def _take(self, size: int, skip: int = 0) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[: size + skip]
        return taken


def read_head(reader: Reader, connection: int) -> RawRequest:
    """Read a request up to the empty line that ends its header."""
    head = reader.until(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if not match:
        raise BadRequest(f"request line {first[:200]!r}")
    method, target, version = (part.decode("ascii") for part in match.groups())
    return RawRequest(method, target, version, _fields(lines), head, connection)


def read_body(reader: Reader, request: RawRequest) -> None:
    """Read the body that the header of `request` announces into it."""
    lengths = [value for name, value in request.headers if name.lower() == "content-length"]
    coding = request.header("transfer-encoding")
    if coding is not None:
        if lengths or coding.lower() != "chunked" or request.version == "HTTP/1.0":
            raise BadRequest(f"Transfer-Encoding {coding!r}, Content-Length {lengths}, {request.version}")
        _read_chunks(reader, request)
    elif lengths:
        if len(lengths) > 1 or not re.fullmatch("[0-9]+", lengths[0]):
            raise BadRequest(f"Content-Length {lengths}")
        request.body = reader.exactly(int(lengths[0]))


def respond(
    body: bytes = b"",
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
    *,
    reason: str | None = None,
    version: str = "HTTP/1.1",
) -> bytes:
    """The bytes of a response.

    Content-Length is added unless `headers` frame the body themselves, or the status has
    none (1xx, 204, 304). An unknown status gets the reason `Unknown`.
    """
    own = list(headers)
    framed = {name.lower() for name, _ in own} & {"content-length", "transfer-encoding"}
    if not framed and status >= HTTPStatus.OK and status not in _NO_BODY:
        own.append(("Content-Length", str(len(body))))
    if reason is None:
        known = {member.value: member.phrase for member in HTTPStatus}
        reason = known.get(status, "Unknown")
    lines = [f"{version} {status} {reason}", *(f"{name}: {value}" for name, value in own)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 1024, trailers: Iterable[tuple[str, str]] = ()) -> bytes:
    """`body` in chunks of at most `size` bytes, with the last chunk and any trailers."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    blocks = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    ending = "".join(f"{name}: {value}\r\n" for name, value in trailers).encode("latin-1")
    return b"".join(blocks) + b"0\r\n" + ending + b"\r\n"


def _read_chunks(reader: Reader, request: RawRequest) -> None:
    parts = []
    while size := _chunk_size(reader.until(b"\r\n")):
        parts.append(reader.exactly(size))
        if reader.exactly(2) != b"\r\n":
            raise BadRequest(f"no CRLF after a chunk of {size} bytes")
    lines = []
    while line := reader.until(b"\r\n"):
        lines.append(line)
    request.body = b"".join(parts)
    request.trailers = _fields(lines)


def _chunk_size(line: bytes) -> int:
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", line):
        raise BadRequest(f"chunk size {line[:80]!r}")
    return int(line, 16)


def _fields(lines: list[bytes]) -> Fields:
    found = []
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if not match:
            raise BadRequest(f"header line {line[:200]!r}")
        found.append((match[1].decode("ascii"), match[2].decode("latin-1")))
    return found
