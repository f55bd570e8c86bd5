"""Which servers do not speak HTTP/2, as far as it was learned. Pure.

Written on the dispatcher's thread, read on callers': a request for such a server goes to its HTTP/1.1 pool at once.
"""

from __future__ import annotations

from turbopool.stats import PoolKey

REMEMBERED_FOR = 600.0
"""Seconds after which a server is asked again: it may have learned."""
_MOST = 1024


class Spoken:
    """What is known of one runtime's servers."""

    __slots__ = ("_lacking",)

    def __init__(self) -> None:
        self._lacking: dict[PoolKey, float] = {}

    def lacks(self, key: PoolKey, now: float) -> bool:
        """Whether the server was found not to speak the key's version."""
        return bool(self._lacking) and now < self._lacking.get(key, now)

    def found_speaking(self, key: PoolKey) -> None:
        """Forget what was remembered of a server: it speaks the version after all."""
        self._lacking.pop(key, None)

    def found_lacking(self, key: PoolKey, now: float) -> None:
        """Remember a server for a while; of very many, those found first are forgotten."""
        self.found_speaking(key)
        self._lacking[key] = now + REMEMBERED_FOR
        if len(self._lacking) > _MOST:
            del self._lacking[next(iter(self._lacking))]
