"""Servers that do wrong at random, by a seed, and answer with what tells a right answer from a wrong one."""

from __future__ import annotations

import gzip
import random
import threading
import zlib
from collections import Counter
from collections.abc import Callable

from tests.face.handlers import echo
from tests.servers.connection import Conn
from tests.servers.proxy import Faults
from tests.servers.wire import RawRequest, chunked, respond

NONCE = "X-Nonce"
CRC = "X-CRC"
POISON = respond(b"poison", headers=[(NONCE, "poison")])


def dice_of(*seed: object) -> random.Random:
    """Return random choices that are the same for the same seed."""
    return random.Random("/".join(map(str, seed)))  # noqa: S311  # no secret


def echo_nonce(request: RawRequest) -> bytes:
    """Answer with the target, as a field and, if there may be a body, as the body."""
    nonce = request.target
    body = b"" if request.method == "HEAD" else nonce.encode()
    return respond(body, headers=[(NONCE, nonce)])


class Perils:
    """Serves each connection until it did something that ends it; remembers what it did.

    It never speaks when nothing was asked: a request may just have been sent then, and nobody could tell that the bytes
    are not its answer.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self.deeds: Counter[str] = Counter()

    def __call__(self, conn: Conn) -> None:
        """Serve one connection."""
        dice = dice_of(self._seed, conn.number)
        kinds: dict[str, Callable[[Conn, RawRequest], bool]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }
        goes_on = True
        while goes_on:
            request = conn.read_request()
            kind = "right" if dice.random() < 0.6 else dice.choice(sorted(kinds))
            with self._lock:
                self.deeds[kind] += 1
            goes_on = kinds[kind](conn, request)

    def _do_right(self, conn: Conn, request: RawRequest) -> bool:
        conn.send(echo_nonce(request))
        return True

    def _do_slowly(self, conn: Conn, request: RawRequest) -> bool:
        conn.send_slowly(echo_nonce(request), 7)
        return True

    def _do_hints(self, conn: Conn, request: RawRequest) -> bool:
        conn.send(b"HTTP/1.1 103 Early Hints\r\nX-Nonce: early\r\n\r\n" + echo_nonce(request))
        return True

    def _do_poison(self, conn: Conn, request: RawRequest) -> bool:
        conn.send(echo_nonce(request) + POISON)
        return True

    def _do_body_where_none_is(self, conn: Conn, request: RawRequest) -> bool:
        conn.send(b"HTTP/1.1 204 No Content\r\nX-Nonce: %s\r\n\r\n" % request.target.encode() + POISON)
        return True

    def _do_cut(self, conn: Conn, request: RawRequest) -> bool:
        answer = echo_nonce(request)
        conn.send(answer[: dice_of(request.target).randrange(len(answer))])
        return False

    def _do_close(self, conn: Conn, request: RawRequest) -> bool:
        conn.send(echo_nonce(request))
        return False

    def _do_reset(self, conn: Conn, request: RawRequest) -> bool:
        del request
        conn.reset()
        return False

    def _do_mute(self, conn: Conn, request: RawRequest) -> bool:
        del request
        conn.hold()
        return False


def bodies_with_crc(*, to_close: bool) -> Callable[[Conn], None]:
    """Answer a few times, with bodies of random size, framed at random, and their checksum in the head.

    Args:
        to_close: whether some bodies end with their connection.
    """
    framings = ["length", "chunks", "gzip", *(["close"] if to_close else [])]

    def handler(conn: Conn) -> None:
        framing = ""
        while framing != "close" and len(conn.requests) < 4:
            dice = dice_of(conn.read_request().target)
            body = dice.randbytes(dice.choice([1, 1_000, 20_000, 150_000]))
            fields = [(CRC, str(zlib.crc32(body)))]
            framing = dice.choice(framings)
            match framing:
                case "length":
                    conn.send(respond(body, headers=fields))
                case "chunks":
                    conn.send(respond(chunked(body, 4_096), headers=[*fields, ("Transfer-Encoding", "chunked")]))
                case "gzip":
                    conn.send(respond(gzip.compress(body, 1), headers=[*fields, ("Content-Encoding", "gzip")]))
                case _:
                    conn.send(b"HTTP/1.1 200 OK\r\n%s: %d\r\n\r\n" % (CRC.encode(), zlib.crc32(body)) + body)

    return handler


def random_faults(dice: random.Random) -> Faults:
    """Return what happens to a connection's bytes: often nothing, else small segments, a cut or a stall."""
    where = int(10 ** dice.uniform(3, 5.5))
    return Faults(
        slice_bytes=dice.choice([128, 1_460, 65_536, 65_536]),
        cut_after=where if dice.random() < 0.5 else None,
        cut_with=dice.choice(["fin", "rst"]),
        stall_after=where if dice.random() < 0.2 else None,
    )


def answers_once(conn: Conn) -> None:
    """Answer /answer, and hang up on everything else."""
    while (request := conn.read_request()).target == "/answer":
        conn.send(echo(request))
