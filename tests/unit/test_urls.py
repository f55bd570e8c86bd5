"""URLs: one spelling for each, and no URL that could be read in two ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopool.errors import InvalidRequest
from turbopool.urls import Site, Url, parse_url, query_pairs


def test_an_absolute_url_is_taken_apart() -> None:
    url = parse_url("https://example.com:8443/a/b?c=d#e")

    assert url == Url(Site("https", "example.com", 8443, "https://example.com:8443"), "/a/b?c=d")
    assert url.text == "https://example.com:8443/a/b?c=d"
    assert url.site.authority == "example.com:8443"
    assert url.origin == "https://example.com:8443"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http://x", "http://x/"),
        ("http://x?a", "http://x/?a"),
        ("http://x:80/", "http://x/"),
        ("http://x:/", "http://x/"),
        ("HTTPS://X:443/", "https://x/"),
        ("https://x:80/", "https://x:80/"),
        ("http://Example.COM./A", "http://example.com/A"),
        ('http://x/a b"<é>?q=ü&r=%41', "http://x/a%20b%22%3C%C3%A9%3E?q=%C3%BC&r=%41"),
        ("http://x/100%?50%zz", "http://x/100%25?50%25zz"),
        ("http://x/a/./b/../c", "http://x/a/c"),
        ("http://x/../..", "http://x/"),
        ("http://x/.well-known/a.", "http://x/.well-known/a."),
        ("http://x//a", "http://x//a"),
        ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
    ],
)
def test_equal_urls_get_one_spelling(text: str, normal: str) -> None:
    url = parse_url(text)

    assert url.text == str(url) == normal
    assert parse_url(normal) == url


def test_an_ipv6_host_stands_in_brackets_only_where_it_is_written() -> None:
    url = parse_url("http://[fe80::1%25eth0]:81/")

    assert url.site.host == "fe80::1%eth0"
    assert url.site.authority == "[fe80::1]:81"


@pytest.mark.parametrize("base", ["http://h/v1", "http://h/v1/"])
@pytest.mark.parametrize(
    ("reference", "target"),
    [("users", "/v1/users"), ("/users", "/v1/users"), ("", "/v1/"), ("?a=1", "/v1/?a=1"), ("a:b", "/v1/a:b")],
)
def test_a_relative_url_is_appended_to_the_path_of_the_base(base: str, reference: str, target: str) -> None:
    """BEH-C8, in part."""
    assert parse_url(reference, base=base).target == target


def test_an_absolute_url_ignores_the_base() -> None:
    assert parse_url("https://other/x", base="http://h/v1").text == "https://other/x"


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ({"a": 1, "b": [1, "2"], "c": None, "d": True, "e": "x y&é"}, "q=1&a=1&b=1&b=2&d=true&e=x+y%26%C3%A9"),
        ([("a", "1"), ("a", "2")], "q=1&a=1&a=2"),
        ("a=1 2", "q=1&a=1%202"),
        (b"?a=1", "q=1&a=1"),
        ({}, "q=1"),
        (None, "q=1"),
    ],
)
def test_params_are_added_to_the_query_that_is_there(params: dict[str, object] | None, query: str) -> None:
    assert parse_url("http://x/p?q=1", params=params).target == f"/p?{query}"


def test_params_of_a_url_without_query_begin_one() -> None:
    assert parse_url("http://x/p", params={"a": "1"}).text == "http://x/p?a=1"
    assert parse_url("http://x/p?", params={"a": "1"}).text == "http://x/p?a=1"


def test_text_params_are_read_back_as_pairs() -> None:
    assert query_pairs("?a=1&b=&c=x+y") == [("a", "1"), ("b", ""), ("c", "x y")]


def test_a_url_of_another_library_is_taken_by_its_text() -> None:
    class Foreign:
        def __str__(self) -> str:
            return "http://x/y"

    assert parse_url(Foreign()).text == "http://x/y"


def test_a_long_url_is_parsed_like_a_short_one() -> None:
    path = "/" + "a" * 5000

    assert parse_url(f"http://x{path}").target == path


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("/users", "relative"),
        ("", "relative"),
        ("//x/y", "no scheme"),
        ("localhost:8080/x", "no host"),
        ("http:/x", "no host"),
        ("http://", "no host"),
        ("http:///x", "no host"),
        ("ftp://x/", "scheme 'ftp'"),
        ("ws://x/", "scheme 'ws'"),
        ("http://user:secret@x/", "credentials"),
        ("http://good\\@secret/", "credentials"),
        ("http://x/\r\nHost: secret", "control character"),
        ("http://x/\x00", "control character"),
        ("http://a b/", "not a valid name"),
        ("http://a..b/", "not a valid name"),
        ("http://good\\evil/", "not a valid name"),
        ("http://%61.com/", "not a valid name"),
        ("http://\u2100.com/", "not a valid name"),
        ("http://" + "a" * 64 + "/", "not a valid name"),
        ("http://" + "é" * 300 + "/", "not a valid name"),
        ("http://é" + "." * 9 + "/", "IDNA"),
        ("http://[zz]/", "IPv6"),
        ("http://[::1/", "malformed"),
        ("http://x:8o/", "malformed"),
        ("http://x:\u0661/", "malformed"),
        ("http://x:0/", "out of range"),
        ("http://x:65536/", "out of range"),
        ("http://x:" + "9" * 5000 + "/", "out of range"),
        ("http://x/\udc80", "UTF-8"),
    ],
)
def test_a_url_that_cannot_be_requested_is_refused_saying_why(text: str, wrong: str) -> None:
    """BEH-C8, in part; no message repeats what may be a secret."""
    with pytest.raises(InvalidRequest, match=wrong) as caught:
        parse_url(text)

    assert caught.value.advice
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "wrong"), [("/v1", "relative"), ("http://h/?a=1", "no query"), ("http://h/#a", "no query")]
)
def test_a_base_must_be_absolute_and_without_query(base: str, wrong: str) -> None:
    with pytest.raises(InvalidRequest, match=wrong):
        parse_url("x", base=base)


def test_a_reference_can_not_leave_the_host_of_its_base() -> None:
    with pytest.raises(InvalidRequest, match="no scheme"):
        parse_url("//evil/x", base="http://h/")


def outcome(text: str, base: str | None) -> Url | str:
    """The URL, or why it is none."""
    try:
        return parse_url(text, base=base)
    except InvalidRequest as error:
        return str(error)


@given(
    st.text(st.sampled_from("ab/.:?%@[] #\n\u00e9"), max_size=12),
    st.sampled_from(["", "http://h/", "http://h:8", "HTTPS://", "ftp://h/", "h+1://h/"]),
    st.sampled_from([None, "http://base/v1"]),
)
def test_a_url_in_wire_form_already_is_read_as_any_other(tail: str, start: str, base: str | None) -> None:
    """A fragment is not sent, and has the URL looked at closely."""
    text = start + tail

    assert outcome(text, base) == outcome(text + "#", base)


@pytest.mark.parametrize("url", [b"http://x/", None])
def test_what_is_no_text_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="of type"):
        parse_url(url, base="http://h/")


@pytest.mark.parametrize("params", [5, ["a"], "a=\n", {"a": "\udc80"}])
def test_params_that_are_no_query_are_refused(params: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_url("http://x/", params=params)
