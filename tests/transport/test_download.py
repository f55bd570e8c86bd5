"""A streamed response body between the connection and its reader."""

from __future__ import annotations

import threading

import pytest

from turbopool.errors import IncompleteRead, ReadTimeout, StreamClosed
from turbopool.transport.download import HIGH_WATER, BodyStream


class Calls:
    """What a stream asked of its connection."""

    def __init__(self, read_timeout: float | None = 10.0) -> None:
        self.resumed = 0
        self.aborted = 0
        self.stream = BodyStream("http://h:80", read_timeout, self._resume, self._abort)

    def _resume(self) -> None:
        self.resumed += 1

    def _abort(self) -> None:
        self.aborted += 1


def test_a_reader_gets_all_that_has_come_and_then_the_end() -> None:
    calls = Calls()
    assert calls.stream.feed([b"hel", b"lo"])
    assert calls.stream.feed([b" you"])
    calls.stream.finish()

    assert calls.stream.read() == b"hello you"
    assert calls.stream.read() == b""
    assert calls.stream.read() == b""
    assert (calls.resumed, calls.aborted) == (0, 0)


def test_a_reader_waits_for_bytes_of_another_thread() -> None:
    calls = Calls()
    got: list[bytes] = []

    def read() -> None:
        got.append(calls.stream.read())
        got.append(calls.stream.read())

    reader = threading.Thread(target=read)
    reader.start()

    calls.stream.feed([b"hello"])
    calls.stream.finish()

    reader.join(30)
    assert b"".join(got) == b"hello"


def test_a_full_buffer_pauses_the_connection_until_it_is_read() -> None:
    """FLT-H22: backpressure."""
    calls = Calls()
    half = bytes(HIGH_WATER // 2)
    assert calls.stream.feed([half])
    assert not calls.stream.feed([half])
    assert calls.resumed == 0

    assert len(calls.stream.read()) == HIGH_WATER

    assert calls.resumed == 1
    assert calls.stream.feed([b"more"])
    calls.stream.read()
    assert calls.resumed == 1


def test_a_reader_is_not_kept_waiting_for_ever() -> None:
    """FLT-N14: and the connection is given up."""
    calls = Calls(read_timeout=0.02)
    calls.stream.feed([b"some"])
    assert calls.stream.read() == b"some"

    with pytest.raises(ReadTimeout) as caught:
        calls.stream.read()

    assert caught.value.origin == "http://h:80"
    assert (caught.value.request_sent, caught.value.phase) == (True, "recv")
    assert calls.aborted == 1
    with pytest.raises(StreamClosed):
        calls.stream.read()


def test_an_early_end_is_told_after_what_came_before_and_to_each_in_an_own_instance() -> None:
    """FLT-H1."""
    calls = Calls()
    error = IncompleteRead("cut short", received=4, expected=9)
    calls.stream.feed([b"some"])
    calls.stream.finish(error)

    assert calls.stream.read() == b"some"
    told = []
    for _ in range(2):
        with pytest.raises(IncompleteRead) as caught:
            calls.stream.read()
        told.append(caught.value)

    assert told[0] is not told[1]
    assert told[0] is not error
    assert told[0].facts == error.facts


def test_closing_before_the_end_gives_the_connection_up_once() -> None:
    calls = Calls()
    calls.stream.feed([b"some"])

    calls.stream.close()
    calls.stream.close()

    assert calls.aborted == 1
    with pytest.raises(StreamClosed):
        calls.stream.read()
    assert calls.stream.feed([bytes(HIGH_WATER)])  # what still comes pauses nobody
    assert calls.resumed == 0


def test_closing_after_the_end_gives_nothing_up() -> None:
    calls = Calls()
    calls.stream.feed([b"some"])
    calls.stream.finish()

    calls.stream.close()

    assert calls.aborted == 0


def test_closing_wakes_a_reader_that_waits() -> None:
    calls = Calls()
    raised = threading.Event()

    def read() -> None:
        with pytest.raises(StreamClosed):
            calls.stream.read()
        raised.set()

    reader = threading.Thread(target=read)
    reader.start()

    calls.stream.close()

    assert raised.wait(30)
    reader.join(30)
