"""Put turbopool and its peers into the same scripted faults, and print what their callers saw, as a Markdown table.

Every cell is measured by itself: a scripted server in this process, the client in a process of its own with a time
limit. A hang is a result. The servers are those of the tests, so turbopool's ``test`` extra must be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from environments import prepare
from fault_acts import Call
from fault_peers import CLIENTS
from fault_rows import ROWS, Row
from fault_server import Seen

CHILD = Path(__file__).with_name("fault_acts.py")
PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
MARKS = ("<!-- written by: make faults ARGS=--write -->\n", "<!-- end -->")
"""The table stands between them."""
US = "turbopool"

LIMIT = 15.0
"""Seconds that a cell may take."""

NOTES = """\
Measured by `python bench/faults.py`, each cell by itself: the client in a process of its own against a scripted server
that counts what arrives. Every client has its own defaults for reuse and retries (urllib3 sends again up to 3 times,
`Retry.DEFAULT`; aiohttp what is idempotent once; httpx and pyreqwest nothing that was sent), gets its own `timeout=`,
and a limit of connections in the rows that name one (urllib3: `maxsize=, block=True`). All are called from threads but
aiohttp, which is called from tasks. Half of the requests that are given up time out, half are cancelled; as no
blocking call can be cancelled, httpx and pyreqwest are their asyncio clients there, and with urllib3 all time out.
A row with "3 x" ends with the first run that is wrong. Races make some counts differ."""


class HangError(Exception):
    """The client did not end in time."""


class CrashError(Exception):
    """The client's process ended without a result."""


class Process:
    """A client at its work, killed with all it forked when the cell's time is over."""

    def __init__(self, python: str, client: str, plan: dict[str, Any]) -> None:
        self.version = ""
        self._late = False
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed below
        self._process = subprocess.Popen(
            [python, str(CHILD), client],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._timer = threading.Timer(LIMIT, self._give_up)
        self._timer.start()
        self._write(json.dumps(plan))

    def await_pause(self) -> None:
        """Wait until the client has come to a pause."""
        if (line := self._read()) != "pause\n":
            raise CrashError(line)

    def resume(self) -> None:
        """Let it go on."""
        self._write("")

    def calls(self) -> list[Call]:
        """Wait until it has ended, and return what its callers saw."""
        told = json.loads(self._read())
        self.version = told["version"]
        return [Call(**call) for call in told["calls"]]

    def close(self) -> None:
        """End it, if it has not ended."""
        self._timer.cancel()
        self._kill()
        self._process.communicate()
        self._log.close()

    def _give_up(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _write(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is told where an answer is missed
            print(line, file=self._process.stdin, flush=True)

    def _read(self) -> str:
        if self._process.stdout and (line := self._process.stdout.readline()):
            return line
        if self._late:
            raise HangError
        self._log.seek(0)
        raise CrashError(self._log.read().strip().rpartition("\n")[2])


class Faults:
    """A run of some rows for some clients."""

    def __init__(self, rows: Sequence[Row], clients: Sequence[str]) -> None:
        peers_python, self._missing = prepare()
        self._pythons = {client: sys.executable if client == US else peers_python for client in clients}
        self._versions: dict[str, str] = {}
        self._rows = rows
        self.seen: dict[tuple[str, str], Seen] = {}
        """Row and client -> what was measured."""

    def measure(self) -> None:
        """Fill every cell."""
        for row in self._rows:
            for client in self._pythons:
                if row.only is None or client in row.only:
                    start = time.monotonic()
                    seen = self.seen[row.name, client] = self._cell(row, client)
                    print(f"{row.name:12} {client:10} {time.monotonic() - start:4.1f} s  {word(seen)}", flush=True)

    def table(self) -> str:
        """Return the table, with what has to be known to read it."""
        header = ["fault", "right", *self._pythons]
        rows = [
            [row.title, row.right, *(word(self.seen.get((row.name, client))) for client in self._pythons)]
            for row in self._rows
        ]
        versions = ", ".join(f"{client} {version}" for client, version in self._versions.items())
        return f"{table(header, rows)}\n\n{NOTES}\n\nPython {platform.python_version()}, {versions}.\n"

    def _cell(self, row: Row, client: str) -> Seen:
        if client in self._missing:
            return Seen(right=False, text=f"missing: {self._missing[client]}")
        with contextlib.ExitStack() as running:

            def start(plan: dict[str, Any]) -> Process:
                process = Process(self._pythons[client], client, plan)
                running.callback(process.close)
                running.callback(lambda: self._versions.update({client: process.version} if process.version else {}))
                return process

            try:
                return row.measure(start)
            except HangError:
                return Seen(right=False, text=f"hangs (> {LIMIT:g} s)")
            except CrashError as error:
                return Seen(right=False, text=f"crashes: {error}")
            except AssertionError as error:  # the server met what its row does not foresee
                return Seen(right=False, text=f"not measured: {error}")


def word(seen: Seen | None) -> str:
    """Return the text of a cell."""
    return f"{'✓' if seen.right else '✗'} {seen.text}" if seen else "-"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def chosen(words: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return the rows and the clients that are named, all of those of which none is."""
    rows = [row for row in ROWS if row.name in words]
    clients = [client for client in CLIENTS if client in words]
    if unknown := set(words) - {row.name for row in rows} - set(clients):
        names = [*(row.name for row in ROWS), *CLIENTS]
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
    return rows or ROWS, clients or list(CLIENTS)


def write(text: str) -> None:
    """Put the table into the documentation, in the place of the old one."""
    before, _, rest = PAGE.read_text("utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    PAGE.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", "utf-8")


def main() -> int:
    """Measure and print; returns 1 if turbopool is wrong anywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME,...", help="rows and clients, all if none is named")
    parser.add_argument("--write", action="store_true", help=f"also put it into {PAGE.relative_to(PAGE.parents[1])}")
    arguments = parser.parse_args()
    if arguments.only and arguments.write:
        parser.error("a part of the table is not written")

    faults = Faults(*chosen([name for name in arguments.only.split(",") if name]))
    faults.measure()
    print("\n" + faults.table())
    if arguments.write:
        write(faults.table())
    return 1 if any(client == US and not seen.right for (_, client), seen in faults.seen.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
