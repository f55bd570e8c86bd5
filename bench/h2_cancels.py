"""Measure a large download over an HTTP/2 connection before and after a storm of cancelled requests on it.

A client that resets streams carelessly is banned by its server, and one that loses count of its windows slows down. So
what counts is: no GOAWAY, one connection all the time, and the download as fast as over a fresh connection, which is
measured in turn with it, since the machine may have other things to do. The servers are those of the tests, so
turbopool's ``test`` extra must be installed::

    python bench/h2_cancels.py                      # 10,000 cancels, 1 GiB, nginx and nghttpd
    python bench/h2_cancels.py --server nghttpd --cancels 2000 --mib 64

Ends with 1 if the connection was replaced, or the download took more than 1.25 times what it takes over a fresh one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.acceptance.storms import cancel_many, peers_of, seconds_of_download
from tests.servers.certs import Authority
from tests.servers.http2 import Http2Nginx, Nghttpd
from turbopool import Client, ClientOptions, Http2Options

SERVERS = {"nginx": Http2Nginx, "nghttpd": Nghttpd}
LEAST_SHARE = 0.8
"""Of a fresh connection's rate, that the download must have."""


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=SERVERS, help="default: each")
    parser.add_argument("--cancels", type=int, default=10_000)
    parser.add_argument("--mib", type=int, default=1024, help="of download, at most 1024 (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="downloads; the fastest counts (default: %(default)s)")
    arguments = parser.parse_args()
    failed = False
    for name in [arguments.server] if arguments.server else SERVERS:
        with tempfile.TemporaryDirectory(prefix="turbopool-cancels-") as folder:
            failed |= not measure(name, Path(folder), arguments.cancels, arguments.mib, arguments.rounds)
    return int(failed)


def measure(name: str, folder: Path, cancels: int, mib: int, rounds: int) -> bool:
    """Measure one server; return whether all was well."""
    for part in ("ca", "server"):
        (folder / part).mkdir()
    options = ClientOptions(http_version="2", http2=Http2Options(max_connections_per_server=1), request_timeout=None)
    with (
        SERVERS[name](folder / "server", Authority(folder / "ca")) as server,
        Client(options.replace(base_url=server.h2_url)) as client,
        Client(options.replace(base_url=server.h2_url)) as fresh,
    ):
        before = min(seconds_of_download(client, mib) for _ in range(rounds))
        peers = peers_of(server.h2_port)
        began, sent = time.perf_counter(), client.stats().requests
        done = cancel_many(client, cancels)
        took, sent = time.perf_counter() - began, client.stats().requests - sent
        pairs = [(seconds_of_download(fresh, mib), seconds_of_download(client, mib)) for _ in range(rounds)]
        normal, after = (min(column) for column in zip(*pairs, strict=True))
        is_same = peers <= peers_of(server.h2_port)
        stats = client.stats()

    outcomes = ", ".join(f"{count:,} {how}" for how, count in sorted(done.items()))
    print(f"{name}: {outcomes}; {sent:,} had left the queue; in {took:.1f} s")
    print(f"  connections opened: {stats.opened}, the same one at the end: {'yes' if is_same else 'no'}")
    rates = ", ".join(
        f"{mib / seconds:,.0f} MiB/s {what}"
        for what, seconds in (("before", before), ("after", after), ("over a fresh connection", normal))
    )
    print(f"  {mib} MiB: {rates}; after / fresh = {normal / after:.2f}")
    return is_same and stats.opened == 1 and normal / after >= LEAST_SHARE


if __name__ == "__main__":
    sys.exit(main())
