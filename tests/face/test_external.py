"""Bring your own client: it is used as it is, and stays its owner's."""

from __future__ import annotations

import gc
import importlib
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol, cast

import httpx
import pytest
import requests

from tests.face.handlers import AnyForm, Gate
from tests.servers.blackhole import refusing_port
from tests.servers.raw import RawServer
from tests.waiting import eventually
from turbopool import Client, ClientDisposed, ClientFactory, Request, RuntimeStats
from turbopool.external import MAX_THREADS

ROOT = Path(__file__).parents[2]


class Theirs(Protocol):
    """What the clients of other libraries have in common."""

    def request(self, method: str, url: str) -> AnyForm:
        """Send a request."""
        ...

    def close(self) -> None:
        """End."""
        ...


def _httpx() -> Theirs:
    return httpx.Client(trust_env=False)


def _httpx2() -> Theirs:
    library = pytest.importorskip("httpx2", reason="httpx2 is not installed")
    return cast("Theirs", library.Client(trust_env=False))


def _requests() -> Theirs:
    session = requests.Session()
    session.trust_env = False
    return session


RESPONSES = {_httpx: "httpx:Response", _httpx2: "httpx2:Response", _requests: "requests:Response"}


@pytest.fixture(params=list(RESPONSES), ids=["httpx", "httpx2", "requests"])
def kind(request: pytest.FixtureRequest) -> Callable[[], Theirs]:
    """How to make the client."""
    made: Callable[[], Theirs] = request.param
    return made


@pytest.fixture
def theirs(kind: Callable[[], Theirs]) -> Iterator[Theirs]:
    """A client of another library."""
    client = kind()
    yield client
    client.close()


def _response_type(kind: Callable[[], Theirs]) -> type:
    module, name = RESPONSES[kind].split(":")
    return cast("type", getattr(importlib.import_module(module), name))


def test_results_are_the_response_objects_of_that_client(
    kind: Callable[[], Theirs], theirs: Theirs, server: RawServer
) -> None:
    with Client(http_client=theirs) as client:
        responses: list[AnyForm] = [
            client.get(server.url + "/a", params={"q": "1"}),
            client.post(server.url + "/a", json={"x": 1}, headers={"X-A": "1"}),
            client.send("PUT", server.url + "/a", data={"f": "1"}),
            client.send_async("DELETE", server.url + "/a").result(30),
            client.send(Request("GET", server.url + "/a", params={"q": "2"}, timeout=20)),
            client.send_async(Request("PATCH", server.url + "/a", json=[])).result(30),
        ]

    assert {type(response) for response in responses} == {_response_type(kind)}
    assert [response.json()["method"] for response in responses] == ["GET", "POST", "PUT", "DELETE", "GET", "PATCH"]
    assert [response.json()["target"] for response in responses[::4]] == ["/a?q=1", "/a?q=2"]


def test_none_of_our_options_apply_and_the_log_says_so(
    theirs: Theirs, server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "turbopool"):
        client = Client(
            http_client=theirs, base_url="http://elsewhere.invalid", headers={"X-Ours": "1"}, params={"ours": "1"},
            request_timeout=0.001, max_conns_per_host=1,
        )  # fmt: skip
    with client:
        seen: AnyForm = client.get(server.url + "/x")

    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert "http_client=" in line
    assert type(theirs).__name__ in line
    assert "no option of ours applies" in line
    assert seen.json()["target"] == "/x"
    assert not [name for name, _ in seen.json()["headers"] if name.lower() == "x-ours"]


def test_statistics_say_that_pools_are_not_ours(theirs: Theirs, server: RawServer) -> None:
    with Client(http_client=theirs) as client:
        client.get(server.url + "/x")
        client.warm_up(server.url)

        assert client.stats() == RuntimeStats(pools_are_ours=False)
        assert client.stats().opened == 0


def test_it_is_never_closed_by_us(theirs: Theirs, server: RawServer) -> None:
    for _ in range(2):
        with Client(http_client=theirs) as client:
            client.send_async("GET", server.url + "/x").result(30)

    assert theirs.request("GET", server.url + "/after").json()["target"] == "/after"
    assert len(server.connections) == 1


def test_errors_are_its_own() -> None:
    with refusing_port() as port, httpx.Client() as theirs, Client(http_client=theirs) as client:
        with pytest.raises(httpx.ConnectError):
            client.get(f"http://127.0.0.1:{port}")

        assert isinstance(client.send_async("GET", f"http://127.0.0.1:{port}").exception(30), httpx.ConnectError)
        with pytest.raises(TypeError):
            client.get("http://h", nonsense=1)  # type: ignore[call-arg]  # that is the point
        assert isinstance(client.send_async("GET", "http://h", nonsense=1).exception(30), TypeError)  # type: ignore[call-overload]


class Notes:
    """A client that notes on which thread it is called, and does what it is told."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self._act = act
        self.threads: list[str] = []

    def request(self, method: str, url: str) -> str:
        """Answer with what was asked."""
        self.threads.append(threading.current_thread().name)
        self._act()
        return f"{method} {url}"


def test_send_calls_it_in_the_calling_thread_and_send_async_on_a_thread_of_ours() -> None:
    notes = Notes()
    with Client(http_client=notes) as client:
        assert client.get("/a") == "GET /a"  # type: ignore[comparison-overlap]  # their own response
        assert client.send_async("GET", "/b").result(30) == "GET /b"  # type: ignore[comparison-overlap]

    assert notes.threads[0] == threading.current_thread().name
    assert notes.threads[1].startswith("turbopool")


def test_futures_are_real_futures() -> None:
    called: Future[str] = Future()
    with Client(http_client=Notes()) as client:
        futures: list[AnyForm] = [client.send_async("GET", f"/{n}") for n in range(100)]
        futures[0].add_done_callback(lambda future: called.set_result(future.result()))

        assert {future.result() for future in as_completed(futures, 5)} == {f"GET /{n}" for n in range(100)}
        assert called.result(30) == "GET /0"


def test_cancelling_works_until_it_has_begun() -> None:
    opened, begun = threading.Event(), threading.Semaphore(0)

    def act() -> None:
        begun.release()
        opened.wait(30)

    notes = Notes(act)
    with Client(http_client=notes) as client:
        running = [client.send_async("GET", f"/{n}") for n in range(MAX_THREADS)]
        queued = [client.send_async("GET", f"/queued/{n}") for n in range(3)]
        for _ in range(MAX_THREADS):
            assert begun.acquire(timeout=30)

        assert queued[0].cancel()
        assert not running[0].cancel()
        client.cancel_pending_requests()
        assert all(future.cancelled() for future in queued)
        opened.set()

        assert not any(future.cancelled() for future in running)
        assert running[0].result(30) == "GET /0"  # type: ignore[comparison-overlap]  # their own response
    assert len(notes.threads) == MAX_THREADS


@pytest.mark.parametrize("error", [ValueError("theirs"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_it_raises_belongs_to_the_future(error: BaseException) -> None:
    def act() -> None:
        raise error

    with Client(http_client=Notes(act)) as client:
        future = client.send_async("GET", "/x")

        assert future.exception(30) is error
        with pytest.raises(type(error)):
            client.get("/x")


def test_dispose_refuses_new_calls_and_lets_those_under_way_and_queued_end() -> None:
    """BEH-C2, C11."""
    opened = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        client = Client(http_client=Notes(lambda: opened.wait(30)))
        futures: list[AnyForm] = [client.send_async("GET", f"/{n}") for n in range(MAX_THREADS + 5)]
        disposed = pool.submit(client.dispose)
        eventually(lambda: client.is_disposed)

        for call in (
            client.get,
            lambda url: client.send_async("GET", url),
            lambda url: client.stream("GET", url).__enter__(),
        ):
            with pytest.raises(ClientDisposed):
                call("/late")
        assert not disposed.done()
        opened.set()
        disposed.result(30)

        assert [future.result(0) for future in futures] == [f"GET /{n}" for n in range(MAX_THREADS + 5)]


@pytest.mark.parametrize("way", [{"drain_timeout": 0.05}, {"queued": "fail", "drain_timeout": 0.05}])
def test_dispose_cancels_what_has_not_begun_in_time(way: dict[str, AnyForm]) -> None:
    opened = threading.Event()
    client = Client(http_client=Notes(lambda: opened.wait(30)))
    futures: list[AnyForm] = [client.send_async("GET", f"/{n}") for n in range(MAX_THREADS + 5)]
    eventually(lambda: all(future.running() for future in futures[:MAX_THREADS]))

    client.dispose(**way)
    opened.set()

    for future in futures[MAX_THREADS:]:
        with pytest.raises(CancelledError):
            future.result(0)
    assert [future.result(30) for future in futures[:MAX_THREADS]] == [f"GET /{n}" for n in range(MAX_THREADS)]


def test_dispose_may_be_called_from_a_callback() -> None:
    client = Client(http_client=Notes())
    future = client.send_async("GET", "/x")
    done = threading.Event()

    def end(_: object) -> None:
        client.dispose()
        done.set()

    future.add_done_callback(end)

    assert done.wait(30)
    assert client.is_disposed


def test_a_client_that_is_forgotten_lets_its_threads_go() -> None:
    client = Client(http_client=Notes())
    client.send_async("GET", "/x").result(30)
    gone = weakref.ref(client)
    del client

    eventually(lambda: gc.collect() >= 0 and gone() is None)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("turbopool")], 2.0)


def test_streaming_is_its_own(theirs: Theirs, server: RawServer) -> None:
    with Client(http_client=theirs) as client:
        with client.stream("GET", server.url + "/x") as response:
            iterate: AnyForm = getattr(response, "iter_bytes", None) or getattr(response, "iter_content", None)
            assert b"/x" in b"".join(iterate())

        assert client.get(server.url + "/y").status_code == 200


def test_a_factory_hands_it_to_every_handle(theirs: Theirs, server: RawServer) -> None:
    with ClientFactory().add("api", http_client=theirs) as factory:
        for _ in range(2):
            with factory.create_client("api") as client:
                assert not client.stats().pools_are_ours
                assert client.get(server.url + "/x").status_code == 200

    assert len(server.connections) == 1


def test_what_cannot_send_requests_is_refused() -> None:
    for nothing in (object(), "http://h", 5):
        with pytest.raises(ValueError, match="http_client must have a request"):
            Client(http_client=nothing)


def test_no_dispatcher_is_started_for_it(theirs: Theirs) -> None:
    gate = Gate()
    with RawServer(gate) as server, Client(http_client=theirs) as client:
        future = client.send_async("GET", server.url + "/x")
        server.wait_for_requests(1)
        names = {thread.name for thread in threading.enumerate()}
        gate.opened.set()

        assert not any(name.startswith("turbopool-dispatcher") for name in names)
        assert cast("AnyForm", future.result(30)).status_code == 200


def test_a_forked_child_starts_threads_of_its_own() -> None:
    """The threads of its parent do not exist there."""
    program = """
import os, sys
from turbopool import Client

class Theirs:
    def request(self, method, url):
        return url

client = Client(http_client=Theirs())
client.send_async("GET", "before").result(30)
child = os.fork()
if not child:
    os._exit(client.send_async("GET", "within").result(30) != "within")
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(status or client.send_async("GET", "after").result(30) != "after")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, timeout=60, capture_output=True, check=False, text=True
    )

    assert (ended.returncode, ended.stderr) == (0, "")
