"""The parser against what hypothesis thinks of: any response in any chunking, and any bytes at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transport.parsing import Fields, Parsed, bytewise, cut
from turbopool.errors import TurboPoolError
from turbopool.transport.head import Limits
from turbopool.transport.http1 import ResponseParser

EXAMPLES = settings(max_examples=120, deadline=None)
FEW = settings(max_examples=50, deadline=None)

_TCHARS = b"!#$%&'*+-.^_`|~0123456789abcXYZ"
_TAKEN = (b"content-length", b"transfer-encoding", b"connection", b"keep-alive")
_NO_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Answer:
    """A valid response as it goes over the wire, and what is to be understood."""

    method: str
    data: bytes
    ends_with_connection: bool
    meaning: Parsed
    hints: bytes
    """Informational responses before it."""


def _bytes_of(alphabet: bytes, *, min_size: int = 0, max_size: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(list(alphabet)), min_size=min_size, max_size=max_size).map(bytes)


_visible = bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))
_values = _bytes_of(_visible + b" \t", max_size=14).map(lambda value: value.strip(b" \t"))
_names = _bytes_of(_TCHARS, min_size=1, max_size=8).filter(lambda name: name.lower() not in _TAKEN)
_fields = st.lists(st.tuples(_names, _values), max_size=4)
_extensions = st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b";a;b=c;d"])
_pads = st.sampled_from([b"", b" ", b"\t ", b"  "])


@st.composite
def _chunks(draw: st.DrawFn, body: bytes, trailers: Fields) -> bytes:
    """`body` in chunks of any size and spelling."""
    written = b""
    for piece in cut(body, draw(st.lists(st.integers(0, 1000), max_size=4))) if body else []:
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x"])) % len(piece)
        written += size + draw(_extensions) + b"\r\n" + piece + b"\r\n"
    end = draw(st.sampled_from([b"0", b"000"])) + draw(_extensions) + b"\r\n"
    return written + end + _lines(trailers) + b"\r\n"


def _lines(fields: Fields) -> bytes:
    return b"".join(b"%s: %s\r\n" % field for field in fields)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Any valid response: sized, chunked, close-delimited or without a body; 1.1 or 1.0; informational ones before."""
    framing = draw(st.sampled_from(["sized", "chunked", "close", "none"]))
    version = "1.1" if framing == "chunked" else draw(st.sampled_from(["1.1", "1.0"]))
    method = draw(st.sampled_from(["GET", "POST"]))
    status = draw(st.sampled_from([200, 201, 404, 503, 999]))
    if framing == "none":
        method, status = draw(st.sampled_from([("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)]))
    body = b"" if framing == "none" else draw(st.binary(max_size=60))
    fields = draw(_fields)
    trailers = draw(_fields) if framing == "chunked" else []
    kept = draw(st.sampled_from([None, True, False]))
    if kept is not None:
        fields.append((b"Connection", b"keep-alive" if kept else b"close"))
    if framing == "sized":
        fields.insert(0, (b"Content-Length", b"%d" % len(body)))
    elif framing == "chunked":
        fields.append((b"transfer-encoding", b"chunked"))
    elif framing == "none":
        fields += draw(st.sampled_from([[], [(b"content-length", b"7")]]))
    reason = draw(_values)
    written = draw(_chunks(body, trailers)) if framing == "chunked" else body
    pad, lines = draw(_pads), b""
    for name, value in fields:  # blanks around a value mean nothing, but a length is to be written plainly
        lines += b"%s:%s%s%s\r\n" % (name, pad, value, b"" if name.lower() == b"content-length" else pad)
    meaning = Parsed(
        status=status,
        reason=reason,
        version=version,
        fields=fields,
        body=body,
        trailers=trailers,
        complete=True,
        leftover=False,
        keep_alive=framing != "close" and (version == "1.1" if kept is None else kept),
    )
    head = b"HTTP/%s %d %s\r\n%s\r\n" % (version.encode(), status, reason, lines)
    hints = b"".join(b"HTTP/1.1 103 Early\r\n%s\r\n" % _lines(draw(_fields)) for _ in range(draw(st.integers(0, 2))))
    return Answer(method, head + written, framing == "close", meaning, hints)


def _parse(parser: ResponseParser, answer: Answer, segments: list[bytes]) -> Parsed:
    parser.start(answer.method)
    for segment in segments:
        parser.receive(segment)
    if answer.ends_with_connection:
        assert not parser.complete
        parser.receive_end(truncated=False)
    return Parsed.of(parser)


@EXAMPLES
@given(answers(), st.lists(st.integers(0, 10_000), max_size=8), st.binary(max_size=3))
def test_any_response_means_the_same_in_any_chunking(answer: Answer, places: list[int], extra: bytes) -> None:
    """FLT-N16, H4: down to single bytes; what is left over included."""
    extra = b"" if answer.ends_with_connection else extra
    data = answer.hints + answer.data + extra

    for segments in ([data], cut(data, places), bytewise(data)):
        parsed = _parse(ResponseParser(Limits()), answer, segments)

        assert parsed == replace(answer.meaning, leftover=bool(extra))


@FEW
@given(st.lists(st.tuples(answers(), st.lists(st.integers(0, 10_000), max_size=3)), min_size=2, max_size=4))
def test_responses_on_one_connection_know_nothing_of_each_other(exchanges: list[tuple[Answer, list[int]]]) -> None:
    """FLT-N16, H6: the same head may come again, and mean something else for another method."""
    parser = ResponseParser(Limits())

    for answer, places in [*exchanges, *exchanges]:
        if answer.meaning.keep_alive:
            assert _parse(parser, answer, cut(answer.hints + answer.data, places)) == answer.meaning


@EXAMPLES
@given(answers().filter(lambda answer: not answer.ends_with_connection))
def test_a_response_is_complete_with_its_last_byte_and_no_sooner(answer: Answer) -> None:
    """FLT-H1, H2."""
    parser = ResponseParser(Limits())
    parser.start(answer.method)

    for segment in bytewise(answer.data):
        assert not parser.complete
        parser.receive(segment)

    assert parser.complete


_mutations = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "repeat"]),
        st.integers(0, 10_000),
        st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b"0", b"5", b"f", b"-", b"H", b"\xff",
                         b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 200 OK\r\n"]),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


def _mutated(data: bytes, mutations: list[tuple[str, int, bytes]]) -> bytes:
    for how, place, piece in mutations:
        at = place % (len(data) + 1)
        changed = {
            "replace": piece + data[at + len(piece) :],
            "insert": piece + data[at:],
            "delete": data[at + 1 :],
            "repeat": data[max(0, at - 9) :],
        }
        data = data[:at] + changed[how]
    return data


def _outcome(method: str, segments: list[bytes]) -> tuple[Parsed | type[TurboPoolError], int | None]:
    """What came out, and after how many segments the response was complete."""
    parser = ResponseParser(Limits())
    parser.start(method)
    complete_after = None
    try:
        for number, segment in enumerate(segments, 1):
            parser.receive(segment)
            if parser.complete and complete_after is None:
                complete_after = number
    except TurboPoolError as error:
        return type(error), None
    return Parsed.of(parser), complete_after


def _check(method: str, data: bytes) -> None:
    whole, _ = _outcome(method, [data])
    slowly, complete_after = _outcome(method, bytewise(data))

    assert whole == slowly
    if isinstance(whole, Parsed) and whole.reusable:  # then every byte belonged to it
        assert complete_after == len(data)


@settings(EXAMPLES, max_examples=400)
@given(answers(), _mutations, st.booleans())
def test_a_spoiled_response_is_an_error_of_ours_or_understood_to_the_last_byte(
    answer: Answer,
    mutations: list[tuple[str, int, bytes]],
    hinted: bool,  # noqa: FBT001
) -> None:
    """FLT-H4..H18: nothing else is ever raised, and no connection is kept that holds a byte too many."""
    _check(answer.method, _mutated((answer.hints if hinted else b"") + answer.data, mutations))


@EXAMPLES
@given(
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
    st.one_of(st.binary(max_size=60), _bytes_of(b"HTP/1.0 2\r\n:;aA5f", max_size=40)),
)
def test_any_bytes_are_an_error_of_ours_or_understood_to_the_last_byte(start: bytes, rest: bytes) -> None:
    """FLT-H10, H12, H16."""
    if start + rest:
        _check("GET", start + rest)


@FEW
@given(answers(), answers(), st.lists(st.integers(0, 10_000), max_size=3))
def test_a_second_response_in_the_same_bytes_is_never_told(one: Answer, other: Answer, places: list[int]) -> None:
    """FLT-H4, M1."""
    if one.ends_with_connection:
        return

    parsed = _parse(ResponseParser(Limits()), one, cut(one.data + other.data, places))

    assert parsed == replace(one.meaning, leftover=True)
