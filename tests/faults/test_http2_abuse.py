"""FLT-S18, S19, S21 to S24: servers that flood, bloat, or break the protocol, on a stream or on all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from tests.faults.streams import (
    NEXT,
    PATIENCE,
    SCHEMES,
    answers,
    assert_answered,
    assert_recovered,
    attend,
    attends,
    error_of,
    farewells,
    resets,
    scene,
    sent_all,
)
from tests.servers.certs import Authority
from tests.servers.h2conn import H2Conn
from tests.servers.h2send import raw_frame
from tests.waiting import eventually
from turbopool import IncompleteRead, LimitExceeded, RemoteProtocolError

CALM, PROTOCOL, SIZE = ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FRAME_SIZE_ERROR
FLOW, COMPRESSION = ErrorCodes.FLOW_CONTROL_ERROR, ErrorCodes.COMPRESSION_ERROR
OK = [(":status", "200")]

# -- floods ----------------------------------------------------------------------------------------------

HEADERS, DATA, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 1, 0, 4, 5, 6, 7, 8, 9
_A_PING = PingFrame(0, bytes(8)).serialize()
_WIDE = WindowUpdateFrame(0, window_increment=2**31 - 1).serialize()
_HALF = raw_frame(HEADERS, 0, 1, b"\x88")
_A_FAREWELL = GoAwayFrame(0, last_stream_id=2**31 - 1).serialize()

FLOODS: dict[str, bytes] = {
    "ping": _A_PING * 50,
    "settings": SettingsFrame(0).serialize() * 50,
    "settings of much": SettingsFrame(0, settings=dict.fromkeys(range(16, 256), 1)).serialize() * 5,
    "empty data": DataFrame(1).serialize() * 50,
    "padding alone": DataFrame(1, pad_length=9, flags=["PADDED"]).serialize() * 50,
    "window by one": WindowUpdateFrame(0, window_increment=1).serialize() * 200,
    "window of a stream by one": WindowUpdateFrame(1, window_increment=1).serialize() * 200,
    "resets of what has ended": raw_frame(3, 0, 3, bytes(4)) * 50,
    "farewells": _A_FAREWELL * 50,
    "priorities": raw_frame(2, 0, 1, bytes(5)) * 200,
    "what nobody knows": raw_frame(0x42, 0, 1, b"?") * 200,
    "data of what has ended": raw_frame(DATA, 0, 3) * 200,
    "empty continuations": raw_frame(HEADERS, 0, 1, b"\x88") + raw_frame(CONTINUATION, 0, 1) * 2000,
    "long continuations": raw_frame(HEADERS, 0, 1, b"\x88") + raw_frame(CONTINUATION, 0, 1, bytes(16_000)) * 100,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection_with_a_demand_for_calm(flood: str) -> None:
    """FLT-S18, FLT-S22: and its requests, none of which is sent again: it would be flooded again."""
    with scene(attends, attends) as (client, peer):
        future, ended = sent_all(client, peer, "/x", "/next")
        ended.result(PATIENCE)
        conn = peer.connections[0]
        conn.do(conn.send_headers, 1, OK) if "data" in flood or "padding" in flood else None
        conn.do(conn.flood, FLOODS[flood], 2000)

        error = future.exception(PATIENCE)
        assert isinstance(error, RemoteProtocolError), repr(error)
        assert (error.processed, error.facts["error_code"]) in {("maybe", CALM.name), ("yes", CALM.name)}
        assert farewells(conn) == [CALM]
        assert_recovered(client, peer, connections=2)


@pytest.mark.parametrize("kind", ["informational", "trailers"])
def test_a_flood_of_fields_on_a_stream_ends_that_stream(kind: str) -> None:
    """FLT-S18, FLT-S22, FLT-S24: 1xx beyond the bound, and header blocks after the last; the others go on."""
    with scene() as (client, peer):
        future, sibling = sent_all(client, peer, "/x", "/sibling")
        conn = peer.connections[0]
        block = [(":status", "103")] if kind == "informational" else [("x-trailer", "1")]
        conn.do(conn.send_headers, 1, OK) if kind == "trailers" else None
        for _ in range(100):
            conn.do(conn.send_headers, 1, block)
        error_of(future, LimitExceeded if kind == "informational" else RemoteProtocolError,
                 "maybe" if kind == "informational" else "yes", may_retry=kind == "trailers", phase="recv")  # fmt: skip
        conn.do(conn.respond, 3)

        assert_answered([sibling])
        assert_recovered(client, peer, connections=1)


# -- fields that are too much ----------------------------------------------------------------------------


def test_a_header_list_beyond_the_limit_fails_its_stream_and_the_tables_stay_in_step() -> None:
    """FLT-S19, FLT-S20: the limit is on what it decodes to; the fields of the next response are right."""
    with scene(max_response_headers=10_000) as (client, peer):
        large, sibling = sent_all(client, peer, "/large", "/sibling")
        conn = peer.connections[0]
        conn.do(conn.send_headers, 1, [*OK, ("x-told", "once"), *[(f"x-{n}", "y" * 100) for n in range(200)]])

        error = error_of(large, LimitExceeded, "maybe", may_retry=False, phase="recv")
        assert error.facts["option"] == "max_response_headers"
        conn.do(conn.respond, 3, headers=[("x-told", "once"), ("x-199", "y" * 100)])
        assert sibling.result(PATIENCE).headers["x-told"] == "once"
        assert_recovered(client, peer, connections=1)


def test_too_many_fields_fail_their_stream_alone() -> None:
    """FLT-S19: by their number, small as they may be."""
    with scene(max_header_count=50) as (client, peer):
        many, sibling = sent_all(client, peer, "/many", "/sibling")
        conn = peer.connections[0]
        conn.do(conn.send_headers, 1, [*OK, *[("a", "")] * 100])

        error = error_of(many, LimitExceeded, "maybe", may_retry=False, phase="recv")
        assert error.facts["option"] == "max_header_count"
        conn.do(conn.respond, 3)
        assert_answered([sibling])
        assert_recovered(client, peer, connections=1)


def test_a_small_block_that_decodes_to_much_ends_the_connection_before_it_is_held() -> None:
    """FLT-S19: one entry of 4 KB in the table, and a byte for each of 15,000 copies: 60 MB."""
    bomb = b"\x88\x40\x01a\x7f\x81\x1f" + b"b" * 4000 + b"\xbe" * 15_000

    def behaviour(conn: H2Conn) -> None:
        conn.handshake()
        conn.send_headers(conn.read_request().stream_id, raw_block=bomb)
        attend(conn)

    with scene(behaviour, attends) as (client, peer):
        future = client.send_async("GET", "/x")

        assert isinstance(future.exception(PATIENCE), RemoteProtocolError | LimitExceeded)
        eventually(lambda: farewells(peer.connections[0]) in ([CALM], [COMPRESSION]), PATIENCE)
        assert_recovered(client, peer, connections=2)


# -- a connection that broke the protocol ----------------------------------------------------------------

VIOLATIONS: dict[str, tuple[Callable[[H2Conn], object], tuple[int, ...]]] = {
    "push": (lambda conn: conn.send_push_promise(1, 2, [(":method", "GET"), (":path", "/")]), (PROTOCOL,)),
    "push enabled": (lambda conn: conn.send_settings(enable_push=1), (PROTOCOL,)),
    "setting out of range": (lambda conn: conn.send_settings(initial_window_size=2**31), (FLOW,)),
    "frame size out of range": (lambda conn: conn.send_settings(max_frame_size=100), (PROTOCOL,)),
    "settings of 5 bytes": (lambda conn: conn.send_raw(raw_frame(SETTINGS, 0, 0, bytes(5))), (SIZE,)),
    "settings on a stream": (lambda conn: conn.send_raw(raw_frame(SETTINGS, 0, 1)), (PROTOCOL,)),
    "an acknowledgement that says more": (
        lambda conn: conn.send_raw(raw_frame(SETTINGS, 1, 0, bytes(6))), (SIZE, PROTOCOL)),
    "headers on an even stream": (lambda conn: conn.send_headers(2, OK), (PROTOCOL, ErrorCodes.STREAM_CLOSED)),
    "headers on a stream that never was": (lambda conn: conn.send_headers(99, OK), (PROTOCOL,)),
    "data on a stream that never was": (lambda conn: conn.send_data(99, b"?"), (PROTOCOL,)),
    "reset of a stream that never was": (lambda conn: conn.send_rst(99), (PROTOCOL,)),
    "window of a stream that never was": (lambda conn: conn.send_window_update(99, 1), (PROTOCOL,)),
    "data on stream 0": (lambda conn: conn.send_raw(raw_frame(DATA, 0, 0, b"?")), (PROTOCOL,)),
    "headers on stream 0": (lambda conn: conn.send_raw(raw_frame(HEADERS, 4, 0, b"\x88")), (PROTOCOL,)),
    "a frame too long": (lambda conn: conn.send_raw(raw_frame(DATA, 0, 1, bytes(20_000))), (SIZE,)),
    "padding longer than data": (lambda conn: conn.send_raw(raw_frame(DATA, 8, 3, b"\x09abc")), (PROTOCOL,)),
    "padding longer than headers": (lambda conn: conn.send_raw(raw_frame(HEADERS, 12, 1, b"\x09\x88")), (PROTOCOL,)),
    "ping of 7 bytes": (lambda conn: conn.send_raw(raw_frame(PING, 0, 0, bytes(7))), (SIZE,)),
    "ping on a stream": (lambda conn: conn.send_raw(raw_frame(PING, 0, 1, bytes(8))), (PROTOCOL,)),
    "reset of 3 bytes": (lambda conn: conn.send_raw(raw_frame(3, 0, 3, bytes(3))), (SIZE,)),
    "window of 3 bytes": (lambda conn: conn.send_raw(raw_frame(WINDOW, 0, 0, bytes(3))), (SIZE,)),
    "window by nothing": (lambda conn: conn.send_raw(raw_frame(WINDOW, 0, 0, bytes(4))), (PROTOCOL,)),
    "window beyond all bounds": (lambda conn: conn.send_raw(_WIDE * 2), (FLOW,)),
    "goaway on a stream": (lambda conn: conn.send_raw(raw_frame(GOAWAY, 0, 1, bytes(8))), (PROTOCOL,)),
    "goaway of 7 bytes": (lambda conn: conn.send_raw(raw_frame(GOAWAY, 0, 0, bytes(7))), (SIZE, PROTOCOL)),
    "continuation of nothing": (lambda conn: conn.send_continuation(1, b"\x88"), (PROTOCOL,)),
    "a ping within a block": (
        lambda conn: conn.send_raw(_HALF + _A_PING), (PROTOCOL,)),
    "continuation of another": (
        lambda conn: conn.send_raw(_HALF + raw_frame(CONTINUATION, 4, 3, b"\x88")), (PROTOCOL,)),
    "a block that cannot be read": (lambda conn: conn.send_headers(1, raw_block=b"\xff\xff\xff\xff"), (COMPRESSION,)),
    "an entry that is not there": (lambda conn: conn.send_headers(1, raw_block=b"\xfe"), (COMPRESSION,)),
}  # fmt: skip


def _assert_cut_off(violation: str, scheme: str, authority: Authority) -> None:
    act, codes = VIOLATIONS[violation]
    with scene(attends, answers, authority=authority, scheme=scheme) as (client, peer):
        assert client.get("/next").content == NEXT
        get, post = sent_all(client, peer, "/get", ("POST", "/post"))
        conn = peer.connections[0]
        conn.do(lambda: act(conn))

        assert_answered([get], NEXT)
        error = error_of(post, RemoteProtocolError, "maybe", may_retry=False)
        assert error.facts["error_code"] in [ErrorCodes(code).name for code in codes]
        eventually(lambda: conn.raw.peer_closed_at, PATIENCE)
        assert len(farewells(conn)) == 1
        assert farewells(conn)[0] in codes
        assert_recovered(client, peer, connections=2, replays=1)


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_server_that_breaks_the_protocol_is_told_so_and_left(violation: str, authority: Authority) -> None:
    """FLT-S21, FLT-S23, BEH-M7: GOAWAY with the right code; each request judged on its own; a new connection."""
    _assert_cut_off(violation, "http", authority)


@pytest.mark.parametrize("violation", ["push", "data on stream 0"])
def test_a_server_that_breaks_the_protocol_over_tls_is_told_so_and_left(violation: str, authority: Authority) -> None:
    """FLT-S21, FLT-S23: the same."""
    _assert_cut_off(violation, "https", authority)


# -- a stream that did -----------------------------------------------------------------------------------

MALFORMED: dict[str, tuple[list[tuple[bytes, bytes]], bytes]] = {
    "a line feed in a value": ([(b"x", b"a\nb: c")], b""),
    "a carriage return in a value": ([(b"x", b"a\rb")], b""),
    "a nul in a value": ([(b"x", b"a\0b")], b""),
    "capitals in a name": ([(b"X-Big", b"1")], b""),
    "a space in a name": ([(b"x y", b"1")], b""),
    "an empty name": ([(b"", b"1")], b""),
    "a connection field": ([(b"connection", b"close")], b""),
    "a transfer coding": ([(b"transfer-encoding", b"chunked")], b""),
    "a pseudo-field that is none": ([(b":what", b"1")], b""),
    "a pseudo-field of requests": ([(b":path", b"/")], b""),
    "a status twice": ([(b":status", b"200")], b""),
    "a pseudo-field after others": ([(b"x", b"1"), (b":status", b"200")], b""),
    "two lengths": ([(b"content-length", b"3"), (b"content-length", b"4")], b"abc"),
    "no length": ([(b"content-length", b"+3")], b"abc"),
    "more than its length": ([(b"content-length", b"2")], b"abc"),
    "less than its length": ([(b"content-length", b"4")], b"abc"),
}


@pytest.mark.parametrize("how", MALFORMED)
def test_a_malformed_response_fails_alone_and_delivers_nothing(how: str) -> None:
    """FLT-S24: RST_STREAM(PROTOCOL_ERROR); what the fields say reaches nobody, and the connection goes on."""
    fields, body = MALFORMED[how]
    with scene() as (client, peer):
        future, sibling = sent_all(client, peer, "/x", "/sibling")
        conn = peer.connections[0]
        conn.do(conn.send_headers, 1, [(b":status", b"200"), *fields], end_stream=not body)
        conn.do(conn.send_data, 1, body, end_stream=True) if body else None

        error = future.exception(PATIENCE)
        assert isinstance(error, IncompleteRead if "less" in how else RemoteProtocolError), repr(error)
        assert error.phase == "recv"
        conn.do(conn.respond, 3)
        assert_answered([sibling])
        assert_recovered(client, peer, connections=1)
        assert all(code == PROTOCOL for _, code in resets(conn))


@SCHEMES
@pytest.mark.parametrize("fields", [[], [(":status", "20")], [(":status", "1000")], [(":status", "two")]])
def test_a_response_without_a_proper_status_fails_alone(
    fields: list[tuple[str, str]], scheme: str, authority: Authority
) -> None:
    """FLT-S24: there is nothing that could be delivered."""
    with scene(authority=authority, scheme=scheme) as (client, peer):
        future, sibling = sent_all(client, peer, "/x", "/sibling")
        conn = peer.connections[0]
        conn.do(conn.send_headers, 1, [*fields, ("x", "y")])

        error_of(future, RemoteProtocolError, "maybe", may_retry=True, phase="recv")
        conn.do(conn.respond, 3)
        assert_answered([sibling])
        assert_recovered(client, peer, connections=1)
        assert resets(conn) == [(1, PROTOCOL)]


def test_data_before_any_header_fails_its_stream_or_the_connection() -> None:
    """FLT-S23: whichever; nothing is delivered, and the next request works."""
    with scene() as (client, peer):
        assert client.get("/next").content == NEXT
        (future,) = sent_all(client, peer, ("POST", "/x"))
        conn = peer.connections[0]
        conn.do(conn.send_data, 3, b"what?", end_stream=True)

        assert isinstance(future.exception(PATIENCE), RemoteProtocolError)
        eventually(lambda: farewells(conn) == [PROTOCOL] or resets(conn) == [(3, PROTOCOL)], PATIENCE)
        assert client.get("/next").content == NEXT


def test_what_nobody_knows_is_ignored() -> None:
    """FLT-S23: frames, flags and settings to come (RFC 9113 section 5.5)."""
    with scene() as (client, peer):
        (future,) = sent_all(client, peer, "/x")
        conn = peer.connections[0]
        conn.do(conn.send_raw, raw_frame(0xBE, 0xFF, 0, b"of the future") + raw_frame(0xEF, 0, 1, b"as well"))
        conn.do(conn.send_settings, {0xBEEF & 0xFF: 1})
        conn.do(conn.respond, 1)

        assert_answered([future])
        assert_recovered(client, peer, connections=1)
