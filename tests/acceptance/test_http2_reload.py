"""nginx reloaded every second while many threads send over HTTP/2: nobody must notice."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.test_nginx import run_threads
from tests.servers.certs import Authority
from tests.servers.http2 import Http2Nginx
from tests.servers.nginx import missing_nginx
from turbopool import Client

pytestmark = [pytest.mark.nginx, pytest.mark.skipif(missing_nginx(), reason="nginx is not installed")]

BOUND = 30.0
BODY = b"x" * 500
"""Not more, because nginx does not read it, and takes much of what it does not read for a flood."""


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "reloads", "is_tls"), [(64, 3, False), (16, 2, True)], ids=["clear", "tls"])
def test_reload_every_second_fails_no_request(
    authority: Authority, tmp_path: Path, threads: int, reloads: int, *, is_tls: bool
) -> None:
    """FLT-S1, I6: streams that nginx accepted are answered, the others go elsewhere; no POST arrives twice."""
    with Http2Nginx(tmp_path, authority) as server:
        statuses, opened = load(server, authority, threads, reloads=reloads, is_tls=is_tls)

    assert set(statuses) == {200}
    assert opened > 1  # the last reload may have come when all was said


def load(
    server: Http2Nginx, authority: Authority, threads: int, *, reloads: int, is_tls: bool
) -> tuple[Counter[int], int]:
    """Send GETs and POSTs from so many threads while `server` is reloaded every second.

    Returns:
        How often each status came, and how many connections were needed. Any error is raised.
    """
    url = server.h2_tls_url if is_tls else server.h2_url
    enough = threading.Event()
    nonces = itertools.count()
    posts: set[int] = set()
    statuses: Counter[int] = Counter()

    with (
        Client(base_url=url, http_version="2", verify=str(authority.ca_file)) as client,
        ThreadPoolExecutor(1) as aside,
    ):

        def call(_: int) -> None:
            while not enough.is_set():
                nonce = next(nonces)
                if nonce % 2:
                    posts.add(nonce)
                    answer = client.post(f"/nonce/{nonce}", content=BODY)
                else:
                    answer = client.get(f"/nonce/{nonce}")
                statuses[answer.status_code] += 1

        sending = aside.submit(run_threads, threads, call, patience=reloads + BOUND)
        try:
            for _ in range(reloads):
                enough.wait(1.0)
                server.reload()
        finally:
            enough.set()
        sending.result(BOUND)
        opened = client.stats().opened

    seen = Counter(line.target for line in server.log("/nonce/", at_least=statuses.total()) if line.method == "POST")
    assert seen == Counter({f"/nonce/{nonce}": 1 for nonce in posts})
    return statuses, opened
