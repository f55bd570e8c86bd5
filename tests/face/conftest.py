"""A server that echoes, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.face.handlers import echo
from tests.servers.raw import RawServer, always
from turbopool import Client


@pytest.fixture
def server() -> Iterator[RawServer]:
    """A server that answers every request with what it saw."""
    with RawServer(always(echo)) as running:
        yield running


@pytest.fixture
def client(server: RawServer) -> Iterator[Client]:
    """A client of the echoing server."""
    with Client(base_url=server.url, request_timeout=10) as made:
        yield made
