"""What a client leaves in this process: looked for at once, without a grace."""

from __future__ import annotations

import threading

import psutil
import pykka

from turbopool.actors.hub import live_hubs


def our_threads() -> list[str]:
    """Return the names of the threads that the runtime has running."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("turbopool"))


def sockets_to(*ports: int) -> int:
    """Return how many sockets of this process lead, or try to lead, to one of these ports."""
    peers = [one.raddr for one in psutil.Process().net_connections("tcp")]
    wanted = {(port,) for port in ports}
    return sum(tuple(peer)[1:] in wanted for peer in peers)  # one that has no peer is empty


def assert_nothing_left(*ports: int) -> None:
    """No thread, actor, dispatcher, and no socket to one of these ports, is left of any client."""
    assert our_threads() == []
    assert pykka.ActorRegistry.get_all() == []
    assert live_hubs() == []
    assert sockets_to(*ports) == 0
