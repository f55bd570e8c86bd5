"""Names to addresses: threads bounded, one look-up a name, nobody forgotten."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.transport.lookups import ScriptedLookup, ipv4, ipv6
from tests.transport.reactor import Turned
from turbopool.transport.resolver import MAX_THREADS, Answer, Resolver


@contextmanager
def _resolver(turned: Turned, lookup: ScriptedLookup) -> Iterator[Resolver]:
    resolver = Resolver(turned.reactor, lookup)
    try:
        yield resolver
    finally:
        lookup.go.set()
        resolver.close()


def test_a_name_is_answered_with_its_addresses_on_the_reactors_thread(turned: Turned) -> None:
    threads: list[threading.Thread] = []
    answers: list[Answer] = []

    def take(answer: Answer) -> None:
        threads.append(threading.current_thread())
        answers.append(answer)

    with _resolver(turned, ScriptedLookup([ipv6(80), ipv4(80)])) as resolver:
        resolver.resolve("name.invalid", 80, take)
        assert answers == []

        turned.turn_until(lambda: answers)

    assert answers == [[(socket.AF_INET6, ("::1", 80, 0, 0)), (socket.AF_INET, ("127.0.0.1", 80))]]
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_an_address_is_its_own_answer_at_once(turned: Turned, host: str, family: int) -> None:
    """BEH-L7: no thread is started for a literal."""
    answers: list[Answer] = []
    lookup = ScriptedLookup()
    before = threading.active_count()

    Resolver(turned.reactor, lookup).resolve(host, 8080, answers.append)

    assert len(answers) == 1
    assert isinstance(answers[0], list)
    assert [(found, address[:2]) for found, address in answers[0]] == [(family, (host, 8080))]
    assert lookup.asked == []
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [
    socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    UnicodeError("label empty or too long"),
    ValueError("embedded null character"),
    OverflowError("getaddrinfo() argument 2 must be integer"),
])  # fmt: skip
def test_a_failure_reaches_everybody_and_the_next_one_asks_again(turned: Turned, error: Exception) -> None:
    """FLT-N5: whatever a look-up raises; one that raised must not bar its name for ever."""
    answers: list[Answer] = []
    lookup = ScriptedLookup(error, hangs=True)
    with _resolver(turned, lookup) as resolver:
        for _ in range(2):
            resolver.resolve("name.invalid", 80, answers.append)
        lookup.go.set()
        turned.turn_until(lambda: len(answers) == 2)
        resolver.resolve("name.invalid", 80, answers.append)
        turned.turn_until(lambda: len(answers) == 3)

    assert all(isinstance(answer, OSError) and str(error) in str(answer) for answer in answers)
    assert lookup.asked == [("name.invalid", 80)] * 2


def test_who_asks_for_the_same_name_shares_one_look_up(turned: Turned) -> None:
    """FLT-N5: single-flight."""
    answers: list[Answer] = []
    lookup = ScriptedLookup([ipv4(80)], hangs=True)
    with _resolver(turned, lookup) as resolver:
        for _ in range(100):
            resolver.resolve("name.invalid", 80, answers.append)
        lookup.wait_until_present(1)
        lookup.go.set()
        turned.turn_until(lambda: len(answers) == 100)

        assert lookup.asked == [("name.invalid", 80)]

        resolver.resolve("name.invalid", 80, answers.append)  # nothing is remembered: DNS changes are seen
        turned.turn_until(lambda: len(answers) == 101)
        assert len(lookup.asked) == 2


def test_a_thousand_names_that_hang_hold_a_bounded_number_of_threads(turned: Turned) -> None:
    """FLT-N5."""
    answers: list[Answer] = []
    lookup = ScriptedLookup([ipv4(80)], hangs=True)
    before = threading.active_count()
    with _resolver(turned, lookup) as resolver:
        for n in range(1000):
            resolver.resolve(f"name-{n}.invalid", 80, answers.append)
        lookup.wait_until_present(MAX_THREADS)
        turned.turn()

        assert threading.active_count() == before + MAX_THREADS
        assert answers == []

        lookup.go.set()
        turned.turn_until(lambda: len(answers) == 1000)

    assert lookup.peak == MAX_THREADS
    assert len(set(lookup.asked)) == len(lookup.asked) == 1000


def test_literals_are_answered_while_every_thread_hangs(turned: Turned) -> None:
    """FLT-N5: hosts that need no look-up are not held up."""
    answers: list[Answer] = []
    lookup = ScriptedLookup(hangs=True)
    with _resolver(turned, lookup) as resolver:
        for n in range(MAX_THREADS):
            resolver.resolve(f"name-{n}.invalid", 80, lambda _: None)
        lookup.wait_until_present(MAX_THREADS)

        resolver.resolve("127.0.0.1", 80, answers.append)

        assert len(answers) == 1


def test_the_system_knows_localhost(turned: Turned) -> None:
    answers: list[Answer] = []
    resolver = Resolver(turned.reactor)

    resolver.resolve("localhost", 80, answers.append)
    turned.turn_until(lambda: answers)
    resolver.close()

    assert isinstance(answers[0], list)
    assert {address[0] for _, address in answers[0]} <= {"127.0.0.1", "::1"}
