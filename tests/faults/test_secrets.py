"""What a caller entrusts to a request is told to its server alone, whatever goes wrong."""

from __future__ import annotations

import contextlib
import gc
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from tests.face.handlers import half, silent
from tests.faults.actors import kill, managers
from tests.servers.blackhole import Blackhole, refusing_port
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer, always
from tests.servers.wire import respond
from tests.waiting import eventually
from turbopool import Client, ClientFactory, ReconnectOptions, Request, Timeout, TurboPoolError
from turbopool.prepare import RequestParts
from turbopool.urls import Url

MARK = "hush"
"""Stands in every secret, and nowhere else: tracebacks show lines of this file."""
HEADERS = {
    "Authorization": f"Bearer {MARK}-bearer",
    "Cookie": f"session={MARK}-session",
    "Proxy-Authorization": f"Basic {MARK}-proxy",
}
BODY = f"{MARK}-body".encode() * 100
GIVES_UP = ReconnectOptions(wait=wait_fixed(0.02), stop=stop_after_attempt(2))


def _ours() -> list[object]:
    """Every object of ours that is alive and not frozen; a URL alone is there to be shown."""
    ours = (one for one in gc.get_objects() if str(type(one).__module__).startswith("turbopool."))
    return [one for one in ours if not isinstance(one, Url)]


class Told:
    """Everything that is said about a client: errors, log records, warnings, figures, and what objects show."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._older = _ours()
        self.errors: list[BaseException] = []

    def hear(self, error: BaseException | None) -> None:
        """Note an error as every reader may see it, with all that it was caused by."""
        while error is not None:
            self.errors.append(error)
            facts = getattr(error, "facts", None)
            self._texts += [str(error), repr(error), repr(error.args), repr(facts)]
            self._texts += traceback.format_exception(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def look(self, *objects: object) -> None:
        """Note what these show, and every object of ours that is alive."""
        for one in (*objects, *self._older, *_ours()):
            with contextlib.suppress(AttributeError):  # another thread is just making it
                self._texts += [repr(one), str(one)]

    def read(self, records: list[logging.LogRecord], warned: list[warnings.WarningMessage]) -> None:
        """Note what was logged and warned of."""
        formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
        self._texts += [formatter.format(record) for record in records]
        self._texts += [repr(record.__dict__) for record in records]
        self._texts += [str(warning.message) for warning in warned]

    def secrets(self) -> set[str]:
        """Return what should not have been said."""
        return {text for text in self._texts if MARK in text}


@contextmanager
def listening(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    """Hear all that is said from the first to the last, and assert that no secret was."""
    gc.unfreeze()
    gc.collect()  # what earlier tests have left
    told = Told()
    gc.freeze()  # what is older need not be looked for again, and that is nearly all there is
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield told
        gc.collect()
    told.read(caplog.records, warned)
    assert told.secrets() == set()


def _ask(client: Client, told: Told, url: str, timeout: float | Timeout = 0.3) -> None:
    """Send every kind of request with secrets, and hear what becomes of it."""
    bodies: list[RequestParts] = [
        {},
        {"content": BODY},
        {"json": {"password": MARK}},
        {"data": {"password": MARK}},
        {"content": iter([BODY, BODY])},
    ]
    futures = [
        client.send_async("POST" if body else "GET", url, **(body | {"headers": HEADERS, "timeout": timeout}))
        for body in bodies
    ]
    told.look(client, client.stats(), *futures)
    for future in futures:
        told.hear(future.exception())
    try:
        with client.stream("GET", url, headers=HEADERS, timeout=timeout) as response:
            told.look(response, response.headers)
            response.read()
            response.raise_for_status()
    except TurboPoolError as error:
        told.hear(error)
    told.look(client, client.stats(), *futures)


def _says(answer: bytes) -> Handler:
    def handler(conn: Conn) -> None:
        conn.read_request()
        conn.send(answer)

    return handler


def _resets(conn: Conn) -> None:
    conn.read_head()
    conn.reset()


SERVERS: dict[str, Handler] = {
    "silence": silent,
    "half a body": half,
    "a close": _says(b""),
    "a reset": _resets,
    "no HTTP": _says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a bad length": _says(b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n"),
    "a bad coding": _says(respond(b"no gzip", headers=[("Content-Encoding", "gzip")])),
    "too much": _says(b"HTTP/1.1 200 OK\r\nX-More: " + b"x" * 100_000 + b"\r\n\r\n"),
    "too large": _says(respond(bytes(200_000))),
    "a switch": _says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    "an error and a cookie": always(respond(BODY, 500, headers=[("Set-Cookie", f"session={MARK}")])),
    "more than asked for": always(respond(b"x") + respond(BODY)),
}


@pytest.mark.parametrize("fault", SERVERS)
def test_no_secret_is_told_of_a_request_that_a_server_answers_with(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """I28: not in an error, its cause or traceback, a log record, a warning, the figures, or what an object shows."""
    with (
        listening(caplog) as told,
        RawServer(SERVERS[fault]) as server,
        Client(base_url=server.url, headers=HEADERS, max_buffered_body=100_000, reconnect=GIVES_UP) as client,
    ):
        _ask(client, told, f"/x?token={MARK}")

        assert told.errors or fault == "more than asked for"


def _refuses(told: Told) -> None:
    with refusing_port() as port, Client(reconnect=GIVES_UP) as client:
        _ask(client, told, f"http://127.0.0.1:{port}/")


def _swallows(told: Told) -> None:
    with Blackhole() as hole, Client(connect_timeout=0.1) as client:
        _ask(client, told, hole.url)


def _is_unknown(told: Told) -> None:
    with Client() as client:
        _ask(client, told, "http://nobody.invalid/", 5)


def _speaks_no_tls(told: Told) -> None:
    with RawServer(lambda conn: conn.send(b"hello")) as server, Client() as client:
        _ask(client, told, f"https://127.0.0.1:{server.port}/")


def _goes_away(told: Told) -> None:
    with RawServer(always(respond(b"x"))) as server:
        client = Client(base_url=server.url, reconnect=GIVES_UP)
        client.get("/x", headers=HEADERS)
    with client:
        for _ in range(2):
            _ask(client, told, "/x", 5)
        told.look(*(pool.state for pool in client.stats().pools.values()))


def _is_queued_for(told: Told) -> None:
    with (
        RawServer(silent) as server,
        Client(base_url=server.url, max_conns_per_host=1, max_pending_requests=1) as client,
    ):
        _ask(client, told, "/x", Timeout(5, queue=0.05, read=0.2))
        future = client.send_async("POST", "/x", headers=HEADERS, content=BODY, timeout=5)
        future.cancel()
        told.look(future)


def _does_not_read(told: Told) -> None:
    with RawServer(lambda conn: conn.hold()) as server, Client(base_url=server.url) as client:
        with pytest.raises(TurboPoolError) as caught:
            client.post("/x", headers=HEADERS, content=BODY * 50_000, timeout=Timeout(5, write=0.1))
        told.hear(caught.value)


def _has_a_manager_that_dies(told: Told) -> None:
    with RawServer(silent) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        futures = [client.send_async("POST", "/x", headers=HEADERS, content=BODY, timeout=20) for _ in range(3)]
        server.wait_for_requests(1)
        for ref in managers():
            kill(ref)
        client.dispose(drain_timeout=0.1)
        for future in futures:
            told.hear(future.exception())


def _is_forgotten(told: Told) -> None:
    with RawServer(always(respond(BODY * 3_000))) as server, Client(base_url=server.url) as client:
        response = client.stream("POST", "/x", headers=HEADERS, content=BODY).__enter__()
        told.look(response)
        del response
        gc.collect()
        eventually(lambda: not client.stats().leased)


def _is_met_by_callers_mistakes(told: Told) -> None:
    def drawn() -> Iterator[bytes]:
        yield BODY
        raise RuntimeError("mine")

    def called(_: Future[Any]) -> None:
        raise RuntimeError("mine")

    with RawServer(always(respond(b"x"))) as server, Client(base_url=server.url) as client:
        told.hear(client.send_async("POST", "/x", headers=HEADERS, content=drawn()).exception())
        future = client.send_async("GET", "/x", headers=HEADERS)
        future.add_done_callback(called)
        told.look(future.result())
        url = f"http://user:{MARK}@127.0.0.1/"
        told.look(Request("GET", url), Request("GET", f"http://{MARK}@h/?{MARK}"), Request("POST", "/x", content=BODY))
        mistakes: list[Callable[[], object]] = [
            lambda: client.get(url),
            lambda: client.send(Request("GET", url)),
            lambda: Client(base_url=url),
            lambda: ClientFactory().add("a", base_url=url),
            lambda: client.get("/x", headers={"Authorization": f"{MARK}\r\nX: y"}),
            lambda: client.get("/x", headers={"Cookie": f"{MARK}\u20ac"}),
            lambda: client.post("/x", content=BODY, headers={"Content-Length": "1"}),
            lambda: client.post("/x", content=BODY, json=MARK),
            lambda: client.post("/x", content=f"{MARK}\ud800"),
            lambda: client.get("/x", params={"token": f"{MARK}\ud800"}),
            lambda: client.get(f"/x?token={MARK}\ud800"),
            lambda: client.post("/x", json={MARK: object()}),
        ]
        for mistake in mistakes:
            with pytest.raises((TurboPoolError, ValueError, TypeError)) as caught:
                mistake()
            told.hear(caught.value)


FAULTS = [
    _refuses, _swallows, _is_unknown, _speaks_no_tls, _goes_away, _is_queued_for, _does_not_read,
    _has_a_manager_that_dies, _is_forgotten, _is_met_by_callers_mistakes,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_no_secret_is_told_of_a_request_whose_server(
    fault: Callable[[Told], None], caplog: pytest.LogCaptureFixture
) -> None:
    """I28: as above."""
    with listening(caplog) as told:
        fault(told)

        assert told.errors or fault is _is_forgotten


def test_no_secret_is_told_of_a_request_whose_server_is_not_to_be_trusted(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """I28, T1: as above."""
    with (
        listening(caplog) as told,
        RawServer(always(respond(b"x")), ssl_context=authority.server_context("wrong_host")) as server,
        Client(base_url=server.url, verify=str(authority.ca_file)) as client,
    ):
        _ask(client, told, "/x", 5)

        assert told.errors
