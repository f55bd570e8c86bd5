"""Bodies over TLS and in clear to a real nginx: every way to give one, large ones both ways, and their memory."""

from __future__ import annotations

import os
import random
import resource
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.servers.certs import Authority
from tests.servers.nginx import SMALL, Nginx
from turbopool import Client, TlsVerifyError

GIB = 1 << 30
ALLOWED_GROWTH = 64 << 20
"""Bytes the process may grow by while it reads a GiB: what is held on the way is bounded, whatever the size."""

UPLOAD = random.Random(7).randbytes(3_000_001)  # noqa: S311 - not a secret
"""More than a socket takes at once, of a length that is no multiple of anything."""


@pytest.fixture(params=["clear", "tls"])
def client(request: pytest.FixtureRequest, nginx: Nginx, authority: Authority) -> Iterator[Client]:
    """A client of nginx, in clear and over TLS that is verified."""
    url = nginx.tls_url if request.param == "tls" else nginx.url
    with Client(base_url=url, verify=str(authority.ca_file)) as made:
        yield made


def pieces_of(data: bytes, size: int = 10_007) -> list[bytes]:
    """Cut ``data`` into pieces."""
    return [data[at : at + size] for at in range(0, len(data), size)]


BODIES: dict[str, Callable[[bytes, IO[bytes]], bytes | list[bytes] | IO[bytes] | Iterator[bytes]]] = {
    "bytes": lambda data, _: data,
    "list of bytes, sized": lambda data, _: pieces_of(data),
    "file, sized": lambda _, file: file,
    "iterator, chunked": lambda data, _: iter(pieces_of(data)),
}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    """An open file of what is to be uploaded."""
    (tmp_path / "upload").write_bytes(UPLOAD)
    with (tmp_path / "upload").open("rb") as opened:
        yield opened


def resident() -> int:
    """Return the bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("kind", BODIES)
def test_uploaded_body_arrives_unchanged(client: Client, path: str, file: IO[bytes], kind: str) -> None:
    """BEH-H6: sized and chunked; what nginx stored is read back."""
    stored = client.put(f"/put{path}stored", content=BODIES[kind](UPLOAD, file))

    assert stored.status_code == 201
    back = client.get(stored.url)
    assert (len(back.content), zlib.crc32(back.content)) == (len(UPLOAD), zlib.crc32(UPLOAD))
    assert client.delete(stored.url).status_code == 204
    assert client.stats().opened == 1


@pytest.mark.parametrize("kind", BODIES)
def test_posted_body_has_its_length(client: Client, path: str, file: IO[bytes], kind: str) -> None:
    """BEH-H11."""
    answer = client.post("/upload", params={"by": path}, content=BODIES[kind](UPLOAD, file))

    assert int(answer.raise_for_status().text) == len(UPLOAD)


def test_get_and_head_tell_the_same_length(client: Client) -> None:
    """BEH-H11: and a HEAD leaves the connection fit for what follows."""
    head, get = client.head("/bytes/1m"), client.get("/bytes/1m")

    assert head.headers["content-length"] == get.headers["content-length"] == str(1 << 20)
    assert head.content == b""
    assert get.content == bytes(1 << 20)
    assert get.http_version == "HTTP/1.1"
    assert client.stats().opened == 1


def test_certificate_of_an_unknown_authority_is_refused(nginx: Nginx, path: str) -> None:
    """FLT-T1: nothing of the request is sent."""
    with Client(base_url=nginx.tls_url) as client, pytest.raises(TlsVerifyError) as caught:
        client.get(path)

    assert not caught.value.request_sent
    assert nginx.log(path) == []


def test_gigabyte_is_streamed_in_bounded_memory(client: Client) -> None:
    """FLT-H22: read as it comes, and thrown away."""
    length = 0
    with client.stream("GET", "/bytes/1g") as response:
        assert response.headers["content-length"] == str(GIB)
        before = peak = resident()
        for number, piece in enumerate(response.iter_raw()):
            length += len(piece)
            if number % 16 == 0:
                peak = max(peak, resident())

    assert length == GIB
    assert peak - before < ALLOWED_GROWTH
    assert client.get("/after").content == SMALL
    assert client.stats().opened == 1


def test_reader_that_stops_makes_the_server_wait(client: Client) -> None:
    """FLT-H22: what is not read stays with the server; leaving early closes the connection."""
    with client.stream("GET", "/bytes/1g") as response:
        before = resident()
        reader = response.iter_raw(1000)
        assert next(reader) == bytes(1000)
        assert {client.get("/beside").content for _ in range(500)} == {SMALL}
        assert resident() - before < ALLOWED_GROWTH
        assert client.stats().leased == 1

    assert client.get("/after").content == SMALL


def test_upload_of_a_file_is_not_held_in_memory(client: Client, path: str, tmp_path: Path) -> None:
    """FLT-H22: a sparse file, sized; nginx discards it, and answers when it has it all."""
    with (tmp_path / "sparse").open("wb+") as sparse:
        sparse.truncate(128 << 20)
        before = resident()
        answer = client.post("/upload", params={"by": path}, content=sparse)

        assert int(answer.raise_for_status().text) == os.fstat(sparse.fileno()).st_size
        assert resident() - before < ALLOWED_GROWTH
