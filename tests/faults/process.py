"""Scripts in a process of their own, for faults that a whole process must suffer."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60.0
"""Seconds after which a process counts as hung."""

PRELUDE = """
import os, resource, signal, sys, threading, time
from tests.leaks import Held, wait_for_return_to
from tests.transport.scarcity import no_descriptors, no_threads
from tests.waiting import eventually
from turbopool import *

def assert_nothing_is_left(before):
    left = wait_for_return_to(before)
    assert not left, left
"""


@contextmanager
def started(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A script that is talked to by its standard input and output; killed at the latest when it is left."""
    process = subprocess.Popen(
        _command(script, arguments), cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str], lines: str) -> None:
    """Give a started script lines to read."""
    assert process.stdin is not None
    process.stdin.write(lines)
    process.stdin.flush()


def answers(process: subprocess.Popen[str], lines: str) -> str:
    """Give a started script lines to read, and return the next line it says."""
    tell(process, lines)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, complaint = process.communicate(timeout=LIMIT)
        pytest.fail(f"it ended with {process.returncode}: {complaint}", pytrace=False)
    return line.strip()


def finishes(process: subprocess.Popen[str], lines: str = "") -> None:
    """Give a started script its last lines; it ends well, without another word."""
    said, complaint = process.communicate(lines, timeout=LIMIT)
    if (process.returncode, complaint, said) != (0, "", ""):
        pytest.fail(f"it ended with {process.returncode}: {said} {complaint}", pytrace=False)


def run(script: str, *arguments: str, under: Sequence[str] = ()) -> str:
    """Run a script to its end, which must be a good one and without a complaint; return what it said."""
    process = subprocess.run(
        [*under, *_command(script, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if process.returncode or process.stderr:
        pytest.fail(f"it ended with {process.returncode}: {process.stderr}", pytrace=False)
    return process.stdout


def _command(script: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script), *arguments]
