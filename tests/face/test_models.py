"""Requests and responses as a caller meets them."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.face.handlers import AnyForm
from tests.servers.connection import Conn
from tests.servers.raw import Answer, RawServer, always, script
from tests.servers.wire import chunked, respond
from tests.waiting import PATIENCE
from turbopool import (
    Client,
    DecodeError,
    Headers,
    HTTPStatusError,
    HttpVersion,
    LimitExceeded,
    Request,
    Response,
    StreamConsumed,
    VersionPolicy,
)

PLAIN = b"one line\nand a second \xc3\xbc\n" * 40


def _raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


@contextmanager
def _answered(answer: Answer, method: str = "GET", **knobs: AnyForm) -> Iterator[Response]:
    with RawServer(always(answer)) as server, Client(base_url=server.url, **knobs) as client:
        yield client.request(method, "/x")


@contextmanager
def _streamed(answer: Answer, **knobs: AnyForm) -> Iterator[Response]:
    with (
        RawServer(always(answer)) as server,
        Client(base_url=server.url, **knobs) as client,
        client.stream("GET", "/x") as response,
    ):
        yield response


BOTH = pytest.mark.parametrize("get", [_answered, _streamed], ids=["in-memory", "streamed"])
Get = Callable[..., Any]


# -- status and headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "true"),
    [
        (200, {"is_success", "ok"}),
        (299, {"is_success", "ok"}),
        (304, {"is_redirect", "ok"}),
        (400, {"is_client_error", "is_error"}),
        (499, {"is_client_error", "is_error"}),
        (500, {"is_server_error", "is_error"}),
        (599, {"is_server_error", "is_error"}),
    ],
)
def test_the_class_of_a_status_can_be_asked(status: int, true: set[str]) -> None:
    names = {"is_success", "ok", "is_redirect", "is_client_error", "is_server_error", "is_error"}

    with _answered(respond(status=status)) as response:
        assert response.status_code == status
        assert {name for name in names if getattr(response, name)} == true


def test_a_success_passes_raise_for_status_and_is_returned() -> None:
    with _answered(respond(b"fine")) as response:
        assert response.raise_for_status() is response


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_an_error_status_is_raised_on_demand_with_request_and_response(status: int) -> None:
    with _answered(respond(b"why", status)) as response:
        with pytest.raises(HTTPStatusError, match=f"{status}.*GET.*/x") as caught:
            response.raise_for_status()

        assert caught.value.response is response
        assert caught.value.request is response.request
        assert (caught.value.processed, caught.value.request_sent) == ("yes", True)


def test_reason_version_and_url_are_those_of_the_answer() -> None:
    with _answered(respond(b"", 299, reason="Fine By Me")) as response:
        assert response.reason_phrase == "Fine By Me"
        assert response.http_version == "HTTP/1.1"
        assert response.url.endswith("/x")
        assert repr(response) == "<Response [299 Fine By Me]>"
    with _answered(b"HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n") as response:
        assert (response.reason_phrase, response.http_version) == ("", "HTTP/1.0")


def test_headers_are_case_insensitive_and_multi_valued() -> None:
    fields = [("X-One", "1"), ("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Latin", "\xe9")]

    with _answered(respond(headers=fields)) as response:
        headers = response.headers

    assert headers["x-one"] == headers["X-ONE"] == "1"
    assert headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert headers["x-latin"] == "\xe9"
    assert headers.get("absent") is None
    assert headers.raw[:2] == [(b"X-One", b"1"), (b"Set-Cookie", b"a=1")]


def test_changing_the_headers_of_one_response_changes_no_other() -> None:
    with RawServer(always(respond(headers=[("X-A", "1")]))) as server, Client(base_url=server.url) as client:
        first = client.get("/x")
        first.headers["X-A"] = "changed"

        assert client.get("/x").headers["x-a"] == "1"


def test_elapsed_is_the_time_from_the_call_to_the_whole_answer() -> None:
    headed = threading.Event()

    def late(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        assert conn.number == 0 or headed.wait(PATIENCE)
        conn.send_slowly(b"slow", delay=0.02)

    with RawServer(late) as server, Client(base_url=server.url) as client:
        whole = client.get("/x")
        began = time.monotonic()
        with client.stream("GET", "/x") as streamed:
            until_head = time.monotonic() - began
            headed.set()
            streamed.read()

    assert isinstance(whole.elapsed, timedelta)
    assert whole.elapsed.total_seconds() >= 0.06
    assert streamed.elapsed.total_seconds() <= until_head


def test_trailers_are_among_the_extensions() -> None:
    """BEH-H6."""
    body = chunked(b"x" * 3000, trailers=[("X-Sum", "42")])

    with _answered(respond(body, headers=[("Transfer-Encoding", "chunked")])) as response:
        assert response.content == b"x" * 3000
        assert response.extensions["trailers"] == [(b"X-Sum", b"42")]


# -- bodies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 262_144])
def test_bodies_of_any_size_arrive_exactly(size: int) -> None:
    """BEH-H6: empty ones do not hang, boundaries are exact."""
    body = bytes(n % 251 for n in range(size))
    fields = [("Transfer-Encoding", "chunked")]
    with RawServer(script(respond(body), respond(chunked(body, 4000), headers=fields))) as server:
        with Client(base_url=server.url) as client:
            assert [client.get("/x").content for _ in range(2)] == [body, body]
        assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
    ],
)
def test_an_answer_that_has_no_body_ends_with_its_head(method: str, answer: bytes) -> None:
    """BEH-H6."""
    with RawServer(always(answer)) as server, Client(base_url=server.url) as client:
        for _ in range(2):
            response = client.request(method, "/x", timeout=20)
            assert (response.content, response.text, list(response.iter_bytes())) == (b"", "", [])
        with client.stream(method, "/x") as streamed:
            assert (streamed.read(), list(streamed.iter_lines())) == (b"", [])
        assert len(server.connections) == 1


CODED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", _raw_deflate),
    ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    ("identity", bytes),
    ("unheard-of", bytes),
]


@BOTH
@pytest.mark.parametrize(("coding", "encode"), CODED)
def test_a_coded_body_is_decoded(get: Get, coding: str, encode: Callable[[bytes], bytes]) -> None:
    with get(respond(encode(PLAIN), headers=[("Content-Encoding", coding)])) as response:
        assert response.read() == response.content == PLAIN
        assert response.headers["content-encoding"] == coding


@pytest.mark.parametrize(("coding", "encode"), CODED)
def test_the_raw_body_is_what_came_over_the_wire(coding: str, encode: Callable[[bytes], bytes]) -> None:
    coded = encode(PLAIN)
    answer = respond(coded, headers=[("Content-Encoding", coding)])

    with _answered(answer) as response:
        assert b"".join(response.iter_raw()) == coded
        assert response.num_bytes_downloaded == len(coded)
    with _streamed(answer) as response:
        assert b"".join(response.iter_raw()) == coded
        assert response.num_bytes_downloaded == len(coded)


@BOTH
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"this is no gzip"),
        ("gzip", gzip.compress(PLAIN, mtime=0)[:-9]),
        ("gzip", gzip.compress(PLAIN, mtime=0)[:-8] + b"\0" * 8),
        ("deflate", b"\xff\xff\xff\xff"),
        ("deflate", zlib.compress(PLAIN)[:-5]),
        (", ".join(["gzip"] * 9), gzip.compress(PLAIN, mtime=0)),
    ],
    ids=["no gzip", "cut gzip", "wrong checksum", "no deflate", "cut deflate", "too many codings"],
)
def test_a_corrupt_coded_body_is_an_error_and_never_a_short_success(get: Get, coding: str, body: bytes) -> None:
    """BEH-H7."""
    with get(respond(body, headers=[("Content-Encoding", coding)])) as response:
        with pytest.raises(DecodeError) as caught:
            response.read()

        assert (caught.value.processed, caught.value.request_sent) == ("yes", True)
        assert caught.value.advice is not None


def test_a_corrupt_coded_body_fails_when_it_is_looked_at_and_spoils_no_connection() -> None:
    """BEH-H7, H9."""
    answers = [respond(b"junk", headers=[("Content-Encoding", "gzip")]), respond(b"fine")]

    with RawServer(script(*answers)) as server, Client(base_url=server.url) as client:
        broken = client.get("/x")
        for _ in range(2):
            with pytest.raises(DecodeError):
                _ = broken.content
        assert client.get("/x").content == b"fine"
        assert len(server.connections) == 1


@BOTH
def test_a_body_that_decodes_to_too_much_names_the_option(get: Get) -> None:
    bomb = respond(gzip.compress(bytes(3_000_000)), headers=[("Content-Encoding", "gzip")])

    with get(bomb, max_buffered_body=1_000_000) as response, pytest.raises(LimitExceeded) as caught:
        response.read()

    assert caught.value.option == "max_buffered_body"


def test_a_body_that_is_too_large_names_the_option() -> None:
    with (
        RawServer(always(respond(bytes(2000)))) as server,
        Client(base_url=server.url, max_buffered_body=1000) as client,
    ):
        with pytest.raises(LimitExceeded) as caught:
            client.get("/x")
        with client.stream("GET", "/x") as response, pytest.raises(LimitExceeded):
            response.read()
        with client.stream("GET", "/x") as response:
            assert sum(len(piece) for piece in response.iter_bytes()) == 2000

    assert caught.value.option == "max_buffered_body"


# -- text and JSON -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "encoding", "body", "text"),
    [
        (None, "utf-8", b"\xc3\xbc", "ü"),
        ("text/plain", "utf-8", b"\xc3\xbc", "ü"),
        ("text/plain; charset=latin-1", "latin-1", b"\xfc", "ü"),
        ('text/plain; Charset="ISO-8859-15"', "ISO-8859-15", b"\xa4", "€"),
        ("text/plain; charset=utf-16-le", "utf-16-le", b"\xfc\x00", "ü"),
        ("text/plain; charset=utf-8", "utf-8", b"\xff!", "\ufffd!"),
        ("text/plain; charset=klingon", "klingon", b"\xc3\xbc", "ü"),
        ("text/plain; charset=", "utf-8", b"\xc3\xbc", "ü"),
        ("text/plain; charset=hex", "hex", b"61", "61"),
        ("text/plain; charset=idna", "idna", b"a", "a"),
        ("text/plain; charset=undefined", "undefined", b"a", "a"),
    ],
)
def test_text_follows_the_charset_and_never_raises(
    content_type: str | None, encoding: str, body: bytes, text: str
) -> None:
    answer = respond(body, headers=[("Content-Type", content_type)] if content_type else [])

    with _answered(answer) as response:
        assert response.encoding == encoding
        assert response.text == text
        assert "".join(response.iter_text()) == text
        assert list(response.iter_lines()) == [text]


def test_text_in_pieces_never_splits_a_character() -> None:
    body = "aüß€😀\n".encode() * 3

    with _answered(respond(body)) as response:
        for size in range(1, 8):
            assert "".join(response.iter_text(size)) == body.decode()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "a",
        "a\n",
        "\n",
        "a\nb",
        "a\r\nb\r\n",
        "a\rb",
        "a\r",
        "\r\n\r\n",
        "a\n\nb\n",
        "a\r\r\nb",
        "a\x0bb\x0cc",
        "a\u2028b",
    ],
)
def test_lines_are_those_of_splitlines_however_the_body_arrives(body: str) -> None:
    data = body.encode()

    with _answered(respond(data)) as response:
        assert list(response.iter_lines()) == body.splitlines()
    slowly: list[bytes] = [data[at : at + 1] for at in range(len(data))]
    answer = respond(
        b"".join(chunked(piece)[:-5] for piece in slowly) + b"0\r\n\r\n", headers=[("Transfer-Encoding", "chunked")]
    )

    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send_slowly(answer, size=16, delay=0.001)

    with RawServer(handler) as server, Client(base_url=server.url) as client, client.stream("GET", "/") as response:
        assert list(response.iter_lines()) == body.splitlines()


def test_a_line_without_end_costs_linear_time() -> None:
    """A server that never ends its line must not make the reader's work grow with the square of it."""
    size, piece = 1 << 25, b"x" * 65_536

    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            conn.send(piece)

    with RawServer(handler) as server, Client(base_url=server.url) as client, client.stream("GET", "/") as response:
        began = time.thread_time()
        assert [len(line) for line in response.iter_lines()] == [size]
        assert time.thread_time() - began < 2.0  # a tenth of it, but 6 s if each piece copied all before it


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_json_is_parsed_whatever_unicode_it_is_in(encoding: str) -> None:
    said = {"name": "ü", "n": [1, 2.5, None, True]}

    with _answered(respond(json.dumps(said, ensure_ascii=False).encode(encoding))) as response:
        assert response.json() == said
    with _answered(respond(b"1.10")) as response:
        assert response.json(parse_float=str) == "1.10"


@pytest.mark.parametrize("body", [b"", b"{", b"<html>"])
def test_what_is_no_json_is_a_value_error(body: bytes) -> None:
    with _answered(respond(body)) as response, pytest.raises(ValueError, match=r"Expecting|column"):
        response.json()


# -- reading, and reading again ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000, 10_000])
def test_pieces_have_the_size_asked_for_but_the_last(size: int) -> None:
    body = bytes(n % 251 for n in range(2500))
    expected = [body[at : at + size] for at in range(0, len(body), size)]

    with _answered(respond(body)) as response:
        assert list(response.iter_bytes(size)) == list(response.iter_raw(size)) == expected
    with _streamed(respond(body)) as response:
        assert list(response.iter_bytes(size)) == expected


@BOTH
@pytest.mark.parametrize("size", [0, -1])
def test_pieces_of_no_size_are_refused(get: Get, size: int) -> None:
    with get(respond(b"body")) as response:
        for iterate in (response.iter_bytes, response.iter_raw):
            with pytest.raises(ValueError, match="chunk_size"):
                iterate(size)
        assert response.read() == b"body"


def test_a_response_in_memory_can_be_read_in_every_way_again_and_again() -> None:
    with _answered(respond(PLAIN)) as response:
        for _ in range(2):
            assert response.content == response.read() == b"".join(response.iter_bytes()) == PLAIN
            assert b"".join(response.iter_raw()) == PLAIN
            assert response.text == PLAIN.decode()
        response.close()
        assert response.content == PLAIN
        with response as same:
            assert same.content == PLAIN


def test_a_streamed_body_is_not_in_memory_until_it_was_read() -> None:
    with _streamed(respond(PLAIN)) as response:
        with pytest.raises(StreamConsumed, match="not in memory") as caught:
            _ = response.content
        assert "read()" in str(caught.value.advice)
        assert response.read() == PLAIN
        assert response.content == response.read() == b"".join(response.iter_bytes()) == PLAIN
        assert response.text == PLAIN.decode()


def test_a_streamed_body_can_be_iterated_once() -> None:
    with _streamed(respond(PLAIN)) as response:
        assert b"".join(response.iter_bytes()) == PLAIN
        for again in (response.iter_bytes, response.iter_raw, response.iter_text, response.iter_lines):
            with pytest.raises(StreamConsumed):
                list(again())
        with pytest.raises(StreamConsumed):
            response.read()


@pytest.mark.concurrency
def test_many_threads_may_look_at_one_response() -> None:
    with _answered(respond(gzip.compress(PLAIN), headers=[("Content-Encoding", "gzip"), ("X-A", "1")])) as response:
        start = threading.Barrier(8)

        def look(_: int) -> tuple[bytes, str, str]:
            start.wait(30)
            return response.content, response.text, response.headers["x-a"]

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(look, range(8))) == {(PLAIN, PLAIN.decode(), "1")}


# -- requests ------------------------------------------------------------------------------------------------


def test_a_request_is_described_by_method_and_url_and_shows_no_secret() -> None:
    request = Request("GET", "http://h/x", headers={"Authorization": "hush"}, extensions={"trace": 1})

    assert repr(request) == "<Request GET http://h/x>"
    assert request.extensions == {"trace": 1}
    assert "hush" not in repr(Headers({"Authorization": "hush"}))


def test_versions_and_policies_are_their_own_text() -> None:
    assert [str(version) for version in HttpVersion] == ["1.0", "1.1", "2", "3"]
    assert HttpVersion("1.1") is HttpVersion.HTTP_1_1
    assert {str(policy) for policy in VersionPolicy} == {"exact", "or_lower", "or_higher"}


def test_enumerations_are_taken_where_text_is() -> None:
    with RawServer(always(respond())) as server, Client(base_url=server.url) as client:
        response = client.get("/x", http_version=HttpVersion.HTTP_1_0, version_policy=VersionPolicy.EXACT)

    assert response.is_success
    assert server.requests[0].version == "HTTP/1.0"
