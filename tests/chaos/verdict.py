"""Judges a chaos run by what its servers saw, and by its memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.chaos.record import Record, Rule
from tests.chaos.remains import Memory

_MOST_SENDS = 2
"""A request that may have been seen is sent again once, if at all."""
_LONG_RUN = 240
"""Seconds from which on memory must have levelled off."""
_ALLOWED_GROWTH = 32.0


@dataclass(slots=True)
class Sightings:
    """How often the servers saw each request; the nonce is the index."""

    finished: bytearray
    """In nginx's log: what it had done with."""
    arrived: bytearray
    """In the tally's log: what came through nginx to the tally, whatever became of it."""
    is_post: bytearray

    @classmethod
    def read(cls, log: Path, tally: Path, drawn: int) -> Sightings:
        """Read both logs, lines of a method and a nonce. No nonce is greater than `drawn`."""
        seen = cls(bytearray(drawn + 1), bytearray(drawn + 1), bytearray(drawn + 1))
        for path, counts in ((log, seen.finished), (tally, seen.arrived)):
            with path.open("r", encoding="ascii") as lines:
                for line in lines:
                    method, _, nonce = line.strip().partition(" ")
                    if nonce.isdigit():  # a request that was cut within its first line has none
                        counts[int(nonce)] += 1
                        seen.is_post[int(nonce)] |= method == "POST"
        return seen

    def judge(self, record: Record) -> None:
        """Look for requests that were sent more often than they may be."""
        for nonce, (finished, arrived) in enumerate(zip(self.finished, self.arrived, strict=True)):
            if max(finished, arrived) > 1 and self.is_post[nonce]:
                record.violate(Rule.DOUBLE, self._describe(nonce))
            elif max(finished, arrived) > _MOST_SENDS:
                record.violate(Rule.RESENT, self._describe(nonce))
        for nonce in record.never_sent:
            if self.finished[nonce] or self.arrived[nonce]:
                record.violate(Rule.UNSENT, self._describe(nonce))

    def _describe(self, nonce: int) -> str:
        method = "POST" if self.is_post[nonce] else "GET"
        return f"{method} {nonce} finished {self.finished[nonce]} times, arrived {self.arrived[nonce]} times"


def judge_memory(record: Record, memory: Memory) -> None:
    """Look whether memory still grew, when the run was long enough to tell."""
    if len(memory.samples) >= _LONG_RUN and memory.growth() > _ALLOWED_GROWTH:
        record.violate(Rule.GROWTH, f"{memory.growth():.0f} MiB from the second quarter of the run to the last")
