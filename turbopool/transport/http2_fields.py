"""Header blocks of one HTTP/2 connection: ``hpack`` reads and writes them, what they say is judged here.

``h2`` never sees a field: where it carries the streams, it is told that there was a request, and the status of a
response, which is all that its state machine asks for. So a malformed response is its stream's misfortune, not the
connection's (RFC 9113 section 8.1.1), and a block that means the same as before is not read again.

A block means the same as long as neither table has changed: see :class:`CountedTable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from hpack import Decoder, Encoder
from hpack.table import HeaderTable, table_entry_size

from turbopool.errors import LimitExceeded, RemoteProtocolError, TurboPoolError, shorten
from turbopool.transport.head import Field, Limits, ResponseHead
from turbopool.transport.http2_wire import StreamRequest

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_STATUS = re.compile(rb"[1-9][0-9]{2}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_OF_A_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_OVERHEAD = 32
"""Bytes a field counts beside its own (RFC 9113 section 10.5.1)."""
_BURSTING = 4
"""Times the limit at which a block is not even read to its end; below, its stream alone fails."""
_KEPT = 256
"""Blocks remembered."""
_LONGEST_KEPT = 4096
"""Bytes of one, or those remembered would take tens of megabytes a connection."""
_LARGEST_TABLE = 4096
"""Bytes of the table our requests use, whatever a server offers."""
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class CountedTable(HeaderTable):
    """A dynamic table that counts its changes: what depends on it holds until the count moves.

    nginx inserts every field into a table that holds none: what leaves an empty table empty is no change.
    """

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Insert a field, which evicts others if need be."""
        if self.dynamic_entries or table_entry_size(name, value) <= self._maxsize:
            self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        """Its bound in bytes."""
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += newmax != self._maxsize
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class FieldWriter(Encoder):
    """Writes requests. ``h2`` asks it for a header block, and gets the one that was laid ready."""

    def __init__(self) -> None:
        super().__init__()
        self.header_table = self._table = CountedTable()
        self._ready = b""
        self._known: dict[tuple[Field, ...], bytes] = {}
        self._known_at = 0
        self._edition = object()

    def prepare(self, request: StreamRequest) -> bytes:
        """Lay the block of a request ready, and return it; one that is sent again and again remembers it."""
        table = self._table
        if table.changes != self._known_at:
            self._forget()
        edition, block = request.written
        if edition is not self._edition:
            edition, is_resized = self._edition, table.resized  # then it begins with the news of it, once
            block = self._write(request.named) + request.path + self._write(request.steady) + request.literals
            if table.changes == self._known_at and edition is self._edition and not is_resized:
                request.written = edition, block
        self._ready = block
        return block

    def encode(self, headers: Any, huffman: bool = True) -> bytes:  # noqa: ARG002, FBT001, FBT002, ANN401  # hpack's own
        """Return the block that was laid ready. Called by ``h2``."""
        return self._ready

    @property
    def header_table_size(self) -> int:
        """Bytes the server's table may hold."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, _LARGEST_TABLE)
        if size != self.header_table.maxsize:  # else hpack would forget a change that it has not told yet
            Encoder.header_table_size.fset(self, size)  # type: ignore[attr-defined]
            least = min(self.table_size_changes)  # and would tell them all, though the peer takes none above its last
            self.table_size_changes = [least, size] if least < size else [size]

    def _write(self, fields: tuple[Field, ...]) -> bytes:
        table = self._table
        if table.changes != self._known_at:
            self._forget()
        block = self._known.get(fields)
        if block is None:
            is_resized = table.resized  # then the block begins with the news of it, once
            block = super().encode(fields)
            if table.changes == self._known_at and not is_resized and len(self._known) < _KEPT:
                self._known[fields] = block
        return block

    def _forget(self) -> None:
        """What was written before means something else now."""
        self._known.clear()
        self._known_at = self._table.changes
        self._edition = object()


class FieldBlock:
    """What a header block says.

    Attributes:
        fields: without pseudo-fields.
        status: 0 of trailers.
        head: of a final response that is well-formed.
        length: what ``content-length`` promises, or None.
        problem: why its stream cannot go on, or None.
    """

    __slots__ = ("fields", "head", "length", "problem", "status")

    def __init__(self, fields: list[Field], problem: TurboPoolError | None = None) -> None:
        self.fields = fields
        self.status = 0
        self.head: ResponseHead | None = None
        self.length: int | None = None
        self.problem = problem


class FieldReader(Decoder):
    """Reads responses. ``h2`` asks it for the fields of a block, and is told the status."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(max_header_list_size=_BURSTING * limits.max_response_headers)
        self.header_table = self._table = CountedTable()
        self._limits = limits
        self._last = FieldBlock([])
        self._known: dict[bytes, FieldBlock] = {}
        self._known_at = 0

    def read(self, block: bytes) -> FieldBlock:
        """Read a block; every block of the connection, in order, whether or not anybody wants it.

        Raises:
            HPACKError: the table is lost, and the connection with it.
        """
        table = self._table
        if table.changes != self._known_at:
            self._known.clear()
            self._known_at = table.changes
        known = self._known.get(block)
        if known is None:
            fields = [(name, value) for name, value in super().decode(block, raw=True)]  # plain tuples: they are kept
            known = _judged(fields, self._limits)
            if table.changes == self._known_at and len(block) <= _LONGEST_KEPT:
                if len(self._known) >= _KEPT:  # of servers that use no table, blocks with yesterday's date
                    self._known.clear()
                self._known[block] = known
        self._last = known
        return known

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:  # noqa: ARG002, FBT001, FBT002  # hpack's own
        """Return the status of the block that was read last, or nothing of trailers. Called by ``h2``."""
        status = self._last.status
        return [(b":status", b"%d" % status)] if status else []


def _judged(fields: list[Field], limits: Limits) -> FieldBlock:
    """Say what a block's fields mean; RFC 9113 sections 8.1 to 8.3."""
    problem = _excess(fields, limits)
    if problem is not None:
        return FieldBlock([], problem)
    status = fields[0][1] if fields and fields[0][0] == b":status" else None
    plain = fields if status is None else fields[1:]
    fault = _fault(status, plain)
    if fault:
        return FieldBlock([], RemoteProtocolError(f"the response is malformed: {fault}", phase="recv"))
    block = FieldBlock(plain)
    block.length = next((int(value) for name, value in plain if name == b"content-length"), None)
    if status is not None:
        block.status = int(status)
        if block.status >= HTTPStatus.OK:
            block.head = ResponseHead(block.status, _REASONS.get(block.status, b""), plain, "2")
            block.head.keep_alive = True
    return block


def _fault(status: bytes | None, plain: list[Field]) -> str:
    """Return what makes a response malformed, or nothing."""
    if status is not None and not _STATUS.fullmatch(status):
        return f"status {shorten(status)} is none"
    lengths = set()
    for name, value in plain:
        if not _NAME.fullmatch(name):
            return f"field name {shorten(name)} is none"
        if not _VALUE.fullmatch(value):
            return f"the value of field {shorten(name)} holds what does not belong there"
        if name in _OF_A_CONNECTION:
            return f"field {shorten(name)} has no meaning in HTTP/2"
        if name == b"content-length":
            lengths.add(value)
    if lengths and (len(lengths) > 1 or not _LENGTH.fullmatch(lengths.pop())):
        return "content-length is no number, or two"
    return ""


def _excess(fields: list[Field], limits: Limits) -> LimitExceeded | None:
    if sum(len(name) + len(value) + _OVERHEAD for name, value in fields) > limits.max_response_headers:
        return _exceeded("max_response_headers", limits.max_response_headers)
    if len(fields) > limits.max_header_count:
        return _exceeded("max_header_count", limits.max_header_count)
    return None


def _exceeded(option: str, limit: int) -> LimitExceeded:
    msg = f"the header section of the response exceeds {option}"
    return LimitExceeded(msg, option=option, limit=limit, advice=f"raise {option}", phase="recv")
