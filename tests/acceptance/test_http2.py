"""HTTP/2 with nginx, nghttpd and caddy, in clear by prior knowledge and over TLS: what works when nothing goes wrong.

They differ where it matters: nginx keeps an HPACK table of size 0, nghttpd and caddy a real one. Connections are
counted between client and server, never by the client.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2peer import H2Peer
from tests.servers.h2send import raw_frame
from tests.servers.h2serve import pattern, serve
from tests.servers.http2 import FILES, Caddy, Http2Nginx, Nghttpd, needs_nghttpd
from tests.servers.nginx import SMALL, Nginx
from tests.servers.proxy import ChaosProxy
from turbopool import Client, Http2Options, RemoteProtocolError, Response, ResponseFuture
from turbopool.transport.http2_state import DATA, END_HEADERS, END_STREAM, HEADERS

Server = Http2Nginx | Nghttpd | Caddy

MIB = 1 << 20
ONE = Http2Options(max_connections_per_server=1)
UPLOAD = pattern(3_000_001)
"""More than any window at first, of a length that is no multiple of anything."""


@pytest.fixture(params=["nginx2", "nghttpd", "caddy"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each real server in its turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["clear", "tls"])
def client(request: pytest.FixtureRequest, server: Server, authority: Authority) -> Iterator[Client]:
    """A client of each server, in clear and over TLS; all it does is seen to go over a single connection."""
    is_tls = request.param == "tls"
    with ChaosProxy(("127.0.0.1", server.h2_tls_port if is_tls else server.h2_port)) as proxy:
        url = proxy.url.replace("http", "https", 1) if is_tls else proxy.url
        with Client(base_url=url, http_version="2", verify=str(authority.ca_file)) as made:
            yield made
        assert proxy.counters.connections == 1


@pytest.fixture
def nginx_client(nginx2: Http2Nginx) -> Iterator[Client]:
    """A client of nginx in clear, which is seen to need a single connection."""
    with Client(base_url=nginx2.h2_url, http_version="2") as made:
        yield made
        assert made.stats().opened == 1


@pytest.fixture
def echo(authority: Authority, tmp_path: Path) -> Iterator[Client]:
    """A client of a nghttpd that echoes what is uploaded, with a trailer, and pads its frames."""
    with (
        Nghttpd(tmp_path, authority, echo_upload=True, padding=100, trailer="x-last: one") as server,
        Client(base_url=server.h2_url, http_version="2") as made,
    ):
        yield made
        assert made.stats().opened == 1


def body_of(server: Server, name: str) -> bytes:
    """What /bytes/`name` must be."""
    return bytes(FILES[name]) if isinstance(server, Nginx) else pattern(FILES[name])


def assert_small(answer: Response) -> None:
    """Check the answer that all of them give to /small."""
    assert (answer.status_code, answer.http_version, answer.content) == (200, "HTTP/2", SMALL)


# -- one connection ------------------------------------------------------------------------------------------


def test_sequential_requests_reuse_the_connection(client: Client) -> None:
    """BEH-M1, M2, M10, P44: with fields that differ from request to request."""
    for number in range(30):
        assert_small(client.get("/small", params={"n": number}, headers={f"x-{number}": str(number) * 20}))


@pytest.mark.parametrize("count", [10, 20])
def test_concurrent_requests_share_the_connection(client: Client, server: Server, count: int) -> None:
    """BEH-M2, P32: from the first moment on, also before the server has said what it allows."""
    futures = [client.send_async("GET", "/bytes/1k") for _ in range(count)]

    assert {future.result().content for future in futures} == {body_of(server, "1k")}


def test_concurrent_requests_are_answered_at_the_same_time(nginx2: Http2Nginx, path: str) -> None:
    """BEH-M2: nginx's log tells that each began before any of them ended, on one connection."""
    with Client(base_url=nginx2.h2_url, http_version="2") as client:
        asked = {"rate": "900k", "by": path}  # so that nginx pauses within each
        futures = [client.send_async("GET", "/slow/1m", params=asked) for _ in range(20)]
        assert {len(future.result().content) for future in futures} == {MIB}

    lines = nginx2.log(f"/slow/1m?rate=900k&by={path.replace('/', '%2F')}", at_least=20)
    assert len({line.connection for line in lines}) == 1
    assert max(line.at - line.seconds for line in lines) < min(line.at for line in lines)


def test_heavy_posts_in_batches_share_the_connection(client: Client, server: Server) -> None:
    """BEH-M2: 64 at once, twice; nginx passes them on and tells what arrived."""
    body = pattern(70_000)
    expected = b"70000" if isinstance(server, Http2Nginx) else SMALL
    target = "/upload" if isinstance(server, Http2Nginx) else "/small"
    for _ in range(2):
        futures = [client.send_async("POST", target, content=body) for _ in range(64)]
        assert {(future.result().status_code, future.result().content) for future in futures} == {(200, expected)}


# -- kinds of answers ----------------------------------------------------------------------------------------


def test_answers_without_a_body_leave_the_connection_fit(client: Client, server: Server) -> None:
    """BEH-M8: HEAD, 404, and 204 or 304."""
    head = client.head("/bytes/1m")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(MIB), b"")
    if isinstance(server, Nghttpd):
        empty = client.get("/small", headers={"if-modified-since": head.headers["date"]})
        assert (empty.status_code, empty.content) == (304, b"")
    else:
        empty = client.get("/status/204")
        assert (empty.status_code, empty.content) == (204, b"")
    assert client.get("/status/404").status_code == 404

    assert client.get("/bytes/1k").content == body_of(server, "1k")


def test_body_after_a_head_request_fails_that_request_alone(nghttpd: Nghttpd) -> None:
    """BEH-M8, FLT-S24: nghttpd sends one when nothing is found."""
    with Client(base_url=nghttpd.h2_url, http_version="2") as client:
        before = client.send_async("GET", "/bytes/1m")
        with pytest.raises(RemoteProtocolError, match="more bytes"):
            client.head("/status/404")
        assert before.result().content == pattern(MIB)
        assert_small(client.get("/small"))
        assert client.stats().opened == 1


@needs_nghttpd
def test_trailers_are_among_the_extensions(echo: Client) -> None:
    """BEH-H6: and padded frames are read as others are."""
    answer = echo.get("/bytes/1m")

    assert answer.content == pattern(MIB)
    assert answer.extensions["trailers"] == [(b"x-last", b"one")]


def test_large_request_headers_arrive(client: Client) -> None:
    """BEH-M1: more than fits into a frame, so that they go on in CONTINUATION."""
    headers = {f"x-{number}": "~" * 6000 for number in range(4)}  # no code of HPACK makes these shorter

    assert_small(client.get("/small", headers=headers))
    assert_small(client.get("/small"))


@needs_nghttpd
def test_large_fields_of_the_server_arrive(authority: Authority, tmp_path: Path) -> None:
    """BEH-M1: more than fits into a frame, so that they come on in CONTINUATION."""
    large = "~" * 30_000
    with (
        Nghttpd(tmp_path, authority, trailer=f"x-large: {large}") as server,
        Client(base_url=server.h2_url, http_version="2") as client,
    ):
        for _ in range(2):
            assert client.get("/small").extensions["trailers"] == [(b"x-large", large.encode())]
        assert client.stats().opened == 1


def test_headers_stay_right_whatever_the_tables_hold(client: Client, server: Server) -> None:
    """BEH-M5: hundreds of answers that differ in status, length and date, and requests with fields of their own."""
    expected = {"/bytes/1k": (200, 1 << 10), "/small": (200, len(SMALL)), "/status/404": (404, None)}
    name = {Http2Nginx: "nginx", Nghttpd: "nghttpd", Caddy: "caddy"}[type(server)]
    for number in range(12):
        asked = [*expected] * 8
        headers = {"x-number": str(number) * 10, "accept-language": f"l{number % 7}"}
        futures = [client.send_async("GET", path, headers=headers) for path in asked]
        for path, future in zip(asked, futures, strict=True):
            answer = future.result()
            status, size = expected[path]
            assert answer.status_code == status
            assert name in answer.headers["server"].lower()
            assert size is None or answer.headers["content-length"] == str(size)


def test_request_fields_arrive_as_they_were_given(nginx_client: Client) -> None:
    """BEH-M1: each of them its own, over a connection that carries many at once."""

    def ask(number: int) -> ResponseFuture:
        headers = {"x-probe": f"probe-{number}", "content-type": f"text/x-{number}"}
        return nginx_client.send_async("POST", f"/echo/{number}", headers=headers, content=b"x" * number)

    for number, future in enumerate([ask(number) for number in range(100)]):
        said = future.result().text.splitlines()
        assert said[0] == f"POST /echo/{number} HTTP/2.0"
        assert {f"content-length: {number}", f"x-probe: probe-{number}", f"content-type: text/x-{number}"} < set(said)


# -- large bodies, slow and fast -----------------------------------------------------------------------------


def test_large_downloads_are_whole(client: Client, server: Server) -> None:
    """BEH-M9, M7: several at once, each larger than the first window."""
    futures = [client.send_async("GET", "/bytes/1m") for _ in range(6)]

    assert {zlib.crc32(future.result().content) for future in futures} == {zlib.crc32(body_of(server, "1m"))}


def test_large_uploads_are_whole(nginx_client: Client, path: str) -> None:
    """BEH-M9: of known length and of unknown, at the pace of the server's windows; what was stored is read back."""
    pieces = [UPLOAD[at : at + 10_007] for at in range(0, len(UPLOAD), 10_007)]
    for content in (UPLOAD, iter(pieces)):
        stored = nginx_client.put(f"/put{path}stored", content=content)
        assert stored.status_code in (201, 204)
        assert nginx_client.get(stored.url).content == UPLOAD
    assert nginx_client.delete(stored.url).status_code == 204


@needs_nghttpd
def test_uploads_and_downloads_cross_on_one_connection(echo: Client) -> None:
    """BEH-M9, M7: each upload comes back while others still go out."""
    bodies = [UPLOAD[number:] for number in range(4)]
    futures = [echo.send_async("POST", "/", content=body) for body in bodies]

    assert [zlib.crc32(future.result().content) for future in futures] == [zlib.crc32(body) for body in bodies]


def test_reader_that_stops_holds_back_its_own_stream_alone(client: Client, server: Server) -> None:
    """BEH-M9, FLT-S15: others are answered meanwhile; leaving early keeps the connection."""
    with client.stream("GET", "/bytes/1g") as response:
        reader = response.iter_raw(1000)
        assert len(next(reader)) == 1000
        futures = [client.send_async("GET", "/bytes/1m") for _ in range(6)]
        assert {len(future.result().content) for future in futures} == {MIB}
        assert len(next(reader)) == 1000

    assert client.get("/bytes/1k").content == body_of(server, "1k")


def test_fast_answers_overtake_a_slow_one(nginx_client: Client) -> None:
    """BEH-M9: which ends when it is cancelled, and takes nothing with it (BEH-M13)."""
    slow = nginx_client.send_async("GET", "/slow/1g", params={"rate": "100k"})
    for _ in range(20):
        assert_small(nginx_client.get("/small"))
    assert {len(nginx_client.get("/bytes/1m").content) for _ in range(3)} == {MIB}
    assert not slow.done()

    assert slow.cancel()
    assert_small(nginx_client.get("/small"))


def test_fast_requests_overtake_a_slow_upload(nginx_client: Client) -> None:
    """BEH-M9: its body is drawn by and by, while others come and go."""
    go_on = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield UPLOAD
        assert go_on.wait(20)
        yield UPLOAD

    slow = nginx_client.send_async("POST", "/put-nowhere", content=pieces())
    for _ in range(20):
        assert_small(nginx_client.get("/small"))
    assert nginx_client.post("/upload", content=UPLOAD).text == str(len(UPLOAD))
    go_on.set()
    assert slow.result().status_code == 200


def test_server_that_breaks_the_protocol_as_it_answers_is_left_and_its_queue_goes_on() -> None:
    """FLT-S23: the answer counts, and what it makes room for is sent over another connection."""
    answer = raw_frame(HEADERS, END_STREAM | END_HEADERS, 3, b"\x88")  # status 200
    violation = raw_frame(DATA, 0, 0, b"of no stream")

    def breaks(conn: H2Conn) -> None:
        conn.handshake({"max_concurrent_streams": 1})
        conn.respond(conn.read_request().stream_id)
        conn.read_request()
        conn.send_raw(answer + violation)
        conn.drain()

    with H2Peer([breaks, serve]) as peer, Client(base_url=peer.url, http_version="2", http2=ONE) as client:
        client.get("/")
        futures = [client.send_async("POST", f"/{number}", content=b"x") for number in range(3)]
        assert [future.result().status_code for future in futures] == [200, 200, 200]
        assert [request.path for request in peer.requests] == ["/", "/0", "/1", "/2"]
        assert (client.stats().opened, client.stats().replays) == (2, 0)
