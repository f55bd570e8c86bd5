"""Reloads, kills, stops and starts nginx at random moments."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.chaos.record import Record, Rule
from tests.chaos.servers import ChaosNginx

_PAUSE = (2.0, 7.0)
"""Seconds of peace between two deeds, about as long as the pools need to come back."""
_OUTAGE = (0.2, 3.0)
"""Seconds until nginx is started again."""


class Monkey(threading.Thread):
    """Runs from ``start`` to :meth:`calm`; nginx is up before and after."""

    def __init__(self, nginx: ChaosNginx, seed: int) -> None:
        super().__init__(name="monkey", daemon=True)
        self.deeds: Counter[str] = Counter()
        """What it did: reload, kill, graceful stop, stop."""
        self.down_seconds = 0.0
        self.record = Record()
        self._nginx = nginx
        self._rng = random.Random(f"monkey-{seed}")  # noqa: S311 - not a secret
        self._calm = threading.Event()
        self._ways: dict[str, Callable[[], None]] = {
            "reload": nginx.reload, "kill": nginx.kill, "graceful stop": nginx.quit, "stop": nginx.stop,
        }  # fmt: skip

    def run(self) -> None:
        try:
            while not self._calm.wait(self._rng.uniform(*_PAUSE)):
                (deed,) = self._rng.choices(list(self._ways), (4, 3, 2, 1))
                self._do(deed)
        except BaseException as error:  # noqa: BLE001 - a thread has no other way to say it
            self.record.violate(Rule.HARNESS, repr(error))

    def calm(self) -> None:
        """Stop, with nginx running."""
        self._calm.set()
        self.join()

    def _do(self, deed: str) -> None:
        began = time.monotonic()
        self._ways[deed]()
        self.deeds[deed] += 1
        if deed != "reload":
            self._calm.wait(self._rng.uniform(*_OUTAGE))
            self._nginx.start()
            self.down_seconds += time.monotonic() - began
