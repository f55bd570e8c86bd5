"""The predicate, as a table, and the budget."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from turbopool.transport.replay import MAX_REPLAYS, Attempt, ReplayBudget, may_replay

UNSENT = Attempt(sent=False, answered=False, proven_server=False, idempotent=False, rewindable=True, replays=0)
AMBIGUOUS = Attempt(sent=True, answered=False, proven_server=True, idempotent=True, rewindable=True, replays=0)


@pytest.mark.parametrize(("attempt", "again"), [
    # DESIGN 5, row 1: no byte was handed to the kernel.
    (UNSENT, True),
    (replace(UNSENT, idempotent=True, proven_server=True), True),
    (replace(UNSENT, replays=MAX_REPLAYS - 1), True),
    (replace(UNSENT, replays=MAX_REPLAYS), False),
    # Row 3: closed before any response byte, by a server that has answered before.
    (AMBIGUOUS, True),
    (replace(AMBIGUOUS, idempotent=False), False),
    (replace(AMBIGUOUS, replays=1), False),
    # Row 4: the same, by a server that never answered.
    (replace(AMBIGUOUS, proven_server=False), False),
    # Row 5: a response byte came, or a one-shot body was begun.
    (replace(AMBIGUOUS, answered=True), False),
    (replace(AMBIGUOUS, rewindable=False), False),
    (replace(UNSENT, rewindable=False), False),
])  # fmt: skip
def test_a_request_is_sent_again_only_if_that_is_safe(attempt: Attempt, again: bool) -> None:  # noqa: FBT001
    """FLT-N9, N10, BEH-R8, R10."""
    assert may_replay(attempt) is again


def test_whatever_else_is_true_some_things_are_never_sent_again() -> None:
    """FLT-I9, I10: over all attempts there are."""
    flags = [False, True]
    for sent, answered, proven, idempotent, rewindable, replays in product(flags, flags, flags, flags, flags, range(6)):
        attempt = Attempt(
            sent=sent,
            answered=answered,
            proven_server=proven,
            idempotent=idempotent,
            rewindable=rewindable,
            replays=replays,
        )

        if may_replay(attempt):
            assert not answered
            assert rewindable
            assert replays < MAX_REPLAYS
            assert not sent or (idempotent and replays == 0)


def test_a_key_has_a_few_replays_to_begin_with() -> None:
    """DESIGN 5: recovery is no storm."""
    budget = ReplayBudget(now=100.0)

    spent = [budget.spend(100.0, 0) for _ in range(12)]

    assert spent == [True] * 10 + [False] * 2


@pytest.mark.parametrize(("seconds", "requests", "earned"), [(0.0, 0, 0), (0.1, 0, 1), (0.55, 0, 5), (0.0, 5, 1),
                                                             (0.0, 49, 9), (0.5, 50, 15), (0.0, 4, 0)])  # fmt: skip
def test_replays_are_earned_by_time_and_by_requests(seconds: float, requests: int, earned: int) -> None:
    """Twenty in a hundred requests, and ten a second."""
    budget = ReplayBudget(now=0.0)
    while budget.spend(0.0, 0):
        pass

    spent = [budget.spend(seconds, requests) for _ in range(earned + 1)]

    assert spent == [True] * earned + [False]


def test_what_is_earned_is_bounded() -> None:
    budget = ReplayBudget(now=0.0)

    spent = [budget.spend(1e6, 10**9) for _ in range(102)]

    assert spent == [True] * 100 + [False] * 2
