"""Content codings: gzip, deflate, and br and zstd where their packages are installed.

What a server sends is not trusted. A few kilobytes can decode to gigabytes, so every step makes a bounded piece and
the sum is checked before the next; codings may be chained five deep; many small gzip members cost linear time. A body
that ends inside a coding is an error, never a short success. A coding unknown here is passed through as it came.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Protocol

from turbopool.errors import DecodeError, LimitExceeded

MAX_CODINGS = 5
"""Codings one body may have on top of each other."""

_PIECE = 65_536
"""Bytes made in one step."""
_FIRST_SLICE = 1024
"""Bytes of gzip tried first: a member that ends early leaves little to be copied."""
_ZSTD_SLICE = 64  # a block of four bytes can make 128 KiB, and the package has no bound: so at most 2 MiB a step
_ZSTD_WINDOW = 1 << 23  # RFC 9659 section 3
_RAW_DEFLATE, _ZLIB, _GZIP = -zlib.MAX_WBITS, zlib.MAX_WBITS, zlib.MAX_WBITS | 16
_ZLIB_HEADER = 2


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _bounded_brotli() -> ModuleType | None:
    """Return a brotli that can stop in the middle (1.2); older ones would decode a bomb whole."""
    for module in (_optional("brotli"), _optional("brotlicffi")):
        if module is not None and hasattr(module.Decompressor, "can_accept_more_data"):
            return module
    return None


_brotli = _bounded_brotli()
_zstandard = _optional("zstandard")


def accept_encoding() -> str:
    """Return the Accept-Encoding value that names what can be decoded here."""
    return ", ".join(name for name in _ENGINES if name != "x-gzip")


def decode(data: bytes, encodings: Sequence[str], *, limit: int) -> bytes:
    """Return a whole body decoded.

    Args:
        data: the body as received.
        encodings: the Content-Encoding, in the order the codings were applied; fields may be joined by commas.
        limit: the most bytes it may decode to, at any level.

    Raises:
        DecodeError: it is not what ``encodings`` says, or ends early, or there are too many of them.
        LimitExceeded: it would decode to more than ``limit``.
    """
    decoder = Decoder(encodings, limit=limit)
    decoded = decoder.feed(data)
    decoder.flush()
    return decoded


class Decoder:
    """Decodes a body piece by piece. For one thread at a time; arguments and errors are those of :func:`decode`.

    Without a ``limit`` nothing bounds the sum; take :meth:`pieces` then, which bounds each of them.
    """

    def __init__(self, encodings: Sequence[str], *, limit: int | None = None) -> None:
        names = [name for field in encodings for part in field.split(",") if (name := part.strip().lower())]
        names = [name for name in names if name != "identity"]
        if len(names) > MAX_CODINGS:
            raise _error("the body has too many content codings", codings=len(names), limit=MAX_CODINGS)
        self._stages: list[_Stage] = []
        for name in reversed(names):
            if name not in _ENGINES:
                break
            self._stages.append(_Stage(name, _ENGINES[name](), limit))
        if not self._stages:
            self._stages.append(_Stage("identity", _Identity(), limit))

    def feed(self, data: bytes) -> bytes:
        """Return what ``data`` decodes to, perhaps nothing yet."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` decodes to in bounded pieces; to be iterated to its end."""
        pieces: Iterator[bytes] = iter((data,))
        for stage in self._stages:
            pieces = stage.run(pieces)
        return pieces

    def flush(self) -> bytes:
        """Say that the body is over; nothing is ever held back, so this returns no bytes.

        Raises:
            DecodeError: the body ended inside a coding.
        """
        for stage in self._stages:
            stage.finish()
        return b""


class _Engine(Protocol):
    """One coding being undone."""

    def run(self, data: memoryview) -> Iterator[bytes]:
        """Yield what ``data`` decodes to, in bounded pieces."""
        ...

    def is_complete(self) -> bool:
        """Return whether the body may end here."""
        ...


class _Stage:
    """An engine with its bound, its errors, and whether it has begun: an empty body is complete in any coding."""

    def __init__(self, coding: str, engine: _Engine, limit: int | None) -> None:
        self._coding = coding
        self._engine = engine
        self._limit = limit
        self._produced = 0
        self._begun = False

    def run(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if not piece:
                continue
            self._begun = True
            try:
                for decoded in self._engine.run(memoryview(piece)):
                    self._count(len(decoded))
                    yield decoded
            except _FAULTS as error:
                raise _error(f"the body is not valid {self._coding}", coding=self._coding) from error

    def finish(self) -> None:
        if self._begun and not self._engine.is_complete():
            raise _error(f"the body ends in the middle of its {self._coding} coding", coding=self._coding)

    def _count(self, size: int) -> None:
        self._produced += size
        if self._limit is not None and self._produced > self._limit:
            msg = "the body decodes to more than may be kept in memory"
            error = LimitExceeded(msg, phase="recv", request_sent=True, processed="yes", option="max_buffered_body")
            raise error.with_(limit=self._limit, advice="raise max_buffered_body, or stream the response")


class _Identity:
    def run(self, data: memoryview) -> Iterator[bytes]:
        yield bytes(data)

    def is_complete(self) -> bool:
        return True


class _Trailing(Exception):
    """Bytes follow the end of the coded body."""


class _Gzip:
    """Members one after the other (RFC 1952 section 2.2)."""

    def __init__(self) -> None:
        self._member: Any = None
        self._ended = 0
        self._padding = False

    def run(self, data: memoryview) -> Iterator[bytes]:
        at, size = 0, _FIRST_SLICE
        while at < len(data):
            if self._member is None:
                self._padding = self._padding or (self._ended > 0 and data[at] == 0)
                if self._padding:
                    if bytes(data[at:]).strip(b"\0"):
                        raise _Trailing
                    return
                self._member = zlib.decompressobj(_GZIP)
            yield from _inflate(self._member, data[at : at + size])
            at = min(at + size, len(data))
            # The rest is copied into unused_data: small slices after each member keep the whole linear.
            size = min(size * 2, _PIECE)
            if self._member.eof:
                at -= len(self._member.unused_data)
                self._member, size = None, _FIRST_SLICE
                self._ended += 1

    def is_complete(self) -> bool:
        return self._member is None and self._ended > 0


class _Deflate:
    """Meant to be zlib (RFC 9110 section 8.4.1.2), but servers send raw deflate too: the first two bytes tell."""

    def __init__(self) -> None:
        self._held = b""
        self._engine: Any = None

    def run(self, data: memoryview) -> Iterator[bytes]:
        if self._engine is None:
            self._held += bytes(data)
            if len(self._held) < _ZLIB_HEADER:
                return
            data = memoryview(self._held)
            self._engine = zlib.decompressobj(_ZLIB if _is_zlib_header(self._held) else _RAW_DEFLATE)
            self._held = b""
        for at in range(0, len(data), _PIECE):
            if self._engine.eof:
                raise _Trailing
            yield from _inflate(self._engine, data[at : at + _PIECE])
        if self._engine.unused_data:
            raise _Trailing

    def is_complete(self) -> bool:
        return self._engine is not None and bool(self._engine.eof)


class _Brotli:
    def __init__(self) -> None:
        self._engine: Any = _brotli.Decompressor()  # type: ignore[union-attr]  # listed only if it is there

    def run(self, data: memoryview) -> Iterator[bytes]:
        if self._engine.is_finished():
            raise _Trailing
        piece = self._engine.process(bytes(data), output_buffer_limit=_PIECE)
        while piece:
            yield piece
            if self._engine.is_finished():
                return
            piece = self._engine.process(b"", output_buffer_limit=_PIECE)

    def is_complete(self) -> bool:
        return bool(self._engine.is_finished())


class _Zstd:
    """Frames one after the other (RFC 8878 section 3)."""

    def __init__(self) -> None:
        self._decompressor = _zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)  # type: ignore[union-attr]  # as above
        self._frame: Any = None

    def run(self, data: memoryview) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            if piece := self._frame.decompress(data[at : at + _ZSTD_SLICE]):
                yield piece
            at = min(at + _ZSTD_SLICE, len(data))
            if self._frame.eof:
                at -= len(self._frame.unused_data)
                self._frame = None

    def is_complete(self) -> bool:
        return self._frame is None


def _inflate(engine: Any, data: memoryview) -> Iterator[bytes]:  # noqa: ANN401  # zlib names no type of it
    piece = engine.decompress(data, _PIECE)
    while piece:
        yield piece
        # A full piece may leave more behind, inside zlib if not in unconsumed_tail.
        if engine.eof or (len(piece) < _PIECE and not engine.unconsumed_tail):
            return
        piece = engine.decompress(engine.unconsumed_tail, _PIECE)


def _is_zlib_header(data: bytes) -> bool:
    """RFC 1950 section 2.2: method 8, a window of at most 32 KiB, and a check of both bytes."""
    method, window = data[0] & 0x0F, data[0] >> 4
    return method == zlib.DEFLATED and window <= 7 and int.from_bytes(data[:2], "big") % 31 == 0  # noqa: PLR2004  # RFC


def _error(message: str, **facts: int | str) -> DecodeError:
    advice = "take the body undecoded with iter_raw(), or ask for 'Accept-Encoding: identity'"
    error = DecodeError(message, phase="recv", request_sent=True, processed="yes", advice=advice)
    error.facts.update(facts)
    return error


_ENGINES: dict[str, Callable[[], _Engine]] = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}
_FAULTS: tuple[type[Exception], ...] = (zlib.error, _Trailing)
if _brotli is not None:
    _ENGINES["br"] = _Brotli
    _FAULTS += (_brotli.error,)
if _zstandard is not None:
    _ENGINES["zstd"] = _Zstd
    _FAULTS += (_zstandard.ZstdError,)
