"""Header fields: case-insensitive, multi-valued, in order, and safe to send."""

from __future__ import annotations

import copy
import pickle

import pytest

from turbopool.errors import InvalidRequest
from turbopool.headers import Headers


def test_names_are_found_in_any_case_and_sent_in_their_own() -> None:
    headers = Headers({"X-Token": "a"})

    assert headers["x-token"] == headers["X-TOKEN"] == "a"
    assert "x-ToKen" in headers
    assert headers.raw == [(b"X-Token", b"a")]


def test_several_values_of_a_name_are_kept_in_order_and_joined() -> None:
    headers = Headers([("Accept", "a"), ("Via", "x"), ("accept", b"b")])

    assert headers["accept"] == "a, b"
    assert headers.get_list("ACCEPT") == ["a", "b"]
    assert headers.get_list("absent") == []
    assert list(headers) == ["accept", "via"]
    assert headers.multi_items() == [("accept", "a"), ("via", "x"), ("accept", "b")]


def test_setting_a_name_replaces_all_its_values_in_the_first_place() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3"), ("c", "4")])

    headers["A"] = "9"

    assert headers.raw == [(b"A", b"9"), (b"b", b"2"), (b"c", b"4")]


def test_adding_keeps_and_deleting_removes_all_of_a_name() -> None:
    headers = Headers()

    headers.add("Set-Cookie", "a=1")
    headers.add("set-cookie", "b=2")
    assert headers["set-cookie"] == "a=1, b=2"

    del headers["SET-COOKIE"]
    assert not headers
    with pytest.raises(KeyError):
        del headers["set-cookie"]


def test_update_replaces_names_with_all_their_new_values() -> None:
    headers = Headers({"a": "1", "b": "2"})

    headers.update([("A", "3"), ("a", "4")], c="5")

    assert headers.multi_items() == [("b", "2"), ("a", "3"), ("a", "4"), ("c", "5")]


def test_setdefault_and_get_leave_what_is_there() -> None:
    headers = Headers({"a": "1"})

    assert headers.setdefault("A", "2") == "1"
    assert headers.setdefault("b", "2") == "2"
    assert headers.get("absent") is None


def test_copies_are_independent() -> None:
    headers = Headers({"a": "1"})
    pickled: Headers = pickle.loads(pickle.dumps(headers))  # noqa: S301  # bytes of our own

    for other in (headers.copy(), copy.copy(headers), Headers(headers), pickled):
        other["a"] = "2"
        assert headers["a"] == "1"


def test_equality_ignores_case_and_order_but_not_values() -> None:
    assert Headers([("A", "1"), ("b", "2")]) == {"B": "2", "a": "1"}
    assert Headers({"a": "1"}) != Headers({"a": "2"})
    assert Headers({"a": "1"}) != [("a", "1")]
    assert Headers({"a": "1"}) != {"a": 1}


def test_fields_of_a_parser_are_taken_as_they_are_and_read_as_latin_1() -> None:
    raw = [(b"Server", b"caf\xe9"), (b"X-Odd", b" kept ")]

    headers = Headers.from_raw(raw)

    assert headers["server"] == "café"
    assert headers["x-odd"] == " kept "
    assert headers.raw == raw


def test_text_is_sent_as_latin_1_without_outer_blanks() -> None:
    assert Headers({"a": " caf\xe9\t"}).raw == [(b"a", b"caf\xe9")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a b", "x"),
        ("", "x"),
        ("a:", "x"),
        ("a\r\nb", "x"),
        ("é", "x"),
        (b"a\x00", b"x"),
        ("a", "x\r\nEvil: 1"),
        ("a", "x\n"),
        ("a", b"x\x00y"),
        ("a", "x\x7f"),
        ("a", "漢"),
        ("a", 1),
        (1, "a"),
        ("a", None),
    ],
)
def test_what_would_break_the_message_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest):
        Headers([(name, value)])
    headers = Headers({"keep": "me"})
    with pytest.raises(InvalidRequest):
        headers[name] = value
    with pytest.raises(InvalidRequest):
        headers.add(name, value)
    assert headers == {"keep": "me"}


@pytest.mark.parametrize("headers", ["text", 5, [("a", "b", "c")]])
def test_what_is_no_mapping_and_no_pairs_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest, match="no mapping"):
        Headers(headers)


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie"])
def test_secrets_show_neither_in_repr_nor_in_errors(name: str) -> None:
    assert "hunter2" not in repr(Headers({name: "hunter2", "a": "1"}))
    with pytest.raises(InvalidRequest) as caught:
        Headers({name: "hunter2\n"})
    assert "hunter2" not in str(caught.value)
