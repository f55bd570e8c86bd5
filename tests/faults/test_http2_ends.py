"""FLT-P2, P5, P12 over HTTP/2: everything cancelled, disposed of, or orphaned by a crash, with streams under way."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pykka
import pytest
from h2.errors import ErrorCodes

from tests.faults.actors import assert_says_what_is_known, kill
from tests.faults.stream_stage import KEY2, StreamStage
from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    answers,
    assert_answered,
    assert_recovered,
    attending,
    attends,
    farewells,
    figures,
    pool_of,
    resets,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.waiting import eventually
from turbopool import ClientDisposed, Http2Options, ManagerCrashed
from turbopool.actors.http2_manager import Http2ConnectionManagerActor

ONE = Http2Options(max_connections_per_server=1)


@SCHEMES
def test_cancelling_everything_ends_what_runs_and_what_waits_and_keeps_the_connection(
    scheme: str, authority: Authority
) -> None:
    """FLT-P2, BEH-M13: two streams, one of them streamed, and three in the queue."""
    with scene(attending(max_concurrent_streams=3), http2=ONE, authority=authority, scheme=scheme) as (client, peer):
        assert client.get("/next").content == NEXT
        running = sent_all(client, peer, "/1", ("POST", "/2"), "/3")
        waiting = [client.send_async("GET", f"/w{n}") for n in range(3)]
        eventually(lambda: figures(client) == (1, 3, 3))

        client.cancel_pending_requests()

        for future in [*running, *waiting]:
            with pytest.raises(CancelledError):
                future.result(0)
        conn = peer.connections[0]
        peer.wait_until(lambda _: len(resets(conn)) == 3)
        assert_recovered(client, peer, connections=1, never_sent=3)
        assert pool_of(client).cancelled == 6


def test_disposing_waits_for_streams_and_the_queue_behind_them() -> None:
    """FLT-P12, I16: what was accepted is answered; what comes later is refused; then GOAWAY, and the end."""
    with scene(attending(max_concurrent_streams=2), http2=ONE) as (client, peer), ThreadPoolExecutor(1) as pool:
        running = sent_all(client, peer, "/1")
        conn = peer.connections[0]
        conn.do(conn.settings_acked)
        running += sent_all(client, peer, "/2")
        waiting = [client.send_async("POST", "/next") for _ in range(3)]
        disposed = pool.submit(client.dispose, PATIENCE)
        eventually(lambda: client.is_disposed)
        with pytest.raises(ClientDisposed):
            client.get("/never")
        conn.do(conn.respond, 1)
        conn.do(conn.respond, 3)

        assert_answered(running)
        assert_answered(waiting, NEXT)
        disposed.result(PATIENCE)
        peer.wait_until(lambda _: conn.raw.peer_closed_at)
        assert farewells(conn) == [ErrorCodes.NO_ERROR]


def test_disposing_at_once_fails_streams_and_the_queue() -> None:
    """FLT-P12: with what is known of each; nobody is connected to any more."""
    with scene(attending(max_concurrent_streams=2), http2=ONE) as (client, peer):
        first = sent_all(client, peer, "/1")
        conn = peer.connections[0]
        conn.do(conn.settings_acked)
        running = [*first, *sent_all(client, peer, ("POST", "/2"))]
        waiting = [client.send_async("POST", "/w") for _ in range(3)]
        eventually(lambda: figures(client) == (1, 2, 3))

        client.dispose(0, queued="fail")

        for future in running:
            error = future.exception(0)
            assert isinstance(error, ClientDisposed)
            assert (error.processed, error.request_sent) == ("maybe", True)
        for future in waiting:
            error = future.exception(0)
            assert isinstance(error, ClientDisposed)
            assert (error.processed, error.request_sent) == ("no", False)
        peer.wait_until(lambda _: conn.raw.peer_closed_at)
        assert len(peer.connections) == 1


def test_a_stream_that_nobody_reads_does_not_keep_a_client_from_its_end() -> None:
    """FLT-P12: it is given its read timeout, and then ended; the one beside it is answered."""
    stage, peer = StreamStage.proven()
    unread, sibling = stage.asked(stream=True, read=5.0), stage.asked()
    peer.send_headers(3, [(":status", "200")])
    peer.send_data(3, bytes(100))
    stage.settle()
    done = stage.dispose(after=60.0)
    peer.respond(5)
    stage.advance(4)
    assert sibling.response.status_code == 200
    assert not done.is_set()

    stage.advance(2)

    assert done.is_set()
    pieces = unread.response.iter_bytes()
    assert next(pieces) == bytes(100)
    with pytest.raises(ClientDisposed):
        next(pieces)
    assert peer.channel.closed


@SCHEMES
def test_a_crash_of_the_manager_fails_streams_and_hands_the_queue_on(scheme: str, authority: Authority) -> None:
    """FLT-P5: ManagerCrashed for what was under way; those who waited are served by the replacement."""
    before = set(pykka.ActorRegistry.get_by_class(Http2ConnectionManagerActor))
    with scene(attending(max_concurrent_streams=2), answers, http2=ONE, authority=authority, scheme=scheme) as (
        client,
        peer,
    ):
        get = sent_all(client, peer, "/get")[0]
        peer.connections[0].do(peer.connections[0].settings_acked)
        post = sent_all(client, peer, ("POST", "/post"))[0]
        waiting = [client.send_async("POST", f"/w{n}") for n in range(3)]
        eventually(lambda: figures(client) == (1, 2, 3))
        (manager,) = set(pykka.ActorRegistry.get_by_class(Http2ConnectionManagerActor)) - before
        kill(manager)

        for future in (get, post):
            assert_says_what_is_known(future.exception(PATIENCE), ManagerCrashed, sent=True)
        assert_answered(waiting, NEXT)
        eventually(lambda: peer.connections[0].raw.peer_closed_at, PATIENCE)
        assert_recovered(client, peer, connections=2)


def test_a_crash_ends_the_reader_of_a_streamed_response() -> None:
    """FLT-P5: who waits for more of it is told."""
    before = set(pykka.ActorRegistry.get_by_class(Http2ConnectionManagerActor))
    with scene(attends, attends) as (client, peer), ThreadPoolExecutor(1) as pool:
        context = client.stream("GET", "/x")
        entered = pool.submit(context.__enter__)
        peer.wait_for_requests(1)
        conn = peer.connections[0]
        conn.do(conn.respond, 1, body=b"part", end=False)
        pieces = entered.result(PATIENCE).iter_bytes()
        assert next(pieces) == b"part"
        more = pool.submit(next, pieces)
        (manager,) = set(pykka.ActorRegistry.get_by_class(Http2ConnectionManagerActor)) - before
        kill(manager)

        assert isinstance(more.exception(PATIENCE), ManagerCrashed)
        context.__exit__(None, None, None)
        assert client.get("/next").content == NEXT
        eventually(lambda: not any(figures(client)))


@pytest.mark.concurrency
def test_threads_that_share_a_connection_get_their_own_answers() -> None:
    """PEER-P5, I7: 40 of them, ten requests each, some of which are cancelled; ids, fields and frames stay in order."""
    failures: list[str] = []

    def echo(conn: H2Conn) -> None:
        conn.handshake()
        while True:
            request = conn.read_request(float("inf"))
            conn.respond(request.stream_id, headers=[("x-path", request.path)], body=request.path.encode())

    with scene(echo) as (client, peer):

        def work(thread: int) -> None:
            for number in range(10):
                path = f"/{thread}/{number}"
                future = client.send_async("POST", path, content=b"body", headers={"x-thread": str(thread)})
                if number % 5 == 4:
                    future.cancel()
                    continue
                response = future.result(PATIENCE)
                if (response.headers["x-path"], response.content) != (path, path.encode()):
                    failures.append(path)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert failures == []
        assert len(peer.connections) <= 6
        eventually(lambda: not any(figures(client)), PATIENCE)


def test_the_figures_of_a_key_tell_streams_from_connections() -> None:
    """PEER-P35, BEH-L3: leased counts connections, in_flight requests, a retiring connection included."""
    stage, peer = StreamStage.proven(streams=2)
    calls = [stage.asked() for _ in range(3)]
    assert stage.figures == (1, 2, 1)
    other = stage.serve()
    assert stage.figures == (2, 3, 0)
    peer.send_goaway(5)
    stage.settle()
    assert stage.figures == (2, 3, 0)
    peer.respond(3)
    peer.respond(5)
    stage.settle()
    assert (stage.figures, stage.stats(KEY2).closed) == ((1, 1, 0), 1)
    other.respond(1)
    stage.settle()
    assert (stage.figures, stage.stats(KEY2).idle) == ((0, 0, 0), 1)
    assert [call.response.status_code for call in calls] == [200] * 3
    stage.close()
