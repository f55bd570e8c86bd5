"""Stages for the tests of the actors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.actors.stage import Stage


@pytest.fixture
def stage_of() -> Iterator[Callable[..., Stage]]:
    """Make stages with options of the test's own; each is closed, and must be empty, after the test."""
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:  # noqa: ANN401 - those of a stage
        stages.append(Stage(**options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture
def stage(stage_of: Callable[..., Stage]) -> Stage:
    """A stage with the default options: two connections a key."""
    return stage_of()
