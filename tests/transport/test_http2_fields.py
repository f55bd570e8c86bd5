"""Header blocks: what is remembered of them always means what it would mean anew, and what they say is judged."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple
from hyperframe.frame import HeadersFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.frames import OK, TABLE_SIZE, Server, of, request
from tests.transport.frames import settings as settings_frame
from turbopool.errors import LimitExceeded, RemoteProtocolError
from turbopool.transport.head import Field, Limits
from turbopool.transport.http2_fields import FieldBlock, FieldReader, FieldWriter
from turbopool.transport.http2_wire import StreamRequest

EXAMPLES = settings(max_examples=60, deadline=None)


class ForgetfulWriter(FieldWriter):
    """Remembers nothing."""

    def prepare(self, request: StreamRequest) -> bytes:
        self._forget()
        of_another, block = request.written, super().prepare(request)
        request.written = of_another
        return block


class ForgetfulReader(FieldReader):
    """Remembers nothing."""

    def read(self, block: bytes) -> FieldBlock:
        self._known.clear()
        return super().read(block)


# -- what is remembered --------------------------------------------------------------------------------------

_sizes = st.one_of(st.sampled_from([0, 31, 64, 100, 4095, 4096, 4097, 65_536]), st.integers(0, 5000))
_steady = st.sampled_from([
    (b"accept", b"*/*"), (b"accept", b"text/html"), (b"accept-encoding", b"gzip"), (b"user-agent", b"tp/1"),
    (b"user-agent", b"u" * 250), (b"content-type", b"c" * 256), (b"accept-language", b"l" * 200), (b"te", b"trailers"),
])  # fmt: skip
_fleeting = st.tuples(st.sampled_from([b"x-id", b"cookie", b"authorization", b"etag"]), st.binary(max_size=8).map(bytes.hex).map(str.encode))  # fmt: skip  # noqa: E501
_requests = st.builds(
    request,
    st.sampled_from(["GET", "PUT", "OPTIONS"]),
    st.sampled_from(["/", "/index.html", "/a?b"]),
    st.lists(st.one_of(_steady, _steady, _fleeting), max_size=4),
    authority=st.sampled_from(["example.org", "other.example", "a" * 250]),
)


_steps = st.lists(_requests, min_size=1, max_size=4).flatmap(
    lambda again: st.lists(st.one_of(st.sampled_from(again), _requests, _sizes), max_size=24)
)


@EXAMPLES
@given(_steps)
def test_a_peer_reads_every_request_as_it_was_meant(steps: list[StreamRequest | int]) -> None:
    """BEH-M5: through insertions, evictions and the peer's resizing of its table; both tables hold the same."""
    writer, forgetful, peer = FieldWriter(), ForgetfulWriter(), Decoder()

    for step in steps:
        if isinstance(step, int):
            peer.max_allowed_table_size = step
            writer.header_table_size = forgetful.header_table_size = step
            continue
        block = writer.prepare(step)

        assert block == writer.encode([]) == forgetful.prepare(step)
        fields = [tuple(field) for field in peer.decode(block, raw=True)]
        plain = [tuple(field) for field in Decoder().decode(step.path, raw=True)]
        rest = [tuple(field) for field in Decoder().decode(step.literals, raw=True)]
        assert fields == [*step.named, *plain, *step.steady, *rest]
        assert list(peer.header_table.dynamic_entries) == list(writer.header_table.dynamic_entries)


_said = st.one_of(
    st.sampled_from([(b"server", b"nginx"), (b"content-length", b"5"), (b"x", b"y" * 900), (b"x", b"z" * 1500),
                     (b"date", b"today"), (b"etag", b'"1"'), (b"vary", b"")]),
    st.tuples(st.just(b"x-id"), st.sampled_from([b"%d" % number for number in range(6)])),
)  # fmt: skip
_answers = st.tuples(st.sampled_from([b"200", b"404", b"103", b"299"]), st.lists(st.tuples(_said, st.booleans()), max_size=4))  # fmt: skip  # noqa: E501


@EXAMPLES
@given(st.lists(st.one_of(_answers, _answers, _sizes), max_size=24), st.booleans())
def test_every_response_means_what_the_peer_said(
    steps: list[tuple[bytes, list[tuple[Field, bool]]] | int],
    huffman: bool,  # noqa: FBT001
) -> None:
    """BEH-M5, FLT-S20: the same bytes may mean something else after an insertion, an eviction, or a resizing."""
    reader, forgetful, peer = FieldReader(Limits()), ForgetfulReader(Limits()), Encoder()

    for step in steps:
        if isinstance(step, int):
            if peer.header_table_size != (size := min(step, 4096)):  # no more was offered; hpack forgets the equal
                peer.header_table_size = size
            continue
        status, said = step
        fields = [NeverIndexedHeaderTuple(*field) if secret else field for field, secret in said]
        for _ in range(2):
            block = peer.encode([(b":status", status), *fields], huffman=huffman)

            seen, anew = reader.read(block), forgetful.read(block)

            assert seen.fields == anew.fields == [field for field, _ in said]
            assert seen.status == anew.status == int(status)
            assert (seen.head is None) == (status == b"103")
            assert list(reader.header_table.dynamic_entries) == list(peer.header_table.dynamic_entries)


def test_a_block_is_read_once_as_long_as_the_table_stands() -> None:
    """BEH-M5: that is what remembering is for; more distinct blocks than are kept do not end it."""
    reader = FieldReader(Limits())
    blocks = [Encoder().encode([*OK, NeverIndexedHeaderTuple(b"n", b"%d" % number)]) for number in range(600)]

    for block in blocks:
        first = reader.read(block)

        assert reader.read(block) is first


@pytest.mark.parametrize(
    "sizes",
    [(0,), (4096,), (65_536,), (100,), (0, 4096), (0, 65_536), (2048, 8192, 16_384), (0, 0), (100, 100), (100, 0, 100),
     (4096, 0), (0, 50, 0, 200), (31, 0), (2048, 1024), (300, 100, 200)],
)  # fmt: skip
def test_the_peer_may_resize_its_table_between_requests(sizes: tuple[int, ...]) -> None:
    """BEH-M4, M5; RFC 7541 section 4.2: it is told the smallest and the last size, in the next block."""
    server = Server()
    asked = [request(fields=[(b"user-agent", b"u" * 250), (b"accept-language", letter * 250)]) for letter in
             (b"a", b"b", b"c", b"d", b"e", b"f")]  # fmt: skip
    for each in asked:
        server.opened(each)

    server.resize(*sizes)
    streams = [server.opened(each) for each in (*asked, *asked)]

    for stream, each in zip(streams, (*asked, *asked), strict=True):
        assert server.requests[stream.stream_id][4:] == list(each.steady)
    assert server.decoder.header_table.maxsize <= min(sizes[-1], 4096)


def test_the_table_is_no_larger_than_ours_however_much_the_peer_offers() -> None:
    """FLT-S19: what it offers is memory of ours as well."""
    server = Server({TABLE_SIZE: 1 << 31})

    for number in range(64):
        server.opened(request(fields=[(b"user-agent", b"%d" % number * 100)]))

    assert server.decoder.header_table._current_size <= 4096  # noqa: SLF001


def test_a_size_that_stays_is_not_told() -> None:
    """BEH-M4: SETTINGS that change nothing change nothing."""
    server = Server()
    server.opened()
    server.opened()

    server.say(settings_frame({TABLE_SIZE: 4096}))
    server.opened()

    first, second, third = (each.data for each in of(HeadersFrame, server.heard))
    assert first != second == third


# -- what is judged ------------------------------------------------------------------------------------------


def read(fields: list[Field], limits: Limits | None = None) -> FieldBlock:
    return FieldReader(limits or Limits()).read(Encoder().encode(fields))


@pytest.mark.parametrize(
    "fields",
    [
        [(b":status", b"200"), (b"Upper", b"a")],
        [(b":status", b"200"), (b"a", b"b\r\nc: d")],
        [(b":status", b"200"), (b"a", b"b\rc")],
        [(b":status", b"200"), (b"a", b"b\nc")],
        [(b":status", b"200"), (b"a", b"b\0c")],
        [(b":status", b"200"), (b"a", b"\x7f")],
        [(b":status", b"200"), (b"a", b" b")],
        [(b":status", b"200"), (b"a", b"b\t")],
        [(b":status", b"200"), (b"a b", b"c")],
        [(b":status", b"200"), (b"", b"c")],
        [(b":status", b"200"), (b"a:", b"c")],
        [(b":status", b"200"), (b"a\0", b"c")],
        [(b":status", b"200"), (b"\xe4", b"c")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"200"), (b":path", b"/")],
        [(b":status", b"200"), (b":other", b"/")],
        [(b":path", b"/"), (b":status", b"200")],
        [(b"a", b"b"), (b":status", b"200")],
        [(b":status", b"")],
        [(b":status", b"20")],
        [(b":status", b"2000")],
        [(b":status", b"099")],
        [(b":status", b"+20")],
        [(b":status", b"2\xb20")],
        [(b":status", b" 200")],
        [(b":status", b"200"), (b"connection", b"close")],
        [(b":status", b"200"), (b"keep-alive", b"timeout=5")],
        [(b":status", b"200"), (b"proxy-connection", b"close")],
        [(b":status", b"200"), (b"transfer-encoding", b"chunked")],
        [(b":status", b"200"), (b"upgrade", b"h2c")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2")],
        [(b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"01")],
        [(b":status", b"200"), (b"content-length", b"-1")],
        [(b":status", b"200"), (b"content-length", b"+1")],
        [(b":status", b"200"), (b"content-length", b"1, 1")],
        [(b":status", b"200"), (b"content-length", b"")],
        [(b":status", b"200"), (b"content-length", b"0x1")],
        [(b":status", b"200"), (b"content-length", b"1" * 19)],
        [(b":authority", b"a"), (b"b", b"c")],
    ],
)
def test_a_malformed_response_is_found_out(fields: list[Field]) -> None:
    """FLT-S24; RFC 9113 sections 8.1.1, 8.2.1 to 8.3.2: and nothing of it is handed on."""
    block = read(fields)

    assert isinstance(block.problem, RemoteProtocolError)
    assert block.head is None
    assert block.fields == []


@pytest.mark.parametrize(
    "fields",
    [
        [(b":status", b"200"), (b"content-length", b"3"), (b"content-length", b"3")],
        [(b":status", b"999")],
        [(b":status", b"200"), (b"a", b"")],
        [(b":status", b"200"), (b"a", b"b \t c\xff")],
        [(b":status", b"200"), (b"!#$%&'*+-.^_`|~09az", b"b")],
        [(b":status", b"200"), (b"set-cookie", b"a"), (b"set-cookie", b"b")],
    ],
)
def test_a_well_formed_response_passes(fields: list[Field]) -> None:
    """FLT-S24: nothing is refused that RFC 9113 allows."""
    block = read(fields)

    assert block.problem is None
    assert block.head is not None
    assert block.head.status == int(fields[0][1])
    assert block.head.fields == fields[1:]


def test_the_limit_of_a_header_section_counts_what_was_decoded() -> None:
    """FLT-S19; RFC 9113 section 10.5.1: 32 bytes a field beside its own; exactly the limit passes."""
    fields = [(b":status", b"200"), (b"a", b"b" * 100)]
    size = sum(len(name) + len(value) + 32 for name, value in fields)

    assert read(fields, Limits(max_response_headers=size)).problem is None
    problem = read(fields, Limits(max_response_headers=size - 1)).problem
    assert isinstance(problem, LimitExceeded)
    assert (problem.option, problem.facts["limit"]) == ("max_response_headers", size - 1)


def test_the_limit_of_fields_counts_each() -> None:
    """FLT-S19: exactly the limit passes."""
    fields = [(b":status", b"200")] + [(b"a", b"")] * 9

    assert read(fields, Limits(max_header_count=10)).problem is None
    problem = read(fields, Limits(max_header_count=9)).problem
    assert isinstance(problem, LimitExceeded)
    assert (problem.option, problem.facts["limit"]) == ("max_header_count", 9)


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\xff", b"\xbe", b"\x40", b"\x00\x01a", b"\x00\x7fa", b"\x00\x81\xff\x00", b"\x88\x20", b"\x3f\xe2\x1f",
     b"\xff\xff\xff\xff\xff\xff\x7f", b"\x00\x01a\x84\xff\xff\xff\xff"],
)  # fmt: skip
def test_a_block_that_cannot_be_read_is_an_hpack_error(block: bytes) -> None:
    """FLT-S19: index 0 and beyond the table, cut-off strings, Huffman rubbish, a size update late or too large."""
    with pytest.raises(HPACKError):
        FieldReader(Limits()).read(block)


@EXAMPLES
@given(st.binary(max_size=60))
def test_any_block_is_read_or_an_hpack_error(block: bytes) -> None:
    """FLT-S19, S24: and what it means does not depend on whether it was seen before."""
    reader = FieldReader(Limits())
    try:
        first = reader.read(block)
    except HPACKError:
        return

    assert (first.problem is None) or not first.fields
    if not reader.header_table.dynamic_entries:
        assert reader.read(block).fields == first.fields
