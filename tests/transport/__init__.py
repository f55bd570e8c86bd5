"""Tests of the transport's parts, each by itself: no client, no actors."""

from __future__ import annotations
