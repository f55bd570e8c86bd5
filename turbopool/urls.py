"""URLs: parsed once, strictly, into what a request needs.

1. A relative reference is appended to the path of the base, with or without a leading slash; an absolute URL ignores
   the base.
2. What must be percent-encoded is; an existing ``%XX`` is kept. The host is lower-cased, IDNA-encoded, and loses one
   trailing dot, so that equal hosts have one spelling.
3. Whatever could be read in two ways is refused: credentials, control characters, odd hosts and ports.

Results are cached, because services ask for the same URLs again. No message shows a URL whole: it may hold a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias
from urllib.parse import parse_qsl, urlencode

from turbopool.errors import InvalidRequest

Primitive: TypeAlias = str | int | float | bool | None

QueryTypes: TypeAlias = (
    str
    | bytes
    | Mapping[str, str]
    | Mapping[str, int]
    | Mapping[str, str | int]
    | Mapping[str, Primitive]
    | Mapping[str, Primitive | list[Primitive] | tuple[Primitive, ...]]
    | Mapping[str, object]
    | Iterable[tuple[str, Primitive]]
)
"""What query parameters may be given as. A list repeats the name, None leaves it out, True is ``true``."""

_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65_535
_MAX_HOST = 253
_CACHED_LENGTH = 1024

_USUAL = re.compile(r"([A-Za-z]+://[^/?#]*)(/[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]]*)")
_USUAL_PATH = re.compile(r"/(?!/)[A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]]*")
"""What is in wire form already, but for segments that are dots."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*)(.*)", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_HOST = re.compile(r"(?:[a-z0-9_~\-]{1,63}\.)*[a-z0-9_~\-]{1,63}")
_UNSAFE = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~!$&'()*+,;=:@/?\[\]%]")


class SupportsStr(Protocol):
    """Anything whose ``str()`` is a URL, such as the URL classes of other libraries."""

    def __str__(self) -> str:
        """Return the URL."""
        ...


class Site(NamedTuple):
    """Where URLs lead that differ in their targets alone."""

    scheme: str
    """``http`` or ``https``."""

    host: str
    """Lower case, ASCII, without brackets and trailing dot."""

    port: int
    """The port to connect to."""

    root: str
    """Its URLs begin with it."""

    @property
    def authority(self) -> str:
        """What the Host field says: the port is left out where it is the scheme's own (RFC 9110 section 7.2)."""
        host = _bracketed(self.host.partition("%")[0])
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """``scheme://host:port``, as errors name a server."""
        return f"{self.scheme}://{_bracketed(self.host)}:{self.port}"


class Url(NamedTuple):
    """An absolute URL, ready to be requested."""

    site: Site

    target: str
    """Path and query in wire form; starts with a slash."""

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return self.site.scheme

    @property
    def origin(self) -> str:
        """``scheme://host:port``, as errors name a server."""
        return self.site.origin

    @property
    def text(self) -> str:
        """The whole URL in its one spelling, without credentials and fragment."""
        return self.site.root + self.target

    def __str__(self) -> str:
        return self.text


def parse_url(url: str | SupportsStr, *, base: str | None = None, params: QueryTypes | None = None) -> Url:
    """Return the URL of a request.

    Args:
        url: absolute, or a path that is appended to ``base``.
        base: an absolute URL without a query; its path counts as a folder.
        params: added to the query that ``url`` has.

    Raises:
        InvalidRequest: it is no http(s) URL that can be requested; the message says what is wrong.
    """
    if url is None or isinstance(url, bytes | bytearray):
        msg = f"a URL of type {type(url).__name__} cannot be requested"
        raise InvalidRequest(msg, advice="pass a str")
    text = str(url)
    parsed = _usual(text, base)
    if parsed is None:
        parsed = _parse_cached(text, base) if len(text) <= _CACHED_LENGTH else _parse(text, base)
    query = query_string(params) if params is not None else ""
    return _with_query(parsed, query) if query else parsed


@lru_cache(maxsize=64)
def parse_base(text: str) -> Url:
    """Return a base URL.

    Raises:
        InvalidRequest: it is not absolute, or has a query or fragment.
    """
    if "?" in text or "#" in text:
        msg = "a base URL has no query and no fragment"
        raise InvalidRequest(msg, advice="give the query as params= of the client")
    parsed = _parse(text, None)
    return Url(parsed.site, parsed.target.rstrip("/") + "/")


def query_pairs(params: QueryTypes | None) -> list[tuple[str, str]]:
    """Return query parameters as pairs of decoded text.

    Raises:
        InvalidRequest: they are of no type that can be a query.
    """
    if params is None:
        return []
    if isinstance(params, str | bytes):
        query = params if isinstance(params, str) else params.decode("latin-1")
        return parse_qsl(query.removeprefix("?"), keep_blank_values=True)
    items = params.items() if isinstance(params, Mapping) else params
    try:
        return [
            (str(name), "true" if value is True else "false" if value is False else str(value))
            for name, values in items
            for value in (values if isinstance(values, list | tuple) else (values,))
            if value is not None
        ]
    except (TypeError, ValueError) as error:
        msg = "params cannot be written as a query"
        raise InvalidRequest(msg, advice="pass a mapping, a list of pairs, or text") from error


def query_string(params: QueryTypes) -> str:
    """Return query parameters in wire form, without a question mark. Text keeps its own encoding.

    Raises:
        InvalidRequest: they are of no type that can be a query, or cannot be encoded.
    """
    if isinstance(params, bytes):
        params = params.decode("latin-1")
    if isinstance(params, str):
        _refuse_control(params, "the query")
        return _quote(params.removeprefix("?").replace("#", "%23"))
    try:
        return urlencode(query_pairs(params))
    except UnicodeEncodeError:
        msg = "params hold text that UTF-8 cannot encode"
        raise InvalidRequest(msg, advice="remove lone surrogates") from None


def _with_query(url: Url, query: str) -> Url:
    path, mark, old = url.target.partition("?")
    joined = f"{old}&{query}" if mark and old else query
    return Url(url.site, f"{path}?{joined}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _usual(text: str, base: str | None) -> Url | None:
    """Return what :func:`_parse` would, of a URL that is in wire form already; None of any other."""
    if "/." in text:
        return None
    if base is not None and _USUAL_PATH.fullmatch(text):
        root = parse_base(base)
        return Url(root.site, root.target + text[1:])
    found = _USUAL.fullmatch(text)
    return Url(_site(found[1]), found[2]) if found is not None else None


def _parse(text: str, base: str | None) -> Url:
    _refuse_control(text, "the URL")
    if found := _ABSOLUTE.fullmatch(text):
        return Url(_site(found[1]), _target("", found[2]))
    if base is None or text.startswith("//") or text[:6].lower() in {"http:/", "https:"}:
        raise _not_absolute(text)
    root = parse_base(base)
    return Url(root.site, _target(root.target, text))


_parse_cached = lru_cache(maxsize=512)(_parse)


def _refuse_control(text: str, what: str) -> None:
    if found := _CONTROL.search(text):
        msg = f"{what} holds the control character {found[0]!r} at position {found.start()}"
        raise InvalidRequest(msg, advice="remove it or percent-encode it")


def _not_absolute(text: str) -> InvalidRequest:
    if text.startswith("//"):
        return InvalidRequest("the URL starts with //, so it has a host but no scheme", advice="write the scheme")
    if found := _SCHEME.match(text):
        msg = f"the URL has no host: after '{found[1][:20]}:' comes no '//'"
        return InvalidRequest(msg, advice="write http://host/path")
    return InvalidRequest("the URL is relative", advice="write http://host/path, or give the client a base_url")


@lru_cache(maxsize=512)
def _site(root: str) -> Site:
    """Return where a URL leads that begins with this: a scheme and an authority."""
    _refuse_control(root, "the URL")
    scheme, _, netloc = root.partition("://")
    scheme = scheme.lower()
    host, port = _server(scheme, netloc)
    shown = _bracketed(host.replace("%", "%25"))
    return Site(scheme, host, port, f"{scheme}://{shown}" if port == _PORTS[scheme] else f"{scheme}://{shown}:{port}")


def _server(scheme: str, netloc: str) -> tuple[str, int]:
    """Return host and port of an authority."""
    if scheme not in _PORTS:
        raise InvalidRequest(f"the URL scheme '{scheme[:20]}' is unknown", advice="use http or https")
    if "@" in netloc:
        msg = "the URL holds credentials (before the @)"
        raise InvalidRequest(msg, advice="send them in an Authorization header instead")
    found = _AUTHORITY.fullmatch(netloc)
    if found is None:
        raise InvalidRequest("the host or port of the URL is malformed", advice="write host, host:port or [IPv6]:port")
    host, port = found.groups()
    number = _PORTS[scheme]
    if port:
        number = int(port[:6])
        if len(port) > 5 or not 0 < number <= _MAX_PORT:  # noqa: PLR2004  # digits of the largest port
            raise InvalidRequest(f"the port {port[:12]} of the URL is out of range", advice="use 1 to 65535")
    return _address(host) if host.startswith("[") else _name(host), number


def _address(literal: str) -> str:
    """Return an IPv6 literal in its shortest form; a zone (RFC 6874) is kept after a plain ``%``."""
    try:
        return str(ipaddress.IPv6Address(literal[1:-1].replace("%25", "%", 1)))
    except ValueError as error:
        msg = f"the host {literal[:60]} of the URL is no IPv6 address"
        raise InvalidRequest(msg, advice="check the text in brackets") from error


def _name(host: str) -> str:
    name = host
    # IDNA costs time quadratic in the length of a label, so length is looked at first.
    if len(name) <= _MAX_HOST and not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise InvalidRequest("the host of the URL is not a valid IDNA name", advice="check its spelling") from error
    name = name.lower().removesuffix(".")
    if not name:
        raise InvalidRequest("the URL has no host", advice="write http://host/path")
    if len(name) > _MAX_HOST or not _HOST.fullmatch(name):
        msg = f"the host {host[:60]!a} of the URL is not a valid name"
        raise InvalidRequest(msg, advice="use letters, digits, hyphens and dots")
    return name


def _target(folder: str, reference: str) -> str:
    """Return the wire form of path and query; ``folder`` ends with a slash or is empty."""
    path, mark, query = reference.partition("#")[0].partition("?")
    path = folder + path.lstrip("/") if folder else path or "/"
    path = _quote(path)
    if "/." in path:
        path = _without_dots(path)
    return f"{path}?{_quote(query)}" if mark else path


def _quote(text: str) -> str:
    try:
        return _UNSAFE.sub(_percent, text)
    except UnicodeEncodeError:
        msg = "the URL holds text that UTF-8 cannot encode"
        raise InvalidRequest(msg, advice="remove lone surrogates") from None


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def _without_dots(path: str) -> str:
    """Resolve ``.`` and ``..`` segments (RFC 3986 section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
