"""The bounds over several keys, by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turbopool.actors.quota import Quota, host_of
from turbopool.clock import NEVER
from turbopool.stats import PoolKey

A = PoolKey.of("http", "a.test")
OLD_A = A._replace(version="1.0")
B = PoolKey.of("http", "b.test")
C = PoolKey.of("http", "c.test")


def taken(quota: Quota, *keys: PoolKey) -> Quota:
    """Take a connection of each key."""
    for key in keys:
        assert quota.take(key)
    return quota


@pytest.mark.parametrize("nothing", [None, 0])
def test_without_bounds_there_is_always_room(nothing: int | None) -> None:
    """BEH-P35."""
    quota = Quota(nothing, nothing)

    taken(quota, *[A] * 1000)

    assert not quota.is_bounded
    assert quota.has_room(A)


def test_total_counts_all_keys() -> None:
    """BEH-P35."""
    quota = taken(Quota(None, 2), A, B)

    assert not quota.take(C)
    quota.give(A)
    assert quota.take(C)
    assert not quota.take(A)


def test_host_counts_all_its_versions_and_no_other_host() -> None:
    """BEH-P35, BEH-P42."""
    quota = taken(Quota(2, None), A, OLD_A)

    assert not quota.take(A)
    assert not quota.take(OLD_A)
    assert quota.take(B)


def test_host_is_the_same_in_any_case_and_with_any_tls() -> None:
    """BEH-P35."""
    one = PoolKey.of("HTTPS", "A.Test.", identity="one")
    other = PoolKey.of("https", "a.test", 443, "1.0", identity="other")

    assert host_of(one) == host_of(other)
    assert host_of(one) != host_of(A)


def test_what_was_refused_is_not_counted() -> None:
    """BEH-P35."""
    quota = taken(Quota(None, 1), A)
    for _ in range(5):
        assert not quota.take(B)

    quota.give(A)

    assert quota.take(B)


def test_reset_forgets_all_of_a_key_and_its_place_in_line() -> None:
    """BEH-P40."""
    quota = taken(Quota(None, 3), A, A, B)
    quota.want(A, 1.0)

    quota.reset(A)

    assert quota.wanted_since == NEVER
    taken(quota, C, C)
    assert not quota.take(C)


def test_reset_of_a_key_that_holds_nothing_changes_nothing() -> None:
    """BEH-P40."""
    quota = taken(Quota(None, 1), A)

    quota.reset(B)

    assert not quota.has_room(B)


# -- the line ----------------------------------------------------------------------------


def test_line_keeps_the_order_of_the_first_wish() -> None:
    """BEH-P37."""
    quota = taken(Quota(None, 2), A, A)
    for moment, key in enumerate((B, C, B)):
        quota.want(key, float(moment))
    assert quota.wanted_since == 0.0

    quota.give(A)
    assert quota.served() == [B]
    quota.give(A)
    assert quota.served() == [B, C]


def test_nobody_takes_room_before_those_in_line() -> None:
    """BEH-P37: not even a key that just gave it up."""
    quota = taken(Quota(None, 1), A)
    quota.want(B, 0.0)
    quota.want(C, 1.0)
    quota.give(A)

    assert not quota.take(A)
    assert not quota.take(C)
    assert quota.take(B)
    quota.give(B)
    assert quota.take(C)
    assert quota.wanted_since == NEVER


def test_key_in_line_for_its_host_does_not_stand_before_other_hosts() -> None:
    """BEH-P29."""
    quota = taken(Quota(1, None), A)
    quota.want(OLD_A, 0.0)

    assert quota.take(B)
    quota.give(A)
    assert not quota.take(A)
    assert quota.served() == [OLD_A]


def test_key_that_leaves_the_line_makes_way() -> None:
    """BEH-P45."""
    quota = taken(Quota(None, 1), A)
    quota.want(B, 0.0)
    quota.want(C, 1.0)
    quota.give(A)

    quota.forget(B)

    assert quota.served() == [C]
    assert quota.wanted_since == 1.0


def test_wish_of_the_key_itself_is_none_of_others() -> None:
    """BEH-P44."""
    quota = taken(Quota(None, 2), A, B)
    quota.want(A, 0.0)
    assert quota.wanted_by_others(A) == NEVER

    quota.want(C, 5.0)

    assert quota.wanted_by_others(A) == 5.0
    assert quota.wanted_by_others(B) == 0.0


def test_wish_that_a_key_cannot_help_with_does_not_concern_it() -> None:
    """BEH-P7: the other host is at its own bound."""
    quota = taken(Quota(1, 2), A, B)
    quota.want(OLD_A, 3.0)

    assert quota.wanted_by_others(B) == NEVER
    assert quota.wanted_by_others(A) == 3.0


# -- idle connections --------------------------------------------------------------------


def test_victim_is_the_connection_idle_for_the_longest_time() -> None:
    """BEH-P25."""
    quota = taken(Quota(None, 3), A, B, B)
    for connection, key in (("a1", A), ("b1", B), ("b2", B)):
        quota.rested(connection, key)
    assert quota.victim() is None

    quota.want(C, 0.0)
    assert quota.victim() == ("a1", A)
    quota.roused("a1")
    assert quota.victim() == ("b1", B)
    quota.rested("a1", A)
    assert quota.victim() == ("b1", B)


def test_victim_helps_the_first_in_line_that_can_be_helped() -> None:
    """BEH-P29: room for its host is made by its host alone, and others need not wait for that."""
    quota = taken(Quota(1, 2), A, B)
    quota.rested("b1", B)
    quota.want(OLD_A, 0.0)
    assert quota.victim() is None

    quota.want(C, 1.0)
    assert quota.victim() == ("b1", B)

    quota.rested("a1", A)
    assert quota.victim() == ("a1", A)


def test_unbounded_quota_remembers_no_connections() -> None:
    """BEH-P43: it would remember them for nothing."""
    quota = Quota(None, None)
    quota.rested("a1", A)
    quota.want(B, 0.0)

    assert quota.victim() is None


@given(
    per_host=st.none() | st.integers(1, 3),
    total=st.none() | st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "give", "want", "forget", "reset"]), st.sampled_from([A, OLD_A, B, C])),
        max_size=60,
    ),
)
def test_counts_never_exceed_a_bound_nor_fall_below_zero(
    per_host: int | None, total: int | None, steps: list[tuple[str, PoolKey]]
) -> None:
    """BEH-P35, I1."""
    quota = Quota(per_host, total)
    held: list[PoolKey] = []
    for moment, (action, key) in enumerate(steps):
        if action == "take":
            if quota.take(key):
                held.append(key)
        elif action == "give" and key in held:
            quota.give(key)
            held.remove(key)
        elif action == "want":
            quota.want(key, float(moment))
        elif action == "forget":
            quota.forget(key)
        elif action == "reset":
            quota.reset(key)
            held = [other for other in held if other != key]

        assert total is None or len(held) <= total
        for other in (A, OLD_A, B, C):
            of_host = sum(host_of(one) == host_of(other) for one in held)
            assert per_host is None or of_host <= per_host
            is_free = (total is None or len(held) < total) and (per_host is None or of_host < per_host)
            assert quota.has_room(other) == is_free
