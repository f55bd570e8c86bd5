"""Sends mixed requests from 64 threads to a real nginx that is reloaded, killed and restarted, and checks every answer.

Ends with 1 if anything happened that must not; the report says what. The same seed draws the same requests and deeds,
but threads and servers interleave as they like.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.report import figures, markdown
from tests.chaos.run import run
from tests.servers.nginx import missing_nginx

_VERSIONS = {"1.1": ("1.1",), "2": ("2",), "both": ("1.1", "2")}


def main() -> int:
    """Run chaos and print its report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of chaos (default: %(default)g)")
    parser.add_argument("--rate", type=float, default=1500.0, help="requests a second at most (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="default: a random one")  # noqa: S311 - not a secret
    parser.add_argument("--http-version", choices=_VERSIONS, default="both", help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    arguments = parser.parse_args()
    if missing_nginx():
        parser.error("nginx is not installed")

    print(f"chaos for {arguments.seconds:g} s with seed {arguments.seed}", flush=True)  # noqa: T201 - it talks to a person
    with tempfile.TemporaryDirectory(prefix="turbopool-chaos-") as folder:
        versions = _VERSIONS[arguments.http_version]
        facts = figures(run(Path(folder), arguments.seconds, arguments.rate, arguments.seed, versions))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    print("\n" + markdown(facts))  # noqa: T201 - it talks to a person
    return 1 if facts["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
