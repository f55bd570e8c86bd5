"""The options of HTTP/2: defaults, and what is refused."""

from __future__ import annotations

import math

import pytest

from turbopool.config import ClientOptions, Http2Options


def test_defaults_are_as_documented() -> None:
    """BEH-C5."""
    options = Http2Options()

    assert (options.max_connections_per_server, options.max_concurrent_streams) == (6, 100)
    assert (options.connection_window, options.stream_window) == (64 << 20, 2 << 20)
    assert (options.keep_alive_interval, options.keep_alive_timeout) == (30.0, 20.0)


@pytest.mark.parametrize("interval", [0, 0.0, None, 0.5, 3600])
def test_keep_alive_may_be_switched_off_or_take_any_time(interval: float | None) -> None:
    """BEH-C5: 0 and None are never, and are kept as they were given."""
    assert Http2Options(keep_alive_interval=interval).keep_alive_interval == interval


@pytest.mark.parametrize("interval", [-1, math.nan, math.inf, "30", True])
def test_nonsense_as_interval_is_refused_by_name(interval: float) -> None:
    """BEH-C5."""
    with pytest.raises(ValueError, match=r"http2\.keep_alive_interval"):
        Http2Options(keep_alive_interval=interval)


@pytest.mark.parametrize("timeout", [0, 0.0, -1, math.nan, math.inf, "20", None])
def test_nonsense_as_timeout_is_refused_by_name(timeout: float) -> None:
    """BEH-C5: there is no waiting for ever, and no connection that is dead at once."""
    with pytest.raises(ValueError, match=r"http2\.keep_alive_timeout"):
        Http2Options(keep_alive_timeout=timeout)


@pytest.mark.parametrize("name", ["max_connections_per_server", "max_concurrent_streams"])
@pytest.mark.parametrize("count", [0, -1, 1.5, "6", True])
def test_nonsense_as_count_is_refused_by_name(name: str, count: int) -> None:
    """BEH-C5."""
    with pytest.raises(ValueError, match=rf"http2\.{name}"):
        Http2Options(**{name: count})  # type: ignore[arg-type]  # each is a number


@pytest.mark.parametrize("version", ["1.0", "1.1", "2", "3"])
def test_versions_that_are_known_may_be_a_clients_own(version: str) -> None:
    """BEH-C5: whether one is built is said when a request asks for it."""
    assert ClientOptions(http_version=version).http_version == version


@pytest.mark.parametrize("version", ["2.0", "h2", "HTTP/2", "", "4"])
def test_versions_that_are_not_known_are_refused_by_name(version: str) -> None:
    """BEH-C5."""
    with pytest.raises(ValueError, match="http_version"):
        ClientOptions(http_version=version)
