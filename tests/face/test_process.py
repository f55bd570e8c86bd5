"""Processes: importing, leaving without a word, and forking. Each in a process of its own, the servers in this one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.face.handlers import echo, silent
from tests.servers.certs import Authority
from tests.servers.connection import Conn
from tests.servers.raw import RawServer, always
from tests.servers.wire import RawRequest, respond

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
"""Seconds after which a process counts as hung."""

PRELUDE = '''
import gc, os, sys, threading, time
import pykka
from concurrent.futures import wait
from turbopool import Client, ClientDisposed, ClientFactory

url, arguments = sys.argv[1], sys.argv[2:]

def eventually(predicate, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, "not in time"
        threading.Event().wait(0.002)

def number(response):
    return response.raise_for_status().json()["connection"]

def threads():
    return sorted(one.name for one in threading.enumerate() if one.name.startswith("turbopool"))

def child(work):
    """Fork, run `work` in the child, and return how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except SystemExit:  # of a grandchild
            raise
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            sys.stderr.flush()
            os._exit(1)
        sys.exit(0)  # through the interpreter's own end: finalizers, collector, atexit
    return pid

def ended_well(pid, timeout=30.0):
    deadline = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, status
            return
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        threading.Event().wait(0.005)
'''


def run(script: str, *arguments: str) -> tuple[float, str]:
    """Run a script; return how long it took, in seconds, and what it said. It ends with 0 and no complaint."""
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    took = time.monotonic() - began
    assert (process.returncode, process.stderr) == (0, "")
    return took, process.stdout


@pytest.fixture
def closing_server() -> Iterator[RawServer]:
    """An echo that closes all its other connections when it is asked for /close-others."""
    servers: list[RawServer] = []

    def answer(request: RawRequest) -> bytes:
        if request.target == "/close-others":
            for conn in list(servers[0].connections):
                if conn.number != request.connection and conn.is_open():
                    conn.cut()
        return echo(request)

    with RawServer(always(answer)) as server:
        servers.append(server)
        yield server


# -- importing and leaving -----------------------------------------------------------------------------------


def test_an_import_starts_nothing() -> None:
    """FLT-I20: no thread, no socket, no actor."""
    script = """
        import turbopool
        kinds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and
                 os.path.islink(f"/proc/self/fd/{fd}")]
        print(threading.active_count(), pykka.ActorRegistry.get_all(), [kind for kind in kinds if "/proc" not in kind])
        Client(base_url="http://127.0.0.1:1")
        print(threading.active_count())
    """
    assert run(script, "")[1] == "1 [] []\n1\n"


@pytest.mark.parametrize(
    "left",
    [
        "client.get('/fast')",
        "client.send_async('GET', '/x', timeout=None); eventually(lambda: client.stats().leased == 1)",
        "[client.send_async('GET', '/x', timeout=None) for _ in range(50)]; eventually(lambda: client.stats().waiting)",
        "f = client.send_async('GET', '/x', timeout=None); threading.Thread(target=f.result, daemon=True).start()",
        "client.send_async('GET', '/fast').add_done_callback(lambda _: threading.Event().wait()); client.get('/fast')",
        "client.send_async('POST', '/x', content=iter(lambda: b'x' * 70000, None)); eventually(client.stats)",
        "response = client.stream('GET', '/fast').__enter__()",
        "own = Client(base_url=url, own_dispatcher=True); own.get('/fast'); client.get('/fast')",
        "factory = ClientFactory().add('a', base_url=url); factory.create_client('a').get('/fast')",
        "client.get('/fast'); circle = [client]; circle.append(circle); del client, circle",
    ],
    ids=[
        "idle", "in-flight", "queued", "waited-for", "callback", "body", "stream", "own-dispatcher", "factory", "cycle",
    ],
)  # fmt: skip
def test_a_process_that_forgets_to_dispose_ends_all_the_same(left: str) -> None:
    """FLT-P14, I18: with 0, at once, and without a word, whatever is under way."""

    def answer(conn: Conn) -> None:
        while conn.read_head().target == "/fast":
            conn.send(respond(b"x"))
        conn.hold()

    with RawServer(answer) as server:
        took, said = run(f"client = Client(base_url=url, max_conns_per_host=2)\n{left}\nprint('end')", server.url)

        assert said == "end\n"
        assert took < 15  # of a hang it would be a minute


def test_a_process_that_exits_with_an_error_ends_all_the_same() -> None:
    """FLT-P14: also through an exception on the main thread."""
    with RawServer(silent) as server:
        script = "client = Client(base_url=url)\nclient.send_async('GET', '/x')\nsys.exit(7)"
        process = subprocess.run(
            [sys.executable, "-c", PRELUDE + script, server.url],
            cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip

        assert (process.returncode, process.stderr) == (7, "")


# -- fork ----------------------------------------------------------------------------------------------------

FORK = """
    {setup}
    busy = client.send_async("GET", "/slow")
    eventually(lambda: client.stats().leased == 1)
    before = number(client.get("/parent"))

    def work():
        stats = client.stats()
        assert (dict(stats.pools), threads()) == ({{}}, []), (stats, threads())
        assert pykka.ActorRegistry.get_all() == []
        {child}

    ended_well(child(work))
    assert not busy.done()
    assert number(client.get("/parent")) == before
    assert busy.result(30).is_success
    print(client.stats().opened)
    client.dispose()
    assert not threads()
"""

CHILDREN = {
    "that does nothing": "pass",
    "that sends": "assert number(client.get('/child')) >= 2; assert threads()",
    "that sends and disposes": "assert number(client.get('/child')) >= 2; client.dispose(); assert not threads()",
    "that disposes": "client.dispose(); assert client.is_disposed; assert not threads()",
    "that has a client of its own": "own = Client(base_url=url, **tls); own.get('/child'); own.dispose()",
    "that forks": "ended_well(child(lambda: client.get('/child'))); client.get('/child')",
    "that collects": "globals().pop('client'); gc.collect()",
    "that ends at once": "os._exit(0)",
}


@pytest.mark.parametrize("does", CHILDREN)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_forked_child_starts_empty_and_never_touches_the_connections_of_its_parent(
    does: str, scheme: str, authority: Authority
) -> None:
    """FLT-P13, I19: no FIN, no close_notify, no byte; the parent goes on as if nothing had happened."""
    servers: list[RawServer] = []

    def handler(conn: Conn) -> None:
        while True:
            request = conn.read_request()
            if request.target == "/slow":  # until the parent has asked for the second time, after the child's end
                servers[0].wait_until(
                    lambda server: (
                        server.closing.is_set() or sum(one.target == "/parent" for one in server.requests) > 1
                    ),
                    timeout=20,
                )
            conn.send(echo(request))

    context = authority.server_context() if scheme == "https" else None
    with RawServer(handler, ssl_context=context) as server:
        servers.append(server)
        tls = {"verify": str(authority.ca_file)} if context else {}
        setup = f"tls = {tls!r}; client = Client(base_url=url, max_conns_per_host=2, **tls)"
        said = run(FORK.format(setup=setup, child=CHILDREN[does]), server.url)[1]

        assert int(said) == 2  # one that idled and one that was busy, both used again after the child's end
        parents = [request for request in server.requests if request.target in ("/parent", "/slow")]
        assert {request.connection for request in parents} == {0, 1}
        assert len(parents) == 3
        for conn in server.connections[:2]:
            assert {request.target for request in conn.requests} <= {"/parent", "/slow"}
        children = [request for request in server.requests if request.target == "/child"]
        assert all(request.connection >= 2 for request in children)


def test_the_parent_still_notices_what_happens_to_its_idle_connections(closing_server: RawServer) -> None:
    """FLT-P13: a child that closed its copy must not take the registration of the original along."""
    script = """
        client = Client(base_url=url, max_conns_per_host=4)
        wait([client.send_async("GET", "/x") for _ in range(4)], 20)
        idle = client.stats().idle
        assert idle >= 1
        ended_well(child(lambda: None))
        ended_well(child(lambda: client.get("/child")))
        assert client.stats().idle == idle
        other = Client(base_url=url)
        other.get("/close-others")
        eventually(lambda: client.stats().idle == 0)
        assert client.get("/x").is_success
        client.dispose()
        other.dispose()
    """
    run(script, closing_server.url)


def test_a_fork_while_eight_threads_send_harms_neither_side() -> None:
    """FLT-P13: every answer is the asker's own, in the parent and in each child."""
    script = """
        client = Client(base_url=url, max_conns_per_host=4)
        over = threading.Event()
        problems, counts = [], [0] * 8

        def same(target):
            said = client.get(target, timeout=10).raise_for_status().json()
            if said["target"] != target:
                problems.append((target, said))

        def send(thread):
            n = 0
            while not over.is_set():
                try:
                    same(f"/parent/{thread}/{n}")
                except BaseException as error:
                    problems.append(error)
                n += 1
                counts[thread] = n

        def work():
            for n in range(20):
                same(f"/child/{os.getpid()}/{n}")
            assert not problems, problems

        senders = [threading.Thread(target=send, args=(n,), daemon=True) for n in range(8)]
        for sender in senders:
            sender.start()
        for turn in range(12):
            eventually(lambda before=sum(counts): sum(counts) > before + 20)
            ended_well(child(work))
        over.set()
        for sender in senders:
            sender.join(30)
        assert not problems, problems[:3]
        client.dispose()
    """
    with RawServer(always(echo)) as server:
        run(script, server.url)

        of_one = [{request.target.split("/")[1] for request in conn.requests} for conn in server.connections]
        assert all(len(who) <= 1 for who in of_one)
        assert sum(request.target.startswith("/child") for request in server.requests) == 12 * 20


def test_clients_and_factories_can_be_made_and_started_while_another_thread_forks() -> None:
    """FLT-P13: whatever lock a thread of the parent holds at that moment, the child can use it."""
    script = """
        over = threading.Event()
        factory = ClientFactory().add("api", base_url=url)

        def churn():
            while not over.is_set():
                with Client(base_url=url) as short:
                    short.get("/churn")
                factory.create_client("api").dispose()
                factory.create_client("api").get("/churn")

        def work():
            assert factory.create_client("api").get("/child").is_success
            factory.dispose()
            with Client(base_url=url) as own:
                assert own.get("/child").is_success

        churners = [threading.Thread(target=churn, daemon=True) for _ in range(4)]
        sys.setswitchinterval(1e-5)
        for churner in churners:
            churner.start()
        for _ in range(15):
            ended_well(child(work))
        over.set()
        for churner in churners:
            churner.join(30)
        factory.dispose()
    """
    with RawServer(always(echo)) as server:
        run(script, server.url)


def test_a_childs_own_actors_and_those_of_the_application_stay() -> None:
    """FLT-P13: the registry of the child loses ours, and no others."""
    script = """
        class Theirs(pykka.ThreadingActor):
            use_daemon_thread = True

        Theirs.start()
        client = Client(base_url=url)
        client.get("/x")
        assert len(pykka.ActorRegistry.get_all()) == 3

        def work():
            assert [ref.actor_class for ref in pykka.ActorRegistry.get_all()] == [Theirs]
            client.get("/child")
            assert len(pykka.ActorRegistry.get_all()) == 3
            client.dispose()
            assert len(pykka.ActorRegistry.get_all()) == 1

        ended_well(child(work))
        assert len(pykka.ActorRegistry.get_all()) == 3
        client.dispose()
        pykka.ActorRegistry.stop_all()
    """
    with RawServer(always(echo)) as server:
        run(script, server.url)


def test_a_future_of_the_parent_ends_in_the_child_too() -> None:
    """FLT-P13: nobody will answer it there, so it ends at its deadline; it can be cancelled before."""
    script = """
        client = Client(base_url=url)
        for short in (0.3, 3, 30):  # on a slow machine its time may be up too soon
            futures = [client.send_async("GET", "/x", timeout=limit) for limit in (short, 60)]
            eventually(lambda: client.stats().leased == 2 or futures[0].done())
            if not futures[0].done():
                break
            assert futures[1].cancel()
        assert not futures[0].done()

        def work():
            assert futures[1].cancel() and futures[1].cancelled()
            try:
                futures[0].result()
            except TimeoutError:
                pass
            else:
                raise AssertionError("it was answered")

        ended_well(child(work))
        assert not futures[1].done()
        client.dispose(drain_timeout=0)
    """
    with RawServer(silent) as server:
        run(script, server.url)


def test_a_stream_of_the_parent_is_left_alone_by_its_child() -> None:
    """FLT-P13."""
    script = """
        client = Client(base_url=url, max_conns_per_host=1)
        with client.stream("GET", "/big") as response:
            pieces = response.iter_bytes(1000)
            received = len(next(pieces))
            ended_well(child(lambda: response.close()))
            ended_well(child(lambda: client.get("/other")))
            received += sum(map(len, pieces))
        assert received == 3_000_000, received
        assert client.get("/small").is_success
        assert client.stats().opened == 1
        client.dispose()
    """

    def answer(request: RawRequest) -> bytes:
        return respond(bytes(3_000_000) if request.target == "/big" else b"x")

    with RawServer(always(answer)) as server:
        run(script, server.url)

        assert [request.target for request in server.connections[0].requests] == ["/big", "/small"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_use_clients_of_their_own(method: str, tmp_path: Path) -> None:
    """FLT-P13: with a module-level client, as services have them."""
    script = tmp_path / "service.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, sys, threading
        from turbopool import Client

        client = Client(base_url=sys.argv[1])

        def work(n):
            return client.get(f"/{n}").raise_for_status().json()["target"]

        if __name__ == "__main__":
            assert work(0) == "/0"
            context = multiprocessing.get_context(sys.argv[2])
            with context.Pool(2) as pool:
                assert pool.map(work, range(20)) == [f"/{n}" for n in range(20)]
                pool.close()
                pool.join()
            process = context.Process(target=work, args=(1,))
            process.start()
            process.join(30)
            assert process.exitcode == 0
            assert work(2) == "/2"
            assert client.stats().opened == 1
            client.dispose()
        """)
    )
    with RawServer(always(echo)) as server:
        process = subprocess.run(
            [sys.executable, str(script), server.url, method],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip

        assert (process.returncode, process.stderr) == (0, "")
        assert len(server.requests) == 23
