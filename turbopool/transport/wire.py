"""The head of an HTTP/1.x request, written strictly: what does not belong there is refused, never repaired.

RFC 9112 sections 3 to 6 and RFC 9110 section 5.5 say what a request line and a field may hold; a CR or LF in any
of them would let a caller's data become a second request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from turbopool.bodies import Body
from turbopool.errors import InvalidRequest

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_DIGITS = re.compile(rb"[0-9]{1,19}")

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 section 9.2.2."""
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
DECIDING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"idempotency-key"})
"""Fields that decide how a request is framed, where it goes, or whether it is sent again."""

JOINED = 65_536
"""Bytes of a body up to which it is sent together with the head: copying is cheaper than a second system call."""

Field = tuple[bytes, bytes]


class WireRequest:
    """A request ready to be written: immutable bytes, shared by all attempts and, without a body, by many calls.

    Attributes:
        method: as sent.
        head: request line and fields, ending in the empty line.
        body: None, bytes, or a body drawn in pieces.
        chunked: whether the pieces are framed as chunks.
        closes: whether the connection ends with this exchange.
        idempotent: whether sending it twice is harmless by its method or its ``Idempotency-Key``.
        whole: head and body as one, if they go out in one send; else None.
    """

    __slots__ = ("body", "chunked", "closes", "head", "idempotent", "method", "whole")

    def __init__(self, method: str, head: bytes, body: bytes | Body | None, *, chunked: bool, closes: bool,
                 idempotent: bool) -> None:  # fmt: skip
        self.method = method
        self.head = head
        self.body = body
        self.chunked = chunked
        self.closes = closes
        self.idempotent = idempotent
        self.whole: bytes | None = None
        if body is None:
            self.whole = head
        elif isinstance(body, bytes) and len(body) <= JOINED:
            self.whole = head + body


def write_request(
    method: str, target: str, authority: str, fields: Iterable[Field], body: bytes | Body | None, version: str
) -> WireRequest:
    """Write the head of a request.

    Args:
        method: a token.
        target: the path and query, in wire form.
        authority: what goes into ``Host`` unless ``fields`` have one (HTTP/1.1 only).
        fields: name and value pairs, in the order they are to be sent.
        body: what follows; decides ``Content-Length`` and ``Transfer-Encoding``.
        version: ``"1.1"`` or ``"1.0"``.

    Raises:
        InvalidRequest: a part holds bytes that do not belong there, or the framing contradicts the body.
    """
    verb, path = check_method(method), check_target(target)
    lines = [b"%s %s HTTP/%s" % (verb, path, version.encode())]
    kept, seen = check_fields(fields)
    lines += [b"%s: %s" % field for field in kept]
    if b"host" not in seen and version != "1.0":
        lines.insert(1, b"host: " + check_authority(authority))
    framing, chunked = frame(method, body, seen, version)
    if framing:
        lines.append(framing)
    lines.append(b"\r\n")
    closes = version == "1.0" or b"close" in seen.get(b"connection", b"").lower()
    idempotent = method in IDEMPOTENT or b"idempotency-key" in seen
    return WireRequest(method, b"\r\n".join(lines), body, chunked=chunked, closes=closes, idempotent=idempotent)


def check_method(method: str) -> bytes:
    """Return a method in wire form.

    Raises:
        InvalidRequest: it is no token, or CONNECT.
    """
    if not _TOKEN.fullmatch(verb := _latin(method, "method")):
        msg = f"method {method!r} is not a token"
        raise InvalidRequest(msg, advice="use letters only, such as GET")
    if verb == b"CONNECT":  # RFC 9110 section 9.3.6: what follows a 2xx answer is no response, but the tunnel
        msg = "method CONNECT opens a tunnel, it is no request to a resource"
        raise InvalidRequest(msg, advice="use another method")
    return verb


def check_target(target: str) -> bytes:
    """Return a path and query in wire form.

    Raises:
        InvalidRequest: it holds what does not belong there.
    """
    if not _TARGET.fullmatch(path := _latin(target, "target")):
        msg = f"the request target {target[:80]!r} holds a space or a control byte"
        raise InvalidRequest(msg, advice="percent-encode it")
    return path


def check_authority(authority: str) -> bytes:
    """Return a host and port in wire form.

    Raises:
        InvalidRequest: it holds what does not belong there.
    """
    return _checked(b"host", _latin(authority, "host"))


def check_fields(fields: Iterable[Field]) -> tuple[list[Field], dict[bytes, bytes]]:
    """Return the fields to be sent, framing apart, and those that decide something, by name in lower case.

    Raises:
        InvalidRequest: a name or value holds what does not belong there, or what decides is given twice.
    """
    kept: list[Field] = []
    seen: dict[bytes, bytes] = {}
    for name, value in fields:
        checked = _checked(name, value)
        lowered = name.lower()
        if lowered in DECIDING:
            if lowered in seen:
                msg = f"header {name.decode()} was given twice"
                raise InvalidRequest(msg, advice="give it once")
            seen[lowered] = checked
            if lowered in (b"content-length", b"transfer-encoding"):
                continue
        kept.append((name, checked))
    return kept, seen


def _checked(name: bytes, value: bytes) -> bytes:
    if not _TOKEN.fullmatch(name):
        msg = f"header name {name[:80]!r} is not a token"
        raise InvalidRequest(msg, advice="use letters, digits and hyphens")
    return check_value(name, value)


def check_value(name: bytes, value: bytes) -> bytes:
    """Return the value of a field in wire form.

    Raises:
        InvalidRequest: it holds what does not belong there.
    """
    value = value.strip(b" \t")
    if not _VALUE.fullmatch(value):
        # The value itself may be a secret: it is not shown.
        msg = f"the value of header {name.decode()} holds a control byte such as CR, LF or NUL"
        raise InvalidRequest(msg, advice="remove it; fields cannot span lines")
    return value


def frame(method: str, body: bytes | Body | None, seen: dict[bytes, bytes], version: str) -> tuple[bytes, bool]:
    """Return the framing field, if one is due, and whether the body is sent in chunks.

    Raises:
        InvalidRequest: what the caller says of the framing contradicts the body.
    """
    given, coding = seen.get(b"content-length"), seen.get(b"transfer-encoding")
    length = 0 if body is None else len(body) if isinstance(body, bytes) else body.length
    if coding is not None:
        if given is not None or coding.lower() != b"chunked" or not isinstance(body, Body) or version == "1.0":
            msg = "transfer-encoding does not fit the request"
            raise InvalidRequest(msg, advice="leave content-length and transfer-encoding to turbopool")
        return b"transfer-encoding: chunked", True
    if given is not None:
        if not _DIGITS.fullmatch(given) or (length is not None and int(given) != length):
            msg = f"content-length {given[:40]!r} contradicts a body of {length} bytes"
            raise InvalidRequest(msg, advice="leave content-length to turbopool")
        if isinstance(body, Body):
            body.length = int(given)
        return b"content-length: " + given, False
    if length is None:
        if version == "1.0":
            msg = "HTTP/1.0 cannot send a body of unknown length"
            raise InvalidRequest(msg, advice="pass bytes, or a content-length header")
        return b"transfer-encoding: chunked", True
    if body is None and method not in _BODY_EXPECTED:
        return b"", False
    return b"content-length: %d" % length, False


def _latin(text: str, name: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        msg = f"the {name} {text[:80]!r} cannot be sent: {error.reason}"
        raise InvalidRequest(msg, advice="encode it first") from error
