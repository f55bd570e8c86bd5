"""An HTTP/2 request as it is sent: checked like any other, and written as far as it can be before a stream is had.

RFC 9113 section 8.3 says which fields a request has, RFC 7541 how they are written. Fields that are the same in most
requests are left to the connection, whose dynamic table turns each into a byte. All others, the path, tokens and
cookies among them, never enter a table (RFC 7541 section 7.1): they are literals, and written here, once, in the
caller's thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack.hpack import encode_integer
from hpack.table import HeaderTable

from turbopool.bodies import Body
from turbopool.transport.wire import (
    IDEMPOTENT,
    Field,
    WireRequest,
    check_authority,
    check_fields,
    check_method,
    check_target,
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
_Arguments = tuple[str, str, str, list[Field], "bytes | Body | None"]


class StreamRequest(WireRequest):
    """A request ready to be written on a stream.

    Attributes:
        named: the pseudo-fields that repeat: method, scheme, authority.
        path: the one that does not, written.
        steady: fields that repeat.
        literals: all others, written.
    """

    __slots__ = ("_given", "literals", "named", "path", "steady")

    def __init__(  # noqa: PLR0913  # built in one place
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
        super().__init__(method, b"", body, chunked=False, closes=False, idempotent=idempotent)
        self.named = named
        self.path = path
        self.steady = steady
        self.literals = literals
        self._given = given

    def as_http1(self) -> WireRequest:
        """Return the same request as HTTP/1.1 has it: the server speaks nothing else."""
        return write_request(*self._given, "1.1")


def write_stream_request(
    scheme: str, method: str, target: str, authority: str, fields: Iterable[Field], body: bytes | Body | None
) -> StreamRequest:
    """Write a request for HTTP/2; the arguments are those of :func:`turbopool.transport.wire.write_request`.

    Raises:
        InvalidRequest: a part holds bytes that do not belong there, or the framing contradicts the body.
    """
    given = (method, target, authority, list(fields), body)
    verb, path = check_method(method), check_target(target)
    kept, seen = check_fields(given[3])
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
        given=given,
    )


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
    flags = _NEVER_INDEXED if name in _SECRET else _NOT_INDEXED
    index = _NAMES.get(name)
    if index is None:
        start = b"%c%b%b" % (flags, bytes(encode_integer(len(name), 7)), name)
    else:
        prefix = encode_integer(index, 4)
        prefix[0] |= flags
        start = bytes(prefix)
    return b"%b%b%b" % (start, bytes(encode_integer(len(value), 7)), value)
