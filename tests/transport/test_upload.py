"""A request body between the caller's iterator and the connection."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import pytest

from turbopool.bodies import Body
from turbopool.errors import InvalidRequest
from turbopool.transport.upload import HIGH_WATER, Upload


class Worker:
    """Draws one body on a thread of its own, as the runtime does."""

    def __init__(self, source: Iterable[bytes] | Body, length: int | None = None, *, chunked: bool = False) -> None:
        self.woken = threading.Semaphore(0)
        body = source if isinstance(source, Body) else Body(source, length)
        self.upload = Upload(body, chunked=chunked, wake=self.woken.release)
        self._thread = threading.Thread(target=self.upload.run, daemon=True)
        self._thread.start()

    def take_all(self) -> bytes:
        """Take until the end; every wait is for a wake-up."""
        taken, is_rest = b"", False
        while not is_rest:
            assert self.woken.acquire(timeout=30)
            data, is_rest = self.upload.take()
            taken += data
        self.join()
        return taken

    def join(self) -> None:
        """Wait for the thread."""
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_pieces_are_framed_as_chunks() -> None:
    assert (
        Worker([b"hello", b"", b"x" * 17], chunked=True).take_all()
        == b"5\r\nhello\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"
    )


def test_an_empty_body_is_one_last_chunk() -> None:
    assert Worker([], chunked=True).take_all() == b"0\r\n\r\n"


def test_pieces_of_known_length_are_sent_as_they_are() -> None:
    assert Worker([b"hel", b"lo"], 5).take_all() == b"hello"
    assert Worker([], 0).take_all() == b""


@pytest.mark.parametrize(("pieces", "more_or_less", "received"), [
    ([b"hell"], "less", 4),
    ([b"hello", b"!"], "more", 6),
    ([b"hello!"], "more", 6),
    ([], "less", 0),
])  # fmt: skip
def test_a_body_that_breaks_its_length_is_never_sent_whole(
    pieces: list[bytes], more_or_less: str, received: int
) -> None:
    """FLT security 4: the server must not take it for a complete one."""
    worker = Worker(pieces, 5)

    taken = worker.take_all()

    assert len(taken) < 5
    error = worker.upload.error
    assert isinstance(error, InvalidRequest)
    assert more_or_less in str(error)
    assert error.facts == {"expected": 5, "received": received}


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyError("mine"), SystemExit(), KeyboardInterrupt()])
def test_whatever_the_callers_iterator_raises_is_the_outcome(error: BaseException) -> None:
    """A body that ended like that is not complete."""

    def pieces() -> Iterator[bytes]:
        yield b"hello"
        raise error

    worker = Worker(pieces(), chunked=True)

    assert not worker.take_all().endswith(b"0\r\n\r\n")
    assert worker.upload.error is error


def test_a_piece_that_is_no_bytes_is_refused() -> None:
    worker = Worker([b"hello", cast("bytes", "text")], chunked=True)

    worker.take_all()

    assert isinstance(worker.upload.error, InvalidRequest)
    assert "str" in str(worker.upload.error)


def _endless(drawn: list[int]) -> Iterator[bytes]:
    while True:
        drawn.append(1)
        yield bytes(65_536)


def test_an_iterator_is_paused_while_the_buffer_is_full() -> None:
    """FLT-N15: a server that reads slowly costs bounded memory."""
    drawn: list[int] = []
    worker = Worker(_endless(drawn))
    assert worker.woken.acquire(timeout=30)
    most = HIGH_WATER // 65_536 + 1  # one is in the worker's hand

    taken = len(_take_when(worker, lambda: len(drawn) >= most))

    assert taken <= HIGH_WATER + 65_536
    assert len(drawn) <= 2 * most
    worker.upload.cancel()
    worker.join()


def _take_when(worker: Worker, predicate: Callable[[], object]) -> bytes:
    while not predicate():
        threading.Event().wait(0.001)
    return worker.upload.take()[0]


def test_a_cancelled_upload_ends_its_worker_and_closes_the_iterator_there() -> None:
    closed: list[threading.Thread] = []

    def pieces() -> Iterator[bytes]:
        try:
            yield from _endless([])
        finally:
            closed.append(threading.current_thread())

    worker = Worker(pieces())
    assert worker.woken.acquire(timeout=30)

    worker.upload.cancel()

    worker.join()
    assert len(closed) == 1
    assert closed[0] is not threading.current_thread()


def test_a_worker_wakes_the_connection_once_for_all_that_is_held() -> None:
    gate = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"1"
        yield b"2"
        yield b"3"
        assert gate.wait(30)
        yield b"4"

    worker = Worker(pieces(), 4)
    assert worker.woken.acquire(timeout=30)
    held = _take_when(worker, lambda: worker.upload._held == 3)  # noqa: SLF001
    assert held == b"123"
    assert not worker.woken.acquire(blocking=False)

    gate.set()

    assert worker.take_all() == b"4"


def test_a_file_is_drawn_from_where_it_stood() -> None:
    file = io.BytesIO(b"skipped" + b"x" * 100_000)
    file.seek(7)
    body = Body(file, 100_000)
    for _ in range(2):  # and again, for a second attempt
        assert body.rewindable
        upload = Upload(body, chunked=False, wake=lambda: None)
        upload.run()
        assert upload.take() == (b"x" * 100_000, True)


def test_an_upload_given_up_before_it_began_draws_nothing_and_its_body_can_be_sent_again() -> None:
    """FLT-N9: or a replay would find the iterator exhausted, and send an empty body as if it were whole."""
    body = Body(iter([b"once"]), None)
    given_up = Upload(body, chunked=True, wake=lambda: None)
    given_up.cancel()

    given_up.run()

    assert body.rewindable
    woken = threading.Semaphore(0)
    upload = Upload(body, chunked=True, wake=woken.release)
    upload.run()
    assert upload.take() == (b"4\r\nonce\r\n0\r\n\r\n", True)
    assert not body.rewindable


def test_two_attempts_never_draw_from_one_file_at_once(tmp_path: Path) -> None:
    """FLT-N9: the worker of the attempt that was given up may still be reading."""
    path = tmp_path / "body"
    path.write_bytes(b"x" * 100_000 + b"y" * 100_000)
    with path.open("rb") as file:
        body = Body(file, 200_000)
        first = body.pieces()
        next(first)
        second = Worker(body)
        first.close()

        assert second.take_all() == path.read_bytes()
