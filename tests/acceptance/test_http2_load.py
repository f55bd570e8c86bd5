"""Many threads, many cancels and few streams over HTTP/2."""

from __future__ import annotations

import random
import time
import zlib
from pathlib import Path

import pytest

from tests.acceptance.storms import CANCELLED, LEFT, MIB, cancel_many, peers_of, seconds_of_download
from tests.acceptance.test_nginx import run_threads
from tests.servers.certs import Authority
from tests.servers.h2peer import H2Peer
from tests.servers.h2serve import pattern, serving
from tests.servers.http2 import Http2Nginx, Nghttpd, needs_nghttpd
from tests.servers.nginx import SMALL
from turbopool import Client, Http2Options

ONE = Http2Options(max_connections_per_server=1)

THREADS = 64
REQUESTS = 200
SIZES = (0, 1, 10, 100, 1_000, 3_000, 10_000, 40_000)
"""Of bodies, either way; the last ones take more than a frame."""

CANCELS = 2_000
PATIENCE = 20.0
"""Seconds for a connection to show that it can be as fast as another one."""


@pytest.mark.concurrency
@needs_nghttpd
def test_sixty_four_threads_get_their_own_answers_over_one_connection(authority: Authority, tmp_path: Path) -> None:
    """BEH-M2, I5: each body is checked by its CRC, at the wildest switching of threads too."""
    blob = pattern(max(SIZES) + THREADS)
    with (
        Nghttpd(tmp_path, authority, echo_upload=True) as server,
        Client(base_url=server.h2_url, http_version="2", http2=ONE, request_timeout=60) as client,
    ):
        for size in SIZES:
            (server.root / str(size)).write_bytes(blob[:size])
        crcs = {size: zlib.crc32(blob[:size]) for size in SIZES}

        def call(number: int) -> None:
            rng = random.Random(number)  # noqa: S311 - not a secret
            for nth in range(REQUESTS):
                (size,) = rng.choices(SIZES, range(len(SIZES), 0, -1))
                if nth % 2:
                    answer, expected = client.get(f"/{size}", headers={"x-thread": str(number)}), crcs[size]
                else:
                    body = blob[number : number + size]
                    answer, expected = client.send_async("POST", "/", content=body).result(), zlib.crc32(body)
                assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
                assert (len(answer.content), zlib.crc32(answer.content)) == (size, expected)

        run_threads(THREADS, call, patience=55)
        stats = client.stats()

    assert (stats.opened, stats.requests, stats.replays) == (1, THREADS * REQUESTS, 0)


@pytest.mark.concurrency
@pytest.mark.parametrize("name", ["nginx2", "nghttpd"])
def test_connection_is_as_good_as_new_after_thousands_of_cancels(request: pytest.FixtureRequest, name: str) -> None:
    """FLT-S25, S14, BEH-M13: no GOAWAY for all the resets, no window that is lost, nothing that slows it down.

    It is compared with a fresh connection, in turn, since the machine has other things to do.
    """
    server: Http2Nginx | Nghttpd = request.getfixturevalue(name)
    with (
        Client(base_url=server.h2_url, http_version="2", http2=ONE) as client,
        Client(base_url=server.h2_url, http_version="2", http2=ONE) as fresh,
    ):
        others = peers_of(server.h2_port)
        client.get("/small")
        (peer,) = peers_of(server.h2_port) - others
        done = cancel_many(client, CANCELS)
        assert done[CANCELLED] + done[LEFT] == CANCELS

        pairs: list[tuple[float, float]] = []
        until = time.monotonic() + PATIENCE
        while len(pairs) < 3 or min(new for new, _ in pairs) < 0.5 * min(old for _, old in pairs):
            assert time.monotonic() < until, pairs
            pairs.append((seconds_of_download(fresh, 64), seconds_of_download(client, 64)))
        assert peer in peers_of(server.h2_port)
        assert client.stats().opened == 1


def test_further_connections_are_opened_where_the_server_allows_few_streams() -> None:
    """BEH-M3, L3: eight requests of 0.3 s by twos; the best of some tries, since the machine has its stalls."""
    took = []
    for _ in range(8):
        with H2Peer(serving(max_concurrent_streams=2)) as peer, Client(base_url=peer.url, http_version="2") as client:
            client.get("/")
            began = time.perf_counter()
            futures = [client.send_async("GET", "/delay?s=0.3") for _ in range(8)]
            assert {future.result().status_code for future in futures} == {200}
            took.append(time.perf_counter() - began)
            assert client.stats().opened == len(peer.connections) == 4
        if took[-1] <= 0.5:
            break

    assert 0.3 <= min(took) <= 0.5


def test_answers_before_the_request_was_read_are_no_flood(nginx2: Http2Nginx) -> None:
    """FLT-S9, S22: nginx answers without the body, and resets each stream that it has not read to its end."""
    with Client(base_url=nginx2.h2_url, http_version="2", http2=ONE) as client:
        for _ in range(16):
            futures = [client.send_async("POST", "/early", content=b"x" * 500) for _ in range(100)]
            assert {future.result().content for future in futures} == {SMALL}
        assert client.stats().opened == 1


def test_download_is_whole_after_cancels_of_uploads(nginx2: Http2Nginx) -> None:
    """FLT-S14, S25: half of what was to be sent was, and the rest never is."""
    with Client(base_url=nginx2.h2_url, http_version="2", http2=ONE) as client:
        body = pattern(3 * MIB)
        for _ in range(20):
            futures = [client.send_async("POST", "/upload", content=body) for _ in range(4)]
            futures[0].result()
            for future in futures:
                future.cancel()
        assert len(client.get("/bytes/1m").content) == MIB
        assert client.post("/upload", content=body).text == str(len(body))
        assert client.stats().opened == 1
