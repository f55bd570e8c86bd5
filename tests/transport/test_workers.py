"""Elastic pools of daemon threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from tests.transport.scarcity import no_threads
from turbopool.transport.workers import Workers, on_worker


def _named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def _waiting_for(gate: threading.Event) -> Callable[[], None]:
    def task() -> None:
        assert gate.wait(30)

    return task


def test_no_thread_is_started_before_there_is_work() -> None:
    Workers("lazy", 4).close()

    assert _named("lazy") == []


def test_tasks_run_on_daemon_threads_of_that_name() -> None:
    """FLT-I18: a daemon does not keep the process alive."""
    seen: list[threading.Thread] = []
    done = threading.Event()
    workers = Workers("pool", 4)

    def task() -> None:
        seen.append(threading.current_thread())
        done.set()

    workers.submit(task)

    assert done.wait(30)
    assert seen[0].daemon
    assert seen[0].name == "pool-1"
    workers.close()
    assert _named("pool") == []


@pytest.mark.concurrency
def test_threads_grow_with_the_work_up_to_the_cap_and_the_rest_waits() -> None:
    """DESIGN 3: elastic up to a stated cap."""
    together, gate, finished = threading.Barrier(4), threading.Event(), threading.Semaphore(0)
    workers = Workers("capped", 3)

    def finish() -> None:
        finished.release()

    def meet() -> None:
        together.wait(30)
        gate.wait(30)
        finish()

    for _ in range(3):
        workers.submit(meet)
    together.wait(30)  # all three run at once
    for _ in range(20):
        workers.submit(finish)
    assert len(_named("capped")) == 3
    assert not finished.acquire(blocking=False)
    gate.set()

    assert all(finished.acquire(timeout=30) for _ in range(23))
    assert len(_named("capped")) == 3
    workers.close()


def test_free_threads_are_used_before_others_are_started() -> None:
    workers = Workers("thrifty", 50)
    for _ in range(50):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(30)

    assert len(_named("thrifty")) < 5  # one that is just coming back does not count as free
    workers.close()


def test_a_task_that_raises_is_logged_and_its_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Even what is no Exception."""
    workers, done = Workers("robust", 1), threading.Event()

    def raise_it() -> None:
        raise SystemExit

    with caplog.at_level(logging.ERROR, "turbopool.workers"):
        workers.submit(raise_it)
        workers.submit(done.set)
        assert done.wait(30)

    assert "robust" in caplog.text
    assert len(_named("robust")) == 1
    workers.close()


def test_without_any_thread_to_be_had_a_task_is_refused() -> None:
    workers, done = Workers("poor", 4), threading.Event()

    with no_threads(), pytest.raises(RuntimeError, match="thread"):
        workers.submit(done.set)

    other = threading.Event()
    workers.submit(other.set)
    assert other.wait(30)
    assert not done.is_set()  # what was refused is not done later
    workers.close()


def test_without_another_thread_to_be_had_a_task_waits_for_one_there_is() -> None:
    workers, gate, done = Workers("poor", 4), threading.Event(), threading.Event()
    workers.submit(_waiting_for(gate))

    with no_threads():
        workers.submit(done.set)
    gate.set()

    assert done.wait(30)
    workers.close()


def test_closing_finishes_what_was_submitted() -> None:
    workers, gate, done = Workers("closing", 1), threading.Event(), threading.Event()
    workers.submit(_waiting_for(gate))
    workers.submit(done.set)
    gate.set()

    workers.close(timeout=10)

    assert done.is_set()
    assert _named("closing") == []


def test_a_task_knows_that_it_runs_on_a_worker() -> None:
    workers, seen, done = Workers("aware", 1), [on_worker()], threading.Event()

    def task() -> None:
        seen.append(on_worker())
        done.set()

    workers.submit(task)

    assert done.wait(30)
    assert [*seen, on_worker()] == [False, True, False]
    workers.close()


def test_closing_leaves_a_task_that_hangs_behind() -> None:
    """FLT-N5: a look-up cannot be interrupted."""
    workers, gate = Workers("stuck", 1), threading.Event()
    workers.submit(_waiting_for(gate))

    workers.close(timeout=0.01)

    assert len(_named("stuck")) == 1
    gate.set()


def test_a_task_may_close_its_own_pool() -> None:
    workers, done = Workers("own", 2), threading.Event()

    def close() -> None:
        workers.close(timeout=10)  # does not wait for itself
        done.set()

    workers.submit(close)

    assert done.wait(30)
