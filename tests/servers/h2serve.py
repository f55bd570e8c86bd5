"""A well-behaved HTTP/2 server as a behaviour for H2Peer; the package h2 holds the client to the protocol.

Whatever the client does against it (stream ids, windows, limits, fields) raises in h2, and fails the test. Answers::

    /bytes/N      N bytes of :func:`pattern`, at the pace of the client's windows
    /delay?s=0.3  the echo, that many seconds after the request was complete; other streams go on
    /status/418   an empty answer with that status
    /headers      the fields received, as JSON: [[name, value], ...]
    /trailers     the echo, and the trailer x-crc: its CRC-32
    /early        b"early" as soon as the header is there, then RST_STREAM(NO_ERROR) if the body had not ended
    other paths   the echo: {"method", "path", "size", "crc"} of the request as JSON, when it is complete

Other threads may order any frame meanwhile: ``conn.do(conn.send_settings, max_concurrent_streams=1)``. Streams above
the last one of a GOAWAY are not answered.
"""

from __future__ import annotations

import heapq
import json
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame, SettingsFrame

from tests.servers.h2conn import H2Conn
from tests.servers.h2recv import PREFACE, H2Request
from tests.servers.h2send import settings_of

_PERIOD = 1 << 16
_BLOCK = random.Random(0).randbytes(_PERIOD) * 2  # noqa: S311 - not a secret
_BURST = 16
"""How many frames of one stream are written before the client is listened to again."""

_IDLE_SECONDS = 20.0

Read = Callable[[int, int], bytes]
"""A body: the bytes from an offset on, as many as are asked for, which is at most 64 KiB."""

Trailers = Sequence[tuple[str, str]]


def pattern(size: int) -> bytes:
    """What /bytes/`size` answers."""
    return (_BLOCK[:_PERIOD] * (size // _PERIOD + 1))[:size]


def serving(**settings: int) -> Callable[[H2Conn], None]:
    """:func:`serve` with settings: `H2Peer(serving(max_concurrent_streams=2))`."""

    def behaviour(conn: H2Conn) -> None:
        serve(conn, settings_of(dict(settings.items())))

    return behaviour


def serve(conn: H2Conn, settings: Mapping[int, int] | None = None) -> None:
    """Serve until the client closes; at most 100 streams at once unless `settings` say otherwise."""
    try:
        _Service(conn, {SettingsFrame.MAX_CONCURRENT_STREAMS: 100, **(settings or {})}).run()
    except ConnectionError:
        conn.drain()  # what the client wrote before it went


class _Service:
    """What `serve` does for one connection; h2 writes SETTINGS, acknowledgements and credit."""

    def __init__(self, conn: H2Conn, settings: dict[int, int]) -> None:
        self._conn = conn
        self._h2 = H2Connection(H2Configuration(client_side=False))
        conn.answers_pings = conn.acks_settings = conn.gives_credit = False
        conn.encoder = self._h2.encoder  # headers that are ordered go through the same table
        conn.write_settings = self._write_settings
        self._due: list[tuple[float, int]] = []
        self._bodies: dict[int, _Body] = {}
        self._h2.initiate_connection()
        self._h2.clear_outbound_data_buffer()  # of SETTINGS that are not ours
        conn.send_settings(settings)

    def run(self) -> None:
        self._conn.read_preface()
        self._take(PREFACE)
        while True:
            while self._conn.has_frame():
                if not isinstance(self._conn.read_frame(), GoAwayFrame):  # h2 would send nothing more after it
                    self._take(self._conn.last_bytes)
            while self._due and self._due[0][0] <= time.monotonic():
                self._echo(heapq.heappop(self._due)[1])
            for stream_id in list(self._bodies):
                self._continue_body(stream_id)
            self._flush()
            self._conn.take_in(self._patience())

    def _patience(self) -> float:
        if any(self._room(stream_id) for stream_id in self._bodies):
            return 0.0
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else _IDLE_SECONDS

    def _take(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(data):
                self._on_event(event)
        finally:
            self._flush()

    def _on_event(self, event: Event) -> None:
        match event:
            case DataReceived(flow_controlled_length=size, stream_id=stream_id) if size:
                self._h2.acknowledge_received_data(size, stream_id)
            case RequestReceived(stream_id=stream_id) if stream_id <= self._conn.last_id:
                request = self._request(stream_id)
                if request.path.startswith("/early"):
                    self._answer_early(request)
            case StreamEnded(stream_id=stream_id) if stream_id <= self._conn.last_id:
                self._on_complete(self._request(stream_id))
            case StreamReset(stream_id=stream_id):
                self._bodies.pop(stream_id, None)
            case _:
                pass

    def _on_complete(self, request: H2Request) -> None:
        url = urlsplit(request.path)
        match url.path.split("/")[1:]:
            case ["bytes", size]:
                self._answer(request, int(size), lambda start, count: _BLOCK[start % _PERIOD :][:count])
            case ["delay"]:
                seconds = float(parse_qs(url.query)["s"][0])
                heapq.heappush(self._due, (time.monotonic() + seconds, request.stream_id))
            case ["status", status]:
                self._h2.send_headers(request.stream_id, [(":status", status)], end_stream=True)
            case ["headers"]:
                self._answer_json(request, request.headers)
            case ["early"]:
                pass  # it was answered before
            case _:
                self._echo(request.stream_id)

    def _echo(self, stream_id: int) -> None:
        request = self._request(stream_id)
        if request.reset is not None:
            return
        crc = zlib.crc32(request.body)
        trailers = [("x-crc", str(crc))] if request.path.startswith("/trailers") else []
        answer = {"method": request.method, "path": request.path, "size": len(request.body), "crc": crc}
        self._answer_json(request, answer, trailers)

    def _answer_early(self, request: H2Request) -> None:
        self._h2.send_headers(request.stream_id, [(":status", "200")])
        self._h2.send_data(request.stream_id, b"early", end_stream=True)
        if not request.ended:
            self._h2.reset_stream(request.stream_id)  # with NO_ERROR

    def _answer_json(self, request: H2Request, answer: object, trailers: Trailers = ()) -> None:
        text = json.dumps(answer).encode()
        self._answer(request, len(text), lambda start, count: text[start : start + count], trailers)

    def _answer(self, request: H2Request, size: int, read: Read, trailers: Trailers = ()) -> None:
        fields = [(":status", "200"), ("content-length", str(size))]
        is_empty = request.method == "HEAD" or not (size or trailers)
        self._h2.send_headers(request.stream_id, fields, end_stream=is_empty)
        if not is_empty:
            self._bodies[request.stream_id] = _Body(size, read, trailers)

    def _continue_body(self, stream_id: int) -> None:
        body = self._bodies[stream_id]
        for _ in range(_BURST):
            size = min(self._room(stream_id), body.size - body.sent)
            if not size:
                break
            is_last = body.sent + size == body.size
            self._h2.send_data(stream_id, body.read(body.sent, size), end_stream=is_last and not body.trailers)
            body.sent += size
        if body.sent == body.size:
            del self._bodies[stream_id]
            if body.trailers:
                self._h2.send_headers(stream_id, body.trailers, end_stream=True)

    def _room(self, stream_id: int) -> int:
        return max(0, min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size))

    def _request(self, stream_id: int) -> H2Request:
        request = self._conn.request(stream_id)
        assert request is not None, stream_id
        return request

    def _write_settings(self, settings: dict[int, int]) -> None:
        self._h2.update_settings({SettingCodes(number): value for number, value in settings.items()})
        self._flush()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._conn.send_raw(data)


@dataclass(slots=True)
class _Body:
    size: int
    read: Read
    trailers: Trailers
    sent: int = 0
