"""What goes over the wire: URL, headers and body put together, and refused where they do not belong there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from tests.face.handlers import AnyForm, Echoed
from tests.servers.raw import RawServer
from turbopool import Client, Headers, InvalidRequest, Request, __version__

# -- headers -------------------------------------------------------------------------------------------------


def test_a_plain_request_carries_host_and_our_defaults(client: Client, server: RawServer) -> None:
    seen = Echoed.of(client.get("/x"))

    names = [name.lower() for name, _ in seen.headers]
    assert names[0] == "host"
    assert sorted(names) == ["accept", "accept-encoding", "host", "user-agent"]
    assert seen.all("host") == [f"127.0.0.1:{server.port}"]
    assert seen.all("user-agent") == [f"turbopool/{__version__}"]
    assert "gzip" in seen.all("accept-encoding")[0]


def test_a_requests_headers_win_over_the_clients_and_those_over_ours(server: RawServer) -> None:
    """BEH-C8: defaults do not override."""
    defaults = {"X-Both": "client", "X-Client": "client", "User-Agent": "client/1"}
    with Client(base_url=server.url, headers=defaults) as client:
        seen = Echoed.of(client.get("/x", headers={"x-both": "request", "ACCEPT": "text/plain"}))

    assert seen.all("x-both") == ["request"]
    assert seen.all("x-client") == ["client"]
    assert seen.all("user-agent") == ["client/1"]
    assert seen.all("accept") == ["text/plain"]


def test_headers_go_out_in_the_callers_order_and_spelling(client: Client) -> None:
    headers = [("X-One", "1"), ("x-TWO", "2"), ("X-One", "3")]

    seen = Echoed.of(client.get("/x", headers=headers))

    assert [field for field in seen.headers if field[0].lower().startswith("x-")] == headers


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "é"}, [("X-A", "é")], [(b"X-A", b"\xe9")], Headers({"X-A": "é"})],
    ids=["mapping", "pairs", "bytes", "headers"],
)
def test_headers_may_be_given_in_any_form(client: Client, headers: AnyForm) -> None:
    assert Echoed.of(client.get("/x", headers=headers)).all("x-a") == ["é"]


def test_an_empty_value_and_outer_spaces_are_harmless(client: Client) -> None:
    seen = Echoed.of(client.get("/x", headers={"X-Empty": "", "X-Spaced": " \tvalue\t "}))

    assert (seen.all("x-empty"), seen.all("x-spaced")) == ([""], ["value"])


def test_a_host_header_of_ones_own_replaces_ours(client: Client) -> None:
    assert Echoed.of(client.get("/x", headers={"Host": "virtual.example"})).all("host") == ["virtual.example"]


def test_connection_close_is_sent_and_kept_to(client: Client, server: RawServer) -> None:
    for _ in range(2):
        assert Echoed.of(client.get("/x", headers={"Connection": "close"})).all("connection") == ["close"]

    assert len(server.connections) == 2


BAD_NAMES = ["", "a b", "a:b", "a\r\nb", "a\0", "é", "a\x7f", " a", "a\n"]
BAD_VALUES = ["\r\nX-Evil: 1", "\rb", "\nb", "\0b", "\x0b", "\x7f", "\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_header_name_that_is_no_token_is_refused_before_anything_is_sent(
    client: Client, server: RawServer, name: str, kind: type
) -> None:
    given: AnyForm = name if kind is str else name.encode("latin-1")

    with pytest.raises(InvalidRequest, match="header name") as caught:
        client.send_async("GET", "/x", headers={given: "v"})

    assert caught.value.advice is not None
    assert (caught.value.request_sent, caught.value.processed) == (False, "no")
    assert server.connections == []


@pytest.mark.parametrize(
    "value", [*("hush" + bad for bad in BAD_VALUES), *(b"hush" + bad.encode() for bad in BAD_VALUES), "hush\u20ac"]
)
def test_a_header_value_that_could_end_its_line_is_refused_and_not_shown(
    client: Client, server: RawServer, value: str | bytes
) -> None:
    with pytest.raises(InvalidRequest, match="X-Token") as caught:
        client.send_async("GET", "/x", headers=[("X-Token", value)])

    assert "hush" not in str(caught.value)
    assert server.connections == []


@pytest.mark.parametrize("headers", [{"a": 1}, {"a": None}, {1: "a"}, "a: b", 5, [("a", "b", "c")], [1]])
def test_what_is_no_header_is_refused(client: Client, server: RawServer, headers: AnyForm) -> None:
    with pytest.raises(InvalidRequest, match="header"):
        client.send_async("GET", "/x", headers=headers)

    assert server.connections == []


@pytest.mark.parametrize(
    ("headers", "content", "wrong"),
    [
        ({"Content-Length": "5"}, b"four", "content-length"),
        ({"Content-Length": "5"}, None, "content-length"),
        ({"Content-Length": "-1"}, b"x", "content-length"),
        ({"Content-Length": "+1"}, b"x", "content-length"),
        ({"Content-Length": "1, 1"}, b"x", "content-length"),
        ({"Content-Length": "9" * 30}, iter([b"x"]), "content-length"),
        ([("Content-Length", "1"), ("content-length", "1")], b"x", "twice"),
        ([("Host", "a"), ("host", "b")], None, "twice"),
        ({"Transfer-Encoding": "chunked"}, b"x", "transfer-encoding"),
        ({"Transfer-Encoding": "chunked"}, None, "transfer-encoding"),
        ({"Transfer-Encoding": "gzip, chunked"}, iter([b"x"]), "transfer-encoding"),
        ({"Transfer-Encoding": "chunked", "Content-Length": "1"}, iter([b"x"]), "transfer-encoding"),
    ],
)
def test_framing_that_contradicts_the_body_is_refused(
    client: Client,
    server: RawServer,
    headers: AnyForm,
    content: AnyForm,
    wrong: str,  # many forms
) -> None:
    with pytest.raises(InvalidRequest, match=wrong) as caught:
        client.send_async("POST", "/x", headers=headers, content=content)

    assert caught.value.advice is not None
    assert server.connections == []


def test_framing_that_agrees_with_the_body_is_sent_once(client: Client) -> None:
    sized = Echoed.of(client.post("/x", content=b"four", headers={"content-length": "4"}))
    drawn = Echoed.of(client.post("/x", content=iter([b"fo", b"ur"]), headers={"Content-Length": "4"}))
    chunked = Echoed.of(client.post("/x", content=iter([b"four"]), headers={"Transfer-Encoding": "chunked"}))

    assert [seen.body for seen in (sized, drawn, chunked)] == [b"four"] * 3
    assert sized.all("content-length") == drawn.all("content-length") == ["4"]
    assert (chunked.all("transfer-encoding"), chunked.all("content-length")) == (["chunked"], [])


@pytest.mark.parametrize("method", ["", "G T", "GET\r\n", "GET\0", "GÉT", "GET:", b"GET", None, 1])
def test_a_method_that_is_no_token_is_refused(client: Client, server: RawServer, method: AnyForm) -> None:
    with pytest.raises(InvalidRequest, match="method") as caught:
        client.send_async(method, "/x")

    assert caught.value.advice is not None
    assert server.connections == []


def test_a_tunnel_is_refused(client: Client, server: RawServer) -> None:
    """RFC 9110 section 9.3.6: what follows the answer to CONNECT is no HTTP, and the connection is lost to it."""
    with pytest.raises(InvalidRequest, match="CONNECT") as caught:
        client.send_async("CONNECT", "/x")

    assert caught.value.advice is not None
    assert server.connections == []


@pytest.mark.parametrize("tail", ["\r\nX: y", "\n", "\r", "\0", "\x7f", "\t"])
@pytest.mark.parametrize("place", ["path", "query", "params", "host"])
def test_control_bytes_in_a_target_are_refused_or_escaped(
    client: Client, server: RawServer, tail: str, place: str
) -> None:
    if place == "params":  # they are data, and escaped as such
        assert "%0" in Echoed.of(client.get("/x", params={"a": "\n" + tail})).target
        return
    url = {"path": f"/x{tail}", "query": f"/x?a={tail}", "host": f"http://127.0.0.1{tail}:{server.port}/x"}[place]

    with pytest.raises(InvalidRequest, match="control character") as caught:
        client.send_async("GET", url)

    assert caught.value.advice is not None
    assert server.connections == []


def test_nothing_of_a_body_is_drawn_when_the_request_is_refused(client: Client) -> None:
    drawn: list[int] = []

    def body() -> Iterator[bytes]:
        drawn.append(1)
        yield b"x"

    with pytest.raises(InvalidRequest):
        client.post("/x", content=body(), headers={"bad name": "x"})

    assert drawn == []


# -- URL and params ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "url", "target"),
    [
        ("", "/users", "/users"),
        ("", "users", "/users"),
        ("/v1", "users", "/v1/users"),
        ("/v1/", "/users", "/v1/users"),
        ("/v1/", "", "/v1/"),
        ("/v1", "/a/../b", "/v1/b"),
        ("", "/a b/ü?q=ä c", "/a%20b/%C3%BC?q=%C3%A4%20c"),
        ("", "/a%2Fb%zz", "/a%2Fb%25zz"),
        ("", "/x#fragment", "/x"),
    ],
)
def test_a_relative_url_is_appended_to_the_base(server: RawServer, base: str, url: str, target: str) -> None:
    """BEH-C8."""
    with Client(base_url=server.url + base) as client:
        assert Echoed.of(client.get(url)).target == target


def test_an_absolute_url_ignores_the_base(server: RawServer) -> None:
    """BEH-C8."""
    with Client(base_url="http://elsewhere.invalid/v1") as client:
        assert Echoed.of(client.get(server.url + "/x")).target == "/x"


@pytest.mark.parametrize(
    ("params", "target"),
    [
        ({"a": 1, "b": "x y"}, "/x?a=1&b=x+y"),
        ([("a", "1"), ("a", "2")], "/x?a=1&a=2"),
        ({"a": ["1", "2"], "b": None, "c": True}, "/x?a=1&a=2&c=true"),
        ("a=1&b=%20", "/x?a=1&b=%20"),
        ({}, "/x"),
        (None, "/x"),
        ({"a": "&=#ü"}, "/x?a=%26%3D%23%C3%BC"),
    ],
)
def test_params_become_the_query(client: Client, params: AnyForm, target: str) -> None:
    assert Echoed.of(client.get("/x", params=params)).target == target


def test_a_requests_params_win_over_the_clients_by_name(server: RawServer) -> None:
    """BEH-C8."""
    with Client(base_url=server.url, params={"key": "client", "page": "1"}) as client:
        assert Echoed.of(client.get("/x?q=0", params={"page": 2})).target == "/x?q=0&key=client&page=2"
        assert Echoed.of(client.get("/x")).target == "/x?key=client&page=1"


def test_params_that_are_no_query_are_refused(client: Client, server: RawServer) -> None:
    with pytest.raises(InvalidRequest, match="params"):
        client.get("/x", params=5)  # type: ignore[arg-type]  # that is the point

    assert server.connections == []


# -- the body's place in the head ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a_method_without_a_body_has_no_framing(client: Client, server: RawServer, method: str) -> None:
    client.request(method, "/x")

    names = {name.lower() for name, _ in server.requests[0].headers}
    assert not names & {"content-length", "transfer-encoding", "content-type"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_method_that_expects_a_body_says_that_there_is_none(client: Client, method: str) -> None:
    """RFC 9110 section 8.6."""
    seen = Echoed.of(client.request(method, "/x"))

    assert (seen.all("content-length"), seen.all("content-type")) == (["0"], [])


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"json": {"a": 1}}, "application/json"),
        ({"data": {"a": 1}}, "application/x-www-form-urlencoded"),
        ({"content": b"x"}, None),
        ({"data": b"x"}, None),
    ],
)
def test_the_content_type_follows_the_kind_of_body(
    client: Client, body: dict[str, Any], content_type: str | None
) -> None:
    ours = Echoed.of(client.send(Request("POST", "/x", **body)))
    own = Echoed.of(client.send(Request("POST", "/x", headers={"content-type": "text/own"}, **body)))

    assert ours.all("content-type") == ([] if content_type is None else [content_type])
    assert own.all("content-type") == ["text/own"]


def test_http_1_0_says_nothing_that_it_does_not_know(client: Client) -> None:
    """BEH-H10."""
    seen = Echoed.of(client.post("/x", content=b"body", http_version="1.0"))

    assert seen.version == "HTTP/1.0"
    assert (seen.body, seen.all("content-length")) == (b"body", ["4"])
    assert seen.all("transfer-encoding") == []
    assert seen.all("host") == []


def test_http_1_0_cannot_send_a_body_of_unknown_length(client: Client, server: RawServer) -> None:
    """BEH-H10."""
    with pytest.raises(InvalidRequest, match="unknown length"):
        client.post("/x", content=iter([b"x"]), http_version="1.0")
    assert server.connections == []

    assert Echoed.of(client.post("/x", content=io.BytesIO(b"known"), http_version="1.0")).body == b"known"


def test_the_same_call_gives_the_same_request_whether_it_is_remembered_or_not(client: Client) -> None:
    seen = [Echoed.of(client.get("/x")) for _ in range(3)]
    other = Echoed.of(client.get("/x", params={}))

    assert seen[0] == seen[1] == seen[2] == other


def test_more_urls_than_are_remembered_are_all_sent_right(client: Client) -> None:
    futures = [client.send_async("GET", f"/{n}") for n in range(600)]

    assert [Echoed.of(future.result()).target for future in futures] == [f"/{n}" for n in range(600)]
