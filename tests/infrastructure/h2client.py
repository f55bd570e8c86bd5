"""A client over the package h2, for the tests of the HTTP/2 servers; it takes no shortcut past its state machine."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, TrailersReceived

E = TypeVar("E", bound=Event)


class H2Client:
    """One connection; `wait` reads until an event is there, every event ever seen is in `events`."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None = None, *, alpn: str = "h2") -> None:
        """Connect; over TLS if there is a context, offering `alpn`. Nothing of HTTP/2 is written yet."""
        raw = socket.create_connection(address, timeout=20)
        if context is not None:
            context.set_alpn_protocols([alpn])
        self.socket = context.wrap_socket(raw, server_hostname=address[0]) if context else raw
        self.h2 = H2Connection(H2Configuration())
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        """Write preface and SETTINGS."""
        self.h2.initiate_connection()
        self.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Write what h2 has to say."""
        if data := self.h2.data_to_send():
            self.socket.sendall(data)

    def ask(self, path: str, method: str = "GET", body: bytes = b"", *, end: bool = True) -> int:
        """Begin a request; its stream. A body has to fit into the window."""
        stream_id: int = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "h")]
        self.h2.send_headers(stream_id, head, end_stream=end and not body)
        for start in range(0, len(body), 16384):
            piece = body[start : start + 16384]
            self.h2.send_data(stream_id, piece, end_stream=end and start + len(piece) == len(body))
        self.flush()
        return stream_id

    def wait(self, kind: type[E], predicate: Callable[[E], object] = lambda _: True) -> E:
        """The first event of this kind that holds; credit for DATA is given back at once."""
        at = 0
        self.flush()
        while True:
            for event in self.events[at:]:
                if isinstance(event, kind) and predicate(event):
                    return event
            at = len(self.events)
            self.read()

    def answer(self, stream_id: int) -> tuple[int, dict[str, str], bytes, dict[str, str]]:
        """Status, fields, body and trailers of a response, when it is complete."""
        self.wait(StreamEnded, lambda event: event.stream_id == stream_id)
        own = [event for event in self.events if getattr(event, "stream_id", None) == stream_id]
        fields = next(_text(event.headers) for event in own if isinstance(event, ResponseReceived))
        trailers = next((_text(event.headers) for event in own if isinstance(event, TrailersReceived)), {})
        body = b"".join(event.data for event in own if isinstance(event, DataReceived))
        return int(fields.pop(":status")), fields, body, trailers

    def get(self, path: str) -> bytes:
        """The body of a GET that is answered with 200."""
        status, _, body, _ = self.answer(self.ask(path))
        assert status == 200
        return body

    def read_until(self, predicate: Callable[[], object]) -> None:
        """Read until `predicate()` holds."""
        self.flush()
        while not predicate():
            self.read()

    def rest(self) -> bytes:
        """All further bytes as they are, until the server closes."""
        self.flush()
        return b"".join(iter(lambda: self.socket.recv(65536), b""))

    def read(self) -> None:
        """Take in what comes next."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the server closed after {self.events}")
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()


def _text(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}
