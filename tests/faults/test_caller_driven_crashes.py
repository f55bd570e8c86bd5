"""FLT-P5, P8, P13: managers and dispatchers that die, and forks, while a caller's own thread waits for a response."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.face.handlers import Gate
from tests.faults.actors import assert_accounted, assert_says_what_is_known, kill, managers
from tests.faults.aftermath import NEXT
from tests.faults.dispatchers import BreakablePoller, breakable_pollers
from tests.faults.driven import SAID, driven
from tests.faults.process import answers, finishes, started
from tests.servers.connection import Conn
from tests.servers.raw import Handler, RawServer
from tests.servers.wire import respond
from tests.waiting import PATIENCE
from turbopool import ManagerCrashed


@pytest.mark.parametrize("said", SAID)
def test_a_manager_that_dies_takes_what_callers_drive_along(said: str) -> None:
    """FLT-P5, BEH-P40: at once; its replacement stays within the limit, and another key's request is not touched."""
    elsewhere = Gate(respond(NEXT))
    with RawServer(elsewhere) as other, driven(SAID[said], "POST") as one, ThreadPoolExecutor(1) as threads:
        (manager,) = managers()
        one.client.get(f"{other.url}/fast")
        neighbour = threads.submit(one.client.get, f"{other.url}/x")
        other.wait_for_requests(2)

        kill(manager)

        assert_says_what_is_known(one.result.exception(PATIENCE), ManagerCrashed, sent=True)
        assert one.client.get(f"{one.server.url}/next").content == NEXT
        assert one.server.peak == 1
        assert_accounted(one.client, one.server.url, sent=3)
        elsewhere.opened.set()
        assert neighbour.result(PATIENCE).content == NEXT
        assert len(other.connections) == 1
        one.go_on.set()


@pytest.fixture
def pollers(monkeypatch: pytest.MonkeyPatch) -> list[BreakablePoller]:
    """The pollers of all dispatchers that the test starts."""
    return breakable_pollers(monkeypatch)


@pytest.mark.parametrize("said", SAID)
def test_a_dispatcher_that_dies_takes_what_callers_drive_along(said: str, pollers: list[BreakablePoller]) -> None:
    """FLT-P8: no descriptor is left open, and the next request begins afresh."""
    with driven(SAID[said], "POST") as one:
        pollers[0].fault = OSError("the poller broke")
        one.client.warm_up(one.server.url)  # what wakes it up kills it

        assert_says_what_is_known(one.result.exception(PATIENCE), ManagerCrashed, sent=True)
        one.server.wait_until(
            lambda server: server.connections[0].peer_closed_at or not server.connections[0].is_open()
        )
        assert one.client.get(f"{one.server.url}/next").content == NEXT
        one.go_on.set()


FORK = """
    (url,) = sys.argv[1:]
    client = Client(base_url=url)
    client.get("/first")
    contents = []
    caller = threading.Thread(target=lambda: contents.append(client.get("/driven").content))
    caller.start()
    sys.stdin.readline()  # by now the server has its request
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            client.get("/child").raise_for_status()
            client.get("/child").raise_for_status()
            if child:
                client.dispose()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert client.get("/parent").is_success
    print("forked", flush=True)
    caller.join()
    assert contents == [b"next"], contents
    assert client.get("/first").is_success
    client.dispose()
    print("done", flush=True)
"""


def _forks(stopped: threading.Event, go_on: threading.Event) -> Handler:
    def handler(conn: Conn) -> None:
        while True:
            if conn.read_request().target == "/driven":
                stopped.set()
                assert go_on.wait(PATIENCE)
            conn.send(respond(NEXT))

    return handler


def test_a_child_begins_afresh_and_its_parent_goes_on_driving() -> None:
    """FLT-P13: one that uses the client, and one that disposes it as well; neither touches what the parent has."""
    stopped, go_on = threading.Event(), threading.Event()
    with RawServer(_forks(stopped, go_on)) as server, started(FORK, server.url) as process:
        assert stopped.wait(PATIENCE)
        assert answers(process, "fork\n") == "forked"
        go_on.set()
        assert answers(process, "") == "done"
        finishes(process)
        of_one = [{request.target == "/child" for request in conn.requests} for conn in server.connections]
        assert sorted(map(sorted, of_one)) == [[False], [False], [True], [True], [True]]
        assert [request.target for request in server.connections[0].requests[:2]] == ["/first", "/driven"]
