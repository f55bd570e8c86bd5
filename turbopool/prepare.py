"""From what a caller asks for to what goes over the wire: URL, headers, body and version put together and checked.

The result of a plain call, one with nothing but a method and a URL, is kept: services ask the same again and again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

from turbopool.bodies import Body, ContentTypes, FormTypes, encode_body
from turbopool.config import ClientOptions
from turbopool.config.timeouts import TimeoutTypes
from turbopool.decoding import accept_encoding
from turbopool.errors import InvalidRequest, UnsupportedVersion
from turbopool.headers import Headers, HeaderTypes
from turbopool.models import HttpVersion, Request, Unset, UrlTypes, VersionPolicy
from turbopool.stats import PoolKey
from turbopool.transport.http2_wire import write_stream_request
from turbopool.transport.wire import Field, WireRequest, write_request
from turbopool.urls import QueryTypes, Url, parse_url, query_pairs

_KEPT = 512
"""Prepared requests kept by a handle."""
_BUILT = frozenset({HttpVersion.HTTP_1_0, HttpVersion.HTTP_1_1, HttpVersion.HTTP_2})
_KNOWN = frozenset(HttpVersion)
_POLICIES = frozenset(VersionPolicy)


class RequestParts(TypedDict, total=False):
    """The parts of a request that a call may name; see :class:`Request`."""

    params: QueryTypes | None
    headers: HeaderTypes | None
    json: object
    data: FormTypes | ContentTypes | None
    content: ContentTypes | None
    timeout: TimeoutTypes | Unset
    http_version: str | None
    version_policy: str | None
    extensions: Mapping[str, object] | None


class Prepared(NamedTuple):
    """A request ready to be sent, as often as one likes if it has no body that is drawn."""

    request: Request
    url: str
    key: PoolKey
    wire: WireRequest
    may_lower: bool
    """Whether it may go over HTTP/1.1 if the server does not speak the key's version."""


class Defaults:
    """What a handle adds to every request, and may be changed between requests.

    Attributes:
        base_url, headers, params: added to every request; its own win.
        http_version, version_policy: used unless a request has its own.
    """

    def __init__(self, options: ClientOptions, user_agent: str, identity: Hashable) -> None:
        self.base_url = None if options.base_url is None else str(options.base_url)
        self.headers = Headers(options.headers)
        self.params = tuple(query_pairs(options.params))
        self.http_version = options.http_version
        self.version_policy = options.version_policy
        self._identity = identity
        self._ours = [
            (b"accept", b"*/*"),
            (b"accept-encoding", accept_encoding().encode()),
            (b"user-agent", user_agent.encode()),
        ]
        self._kept: dict[tuple[str, Any], Prepared] = {}
        self._kept_for: tuple[Any, ...] = ()

    def plain(self, method: str, url: UrlTypes) -> Prepared:
        """Prepare a request that has nothing but a method and a URL."""
        present = self._present()
        kept = self._kept
        if present != self._kept_for:  # a new dict: another thread may still fill the old one with what is outdated
            kept = self._kept = {}
            self._kept_for = present
        try:
            found = kept.get((method, url))
        except TypeError:  # a URL object that cannot be hashed
            return self.prepare(Request(method, url))
        if found is None:
            found = self.prepare(Request(method, url))
            if self._present() != present:
                return found  # changed while it was prepared, perhaps to what is not to be sent again
            if len(kept) >= _KEPT:
                kept.clear()
            kept[method, url] = found
        return found

    def _present(self) -> tuple[Any, ...]:
        return (self.base_url, self.headers.raw, self.params, self.http_version, self.version_policy)

    def prepare(self, request: Request) -> Prepared:
        """Prepare any request.

        Raises:
            InvalidRequest: something about it cannot be sent.
            UnsupportedVersion: the version asked for is not built.
        """
        if not isinstance(request.method, str):
            msg = f"the method must be text, not {type(request.method).__name__}"
            raise InvalidRequest(msg, advice="pass a method such as 'GET'")
        asked, policy = self._version(request)
        url = parse_url(request.url, base=self.base_url, params=self._params(request))
        body, content_type = encode_body(json=request.json, data=request.data, content=request.content)
        fields = self._fields(request, content_type, body)
        version, may_lower = chosen_version(asked, policy, url.scheme)
        wire: WireRequest
        if version == HttpVersion.HTTP_2:
            wire = write_stream_request(url.scheme, request.method, url.target, url.authority, fields, body)
        else:
            wire = write_request(request.method, url.target, url.authority, fields, body, version)
        return Prepared(request, url.text, self.key(url, version), wire, may_lower)

    def key(self, url: Url, version: str) -> PoolKey:
        """Return the pool that requests for a URL share."""
        return PoolKey(url.scheme, url.host, url.port, version, self._identity if url.scheme == "https" else None)

    def _version(self, request: Request) -> tuple[str, str]:
        version = request.http_version or self.http_version
        policy = known_policy(request.version_policy or self.version_policy)
        return built_version(version), policy

    def _params(self, request: Request) -> QueryTypes | None:
        if not self.params:
            return request.params
        own = query_pairs(request.params)
        names = {name for name, _ in own}
        return [*(pair for pair in self.params or () if pair[0] not in names), *own]

    def _fields(self, request: Request, content_type: str | None, body: bytes | Body | None) -> list[Field]:
        """Merge the fields: ours give way to the handle's, the handle's to the request's."""
        own = Headers(request.headers).raw if request.headers is not None else []
        fields = _merged(self.headers.raw, own)
        names = {name.lower() for name, _ in fields}
        fields += [field for field in self._ours if field[0] not in names]
        if content_type is not None and b"content-type" not in names and body is not None:
            fields.append((b"content-type", content_type.encode()))
        return fields


def built_version(version: str) -> str:
    """Return the version.

    Raises:
        InvalidRequest: nobody knows it.
        UnsupportedVersion: it is not built.
    """
    if known_version(version) not in _BUILT:
        msg = f"HTTP/{version} is not available in this release"
        raise UnsupportedVersion(msg, version=str(version), advice="ask for http_version='1.1'")
    return str(version)


def chosen_version(version: str, policy: str, scheme: str) -> tuple[str, bool]:
    """Return the version to try first, and whether HTTP/1.1 will do as well.

    What TLS can negotiate is tried from the top: a lower version costs nothing then. In clear there is nobody to ask,
    so HTTP/2 is sent to whoever asks for it, by prior knowledge, and to nobody else (RFC 9113 section 3.3).
    """
    if version == HttpVersion.HTTP_1_1 and policy == VersionPolicy.OR_HIGHER and scheme == "https":
        return HttpVersion.HTTP_2.value, True
    return version, version == HttpVersion.HTTP_2 and policy == VersionPolicy.OR_LOWER


def known_version(version: str) -> str:
    """Return the version.

    Raises:
        InvalidRequest: nobody knows it.
    """
    if version not in _KNOWN:
        msg = f"http_version {version!r} is none of {', '.join(HttpVersion)}"
        raise InvalidRequest(msg, advice="use HttpVersion")
    return str(version)


def known_policy(policy: str) -> str:
    """Return the version policy.

    Raises:
        InvalidRequest: nobody knows it.
    """
    if policy not in _POLICIES:
        msg = f"version_policy {policy!r} is none of {', '.join(VersionPolicy)}"
        raise InvalidRequest(msg, advice="use VersionPolicy")
    return str(policy)


def _merged(lower: Iterable[Field], upper: list[Field]) -> list[Field]:
    names = {name.lower() for name, _ in upper}
    return [*(field for field in lower if field[0].lower() not in names), *upper]
