"""What is promised of a process that uses clients: when it imports them, when it forks, and when it forgets them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack

import pytest

from tests.face.handlers import echo
from tests.face.test_process import PRELUDE as FORKS
from tests.faults import process
from tests.faults.perils import answers_once
from tests.servers.blackhole import Blackhole
from tests.servers.raw import RawServer, always

SOON_DONE = 10.0
"""Seconds an end may take on a busy machine; to be waited for there would be a minute."""


@pytest.mark.parametrize(
    "left",
    [
        "client.get('/answer'); client.send_async('GET', '/x'); reaches('reconnecting')",
        "client.get('/answer'); [client.send_async('GET', '/x') for _ in range(9)]; reaches('failing')",
        "client.send_async('GET', hole); eventually(lambda: client.stats().connecting)",
        "client.send_async('GET', url.replace('http:', 'https:')); eventually(lambda: client.stats().connecting)",
        "client.send_async('GET', 'http://stuck.invalid/'); eventually(lambda: client.stats().connecting)",
    ],
    ids=["backing off", "probing", "connecting", "in a handshake", "looking up a name"],
)
def test_a_process_ends_wherever_its_client_is_in_getting_connected(left: str) -> None:
    """I18, FLT-P14: without a dispose, with 0, soon, and without a word."""
    script = """
        import functools
        from tenacity import stop_after_attempt, wait_fixed
        from turbopool.actors import hub

        url, hole = sys.argv[1:]
        hub.Resolver = functools.partial(hub.Resolver, lookup=lambda *_, **__: threading.Event().wait())
        options = ReconnectOptions(wait=wait_fixed(0.2), stop=stop_after_attempt(3))
        client = Client(base_url=url, reconnect=options, connect_timeout=60, request_timeout=60, max_conns_per_host=1)

        def reaches(state):
            eventually(lambda: state in [pool.state for pool in client.stats().pools.values()])

        {left}
        print("end", time.monotonic(), flush=True)
    """
    with Blackhole() as hole, RawServer(answers_once) as server:
        said = process.run(script.format(left=left), server.url, hole.url)

        assert time.monotonic() - float(said.removeprefix("end ")) < SOON_DONE


def test_a_child_forked_while_its_parent_waits_for_the_server_has_no_part_in_that() -> None:
    """I19, FLT-P13: it starts empty; what waits is sent by the parent, once, on connections no child ever uses."""
    script = """
        from tenacity import stop_never, wait_fixed
        from turbopool import ConnectError, ReconnectOptions

        patient = ReconnectOptions(wait=wait_fixed(0.2), stop=stop_never)
        client = Client(base_url=url, reconnect=patient, max_conns_per_host=2)
        client.get("/warm")
        print("warm", flush=True)
        sys.stdin.readline()
        futures = [client.send_async("GET", f"/parent/{n}", timeout=20) for n in range(10)]
        eventually(lambda: [pool.state for pool in client.stats().pools.values()] == ["reconnecting"])

        def starts_empty():
            assert (dict(client.stats().pools), threads(), pykka.ActorRegistry.get_all()) == ({}, [], [])

        def asks_in_vain():
            starts_empty()
            try:
                client.get("/in-vain")
            except ConnectError:
                return
            raise AssertionError("who answered?")

        for work in (starts_empty, asks_in_vain, client.dispose):
            ended_well(child(work))
        print("forked", flush=True)
        sys.stdin.readline()
        ended_well(child(lambda: client.get("/child")))
        assert [future.result().json()["target"] for future in futures] == [f"/parent/{n}" for n in range(10)]
        ended_well(child(lambda: client.get("/child")))
        assert client.get("/parent/10").is_success
        client.dispose()
    """
    with ExitStack() as stack:
        server = stack.enter_context(RawServer(always(echo)))
        with process.started(FORKS + textwrap.dedent(script), server.url) as running:
            assert process.answers(running, "") == "warm"
            stack.close()
            assert process.answers(running, "gone\n") == "forked"
            server = stack.enter_context(RawServer(always(echo), port=server.port))
            process.finishes(running, "back\n")

        targets = [request.target for request in server.requests]
        assert sorted(targets) == sorted([*(f"/parent/{n}" for n in range(11)), "/child", "/child"])
        of_one = [{request.target.split("/")[1] for request in conn.requests} for conn in server.connections]
        assert all(len(who) == 1 for who in of_one if who)


def test_no_module_does_anything_when_it_is_imported() -> None:
    """I20: no thread, socket, look-up or process; also none that has ended again."""
    script = """
        import importlib, pkgutil, socket, sys, threading

        seen = []
        events = ("socket.", "os.fork", "os.posix_spawn", "subprocess.Popen")
        sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(events) else None)
        start = threading.Thread.start
        threading.Thread.start = lambda thread: seen.append("thread") or start(thread)

        import turbopool
        modules = [one.name for one in pkgutil.walk_packages(turbopool.__path__, "turbopool.")]
        for name in modules:
            importlib.import_module(name)
        assert not seen, seen
        assert len(modules) > 40
        socket.socket().close()
        threading.Thread(target=int).start()
        print(*seen)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=process.ROOT, capture_output=True, text=True, timeout=process.LIMIT, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "socket.__new__ thread\n"
