"""Parsing in a test: one call in, and all that a parser has to say out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from turbopool.transport.head import Limits
from turbopool.transport.http1 import ResponseParser

T = TypeVar("T")
Fields = list[tuple[bytes, bytes]]
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser knows of a response."""

    status: int | None
    reason: bytes | None
    version: str | None
    fields: Fields | None
    body: bytes
    trailers: Fields
    complete: bool
    leftover: bool
    keep_alive: bool | None

    @property
    def reusable(self) -> bool:
        """Whether the connection would be used again, as far as the response decides it."""
        return self.complete and not self.leftover and bool(self.keep_alive)

    @classmethod
    def of(cls, parser: ResponseParser) -> Parsed:
        """Take a snapshot."""
        head = parser.head
        return cls(
            status=head.status if head else None,
            reason=head.reason if head else None,
            version=head.version if head else None,
            fields=head.fields if head else None,
            body=parser.body,
            trailers=parser.trailers,
            complete=parser.complete,
            leftover=parser.leftover,
            keep_alive=head.keep_alive if head else None,
        )


def fed(*segments: bytes, method: str = "GET", limits: Limits | None = None, in_memory: bool = True) -> ResponseParser:
    """A new parser that has received `segments`."""
    parser = ResponseParser(limits or Limits())
    parser.start(method, in_memory=in_memory)
    for segment in segments:
        parser.receive(segment)
    return parser


def parse(*segments: bytes, method: str = "GET", limits: Limits | None = None) -> Parsed:
    """What a new parser knows after `segments`."""
    return Parsed.of(fed(*segments, method=method, limits=limits))


def memory(action: Callable[[], T]) -> tuple[T, int, int]:
    """What `action` returns, how many bytes it left allocated, and how many it had at most."""
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        result = action()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    return result, after - before, peak - before


def bytewise(data: bytes) -> list[bytes]:
    """One segment a byte."""
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at these places, which are taken modulo the length; an empty segment is never made."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(at)]
