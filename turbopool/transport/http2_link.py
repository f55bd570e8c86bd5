"""What a stream needs of its HTTP/2 connection, and what the connection needs of a stream."""

from __future__ import annotations

from typing import Protocol

from turbopool.errors import TurboPoolError
from turbopool.transport.exchange import Exchange
from turbopool.transport.http2 import Http2Codec
from turbopool.transport.http2_state import StreamState
from turbopool.transport.interfaces import Reactor
from turbopool.transport.landlord import ConnectionSettings, Lent_contra, SharedLandlord


class Rider(Protocol):
    """A stream, as its connection drives it."""

    exchange: Exchange
    state: StreamState

    @property
    def written(self) -> int:
        """Bytes laid ready to be sent, and sent."""
        ...

    def note_sent(self) -> None:
        """Count what was laid ready as sent."""
        ...

    @property
    def due(self) -> float:
        """When to look whether its time is up."""
        ...

    def go_on(self) -> None:
        """Send more: a window has been opened, or the socket has room."""
        ...

    def on_news(self) -> None:
        """React to what the peer has said on it."""
        ...

    def check(self, now: float) -> None:
        """End if its time is up."""
        ...

    def drain(self) -> None:
        """Learn that the owner stops."""
        ...

    def kill(self, error: TurboPoolError) -> None:
        """End the exchange with an error."""
        ...

    def lose(self, error: TurboPoolError, *, by_excess: bool = False) -> None:
        """Learn that the connection died."""
        ...

    def leave(self) -> None:
        """Let go of the exchange."""
        ...

    def forsake(self, error: TurboPoolError) -> None:
        """End the reader of a streamed response, and touch nothing else. Any thread."""
        ...

    def __hash__(self) -> int: ...


class StreamLandlord(SharedLandlord[Lent_contra], Protocol[Lent_contra]):
    """Whoever owns a connection whose streams end by the dozen, when something arrives."""

    def on_digested(self, connection: Lent_contra) -> None:
        """Learn that all is taken in, and told of, that arrived: what was released meanwhile may be lent again."""
        ...


class Link(Protocol):
    """The connection, as far as its streams need it."""

    codec: Http2Codec
    reactor: Reactor
    settings: ConnectionSettings

    @property
    def is_congested(self) -> bool:
        """Whether so much waits for the socket that nothing more should be written."""
        ...

    @property
    def has_answered(self) -> bool:
        """Whether it ever carried a response."""
        ...

    @property
    def has_proven(self) -> bool:
        """Whether the server ever answered, over whichever connection."""
        ...

    def flush_soon(self, stream: Rider) -> None:
        """Send what the stream has written, at the end of this turn."""
        ...

    def wait_for_room(self, stream: Rider) -> None:
        """Call the stream's ``go_on`` when a window or the socket has room."""
        ...

    def expect(self, stream: Rider) -> None:
        """Call the stream's ``check`` when it is due."""
        ...

    def on_begun(self) -> None:
        """Learn that a response has begun."""
        ...

    def on_ended(self, stream: Rider) -> None:
        """Learn that the exchange is over."""
        ...

    def on_returned(self, stream: Rider, error: TurboPoolError) -> None:
        """Learn that the exchange is to be sent again."""
        ...

    def on_lowered(self, stream: Rider, error: TurboPoolError) -> None:
        """Learn that the server wants the request over HTTP/1.1."""
        ...

    def on_misdirected(self) -> None:
        """Learn that the server does not want requests of this origin here."""
        ...

    def on_late(self) -> None:
        """Learn that a stream heard nothing for too long: the whole connection may be dead."""
        ...

    def on_crash(self, error: BaseException) -> None:
        """Report a bug of ours."""
        ...

    def reset(self, state: StreamState, code: int) -> None:
        """End a stream before its time."""
        ...
