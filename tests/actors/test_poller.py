"""Pollers and wakers of the system, each kind that runs here."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from turbopool.actors.poller import (
    EpollPoller,
    EventfdWaker,
    Poller,
    SelectorPoller,
    SocketWaker,
    Waker,
    system_poller,
    system_waker,
)
from turbopool.transport.interfaces import READ, WRITE

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[EpollPoller, SelectorPoller, system_poller])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    poller: Poller = request.param()
    yield poller
    poller.close()


@pytest.fixture(params=[EventfdWaker, SocketWaker, system_waker])
def waker(request: pytest.FixtureRequest) -> Iterator[Waker]:
    waker: Waker = request.param()
    yield waker
    waker.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.0)
    with ours, theirs:
        yield ours, theirs


def masks(poller: Poller, timeout: float = 0.0) -> dict[int, int]:
    """What is ready, by descriptor; READ and WRITE only."""
    return {fd: mask & (READ | WRITE) for fd, mask in poller.poll(timeout)}


def test_descriptor_is_reported_for_what_it_is_watched_for(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours.fileno(), READ)
    assert masks(poller) == {}
    theirs.send(b"x")
    assert masks(poller) == {ours.fileno(): READ}

    poller.watch(ours.fileno(), READ | WRITE)
    assert masks(poller) == {ours.fileno(): READ | WRITE}
    poller.watch(ours.fileno(), WRITE)
    assert masks(poller) == {ours.fileno(): WRITE}


def test_readiness_is_reported_again_until_it_is_used(poller: Poller, pair: Pair) -> None:
    """Level-triggered: what a bounded turn left over must not be forgotten."""
    ours, theirs = pair
    poller.watch(ours.fileno(), READ)
    theirs.send(b"xy")

    assert masks(poller) == masks(poller) == {ours.fileno(): READ}
    ours.recv(1)
    assert masks(poller) == {ours.fileno(): READ}
    ours.recv(1)
    assert masks(poller) == {}


def test_paused_descriptor_is_silent_even_when_it_breaks(poller: Poller, pair: Pair) -> None:
    """A reader that pauses must not spin because the peer has gone."""
    ours, theirs = pair
    poller.watch(ours.fileno(), READ)
    poller.watch(ours.fileno(), 0)
    theirs.close()
    assert masks(poller) == {}

    poller.watch(ours.fileno(), READ)
    assert masks(poller) == {ours.fileno(): READ}


def test_end_of_the_stream_is_readable(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours.fileno(), READ)

    theirs.shutdown(socket.SHUT_WR)

    assert masks(poller) == {ours.fileno(): READ}


def test_reset_is_reported(poller: Poller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        accepted, _ = listener.accept()
        poller.watch(ours.fileno(), READ)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()

        assert ours.fileno() in masks(poller, 5.0)


def test_forgotten_descriptor_is_silent_and_may_be_forgotten_twice(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours.fileno(), READ)
    theirs.send(b"x")

    poller.unwatch(ours.fileno())
    poller.unwatch(ours.fileno())

    assert masks(poller) == {}


def test_number_of_a_closed_descriptor_can_be_watched_anew(poller: Poller) -> None:
    """The system gives the lowest free number out again."""
    for _ in range(3):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            poller.watch(ours.fileno(), READ)
            theirs.send(b"x")
            assert masks(poller) == {ours.fileno(): READ}
            poller.unwatch(ours.fileno())


def test_poll_waits_until_something_is_ready(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours.fileno(), READ)
    gate = threading.Event()

    def send() -> None:
        gate.wait(30)
        theirs.send(b"x")

    sender = threading.Thread(target=send)
    sender.start()
    gate.set()
    found = masks(poller, -1)
    sender.join()

    assert found == {ours.fileno(): READ}


def test_poll_returns_empty_when_its_time_is_up(poller: Poller, pair: Pair) -> None:
    poller.watch(pair[0].fileno(), READ)

    assert masks(poller, 0.001) == {}


def test_poller_can_be_closed_twice() -> None:
    for make in (EpollPoller, SelectorPoller):
        poller = make()
        poller.close()
        poller.close()


# -- wakers ------------------------------------------------------------------------------


def test_waker_is_readable_once_woken_until_drained(poller: Poller, waker: Waker) -> None:
    poller.watch(waker.fileno(), READ)
    assert masks(poller) == {}

    waker.wake()
    waker.wake()
    assert masks(poller) == {waker.fileno(): READ}
    waker.drain()

    assert masks(poller) == {}
    waker.wake()
    assert masks(poller) == {waker.fileno(): READ}


def test_draining_a_waker_nobody_woke_does_not_block(waker: Waker) -> None:
    waker.drain()


def test_waker_that_is_never_drained_does_not_block_whoever_wakes_it(waker: Waker) -> None:
    """A stuck dispatcher must not stop the callers' threads."""
    for _ in range(100_000 if isinstance(waker, EventfdWaker) else 2000):
        waker.wake()


def test_waking_a_closed_waker_touches_nothing(waker: Waker) -> None:
    """Its number may be another's by now."""
    waker.close()
    read, write = os.pipe()

    waker.wake()
    waker.close()

    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)


@pytest.mark.parametrize("make", [EventfdWaker, SocketWaker])
def test_waker_is_not_inherited_by_programs_that_are_started(make: Callable[[], Waker]) -> None:
    waker = make()
    assert not os.get_inheritable(waker.fileno())
    waker.close()
