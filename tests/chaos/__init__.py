"""A chaos run against a real nginx that is reloaded, killed and restarted: ``make chaos``."""

from __future__ import annotations
