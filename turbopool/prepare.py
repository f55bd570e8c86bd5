"""From what a caller asks for to what goes over the wire: URL, headers, body and version put together and checked.

The result of a plain call, one with nothing but a method and a URL, is kept: services ask the same again and again.
Of a request over HTTP/2 that has fields of its own, what it shares with others is kept: see :class:`Model`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypedDict, TypeVar

from turbopool.bodies import Body, ContentTypes, FormTypes, encode_body
from turbopool.config import ClientOptions
from turbopool.config.timeouts import TimeoutTypes
from turbopool.decoding import accept_encoding
from turbopool.errors import InvalidRequest, UnsupportedVersion
from turbopool.headers import Headers, HeaderTypes, encode_fields
from turbopool.models import HttpVersion, Request, Unset, UrlTypes, VersionPolicy
from turbopool.stats import PoolKey
from turbopool.transport.http2_wire import Model, write_stream_request
from turbopool.transport.wire import Field, WireRequest, write_request
from turbopool.urls import QueryTypes, Url, parse_url, query_pairs

_KEPT = 512
"""Prepared requests kept by a handle, and models."""
_BUILT = frozenset({HttpVersion.HTTP_1_0, HttpVersion.HTTP_1_1, HttpVersion.HTTP_2})
_KNOWN = frozenset(HttpVersion)
_POLICIES = frozenset(VersionPolicy)

K = TypeVar("K")
V = TypeVar("V")


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


class _Kept:
    """What was prepared while a handle's defaults were the very objects of ``present``."""

    __slots__ = ("models", "prepared", "present")

    def __init__(self, present: tuple[Any, ...]) -> None:
        self.present = present
        self.prepared: dict[tuple[str, Any], Prepared] = {}
        self.models: dict[tuple[str, str], tuple[Model, PoolKey, bool] | None] = {}
        """By method and root of the URL: a model, the key, and whether it may lower; None over HTTP/1."""


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
        self._kept = _Kept(self._present())

    def plain(self, method: str, url: UrlTypes) -> Prepared:
        """Prepare a request that has nothing but a method and a URL."""
        kept = self._kept_now()
        try:
            found = kept.prepared.get((method, url))
        except TypeError:  # a URL object that cannot be hashed
            return self.prepare(Request(method, url))
        if found is None:
            found = self.prepare(Request(method, url))
            self._keep(kept, kept.prepared, (method, url), found)
        return found

    def _kept_now(self) -> _Kept:
        """Return what still holds; a new one if anything was changed, for another thread may still fill the old one."""
        kept = self._kept
        base_url, fields, params, version, policy = kept.present
        if (
            fields is self.headers.snapshot and base_url is self.base_url and params is self.params
            and version is self.http_version and policy is self.version_policy
        ):  # fmt: skip
            return kept
        kept = self._kept = _Kept(self._present())
        return kept

    def _keep(self, kept: _Kept, among: dict[K, V], name: K, value: V) -> None:
        if self._kept_now() is not kept:
            return  # changed while it was prepared, perhaps to what is not to be sent again
        if len(among) >= _KEPT:
            among.clear()
        among[name] = value

    def _present(self) -> tuple[Any, ...]:
        return (self.base_url, self.headers.snapshot, self.params, self.http_version, self.version_policy)

    def prepare(self, request: Request) -> Prepared:
        """Prepare any request.

        Raises:
            InvalidRequest: something about it cannot be sent.
            UnsupportedVersion: the version asked for is not built.
        """
        if not isinstance(request.method, str):
            msg = f"the method must be text, not {type(request.method).__name__}"
            raise InvalidRequest(msg, advice="pass a method such as 'GET'")
        url = parse_url(request.url, base=self.base_url, params=self._params(request))
        return self._modelled(request, url) or self._composed(request, url)

    def key(self, url: Url, version: str) -> PoolKey:
        """Return the pool that requests for a URL share."""
        scheme, host, port, _ = url.site
        return PoolKey(scheme, host, port, version, self._identity if scheme == "https" else None)

    def _composed(self, request: Request, url: Url) -> Prepared:
        """Put any request together."""
        asked, policy = self._version(request.http_version, request.version_policy)
        body, content_type = encode_body(json=request.json, data=request.data, content=request.content)
        fields = self._fields(request, content_type, body)
        site = url.site
        version, may_lower = chosen_version(asked, policy, site.scheme)
        wire: WireRequest
        if version == HttpVersion.HTTP_2:
            wire = write_stream_request(site.scheme, request.method, url.target, site.authority, fields, body)
        else:
            wire = write_request(request.method, url.target, site.authority, fields, body, version)
        return Prepared(request, url.text, self.key(url, version), wire, may_lower)

    def _modelled(self, request: Request, url: Url) -> Prepared | None:
        """Fill a model with the target and the fields of a request that has nothing else; None of any other."""
        if (
            request.json is not None or request.data is not None or request.content is not None
            or request.http_version is not None or request.version_policy is not None
        ):  # fmt: skip
            return None
        kept, name = self._kept_now(), (request.method, url.site.root)
        try:
            found = kept.models[name]
        except KeyError:
            found = self._model(request.method, url)
            self._keep(kept, kept.models, name, found)
        if found is None:
            return None
        model, key, may_lower = found
        wire = model.request(url.target, encode_fields(request.headers) if request.headers is not None else ())
        return None if wire is None else Prepared(request, url.text, key, wire, may_lower)

    def _model(self, method: str, url: Url) -> tuple[Model, PoolKey, bool] | None:
        site = url.site
        version, may_lower = chosen_version(*self._version(None, None), site.scheme)
        if version != HttpVersion.HTTP_2:
            return None
        model = Model(site.scheme, method, site.authority, *self._around([]))
        return model, self.key(url, version), may_lower

    def _version(self, version: str | None, policy: str | None) -> tuple[str, str]:
        return built_version(version or self.http_version), known_policy(policy or self.version_policy)

    def _params(self, request: Request) -> QueryTypes | None:
        if not self.params:
            return request.params
        own = query_pairs(request.params)
        names = {name for name, _ in own}
        return [*(pair for pair in self.params or () if pair[0] not in names), *own]

    def _fields(self, request: Request, content_type: str | None, body: bytes | Body | None) -> list[Field]:
        """Merge the fields: ours give way to the handle's, the handle's to the request's."""
        own = encode_fields(request.headers) if request.headers is not None else []
        before, after = self._around(own)
        fields = [*before, *own, *after]
        names = {name.lower() for name, _ in fields}
        if content_type is not None and b"content-type" not in names and body is not None:
            fields.append((b"content-type", content_type.encode()))
        return fields

    def _around(self, own: list[Field]) -> tuple[list[Field], list[Field]]:
        """Return the fields that are sent before and after those of a request: the handle's and ours."""
        names = {name.lower() for name, _ in own}
        before = [field for field in self.headers.raw if field[0].lower() not in names]
        names |= {name.lower() for name, _ in before}
        return before, [field for field in self._ours if field[0] not in names]


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
