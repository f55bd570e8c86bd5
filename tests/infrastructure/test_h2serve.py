from __future__ import annotations

import json
import socket
import zlib

import pytest
from h2.events import ConnectionTerminated, RemoteSettingsChanged, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import SettingsFrame

from tests.infrastructure.h2client import H2Client
from tests.servers.certs import Authority
from tests.servers.h2peer import H2Peer
from tests.servers.h2send import raw_frame
from tests.servers.h2serve import pattern, serve, serving


def test_echo_tells_method_path_size_and_crc() -> None:
    with H2Peer(serve) as peer, H2Client(peer.address) as client:
        status, _, body, _ = client.answer(client.ask("/any?q=1", "POST", b"body"))

    assert status == 200
    assert json.loads(body) == {"method": "POST", "path": "/any?q=1", "size": 4, "crc": zlib.crc32(b"body")}
    assert peer.requests[0].body == b"body"


@pytest.mark.parametrize("size", [0, 1, 65536, 300_000])
def test_bytes_keep_to_the_windows(size: int) -> None:
    with H2Peer(serve) as peer, H2Client(peer.address) as client:
        assert client.get(f"/bytes/{size}") == pattern(size)  # h2 would not stand more than its windows
        assert peer.connections[0].requests[0].ended

    assert len(pattern(size)) == size


def test_each_path_answers_what_it_promises() -> None:
    with H2Peer(serve) as peer, H2Client(peer.address) as client:
        assert client.answer(client.ask("/status/418"))[0] == 418
        assert [":path", "/headers"] in json.loads(client.get("/headers"))
        status, _, body, trailers = client.answer(client.ask("/trailers", "PUT", b"x"))
        assert (status, json.loads(body)["size"], trailers) == (200, 1, {"x-crc": str(zlib.crc32(b"x"))})
        assert client.answer(client.ask("/bytes/10", "HEAD"))[1:3] == ({"content-length": "10"}, b"")
        assert client.get("/early") == b"early"


def test_early_answer_comes_before_the_body_and_is_followed_by_a_reset() -> None:
    with H2Peer(serve) as peer, H2Client(peer.address) as client:
        stream_id = client.ask("/early", "POST", b"some", end=False)
        assert client.answer(stream_id)[2] == b"early"
        assert client.wait(StreamReset).error_code == 0
        assert client.get("/after")

    assert not peer.requests[0].ended


def test_delay_holds_up_no_other_stream() -> None:
    with H2Peer(serve) as peer, H2Client(peer.address) as client:
        slow, cancelled = client.ask("/delay?s=30"), client.ask("/delay?s=0.01")
        client.h2.reset_stream(cancelled)
        assert client.get("/quick")
        assert client.get("/delay?s=0.02")

    ended = {event.stream_id for event in client.events if isinstance(event, StreamEnded)}
    assert not ended & {slow, cancelled}


def test_upload_gets_credit() -> None:
    body = bytes(200_000)
    with H2Peer(serve) as peer, H2Client(peer.address) as client:
        stream_id = client.ask("/", "POST", end=False)
        for start in range(0, len(body), 10_000):
            client.read_until(lambda: client.h2.local_flow_control_window(stream_id) >= 10_000)
            client.h2.send_data(stream_id, body[start : start + 10_000])
        client.h2.end_stream(stream_id)
        assert json.loads(client.answer(stream_id)[2])["size"] == len(body)


def test_settings_are_the_first_frame_and_can_be_ordered_later() -> None:
    limit = SettingCodes.MAX_CONCURRENT_STREAMS
    with H2Peer(serving(max_concurrent_streams=2)) as peer, H2Client(peer.address) as client:
        assert client.wait(RemoteSettingsChanged).changed_settings[limit].new_value == 2
        client.get("/")
        (conn,) = peer.connections
        conn.do(conn.send_settings, max_concurrent_streams=0)
        client.read_until(lambda: client.h2.remote_settings.max_concurrent_streams == 0)
        client.flush()
        peer.wait_until(lambda _: not conn.unacked)


def test_client_that_opens_more_streams_than_it_agreed_to_is_a_fault() -> None:
    peer = H2Peer(serving(max_concurrent_streams=1))
    with H2Client(peer.address) as client, pytest.raises(ProtocolError, match="1"), peer:
        _open_two(client, peer)


def _open_two(client: H2Client, peer: H2Peer) -> None:
    client.get("/")
    peer.wait_until(lambda peer: not peer.connections[0].unacked)
    block = client.h2.encoder.encode([(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "h")])
    for stream_id in (3, 5):
        client.socket.sendall(raw_frame(1, 4, stream_id, block))
    peer.wait_until(lambda peer: peer.faults)


def test_streams_above_the_last_of_a_goaway_are_left_and_the_others_finished() -> None:
    with H2Peer(serve) as peer, H2Client(peer.address) as client:
        client.ask("/", "POST", end=False)
        peer.wait_for_requests(1)
        (conn,) = peer.connections
        conn.do(conn.send_goaway, 1)
        later = client.ask("/later")  # it had not read the GOAWAY
        client.h2.end_stream(1)
        client.flush()
        peer.wait_until(lambda peer: len(peer.requests) == 2 and peer.requests[0].ended)
        conn.do(conn.send_raw, b"")  # all that came is worked off by now
        client.socket.shutdown(socket.SHUT_WR)
        received = client.rest()

    assert raw_frame(7, 0, 0, b"\0\0\0\1\0\0\0\0") in received
    assert b'"size": 0' in received
    assert b"later" not in received
    assert later == 3
    assert ConnectionTerminated not in {type(event) for event in client.events}


def test_tls(authority: Authority) -> None:
    with H2Peer(serve, authority=authority) as peer, H2Client(peer.address, authority.client_context()) as client:
        assert client.get("/bytes/200000") == pattern(200_000)

    assert peer.connections[0].client_settings[SettingsFrame.ENABLE_PUSH] == 1
