"""The public doubles: a test that trusts them must be able to."""

from __future__ import annotations

import pytest

from turbopool.actors.dispatcher import Dispatcher
from turbopool.errors import ConnectError
from turbopool.stats import PoolKey
from turbopool.transport.interfaces import READ, WRITE, Channel, Dial
from turbopool.transport.memory import FakeClock, MemoryChannel, MemoryDialer, MemoryPoller, MemoryWaker

KEY = PoolKey.of("http", "a.test")
Report = tuple[Dial, Channel | None, Exception | None]


@pytest.fixture
def poller() -> MemoryPoller:
    return MemoryPoller()


@pytest.fixture
def channel(poller: MemoryPoller) -> MemoryChannel:
    return MemoryChannel(poller)


def readiness(poller: MemoryPoller, channel: MemoryChannel) -> int:
    """What a poll says of a channel."""
    poller.watch(channel.fd, READ | WRITE)
    return dict(poller.poll(0)).get(channel.fd, 0)


def test_clock_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(10.0)
    assert clock.now() == clock.now() == 10.0

    clock.advance(2.5)
    assert clock.now() == 12.5
    clock.moment = 20.0

    assert clock.now() == 20.0


# -- readiness ---------------------------------------------------------------------------


def test_only_what_is_watched_for_is_reported(poller: MemoryPoller, channel: MemoryChannel) -> None:
    channel.feed(b"x")
    assert poller.poll(0) == []

    for mask, expected in ((READ, READ), (WRITE, WRITE), (READ | WRITE, READ | WRITE), (0, 0)):
        poller.watch(channel.fd, mask)
        assert poller.poll(0) == ([(channel.fd, expected)] if expected else [])
    poller.watch(channel.fd, READ)
    poller.unwatch(channel.fd)

    assert poller.poll(0) == []


def test_poll_never_waits_and_says_whether_it_would_have(poller: MemoryPoller, channel: MemoryChannel) -> None:
    poller.watch(channel.fd, READ)
    poller.poll(7.5)
    assert (poller.timeout, poller.rested) == (7.5, True)
    poller.poll(0)
    assert (poller.timeout, poller.rested) == (0, False)
    channel.feed(b"x")

    poller.poll(-1)

    assert (poller.timeout, poller.rested) == (-1, False)


def test_settling_stops_when_nothing_is_left_to_do_at_this_moment(poller: MemoryPoller) -> None:
    clock = FakeClock()
    dispatcher = Dispatcher(clock, poller, MemoryWaker(poller))
    log: list[str] = []
    dispatcher.post(lambda: dispatcher.post(lambda: log.append("posted by a post")))
    dispatcher.timer(lambda: log.append("due"), lambda _: None).arm(clock.now())
    dispatcher.timer(lambda: log.append("later"), lambda _: None).arm(clock.now() + 1.0)

    poller.settle(dispatcher.turn)

    assert sorted(log) == ["due", "posted by a post"]
    assert poller.timeout == 1.0
    dispatcher.stop()
    assert poller.closed


def test_settling_something_restless_fails_instead_of_hanging(poller: MemoryPoller) -> None:
    with pytest.raises(RuntimeError, match="not at rest"):
        poller.settle(lambda _: None)


def test_waker_is_readable_until_drained_and_counts(poller: MemoryPoller) -> None:
    waker = MemoryWaker(poller)
    poller.watch(waker.fileno(), READ)
    assert poller.poll(0) == []

    waker.wake()
    waker.wake()
    assert poller.poll(0) == [(waker.fileno(), READ)]
    waker.drain()

    assert poller.poll(0) == []
    assert waker.wakes == 2


# -- channels ----------------------------------------------------------------------------


def test_bytes_arrive_piece_by_piece_and_the_end_after_them(poller: MemoryPoller, channel: MemoryChannel) -> None:
    assert channel.receive() is None
    assert channel.is_quiet()
    assert readiness(poller, channel) == WRITE

    channel.feed(b"one", b"two", b"")

    assert not channel.is_quiet()
    assert readiness(poller, channel) == READ | WRITE
    assert [channel.receive() for _ in range(4)] == [b"one", b"two", b"", b""]
    assert readiness(poller, channel) == READ | WRITE


def test_writes_are_kept_and_can_be_taken(channel: MemoryChannel) -> None:
    assert channel.send(b"one") == 3
    assert channel.take() == b"one"
    assert channel.send(memoryview(b"two")) == 3

    assert channel.take() == b"two"
    assert channel.take() == b""
    assert channel.sent == b"onetwo"
    assert channel.flush()


def test_writes_block_when_there_is_no_room(poller: MemoryPoller, channel: MemoryChannel) -> None:
    channel.room = 4
    assert channel.send(b"12345") == 4
    assert channel.send(b"5") == 0
    assert readiness(poller, channel) == 0

    channel.room = None
    assert readiness(poller, channel) == WRITE
    assert channel.send(b"5") == 1

    assert channel.sent == b"12345"


def test_broken_channel_raises_once_what_had_arrived_is_read(poller: MemoryPoller, channel: MemoryChannel) -> None:
    channel.feed(b"last words")
    channel.room = 0
    channel.error = ConnectionResetError("reset")

    assert readiness(poller, channel) == READ | WRITE
    assert channel.receive() == b"last words"
    with pytest.raises(ConnectionResetError):
        channel.receive()
    with pytest.raises(ConnectionResetError):
        channel.send(b"x")
    assert not channel.is_quiet()


@pytest.mark.parametrize("abandoned", [False, True])
def test_closed_channel_cannot_be_used(channel: MemoryChannel, *, abandoned: bool) -> None:
    if abandoned:
        channel.abandon()
    else:
        channel.close()

    assert (channel.closed, channel.abandoned) == (True, abandoned)
    with pytest.raises(OSError, match="closed"):
        channel.send(b"x")
    with pytest.raises(OSError, match="closed"):
        channel.receive()


# -- dials -------------------------------------------------------------------------------


def test_dial_waits_for_the_test_and_reports_once(poller: MemoryPoller) -> None:
    reports: list[Report] = []
    dialer = MemoryDialer(poller)
    dial = dialer.dial(KEY, 5.0, lambda *report: reports.append(report))
    assert (dialer.pending, reports) == ([dial], [])
    assert (dial.key, dial.timeout) == (KEY, 5.0)

    channel = dial.succeed()
    dial.fail()

    assert reports == [(dial, channel, None)]
    assert (dialer.pending, dialer.dials) == ([], [dial])


def test_failed_dial_reports_the_error_of_the_test_or_a_refusal(poller: MemoryPoller) -> None:
    reports: list[Report] = []
    dialer = MemoryDialer(poller)
    error = ValueError("scripted")
    dialer.dial(KEY, None, lambda *report: reports.append(report)).fail(error)
    dialer.dial(KEY, None, lambda *report: reports.append(report)).fail()

    assert reports[0][2] is error
    assert isinstance(reports[1][2], ConnectError)
    assert reports[1][2].origin == "http://a.test:80"


def test_cancelled_dial_reports_nothing_and_closes_what_comes_late(poller: MemoryPoller) -> None:
    reports: list[Report] = []
    dialer = MemoryDialer(poller)
    first, second = (dialer.dial(KEY, None, lambda *report: reports.append(report)) for _ in range(2))
    first.cancel()
    second.cancel()

    late = first.succeed()
    second.fail()

    assert late.closed
    assert reports == []
    assert dialer.pending == []
