from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    PingAckReceived,
    PushedStreamReceived,
    RemoteSettingsChanged,
    StreamReset,
)
from h2.settings import SettingCodes
from hyperframe.frame import PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.infrastructure.h2client import H2Client
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2peer import H2Peer, by_alpn
from tests.servers.h2send import raw_frame
from tests.servers.raw import always
from tests.servers.wire import respond
from tests.waiting import eventually


def _answers(conn: H2Conn) -> None:
    conn.handshake()
    while True:
        request = conn.read_request()
        conn.respond(request.stream_id, 200, [("x-method", request.method)], bytes(request.body) or b"empty")


def test_requests_are_recorded_with_fields_body_and_connection() -> None:
    with H2Peer(_answers) as peer:
        with H2Client(peer.address) as first, H2Client(peer.address) as second:
            assert first.answer(first.ask("/a")) == (200, {"x-method": "GET"}, b"empty", {})
            assert second.answer(second.ask("/b", "POST", b"body")) == (200, {"x-method": "POST"}, b"body", {})
            assert first.get("/c") == b"empty"
            assert peer.open == peer.peak == 2
        peer.wait_until(lambda peer: all(conn.raw.peer_closed_at for conn in peer.connections))

    assert [(request.path, request.method, request.connection) for request in peer.requests] == [
        ("/a", "GET", 0),
        ("/b", "POST", 1),
        ("/c", "GET", 0),
    ]
    assert [request.stream_id for request in peer.connections[0].requests] == [1, 3]
    assert peer.requests[1].headers[:2] == [(":method", "POST"), (":path", "/b")]
    assert peer.requests[1].ended
    assert peer.requests[1].body == b"body"


def test_each_connection_gets_the_behaviour_of_its_place_and_the_last_serves_the_rest() -> None:
    def leave(conn: H2Conn) -> None:
        conn.handshake()
        conn.send_goaway(0, ErrorCodes.ENHANCE_YOUR_CALM, b"go")
        conn.drain()  # closing at once, with unread bytes of the client, would be a RST

    with H2Peer([leave, _answers]) as peer:
        with H2Client(peer.address) as client:
            terminated = client.wait(ConnectionTerminated)
            assert (terminated.last_stream_id, terminated.error_code) == (0, ErrorCodes.ENHANCE_YOUR_CALM)
            assert terminated.additional_data == b"go"
        for _ in range(2):
            with H2Client(peer.address) as client:
                assert client.get("/") == b"empty"


def test_settings_travel_both_ways_and_are_acknowledged() -> None:
    def behaviour(conn: H2Conn) -> None:
        conn.handshake({"max_concurrent_streams": 2, SettingsFrame.INITIAL_WINDOW_SIZE: 10})
        conn.settings_acked()
        conn.send_settings(max_concurrent_streams=1)
        conn.settings_acked()
        conn.respond(conn.read_request().stream_id)
        conn.drain()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        client.wait(
            RemoteSettingsChanged,
            lambda event: (
                SettingCodes.MAX_CONCURRENT_STREAMS in event.changed_settings
                and event.changed_settings[SettingCodes.MAX_CONCURRENT_STREAMS].new_value == 1
            ),
        )
        assert client.h2.remote_settings.initial_window_size == 10
        assert client.answer(client.ask("/"))[0] == 200

    assert peer.connections[0].client_settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 65536
    acks = [frame for frame in peer.connections[0].frames if isinstance(frame, SettingsFrame) and "ACK" in frame.flags]
    assert len(acks) == 2


def test_settings_may_be_withheld_and_left_unacknowledged() -> None:
    def behaviour(conn: H2Conn) -> None:
        conn.handshake(send=False, ack=False)
        conn.answers_pings = False
        conn.expect(PingFrame)
        conn.respond(conn.read_request().stream_id)
        conn.drain()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        client.h2.ping(b"12345678")
        assert client.answer(client.ask("/"))[0] == 200
        kinds = {type(event) for event in client.events}
        assert RemoteSettingsChanged not in kinds
        assert PingAckReceived not in kinds


def test_large_bodies_wait_for_the_windows_both_ways() -> None:
    body = bytes(range(256)) * 1000

    with H2Peer(_answers) as peer, H2Client(peer.address) as client:
        stream_id = client.ask("/", "POST", body[:60000], end=False)
        peer.wait_until(lambda peer: len(peer.requests[0].body) == 60000 if peer.requests else False)
        client.get("/credit-has-come")
        for start in range(60000, len(body), 16000):
            client.read_until(lambda: client.h2.local_flow_control_window(stream_id) >= 16000)
            client.h2.send_data(stream_id, body[start : start + 16000])
            client.flush()
        client.h2.end_stream(stream_id)

        assert client.answer(stream_id)[2] == body

    updates = [frame.stream_id for frame in peer.connections[0].frames if isinstance(frame, WindowUpdateFrame)]
    assert {0, stream_id} <= set(updates)


def test_body_that_waits_for_a_window_ends_when_its_stream_is_reset() -> None:
    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        conn.respond(conn.read_request().stream_id, body=bytes(100_000))
        conn.respond(conn.read_request().stream_id)
        conn.drain()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        first = client.ask("/")
        peer.wait_for_requests(1)
        eventually(
            lambda: peer.connections[0].room(first) == 0, timeout=20
        )  # what is written announces itself by nothing
        client.h2.reset_stream(first)
        assert client.answer(client.ask("/"))[0] == 200

    assert peer.connections[0].room(first) == 0


def test_header_block_may_be_split_and_padded_data_counts() -> None:
    rooms: list[int] = []

    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        stream_id = conn.read_request().stream_id
        conn.send_headers(stream_id, [(":status", "200"), ("x-long", "v" * 20000)], split=5)
        conn.send_data(stream_id, b"padded", pad=100)
        rooms.append(conn.room(stream_id))
        conn.send_data(stream_id)
        conn.send_headers(stream_id, [("x-trailer", "last")], end_stream=True)
        conn.drain()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        assert client.answer(client.ask("/")) == (200, {"x-long": "v" * 20000}, b"padded", {"x-trailer": "last"})

    assert rooms == [65535 - 107]


def test_frames_of_other_kinds_reach_the_client() -> None:
    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        one, two = conn.read_requests(2)
        conn.send_push_promise(one.stream_id, 2, one.headers)
        conn.send_raw(raw_frame(0xEE, 0, 0, b"unknown"))
        conn.send_rst(one.stream_id, ErrorCodes.REFUSED_STREAM)
        conn.send_window_update(two.stream_id, 7)
        conn.respond(two.stream_id)
        conn.sync()
        conn.close()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        one, two = client.ask("/1"), client.ask("/2")
        assert client.wait(PushedStreamReceived).pushed_stream_id == 2
        assert client.wait(StreamReset).error_code == ErrorCodes.REFUSED_STREAM
        assert client.answer(two)[0] == 200
        with pytest.raises(ConnectionError):
            client.wait(ConnectionTerminated)
        assert one == 1


def test_frames_read_along_the_way_can_be_expected_later_once_each() -> None:
    seen: list[int] = []

    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        conn.sync()
        conn.read_until(lambda: any(request.path == "/last" for request in conn.requests))
        last = conn.request(conn.requests[-1].stream_id)
        assert last is not None
        seen.extend(conn.expect(RstStreamFrame).stream_id for _ in range(2))
        seen.append(conn.read_head().reset or 0)
        conn.respond(last.stream_id)
        conn.drain()

    with H2Peer(behaviour) as peer, H2Client(peer.address) as client:
        for code in (ErrorCodes.CANCEL, ErrorCodes.NO_ERROR):
            client.h2.reset_stream(client.ask("/", end=False), code)
        assert client.answer(client.ask("/last"))[0] == 200

    assert seen == [1, 3, ErrorCodes.CANCEL]
    assert [request.reset for request in peer.requests] == [ErrorCodes.CANCEL, ErrorCodes.NO_ERROR, None]


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_tls_agrees_on_a_protocol_and_each_is_served(authority: Authority, protocol: str) -> None:
    behaviour = by_alpn(_answers, always(respond(b"one")))
    with H2Peer(behaviour, authority=authority, alpn=("h2", "http/1.1")) as peer:
        assert peer.url.startswith("https://")
        client = H2Client(peer.address, authority.client_context(), alpn=protocol)
        if protocol == "h2":
            with client:
                assert client.answer(client.ask("/", "POST", b"x" * 60000))[2] == b"x" * 60000
        else:
            client.socket.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert client.socket.recv(1000).endswith(b"one")
            client.socket.close()
        assert peer.connections[0].raw.alpn == protocol
