"""FLT-P15: Ctrl-C at any moment of a call, in a process of its own. tests/face/test_interrupts.py has the phases."""

from __future__ import annotations

import pytest

from tests.faults.process import run

SCRIPT = """
import random
from concurrent.futures import CancelledError
from tests.servers.raw import RawServer, always
from tests.servers.wire import respond

chance = random.Random(int(sys.argv[1]))
armed, sent, raised, promised = False, 0, 0, []

def on_signal(number, frame):
    # Not while nobody listens for it: what is looked at is our code, not this script.
    global armed, raised
    if armed:
        armed = False
        raised += 1
        raise KeyboardInterrupt

def on_unraisable(lost):
    # One that comes within a finalizer is swallowed by Python, and said to be. One that comes between a streamed
    # response and its block drops that, which is said as well.
    if lost.exc_type not in (KeyboardInterrupt, ResourceWarning):
        sys.__unraisablehook__(lost)

sys.unraisablehook = on_unraisable
signal.signal(signal.SIGINT, on_signal)
signal.signal(signal.SIGALRM, on_signal)
main, over = threading.main_thread().ident, threading.Event()

def pester():
    while not over.wait(chance.choice([0.0001, 0.0005, 0.002])):
        if armed:
            signal.pthread_kill(main, signal.SIGINT)

def slow(conn):
    while True:
        target = conn.read_request().target
        if target == "/silent":
            conn.hold()
            return
        if chance.random() < 0.3:
            server.closing.wait(0.002)
        conn.send(respond(target.encode(), headers=[("Connection", "close")] if chance.random() < 0.05 else []))

def interrupted(call):
    global armed, sent
    sent += 1
    try:
        armed = True
        call()
        armed = False
    except KeyboardInterrupt:
        pass

def streamed():
    with client.stream("GET", "/stream") as response:
        for piece in response.iter_bytes(3):
            assert piece

def futures():
    waiting = [client.send_async("GET", f"/{n}", timeout=60) for n in range(3)]
    promised.append(waiting[-1])
    for future in waiting:
        future.result()

CALLS = {
    "get": lambda: client.get("/get"),
    "post": lambda: client.post("/post", content=iter([b"x"] * 10)),
    "stream": streamed,
    "futures": futures,
}

before = Held.now()
server = RawServer(slow)
with server, Client(base_url=server.url, max_conns_per_host=2) as client:
    client.get("/first")
    pesterer = threading.Thread(target=pester)
    pesterer.start()
    deadline = time.monotonic() + 40
    while raised < 300 and time.monotonic() < deadline:
        interrupted(CALLS[chance.choice(list(CALLS))])
        for future in promised:  # its caller may wait again; there is a budget for what is sent again
            error = future.exception(20)
            assert future.result().content == b"/2" if error is None else "an interrupt cut" in str(error)
        promised.clear()
    over.set()
    pesterer.join()
    assert raised >= 300, (raised, sent)
    for _ in range(20):  # in the wait itself: who is not taken back would hold its place for a minute
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.005, 0.02), 0.1)  # again: the first may come too soon
        interrupted(lambda: client.get("/silent", timeout=60))
        signal.setitimer(signal.ITIMER_REAL, 0)
        eventually(lambda: client.stats().leased == 0)
    eventually(lambda: client.stats().leased == client.stats().waiting == client.stats().connecting == 0)
    assert server.peak <= 2, server.peak
    both = [client.send_async("GET", "/both") for _ in range(2)]
    assert [future.result(30).content for future in both] == [b"/both"] * 2
    stats = client.stats()
    assert stats.opened - stats.closed == stats.idle <= 2, stats
    server.wait_until(lambda server: server.open == client.stats().idle)
assert_nothing_is_left(before)
print("survived")
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_hundreds_of_interrupts_at_random_moments_lose_no_place(seed: str) -> None:
    """FLT-P15: in the preparation, while waiting, reading, streaming, and between any two of our own steps."""
    assert run(SCRIPT, seed) == "survived\n"
