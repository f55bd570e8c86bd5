"""Content codings: any chunking gives the same bytes, and nothing a server sends exhausts memory or time."""

from __future__ import annotations

import gzip
import importlib
import itertools
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopool.decoding import Decoder, accept_encoding, decode
from turbopool.errors import DecodeError, LimitExceeded

LIMIT = 1 << 30
PLAIN = b"".join(b"%d," % number for number in range(40_000))
Encode = Callable[[bytes], bytes]


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


def br(data: bytes) -> bytes:
    compressed: bytes = importlib.import_module("brotli").compress(data, quality=5)
    return compressed


def zstd(data: bytes) -> bytes:
    compressed: bytes = importlib.import_module("zstandard").ZstdCompressor().compress(data)
    return compressed


def two_members(encode: Encode) -> Encode:
    return lambda data: encode(data[:9]) + encode(data[9:])


OFFERED = accept_encoding().split(", ")
CODINGS = [
    pytest.param(coding, encode, id=name, marks=pytest.mark.skipif(coding not in OFFERED, reason="not installed"))
    for name, coding, encode in (
        ("gzip", "gzip", gzip.compress),
        ("gzip members", "gzip", two_members(gzip.compress)),
        ("zlib", "deflate", zlib.compress),
        ("raw deflate", "deflate", raw_deflate),
        ("br", "br", br),
        ("zstd", "zstd", zstd),
        ("zstd frames", "zstd", two_members(zstd)),
    )
]
SINGLE = [
    pytest.param(coding, encode, id=coding, marks=pytest.mark.skipif(coding not in OFFERED, reason="not installed"))
    for coding, encode in (("gzip", gzip.compress), ("deflate", raw_deflate), ("br", br), ("zstd", zstd))
]


def test_what_can_be_decoded_is_offered() -> None:
    assert OFFERED[:2] == ["gzip", "deflate"]
    assert set(OFFERED[2:]) <= {"br", "zstd"}


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
def test_a_body_is_decoded_whole(coding: str, encode: Encode) -> None:
    assert decode(encode(PLAIN), [coding], limit=len(PLAIN)) == PLAIN


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_any_chunking_gives_the_same_bytes(coding: str, encode: Encode, cuts: list[int]) -> None:
    body = encode(PLAIN[:1000])
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    decoder = Decoder([coding])

    decoded = b"".join(decoder.feed(body[one:other]) for one, other in itertools.pairwise(bounds))

    assert decoded + decoder.flush() == PLAIN[:1000]


@pytest.mark.parametrize(("coding", "encode"), SINGLE)
def test_a_body_cut_anywhere_is_never_a_short_success(coding: str, encode: Encode) -> None:
    """BEH-H7, in part."""
    body = encode(PLAIN[:300])

    for end in range(1, len(body)):
        with pytest.raises(DecodeError, match=coding):
            decode(body[:end], [coding], limit=LIMIT)


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
@pytest.mark.parametrize(("before", "after"), [(b"junk", b""), (b"", b"junk"), (b"", b"\x00junk")])
def test_a_corrupt_body_is_an_error(coding: str, encode: Encode, before: bytes, after: bytes) -> None:
    """BEH-H7, in part."""
    with pytest.raises(DecodeError) as caught:
        decode(before + encode(PLAIN) + after, [coding], limit=LIMIT)

    assert caught.value.facts == {"coding": coding}
    assert (caught.value.processed, caught.value.request_sent) == ("yes", True)


def test_a_wrong_checksum_is_an_error() -> None:
    """BEH-H7, in part."""
    body = bytearray(gzip.compress(PLAIN))
    body[-5] ^= 1

    with pytest.raises(DecodeError, match="not valid gzip") as caught:
        decode(bytes(body), ["gzip"], limit=LIMIT)
    assert isinstance(caught.value.__cause__, zlib.error)


def test_zero_bytes_after_gzip_are_padding() -> None:
    assert decode(gzip.compress(PLAIN) + bytes(70_000), ["gzip"], limit=LIMIT) == PLAIN


@pytest.mark.parametrize("coding", [*OFFERED, "identity", "unknown"])
def test_an_empty_body_is_complete_in_any_coding(coding: str) -> None:
    assert decode(b"", [coding], limit=LIMIT) == b""


@pytest.mark.parametrize("encodings", [["deflate", "gzip"], ["deflate, X-GZIP"], ["Deflate", "identity", " gzip "]])
def test_codings_are_undone_in_reverse_order(encodings: list[str]) -> None:
    assert decode(gzip.compress(zlib.compress(PLAIN)), encodings, limit=LIMIT) == PLAIN


@pytest.mark.parametrize(
    ("encodings", "body", "decoded"),
    [
        ([], b"x", b"x"),
        (["identity"], b"x", b"x"),
        (["unknown"], b"x", b"x"),
        (["gzip", "unknown"], b"x", b"x"),
        (["unknown", "gzip"], gzip.compress(b"x", mtime=0), b"x"),
    ],
)
def test_an_unknown_coding_is_passed_through_with_all_below_it(
    encodings: list[str], body: bytes, decoded: bytes
) -> None:
    assert decode(body, encodings, limit=LIMIT) == decoded


def test_too_many_codings_are_refused_before_any_is_undone() -> None:
    """FLT-H20, in part."""
    with pytest.raises(DecodeError, match=r"codings=1000, limit=5"):
        Decoder(["gzip"] * 1000)


@pytest.mark.parametrize(("coding", "encode"), SINGLE)
def test_a_bomb_is_stopped_at_the_limit_without_being_allocated(coding: str, encode: Encode) -> None:
    """FLT-H19."""
    bomb = encode(bytes(64 << 20))
    tracemalloc.start()

    with pytest.raises(LimitExceeded) as caught:
        decode(bomb, [coding], limit=1 << 20)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.option == "max_buffered_body"
    assert caught.value.facts["limit"] == 1 << 20
    assert peak < 6 << 20


def test_the_limit_holds_for_what_lies_between_two_codings() -> None:
    """FLT-H19: empty members by the million decode to nothing, but cost time."""
    body = gzip.compress(gzip.compress(b"") * 200_000)

    with pytest.raises(LimitExceeded):
        decode(body, ["gzip", "gzip"], limit=1 << 20)


def test_the_limit_itself_may_be_reached() -> None:
    body = gzip.compress(bytes(1000))

    assert len(decode(body, ["gzip"], limit=1000)) == 1000
    with pytest.raises(LimitExceeded):
        decode(body, ["gzip"], limit=999)
    with pytest.raises(LimitExceeded):
        decode(b"xx", [], limit=1)


@pytest.mark.parametrize(("coding", "encode"), SINGLE)
def test_streaming_has_no_bound_but_small_pieces(coding: str, encode: Encode) -> None:
    """FLT-H19."""
    sizes = [len(piece) for piece in Decoder([coding]).pieces(encode(bytes(16 << 20)))]

    assert sum(sizes) == 16 << 20
    assert max(sizes) <= 2 << 20


def test_many_gzip_members_cost_linear_time() -> None:
    """FLT-H20: quadratic, ten times the members would cost a hundred times the time."""

    def seconds(members: int) -> float:
        body = gzip.compress(b"x") * members
        began = time.process_time()
        assert len(decode(body, ["gzip"], limit=LIMIT)) == members
        return time.process_time() - began

    few = min(seconds(5_000) for _ in range(3))

    assert seconds(50_000) < 40 * few
