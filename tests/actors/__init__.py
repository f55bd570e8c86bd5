"""The actors, on a dispatcher that the test turns by hand; see `tests.actors.stage`."""

from __future__ import annotations
