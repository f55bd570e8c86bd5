"""Names to addresses. ``getaddrinfo`` cannot be interrupted, so it runs on daemon threads, one look-up a name.

Thread: the reactor's, but for the look-up itself. A look-up that hangs holds one thread and no caller: whoever asked
ends at its own deadline, whoever asks again joins the same look-up, and the number of threads is bounded.
"""

from __future__ import annotations

import codecs
import socket
from collections.abc import Callable
from typing import Any

from turbopool.transport.interfaces import Reactor
from turbopool.transport.workers import Workers

Address = tuple[int, tuple[Any, ...]]
"""A family, and what ``connect`` takes."""
Answer = list[Address] | OSError
Lookup = Callable[..., Any]

# getaddrinfo would import it on first use; a fork at that moment leaves the child an import lock that nobody releases.
codecs.lookup("idna")

MAX_THREADS = 64
"""Look-ups at once, hung ones included; further names wait for a thread until their deadline."""


class Resolver:
    """Resolves names for the dialers of a reactor.

    Args:
        reactor: where answers are delivered.
        lookup: ``socket.getaddrinfo``, or a test's own.
    """

    def __init__(self, reactor: Reactor, lookup: Lookup = socket.getaddrinfo) -> None:
        self._reactor = reactor
        self._lookup = lookup
        self._workers = Workers("turbopool-resolver", MAX_THREADS)
        self._flights: dict[tuple[str, int], list[Callable[[Answer], None]]] = {}

    def resolve(self, host: str, port: int, answer: Callable[[Answer], None]) -> None:
        """Call ``answer`` with the addresses of a name, or with why there are none; at once for an IP literal."""
        literal = _literal(host, port)
        if literal is not None:
            answer(literal)
            return
        key = (host, port)
        waiting = self._flights.setdefault(key, [])
        waiting.append(answer)
        if len(waiting) > 1:
            return
        try:
            self._workers.submit(lambda: self._look_up(key))
        except RuntimeError as error:  # no thread to be had
            self._land(key, OSError(str(error)))

    def close(self) -> None:
        """Let idle threads go; one that hangs in a look-up is left behind."""
        self._workers.close(timeout=0.2)

    def _look_up(self, key: tuple[str, int]) -> None:
        """Ask the system. Runs on a worker thread."""
        host, port = key
        answer: Answer
        try:
            found = self._lookup(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            answer = [(family, address) for family, _, _, _, address in found]
        except Exception as error:  # noqa: BLE001  # whatever it is: who asked must hear of it, or nobody may ask again
            answer = error if isinstance(error, OSError) else OSError(str(error))
        self._reactor.post(lambda: self._land(key, answer))

    def _land(self, key: tuple[str, int], answer: Answer) -> None:
        for waiter in self._flights.pop(key, ()):
            waiter(answer)


def _literal(host: str, port: int) -> list[Address] | None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):  # no literal; whether it is a name is for the look-up to say
        return None
    return [(family, address) for family, _, _, _, address in found]
