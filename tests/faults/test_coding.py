"""FLT-H19, H20, H21: content codings that are attacks, through a real client."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import brotli
import pytest
import zstandard

from tests.faults.aftermath import assert_recovered, healthy, says
from tests.servers.connection import Conn
from tests.servers.raw import RawServer
from tests.servers.wire import respond
from tests.waiting import SPENT
from turbopool import Client, DecodeError, HTTPStatusError, LimitExceeded, Response

_BLOCK = 16 << 20
_MIB = 1 << 20
_LIMIT = 16 * _MIB
"""What a body may decode to in these tests."""


def _gzip(blocks: int) -> bytes:
    return gzip.compress(bytes(_BLOCK)) * blocks  # as many members


def _deflate(blocks: int) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = engine.compress(bytes(_BLOCK)) + engine.flush(zlib.Z_FULL_FLUSH)  # it refers to nothing before it
    return block * blocks + engine.flush()


def _brotli(blocks: int) -> bytes:
    engine = brotli.Compressor(quality=1)
    return b"".join(engine.process(bytes(_BLOCK)) for _ in range(min(blocks, 16))) + bytes(engine.finish())


def _zstd(blocks: int) -> bytes:
    return zstandard.compress(bytes(_BLOCK)) * blocks


BOMBS: dict[str, Callable[[int], bytes]] = {"gzip": _gzip, "deflate": _deflate, "br": _brotli, "zstd": _zstd}


def _coded(body: bytes, coding: str, status: int = 200) -> bytes:
    return respond(body, status, headers=[("Content-Encoding", coding)])


def _unfinished(body: bytes, coding: str, status: int = 200) -> bytes:
    """As if more were to come: who has enough of it has to end the connection."""
    return respond(body, status, headers=[("Content-Encoding", coding), ("Content-Length", str(len(body) + 1))])


@dataclass(slots=True)
class Cost:
    """What a block of code took: bytes at the peak, seconds of the processor."""

    peak: int = 0
    seconds: float = 0.0


@contextmanager
def _measured() -> Iterator[Cost]:
    cost = Cost()
    began = time.process_time()
    tracemalloc.start()
    try:
        yield cost
        cost.peak = tracemalloc.get_traced_memory()[1]
        cost.seconds = time.process_time() - began
    finally:
        tracemalloc.stop()


# -- H19: bombs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", BOMBS)
def test_a_bomb_is_stopped_at_the_limit_and_costs_nothing_until_it_is_read(coding: str) -> None:
    """FLT-H19: 10 GiB (of brotli 256 MiB) in at most 10 MiB; the connection did nothing wrong and is kept."""
    bomb = BOMBS[coding](640)
    assert len(bomb) < 11 * _MIB
    with (
        RawServer(says(_coded(bomb, coding), healthy)) as server,
        Client(base_url=server.url, max_buffered_body=_LIMIT) as client,
    ):
        with _measured() as received:
            response = client.get("/x").raise_for_status()
        with _measured() as read, pytest.raises(LimitExceeded) as caught:
            response.read()

        assert response.num_bytes_downloaded == len(bomb)
        assert received.peak < 3 * len(bomb) + _MIB  # the bytes as they came, and joined
        assert (caught.value.option, caught.value.facts["limit"]) == ("max_buffered_body", _LIMIT)
        assert read.peak < 2 * _LIMIT
        assert_recovered(client, server, connections=1)


@pytest.mark.parametrize("coding", BOMBS)
def test_a_streamed_bomb_is_decoded_as_far_as_it_is_read_and_no_further(coding: str) -> None:
    """FLT-H19: in pieces of bounded size, and who has enough leaves at once."""
    with (
        RawServer([says(_unfinished(BOMBS[coding](640), coding)), healthy]) as server,
        Client(base_url=server.url, max_buffered_body=_LIMIT) as client,
    ):
        largest = read = 0
        with _measured() as cost:
            with client.stream("GET", "/x") as response:
                for piece in response.iter_bytes():
                    largest = max(largest, len(piece))
                    if (read := read + len(piece)) >= 64 * _MIB:
                        break
                left = time.monotonic()
            left = time.monotonic() - left

        assert largest <= 2 * _MIB
        assert read < 66 * _MIB
        assert cost.peak < 16 * _MIB  # what is received and not yet decoded is in it
        assert left < SPENT
        server.wait_until(lambda server: server.connections[0].closed_at)
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("coding", BOMBS)
def test_a_streamed_bomb_that_is_to_be_kept_whole_is_stopped_at_the_limit(coding: str) -> None:
    """FLT-H19: ``read()`` of a stream is bounded as a body in memory is."""
    with (
        RawServer([says(_unfinished(BOMBS[coding](640), coding)), healthy]) as server,
        Client(base_url=server.url, max_buffered_body=_LIMIT) as client,
    ):
        with _measured() as cost, client.stream("GET", "/x") as response, pytest.raises(LimitExceeded):
            response.read()

        assert cost.peak < 3 * _LIMIT
        assert_recovered(client, server, connections=2)


def test_a_bomb_within_a_bomb_is_stopped_where_it_is_largest() -> None:
    """FLT-H19: what lies between two codings counts as well."""
    inner = _gzip(64)
    with (
        RawServer(says(_coded(gzip.compress(inner * 64), "gzip, gzip"), healthy)) as server,
        Client(base_url=server.url, max_buffered_body=_LIMIT) as client,
    ):
        response = client.get("/x")
        with _measured() as cost, pytest.raises(LimitExceeded):
            response.read()

        assert cost.peak < 2 * _LIMIT
        assert_recovered(client, server, connections=1)


# -- H20: many codings, many members ---------------------------------------------------------------------

CHAINS = {
    "one field": [("Content-Encoding", ", ".join(["gzip"] * 1000))],
    "many fields": [("Content-Encoding", "gzip, br, gzip, deflate, zstd")] * 200,
    "six": [("Content-Encoding", "gzip, gzip, gzip"), ("Content-Encoding", "gzip, gzip, gzip")],
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chain_of_too_many_codings_is_refused_before_any_is_undone(chain: str, stream: bool) -> None:  # noqa: FBT001
    """FLT-H20: by whoever reads the body; who does not has a good response."""
    answer = respond(b"no coding at all", headers=CHAINS[chain])
    with RawServer([says(answer, healthy), healthy]) as server, Client(base_url=server.url) as client:
        if stream:
            with client.stream("GET", "/x") as response, pytest.raises(DecodeError, match="limit=5"):
                response.read()
        else:
            response = client.get("/x")
            with pytest.raises(DecodeError, match="limit=5"):
                response.read()
            assert b"".join(response.iter_raw()) == b"no coding at all"

        assert_recovered(client, server, connections=1)


def test_a_chain_of_five_codings_is_undone() -> None:
    """FLT-H20: that many are allowed."""
    body = b"hello"
    for _ in range(5):
        body = gzip.compress(body)
    with (
        RawServer(says(_coded(body, "gzip, gzip, gzip, gzip, gzip"), healthy)) as server,
        Client(base_url=server.url) as client,
    ):
        assert client.get("/x").content == b"hello"
        assert_recovered(client, server, connections=1)


def test_many_members_of_gzip_cost_no_more_than_their_bytes() -> None:
    """FLT-H20: a quadratic cost would be minutes."""
    members = 50_000
    with (
        RawServer(says(_coded(gzip.compress(b"x") * members, "gzip"), healthy)) as server,
        Client(base_url=server.url) as client,
    ):
        began = time.process_time()

        assert client.get("/x").content == b"x" * members

        assert time.process_time() - began < 10
        assert_recovered(client, server, connections=1)


# -- H21: a bomb that nobody reads -----------------------------------------------------------------------


def _leaves(response: Response) -> None:
    assert response.headers["content-encoding"] == "gzip"


def _closes(response: Response) -> None:
    response.close()


def _asks_for_the_status(response: Response) -> None:
    if response.is_error:
        with pytest.raises(HTTPStatusError):
            response.raise_for_status()
    else:
        response.raise_for_status()


@pytest.mark.parametrize("status", [200, 302, 500])
@pytest.mark.parametrize("reader", [_leaves, _closes, _asks_for_the_status])
def test_a_streamed_bomb_that_nobody_reads_is_given_up_at_once(status: int, reader: Callable[[Response], None]) -> None:
    """FLT-H21: it is not drained, nothing of it is decoded, and its connection is closed."""
    bomb = _unfinished(_gzip(640), "gzip", status)
    with RawServer([says(bomb), healthy]) as server, Client(base_url=server.url) as client:
        with _measured() as cost:
            with client.stream("GET", "/x") as response:
                reader(response)
                began = time.monotonic()
            released = time.monotonic() - began

        assert released < SPENT
        assert cost.peak < 8 * _MIB
        assert cost.seconds < 2  # to decode it all takes many times that
        server.wait_until(lambda server: server.connections[0].closed_at)
        assert_recovered(client, server, connections=2)


def test_a_bomb_without_end_that_nobody_reads_takes_bounded_bytes_and_time() -> None:
    """FLT-H21, H22: it is held back by the reader who does not come, and closed when he leaves."""
    member = _gzip(1)
    sent = 0

    def endless(conn: Conn) -> None:
        nonlocal sent
        conn.read_request()
        conn.send(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Encoding: gzip\r\n\r\n")
        while True:
            conn.send(member)
            sent += len(member)

    with RawServer([endless, healthy]) as server, Client(base_url=server.url) as client:
        with _measured() as cost:
            with client.stream("GET", "/x") as response:
                assert response.is_redirect
                assert client.get("/other").is_success  # beside it
            began = time.monotonic()
            server.wait_until(lambda server: server.connections[0].closed_at)

        assert time.monotonic() - began < SPENT
        assert sent < 24 * _MIB  # what the kernel holds on both sides, and our half a megabyte
        assert cost.peak < 8 * _MIB
        assert_recovered(client, server, connections=2)


@pytest.mark.parametrize("status", [302, 500])
def test_an_answer_kept_in_memory_is_never_decoded_for_its_status(status: int) -> None:
    """FLT-H21: an error and a redirect cost their bytes, whatever they would decode to."""
    bomb = _gzip(640)
    with (
        RawServer(says(_coded(bomb, "gzip", status), healthy)) as server,
        Client(base_url=server.url) as client,
    ):
        with _measured() as cost:
            response = client.get("/x")
            _asks_for_the_status(response)

        assert cost.peak < 3 * len(bomb) + _MIB
        assert cost.seconds < 2
        assert_recovered(client, server, connections=1)
