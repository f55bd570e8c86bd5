"""The exception tree: what is caught by what, what an error says, and that nothing is lost on its way."""

from __future__ import annotations

import copy
import errno
import pickle
import threading
from typing import ClassVar, TypeVar

import httpcore
import pytest

from turbopool import errors
from turbopool.errors import (
    ClientDisposed,
    ConnectError,
    DeadlineExceeded,
    HTTPStatusError,
    IncompleteRead,
    InvalidRequest,
    LimitExceeded,
    PoolError,
    PoolTimeout,
    ReadTimeout,
    StreamConsumed,
    TlsError,
    TlsVerifyError,
    TransportError,
    TurboPoolError,
    shorten,
)

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TurboPoolError)
]  # fmt: skip


def full(kind: type[TurboPoolError]) -> TurboPoolError:
    return kind(
        "it broke",
        origin="http://a:80",
        phase="recv",
        request_sent=True,
        processed="maybe",
        may_retry=True,
        attempts=2,
        advice="try later",
        errno=errno.ECONNRESET,
        waited=0.25,
    )


_E = TypeVar("_E", bound=TurboPoolError)


def reloaded(error: _E) -> _E:
    back: _E = pickle.loads(pickle.dumps(error))  # noqa: S301  # bytes of our own
    return back


def told(error: TurboPoolError) -> dict[str, object]:
    """Everything an error carries."""
    return {name: getattr(error, name) for name in (*TurboPoolError.__annotations__, "__class__")}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling_with_all_fields(kind: type[TurboPoolError]) -> None:
    error = full(kind)

    back = reloaded(error)

    assert told(back) == told(error)
    assert str(back) == str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_every_twin_of_httpcore_is_caught_as_that(kind: type[TurboPoolError]) -> None:
    twin = getattr(httpcore, kind.__name__, None)

    assert twin is None or issubclass(kind, twin)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.__name__.endswith("Timeout")] + [DeadlineExceeded])
def test_a_timeout_is_a_builtin_timeout_and_httpcores(kind: type[TurboPoolError]) -> None:
    assert issubclass(kind, TimeoutError)
    assert issubclass(kind, httpcore.TimeoutException)


def test_network_errors_carry_errno_as_oserrors_do() -> None:
    error = ConnectError("refused", errno=errno.ECONNREFUSED)

    assert isinstance(error, OSError)
    assert error.errno == errno.ECONNREFUSED
    assert ConnectError("refused").errno is None


def test_the_tree_tells_pool_transport_and_misuse_apart() -> None:
    assert issubclass(PoolTimeout, PoolError)
    assert issubclass(TlsVerifyError, TlsError)
    assert issubclass(TlsError, ConnectError)
    assert issubclass(ReadTimeout, TransportError)
    assert issubclass(InvalidRequest, ValueError)
    assert issubclass(ClientDisposed, RuntimeError)
    assert issubclass(StreamConsumed, RuntimeError)
    assert issubclass(IncompleteRead, httpcore.RemoteProtocolError)


def test_the_text_gives_message_origin_facts_and_advice_in_that_order() -> None:
    error = PoolTimeout("no connection", origin="http://a:80", advice="raise the limit", waited=0.1 + 0.2, limit=6)

    assert str(error) == "no connection [http://a:80] (waited=0.3, limit=6). raise the limit"
    assert str(PoolTimeout("no connection")) == "no connection"


def test_a_limit_names_its_option() -> None:
    assert LimitExceeded("too much", option="max_header_count", limit=256).option == "max_header_count"


def test_again_gives_each_waiter_an_own_instance_with_the_same_cause() -> None:
    cause = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    error = full(ConnectError)
    error.__cause__ = cause
    with pytest.raises(ConnectError):
        raise error

    other = error.again()

    assert other is not error
    assert told(other) == told(error)
    assert other.__cause__ is cause
    assert other.__traceback__ is None
    assert other.facts is not error.facts


def test_with_replaces_fields_and_adds_facts() -> None:
    error = full(ConnectError).with_(attempts=3, addresses=4)

    assert error.attempts == 3
    assert error.facts == {"errno": errno.ECONNRESET, "waited": 0.25, "addresses": 4}


def test_a_cause_is_pickled_along() -> None:
    error = full(ConnectError)
    error.__cause__ = OSError(errno.EACCES, "denied")

    back = reloaded(error)

    assert isinstance(back.__cause__, PermissionError)


class Stubborn(Exception):
    """Pickles, but cannot be loaded: its constructor wants two arguments and remembers one."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Holding(Exception):
    """Cannot even be pickled."""

    lock: ClassVar = threading.Lock()

    def __init__(self) -> None:
        super().__init__(self.lock)


@pytest.mark.parametrize("cause", [Stubborn("x", 1), Holding()])
def test_a_cause_that_cannot_be_pickled_is_left_behind(cause: Exception) -> None:
    error = full(ConnectError)
    error.__cause__ = cause

    back = reloaded(error)

    assert back.__cause__ is None
    assert told(back) == told(error)


def test_a_copy_is_equal_and_keeps_the_cause() -> None:
    error = full(ConnectError)
    error.__cause__ = OSError("x")

    other = copy.copy(error)

    assert told(other) == told(error)
    assert other.__cause__ is error.__cause__


def test_a_status_error_keeps_request_and_response_where_it_can() -> None:
    error = HTTPStatusError("404", request={"method": "GET"}, response=threading.Lock(), processed="yes")

    back = reloaded(error)

    assert error.again().response is error.response
    assert back.request == {"method": "GET"}
    assert back.response is None
    assert back.processed == "yes"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 200", "HTTP/1.1 200"),
        (b"a\r\n\x00\xff", "a\\r\\n\\x00\\xff"),
        (b"x" * 9, "xxxxxxxx..."),
        (b"\x00" * 9, "\\x00\\x00..."),
    ],
)
def test_bytes_of_a_peer_are_escaped_and_cut(data: bytes, text: str) -> None:
    assert shorten(data, 20 if b"\r" in data or b"H" in data else 8) == text
