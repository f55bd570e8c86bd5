"""FLT-P16, P17: a machine without descriptors or threads. Each in a process of its own, the servers in this one."""

from __future__ import annotations

import os

import pytest

from tests.face.handlers import silent
from tests.faults.aftermath import healthy
from tests.faults.process import run
from tests.servers.raw import RawServer

# -- descriptors -------------------------------------------------------------------------------------------


def test_idle_connections_of_any_host_make_room_when_there_are_no_descriptors() -> None:
    """FLT-P16, I26: all that is idle is closed, the dial is made once more, and the caller notices nothing."""
    script = """
        before = Held.now()
        first, second = sys.argv[1:]
        with Client(request_timeout=10) as client, Client(request_timeout=10) as other:
            [future.result() for future in [client.send_async("GET", first) for _ in range(3)]]
            other.get(first)
            idle = client.stats().idle
            assert idle
            with no_descriptors():
                assert client.get(second).content == b"next"
                assert client.stats().idle == 1, client.stats()
                assert other.get(first).content == b"next"
            for one in (client, other):
                for pool in one.stats().pools.values():
                    assert pool.opened == pool.closed + pool.idle, pool
                    assert (pool.failed, pool.reconnects, pool.replays) == (0, 0, 0), pool
            assert client.get(first).content == b"next"
        assert_nothing_is_left(before)
    """
    with RawServer(healthy) as first, RawServer(healthy) as second:
        run(script, first.url, second.url)


def test_without_descriptors_and_anything_idle_the_request_fails_at_once_and_nothing_spins() -> None:
    """FLT-P16, N18: charged to this machine and not to the host, which is as good as before."""
    script = """
        busy, url = sys.argv[1:]
        with Client(max_conns_per_host=2) as client:
            if "warm" in sys.argv[0:] or True:
                client.get(url, headers={"Connection": "close"})
            running = client.send_async("GET", busy)
            eventually(lambda: client.stats().leased == 1 and client.stats().idle == 0)
            with no_descriptors():
                began, spent = time.monotonic(), time.process_time()
                for method in ("GET", "POST"):
                    errors = [one.exception(30) for one in [client.send_async(method, url) for _ in range(10)]]
                    for error in errors:
                        assert type(error) is ResourceError, repr(error)
                        assert (error.phase, error.processed, error.may_retry) == ("connect", "no", True), repr(error)
                        assert error.errno == 24, repr(error)
                assert time.monotonic() - began < 5
                patient = client.send_async("GET", busy, timeout=0.5)  # a key with one connection, which is busy
                assert isinstance(patient.exception(30), (ResourceError, TimeoutError)), patient
                assert time.process_time() - spent < 0.4, time.process_time() - spent
            (pool,) = [pool for key, pool in client.stats().pools.items() if key.origin == url]
            assert (pool.state, pool.reconnects, pool.connecting, pool.waiting) == ("open", 0, 0, 0), pool
            assert client.get(url).content == b"next"
            running.cancel()
    """
    with RawServer(silent) as busy, RawServer(healthy) as server:
        run(script, busy.url, server.url)

        assert len(server.requests) == 2


def test_a_name_is_looked_up_again_once_idle_connections_made_room() -> None:
    """FLT-P16: a look-up needs descriptors as well."""
    script = """
        first, second = sys.argv[1:]
        with Client(request_timeout=10) as client:
            [future.result() for future in [client.send_async("GET", first) for _ in range(6)]]
            second = second.replace("127.0.0.1", "localhost")
            client.get(second, headers={"Connection": "close"})
            with no_descriptors():
                future = client.send_async("GET", second)
                error = future.exception()
                assert error is None, repr(error)
            assert client.get(second).content == b"next"
    """
    with RawServer(healthy) as first, RawServer(healthy) as second:
        run(script, first.url, second.url)


def test_a_client_without_descriptors_from_the_first_fails_its_requests_and_recovers() -> None:
    """FLT-P16: not even the dispatcher can be started; nothing half-made is left."""
    script = """
        before = Held.now()
        (url,) = sys.argv[1:]
        with Client() as client:
            with no_descriptors():
                for _ in range(3):
                    try:
                        client.get(url)
                    except ResourceError as error:
                        assert (error.processed, error.may_retry) == ("no", True)
                    else:
                        raise AssertionError("it was answered")
            assert_nothing_is_left(before)
            assert client.get(url).content == b"next"
        assert_nothing_is_left(before)
    """
    with RawServer(healthy) as server:
        run(script, server.url)


# -- threads -----------------------------------------------------------------------------------------------

NO_THREADS = {
    "stack size": "no_threads()",
    "RLIMIT_NPROC": "no_processes()",
}

THREADS = """
    import contextlib, logging, queue
    from logging.handlers import QueueHandler

    logged = queue.SimpleQueue()
    logging.getLogger("concurrent.futures").addHandler(QueueHandler(logged))

    @contextlib.contextmanager
    def no_processes():
        before = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NPROC, before)

    def fails(work, *kinds):
        try:
            work()
        except kinds as error:
            assert (error.request_sent, error.processed, error.may_retry) == (False, "no", True), repr(error)
        else:
            raise AssertionError("a thread was started")

    (url,) = sys.argv[1:]
    named = url.replace("127.0.0.1", "localhost")
    "a name".encode("idna")  # what is imported later cannot be read by just any user
    if "processes" in {what!r}:
        os.setuid(65534)  # the limit does not hold for root
    before = Held.now()
    with Client(request_timeout=10, max_conns_per_host=1) as client:
        with {what}:
            fails(lambda: client.get(url), ResourceError)
        assert_nothing_is_left(before)
        assert client.get(url).content == b"next"
        with {what}:
            fails(lambda: client.post(url, content=iter([b"body"])), ResourceError)
            fails(lambda: client.get(named), DnsError)
            assert client.get(url).content == b"next"
            client.send_async("GET", url).add_done_callback(print)
            client.get(url)
            assert "no thread" in logged.get(timeout=20).getMessage()
        for address in (url, named):
            assert client.get(address).content == b"next"
            assert client.post(address, content=iter([b"body"])).content == b"next"
        for pool in client.stats().pools.values():
            assert (pool.leased, pool.waiting, pool.connecting) == (0, 0, 0), pool
            assert pool.opened == pool.closed + pool.idle, pool
    assert_nothing_is_left(before)
"""


@pytest.mark.parametrize("what", NO_THREADS)
def test_a_request_for_which_no_thread_starts_fails_alone_and_its_place_is_free(what: str) -> None:
    """FLT-P17: the dispatcher's own, one for a body, one for a look-up, one for a callback (which is logged)."""
    if what == "RLIMIT_NPROC" and os.geteuid() != 0:
        pytest.skip("only root can become a user without other processes")
    with RawServer(healthy) as server:
        run(THREADS.format(what=NO_THREADS[what]), server.url)
