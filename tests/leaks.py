"""What the process holds: threads, descriptors, actors and dispatchers.

A test must give back all that it took. :class:`Held` is a snapshot; two of them compare
to a list of sentences, one for each thing that is held now and was not before.

Regular files are left out (test runners open them at will), pipes are not: a waker may
be one. Timers live in a dispatcher and end with it, so they are counted as dispatchers.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pykka

from turbopool.actors.hub import live_hubs

GRACE = 20.0
"""Seconds within which everything must be back at the baseline."""

_PAUSE = 0.005
_DESCRIPTORS = Path("/proc/self/fd")
_KINDS = ("socket:", "pipe:", "anon_inode:")


@dataclass(frozen=True, slots=True)
class Held:
    """What the process held at one moment."""

    threads: frozenset[threading.Thread]
    """Every thread Python knows of, daemons included."""

    descriptors: frozenset[tuple[int, str]]
    """Sockets, pipes, eventfds and epolls: number and target of the link in /proc."""

    actors: frozenset[str]
    """The urns of all Pykka actors alive."""

    dispatchers: frozenset[str]
    """The dispatchers alive; their timers live and die with them."""

    @classmethod
    def now(cls) -> Self:
        """Take a snapshot; it opens nothing and starts nothing."""
        return cls(
            threads=frozenset(threading.enumerate()),
            descriptors=_descriptors(),
            actors=frozenset(ref.actor_urn for ref in pykka.ActorRegistry.get_all()),
            dispatchers=_dispatchers(),
        )

    def beyond(self, baseline: Held) -> list[str]:
        """One sentence for each thing held here and not in `baseline`."""
        threads = sorted(self.threads - baseline.threads, key=lambda thread: thread.name)
        return [
            *(_describe_thread(thread) for thread in threads),
            *(_describe_descriptor(*held) for held in sorted(self.descriptors - baseline.descriptors)),
            *(f"actor {urn}" for urn in sorted(self.actors - baseline.actors)),
            *(f"dispatcher of {name}" for name in sorted(self.dispatchers - baseline.dispatchers)),
        ]


def wait_for_return_to(baseline: Held, grace: float = GRACE) -> list[str]:
    """What is held beyond `baseline` after at most `grace` seconds; empty if nothing is.

    No single event says that a thread, a socket and an actor are all gone: hence polling.
    """
    deadline = time.monotonic() + grace
    never = threading.Event()
    while (left := Held.now().beyond(baseline)) and time.monotonic() < deadline:
        never.wait(_PAUSE)
    return left


def _descriptors() -> frozenset[tuple[int, str]]:
    held = []
    for link in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # closed since, as the one that listed the folder
            continue
        if target.startswith(_KINDS):
            held.append((int(link.name), target))
    return frozenset(held)


def _dispatchers() -> frozenset[str]:
    return frozenset(repr(hub) for hub in live_hubs())


def _describe_thread(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to say where it hangs
    where = "not running" if frame is None else traceback.format_stack(frame)[-1].strip()
    return f"thread {thread.name!r} (daemon={thread.daemon}) at {where}"


def _describe_descriptor(number: int, target: str) -> str:
    if not target.startswith("socket:"):
        return f"descriptor {number} {target}"
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            return f"descriptor {number} {target} {copy!r}"
    except OSError:  # closed since; it is reported again if it comes back
        return f"descriptor {number} {target}"
