from __future__ import annotations

import http.client
import io
import socket

import pytest

from tests.servers.wire import BadRequest, PeerClosed, RawRequest, Reader, chunked, read_body, read_head, respond


def _read(data: bytes, step: int = 1 << 20) -> RawRequest:
    reader = Reader(io.BytesIO(data).read1 if step > len(data) else lambda: source.read(step))
    source = io.BytesIO(data)
    request = read_head(reader, 0)
    read_body(reader, request)
    return request


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_sized_request_is_read_in_any_segments(step: int) -> None:
    request = _read(b"PUT /a?b=c HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 5\r\nA: \r\n\r\nhello", step)

    assert (request.method, request.target, request.version) == ("PUT", "/a?b=c", "HTTP/1.1")
    assert request.headers == [("Host", "x"), ("content-LENGTH", "5"), ("A", "")]
    assert request.header("Content-Length") == "5"
    assert request.body == b"hello"


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_chunked_request_is_read_with_its_trailers(step: int) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

    request = _read(head + chunked(b"hello world", 4, [("Sum", "1")]), step)

    assert request.body == b"hello world"
    assert request.trailers == [("Sum", "1")]


@pytest.mark.parametrize(
    "data",
    [
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"G\xc3\xa4T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naXX0\r\n\r\n",
    ],
)
def test_malformed_request_is_a_fault_of_the_client(data: bytes) -> None:
    with pytest.raises(BadRequest):
        _read(data)


def test_end_before_a_request_differs_from_one_inside_it() -> None:
    with pytest.raises(PeerClosed) as before:
        _read(b"")
    with pytest.raises(PeerClosed) as inside:
        _read(b"GET / HT")

    assert before.value.received == b""
    assert inside.value.received == b"GET / HT"


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (respond(b"hi"), 200, b"hi"),
        (respond(b"hi", 404, [("X", "y")]), 404, b"hi"),
        (respond(status=204), 204, b""),
        (respond(chunked(b"hello", 2), 200, [("Transfer-Encoding", "chunked")]), 200, b"hello"),
        (respond(b"old", version="HTTP/1.0", headers=[("Content-Length", "3")]), 200, b"old"),
        (respond(b"?", 299), 299, b"?"),
    ],
)
def test_built_response_is_understood_by_another_client(response: bytes, status: int, body: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(response)
        there.shutdown(socket.SHUT_WR)
        with http.client.HTTPResponse(here) as parsed:
            parsed.begin()

            assert (parsed.status, parsed.read()) == (status, body)
