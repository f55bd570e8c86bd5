"""Request bodies: what a caller hands over as ``json``, ``data`` or ``content``, made ready to be sent.

A body is bytes in memory, or something that yields them piece by piece: a file or an iterator. Pieces are drawn on
a worker thread, never on the dispatcher, because reading a file blocks and an iterator is the caller's own code.
"""

from __future__ import annotations

import io
import json as json_codec
import os
import stat
import sys
import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlencode

from turbopool.errors import InvalidRequest


@runtime_checkable
class Readable(Protocol):
    """A binary file, or what behaves like one."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, empty at the end."""
        ...


FormTypes = Mapping[str, object] | Sequence[tuple[str, object]]
"""Names and values of a form; a list or tuple as value repeats the name."""
ContentTypes = bytes | bytearray | memoryview | str | Readable | Iterable[bytes]
"""What a body may be given as."""

FILE_PIECE = 65_536
"""Bytes read from a file at a time."""
KERNEL_SENDS_FROM = 262_144
"""Bytes of a file below which reading it costs no more than having the kernel send it."""


class OpenFile:
    """A part of a regular file that has been opened for us alone.

    Attributes:
        fd: the descriptor; it shares its position with the caller's, and never uses it.
        start, length: which part, in bytes.
    """

    __slots__ = ("fd", "length", "start")

    def __init__(self, fd: int, start: int, length: int) -> None:
        self.fd = fd
        self.start = start
        self.length = length

    def is_in_memory(self, at: int, size: int) -> bool:
        """Whether the first and the last of these bytes can be read without waiting for a disk.

        Raises:
            OSError: the file system cannot tell.
        """
        first = self.start + at
        try:
            return all(os.preadv(self.fd, [bytearray(1)], place, os.RWF_NOWAIT) >= 0
                       for place in (first, first + size - 1))  # fmt: skip
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Body:
    """A request body that is drawn in pieces.

    Args:
        source: a binary file, or an iterable of bytes.
        length: its size in bytes when known; otherwise it is sent chunked.
    """

    __slots__ = ("_drawn", "_source", "_start", "_turn", "length", "started")

    def __init__(self, source: Readable | Iterable[bytes], length: int | None) -> None:
        self._source = source
        self._start = _position(source)
        self.length = length
        self._turn = threading.Lock()
        self._drawn = False
        self.started = False
        """Set by whoever is about to draw from it, before it does."""

    @property
    def rewindable(self) -> bool:
        """Whether the body can be sent a second time from its beginning."""
        return not self.started or self._start is not None or isinstance(self._source, list | tuple)

    def as_file(self) -> OpenFile | None:
        """Return what the kernel can send by itself, as drawn now, or None. Worker threads only.

        A plain binary file on Linux, of a file system that tells what it has in memory.
        """
        file, start, length = plain_file(self._source), self._start, self.length
        if file is None or start is None or length is None or length < KERNEL_SENDS_FROM:
            return None
        with self._turn:
            opened = OpenFile(os.dup(file.fileno()), start, length)
            status = os.fstat(opened.fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            try:
                opened.is_in_memory(0, 1)
            except OSError:
                return None
            self._drawn = self.started = True
            file.seek(min(start + length, max(start, status.st_size)))  # where reading it would leave it
            return opened

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield the body from its beginning. Runs the caller's code: worker threads only."""
        with self._turn:  # an attempt that was given up may still be reading: two would take from each other
            yield from self._draw()

    def _draw(self) -> Generator[bytes, None, None]:
        source = self._source
        if self._drawn and self._start is not None:
            source.seek(self._start)  # type: ignore[union-attr]  # a start is known of seekable sources alone
        self._drawn = self.started = True
        if isinstance(source, Readable):
            left = FILE_PIECE if self.length is None else self.length
            while left and (piece := _checked(source.read(min(left, FILE_PIECE)))):  # reading beyond it might block
                left -= 0 if self.length is None else len(piece)
                yield piece
            return
        iterator = iter(source)
        try:
            for piece in iterator:
                if checked := _checked(piece):
                    yield checked
        finally:
            if isinstance(iterator, Generator):  # here and now, or its cleanup would run wherever it is collected
                iterator.close()


def plain_file(source: object) -> io.FileIO | io.BufferedReader | io.BufferedRandom | None:
    """Return a file whose bytes are what its descriptor holds: no wrapper, and no text; None if it is anything else."""
    if sys.platform != "linux":
        return None
    if type(source) is io.FileIO:
        return source
    if isinstance(source, io.BufferedReader | io.BufferedRandom) and type(source).__module__ == "_io":
        return source if type(source.raw) is io.FileIO else None
    return None


def encode_body(
    *, json: object = None, data: FormTypes | ContentTypes | None = None, content: ContentTypes | None = None
) -> tuple[bytes | Body | None, str | None]:
    """Return the body and the content type it asks for.

    Args:
        json: anything the standard ``json`` module can write; sent as compact UTF-8.
        data: a mapping or pairs, sent as a form; bytes or text are sent as they are.
        content: bytes, text (as UTF-8), a binary file, or an iterable of bytes.

    Raises:
        InvalidRequest: more than one was given, or it is of no type that can be sent.
    """
    given = [name for name, value in (("json", json), ("data", data), ("content", content)) if value is not None]
    if len(given) > 1:
        msg = f"a request has one body, but {' and '.join(given)} were given"
        raise InvalidRequest(msg, advice="pass only one of json, data and content")
    if json is not None:
        return _encode_json(json), "application/json"
    if data is not None:
        if isinstance(data, Mapping) or (isinstance(data, list | tuple) and all(_is_pair(item) for item in data)):
            return _encode_form(data), "application/x-www-form-urlencoded"
        return _encode_content(data, "data"), None
    if content is not None:
        return _encode_content(content, "content"), None
    return None, None


def _encode_json(value: object) -> bytes:
    try:
        text = json_codec.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"json= cannot be written: {error}"
        raise InvalidRequest(msg, advice="pass dicts, lists, strings, finite numbers, booleans and None") from error
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate cannot be UTF-8, but JSON has that escape for it


def _encode_form(data: Mapping[str, object] | Sequence[object]) -> bytes:
    """Write a form; values mean what they mean in ``params=``."""
    pairs: Any = data.items() if isinstance(data, Mapping) else data  # what is no pair raises TypeError
    try:
        fields = [
            (name, {True: "true", False: "false"}[value] if isinstance(value, bool) else value)
            for name, values in pairs
            for value in (values if isinstance(values, list | tuple) else (values,))
            if value is not None
        ]
        return urlencode(fields).encode("ascii")
    except (TypeError, ValueError) as error:
        msg = f"data= cannot be written as a form: {error}"
        raise InvalidRequest(msg, advice="pass a mapping or a list of pairs") from error


def _encode_content(value: object, name: str) -> bytes | Body:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _encode_text(value, name)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Readable):
        return _encode_file(value)
    if isinstance(value, list | tuple) and all(isinstance(piece, bytes) for piece in value):
        return Body(value, sum(map(len, value))) if value else b""
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        return Body(value, None)
    msg = f"{name}= cannot be of type {type(value).__name__}"
    raise InvalidRequest(msg, advice="pass bytes, text, a binary file or an iterable of bytes")


def _encode_text(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        msg = f"{name}= holds text that UTF-8 cannot encode"
        raise InvalidRequest(msg, advice="remove lone surrogates, or pass bytes") from None


def _encode_file(source: Readable) -> bytes | Body:
    length = _file_length(source)
    if length != 0:
        return Body(source, length)
    first = _checked(source.read(FILE_PIECE))  # it is empty, or does not know its size, as the files of /proc
    return Body(chain((first,), iter(lambda: source.read(FILE_PIECE), b"")), None) if first else b""


def _is_pair(item: object) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2  # noqa: PLR2004  # a pair is two


def _position(source: object) -> int | None:
    try:
        return int(source.tell()) if source.seekable() else None  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return None


def _file_length(source: Readable) -> int | None:
    """Bytes from the present position to the end, when the source can tell."""
    start = _position(source)
    if start is None:
        return None
    end = source.seek(0, os.SEEK_END)  # type: ignore[attr-defined]  # what has a position can seek
    source.seek(start)  # type: ignore[attr-defined]
    return max(0, int(end) - start)


def _checked(piece: object) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    msg = f"a request body yielded {type(piece).__name__}"
    raise InvalidRequest(msg, advice="yield bytes; open files in binary mode")
