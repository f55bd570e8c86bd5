"""Preparing a request out of what it shares with others gives what putting it together anew gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turbopool import ClientOptions, InvalidRequest, Request
from turbopool.prepare import Defaults, Prepared
from turbopool.transport.http2_wire import StreamRequest

NAMES = st.sampled_from([
    "X-A", "x-b", "authorization", "cookie", "accept", "Accept-Encoding", "User-Agent", "te", "Host", "Connection",
    "content-length", "transfer-encoding", "Idempotency-Key", "upgrade", "content-type", "",
])  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["0", "5", "trailers", "chunked", "close", " padded\t", "x" * 126, "y" * 300, "a\nb", "\u0101"]),
    st.text(st.characters(max_codepoint=0x180), max_size=5),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
SHARED = st.lists(
    st.tuples(NAMES.filter(str.strip), st.sampled_from(["0", "trailers", "close", "z" * 300])), max_size=3
)


def outcome(defaults: Defaults, request: Request) -> list[object]:
    """All that goes over the wire."""
    try:
        prepared = defaults.prepare(request)
    except InvalidRequest:
        return []  # which of several faults is found first does not matter
    wire = prepared.wire
    assert isinstance(wire, StreamRequest)
    return [prepared.url, prepared.key, prepared.may_lower, wire.method, wire.body, wire.idempotent, wire.named,
            wire.path, wire.steady, wire.literals, wire.as_http1().head]  # fmt: skip


@given(st.sampled_from(["GET", "POST", "get", "CONNECT", "G T"]), SHARED, FIELDS)
def test_a_request_with_fields_of_its_own_is_what_it_is_without_a_model(
    method: str, shared: list[tuple[str, str]], own: list[tuple[str, str]]
) -> None:
    """One that names its version is put together anew."""
    defaults = Defaults(ClientOptions(http_version="2", headers=shared), "agent", "tls")

    for path in ("/a", "/b?c"):
        first, second = Request(method, f"https://h{path}", headers=own), Request(method, f"https://h{path}")
        for request in (first, second):
            anew = Request(method, request.url, headers=request.headers, http_version="2")
            assert outcome(defaults, request) == outcome(defaults, anew)


def prepared(defaults: Defaults, url: str) -> Prepared:
    return defaults.prepare(Request("GET", url, headers={"x": "1"}))


def test_what_is_changed_between_requests_holds_from_then_on() -> None:
    """BEH-C7: headers, version and policy."""
    defaults = Defaults(ClientOptions(http_version="2"), "agent", "tls")
    before = prepared(defaults, "https://h/1").wire

    defaults.headers["x-of-all"] = "2"
    after = prepared(defaults, "https://h/2").wire
    assert isinstance(before, StreamRequest)
    assert isinstance(after, StreamRequest)
    assert b"x-of-all" not in before.literals
    assert b"x-of-all" in after.literals

    defaults.http_version = "1.1"
    assert prepared(defaults, "https://h/3").key.version == "1.1"


def test_requests_to_different_servers_share_no_model() -> None:
    defaults = Defaults(ClientOptions(http_version="2"), "agent", "tls")
    urls = ["https://a/", "https://b/", "https://a:444/", "http://a/"]

    keys = [prepared(defaults, url).key for url in urls]

    assert [key.origin for key in keys] == ["https://a:443", "https://b:443", "https://a:444", "http://a:80"]
    assert [key.identity for key in keys] == ["tls", "tls", "tls", None]
