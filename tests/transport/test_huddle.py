"""A huddle: threads wait on one core, and nobody notices afterwards."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
import threading
from _thread import LockType, allocate_lock
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import pytest

from tests.faults.aftermath import NEXT, healthy
from tests.faults.dispatchers import dispatchers
from tests.faults.driven import Way, dispatched, idle, send, send_async
from tests.transport.machine import Cores
from tests.waiting import PATIENCE, eventually
from turbopool.future import _acquire
from turbopool.transport import huddle as huddling
from turbopool.transport import spinning
from turbopool.transport.huddle import AT_MOST, STALE, Huddle
from turbopool.transport.trials import HUDDLED, Phase
from turbopool.transport.workers import Workers

T = TypeVar("T")

ALL, HOME = Cores.ALL, Cores.HOME
AT_HOME = {HOME}
ELSEWHERE = 3
FOREVER = float("inf")
THREADS, TIMES = 4, 25

on_many_cores = pytest.mark.skipif(
    huddling.huddle is None or len(os.sched_getaffinity(0)) == 1, reason="there is one core, or no choice"
)


@pytest.fixture
def cores() -> Cores:
    return Cores()


@pytest.fixture
def huddle(cores: Cores, monkeypatch: pytest.MonkeyPatch) -> Huddle:
    """One at HOME, to which this thread counts as any other."""
    monkeypatch.setattr(huddling, "_main", None)
    huddle = Huddle(cores)
    huddle.join("us", FOREVER)
    return huddle


def in_thread(work: Callable[[], T]) -> T:
    """Do it in a thread that is not the main one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(work).result(PATIENCE)


# -- a wait --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [ALL, {0, HOME}])
def test_a_wait_is_kept_home_and_what_was_allowed_is_allowed_again(
    huddle: Huddle, cores: Cores, before: AbstractSet[int]
) -> None:
    cores.may, cores.core = before, 0
    assert huddle.keep(lambda *seen, **more: (*seen, more, cores.here(), cores.allowed()), 1, x=2) == (
        1,
        {"x": 2},
        HOME,
        AT_HOME,
    )
    assert cores.said == [AT_HOME, before]


def test_a_wait_that_raises_leaves_no_trace(huddle: Huddle, cores: Cores) -> None:
    def wait() -> None:
        assert cores.may == AT_HOME
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        huddle.keep(wait)
    assert cores.may == ALL


@pytest.mark.parametrize("may", [{0, ELSEWHERE}, {HOME}, {0}], ids=["not home", "only home", "one that is not home"])
def test_who_may_not_choose_waits_where_it_is(huddle: Huddle, cores: Cores, may: AbstractSet[int]) -> None:
    cores.may = may
    assert huddle.keep(lambda: "waited") == "waited"
    assert cores.said == []


def test_without_a_home_a_wait_is_a_wait(huddle: Huddle, cores: Cores) -> None:
    huddle.leave("us")
    assert huddle.keep(lambda: "waited") == "waited"
    assert cores.said == []


def test_the_main_thread_takes_no_part(cores: Cores) -> None:
    huddle = Huddle(cores)
    huddle.join("us", FOREVER)
    assert huddle.keep(lambda: "waited") == "waited"
    assert cores.said == []
    assert in_thread(lambda: huddle.keep(lambda: "waited")) == "waited"
    assert cores.said == [AT_HOME, ALL]


def test_what_somebody_else_allowed_meanwhile_stays(huddle: Huddle, cores: Cores) -> None:
    huddle.keep(cores.allow, {0, ELSEWHERE})
    assert cores.may == {0, ELSEWHERE}


def test_a_home_that_ends_during_the_wait_changes_nothing_for_it(huddle: Huddle, cores: Cores) -> None:
    huddle.keep(huddle.leave, "us")
    assert huddle.home is None
    assert cores.may == ALL


@pytest.mark.parametrize("refuses_at_once", [True, False])
def test_a_system_that_does_not_let_us_is_not_asked_again(
    huddle: Huddle, cores: Cores, *, refuses_at_once: bool
) -> None:
    cores.refuses = refuses_at_once

    def wait() -> str:
        cores.refuses = True
        return "waited"

    assert huddle.keep(wait) == "waited"
    assert huddle.home is None
    cores.refuses = False
    said = cores.said.copy()
    for _ in range(2):
        huddle.join("us", FOREVER)
        assert huddle.home is None
        assert huddle.keep(lambda: "waited") == "waited"
        huddle.leave("us")
    assert cores.said == said


# -- to gather -----------------------------------------------------------------------------------------------


def test_who_is_elsewhere_moves_home_and_may_leave_again(huddle: Huddle, cores: Cores) -> None:
    cores.core = ELSEWHERE
    huddle.gather()
    assert (cores.core, cores.said) == (HOME, [AT_HOME, ALL])


def test_who_is_home_already_asks_for_nothing(huddle: Huddle, cores: Cores) -> None:
    huddle.gather()
    assert cores.said == []


def test_without_a_home_nobody_moves(huddle: Huddle, cores: Cores) -> None:
    cores.core = ELSEWHERE
    huddle.leave("us")
    huddle.gather()
    assert (cores.core, cores.said) == (ELSEWHERE, [])


# -- a lock --------------------------------------------------------------------------------------------------


class WatchedLock:
    """A lock that is acquired as told, and where its thread might run meanwhile."""

    def __init__(self, cores: Cores, answers: list[bool]) -> None:
        self.asked: list[tuple[float, AbstractSet[int]]] = []
        self._cores = cores
        self._answers = answers.copy()

    def acquire(self, *, timeout: float) -> bool:
        self.asked.append((round(timeout, 6), self._cores.allowed()))
        return self._answers.pop(0)


@pytest.mark.parametrize(
    ("timeout", "answers", "asked"),
    [
        pytest.param(5.0, [True], [(AT_MOST, AT_HOME)], id="soon"),
        pytest.param(5.0, [False, True], [(AT_MOST, AT_HOME), (5.0 - AT_MOST, ALL)], id="late"),
        pytest.param(5.0, [False, False], [(AT_MOST, AT_HOME), (5.0 - AT_MOST, ALL)], id="never"),
        pytest.param(AT_MOST / 2, [True], [(AT_MOST / 2, AT_HOME)], id="in a short time"),
        pytest.param(AT_MOST / 2, [False], [(AT_MOST / 2, AT_HOME)], id="not in a short time"),
        pytest.param(AT_MOST, [False], [(AT_MOST, AT_HOME)], id="not in just that time"),
        pytest.param(0.0, [True], [(0.0, ALL)], id="at once"),
        pytest.param(0.0, [False], [(0.0, ALL)], id="not at once"),
    ],
)
def test_a_lock_is_waited_for_at_home_for_a_while_and_then_anywhere(
    huddle: Huddle, cores: Cores, timeout: float, answers: list[bool], asked: list[tuple[float, AbstractSet[int]]]
) -> None:
    lock = WatchedLock(cores, answers)
    assert huddle.acquire(cast("LockType", lock), timeout) is answers[-1]
    assert lock.asked == asked
    assert cores.may == ALL


def test_without_a_home_a_lock_is_waited_for_anywhere(huddle: Huddle, cores: Cores) -> None:
    huddle.leave("us")
    lock = WatchedLock(cores, [False])
    assert not huddle.acquire(cast("LockType", lock), 5.0)
    assert lock.asked == [(5.0, ALL)]


@pytest.mark.parametrize("timeout", [0.0, AT_MOST / 2, 2 * AT_MOST])
def test_a_real_lock_is_acquired_once_and_then_not(huddle: Huddle, timeout: float) -> None:
    lock = allocate_lock()
    assert huddle.acquire(lock, timeout) is True
    assert lock.locked()
    assert huddle.acquire(lock, timeout) is False


def test_a_real_lock_that_is_released_late_is_acquired(huddle: Huddle, cores: Cores) -> None:
    lock = allocate_lock()
    lock.acquire()

    def release() -> None:
        eventually(lambda: cores.said == [AT_HOME, ALL])  # the time at home is over
        lock.release()

    with ThreadPoolExecutor(1) as threads:
        released = threads.submit(release)
        assert huddle.acquire(lock, PATIENCE) is True
        released.result(PATIENCE)


# -- parties -------------------------------------------------------------------------------------------------


def test_the_first_chooses_the_home_and_the_last_ends_it(huddle: Huddle, cores: Cores) -> None:
    cores.core = ELSEWHERE
    huddle.join("others", FOREVER)
    assert huddle.home == HOME
    huddle.leave("us")
    huddle.leave("us")
    huddle.leave("strangers")
    assert huddle.home == HOME
    huddle.leave("others")
    assert huddle.home is None
    huddle.join("others", FOREVER)
    assert huddle.home == ELSEWHERE


def test_who_has_not_said_so_for_a_while_is_counted_out(huddle: Huddle) -> None:
    huddle.join("others", 5.0)
    huddle.leave("us")
    huddle.settle(5.0 + STALE)
    assert huddle.home == HOME
    huddle.settle(5.1 + STALE)
    assert huddle.home is None


def test_who_was_left_on_one_core_by_an_exception_gets_back_what_was_allowed(huddle: Huddle, cores: Cores) -> None:
    def strike() -> AbstractSet[int]:
        raise KeyboardInterrupt

    def wait() -> None:
        cores.allowed = strike  # type: ignore[method-assign]  # in the midst of the clean-up

    with pytest.raises(KeyboardInterrupt):
        huddle.keep(wait)
    del cores.allowed
    assert cores.may == AT_HOME
    assert huddle.keep(cores.allowed) == AT_HOME
    assert cores.may == ALL


def test_a_system_that_does_not_say_is_left_alone(huddle: Huddle, cores: Cores) -> None:
    def refuse() -> AbstractSet[int]:
        raise PermissionError

    cores.allowed = refuse  # type: ignore[method-assign]
    assert huddle.keep(int) == 0
    assert huddle.home is None
    assert huddle.lodge() is None
    assert cores.said == []


def test_a_sole_party_that_joins_again_chooses_anew(huddle: Huddle, cores: Cores) -> None:
    cores.core = ELSEWHERE
    huddle.join("us", FOREVER)
    assert huddle.home == ELSEWHERE
    huddle.join("others", FOREVER)
    cores.core = 0
    huddle.join("us", FOREVER)
    assert huddle.home == ELSEWHERE


# -- to live there -------------------------------------------------------------------------------------------


def test_a_lodger_lives_at_home_moves_with_it_and_leaves_when_there_is_none(huddle: Huddle, cores: Cores) -> None:
    assert huddle.outside() is None
    huddle.lodge()
    assert (cores.may, huddle.outside()) == (AT_HOME, ALL)
    huddle.home = ELSEWHERE
    huddle.lodge()
    assert (cores.may, huddle.outside()) == ({ELSEWHERE}, ALL)
    huddle.leave("us")
    huddle.lodge()
    assert (cores.may, huddle.outside()) == (ALL, None)


def test_a_lodger_leaves_for_where_somebody_else_has_said_meanwhile(huddle: Huddle, cores: Cores) -> None:
    huddle.lodge()
    cores.may = {HOME, ELSEWHERE}
    huddle.home = ELSEWHERE
    huddle.lodge()
    assert cores.may == {ELSEWHERE}
    cores.may = {0, ELSEWHERE}
    huddle.leave("us")
    huddle.lodge()
    assert cores.may == {0, ELSEWHERE}


def test_nobody_lodges_where_it_may_not_run(huddle: Huddle, cores: Cores) -> None:
    cores.may = {0, ELSEWHERE}
    huddle.lodge()
    assert cores.said == []
    assert huddle.outside() is None


def test_a_lodger_is_not_let_in_by_a_system_that_refuses(huddle: Huddle, cores: Cores) -> None:
    cores.refuses = True
    huddle.lodge()
    assert (huddle.home, cores.may) == (None, ALL)
    huddle.lodge()
    assert huddle.outside() is None


def test_each_lodger_goes_back_to_where_it_was(huddle: Huddle, cores: Cores) -> None:
    huddle.lodge()
    other = Cores()

    def lodge_and_leave() -> AbstractSet[int]:
        huddle._cores, other.may = other, {0, HOME}  # noqa: SLF001  # those of another thread
        huddle.lodge()
        assert huddle.outside() == {0, HOME}
        huddle.step_out(huddle.outside())
        return other.may

    assert in_thread(lodge_and_leave) == {0, HOME}
    huddle._cores = cores  # noqa: SLF001
    huddle.leave("us")
    huddle.lodge()
    assert cores.may == ALL


def test_who_was_started_by_a_lodger_steps_out(huddle: Huddle, cores: Cores) -> None:
    huddle.lodge()
    huddle.step_out(huddle.outside())
    assert cores.may == ALL
    assert huddle.outside() is None


def test_who_was_started_by_another_stays_where_it_is(huddle: Huddle, cores: Cores) -> None:
    cores.may = {0}
    huddle.step_out(huddle.outside())
    assert cores.said == []


# -- on this machine -----------------------------------------------------------------------------------------


class Watched:
    """The system's cores, and what each thread was narrowed to."""

    def __init__(self, cores: huddling.Cores) -> None:
        self.narrowed: set[int] = set()
        self.here, self.allowed, self._allow = cores.here, cores.allowed, cores.allow

    def allow(self, cores: AbstractSet[int]) -> None:
        self._allow(cores)
        if len(cores) == 1:
            self.narrowed.add(threading.get_native_id())


def may(thread: int = 0) -> AbstractSet[int]:
    """On which cores a thread may run, the calling one if none is named."""
    return os.sched_getaffinity(thread)


@pytest.fixture
def watched() -> Watched:
    return Watched(huddling._LinuxCores())  # noqa: SLF001  # there is no public way to the system's


@pytest.fixture
def the_huddle(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Iterator[Huddle]:
    """The process's, where all huddle."""
    huddle, sleepers = huddling.huddle, spinning.sleepers
    assert huddle is not None
    assert spinning.spinner is not None
    assert spinning.tls_spinner is not None
    assert sleepers is not None
    for trials in (spinning.spinner.trials, spinning.tls_spinner.trials, sleepers):
        monkeypatch.setattr(trials, "phase", Phase(HUDDLED, float("inf")))
    monkeypatch.setattr(huddle, "_cores", watched)
    monkeypatch.setattr(huddle, "_parties", {})  # others may have found that it pays
    monkeypatch.setattr(huddle, "home", None)
    huddle.join("a test", FOREVER)
    assert huddle.home in may()
    yield huddle
    huddle.leave("a test")


@on_many_cores
@pytest.mark.parametrize("choice", [min, max])
def test_a_thread_is_really_kept_on_one_core(choice: Callable[[AbstractSet[int]], int], watched: Watched) -> None:
    huddle = Huddle(watched)
    huddle.home = choice(may())

    def wait() -> tuple[AbstractSet[int], int]:
        return may(), watched.here()

    def work() -> tuple[tuple[AbstractSet[int], int], AbstractSet[int]]:
        return huddle.keep(wait), may()

    assert in_thread(work) == (({huddle.home}, huddle.home), may())


@on_many_cores
def test_a_worker_that_a_lodger_starts_runs_anywhere(the_huddle: Huddle) -> None:
    workers, seen = Workers("worker", 1), list[AbstractSet[int]]()
    done = threading.Event()

    def task() -> None:
        seen.append(may())
        done.set()

    def lodge() -> AbstractSet[int]:
        the_huddle.lodge()
        workers.submit(task)
        home = may()
        the_huddle.step_out(the_huddle.outside())
        return home

    assert in_thread(lodge) == {the_huddle.home}
    assert done.wait(PATIENCE)
    assert seen == [may()]
    workers.close()


@on_many_cores
def test_the_dispatcher_lives_at_home_and_what_it_starts_does_not(the_huddle: Huddle) -> None:
    home, called = the_huddle.home, threading.Event()
    seen: list[AbstractSet[int]] = []

    def call_back(_: object) -> None:
        seen.append(may())
        called.set()

    with idle(healthy) as (_, client):
        (thread,) = dispatchers()
        assert thread.native_id is not None
        eventually(lambda: may(thread.native_id or 0) == {home})
        client.send_async("GET", "/x").add_done_callback(call_back)
        assert called.wait(PATIENCE)
        assert seen == [may()]
        the_huddle.leave("a test")
        assert dispatched(client, "GET", "/x").content == NEXT  # after which it sleeps again
        eventually(lambda: may(thread.native_id or 0) == may())


@on_many_cores
@pytest.mark.usefixtures("the_huddle")
def test_who_waits_for_a_future_that_another_settles_waits_at_home(watched: Watched) -> None:
    lock = allocate_lock()
    lock.acquire()

    def wait() -> bool:
        assert not _acquire(lock, AT_MOST)
        return threading.get_native_id() in watched.narrowed

    assert in_thread(wait)


@on_many_cores
@pytest.mark.concurrency
@pytest.mark.parametrize("way", [send, send_async])
@pytest.mark.usefixtures("the_huddle")
def test_requests_of_threads_that_huddle_are_answered_and_what_they_start_runs_anywhere(
    way: Way, watched: Watched
) -> None:
    narrowed: list[bool] = []

    with idle(healthy, max_conns_per_host=2) as (_, client):  # so that some wait for a connection

        def work() -> tuple[bytes, AbstractSet[int], AbstractSet[int]]:
            answers = {way(client, "GET", "/x").content for _ in range(TIMES)}
            child = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
            said = subprocess.run(child, capture_output=True, check=True, text=True, timeout=PATIENCE).stdout
            narrowed.append(threading.get_native_id() in watched.narrowed)
            return b"".join(answers), may(), ast.literal_eval(said)

        with ThreadPoolExecutor(THREADS) as threads:
            results = [threads.submit(work) for _ in range(THREADS)]
            assert [one.result(PATIENCE) for one in results] == [(NEXT, may(), may())] * THREADS
    assert any(narrowed)


@on_many_cores
def test_the_only_thread_of_a_forked_child_is_its_main_thread() -> None:
    script = """
        import os, threading
        from turbopool.transport.huddle import huddle

        def work():
            huddle.join("a test", float("inf"))
            kept = len(huddle.keep(os.sched_getaffinity, 0)) == 1
            pid = os.fork()
            if pid == 0:
                os._exit(len(huddle.keep(os.sched_getaffinity, 0)) == 1)
            print(kept, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """
    child = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(child, capture_output=True, check=True, text=True, timeout=PATIENCE).stdout == "True 0\n"
