"""An HTTP/2 request as it is sent: checked like any other, and written as far as it can be before a stream is had.

RFC 9113 section 8.3 says which fields a request has, RFC 7541 how they are written. Fields that are the same in most
requests are left to the connection, whose dynamic table turns each into a byte. All others, the path, tokens and
cookies among them, never enter a table (RFC 7541 section 7.1): they are literals, and written here, once, in the
caller's thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

from hpack.table import HeaderTable

from turbopool.bodies import Body
from turbopool.transport.wire import (
    DECIDING,
    IDEMPOTENT,
    Field,
    WireRequest,
    check_authority,
    check_fields,
    check_method,
    check_target,
    check_value,
    frame,
    write_request,
)

_STEADY = frozenset({b"accept", b"accept-encoding", b"accept-language", b"content-type", b"te", b"user-agent"})
"""Whose values repeat from request to request, and are no secrets."""
_SECRET = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
_NEVER_SENT = frozenset({
    b"connection", b"host", b"http2-settings", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""RFC 9113 section 8.2.2: they speak of a connection of another version. ``Host`` becomes ``:authority``."""
_LONGEST_STEADY = 256
"""Bytes of a value; a longer one would push others out of the table."""
_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))}
_NOT_INDEXED, _NEVER_INDEXED = 0x00, 0x10
_UNWRITTEN = (None, b"")
_Arguments = tuple[str, str, str, tuple[Sequence[Field], ...], "bytes | Body | None"]


class StreamRequest(WireRequest):
    """A request ready to be written on a stream.

    Attributes:
        named: the pseudo-fields that repeat: method, scheme, authority.
        path: the one that does not, written.
        steady: fields that repeat.
        literals: all others, written.
        written: the whole block as a connection wrote it last, and what that one knows by whether it still holds.
    """

    __slots__ = ("_given", "literals", "named", "path", "steady", "written")

    def __init__(  # noqa: PLR0913  # built in two places
        self,
        method: str,
        body: bytes | Body | None,
        *,
        idempotent: bool,
        named: tuple[Field, ...],
        path: bytes,
        steady: tuple[Field, ...],
        literals: bytes,
        given: _Arguments,
    ) -> None:
        self.method = method  # as the base does: to call it takes longer
        self.head = b""
        self.body = body
        self.chunked = self.closes = False
        self.idempotent = idempotent
        self.whole = None
        self.named = named
        self.path = path
        self.steady = steady
        self.literals = literals
        self._given = given
        self.written: tuple[object, bytes] = _UNWRITTEN

    def as_http1(self) -> WireRequest:
        """Return the same request as HTTP/1.1 has it: the server speaks nothing else."""
        method, target, authority, fields, body = self._given
        return write_request(method, target, authority, chain(*fields), body, "1.1")


def write_stream_request(
    scheme: str, method: str, target: str, authority: str, fields: Iterable[Field], body: bytes | Body | None
) -> StreamRequest:
    """Write a request for HTTP/2; the arguments are those of :func:`turbopool.transport.wire.write_request`.

    Raises:
        InvalidRequest: a part holds bytes that do not belong there, or the framing contradicts the body.
    """
    given = list(fields)
    verb, path = check_method(method), check_target(target)
    kept, seen = check_fields(given)
    host = seen.get(b"host") or check_authority(authority)
    framing, chunked = frame(method, body, seen, "1.1")
    if framing and not chunked:
        name, _, value = framing.partition(b": ")
        kept.append((name, value))
    steady, literals = _sorted(kept)
    return StreamRequest(
        method,
        body,
        idempotent=method in IDEMPOTENT or b"idempotency-key" in seen,
        named=((b":method", verb), (b":scheme", scheme.encode()), (b":authority", host)),
        path=literal(b":path", path),
        steady=steady,
        literals=literals,
        given=(method, target, authority, (given,), body),
    )


class Model:
    """Requests of one method to one server, without bodies: what they have in common is checked and written once.

    Args:
        scheme, method, authority: as of :func:`write_stream_request`.
        before, after: the fields of all, and where those of a single request stand among them.
    """

    __slots__ = ("_after", "_authority", "_before", "_names", "_wire")

    def __init__(
        self, scheme: str, method: str, authority: str, before: Sequence[Field], after: Sequence[Field]
    ) -> None:
        fields = (*before, *after)
        self._wire = write_stream_request(scheme, method, "/", authority, fields, None)
        self._names = frozenset(name.lower() for name, _ in fields)
        self._authority = authority
        self._before = before
        self._after = after

    def request(self, target: str, own: Sequence[Field]) -> StreamRequest | None:
        """Return one with fields of its own; None if they change what all have in common.

        Raises:
            InvalidRequest: as of :func:`write_stream_request`.
        """
        wire, names = self._wire, self._names
        literals = [wire.literals]
        for name, value in own:
            lowered, start = _begun(name)
            if start is None or lowered in names:
                return None
            checked = check_value(name, value)
            literals += (start, _size(len(checked)), checked)
        path = literal(b":path", check_target(target))
        given = (wire.method, target, self._authority, (self._before, own, self._after), None)
        return StreamRequest(
            wire.method, None, idempotent=wire.idempotent, named=wire.named, path=path, steady=wire.steady,
            literals=b"".join(literals), given=given,
        )  # fmt: skip


def _sorted(fields: list[Field]) -> tuple[tuple[Field, ...], bytes]:
    """Return the fields that repeat, and all others, written."""
    steady, literals = [], []
    for spelled, value in fields:
        name = spelled.lower()
        if name in _NEVER_SENT or (name == b"te" and value.lower() != b"trailers"):
            continue
        if name in _STEADY and len(value) <= _LONGEST_STEADY and b"boundary=" not in value:
            steady.append((name, value))
        else:
            literals.append(literal(name, value))
    return tuple(steady), b"".join(literals)


def literal(name: bytes, value: bytes) -> bytes:
    """Write a field that enters no table (RFC 7541 sections 6.2.2 and 6.2.3): it means the same on any connection."""
    return b"%b%b%b" % (_start(name), _size(len(value)), value)


@lru_cache(maxsize=1024)
def _begun(name: bytes) -> tuple[bytes, bytes | None]:
    """Return a name in lower case, and how its literal begins; None if it is more than a field among others."""
    lowered = name.lower()
    is_plain = lowered not in _STEADY and lowered not in _NEVER_SENT and lowered not in DECIDING
    return lowered, _start(lowered) if is_plain else None


@lru_cache(maxsize=1024)
def _start(name: bytes) -> bytes:
    """Write the name of a literal."""
    flags = _NEVER_INDEXED if name in _SECRET else _NOT_INDEXED
    index = _NAMES.get(name)
    return b"%c%b%b" % (flags, _size(len(name)), name) if index is None else integer(index, 4, flags)


def _size(size: int) -> bytes:
    """Write the length of a text that is not compressed."""
    return _SIZES[size] if size < _ONE_BYTE else integer(size, 7)


def integer(number: int, bits: int, flags: int = 0) -> bytes:
    """Write a number whose first byte has so many bits for it, the others being ``flags`` (RFC 7541 section 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        return bytes((flags | number,))
    written, number = bytearray((flags | most,)), number - most
    while number >= 0x80:  # noqa: PLR2004  # seven bits a byte
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


_ONE_BYTE = 127
_SIZES = tuple(integer(size, 7) for size in range(_ONE_BYTE))
