"""What the process holds: memory over time, and objects of turbopool that outlived their client."""

from __future__ import annotations

import gc
import resource
import statistics
import threading
from collections import Counter
from pathlib import Path

from turbopool.urls import Site, Url

_PAGE = resource.getpagesize()
_SAMPLE_SECONDS = 1.0
_COLLECTIONS = 3
"""A finalizer that runs in one lets go of what only the next one can free."""
MIB = 1 << 20


class Memory(threading.Thread):
    """Samples the resident set once a second, from ``start`` to :meth:`end`."""

    def __init__(self) -> None:
        super().__init__(name="memory", daemon=True)
        self.samples = [resident()]
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.samples.append(resident())

    def end(self) -> None:
        """Take the last sample."""
        self._ended.set()
        self.join()
        self.samples.append(resident())

    def growth(self) -> float:
        """By how many MiB the last quarter of the run stood above the second one; the first one is for warming up."""
        quarter = max(1, len(self.samples) // 4)
        return statistics.median(self.samples[-quarter:]) - statistics.median(self.samples[quarter : 2 * quarter + 1])


def resident() -> float:
    """MiB of memory that the process has in use now."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE / MIB


def living() -> Counter[str]:
    """How many objects of each class of turbopool there are, parsed URLs apart: a bounded cache keeps those."""
    for _ in range(_COLLECTIONS):
        gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    del kinds[Url], kinds[Site]
    return Counter({repr(kind): count for kind, count in kinds.items() if repr(kind).startswith("<class 'turbopool.")})
