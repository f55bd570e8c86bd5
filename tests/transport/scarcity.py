"""A machine that has run out of something."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from collections.abc import Iterator

_NOBODY_HAS_THAT_MUCH = 1 << 46


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no more files: the limit is what it has open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        highest = stack.enter_context(socket.socket()).fileno()
        for _ in range(highest):  # fill the holes below it
            highest = max(highest, stack.enter_context(socket.socket()).fileno())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Let this process start no more threads: each would get a stack that does not fit into memory."""
    before = threading.stack_size(_NOBODY_HAS_THAT_MUCH)
    try:
        yield
    finally:
        threading.stack_size(before)
