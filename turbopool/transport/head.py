"""The head of a response, whatever version it came by, and how much of one a peer may send."""

from __future__ import annotations

from dataclasses import dataclass

Field = tuple[bytes, bytes]
"""Name and value."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a peer may send before it is cut off; each names an option of the client."""

    max_response_headers: int = 65_536
    max_header_count: int = 256
    max_informational: int = 16
    max_buffered_body: int = 268_435_456


class ResponseHead:
    """A status line and its fields, judged. Shared by all responses with the same bytes: not to be changed.

    Attributes:
        keep_alive: whether the peer lets the connection be used again; ``close`` wins, wherever it stands.
        length: bytes of the body; None if only its end tells.
        chunked: whether the body is in chunks.
        idle_hint: seconds from ``Keep-Alive: timeout=``, or None.
        encodings: what the body is coded with, noted by the first who looks; nothing else is ever changed.
    """

    __slots__ = ("chunked", "encodings", "fields", "idle_hint", "keep_alive", "length", "reason", "status", "version")

    def __init__(self, status: int, reason: bytes, fields: list[Field], version: str) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.version = version
        self.keep_alive: bool | None = None
        self.length: int | None = None
        self.chunked = False
        self.idle_hint: float | None = None
        self.encodings: tuple[str, ...] | None = None
