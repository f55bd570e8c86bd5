"""Guards around every test, and the peers that live as long as the session.

The peers of a session are subprocesses or files, so they hold no thread or socket here;
what they do hold is part of every test's baseline, as they are set up before it is taken.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import GRACE, Held, wait_for_return_to
from tests.loopback import the_guard
from tests.servers.certs import Authority
from tests.servers.http2 import Caddy, Http2Nginx, Nghttpd, in_session
from tests.servers.nginx import Nginx, missing_nginx

_SWITCH_INTERVALS = {"default-switching": None, "wild-switching": 1e-6}
"""Seconds between two switches of the interpreter; None keeps its own choice."""


# A machine that stands still is no fault of an example. `make test` tries the same ones everywhere, so that it is red
# for a change and for nothing else; `make explore` looks for new ones.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeat", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeat")
the_guard()  # wraps the socket module before any test module can import a function of it


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run choose another grace for the leak guard, in seconds."""
    parser.addini("leak_grace", "seconds a test has to give back what it took", default=str(GRACE))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test marked `concurrency` at two switch intervals (FLT-P22)."""
    if metafunc.definition.get_closest_marker("concurrency"):
        metafunc.parametrize(
            "switch_interval", list(_SWITCH_INTERVALS.values()), ids=list(_SWITCH_INTERVALS), indirect=True
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs nginx, so that `-m "not nginx"` leaves them out."""
    for item in items:
        if {"nginx", "nginx2"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("nginx")


def pytest_collection_finish() -> None:
    """Have the collector look at what a test makes, and not again and again at the tests themselves."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail a test that keeps a thread, socket, pipe, eventfd, epoll, actor or dispatcher."""
    baseline = Held.now()
    yield
    grace = float(pytestconfig.getini("leak_grace"))
    left = wait_for_return_to(baseline, grace)
    if left:
        pytest.fail(f"still held {grace:g} s after the test:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def loopback_only(no_leaks: None) -> Iterator[None]:
    """Fail a test that connects to, or looks up, anything outside this machine."""
    del no_leaks  # asked for only to be inside it
    guard = the_guard()
    guard.refused.clear()
    guard.on = True
    yield
    guard.on = False
    if guard.refused:
        pytest.fail("tests stay on loopback, but there was: " + ", ".join(guard.refused), pytrace=False)


@pytest.fixture(autouse=True)
def switch_interval(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[None]:
    """Run the test at the interval `pytest_generate_tests` asks for; see `_SWITCH_INTERVALS`."""
    del no_leaks  # asked for only to be inside it
    interval: float | None = getattr(request, "param", None)
    before = sys.getswitchinterval()
    if interval is not None:
        sys.setswitchinterval(interval)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A throwaway certificate authority, and a certificate of every kind it issued."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Nginx]:
    """A real nginx, running for the whole session; its log is shared, so use your own paths."""
    if missing_nginx():
        pytest.skip("nginx is not installed")
    with Nginx(tmp_path_factory.mktemp("nginx"), authority) as server:
        yield server


@pytest.fixture(scope="session")
def nginx2(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Http2Nginx]:
    """As `nginx`, and over HTTP/2."""
    yield from in_session(Http2Nginx, tmp_path_factory, authority)


@pytest.fixture(scope="session")
def nghttpd(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Nghttpd]:
    """A real nghttpd with the settings it has by default."""
    yield from in_session(Nghttpd, tmp_path_factory, authority)


@pytest.fixture(scope="session")
def caddy(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Caddy]:
    """A real caddy."""
    yield from in_session(Caddy, tmp_path_factory, authority)
