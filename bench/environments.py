"""An environment for the peers, in which each of them is itself, made once under bench/.cache.

No two of them conflict, so they share it. One that replaces another when installed (niquests replaces urllib3) would
need an environment of its own. turbopool runs in the environment that runs the benchmark.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parent / ".cache"

PEERS = {
    "requests": ["requests>=2.32"],
    "urllib3": ["urllib3>=2.5"],
    "httpx": ["httpx>=0.28"],
    "httpx2": ["httpx2>=2.16"],
    "aiohttp": ["aiohttp>=3.14", "uvloop>=0.22"],
    "pycurl": ["pycurl>=7.45.7"],
    "pyreqwest": ["pyreqwest>=0.15"],
}
"""What each peer needs; its name is also the module that must then import."""


def prepare() -> tuple[str, dict[str, str]]:
    """Make the environment if it is not there.

    Returns:
        Its Python, and for each peer that cannot be had the reason.
    """
    wanted = repr((PEERS, sys.version_info[:2]))
    folder = CACHE / f"peers-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python, stamp = str(folder / "bin" / "python"), folder / "installed"
    if not stamp.exists():
        print(f"making the peers' environment in {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        if install(python, [requirement for needs in PEERS.values() for requirement in needs]):
            for needs in PEERS.values():  # one cannot be had: the others shall be, all the same
                install(python, needs)
        stamp.touch()
    missing = {peer: reason for peer in PEERS if (reason := cannot_import(python, peer))}
    if missing:  # it is tried again next time
        stamp.unlink()
    return python, missing


def install(python: str, requirements: list[str]) -> bool:
    """Install, and say whether that failed."""
    return subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=False).returncode != 0


def cannot_import(python: str, module: str) -> str:
    """Return why a module cannot be imported, or nothing if it can."""
    tried = subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True, text=True)
    return tried.stderr.strip().rpartition("\n")[2] or "it does not import" if tried.returncode else ""
