"""What goes in and what comes out: :class:`Request` and :class:`Response`. No I/O of their own."""

from __future__ import annotations

import codecs
import json as json_codec
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum, StrEnum
from types import TracebackType
from typing import Any, Protocol, Self

from turbopool.bodies import ContentTypes, FormTypes
from turbopool.decoding import Decoder, decode
from turbopool.errors import HTTPStatusError, LimitExceeded, StreamConsumed
from turbopool.headers import Headers, HeaderTypes
from turbopool.urls import QueryTypes, SupportsStr, parse_url

UrlTypes = str | SupportsStr
"""What a URL may be given as."""

_CHARSET = re.compile(r"charset=\"?([\w.:-]+)", re.IGNORECASE)
_SUCCESS, _REDIRECT, _CLIENT_ERROR, _SERVER_ERROR, _END = 200, 300, 400, 500, 600


class Unset(Enum):
    """The type of :data:`UNSET`."""

    UNSET = "unset"


UNSET = Unset.UNSET
"""Stands for an argument that was not given, where None means something of its own."""


class HttpVersion(StrEnum):
    """A version of HTTP, as ``http_version=`` takes it."""

    HTTP_1_0 = "1.0"
    HTTP_1_1 = "1.1"
    HTTP_2 = "2"
    HTTP_3 = "3"


class VersionPolicy(StrEnum):
    """What may happen when a server does not speak the version asked for."""

    EXACT = "exact"
    OR_LOWER = "or_lower"
    OR_HIGHER = "or_higher"


class Request:
    """A request, described but not yet prepared: nothing is checked before it is sent.

    Args:
        method: ``GET`` and so on; sent as written.
        url: absolute, or relative to the client's ``base_url``.
        params: added to the URL's query.
        headers: the request's own; they win over the client's.
        json, data, content: the body, at most one of them (see :func:`turbopool.bodies.encode_body`).
        timeout: seconds for the whole request, or a ``Timeout``; None is no limit; not given takes the client's.
        http_version, version_policy: the request's own; None takes the client's.
        extensions: carried along untouched.
    """

    __slots__ = (
        "content", "data", "extensions", "headers", "http_version", "json", "method", "params", "timeout", "url",
        "version_policy",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  # the parts of a request are that many
        self,
        method: str,
        url: UrlTypes,
        *,
        params: QueryTypes | None = None,
        headers: HeaderTypes | None = None,
        json: object = None,
        data: FormTypes | ContentTypes | None = None,
        content: ContentTypes | None = None,
        timeout: object = UNSET,
        http_version: str | None = None,
        version_policy: str | None = None,
        extensions: Mapping[str, object] | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.params = params
        self.headers = headers
        self.json = json
        self.data = data
        self.content = content
        self.timeout = timeout
        self.http_version = http_version
        self.version_policy = version_policy
        self.extensions = extensions or {}

    def __repr__(self) -> str:
        return f"<Request {self.method} {_shown(self.url)}>"


class Head(Protocol):
    """The status line and the fields of a response, perhaps those of many: not to be changed, but for one note."""

    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]
    version: str
    encodings: tuple[str, ...] | None
    """What the body is coded with, noted by the first who looks."""


class BodySource(Protocol):
    """Where a streamed response takes its body from: the connection that still reads it."""

    def read(self) -> bytes:
        """Return the next bytes as they came, empty at the end; blocks for ``read`` seconds at most."""
        ...

    def close(self) -> None:
        """Give the connection back: kept if the body was read to its end, else closed."""
        ...


class Response:
    """The answer to a request.

    A response of :meth:`Client.send` holds its whole body. One of :meth:`Client.stream` draws it from the connection
    while it is read, in the reading thread, until the ``with`` block ends.
    """

    __slots__ = (
        "_consumed", "_content", "_drawn", "_elapsed", "_extensions", "_head", "_headers", "_limit", "_raw", "_source",
        "_url", "request", "status_code",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917  # built in one place, from as many facts, once a request
        self,
        head: Head,
        raw: bytes | None,
        source: BodySource | None,
        request: Request,
        url: str,
        elapsed: float,
        limit: int,
    ) -> None:
        self.status_code = head.status
        self._head = head
        self._raw = raw
        self._source = source
        self.request = request
        self._url = url
        self._elapsed = elapsed
        self._limit = limit
        self._headers: Headers | None = None
        self._content: bytes | None = None
        self._extensions: dict[str, object] | None = None
        if raw is None:
            self._consumed = False
            self._drawn = 0

    @property
    def reason_phrase(self) -> str:
        """The words after the status code, often empty."""
        return self._head.reason.decode("latin-1")

    @property
    def http_version(self) -> str:
        """What the server answered in, such as ``HTTP/1.1``."""
        return "HTTP/" + self._head.version

    @property
    def extensions(self) -> dict[str, object]:
        """What else is known: ``trailers``, if there were any."""
        if self._extensions is None:
            self._extensions = {}
        return self._extensions

    @extensions.setter
    def extensions(self, extensions: dict[str, object]) -> None:
        self._extensions = extensions

    @property
    def num_bytes_downloaded(self) -> int:
        """Bytes of the body that have come so far, as they came over the wire."""
        return self._drawn if self._raw is None else len(self._raw)

    @property
    def headers(self) -> Headers:
        """The header fields: case-insensitive, several of one name kept."""
        if self._headers is None:
            self._headers = Headers.from_raw(list(self._head.fields))  # others may share these
        return self._headers

    @property
    def url(self) -> str:
        """The URL that was asked for, absolute."""
        return self._url

    @property
    def elapsed(self) -> timedelta:
        """From the call to the complete response; for a streamed one, to its head."""
        return timedelta(seconds=self._elapsed)

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return _SUCCESS <= self.status_code < _REDIRECT

    @property
    def ok(self) -> bool:
        """Whether the status is below 400, as requests says it."""
        return self.status_code < _CLIENT_ERROR

    @property
    def is_redirect(self) -> bool:
        """Whether the status is 3xx. Redirects are never followed here."""
        return _REDIRECT <= self.status_code < _CLIENT_ERROR

    @property
    def is_client_error(self) -> bool:
        """Whether the status is 4xx."""
        return _CLIENT_ERROR <= self.status_code < _SERVER_ERROR

    @property
    def is_server_error(self) -> bool:
        """Whether the status is 5xx."""
        return _SERVER_ERROR <= self.status_code < _END

    @property
    def is_error(self) -> bool:
        """Whether the status is 4xx or 5xx."""
        return self.is_client_error or self.is_server_error

    @property
    def encoding(self) -> str:
        """The charset of the text: the one the server names, else UTF-8."""
        found = _CHARSET.search(self.headers.get("content-type", ""))
        return found[1] if found else "utf-8"

    @property
    def content(self) -> bytes:
        """The whole body, decoded. Decoded on first use, in the calling thread.

        Raises:
            StreamConsumed: the response is streamed and its body was not :meth:`read`.
            DecodeError: the body is not what ``content-encoding`` says.
            LimitExceeded: it would decode to more than ``max_buffered_body``.
        """
        if self._content is None:
            if self._raw is None:
                msg = "the body of a streamed response is not in memory"
                raise StreamConsumed(
                    msg, origin=parse_url(self._url).origin, advice="call read() first, or iterate over it"
                )
            encodings = self._encodings()
            self._content = decode(self._raw, encodings, limit=self._limit) if encodings else self._raw
        return self._content

    @property
    def text(self) -> str:
        """The whole body as text; what does not fit the charset is replaced."""
        return self.content.decode(_codec(self.encoding), "replace")

    def json(self, **kwargs: Any) -> Any:  # noqa: ANN401  # as json.loads has it
        """Parse the body as JSON. Arguments are those of :func:`json.loads`."""
        return json_codec.loads(self.content, **kwargs)

    def raise_for_status(self) -> Self:
        """Return self.

        Raises:
            HTTPStatusError: the status is 4xx or 5xx.
        """
        if not self.is_error:
            return self
        kind = "client error" if self.is_client_error else "server error"
        msg = f"{kind} {self.status_code} {self.reason_phrase} for {self.request.method} {_shown(self.url)}"
        raise HTTPStatusError(msg, request=self.request, response=self, request_sent=True, processed="yes")

    def read(self) -> bytes:
        """Read the rest of the body, keep and return it decoded, bounded by ``max_buffered_body``."""
        if self._content is None and self._raw is None:
            self._content = self._collect()
        return self.content

    def _collect(self) -> bytes:
        pieces, size = [], 0
        for piece in self.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > self._limit:
                self.close()
                msg = "the response body is too large to be kept in memory"
                raise LimitExceeded(
                    msg, origin=parse_url(self._url).origin, option="max_buffered_body", limit=self._limit
                )
        return b"".join(pieces)

    def iter_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the body as it came over the wire, undecoded, ``chunk_size`` bytes at a time (default: as received)."""
        return _sized(self._pieces(), chunk_size)

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield the decoded body, ``chunk_size`` bytes at a time (default: as received)."""
        if self._content is not None:
            return _sized(iter((self._content,) if self._content else ()), chunk_size)
        return _sized(self._decoded_pieces(), chunk_size)

    def iter_text(self, chunk_size: int | None = None) -> Iterator[str]:
        """Yield the body as text, never splitting a character."""
        decoder = codecs.getincrementaldecoder(_codec(self.encoding))("replace")
        for piece in self.iter_bytes(chunk_size):
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def iter_lines(self) -> Iterator[str]:
        """Yield the lines of the text, without their ends."""
        held: list[str] = []  # pieces, so that a line without end costs no more than its length
        for text in self.iter_text():
            # A final \r may be the first half of \r\n: it waits for the next piece.
            joined = held.pop() + text if held and held[-1].endswith("\r") else text
            *lines, last = joined.splitlines(keepends=True)
            if last.endswith("\n"):
                lines.append(last)
            if lines:
                yield from "".join([*held, *lines]).splitlines()
                held.clear()
            if not last.endswith("\n"):
                held.append(last)
        yield from "".join(held).splitlines()

    def close(self) -> None:
        """Give the connection back. Idempotent; a no-op for a response that holds its whole body."""
        if self._source is not None:
            self._source.close()

    def _encodings(self) -> tuple[str, ...]:
        if self._headers is not None:  # which the caller may have changed
            return _codings(self._headers)
        head = self._head
        if head.encodings is None:
            head.encodings = _codings(Headers.from_raw(head.fields))
        return head.encodings

    def _pieces(self) -> Iterator[bytes]:
        if self._raw is not None:
            if self._raw:
                yield self._raw
            return
        source = self._source
        if source is None or self._consumed:
            msg = "the body of this response was read before"
            raise StreamConsumed(
                msg, origin=parse_url(self._url).origin, advice="keep what was read, or send the request again"
            )
        self._consumed = True
        try:
            while piece := source.read():
                self._drawn += len(piece)
                yield piece
        finally:
            source.close()

    def _decoded_pieces(self) -> Iterator[bytes]:
        encodings = self._encodings()
        if not encodings:
            yield from self._pieces()
            return
        decoder = Decoder(encodings)
        for piece in self._pieces():
            yield from decoder.pieces(piece)
        if decoded := decoder.flush():
            yield decoded

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.reason_phrase}]>"


def _shown(url: UrlTypes) -> str:
    """Return what of a URL may be shown to anybody: it without credentials, query and fragment."""
    return re.sub("//[^/]*@", "//", re.split("[?#]", str(url), maxsplit=1)[0])


def _codings(headers: Headers) -> tuple[str, ...]:
    """Return what the body is coded with, in the order in which it was."""
    names = (part.strip().lower() for part in headers.get("content-encoding", "").split(","))
    return tuple(name for name in names if name and name != "identity")


def _codec(charset: str) -> str:
    """Return the charset, or UTF-8 if text cannot be in it: its name comes from the server."""
    try:
        b"?".decode(charset, "replace")
    except (LookupError, ValueError):
        return "utf-8"
    return charset


def _sized(pieces: Iterator[bytes], size: int | None) -> Iterator[bytes]:
    """Cut ``pieces`` anew into pieces of ``size`` bytes; the last may be shorter."""
    if size is None:
        return pieces
    if size < 1:
        msg = f"chunk_size must be at least 1, not {size!r}"
        raise ValueError(msg)
    return _cut(pieces, size)


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece
        at = 0
        while len(held) - at >= size:
            yield bytes(held[at : at + size])
            at += size
        del held[:at]
    if held:
        yield bytes(held)
