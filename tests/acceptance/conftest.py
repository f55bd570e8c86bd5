"""What several of these tests need."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture
def path() -> str:
    """A path no other test asks nginx for, so that its log can be asked about this one alone."""
    return f"/{uuid.uuid4().hex}/"
