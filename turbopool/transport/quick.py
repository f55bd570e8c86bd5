"""System calls that never block, made without giving the interpreter to another thread.

Python's socket module lets go of the interpreter's lock around every call, and gets back in line for it afterwards.
With many threads that line costs more than the call: waking the next thread on another core takes longer than to hand
a few hundred bytes to the kernel. So small sends, small receives and wake-ups that cannot block are made through
``ctypes.PyDLL``, which keeps the lock. Everything that may take long goes the usual way.

Where this is not to be had, :data:`send`, :data:`receive`, :data:`is_quiet` and :data:`wake` are None. Linux only.
Benchmark: ``make bench``, every row with more than one thread.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable

MOST = 16_384
"""Bytes: what is longer takes so long to be copied that others had better run meanwhile."""
PEEK = socket.MSG_DONTWAIT | socket.MSG_PEEK
"""Look at what has arrived, and leave it there."""
_SEND = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_NOTHING_YET = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)

send: Callable[[int, bytes], int] | None = None
"""Hand bytes to the kernel: descriptor, at most :data:`MOST` bytes; returns how many it took. Raises as sockets do."""
receive: Callable[[int], bytes | None] | None = None
"""Take up to :data:`MOST` bytes that have arrived; ``b""`` at the end of the stream, None when there are none; else it
raises as sockets do."""
is_quiet: Callable[[int], bool] | None = None
"""Whether nothing has arrived: neither bytes nor the end of the stream nor an error."""
wake: Callable[[int], None] | None = None
"""Write to an eventfd."""


def _load() -> None:
    global send, receive, is_quiet, wake  # bound once, when the module is imported
    import ctypes  # noqa: PLC0415  # some builds of Python come without it

    libc = ctypes.PyDLL(None, use_errno=True)
    # Their types are not declared, which makes them quicker: the sizes are small, and libffi widens them.
    c_send, c_recv, c_write = libc.send, libc.recv, libc.write
    get_errno, one = ctypes.get_errno, (1).to_bytes(8, sys.byteorder)
    rooms: list[tuple[ctypes.Array[ctypes.c_char], memoryview]] = []
    """Not one for all: a thread may be preempted before it has copied."""
    scratch = ctypes.create_string_buffer(1)  # nobody reads it

    def fail(code: int) -> None:
        raise OSError(code, os.strerror(code))

    def quick_send(fd: int, data: bytes) -> int:
        sent: int = c_send(fd, data, len(data), _SEND)
        if sent < 0:
            fail(get_errno())
        return sent

    def quick_receive(fd: int) -> bytes | None:
        try:
            pair = rooms.pop()
        except IndexError:
            buffer = ctypes.create_string_buffer(MOST)
            pair = buffer, memoryview(buffer).cast("B")
        room, view = pair
        try:
            size = c_recv(fd, room, MOST, socket.MSG_DONTWAIT)
            if size >= 0:
                return view[:size].tobytes()
            code = get_errno()
            if code not in _NOTHING_YET:
                fail(code)
            return None
        finally:
            rooms.append(pair)

    def quick_is_quiet(fd: int) -> bool:
        return c_recv(fd, scratch, 1, PEEK) < 0 and get_errno() in _NOTHING_YET

    def quick_wake(fd: int) -> None:
        c_write(fd, one, 8)  # a full counter wakes as well, and a closed one is not worth waking

    send, receive, is_quiet, wake = quick_send, quick_receive, quick_is_quiet, quick_wake


if sys.platform == "linux":
    try:
        _load()
    except (ImportError, OSError, AttributeError):
        send = receive = is_quiet = wake = None
