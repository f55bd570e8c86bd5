"""A network of its own for a test: a child process that may break routes, ports and links, and harms nobody.

What runs there is a function of a module that ends with ``main(globals())``. It fails by raising.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_LIMIT = 60.0
"""Seconds after which a child counts as hung."""


def _is_allowed() -> bool:
    tools = all(shutil.which(tool) for tool in ("unshare", "ip"))
    return tools and not subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode


needs_namespace = pytest.mark.skipif(not _is_allowed(), reason="network namespaces need root, unshare and ip")


def run_apart(module: str, function: str) -> None:
    """Call ``module.function()`` in a process whose network is nothing but its own loopback.

    Raises:
        AssertionError: it raised; with what it said.
    """
    command = ["unshare", "-n", sys.executable, "-W", "error", "-m", module, function]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def ip(*arguments: str) -> None:
    """Change the child's network, as the command of this name does."""
    subprocess.run(["ip", *arguments], check=True)


def main(functions: Mapping[str, Any]) -> None:
    """Call the function that the command line names, with loopback up."""
    ip("link", "set", "lo", "up")
    functions[sys.argv[1]]()
