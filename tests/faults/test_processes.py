"""FLT-P13, P14: forks and exits in the middle of a fault. Each in a process of its own, the servers in this one."""

from __future__ import annotations

import time

import pytest

from tests.face.handlers import silent
from tests.faults.aftermath import healthy
from tests.faults.process import answers, finishes, run, started
from tests.servers.raw import RawServer

# -- fork --------------------------------------------------------------------------------------------------

FORK = """
    from tenacity import stop_never, wait_fixed

    (url,) = sys.argv[1:]
    client = Client(base_url=url, reconnect=ReconnectOptions(wait=wait_fixed(0.1), stop=stop_never))
    client.get("/x")
    print("warm", flush=True)
    sys.stdin.readline()
    future = client.send_async("GET", "/waiting", timeout=20)
    eventually(lambda: next(iter(client.stats().pools.values())).reconnects)
    pid = os.fork()
    if pid == 0:
        threading.Event().wait(0.5)  # for as long as nothing must happen
        os._exit(len(client.stats().pools) + len(threading.enumerate()) - 1)
    print("forked", flush=True)
    sys.stdin.readline()
    assert future.result().content == b"next"
    assert os.waitpid(pid, 0)[1] == 0
    pid = os.fork()
    if pid == 0:
        os._exit(client.get("/child").status_code - 200)
    assert os.waitpid(pid, 0)[1] == 0
    client.dispose()
    print("done", flush=True)
"""


def test_a_child_does_not_go_on_reconnecting_for_its_parent() -> None:
    """FLT-P13, I19, I22: the parent's queue is served by the parent alone; the child begins cold."""
    with RawServer(healthy) as gone, started(FORK, gone.url) as process:
        assert answers(process, "") == "warm"
        gone.refuse()
        for conn in gone.connections:
            conn.reset()
        gone.wait_until(lambda gone: all(conn.closed_at for conn in gone.connections))  # or it would answer once more
        assert answers(process, "gone\n") == "forked"
        with RawServer(healthy, port=gone.port) as back:
            assert answers(process, "back\n") == "done"

            assert [request.target for request in back.requests] == ["/waiting", "/child"]
            assert len(back.connections) == 2
        finishes(process)


LOST = """
    import ctypes, logging
    logging.disable()
    (url,) = sys.argv[1:]
    client = Client(base_url=url)
    client.send_async("GET", "/x")
    eventually(lambda: client.stats().leased)
    (thread,) = [one for one in threading.enumerate() if one.name == "turbopool-dispatcher"]
"""

DIES = """
    for _ in range(100):  # in the middle of a step it would be that step's bug, and no more
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        client.send_async("GET", "/nudge")
        thread.join(0.05)
        if not thread.is_alive():
            break
    assert not thread.is_alive()
"""

STICKS = """
    from tenacity import wait_fixed

    class Blocking(wait_fixed):
        reached = threading.Event()

        def __call__(self, state):
            self.reached.set()
            threading.Event().wait()

    guilty = Client(base_url="http://127.0.0.1:1", reconnect=ReconnectOptions(wait=Blocking(1), first_connect=True))
    guilty.send_async("GET", "/x")
    assert Blocking.reached.wait(30)
"""

FORKS = """
    pid = os.fork()
    if pid == 0:
        assert not client.stats().pools
        fresh = Client(base_url=url, request_timeout=0.5)
        assert isinstance(fresh.send_async("GET", "/child").exception(), DeadlineExceeded)
        fresh.dispose()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize("lost", [DIES, STICKS], ids=["dead", "stuck"])
def test_a_process_whose_dispatcher_was_lost_can_fork_and_ends_in_time(lost: str) -> None:
    """FLT-P13, P14, I18, I19: with 0, without a word, and without waiting for what will never come."""
    with RawServer(silent) as server:
        began = time.monotonic()
        run(LOST + lost + FORKS, server.url)

        assert time.monotonic() - began < 20  # of a hang it would be a minute


def test_a_process_that_waits_for_its_server_to_come_back_ends_in_time() -> None:
    """FLT-P14, I18: while it reconnects, with requests in the queue."""
    script = """
        (url,) = sys.argv[1:]
        client = Client(base_url=url)
        client.get("/x", headers={"Connection": "close"})
        print("warm", flush=True)
        sys.stdin.readline()
        futures = [client.send_async("GET", "/x", timeout=None) for _ in range(3)]
        eventually(lambda: next(iter(client.stats().pools.values())).reconnects)
    """
    with RawServer(healthy) as server, started(script, server.url) as process:
        assert answers(process, "") == "warm"
        server.refuse()
        began = time.monotonic()
        finishes(process, "gone\n")

        assert time.monotonic() - began < 15
        assert [request.target for request in server.requests] == ["/x"]
