from __future__ import annotations

import pytest

from tests.waiting import eventually


def test_answer_is_returned_as_soon_as_it_is_truthy() -> None:
    answers = iter([0, None, "ready", "too late"])

    assert eventually(lambda: next(answers)) == "ready"


def test_predicate_that_never_holds_fails_with_its_last_answer() -> None:
    with pytest.raises(AssertionError, match=r"still \[\] after 0.01 s"):
        eventually(list, timeout=0.01)
