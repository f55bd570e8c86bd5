"""What is logged: one line for each client that is constructed, and nothing secret."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.face.handlers import silent
from tests.servers.blackhole import refusing_port
from tests.servers.certs import Authority
from tests.servers.raw import RawServer
from turbopool import Client, ClientFactory, ClientOptions, ConnectError, DeadlineExceeded, Http1Options


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """All records of ours from here on."""
    caplog.set_level(logging.DEBUG, "turbopool")
    kept = Kept()
    logging.getLogger("turbopool").addHandler(kept)
    yield kept.records
    logging.getLogger("turbopool").removeHandler(kept)


def _lines(records: list[logging.LogRecord]) -> list[str]:
    """The messages at INFO and above, all of which must be of the one public logger."""
    shown = [record for record in records if record.levelno >= logging.INFO]
    assert all(record.name == "turbopool" for record in shown)
    return [record.getMessage() for record in shown]


def test_constructing_a_client_logs_one_line_with_the_values_in_force(records: list[logging.LogRecord]) -> None:
    with Client(
        base_url="http://h:81/api",
        max_conns_per_host=20,
        idle_timeout=7,
        connect_timeout=1.5,
        request_timeout=None,
        connection_lifetime=0,
        max_total_connections=99,
        max_pending_requests=5,
        http_version="1.0",
    ):
        (line,) = _lines(records)

    for part in (
        "base_url=http://h:81", "max_conns_per_host=20", "idle_timeout=7", "connect_timeout=1.5",
        "request_timeout=None", "connection_lifetime=0", "max_total_connections=99", "max_pending_requests=5",
        "http_version=1.0", "verify=True", "http1=20",
    ):  # fmt: skip
        assert f" {part} " in line + " ", line


def test_defaults_are_logged_as_they_are(records: list[logging.LogRecord]) -> None:
    with Client():
        (line,) = _lines(records)

    for part in (
        "http1=6", "http2=6x100", "http3=4", "idle_timeout=55.0", "connect_timeout=10.0", "request_timeout=30.0",
        "connection_lifetime=600.0", "max_conns_per_host=None",
    ):  # fmt: skip
        assert f" {part} " in line + " ", line


def test_the_preset_of_the_sdks_is_logged(records: list[logging.LogRecord]) -> None:
    with Client(ClientOptions.sdk_defaults()):
        (line,) = _lines(records)

    for part in ("max_conns_per_host=5", "idle_timeout=55.0", "connect_timeout=10.0", "request_timeout=30.0"):
        assert f" {part} " in line + " ", line


def test_the_environment_is_folded_in_and_an_argument_wins(
    records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "MAX_CONNS_PER_HOST": "3", "IDLE_TIMEOUT": "11", "CONNECT_TIMEOUT": "12", "REQUEST_TIMEOUT": "none",
        "CONNECTION_MAX_AGE": "14",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TURBOPOOL_{name}", value)

    with Client(idle_timeout=0) as client:
        (line,) = _lines(records)

    for part in (
        "max_conns_per_host=3", "idle_timeout=0", "connect_timeout=12.0", "request_timeout=None",
        "connection_lifetime=14.0",
    ):  # fmt: skip
        assert f" {part} " in line + " ", line
    assert client.timeout is None


@pytest.mark.parametrize(("value", "named"), [("-1", "-1"), ("soon", "soon"), ("nan", "nan")])
def test_nonsense_in_the_environment_names_the_variable_and_the_option(
    records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch, value: str, named: str
) -> None:
    monkeypatch.setenv("TURBOPOOL_IDLE_TIMEOUT", value)

    for construct in (Client, ClientFactory().add):
        with pytest.raises(ValueError, match=rf"TURBOPOOL_IDLE_TIMEOUT='{named}'.*idle_timeout"):
            construct()

    assert _lines(records) == []


def test_handles_of_one_name_are_one_client_in_the_log(records: list[logging.LogRecord]) -> None:
    with ClientFactory().add("api", idle_timeout=5).add("other") as factory:
        assert _lines(records) == []
        handles = [factory.create_client("api"), factory.create_client("API"), factory.create_client("other")]

        first, second = _lines(records)
        assert " name=api " in first
        assert " idle_timeout=5 " in first
        assert " name=other " in second
        assert len(handles) == 3


def test_nothing_else_is_logged_at_info(records: list[logging.LogRecord], server: RawServer) -> None:
    """Use, failures, cancels and the end are told to the caller, not to the log."""
    with Client(base_url=server.url, http1=Http1Options(max_connections_per_server=1)) as client:
        client.get("/x")
        client.warm_up("/")
        with client.stream("GET", "/x") as response:
            response.read()
        with refusing_port() as port, pytest.raises(ConnectError):
            client.get(f"http://127.0.0.1:{port}")
        with RawServer(silent) as mute:
            with pytest.raises(DeadlineExceeded):
                client.get(mute.url, timeout=0.05)
            client.send_async("GET", mute.url).cancel()

    assert len(_lines(records)) == 1


def test_no_secret_is_logged_at_any_level(
    records: list[logging.LogRecord], server: RawServer, authority: Authority, tmp_path: Path
) -> None:
    """Headers, query, cookies, the password of a certificate."""
    del tmp_path
    with Client(
        base_url=server.url + "/hush-path/",
        headers={"Authorization": "Bearer hush-default", "Cookie": "hush=1"},
        params={"key": "hush-param"},
        cert=(str(authority.client_cert_file), str(authority.client_key_file), "hush-password"),
        verify=str(authority.ca_file),
    ) as client:
        client.get("/x", headers={"X-Api-Key": "hush-own"}, params={"token": "hush-own"})
        with pytest.raises(ValueError, match="X-Token"):
            client.get("/x", headers={"X-Token": "hush\n"})
        with refusing_port() as port, pytest.raises(ConnectError) as caught:
            client.get(f"http://127.0.0.1:{port}/?token=hush-query", headers={"Authorization": "hush-failed"})

    text = "\n".join(str(record.__dict__) for record in records)
    assert "hush" not in text
    assert "hush" not in str(caught.value)


def test_the_library_is_silent_unless_it_is_asked(capfd: pytest.CaptureFixture[str], server: RawServer) -> None:
    """A NullHandler stands on the logger, so Python's handler of last resort does not speak."""
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("turbopool").handlers)

    with Client(base_url=server.url) as client:
        client.get("/x")

    assert capfd.readouterr() == ("", "")
