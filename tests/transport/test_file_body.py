"""A file that the kernel sends: which files it takes, in which turns, and what a worker has to read first."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.transport.reactor import Turned
from tests.waiting import eventually
from turbopool.bodies import KERNEL_SENDS_FROM, Body, OpenFile
from turbopool.errors import InvalidRequest
from turbopool.transport.channel import TcpChannel
from turbopool.transport.interfaces import RECEIVE_BYTES
from turbopool.transport.sender import BodyFailed, Sender
from turbopool.transport.wire import WireRequest

HEAD = b"PUT / HTTP/1.1\r\n\r\n"
DATA = bytes(range(256)) * (8 * RECEIVE_BYTES // 256)


class Counting(TcpChannel):
    """Notes what the kernel was asked to send of files."""

    __slots__ = ("asked",)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.asked: list[int] = []

    def send_file(self, fd: int, start: int, size: int) -> int | None:
        """Note the size, and send."""
        self.asked.append(size)
        return super().send_file(fd, start, size)


class Sending:
    """A sender over a real socket; its peer reads, and its workers run, when the test lets them."""

    def __init__(self, turned: Turned, ours: socket.socket, theirs: socket.socket) -> None:
        self.turned = turned
        self.channel = Counting(ours)
        self.theirs = theirs
        self.tasks: list[Callable[[], None]] = []
        self.sender = Sender(self.channel, turned.reactor, self.tasks.append, self.go_on, self.crash)
        self.arrived = bytearray()

    def start(self, body: Body) -> None:
        """Begin to send a request with this body."""
        self.sender.start(WireRequest("PUT", HEAD, body, chunked=False, closes=False, idempotent=True), None)

    def go_on(self) -> None:
        """Do what a connection does."""
        self.sender.go_on()

    def work(self) -> None:
        """Let the workers do what they have to, and the reactor hear of it."""
        while self.tasks:
            self.tasks.pop()()
            self.turned.turn()

    def transfer(self) -> None:
        """Send, and read at the other end, until nothing is left to send."""
        while self.sender.is_sending:
            self.work()
            if self.sender.is_blocked:
                self.sender.go_on()
            self.read()
        self.read()

    def read(self) -> None:
        """Take what has come."""
        try:
            while data := self.theirs.recv(1 << 20):
                self.arrived += data
        except BlockingIOError:
            return

    @staticmethod
    def crash(error: BaseException) -> None:
        """Fail the test."""
        raise AssertionError from error


@pytest.fixture
def sending(turned: Turned) -> Iterator[Sending]:
    """A sender and its peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            theirs.settimeout(0)
            yield Sending(turned, ours, theirs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that the kernel can send."""
    path = tmp_path / "body"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        if Body(file, len(DATA)).as_file() is None:
            pytest.skip("this file system does not tell what it has in memory")
    return path


def copies(path: Path) -> int:
    """How many descriptors this process has of a file."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += entry.readlink() == path
        except FileNotFoundError:  # the one that lists the folder
            continue
    return count


# -- which files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "buffering"), [("rb", -1), ("rb", 0), ("r+b", -1)])
def test_a_plain_binary_file_is_sent_by_the_kernel(sending: Sending, path: Path, mode: str, buffering: int) -> None:
    with path.open(mode, buffering=buffering) as file:
        sending.start(Body(file, len(DATA)))

        sending.transfer()

        assert bytes(sending.arrived) == HEAD + DATA
        assert sending.channel.asked
        assert sending.sender.sent == len(HEAD) + len(DATA)
        assert file.tell() == len(DATA)
        assert copies(path) == 1


def _wrapped(path: Path) -> IO[bytes]:
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115  # closed by the test
    copy.write(path.read_bytes())
    copy.seek(0)
    return copy


def _packed(path: Path) -> gzip.GzipFile:
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    return gzip.open(packed)


OTHERS: dict[str, Callable[[Path], Any]] = {
    "wrapped": _wrapped,
    "packed": _packed,
    "packed and buffered": lambda path: io.BufferedReader(_packed(path)),
    "in memory": lambda path: io.BytesIO(path.read_bytes()),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_only_looks_like_a_file_is_read(sending: Sending, path: Path, kind: str) -> None:
    os.truncate(path, KERNEL_SENDS_FROM)  # no more than its worker may hold: here it has no thread of its own
    with OTHERS[kind](path) as file:
        sending.start(Body(file, KERNEL_SENDS_FROM))

        sending.transfer()

        assert bytes(sending.arrived) == HEAD + DATA[:KERNEL_SENDS_FROM]
        assert sending.channel.asked == []


def test_a_small_file_is_read(sending: Sending, path: Path) -> None:
    with path.open("rb") as file:
        file.seek(len(DATA) - KERNEL_SENDS_FROM + 1)
        sending.start(Body(file, KERNEL_SENDS_FROM - 1))

        sending.transfer()

        assert bytes(sending.arrived) == HEAD + DATA[1 - KERNEL_SENDS_FROM :]
        assert sending.channel.asked == []


def test_a_file_sent_again_begins_where_it_stood_at_first(sending: Sending, path: Path) -> None:
    with path.open("rb") as file:
        file.seek(7)
        body = Body(file, len(DATA) - 7)
        for _ in range(2):
            sending.start(body)
            sending.transfer()

        assert bytes(sending.arrived) == 2 * (HEAD + DATA[7:])
        assert body.rewindable


# -- in which turns ------------------------------------------------------------------------------------------


def test_a_turn_sends_no_more_than_its_share(sending: Sending, path: Path) -> None:
    with path.open("rb") as file:
        sending.start(Body(file, len(DATA)))
        sending.work()
        first = sending.sender.sent

        assert 0 < first <= len(HEAD) + RECEIVE_BYTES
        assert sending.sender.is_blocked

        sending.sender.go_on()
        assert sending.sender.sent <= first + RECEIVE_BYTES


def test_a_peer_that_takes_nothing_blocks_nobody(sending: Sending, path: Path) -> None:
    with path.open("rb") as file:
        os.truncate(path, 64 << 20)
        sending.start(Body(file, 64 << 20))
        sending.work()
        before = -1
        while sending.sender.sent > before:
            before = sending.sender.sent
            sending.sender.go_on()

        assert sending.sender.is_blocked
        assert before < 64 << 20
        assert os.get_blocking(sending.channel.fd), "whoever has the channel next finds it as it was"
        sending.sender.stop()
        assert copies(path) == 1


def test_a_file_that_is_closed_meanwhile_is_sent_all_the_same(sending: Sending, path: Path) -> None:
    """Its descriptor may be another file's by then."""
    with path.open("rb") as file:
        sending.start(Body(file, len(DATA)))
        sending.work()

    sending.transfer()

    assert bytes(sending.arrived) == HEAD + DATA
    assert copies(path) == 0


def test_an_upload_stopped_before_its_worker_began_opens_nothing(sending: Sending, path: Path) -> None:
    with path.open("rb") as file:
        body = Body(file, len(DATA))
        sending.start(body)
        sending.sender.stop()

        sending.work()

        assert not body.started
        assert copies(path) == 1


# -- a file that changes -------------------------------------------------------------------------------------


def test_a_file_that_grew_sends_what_was_promised(sending: Sending, path: Path) -> None:
    with path.open("rb") as file:
        sending.start(Body(file, len(DATA)))
        sending.work()
        with path.open("ab") as more:
            more.write(b"more")

        sending.transfer()

        assert bytes(sending.arrived) == HEAD + DATA


def test_a_file_that_shrank_is_an_error_and_never_filled_up(sending: Sending, path: Path) -> None:
    with path.open("rb") as file:
        sending.start(Body(file, len(DATA)))
        sending.work()
        left = len(DATA) // 2
        os.truncate(path, left)

        with pytest.raises(BodyFailed) as caught:
            sending.transfer()

        error = caught.value.__cause__
        assert isinstance(error, InvalidRequest)
        assert error.facts == {"expected": len(DATA), "received": left}
        sending.sender.stop()
        sending.read()
        assert bytes(sending.arrived) == HEAD + DATA[:left]
        assert copies(path) == 1


# -- what is not in memory -----------------------------------------------------------------------------------


class Cold(Body):
    """A file of which nothing is in memory until it is read."""

    __slots__ = ()

    def as_file(self) -> OpenFile | None:
        """Return one that says so."""
        file = super().as_file()
        assert file is not None
        return _ColdFile(os.dup(file.fd), file.start, file.length)


class _ColdFile(OpenFile):
    __slots__ = ()

    def is_in_memory(self, at: int, size: int) -> bool:
        super().is_in_memory(at, size)
        return False


def test_a_worker_reads_what_is_not_in_memory(sending: Sending, path: Path) -> None:
    """The thread that drives all connections never waits for a disk."""
    with path.open("rb") as file:
        sending.start(Cold(file, len(DATA)))
        sending.tasks.pop()()
        sending.turned.turn()

        assert sending.channel.asked == []
        assert not sending.sender.is_blocked
        assert sending.sender.is_sending

        sending.transfer()
        assert bytes(sending.arrived) == HEAD + DATA


def test_a_file_that_is_being_read_ahead_is_closed_by_the_worker(sending: Sending, path: Path) -> None:
    """Its descriptor must not become another file's under the worker's hands."""
    with path.open("rb") as file:
        sending.start(Cold(file, len(DATA)))
        sending.tasks.pop()()
        sending.turned.turn()

        sending.sender.stop()
        assert copies(path) == 2

        sending.work()
        assert copies(path) == 1
        assert sending.channel.asked == []


def test_the_kernel_says_what_is_in_memory(path: Path) -> None:
    with path.open("rb") as file:
        body = Body(file, len(DATA))
        opened = body.as_file()
        assert opened is not None
        assert opened.is_in_memory(0, len(DATA))
        os.fsync(opened.fd)

        def is_dropped() -> bool:
            os.posix_fadvise(opened.fd, 0, 0, os.POSIX_FADV_DONTNEED)  # which leaves pages that are busy just now
            return not opened.is_in_memory(0, len(DATA))

        eventually(is_dropped)
