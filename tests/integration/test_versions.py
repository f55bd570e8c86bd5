"""Versions and policies against real servers, over TLS and in clear: which is spoken, and over how many connections."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.streams import attends
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.h2conn import H2Conn
from tests.servers.h2peer import Behaviour, H2Peer, by_alpn, http1
from tests.servers.h2serve import serve
from tests.servers.raw import Handler, always
from tests.servers.wire import BadRequest, RawRequest, respond
from tests.waiting import eventually
from turbopool import Client, ClientDisposed, ClientFactory, DeadlineExceeded, Request, Response, UnsupportedVersion

PATIENCE = 20.0
HTTP11 = 13
ONE, TWO = "HTTP/1.1", "HTTP/2"
NO_HTTP2 = respond(status=400, headers=[("Connection", "close")])


def old(conn: Conn) -> None:
    """A server of HTTP/1.1, which answers any nonsense with 400 and hangs up."""
    while True:
        try:
            request = conn.read_request()
        except BadRequest:
            conn.send(NO_HTTP2)
            conn.shutdown_write()
            while conn.recv(65_536):  # or its RST might overtake the answer
                pass
            return
        conn.send(respond(f"{request.method} {request.target} ".encode() + request.body))


def gated(gate: threading.Event) -> Handler:
    """As :func:`old`, and each answer waits for the gate."""

    def handler(conn: Conn) -> None:
        while True:
            request = conn.read_request()
            assert gate.wait(PATIENCE)
            conn.send(respond(request.target.encode()))

    return handler


Make = Callable[..., Client]


@pytest.fixture
def client_of(authority: Authority) -> Iterator[Make]:
    """Make clients that trust the tests' authority."""
    clients: list[Client] = []

    def make(**options: Any) -> Client:  # noqa: ANN401 - those of a client
        clients.append(Client(verify=authority.ca_file, request_timeout=PATIENCE, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def h1_requests(peer: H2Peer) -> list[RawRequest]:
    """All that came over HTTP/1.1."""
    return [request for conn in peer.connections for request in conn.raw.requests]


def spoken(peer: H2Peer) -> list[str | None]:
    """What was agreed upon on each connection."""
    return [conn.raw.alpn for conn in peer.connections]


# -- which version -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "policy", "alpn", "expected"),
    [
        ("2", "exact", ("h2", "http/1.1"), TWO),
        ("2", "or_lower", ("h2", "http/1.1"), TWO),
        ("2", "or_higher", ("h2", "http/1.1"), TWO),
        ("1.1", "or_higher", ("h2", "http/1.1"), TWO),
        ("1.1", "or_lower", ("h2", "http/1.1"), ONE),
        ("1.1", "exact", ("h2", "http/1.1"), ONE),
        ("2", "or_lower", ("http/1.1",), ONE),
        ("1.1", "or_higher", ("http/1.1",), ONE),
        ("2", "or_lower", (), ONE),
        ("1.1", "or_higher", (), ONE),
        ("2", "exact", ("http/1.1",), None),
        ("2", "or_higher", ("http/1.1",), None),
        ("2", "exact", (), None),
        ("2", "or_higher", (), None),
    ],
)
def test_version_over_tls_is_what_both_sides_want(
    authority: Authority, client_of: Make, asked: str, policy: str, alpn: tuple[str, ...], expected: str | None
) -> None:
    """BEH-P32, BEH-P42: one connection, whatever comes of it."""
    with H2Peer(by_alpn(serve, old), authority=authority, alpn=alpn) as peer:
        client = client_of(base_url=peer.url, http_version=asked, version_policy=policy)

        if expected is None:
            with pytest.raises(UnsupportedVersion) as caught:
                client.get("/a")
            assert (caught.value.request_sent, caught.value.origin) == (False, peer.url)
        else:
            response = client.get("/a")
            assert (response.http_version, response.reason_phrase) == (expected, "OK")
        peer.wait_for_connections(1)
        assert len(peer.connections) == 1
        client.close()


@pytest.mark.parametrize(
    ("asked", "policy", "speaks", "expected"),
    [
        ("2", "exact", "2", TWO),
        ("2", "or_lower", "2", TWO),
        ("2", "or_higher", "2", TWO),
        ("2", "or_lower", "1.1", ONE),
        ("2", "exact", "1.1", None),
        ("2", "or_higher", "1.1", None),
        ("1.1", "or_higher", "1.1", ONE),
        ("1.1", "or_lower", "1.1", ONE),
    ],
)
def test_version_in_clear_is_by_prior_knowledge(
    client_of: Make, asked: str, policy: str, speaks: str, expected: str | None
) -> None:
    """BEH-P32, RFC 9113 section 3.3: nobody is asked; a server that answers 400 as HTTP/1.1 does not speak it."""
    with H2Peer(serve if speaks == "2" else http1(old)) as peer:
        client = client_of(base_url=peer.url, http_version=asked, version_policy=policy)

        if expected is None:
            with pytest.raises(UnsupportedVersion) as caught:
                client.get("/a")
            assert caught.value.processed == "no"
        else:
            assert client.get("/a").http_version == expected
            assert client.get("/b").http_version == expected
        assert len(peer.connections) == (2 if asked == "2" and expected == ONE else 1)
        client.close()


def test_default_client_offers_http_1_1_alone(authority: Authority, client_of: Make) -> None:
    """BEH-P42: a server that would rather speak HTTP/2 is not asked for it."""
    with H2Peer(by_alpn(serve, old), authority=authority, alpn=("h2", "http/1.1")) as peer:
        client = client_of(base_url=peer.url)

        assert client.get("/a").http_version == ONE

        assert spoken(peer) == ["http/1.1"]
        client.close()


def test_version_of_one_request_stands_beside_that_of_its_client(authority: Authority, client_of: Make) -> None:
    """BEH-P42: two pools of one origin, each with a connection of its own."""
    with H2Peer(by_alpn(serve, old), authority=authority, alpn=("h2", "http/1.1")) as peer:
        client = client_of(base_url=peer.url)

        responses: list[Response] = []
        for _ in range(2):
            responses.append(client.get("/a"))
            responses.append(client.send(Request("GET", "/b", http_version="2")))

        assert [response.http_version for response in responses] == [ONE, TWO, ONE, TWO]
        assert sorted(str(version) for version in spoken(peer)) == ["h2", "http/1.1"]
        client.close()


def test_handles_of_a_factory_share_the_pool_of_their_version() -> None:
    """BEH-P32: with base_url and the defaults of the name."""
    factory = ClientFactory()
    with H2Peer(serve) as peer:
        factory.add("two", base_url=peer.url, http_version="2", headers={"x-name": "two"})
        first, second = factory.create_client("two"), factory.create_client("two")

        responses = [first.get("/headers"), second.get("/headers")]

        assert [response.http_version for response in responses] == [TWO, TWO]
        assert all(["x-name", "two"] in response.json() for response in responses)
        assert len(peer.connections) == 1
        factory.dispose()


def test_warm_up_opens_connections_of_the_version_that_is_tried_first(authority: Authority, client_of: Make) -> None:
    """BEH-P32: and requests use one of them."""
    with H2Peer(by_alpn(serve, old), authority=authority, alpn=("h2", "http/1.1")) as peer:
        client = client_of(base_url=peer.url, http_version="2")
        client.warm_up(peer.url, connections=2)
        eventually(lambda: client.stats().idle == 2, PATIENCE)

        assert client.get("/a").http_version == TWO

        peer.wait_for_connections(2)
        assert spoken(peer) == ["h2", "h2"]
        client.close()


# -- handing over ------------------------------------------------------------------------


def test_waiters_go_over_the_one_connection_that_was_established_in_order(
    authority: Authority, client_of: Make
) -> None:
    """BEH-P27, I13: six at once; the server sees one connection, and later requests ask for HTTP/1.1 at once."""
    with H2Peer(http1(old), authority=authority, alpn=("http/1.1",)) as peer:
        client = client_of(base_url=peer.url, http_version="2", max_conns_per_host=1)
        futures = [client.send_async("GET", f"/{number}") for number in range(6)]

        responses = [future.result(PATIENCE) for future in futures]

        assert {response.http_version for response in responses} == {ONE}
        assert [request.target for request in h1_requests(peer)] == [f"/{number}" for number in range(6)]
        client.get("/later")
        assert len(peer.connections) == 1
        client.close()


def test_server_without_http_2_is_not_asked_again(authority: Authority, client_of: Make) -> None:
    """BEH-P42: not by a new connection either; `exact` asks each time."""
    closing = always(respond(b"bye", headers=[("Connection", "close")]))
    with H2Peer(http1(closing), authority=authority, alpn=("http/1.1",)) as peer:
        client = client_of(base_url=peer.url, http_version="2")

        for _ in range(3):
            assert client.get("/").http_version == ONE

        pools = {key.version: pool for key, pool in client.stats().pools.items()}
        assert (pools["2"].requests, pools["1.1"].requests) == (0, 3)
        assert len(peer.connections) == 3
        with pytest.raises(UnsupportedVersion):
            client.send(Request("GET", "/", version_policy="exact"))
        client.close()


@pytest.mark.parametrize("is_secure", [True, False])
def test_bodies_and_headers_arrive_whole_after_a_hand_over(
    authority: Authority, client_of: Make, *, is_secure: bool
) -> None:
    """I8: bytes with their length, an iterator in chunks, and the host, which HTTP/2 calls otherwise."""
    with H2Peer(http1(old), authority=authority if is_secure else None, alpn=("http/1.1",)) as peer:
        client = client_of(base_url=peer.url, http_version="2", headers={"X-Mine": "yes"})

        response = client.post("/bytes", content=b"hello")
        drawn = client.post("/drawn", content=iter([b"hel", b"lo"]))

        assert (response.text, drawn.text) == ("POST /bytes hello", "POST /drawn hello")
        first, second = h1_requests(peer)[-2:]
        assert first.header("host") == second.header("host") == f"127.0.0.1:{peer.port}"
        assert (first.header("content-length"), first.header("transfer-encoding")) == ("5", None)
        assert (second.header("content-length"), second.header("transfer-encoding")) == (None, "chunked")
        assert first.header("x-mine") == "yes"
        client.close()


def test_iterator_that_meets_no_http_2_in_clear_is_an_error_or_whole_and_never_half(client_of: Make) -> None:
    """I8, I9: it can be drawn once; where that was begun, the caller is told."""
    with H2Peer(http1(old)) as peer:
        client = client_of(base_url=peer.url, http_version="2")

        outcome = client.send_async("POST", "/x", content=iter([b"hello"])).exception(PATIENCE)

        bodies = [request.body for request in h1_requests(peer) if request.method == "POST"]
        assert bodies == ([] if outcome else [b"hello"])
        assert outcome is None or getattr(outcome, "processed", None) == "no"
        client.close()


def test_cancel_after_the_hand_over_leaves_the_line(authority: Authority, client_of: Make) -> None:
    """I5: the others go on in order."""
    gate = threading.Event()
    with H2Peer(http1(gated(gate)), authority=authority, alpn=("http/1.1",)) as peer:
        client = client_of(base_url=peer.url, http_version="2", max_conns_per_host=1)
        futures = [client.send_async("GET", f"/{number}") for number in range(3)]
        eventually(lambda: client.stats().in_flight == 1 and client.stats().waiting == 2, PATIENCE)

        assert futures[1].cancel()
        gate.set()

        assert [futures[at].result(PATIENCE).text for at in (0, 2)] == ["/0", "/2"]
        assert [request.target for request in h1_requests(peer)] == ["/0", "/2"]
        client.close()


def test_deadline_holds_across_the_hand_over(authority: Authority, client_of: Make) -> None:
    """I6: it counts from the call."""
    gate = threading.Event()
    with H2Peer(http1(gated(gate)), authority=authority, alpn=("http/1.1",)) as peer:
        client = client_of(base_url=peer.url, http_version="2", max_conns_per_host=1)
        first = client.send_async("GET", "/first")
        late = client.send_async("GET", "/late", timeout=0.2)

        assert isinstance(late.exception(PATIENCE), DeadlineExceeded)
        gate.set()

        assert first.result(PATIENCE).text == "/first"
        client.close()


def test_disposal_fails_what_was_handed_over_and_closes_it(authority: Authority, client_of: Make) -> None:
    """I16: in flight and in line."""
    gate = threading.Event()
    with H2Peer(http1(gated(gate)), authority=authority, alpn=("http/1.1",)) as peer:
        client = client_of(base_url=peer.url, http_version="2", max_conns_per_host=1)
        futures = [client.send_async("GET", f"/{number}") for number in range(3)]
        eventually(lambda: client.stats().in_flight == 1, PATIENCE)

        client.dispose(drain_timeout=0.0)

        assert all(isinstance(future.exception(PATIENCE), ClientDisposed) for future in futures)
        gate.set()
        peer.wait_until(lambda peer: not peer.open)


# -- HTTP_1_1_REQUIRED -------------------------------------------------------------------


def wants_http1_on_stream(conn: H2Conn) -> None:
    """Refuse the first request for want of HTTP/1.1, and answer what comes later."""
    conn.handshake()
    request = conn.read_request()
    conn.send_rst(request.stream_id, HTTP11)
    conn.drain()


def wants_http1_in_farewell(conn: H2Conn) -> None:
    """As above, for the whole connection."""
    conn.handshake()
    conn.read_request()
    conn.send_goaway(0, HTTP11)
    conn.drain()


@pytest.mark.parametrize("behaviour", [wants_http1_on_stream, wants_http1_in_farewell])
def test_request_that_the_server_wants_over_http_1_1_is_sent_there(
    authority: Authority, client_of: Make, behaviour: Behaviour
) -> None:
    """FLT-S7, I9: a POST, with its body, once by each."""
    with H2Peer(by_alpn(behaviour, old), authority=authority, alpn=("h2", "http/1.1")) as peer:
        client = client_of(base_url=peer.url, http_version="2")

        response = client.post("/x", content=b"hello")

        assert (response.http_version, response.text) == (ONE, "POST /x hello")
        assert spoken(peer) == ["h2", "http/1.1"]
        assert client.get("/y").http_version == ONE
        client.close()


def test_caller_who_accepts_nothing_else_is_told(authority: Authority, client_of: Make) -> None:
    """I27: and that nothing was processed."""
    with H2Peer(by_alpn(wants_http1_on_stream, old), authority=authority, alpn=("h2", "http/1.1")) as peer:
        client = client_of(base_url=peer.url, http_version="2", version_policy="exact")

        with pytest.raises(UnsupportedVersion) as caught:
            client.get("/x")

        assert caught.value.processed == "no"
        assert spoken(peer) == ["h2"]
        client.close()


# -- many threads ------------------------------------------------------------------------


@pytest.mark.concurrency
def test_first_burst_of_many_threads_is_one_connection_and_one_hand_over(authority: Authority, client_of: Make) -> None:
    """I1, I5, I7: sixteen threads at once, against a server of each kind."""
    for alpn, expected in ((("h2", "http/1.1"), TWO), (("http/1.1",), ONE)):
        with H2Peer(by_alpn(attends, old), authority=authority, alpn=alpn) as peer:
            client = client_of(base_url=peer.url, http_version="2", max_conns_per_host=1)
            found: list[str] = []

            def ask(client: Client = client, found: list[str] = found) -> None:
                found.extend(client.get("/next").http_version for _ in range(3))

            threads = [threading.Thread(target=ask) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)

            assert found == [expected] * 48
            assert len(peer.connections) == 1
            client.close()
