"""Configuration: frozen, validated when built, never read from a hidden global. No connection is made here."""

from __future__ import annotations

from turbopool.config.options import ClientOptions, Http1Options, Http2Options, Http3Options
from turbopool.config.reconnect import ReconnectOptions
from turbopool.config.timeouts import Timeout

__all__ = ["ClientOptions", "Http1Options", "Http2Options", "Http3Options", "ReconnectOptions", "Timeout"]
