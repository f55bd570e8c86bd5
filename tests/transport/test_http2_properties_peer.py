"""The codec beside a validating server of another make, whatever either does, and however long the wire is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import h2.config
import h2.connection
import h2.events
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.frames import FIRST_WINDOW, SMALL_WINDOWS, request
from turbopool.bodies import Body
from turbopool.transport.head import Field, Limits
from turbopool.transport.http2 import Http2Codec
from turbopool.transport.http2_state import Code, StreamState

Step = tuple[str, int, int]
"""What is done, on which stream, and how much of it."""

_FIELDS: list[list[Field]] = [
    [],
    [(b"user-agent", b"tp/1"), (b"accept", b"*/*")],
    [(b"User-Agent", b"tp/2"), (b"Cookie", b"a=b"), (b"Cookie", b"c=d"), (b"TE", b"trailers"), (b"Host", b"other")],
    [
        (b"Connection", b"close"),
        (b"Upgrade", b"h2c"),
        (b"TE", b"gzip"),
        (b"Accept-Encoding", b"br"),
        (b"x", b"y" * 300),
    ],
    [(b"Authorization", b"secret"), (b"accept-language", b"l" * 250), (b"user-agent", b"u" * 250)],
]
_SETTINGS = [{1: 0}, {1: 100}, {1: 4096}, {1: 50_000}, {3: 2}, {3: 100}, {3: 1, 4: 10}, {4: 0}, {4: 30_000},
             {4: 100_000}, {5: 16_384}, {5: 20_000}, {1: 60, 3: 5, 4: 65_535}]  # fmt: skip


class Pair:
    """A client and a server with a wire between them that holds what was sent until it is delivered."""

    def __init__(self, *, fast: bool) -> None:
        self.codec = Http2Codec(Limits(), replace(SMALL_WINDOWS, fast_lane=fast), 0.0)
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.peer.initiate_connection()
        self.wire = b""
        self.streams: list[StreamState] = []
        self.wanted: dict[int, list[Field]] = {}
        self.left: dict[int, int] = {}
        self.consumed: dict[int, int] = defaultdict(int)
        self.asked: dict[int, list[Field]] = {}
        self.sent: dict[int, bytes] = defaultdict(bytes)
        self.got: dict[int, bytes] = defaultdict(bytes)
        self.said: dict[int, bytes] = defaultdict(bytes)
        self.stages: dict[int, str] = {}
        self.is_settled = False
        self.spoilt: set[int] = set()
        """Streams that either has reset."""

    # -- the client ------------------------------------------------------------------------------------------

    def open(self, which: int, size: int) -> None:
        codec = self.codec
        if len(codec.streams) >= min(100 if codec.limit is None else codec.limit, 100):
            return
        fields = _FIELDS[which % len(_FIELDS)]
        body = (None, b"x" * size, Body([], None))[size % 3]
        asked = request("PUT" if body else ("GET", "HEAD", "OPTIONS")[which % 3], f"/{size}", fields, body)
        stream, _ = codec.open(asked, end=not body)
        self.streams.append(stream)
        host = next((value for name, value in fields if name == b"Host"), b"example.org")
        path = b"/%d" % size
        said = [(b":method", asked.method.encode()), (b":scheme", b"https"), (b":authority", host), (b":path", path)]
        self.wanted[stream.stream_id] = said
        self.left[stream.stream_id] = size

    def body(self, which: int, size: int) -> None:
        if stream := self._one(which, sending=True):
            left = self.left[stream.stream_id]
            if not min(size, left) and not self.codec.window(stream):
                return  # RFC 9113 section 6.9.1 allows it, h2 does not if the window is below 0
            taken = self.codec.send(stream, b"b" * min(size, left), end=size >= left)
            self.sent[stream.stream_id] += b"b" * taken
            self.left[stream.stream_id] -= taken

    def cancel(self, which: int, size: int) -> None:
        if (stream := self._one(which)) and size % 2:
            self.spoilt.add(stream.stream_id)
            self.codec.reset(stream, Code.CANCEL)

    def consume(self, which: int, size: int) -> None:
        del size
        if stream := self._one(which):
            self.codec.consume(stream, stream.received - self.consumed[stream.stream_id])
            self.consumed[stream.stream_id] = stream.received

    def _one(self, which: int, *, sending: bool = False) -> StreamState | None:
        live = [each for each in self.codec.streams.values() if each.is_sending or not sending]
        return live[which % len(live)] if live else None

    def flush(self, which: int = 0, size: int = 0) -> None:
        """Let the server have all that the client has sent: it validates everything."""
        del which, size
        for event in self.peer.receive_data(self.codec.take()):
            if isinstance(event, h2.events.RequestReceived):
                assert event.headers is not None
                self.asked[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers]
                self.stages[event.stream_id] = "asked"
            elif isinstance(event, h2.events.DataReceived):
                self.got[event.stream_id] += event.data or b""
                self.peer.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self.is_settled = True
            elif isinstance(event, h2.events.StreamReset):
                assert event.remote_reset
                self.stages[event.stream_id] = "ended"
        self._collect()

    # -- the server ------------------------------------------------------------------------------------------

    def head(self, which: int, size: int) -> None:
        if (stream_id := self._at(which, "asked")) is None:
            return
        if size % 4 == 0:
            self.peer.send_headers(stream_id, [(":status", "103"), ("link", "</a>")])
        else:
            ends = size % 4 == 1
            fields = [(":status", "200"), ("server", "peer"), ("etag", f'"{size % 7}"')]
            self.peer.send_headers(stream_id, fields, end_stream=ends)
            self.stages[stream_id] = "ended" if ends else "begun"
        self._collect()

    def data(self, which: int, size: int) -> None:
        stream_id = self._at(which, "begun")
        if stream_id is None or self.asked[stream_id][0][1] == b"HEAD":
            return
        padding = size % 200 if size % 3 == 0 else None
        room = self.peer.local_flow_control_window(stream_id) - (0 if padding is None else padding + 1)
        if room < 0:
            return
        piece, ends = b"d" * min(size, room, 16_000), size % 5 == 0
        self.peer.send_data(stream_id, piece, end_stream=ends, pad_length=padding)
        self.said[stream_id] += piece
        self.stages[stream_id] = "ended" if ends else "begun"
        self._collect()

    def trailers(self, which: int, size: int) -> None:
        if (stream_id := self._at(which, "begun")) is not None and size % 3 == 0:
            self.peer.send_headers(stream_id, [("x-sum", str(size))], end_stream=True)
            self.stages[stream_id] = "ended"
            self._collect()

    def refuse(self, which: int, size: int) -> None:
        stream_id = self._at(which, "asked" if size % 2 else "begun")
        if stream_id is not None and size % 3 == 0:
            self.peer.reset_stream(stream_id, Code.REFUSED_STREAM)
            self.stages[stream_id] = "ended"
            self.spoilt.add(stream_id)
            self._collect()

    def configure(self, which: int, size: int) -> None:
        del size
        if self.is_settled:  # h2 takes any acknowledgement for one of all that it has said
            self.is_settled = False
            self.peer.update_settings(_SETTINGS[which % len(_SETTINGS)])
            self._collect()

    def ping(self, which: int, size: int) -> None:
        if which % 2:
            self.codec.ping(size.to_bytes(8))
        else:
            self.peer.ping(size.to_bytes(8))
            self._collect()

    def _at(self, which: int, stage: str) -> int | None:
        ids = [stream_id for stream_id, each in self.stages.items() if each == stage]
        return ids[which % len(ids)] if ids else None

    def _collect(self) -> None:
        self.wire += self.peer.data_to_send()

    def deliver(self, which: int, size: int) -> None:
        """Let the client have some of what the server has sent."""
        del which
        self.codec.receive(self.wire[:size], 0.0)
        self.wire = self.wire[size:]

    def settle(self) -> None:
        """Deliver everything, both ways, until nobody has more to say."""
        for _ in range(4):
            self.flush()
            self.deliver(0, len(self.wire))


_steps = st.tuples(
    st.sampled_from([*["open"] * 3, *["body"] * 2, "cancel", "consume", *["flush"] * 4, *["head"] * 4, *["data"] * 4,
                     "trailers", "refuse", "configure", "ping", *["deliver"] * 3]),
    st.integers(0, 20),
    st.one_of(st.integers(0, 30), st.integers(0, 20_000)),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(_steps, min_size=15, max_size=60), st.booleans())
def test_a_server_that_validates_everything_accepts_all_that_is_sent(
    steps: list[Step],
    fast: bool,  # noqa: FBT001
) -> None:
    """BEH-M1..M8, FLT-S7, S14, S20: and both understand each other, tables and windows included."""
    pair = Pair(fast=fast)

    for name, which, size in steps:
        getattr(pair, name)(which, size)
    pair.settle()

    for stream in pair.streams:
        number = stream.stream_id
        assert pair.asked[number][:4] == pair.wanted[number]
        assert not {b"connection", b"upgrade", b"host"} & {name for name, _ in pair.asked[number]}
        assert stream.problem is None
        if number not in pair.spoilt:
            assert pair.got[number] == pair.sent[number]
            assert b"".join(stream.pieces) == pair.said[number]
            assert stream.complete == (pair.stages[number] == "ended")
    for which in range(len(pair.codec.streams)):
        pair.consume(which, 0)
    pair.settle()
    for number, stream in pair.codec.streams.items():
        if stream.is_sending:
            assert pair.codec.window(stream) == max(0, pair.peer.remote_flow_control_window(number))
        if pair.stages[number] != "ended":
            assert pair.peer.local_flow_control_window(number) > FIRST_WINDOW // 2
    assert pair.peer.outbound_flow_control_window > FIRST_WINDOW // 2
