"""Faults, injected by real peers into a real client: the outcome, and what is left afterwards."""

from __future__ import annotations
