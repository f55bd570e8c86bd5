"""Timeouts: what is accepted, and what each form means."""

from __future__ import annotations

import math

import httpx
import pytest

from turbopool.config import Timeout


def test_a_number_is_the_total() -> None:
    assert Timeout.of(5) == Timeout(total=5) == Timeout(5)
    assert Timeout.of(2.5).total == 2.5


def test_none_is_no_bound_at_all() -> None:
    assert Timeout.of(None) == Timeout()


def test_a_timeout_is_taken_as_it_is() -> None:
    timeout = Timeout(total=9, queue=1, connect=2, read=3, write=4)

    assert Timeout.of(timeout) is timeout


def test_one_number_in_httpxs_timeout_bounds_the_total_too() -> None:
    assert Timeout.of(httpx.Timeout(5.0)) == Timeout(5.0, queue=5.0, connect=5.0, read=5.0, write=5.0)
    assert Timeout.of(httpx.Timeout(None)) == Timeout()


def test_phases_of_httpxs_timeout_keep_their_meaning() -> None:
    theirs = httpx.Timeout(connect=1.0, read=2.0, write=3.0, pool=4.0)

    assert Timeout.of(theirs) == Timeout(None, queue=4.0, connect=1.0, read=2.0, write=3.0)


@pytest.mark.parametrize("value", [-1, -0.1, math.nan, math.inf, True, "5", (1, 2)])
def test_nonsense_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="timeout total"):
        Timeout.of(value)


@pytest.mark.parametrize("field", ["queue", "connect", "read", "write"])
def test_the_message_names_the_field(field: str) -> None:
    with pytest.raises(ValueError, match=f"timeout {field} .*-1"):
        Timeout(**{field: -1})
