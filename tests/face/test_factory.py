"""The factory: named clients that share a runtime."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.face.handlers import AnyForm, Echoed, Gate, silent
from tests.servers.raw import RawServer
from tests.waiting import eventually
from turbopool import (
    Client,
    ClientDisposed,
    ClientFactory,
    ClientOptions,
    Http1Options,
    InvalidRequest,
)


@pytest.fixture
def factory(server: RawServer) -> Iterator[ClientFactory]:
    """A factory that knows "api", at the echoing server."""
    with ClientFactory().add("api", base_url=server.url) as made:
        yield made


# -- the registry --------------------------------------------------------------------------------------------


def test_names_are_case_insensitive_and_outer_spaces_do_not_count(factory: ClientFactory) -> None:
    """BEH-L5."""
    clients = [factory.create_client(name) for name in ("api", "API", " Api ")]

    for client in clients:
        client.get("/x")

    assert factory.names == ["api"]
    assert all(client.stats().opened == 1 for client in clients)


def test_adding_is_fluent_and_a_name_may_be_added_again(server: RawServer) -> None:
    """BEH-L5, C9: the later options win, each name has its own."""
    with ClientFactory() as factory:
        same = (
            factory.add("a", base_url=server.url + "/old")
            .add("A", base_url=server.url + "/new")
            .add("b", ClientOptions(base_url=server.url), params={"b": "1"})
        )

        assert same is factory
        assert factory.names == ["a", "b"]
        assert Echoed.of(factory.create_client("a").get("x")).target == "/new/x"
        assert Echoed.of(factory.create_client("b").get("x")).target == "/x?b=1"


def test_a_handle_keeps_what_it_had_when_its_name_is_added_again(server: RawServer) -> None:
    """BEH-L5."""
    with ClientFactory().add("a", base_url=server.url + "/old") as factory:
        old = factory.create_client("a")
        factory.add("a", base_url=server.url + "/new")
        new = factory.create_client("a")

        assert Echoed.of(old.get("x")).target == "/old/x"
        assert Echoed.of(new.get("x")).target == "/new/x"
        assert old.stats().opened == new.stats().opened == 1


def test_disposing_the_factory_ends_handles_of_names_that_were_added_again(server: RawServer) -> None:
    """BEH-C11."""
    factory = ClientFactory().add("a", base_url=server.url)
    old = factory.create_client("a")
    old.get("/x")
    factory.add("a", base_url=server.url)
    new = factory.create_client("a")
    new.get("/x")

    factory.dispose()

    assert old.is_disposed
    assert new.is_disposed


def test_no_name_is_the_default_name(server: RawServer) -> None:
    """BEH-L5, C8, C9."""
    with ClientFactory().add(base_url=server.url) as factory:
        unnamed, named = factory.create_client(), factory.create_client("default")

        assert Echoed.of(unnamed.get("/x")).connection == Echoed.of(named.get("/y")).connection == 0
        assert factory.names == ["default"]


def test_the_default_name_needs_no_registration(server: RawServer) -> None:
    """BEH-L5."""
    with ClientFactory() as factory:
        unnamed, none = factory.create_client(), factory.create_client(None)

        assert Echoed.of(unnamed.get(server.url + "/x")).connection == 0
        assert Echoed.of(none.get(server.url + "/y")).connection == 0


@pytest.mark.parametrize("name", ["", "  ", 5, b"api", ("a",)])
def test_what_is_no_name_is_refused(factory: ClientFactory, name: AnyForm) -> None:
    """BEH-L5, C10."""
    for call in (factory.add, factory.create_client):
        with pytest.raises(ValueError, match="name"):
            call(name)
    with pytest.raises(ValueError, match="name"):
        factory.add(None)  # type: ignore[arg-type]  # that is the point


def test_a_name_nobody_added_is_refused_naming_those_that_were(factory: ClientFactory) -> None:
    """BEH-L5: not the default instead."""
    with pytest.raises(InvalidRequest, match="'apy'") as caught:
        factory.create_client("apy")

    assert "known=api" in str(caught.value)
    assert "add()" in str(caught.value.advice)


@pytest.mark.parametrize(
    "name", ["a b", "a_20b", "a/b", "a.b", "ä", "\u0130", "a" * 1000, "drop table", "%s", "None", "..", "a\nb"]
)
def test_special_names_are_names_like_others(server: RawServer, name: str) -> None:
    """BEH-C10: nothing is sanitised, so nothing collides."""
    with ClientFactory().add(name, base_url=server.url).add("a-b", base_url="http://127.0.0.1:1") as factory:
        assert factory.create_client(name).get("/x").is_success


def test_bad_options_are_refused_when_they_are_added(factory: ClientFactory) -> None:
    """BEH-C9."""
    with pytest.raises(ValueError, match="idle_timeout"):
        factory.add("b", idle_timeout=-1)
    with pytest.raises(TypeError, match="no_such_option"):
        factory.add("b", no_such_option=1)

    assert factory.names == ["api"]


# -- one runtime a name --------------------------------------------------------------------------------------


def test_handles_of_one_name_share_pools_and_limits() -> None:
    """BEH-C6, C10."""
    gate = Gate()
    with RawServer(gate) as server:
        factory = ClientFactory().add("api", base_url=server.url, http1=Http1Options(max_connections_per_server=2))
        with factory:
            clients = [factory.create_client("api") for _ in range(4)]
            futures = [client.send_async("GET", f"/{n}") for n, client in enumerate(clients * 3)]
            eventually(lambda: clients[0].stats().waiting == 10)
            gate.opened.set()

            assert [Echoed.of(future.result()).target for future in futures] == [f"/{n}" for n in range(12)]
            assert len({id(client) for client in clients}) == 4
            assert server.peak == 2
            assert {client.stats().requests for client in clients} == {12}


def test_different_names_are_isolated(server: RawServer) -> None:
    """BEH-C7, C10."""
    with ClientFactory() as factory:
        for name in "ab":
            factory.add(name, base_url=server.url, headers={"X-Name": name}, max_conns_per_host=1)
        a, b = factory.create_client("a"), factory.create_client("b")

        seen = [Echoed.of(client.get("/x")) for client in (a, b, a, b)]

        assert [one.connection for one in seen] == [0, 1, 0, 1]
        assert [one.all("x-name") for one in seen] == [["a"], ["b"], ["a"], ["b"]]
        a.dispose()
        assert Echoed.of(b.get("/x")).connection == 1
        assert a.stats().pools == {}


@pytest.mark.concurrency
def test_a_name_gets_one_runtime_also_when_many_threads_ask_first(server: RawServer) -> None:
    """BEH-C6: 32 concurrent calls of create_client."""
    with ClientFactory().add("api", base_url=server.url, max_conns_per_host=2) as factory:
        start = threading.Barrier(32)

        def create(n: int) -> tuple[Client, Echoed]:
            start.wait(30)
            client = factory.create_client("API" if n % 2 else "api")
            return client, Echoed.of(client.get(f"/{n}"))

        with ThreadPoolExecutor(32) as pool:
            made = list(pool.map(create, range(32)))

        assert sorted(int(seen.target[1:]) for _, seen in made) == list(range(32))
        assert len({id(client) for client, _ in made}) == 32
        assert {client.stats().requests for client, _ in made} == {32}
        assert server.peak <= 2


@pytest.mark.concurrency
def test_a_handle_taken_while_the_last_one_is_let_go_of_works(server: RawServer) -> None:
    """BEH-C6, C11: it has the old runtime or a new one, but never a disposed one."""
    with ClientFactory().add("api", base_url=server.url, max_conns_per_host=4) as factory:
        start = threading.Barrier(4)

        def use(n: int) -> list[str]:
            start.wait(30)
            seen = []
            for turn in range(15):
                with factory.create_client("api") as client:
                    seen.append(Echoed.of(client.get(f"/{n}/{turn}")).target)
            return seen

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(use, range(4))) == [[f"/{n}/{turn}" for turn in range(15)] for n in range(4)]


# -- the end -------------------------------------------------------------------------------------------------


def test_the_runtime_ends_with_its_last_handle(server: RawServer) -> None:
    """BEH-C11."""
    with ClientFactory().add("api", base_url=server.url) as factory:
        one, two = factory.create_client("api"), factory.create_client("api")
        one.get("/x")

        one.dispose()
        one.dispose()  # counts once
        assert one.is_disposed
        assert not two.is_disposed
        assert Echoed.of(two.get("/x")).connection == 0
        two.dispose()

        server.wait_until(lambda server: server.open == 0)
        with pytest.raises(ClientDisposed):
            two.get("/x")


def test_a_name_can_be_used_again_after_its_runtime_ended(factory: ClientFactory) -> None:
    """BEH-C11: made anew on demand."""
    for connection in range(3):
        with factory.create_client("api") as client:
            assert Echoed.of(client.get("/x")).connection == connection


def test_what_one_handle_has_under_way_goes_on_when_it_is_disposed() -> None:
    """BEH-C11: only that consumer is gone."""
    gate = Gate()
    with RawServer(gate) as server, ClientFactory().add("api", base_url=server.url) as factory:
        one, two = factory.create_client("api"), factory.create_client("api")
        futures = [client.send_async("GET", f"/{n}") for n, client in enumerate((one, two))]
        server.wait_for_requests(2)
        one.dispose()
        gate.opened.set()

        assert [Echoed.of(future.result()).target for future in futures] == ["/0", "/1"]


def test_a_handle_that_is_forgotten_counts_as_disposed(server: RawServer) -> None:
    """BEH-C11."""
    with ClientFactory().add("api", base_url=server.url) as factory:
        client = factory.create_client("api")
        client.get("/x")
        gone = weakref.ref(client)
        del client

        eventually(lambda: gc.collect() >= 0 and gone() is None)
        server.wait_until(lambda server: server.open == 0)


@pytest.mark.parametrize(
    "way", [ClientFactory.dispose, ClientFactory.close, lambda factory: factory.__exit__(None, None, None)]
)
def test_disposing_the_factory_ends_every_runtime(server: RawServer, way: Callable[[ClientFactory], None]) -> None:
    """BEH-C11."""
    factory = ClientFactory()
    clients = []
    for name in "abcde":
        clients.append(factory.add(name, base_url=server.url).create_client(name))
        clients[-1].get("/x")

    way(factory)
    way(factory)

    assert all(client.is_disposed for client in clients)
    server.wait_until(lambda server: server.open == 0)
    for call in (lambda: factory.create_client("a"), lambda: factory.add("f"), lambda: clients[0].get("/x")):
        with pytest.raises(ClientDisposed, match="disposed"):
            call()
    for client in clients:
        client.dispose()


def test_disposing_the_factory_lets_requests_finish() -> None:
    """BEH-C11: graceful by default; it makes no difference that nobody keeps the handles."""
    gate = Gate()
    with ExitStack() as stack:
        servers = [stack.enter_context(RawServer(gate)) for _ in range(3)]
        factory = ClientFactory()
        for server in servers:
            factory.add(str(server.port), base_url=server.url)
        futures = [factory.create_client(str(server.port)).send_async("GET", "/x") for server in servers]
        for server in servers:
            server.wait_for_requests(1)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        disposed = pool.submit(factory.dispose)
        gate.opened.set()

        disposed.result(30)
        assert all(Echoed.of(future.result(0)).target == "/x" for future in futures)


def test_disposing_the_factory_with_a_drain_timeout_fails_what_is_left_of_all_names_at_once() -> None:
    """BEH-C11: forced; also what drains already because its last handle was forgotten."""
    with RawServer(silent) as server:
        factory = ClientFactory()
        futures = [
            factory.add(str(n), base_url=server.url).create_client(str(n)).send_async("GET", "/x") for n in range(5)
        ]
        server.wait_for_requests(5)

        factory.dispose(drain_timeout=0.05)

        assert all(isinstance(future.exception(0), ClientDisposed) for future in futures)


@pytest.mark.parametrize("arguments", [{"drain_timeout": -1}, {"drain_timeout": "soon"}, {"queued": "maybe"}])
def test_a_disposal_that_makes_no_sense_is_refused_and_disposes_nothing(
    factory: ClientFactory, arguments: dict[str, AnyForm]
) -> None:
    client = factory.create_client("api")
    for disposable in (client, factory):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            disposable.dispose(**arguments)

    assert client.get("/x").is_success
    assert factory.create_client("api").get("/x").is_success


def test_a_factory_that_was_never_used_can_be_disposed() -> None:
    ClientFactory().dispose()
    ClientFactory().add("api", base_url="http://127.0.0.1:1").dispose()


def test_another_factory_has_other_runtimes(server: RawServer) -> None:
    """BEH-C10: names are a factory's own."""
    with ClientFactory().add("api", base_url=server.url) as one, ClientFactory().add("api", base_url=server.url) as two:
        first, second = one.create_client("api"), two.create_client("api")
        assert [Echoed.of(client.get("/x")).connection for client in (first, second)] == [0, 1]
        one.dispose()

        assert Echoed.of(second.get("/x")).connection == 1


def test_an_unknown_handle_cannot_end_a_runtime(factory: ClientFactory, server: RawServer) -> None:
    """BEH-C10."""
    used = factory.create_client("api")
    used.get("/x")
    with Client(base_url=server.url) as stranger:
        stranger.get("/x")

    assert used.get("/x").is_success
