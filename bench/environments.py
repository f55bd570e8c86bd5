"""Environments for the peers, in which each of them is itself, made once under bench/.cache.

All but one share the first. niquests has its own, for it replaces urllib3 when installed. turbopool runs in the
environment that runs the benchmark.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CACHE = Path(__file__).parent / ".cache"

PEERS = {
    "requests": ["requests>=2.32"],
    "urllib3": ["urllib3>=2.5"],
    "httpx": ["httpx>=0.28"],
    "httpx2": ["httpx2[http2]>=2.16"],
    "aiohttp": ["aiohttp>=3.14", "uvloop>=0.22"],
    "pycurl": ["pycurl>=7.45.7"],
    "pyreqwest": ["pyreqwest>=0.15"],
}
"""What each peer needs; its name is also the module that must then import."""

APART = {"niquests": ["niquests>=3.21", "uvloop>=0.22"]}


def prepare(peers: Mapping[str, Sequence[str]] = PEERS) -> tuple[str, dict[str, str]]:
    """Make these peers' environment if it is not there.

    Returns:
        Its Python, and for each peer that cannot be had the reason.
    """
    wanted = repr((peers, sys.version_info[:2]))
    folder = CACHE / f"peers-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python, stamp = str(folder / "bin" / "python"), folder / "installed"
    if not stamp.exists():
        print(f"making an environment for {', '.join(peers)} in {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        if install(python, [requirement for needs in peers.values() for requirement in needs]):
            for needs in peers.values():  # one cannot be had: the others shall be, all the same
                install(python, needs)
        stamp.touch()
    missing = {peer: reason for peer in peers if (reason := cannot_import(python, peer))}
    if missing:  # it is tried again next time
        stamp.unlink()
    return python, missing


def tool(name: str, requirement: str) -> Path:
    """Return the program of a package that is one, installed once in an environment of its own."""
    folder = CACHE / f"tool-{name}"
    program = folder / "bin" / name
    if not program.exists():
        print(f"making an environment for {name} in {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install(str(folder / "bin" / "python"), [requirement])
    return program


def install(python: str, requirements: Sequence[str]) -> bool:
    """Install, and say whether that failed."""
    return subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=False).returncode != 0


def cannot_import(python: str, module: str) -> str:
    """Return why a module cannot be imported, or nothing if it can."""
    tried = subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True, text=True)
    return tried.stderr.strip().rpartition("\n")[2] or "it does not import" if tried.returncode else ""
