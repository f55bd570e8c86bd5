"""What these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transport.reactor import Turned


@pytest.fixture
def turned() -> Iterator[Turned]:
    """A reactor that runs only when the test turns it."""
    with Turned() as reactor:
        yield reactor
