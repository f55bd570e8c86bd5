"""FLT-P3: streamed responses that are dropped instead of closed."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.faults.aftermath import NEXT, assert_balanced, assert_recovered, healthy, says
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond
from tests.waiting import eventually
from turbopool import Client, Response

_HERE = re.escape(Path(__file__).name)
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"

Stream = AbstractContextManager[Response]


@pytest.fixture(autouse=True)
def only_asked_collections() -> Iterator[None]:
    """Let the collector run when the test says so, and not before."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _opened(client: Client) -> tuple[Stream, Response]:
    """A stream entered and not left, as by a caller who forgot ``with``."""
    stream = client.stream("GET", "/dropped")
    return stream, stream.__enter__()


def _dropped(client: Client) -> None:
    _opened(client)


def _dropped_half_read(client: Client) -> None:
    _, response = _opened(client)
    assert next(response.iter_bytes()) == b"12345"


def _dropped_iterator(client: Client) -> None:
    pieces = _opened(client)[1].iter_bytes()
    assert next(pieces) == b"12345"


def _dropped_in_a_cycle(client: Client) -> None:
    cycle: list[object] = [*_opened(client)]
    cycle.append(cycle)


def _collected(drop: Callable[[], object]) -> None:
    """Drop something, and let the collector find it."""
    drop()
    gc.collect()


@pytest.mark.parametrize("way", [_dropped, _dropped_in_a_cycle])
def test_a_response_that_is_dropped_is_reclaimed_and_named_by_where_it_was_made(way: Callable[[Client], None]) -> None:
    """FLT-P3: of one place in all, over and over; the next request gets it, and the server sees the close."""
    with (
        RawServer([*[says(HALF)] * 3, healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
    ):
        for n in range(3):
            with pytest.warns(ResourceWarning, match=rf"{_HERE}:\d+") as caught:
                _collected(lambda: way(client))

            assert len(caught) == 1
            eventually(lambda: client.stats().leased == 0)
            server.wait_until(lambda server: all(conn.peer_closed_at for conn in server.connections))
            assert len(server.connections) == client.stats().closed == n + 1
        assert_recovered(client, server, connections=4)


@pytest.mark.parametrize("way", [_dropped_half_read, _dropped_iterator])
def test_a_response_whose_reader_stopped_in_the_middle_is_reclaimed(way: Callable[[Client], None]) -> None:
    """FLT-P3: with its iterator, whoever held it."""
    with (
        RawServer([says(HALF), healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ResourceWarning)  # the iterator may have closed it first
        _collected(lambda: way(client))

        server.wait_until(lambda server: server.connections[0].peer_closed_at)
        assert_recovered(client, server, connections=2)


def test_the_warning_names_the_line_that_opened_the_stream() -> None:
    """FLT-P3: and not a line of ours."""
    with RawServer([says(HALF), healthy]) as server, Client(base_url=server.url) as client:
        with pytest.warns(ResourceWarning) as caught:
            _collected(lambda: client.stream("GET", "/dropped").__enter__())  # HERE

        source = Path(__file__).read_text().splitlines()
        (line,) = re.findall(rf"{_HERE}:(\d+)", str(caught[0].message))
        assert source[int(line) - 1].endswith("# HERE")
        assert_recovered(client, server, connections=2)


def test_a_waiter_gets_the_place_of_a_dropped_response() -> None:
    """FLT-P3: it waits already when the response is collected."""
    with (
        RawServer([says(HALF), healthy]) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
    ):
        kept: list[object] = [*_opened(client)]
        waiting = client.send_async("GET", "/waiting", timeout=10)
        eventually(lambda: client.stats().waiting == 1)
        with pytest.warns(ResourceWarning):
            _collected(kept.clear)

        assert waiting.result(30).content == NEXT
        assert_recovered(client, server, connections=2)


def _left(client: Client) -> None:
    with client.stream("GET", "/x") as response:
        assert response.status_code == 200


def _closed(client: Client) -> None:
    _, response = _opened(client)
    response.close()


def _read(client: Client) -> None:
    _, response = _opened(client)
    assert len(response.read()) == 100_000


def _kept_in_memory(client: Client) -> None:
    client.get("/x")
    client.send_async("GET", "/x").result(30)


def _never_entered(client: Client) -> None:
    client.stream("GET", "/x")


@pytest.mark.parametrize("way", [_left, _closed, _read, _kept_in_memory, _never_entered])
def test_who_ends_what_he_began_is_not_warned(way: Callable[[Client], None]) -> None:
    """FLT-P3."""
    with (
        RawServer(always(respond(bytes(100_000)))) as server,
        Client(base_url=server.url, max_conns_per_host=1) as client,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        for _ in range(3):
            way(client)
            gc.collect()
        eventually(lambda: client.stats().leased == 0)

        assert [str(warning.message) for warning in caught] == []
        client.get("/x")
        assert_balanced(client, server, connections=client.stats().opened)


def test_a_response_dropped_after_its_client_was_disposed_harms_nobody() -> None:
    """FLT-P3, P12: there is nothing left to be given back."""
    with RawServer(says(HALF)) as server:
        client = Client(base_url=server.url)
        kept: list[object] = [*_opened(client)]
        client.dispose(drain_timeout=0.05)
        server.wait_until(lambda server: server.connections[0].peer_closed_at)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it was not closed, whoever ended it
            _collected(kept.clear)


def test_many_dropped_responses_leave_no_connection_behind() -> None:
    """FLT-P3: ten at once, in one collection."""

    def half(conn: Conn) -> None:
        while conn.read_request().target != "/dropped":
            conn.send(respond(NEXT))
        conn.send(HALF)
        conn.hold()

    with RawServer(half) as server, Client(base_url=server.url, max_conns_per_host=10) as client:
        kept = [_opened(client) for _ in range(10)]
        assert client.stats().leased == 10
        with pytest.warns(ResourceWarning) as caught:
            _collected(kept.clear)

        assert len(caught) == 10
        eventually(lambda: client.stats().closed == 10)
        assert_recovered(client, server, connections=11)
