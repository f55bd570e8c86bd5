"""Ten lines of turbopool: ``python examples/quickstart.py http://127.0.0.1:8080/``."""

from __future__ import annotations

import sys

from turbopool import Client


def main(url: str) -> None:
    """Ask for one page eight times at once, over at most four connections."""
    with Client(max_conns_per_host=4) as client:
        futures = [client.send_async("GET", url, timeout=5.0) for _ in range(8)]
        for future in futures:
            response = future.result().raise_for_status()
            print(response.status_code, response.http_version, len(response.content), "bytes")
        print(client.stats().opened, "connections opened")


if __name__ == "__main__":
    main(sys.argv[1])
