"""Stages for the tests of the actors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from tests.actors.stage import Stage
from tests.actors.streams import StageOf, Streams

S = TypeVar("S", bound=Stage)


def _makes(kind: type[S]) -> Iterator[Callable[..., S]]:
    """Yield what makes stages with options of the test's own; each is closed, and must be empty, after the test."""
    stages: list[S] = []

    def make(**options: Any) -> S:  # noqa: ANN401 - those of a stage
        stages.append(kind(**options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture
def stage_of() -> Iterator[Callable[..., Stage]]:
    """Make stages; see :func:`_makes`."""
    yield from _makes(Stage)


@pytest.fixture
def streams_of() -> Iterator[StageOf]:
    """Make stages of HTTP/2 keys; see :func:`_makes`."""
    yield from _makes(Streams)


@pytest.fixture
def stage(stage_of: Callable[..., Stage]) -> Stage:
    """A stage with the default options: two connections a key."""
    return stage_of()
