"""The client: its calls, its defaults, its timeouts, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, cast

import pykka
import pytest

from tests.face.handlers import AnyForm, Echoed, Gate, echo, first_ended, first_left, half, silent
from tests.servers.blackhole import Blackhole, refusing_port
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always, script
from tests.servers.wire import chunked, respond
from tests.waiting import eventually, reached, with_short_times
from turbopool import (
    Client,
    ClientDisposed,
    ClientFactory,
    ClientOptions,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    Http1Options,
    InvalidRequest,
    ManagerCrashed,
    PoolTimeout,
    ReadTimeout,
    Request,
    ResponseFuture,
    Timeout,
    TurboPoolError,
    UnsupportedVersion,
    WriteTimeout,
)

VERBS = ["get", "post", "put", "patch", "delete", "head", "options"]


# -- calls ---------------------------------------------------------------------------------------------------


def test_send_async_gives_a_future_of_the_response(client: Client, server: RawServer) -> None:
    """BEH-C1."""
    future = client.send_async("GET", "/users", params={"page": 2}, timeout=5.0)

    response = future.result()

    assert Echoed.of(response).target == "/users?page=2"
    assert response.http_version == "HTTP/1.1"
    assert response.url == f"{server.url}/users?page=2"
    assert response.request.method == "GET"
    assert future.done()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_sends_its_own_method(client: Client, server: RawServer, verb: str) -> None:
    """BEH-C1, H11."""
    response = getattr(client, verb)("/x")

    assert response.is_success
    assert [request.method for request in server.requests] == [verb.upper()]


def test_any_method_is_sent_as_it_is_written(client: Client) -> None:
    assert Echoed.of(client.request("PROPFIND", "/x")).method == "PROPFIND"
    assert Echoed.of(client.send("purge", "/x")).method == "purge"


@pytest.mark.parametrize("send", [Client.send, lambda client, request: client.send_async(request).result()])
def test_a_request_object_carries_all_its_parts(client: Client, send: Callable[[Client, Request], Any]) -> None:
    """BEH-C1."""
    request = Request("POST", "/users", params={"a": "1"}, headers={"X-Own": "yes"}, json={"name": "x"}, timeout=5.0)

    response = send(client, request)

    seen = Echoed.of(response)
    assert (seen.method, seen.target, seen.body) == ("POST", "/users?a=1", b'{"name":"x"}')
    assert seen.all("x-own") == ["yes"]
    assert response.request is request


def test_a_request_object_may_be_sent_again_and_again(client: Client) -> None:
    request = Request("PUT", "/x", content=b"same")

    assert [Echoed.of(client.send(request)).body for _ in range(3)] == [b"same"] * 3


def test_a_burst_of_requests_uses_one_connection(client: Client, server: RawServer) -> None:
    """BEH-H11, P44: twenty one after the other."""
    for n in range(20):
        assert Echoed.of(client.get(f"/{n}")).target == f"/{n}"

    assert len(server.connections) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_parallel_requests_get_their_own_answers(client: Client, server: RawServer, method: str) -> None:
    """BEH-H11."""
    futures = [client.send_async(method, f"/{n}", content=f"body {n}") for n in range(50)]

    seen = [Echoed.of(future.result()) for future in futures]

    assert [(one.method, one.target, one.body) for one in seen] == [
        (method, f"/{n}", f"body {n}".encode()) for n in range(50)
    ]
    assert server.peak <= 6


def test_mixed_methods_share_the_connections_of_a_server(client: Client, server: RawServer) -> None:
    """BEH-H11."""
    methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] * 5
    futures = [client.send_async(method, f"/{n}") for n, method in enumerate(methods)]

    assert [Echoed.of(future.result()).method for future in futures] == methods
    assert server.peak <= 6


def test_threads_share_one_client(client: Client) -> None:
    """BEH-H11."""
    with ThreadPoolExecutor(8) as pool:
        targets = list(pool.map(lambda n: Echoed.of(client.get(f"/{n}")).target, range(40)))

    assert targets == [f"/{n}" for n in range(40)]


def test_nothing_is_started_before_the_first_request() -> None:
    before = threading.active_count()

    with Client(base_url="http://127.0.0.1:1") as client:
        assert client.stats().pools == {}
        assert threading.active_count() == before


def test_options_are_given_at_once_or_one_by_one_or_both() -> None:
    options = ClientOptions(idle_timeout=7, http1=Http1Options(max_connections_per_server=2))

    with Client(options) as first, Client(options, idle_timeout=9) as second, Client(base_address="http://h") as third:
        assert first.settings is options
        assert (second.settings.idle_timeout, second.settings.http1) == (9, options.http1)
        assert third.base_url == "http://h"


@pytest.mark.parametrize(
    ("knobs", "names"),
    [
        ({"idle_timeout": -1}, "idle_timeout"),
        ({"request_timeout": "soon"}, "request_timeout"),
        ({"max_conns_per_host": 2.5}, "max_conns_per_host"),
        ({"base_url": "ftp://h"}, "base_url.*ftp"),
        ({"headers": {"a b": "c"}}, "headers.*a b"),
        ({"http_version": "9"}, "http_version"),
        ({"http_client": object()}, "http_client"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(knobs: dict[str, object], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        Client(**knobs)


def test_warm_up_opens_connections_ahead_up_to_the_limit(server: RawServer) -> None:
    with Client(base_url=server.url, max_conns_per_host=3) as client:
        client.warm_up("/", connections=2)
        eventually(lambda: client.stats().idle == 2)
        client.warm_up(server.url, connections=99)
        eventually(lambda: client.stats().idle == 3)

        client.get("/x")

        assert client.stats().opened == 3
        assert server.peak == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.warm_up("/", connections=-1),
        lambda client: client.warm_up("/", connections="2"),
        lambda client: client.warm_up("/", timeout=-1),
        lambda client: client.warm_up("/", timeout="soon"),
        lambda client: client.warm_up("nowhere://h"),
    ],
)
def test_warm_up_refuses_nonsense_in_the_caller(
    client: Client, server: RawServer, call: Callable[[Client], None]
) -> None:
    with pytest.raises(ValueError, match=r"connections|timeout|scheme"):
        call(client)

    assert client.get("/x").is_success
    assert len(server.connections) == 1


def test_warm_up_refuses_a_version_that_is_not_built(server: RawServer) -> None:
    with Client(base_url=server.url, http_version="3") as client, pytest.raises(UnsupportedVersion):
        client.warm_up("/")


# -- defaults of a handle ------------------------------------------------------------------------------------


def test_properties_change_the_defaults_of_later_requests(server: RawServer) -> None:
    """BEH-C5."""
    with Client(base_url=server.url, headers={"X-A": "1"}, params={"p": "1"}) as client:
        before = Echoed.of(client.get("/x"))

        client.base_url = server.url + "/api"
        client.headers = {"X-B": "2"}
        client.params = {"q": "2"}
        client.http_version = "1.0"
        after = Echoed.of(client.get("/x"))

    assert (before.target, before.all("x-a"), before.version) == ("/x?p=1", ["1"], "HTTP/1.1")
    assert (after.target, after.all("x-a"), after.all("x-b")) == ("/api/x?q=2", [], ["2"])
    assert after.version == "HTTP/1.0"


def test_a_header_changed_in_place_is_seen_by_the_next_request(client: Client) -> None:
    """BEH-C5: the usual way to renew a token."""
    client.headers["Authorization"] = "Bearer one"
    first = Echoed.of(client.get("/x"))
    client.headers["Authorization"] = "Bearer two"
    second = Echoed.of(client.get("/x"))
    del client.headers["Authorization"]
    third = Echoed.of(client.get("/x"))

    assert first.all("authorization") == ["Bearer one"]
    assert second.all("authorization") == ["Bearer two"]
    assert third.all("authorization") == []


def test_the_timeout_of_a_handle_can_be_set() -> None:
    """BEH-C5."""
    with RawServer(silent) as server, Client(base_url=server.url) as client:
        assert client.timeout == 30.0
        client.timeout = 0.05
        with pytest.raises(DeadlineExceeded):
            client.get("/x")
        client.timeout = Timeout(read=0.05)
        with pytest.raises(ReadTimeout):
            client.get("/x")
        client.timeout = None
        future = client.send_async("GET", "/x")

        assert not future.done()
        assert future.cancel()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", -1),
        ("base_url", "nowhere"),
        ("base_url", "http://h/?q=1"),
        ("headers", {"a\n": "b"}),
        ("params", 5),
        ("http_version", "9"),
        ("version_policy", "never"),
    ],
)
def test_a_default_that_makes_no_sense_is_refused_when_it_is_set(client: Client, name: str, value: object) -> None:
    """BEH-C5."""
    before = getattr(client, name)

    with pytest.raises(ValueError, match=r"\w"):
        setattr(client, name, value)

    assert getattr(client, name) == before
    assert client.get("/x").is_success


def test_handles_of_one_name_have_defaults_of_their_own(server: RawServer) -> None:
    """BEH-C5, C9."""
    with ClientFactory().add("api", base_url=server.url) as factory:
        one, two = factory.create_client("api"), factory.create_client("api")
        one.headers["X-Own"] = "one"

        assert Echoed.of(one.get("/x")).all("x-own") == ["one"]
        assert Echoed.of(two.get("/x")).all("x-own") == []


# -- timeouts ------------------------------------------------------------------------------------------------


@with_short_times
def test_a_request_without_a_response_ends_at_its_total(short: float) -> None:
    """BEH-C3."""
    with RawServer(silent) as server, Client(base_url=server.url) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            client.get("/x", timeout=short)

        reached(server.requests)
        server.wait_until(first_left)

    error = caught.value
    assert isinstance(error, TimeoutError)
    assert error.origin == server.url
    assert (error.request_sent, error.processed, error.phase) == (True, "maybe", "wait")
    assert cast("float", error.facts["waited"]) >= short
    assert "timeout" in str(error)


def test_the_request_timeout_of_the_client_holds_for_every_request() -> None:
    """BEH-C3."""
    with RawServer(silent) as server, Client(base_url=server.url, request_timeout=0.1) as client:
        for request in (Request("GET", "/x"), Request("POST", "/x", json=1)):
            with pytest.raises(DeadlineExceeded):
                client.send(request)


def test_the_timeout_of_a_request_wins_over_the_clients() -> None:
    """BEH-C3, C5."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, request_timeout=0.1) as client:
        patient = client.send_async(Request("GET", "/x", timeout=20))
        hasty = client.send_async("GET", "/x")
        with pytest.raises(DeadlineExceeded):
            hasty.result()

        gate.opened.set()

        assert patient.result().is_success


@pytest.mark.parametrize("no_limit", [None, 0, 0.0, Timeout(), Timeout(0, queue=0, connect=0, read=0, write=0)])
def test_none_and_zero_mean_no_limit(no_limit: float | Timeout | None) -> None:
    """BEH-C3: as they do for every option that is a time."""
    gate = Gate()
    with RawServer(gate) as server, Client(base_url=server.url, request_timeout=0.1) as client:
        patient = client.send_async("GET", "/x", timeout=no_limit)
        with pytest.raises(DeadlineExceeded):
            client.get("/x")

        gate.opened.set()

        assert patient.result().is_success


def test_waiting_for_a_connection_has_a_timeout_of_its_own() -> None:
    with RawServer(silent) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first")
        server.wait_for_requests(1)
        with pytest.raises(PoolTimeout) as caught:
            client.get("/second", timeout=Timeout(10, queue=0.05))
        first.cancel()

    assert (caught.value.processed, caught.value.request_sent, caught.value.phase) == ("no", False, "queue")
    assert caught.value.facts["limit"] == caught.value.facts["leased"] == 1
    assert [request.target for request in server.requests] == ["/first"]


def test_the_total_ends_the_wait_in_the_queue_too() -> None:
    """BEH-P14."""
    with RawServer(silent) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
        first = client.send_async("GET", "/first")
        server.wait_for_requests(1)
        with pytest.raises(DeadlineExceeded, match="queue") as caught:
            client.get("/second", timeout=0.05)
        first.cancel()

    assert (caught.value.processed, caught.value.may_retry) == ("no", True)


def test_connecting_has_a_timeout_of_its_own() -> None:
    with Blackhole() as hole, Client(base_url=hole.url) as client:
        with pytest.raises(ConnectTimeout) as caught:
            client.get("/x", timeout=Timeout(10, connect=0.05))

        assert caught.value.origin == hole.url
        assert caught.value.processed == "no"


@pytest.mark.parametrize("no_limit", [None, 0])
def test_without_a_connect_timeout_a_connect_takes_as_long_as_it_takes(no_limit: float | None) -> None:
    with Blackhole() as hole, Client(base_url=hole.url, connect_timeout=no_limit) as client:
        patient = client.send_async("GET", "/x")
        with pytest.raises(ConnectTimeout):
            client.get("/x", timeout=Timeout(10, connect=0.05))

        assert not patient.done()
        assert patient.cancel()


def test_waiting_for_bytes_has_a_timeout_of_its_own() -> None:
    """BEH-H8: the server never sends a byte; or it stops in the middle of the body."""
    with RawServer([silent, half]) as server, Client(base_url=server.url) as client:
        for sent in ("nothing", "half"):
            with pytest.raises(ReadTimeout) as caught:
                client.get(f"/{sent}", timeout=Timeout(10, read=0.1))
            assert caught.value.request_sent

        assert server.peak == 1


def test_waiting_for_room_has_a_timeout_of_its_own() -> None:
    with RawServer(Conn.hold, receive_buffer=4096) as server, Client(base_url=server.url) as client:
        with pytest.raises(WriteTimeout) as caught:
            client.post("/x", content=bytes(32 << 20), timeout=Timeout(10, write=0.1))

        assert caught.value.phase == "send"
        assert caught.value.processed == "maybe"


def test_slow_headers_and_a_slow_body_within_the_timeout_succeed() -> None:
    """BEH-H8."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"slow but whole", size=3)

    def slowly(conn: Conn) -> None:
        conn.read_request()
        conn.send_slowly(answer, delay=0.001)

    with RawServer(slowly) as server, Client(base_url=server.url) as client:
        assert client.get("/x", timeout=Timeout(10, read=5)).content == b"slow but whole"


@pytest.mark.parametrize("part", ["headers", "body"])
@with_short_times
def test_slow_headers_or_a_slow_body_beyond_the_timeout_are_cut_off(part: str, short: float) -> None:
    """BEH-H8: bytes that keep coming do not extend the total."""
    head = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000
    began = threading.Event()

    def slowly(conn: Conn) -> None:
        conn.read_request()
        if part == "body":
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        else:
            conn.send(b"H")
        began.set()
        conn.send_slowly(head[1:], delay=0.01)

    with RawServer(slowly) as server, Client(base_url=server.url) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            client.get("/x", timeout=short)

        reached(began.is_set())
        assert caught.value.phase == "recv"
        server.wait_until(first_ended)


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), True, "5", (1, 2)])
def test_a_timeout_that_makes_no_sense_is_refused_in_the_caller(
    client: Client, server: RawServer, value: float
) -> None:
    with pytest.raises(ValueError, match="timeout total"):
        client.send_async("GET", "/x", timeout=value)
    with pytest.raises(ValueError, match="timeout total"):
        client.send_async(Request("GET", "/x", timeout=value))

    assert server.connections == []


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wrong", "advice"),
    [
        ("ftp://h/x", "scheme 'ftp'", "http or https"),
        ("ws://h/x", "scheme 'ws'", "http or https"),
        ("http:///x", "no host", "http://host/path"),
        ("http://:80/x", "no host", "http://host/path"),
        ("/x", "relative", "base_url"),
        ("", "relative", "base_url"),
        ("//h/x", "no scheme", "scheme"),
        ("http://u:p@h/x", "credentials", "Authorization"),
        ("http://h:99999/x", "port", "65535"),
        ("http://h/\r\nX: y", "control character", "percent-encode"),
    ],
)
@pytest.mark.parametrize("call", ["send", "send_async", "stream", "warm_up"])
def test_a_url_that_cannot_be_requested_is_refused_in_the_caller(call: str, url: str, wrong: str, advice: str) -> None:
    """BEH-C8: relative without a base, unknown scheme, no host, and so on."""
    calls: dict[str, Callable[[Client, str], object]] = {
        "send": lambda client, url: client.send("GET", url),
        "send_async": lambda client, url: client.send_async("GET", url),
        "stream": lambda client, url: client.stream("GET", url).__enter__(),
        "warm_up": Client.warm_up,
    }
    with Client() as client:
        with pytest.raises(InvalidRequest, match=wrong) as caught:
            calls[call](client, url)
        assert client.stats().pools == {}

    assert isinstance(caught.value, ValueError)
    assert caught.value.advice is not None
    assert advice in str(caught.value)
    assert (caught.value.processed, caught.value.request_sent) == ("no", False)


def test_a_version_that_is_not_built_is_refused_and_never_replaced(client: Client, server: RawServer) -> None:
    with pytest.raises(UnsupportedVersion, match="HTTP/3") as caught:
        client.send_async("GET", "/x", http_version="3")
    with pytest.raises(UnsupportedVersion):
        client.send(Request("GET", "/x", http_version="3", version_policy="or_lower"))

    assert "1.1" in str(caught.value.advice)
    assert server.connections == []


@pytest.mark.parametrize("parts", [{"http_version": "1.2"}, {"version_policy": "maybe"}])
def test_a_version_nobody_knows_is_refused_by_name(client: Client, server: RawServer, parts: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=r"1\.2|maybe"):
        client.send(Request("GET", "/x", **parts))  # type: ignore[arg-type]  # strings all

    assert server.connections == []


@pytest.mark.parametrize("call", ["send", "send_async"])
def test_a_request_object_and_other_arguments_do_not_mix(client: Client, server: RawServer, call: str) -> None:
    for extra in ({"timeout": 3.0}, {"headers": {"a": "b"}}):
        with pytest.raises(InvalidRequest, match="together") as caught:
            getattr(client, call)(Request("GET", "/x"), **extra)
        assert "Request" in str(caught.value.advice)
    with pytest.raises(InvalidRequest, match="together"):
        getattr(client, call)(Request("GET", "/x"), "/y")

    assert server.connections == []


def test_a_method_without_a_url_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="no URL"):
        client.send("GET")  # type: ignore[call-overload]  # that is the point


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.send("GET", "/x"),
        lambda client: client.send_async("GET", "/x"),
        lambda client: client.get("/x"),
        lambda client: client.stream("GET", "/x").__enter__(),
        lambda client: client.warm_up("/"),
    ],
    ids=["send", "send_async", "get", "stream", "warm_up"],
)
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_a_disposed_client_takes_no_work(server: RawServer, call: Callable[[Client], object], *, used: bool) -> None:
    """BEH-C2, P33."""
    client = Client(base_url=server.url)
    if used:
        client.get("/before")
    client.dispose()

    with pytest.raises(ClientDisposed, match="disposed") as caught:
        call(client)

    assert isinstance(caught.value, RuntimeError)
    assert "new client" in str(caught.value.advice)
    assert client.is_disposed
    assert len(server.requests) == used


def test_what_needs_no_runtime_works_after_dispose(client: Client) -> None:
    client.get("/x")
    client.dispose()

    assert client.stats().pools == {}
    assert "disposed" in repr(client)
    client.cancel_pending_requests()


def test_a_refused_connect_is_an_error_that_names_the_server() -> None:
    """BEH-L4."""
    with refusing_port() as port, Client(base_url=f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ConnectError) as caught:
            client.get("/x")

        assert caught.value.origin == f"http://127.0.0.1:{port}"
        assert caught.value.processed == "no"
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


# -- cancel_pending_requests ---------------------------------------------------------------------------------


def test_all_pending_requests_are_cancelled_wherever_they_are() -> None:
    """BEH-C4: waiting for a response, in the queue, connecting, and blocking sends."""
    with (
        Blackhole() as hole,
        RawServer(silent) as server,
        ThreadPoolExecutor(1) as pool,
        Client(base_url=server.url, max_conns_per_host=1) as client,
    ):
        waiting = client.send_async("GET", "/waiting")
        server.wait_for_requests(1)
        queued = client.send_async("GET", "/queued")
        connecting = client.send_async("GET", hole.url)
        blocking = pool.submit(client.send, "GET", "/blocking")
        eventually(lambda: (client.stats().waiting, client.stats().connecting) == (3, 1))

        client.cancel_pending_requests()

        for future in (waiting, queued, connecting, blocking):
            with pytest.raises(CancelledError):
                future.result(30)
        assert waiting.cancelled()
        assert queued.cancelled()
        server.wait_until(first_left)
        eventually(lambda: client.stats().leased == client.stats().waiting == 0)
        assert [request.target for request in server.requests] == ["/waiting"]


def test_callbacks_hear_of_requests_cancelled_together() -> None:
    """BEH-C4."""
    heard: list[bool] = []
    called = threading.Event()

    def note(future: AnyForm) -> None:
        heard.append(future.cancelled())
        called.set()

    with RawServer(silent) as server, Client(base_url=server.url) as client:
        client.send_async("GET", "/x").add_done_callback(note)
        server.wait_for_requests(1)

        client.cancel_pending_requests()

        assert called.wait(30)
        assert heard == [True]


def test_requests_of_another_handle_are_left_alone() -> None:
    """BEH-C4, C11."""
    gate = Gate()
    with RawServer(gate) as server, ClientFactory().add("api", base_url=server.url) as factory:
        one, two = factory.create_client("api"), factory.create_client("api")
        ours, theirs = one.send_async("GET", "/ours"), two.send_async("GET", "/theirs")
        server.wait_for_requests(2)

        one.cancel_pending_requests()
        with pytest.raises(CancelledError):
            ours.result(30)
        gate.opened.set()

        assert Echoed.of(theirs.result()).target == "/theirs"


def test_a_client_goes_on_after_its_requests_were_cancelled() -> None:
    """BEH-C4: a stale answer never reaches a later request."""
    with RawServer([silent, always(echo)]) as server, Client(base_url=server.url) as client:
        first = client.send_async("GET", "/first")
        server.wait_for_requests(1)
        client.cancel_pending_requests()

        assert Echoed.of(client.get("/second")).target == "/second"
        assert first.cancelled()


def test_cancelling_with_nothing_pending_does_nothing(client: Client) -> None:
    client.cancel_pending_requests()
    client.get("/x")
    client.cancel_pending_requests()

    assert client.get("/x").is_success


# -- the connection ------------------------------------------------------------------------------------------


def test_http_1_0_uses_a_connection_once(server: RawServer) -> None:
    """BEH-P31, H10."""
    with Client(base_url=server.url, http_version="1.0") as client:
        seen = [Echoed.of(client.get("/x")) for _ in range(3)]

    assert [one.connection for one in seen] == [0, 1, 2]
    assert {one.version for one in seen} == {"HTTP/1.0"}


def test_one_request_may_ask_for_another_version(client: Client) -> None:
    assert Echoed.of(client.get("/x", http_version="1.0")).version == "HTTP/1.0"
    assert Echoed.of(client.get("/x")).version == "HTTP/1.1"


def test_an_error_answer_is_a_response_like_any_other() -> None:
    with RawServer(script(respond(b"no", 404), respond(b"ow", 500))) as server, Client(base_url=server.url) as client:
        assert [client.get("/x").status_code for _ in range(2)] == [404, 500]
        assert len(server.connections) == 1


def test_errors_of_one_request_leave_the_others_alone(server: RawServer) -> None:
    with refusing_port() as port, Client(base_url=server.url) as client:
        futures: list[ResponseFuture] = []
        for n in range(10):
            futures.append(client.send_async("GET", f"/{n}"))
            futures.append(client.send_async("GET", f"http://127.0.0.1:{port}/{n}"))

        outcomes = [future.exception() for future in futures]

    assert outcomes[::2] == [None] * 10
    assert all(isinstance(error, ConnectError) for error in outcomes[1::2])
    assert len({id(error) for error in outcomes[1::2]}) == 10
    assert all(isinstance(error, TurboPoolError) for error in outcomes[1::2])


def test_the_representation_of_a_client_tells_where_it_goes_and_no_secret(server: RawServer) -> None:
    with Client(base_url=server.url, headers={"Authorization": "Bearer hush"}, params={"key": "hush"}) as client:
        client.get("/x")

        assert server.url in repr(client)
        assert "hush" not in repr(client)


def test_an_application_that_stops_all_its_actors_ends_our_requests_and_the_next_one_starts_afresh() -> None:
    """BEH-C2: `ActorRegistry.stop_all()` is global, and ours are in that registry too."""
    for _ in range(10):
        with RawServer([silent, always(echo)]) as server, Client(base_url=server.url, max_conns_per_host=1) as client:
            running, queued = client.send_async("GET", "/running"), client.send_async("GET", "/queued")
            server.wait_for_requests(1)

            pykka.ActorRegistry.stop_all(timeout=20)

            assert Echoed.of(client.get("/after")).target == "/after"
            assert isinstance(running.exception(30), ManagerCrashed)
            assert isinstance(queued.exception(30), ManagerCrashed | None)  # unless it was served in between
            assert not client.is_disposed
