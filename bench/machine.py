"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from server import version

QUIET = 0.5
"""Load average below which the machine counts as our own."""


def facts(
    figures: Mapping[str, Mapping[str, Sequence[dict[str, Any] | None]]], servers: Iterable[str], load: float
) -> list[str]:
    """Name the machine, its servers and the clients; ``load`` is its load average before the first cell."""
    seen = {
        peer.partition("-")[0]: result["version"]
        for peers in figures.values()
        for peer, results in peers.items()
        for result in results
        if result
    }
    busy = "" if load < QUIET else " **Other work was running: take the ratios with care.**"
    return [
        machine(),
        f"Clients and servers share its cores; load average at the start {load:.1f}.{busy}",
        f"Servers: {', '.join(version(server) for server in sorted(servers, reverse=True))}.",
        f"Clients: {', '.join(f'{peer} {seen[peer]}' for peer in sorted(seen))}.",
    ]


def machine() -> str:
    """Name the machine, and the day."""
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"
    return f"{processor()}, {os.cpu_count()} cores; {system}; {time.strftime('%Y-%m-%d')}."


def processor() -> str:
    """Return the processor's own name."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", path.read_text() if path.exists() else "", re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
