"""The sending half of an exchange: what a worker draws goes out, whenever it comes and whatever room there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.transport.reactor import Turned
from turbopool.bodies import Body
from turbopool.transport.interfaces import RECEIVE_BYTES
from turbopool.transport.memory import MemoryChannel, MemoryPoller
from turbopool.transport.sender import Sender
from turbopool.transport.wire import WireRequest

HEAD = b"POST / HTTP/1.1\r\n\r\n"


class Sending:
    """A sender with a peer that takes what there is room for, at first nothing, and a worker the test runs."""

    def __init__(self, turned: Turned) -> None:
        self.turned = turned
        self.channel = MemoryChannel(MemoryPoller())
        self.channel.room = 0
        self.tasks: list[Callable[[], None]] = []
        self.sender = Sender(self.channel, turned.reactor, self.tasks.append, self.go_on, self.crash)

    def start(self, body: Body, *, chunked: bool) -> None:
        """Begin to send a request with this body."""
        self.sender.start(WireRequest("POST", HEAD, body, chunked=chunked, closes=False, idempotent=False), None)

    def draw(self) -> None:
        """Let the worker draw the body, and the reactor hear of it."""
        self.tasks.pop()()
        self.turned.turn()

    def make_room(self, size: int | None) -> None:
        """Let the peer take so much more; the sender hears of it as long as it waits for it."""
        self.channel.room = size
        while self.sender.is_blocked and self.channel.room != 0:
            self.go_on()

    def go_on(self) -> None:
        """Do what a connection does."""
        self.sender.go_on()

    @staticmethod
    def crash(error: BaseException) -> None:
        """Fail the test."""
        raise AssertionError from error


@pytest.fixture
def sending(turned: Turned) -> Sending:
    """A sender whose peer takes nothing yet."""
    return Sending(turned)


def test_what_was_drawn_while_the_peer_took_nothing_is_sent_when_it_does(sending: Sending) -> None:
    sending.start(Body(iter([b"one", b"two"]), None), chunked=True)
    sending.draw()
    assert sending.sender.is_blocked

    sending.make_room(None)

    assert sending.channel.take() == HEAD + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert not sending.sender.is_sending


def test_what_was_drawn_is_sent_though_a_turn_ended_just_before_it(sending: Sending) -> None:
    """What waits already is exactly what one turn may send."""

    def pieces() -> Iterator[bytes]:
        yield bytes(RECEIVE_BYTES)
        sending.make_room(len(HEAD))
        assert sending.sender.is_blocked
        yield b"more"
        sending.turned.turn()
        yield b"rest"

    sending.start(Body(pieces(), RECEIVE_BYTES + 8), chunked=False)
    sending.draw()
    assert sending.channel.take() == HEAD

    sending.make_room(None)

    assert sending.channel.take() == bytes(RECEIVE_BYTES) + b"morerest"
    assert not sending.sender.is_sending


def test_head_goes_out_before_any_of_the_body_is_looked_at(sending: Sending) -> None:
    sending.sender = Sender(
        sending.channel, sending.turned.reactor, lambda task: task(), sending.go_on, sending.crash
    )  # a worker so fast that the body is drawn before the head is sent
    sending.channel.room = None

    sending.start(Body(iter([b"body"]), 4), chunked=False)

    assert sending.channel.take() == HEAD
    sending.turned.turn()
    assert sending.channel.take() == b"body"
