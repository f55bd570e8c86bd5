"""What becomes of a version and a policy before anything is sent: the key, the form, the refusals."""

from __future__ import annotations

import pytest

from turbopool import Client, ClientOptions, InvalidRequest, Request, UnsupportedVersion
from turbopool.prepare import Defaults, Prepared, chosen_version
from turbopool.transport.http2_wire import StreamRequest


def prepared(url: str, version: str | None = None, policy: str | None = None, **options: str) -> Prepared:
    """Prepare a request as a client with these options does."""
    defaults = Defaults(ClientOptions(**options), user_agent="x", identity="tls")  # type: ignore[arg-type]  # of several types
    return defaults.prepare(Request("GET", url, http_version=version, version_policy=policy))


@pytest.mark.parametrize(
    ("version", "policy", "scheme", "first", "may_lower"),
    [
        ("1.1", "exact", "https", "1.1", False),
        ("1.1", "or_lower", "https", "1.1", False),
        ("1.1", "or_higher", "https", "2", True),
        ("1.1", "or_higher", "http", "1.1", False),
        ("1.1", "or_lower", "http", "1.1", False),
        ("2", "exact", "https", "2", False),
        ("2", "or_lower", "https", "2", True),
        ("2", "or_higher", "https", "2", False),
        ("2", "exact", "http", "2", False),
        ("2", "or_lower", "http", "2", True),
        ("2", "or_higher", "http", "2", False),
        ("1.0", "or_lower", "https", "1.0", False),
    ],
)
def test_version_to_try_first_follows_from_policy_and_scheme(
    version: str, policy: str, scheme: str, first: str, *, may_lower: bool
) -> None:
    """BEH-P42."""
    assert chosen_version(version, policy, scheme) == (first, may_lower)


def test_versions_of_one_origin_are_keys_of_their_own() -> None:
    """BEH-P42, I12."""
    one, two = prepared("https://h/x"), prepared("https://h/x", "2")

    assert (one.key.version, two.key.version) == ("1.1", "2")
    assert one.key._replace(version="2") == two.key
    assert not isinstance(one.wire, StreamRequest)
    assert isinstance(two.wire, StreamRequest)


def test_version_of_a_request_wins_over_that_of_its_client() -> None:
    """BEH-P42."""
    assert prepared("https://h/x", "1.1", http_version="2").key.version == "1.1"
    assert prepared("https://h/x", http_version="2").key.version == "2"
    assert prepared("https://h/x", "2", "exact").may_lower is False
    assert prepared("https://h/x", "2").may_lower is True


@pytest.mark.parametrize("policy", ["exact", "or_lower", "or_higher"])
def test_http_3_is_refused_in_the_calling_thread(policy: str) -> None:
    """BEH-P42: never another version silently."""
    with Client() as client:
        with pytest.raises(UnsupportedVersion):
            client.send_async(Request("GET", "https://h.invalid/", http_version="3", version_policy=policy))
        with pytest.raises(UnsupportedVersion):
            client.send(Request("GET", "https://h.invalid/", http_version="3", version_policy=policy))
        assert not client.stats().pools


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_requests_are_checked_alike_whatever_their_version(version: str) -> None:
    """BEH-P42: in the calling thread."""
    with Client(http_version=version) as client:
        for headers in ({"x-bad": "a\r\nb"}, {"bad name": "x"}):
            with pytest.raises(InvalidRequest):
                client.send_async("GET", "http://h.invalid/", headers=headers)
        with pytest.raises(InvalidRequest):
            client.send_async("GE T", "http://h.invalid/")
