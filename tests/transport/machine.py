"""A pretended machine: cores for the one thread that runs there."""

from __future__ import annotations

from collections.abc import Set as AbstractSet


class Cores:
    """Four cores; the thread runs on the third, may run on three of them, and stays where it is while it may.

    Attributes:
        said: what was allowed, in the order of the calls.
        refuses: whether the system lets nobody choose.
    """

    ALL: AbstractSet[int] = frozenset({0, 2, 3})
    HOME = 2

    def __init__(self) -> None:
        self.core = self.HOME
        self.may = self.ALL
        self.said: list[AbstractSet[int]] = []
        self.refuses = False

    def here(self) -> int:
        return self.core

    def allowed(self) -> AbstractSet[int]:
        return set(self.may)

    def allow(self, cores: AbstractSet[int]) -> None:
        if self.refuses:
            raise PermissionError
        self.said.append(set(cores))
        self.may = set(cores)
        if self.core not in cores:
            self.core = min(cores)
