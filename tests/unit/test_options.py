"""The options of a client: defaults, aliases, environment, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import ssl
from pathlib import Path

import pytest

from turbopool.config import ClientOptions, Http1Options, Http2Options, Http3Options, ReconnectOptions
from turbopool.config.environment import VARIABLES
from turbopool.headers import Headers


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def test_defaults_are_as_documented() -> None:
    """BEH-C5."""
    options = ClientOptions()

    assert (options.http1.max_connections_per_server, options.http2.max_connections_per_server) == (6, 6)
    assert (options.http2.max_concurrent_streams, options.http3.max_connections_per_server) == (100, 4)
    assert (options.http2.connection_window, options.http2.stream_window) == (64 << 20, 2 << 20)
    assert (options.max_conns_per_host, options.max_total_connections) == (None, None)
    assert (options.idle_timeout, options.connection_lifetime) == (55.0, 600.0)
    assert (options.connect_timeout, options.request_timeout) == (10.0, 30.0)
    assert options.max_pending_requests == 65_536
    assert (options.max_response_headers, options.max_header_count, options.max_informational) == (65_536, 256, 16)
    assert options.max_buffered_body == 268_435_456
    assert (options.http_version, options.version_policy) == ("1.1", "or_lower")
    assert (options.verify, options.cert, options.base_url, options.http_client) == (True, None, None, None)
    assert options.reconnect == ReconnectOptions()
    assert not options.own_dispatcher


def test_sdk_defaults_are_the_four_of_the_sdks() -> None:
    options = ClientOptions.sdk_defaults()

    assert (options.max_conns_per_host, options.idle_timeout) == (5, 55.0)
    assert (options.connect_timeout, options.request_timeout) == (10.0, 30.0)


def test_environment_wins_over_defaults_and_arguments_win_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBOPOOL_MAX_CONNS_PER_HOST", "9")
    monkeypatch.setenv("TURBOPOOL_IDLE_TIMEOUT", "7")
    monkeypatch.setenv("TURBOPOOL_CONNECTION_MAX_AGE", "8")

    for options in (ClientOptions(), ClientOptions.of(), ClientOptions.sdk_defaults()):
        assert (options.max_conns_per_host, options.idle_timeout, options.connection_lifetime) == (9, 7.0, 8.0)
    assert ClientOptions(idle_timeout=1.0).idle_timeout == 1.0
    assert ClientOptions.sdk_defaults(max_conns_per_host=2).max_conns_per_host == 2


@pytest.mark.parametrize("option", VARIABLES)
@pytest.mark.parametrize("kept", [0, None])
def test_an_explicit_zero_or_none_is_kept(option: str, kept: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[option], "9")

    assert getattr(ClientOptions.of(**{option: kept}), option) == kept


def test_a_nonsense_variable_is_refused_when_options_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURBOPOOL_CONNECT_TIMEOUT", "soon")

    with pytest.raises(ValueError, match=r"TURBOPOOL_CONNECT_TIMEOUT='soon' .*connect_timeout"):
        ClientOptions()


@pytest.mark.parametrize(
    ("alias", "option", "value"),
    [
        ("pooled_connection_idle_timeout", "idle_timeout", 120.0),
        ("pooled_connection_lifetime", "connection_lifetime", 0),
        ("base_address", "base_url", "http://h"),
    ],
)
def test_other_names_of_an_option_are_understood(alias: str, option: str, value: object) -> None:
    for options in (
        ClientOptions.of(**{alias: value}),
        ClientOptions.sdk_defaults(**{alias: value}),
        ClientOptions().replace(**{alias: value}),
        ClientOptions.of(**{alias: value, option: value}),
    ):
        assert getattr(options, option) == getattr(options, alias) == value


def test_an_option_and_its_alias_may_not_differ() -> None:
    with pytest.raises(ValueError, match=r"idle_timeout=1.*pooled_connection_idle_timeout=2"):
        ClientOptions.of(idle_timeout=1, pooled_connection_idle_timeout=2)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="max_conections"):
        ClientOptions.of(max_conections=5)


@pytest.mark.parametrize("option", ["idle_timeout", "connection_lifetime", "connect_timeout", "request_timeout"])
@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, True, "5"])
def test_a_duration_that_is_none_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        ClientOptions.of(**{option: value})


@pytest.mark.parametrize(
    "option",
    [
        "max_conns_per_host", "max_total_connections", "max_pending_requests", "max_response_headers",
        "max_header_count", "max_informational", "max_buffered_body",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [-1, 1.5, True, "5"])
def test_a_count_that_is_none_is_refused_by_name(option: str, value: object) -> None:
    """BEH-P35, in part: a negative limit is rejected."""
    with pytest.raises(ValueError, match=option):
        ClientOptions.of(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_total_connections", 0),
        ("max_pending_requests", 0),
        ("max_buffered_body", None),
        ("http_version", "1.2"),
        ("http_version", 2),
        ("version_policy", "any"),
        ("http1", None),
        ("http2", Http1Options()),
        ("reconnect", None),
        ("own_dispatcher", 1),
        ("verify", 1),
        ("verify", "/no/such/file"),
        ("cert", "/no/such/file"),
        ("cert", 5),
        ("base_url", "/relative"),
        ("base_url", "http://u:p@h/"),
        ("headers", {"a": "b\r\n"}),
        ("params", 5),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(option: str, value: object) -> None:
    """BEH-L5, in part."""
    with pytest.raises(ValueError, match=option):
        ClientOptions.of(**{option: value})


def test_options_per_version_are_checked_and_named() -> None:
    with pytest.raises(ValueError, match=r"http1\.max_connections_per_server"):
        Http1Options(max_connections_per_server=0)
    with pytest.raises(ValueError, match=r"http2\.max_concurrent_streams"):
        Http2Options(max_concurrent_streams=-1)
    with pytest.raises(ValueError, match=r"http2\.stream_window"):
        Http2Options(stream_window=65_534)
    with pytest.raises(ValueError, match=r"http2\.connection_window"):
        Http2Options(connection_window=1 << 31)
    with pytest.raises(ValueError, match=r"http3\.idle_timeout"):
        Http3Options(idle_timeout=-1.0)


def test_connections_are_bounded_per_version_unless_one_bound_is_set() -> None:
    options = ClientOptions(
        http1=Http1Options(max_connections_per_server=10),
        http2=Http2Options(max_connections_per_server=4),
        http3=Http3Options(max_connections_per_server=2),
    )

    assert [options.connections_for(version) for version in ("1.0", "1.1", "2", "3")] == [10, 10, 4, 2]
    assert options.replace(max_conns_per_host=0).connections_for("1.1") == 10
    assert {options.replace(max_conns_per_host=7).connections_for(version) for version in ("1.1", "2", "3")} == {7}


def test_options_cannot_be_changed_and_keep_copies() -> None:
    headers = {"a": "1"}
    params = {"b": 2}
    options = ClientOptions(headers=headers, params=params)

    headers["a"] = params["b"] = "changed"  # type: ignore[assignment]  # what it holds does not matter

    assert options.headers == Headers({"a": "1"})
    assert options.params == (("b", "2"),)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.idle_timeout = 1.0  # type: ignore[misc]  # that is what is tested


def test_the_summary_gives_effective_values_and_no_secret(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    options = ClientOptions(
        base_url="http://h/secret-path",
        headers={"authorization": "secret"},
        params={"token": "secret"},
        verify=ssl.create_default_context(),
        max_conns_per_host=20,
        idle_timeout=None,
    )

    summary = options.summary()

    assert "secret" not in summary
    assert "\n" not in summary
    assert {"base_url=http://h:80", "max_conns_per_host=20", "http1=20", "http2=20x100"} <= set(summary.split())
    assert {"idle_timeout=None", "connect_timeout=10.0", "request_timeout=30.0", "verify=custom"} <= set(
        summary.split()
    )
    assert "secret" not in repr(ClientOptions(cert=(key, key, "secret"), headers={"cookie": "secret"}))


def test_the_summary_with_a_client_of_the_users_says_that_options_do_not_apply() -> None:
    assert ClientOptions(http_client=object()).summary() == (
        "http_client=builtins.object (used as it is: no option of ours applies)"
    )
