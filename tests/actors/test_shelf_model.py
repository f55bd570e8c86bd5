"""The shelf and the demand of a ledger, used by threads that may be held up before any of its lines.

The callers and the manager are as small as their rules allow; what they do to the ledger is what
`turbopool.actors.shelf` and `turbopool.actors.tcp_manager` do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.actors.scheduler import Schedule, Scheduler
from tests.actors.test_ledger import Books, Lessee
from turbopool.actors import ledger

SWITCHES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2)), max_size=6)


class Desk:
    """A key with so many connections, all of them idle, and a manager that dials no others."""

    def __init__(self, schedule: Schedule, connections: int, callers: list[int]) -> None:
        self.books = Books(connections)
        for number in range(connections):
            self.books.adopt(f"c{number}")
        self.inbox: deque[str] = deque()
        self.users: dict[str, str] = {}
        """Who uses a connection, by the connection."""
        self.granted: dict[Lessee, str] = {}
        self.joined: list[Lessee] = []
        """Those who have stood in line."""
        self.ahead: dict[Lessee, list[Lessee]] = {}
        """Who stood in line already when somebody came."""
        self.served = 0
        self.scheduler = Scheduler(schedule, [ledger], look=self.look)
        for number, requests in enumerate(callers):
            self.scheduler.add(f"caller {number}", self._caller(f"caller {number}", requests))
        self.scheduler.add("manager", self.manager, is_daemon=True)

    def run(self) -> None:
        """Serve all."""
        self.scheduler.run()
        books = self.books
        assert not self.inbox
        assert not books.is_wanted
        assert not books.leased
        assert sorted(books.idle) == sorted(books.members)
        assert not self.users

    def look(self) -> None:
        """Each connection is in one place at most."""
        books = self.books
        assert len(books.members) <= books.limit
        assert not set(books.idle) & set(books.leased)
        assert not set(books.idle) & set(self.users)

    # -- a caller's thread ---------------------------------------------------------------

    def _caller(self, name: str, requests: int) -> Callable[[], None]:
        def send() -> None:
            for number in range(requests):
                self.send(Lessee(f"{name}, {number}"))

        return send

    def send(self, lessee: Lessee) -> None:
        """Use a connection that is idle, or wait for one."""
        self.ahead[lessee] = [one for one in self.joined if one not in self.granted]
        connection = self.books.claim()
        if connection is not None:
            hand = self.in_hand() - {connection}
            assert hand or not self.overtaken(lessee), f"{lessee.name} overtook {self.overtaken(lessee)}"
            self.use(connection, lessee)
            if self.books.put_back(connection):
                self.inbox.append("shelved")
            return
        if self.books.join(lessee):
            self.inbox.append("joined")
        self.joined.append(lessee)
        self.scheduler.wait(lambda: lessee in self.granted)
        self.use(self.granted[lessee], lessee)
        self.inbox.append(self.granted[lessee])

    def overtaken(self, lessee: Lessee) -> list[str]:
        """Those who stood in line when the lessee came, and still do."""
        served = {*self.granted, *self.books.leased.values()}
        return [one.name for one in self.ahead[lessee] if one not in served]

    def in_hand(self) -> set[str]:
        """The connections that the manager has, perhaps for one of those who wait."""
        books = self.books
        return set(books.members) - set(books.idle) - set(books.leased) - set(self.users)

    def use(self, connection: str, lessee: Lessee) -> None:
        """Have a connection to oneself, while others may do what they like."""
        assert connection not in self.users, f"{lessee.name} and {self.users[connection]} have the same connection"
        self.users[connection] = lessee.name
        self.scheduler.give_way()
        del self.users[connection]
        self.served += 1

    # -- the manager's thread ------------------------------------------------------------

    def manager(self) -> None:
        """Handle messages."""
        while True:
            self.scheduler.wait(lambda: self.inbox)
            message = self.inbox.popleft()
            if message == "joined":
                self.take_in()
            elif message != "shelved":
                following = self.books.release(message)
                if following is not None:
                    self.grant(message, following)
            self.serve_shelf()

    def take_in(self) -> None:
        """Lend to those who joined what is idle, or have them wait."""
        for lessee in self.books.arrivals(self.books.hear()):
            connection = self.books.lease(lessee)
            if connection is None:
                self.books.enqueue(lessee)
            else:
                self.grant(connection, lessee)

    def serve_shelf(self) -> None:
        """Look at the shelf again."""
        while self.books.idle and self.books.queued:
            connection = self.books.grab()
            if connection is None or (following := self.books.hand_on(connection)) is None:
                break
            self.grant(connection, following)

    def grant(self, connection: str, lessee: Lessee) -> None:
        """Let a lessee have its connection; they are served in their order."""
        assert not self.overtaken(lessee), f"{lessee.name} was served before {self.overtaken(lessee)}"
        self.granted[lessee] = connection


def schedules(steps: int, others: int) -> Iterator[list[tuple[int, int]]]:
    """All that hold somebody up once or twice within so many steps."""
    for first in range(1, steps):
        for whom in range(others):
            yield [(first, whom)]
            for second in range(1, steps - first):
                yield from ([(first, whom), (second, other)] for other in range(others))


def test_no_schedule_that_holds_two_callers_up_once_or_twice_breaks_a_rule() -> None:
    """BEH-P26: all of them, with one connection."""
    undisturbed = Desk(Schedule(), 1, [1, 1])
    undisturbed.run()

    for switches in schedules(undisturbed.scheduler.steps, 2):
        desk = Desk(Schedule(switches), 1, [1, 1])
        desk.run()
        assert desk.served == 2, switches


@given(switches=SWITCHES, connections=st.integers(1, 2), callers=st.sampled_from([[2, 2, 1], [1, 1, 1], [3, 2]]))
@settings(max_examples=400)
def test_no_schedule_of_a_few_switches_breaks_a_rule(
    switches: list[tuple[int, int]], connections: int, callers: list[int]
) -> None:
    desk = Desk(Schedule(switches), connections, callers)
    desk.run()

    assert desk.served == sum(callers)


def test_who_joins_after_a_message_that_came_too_late_tells_again() -> None:
    """The thread that sent it saw that nobody was told, and was held up until the manager had taken it in."""
    books = Books(1)
    assert books.join(Lessee("held up"))
    assert [one.name for one in books.arrivals(books.hear())] == ["held up"]
    books.is_told = True  # its thread goes on, and then tells
    assert not list(books.arrivals(books.hear()))

    assert books.join(Lessee("next"))


def test_nobody_overtakes_whom_the_manager_has_in_hand() -> None:
    books = Books(1)
    books.adopt("connection")
    books.join(Lessee("first"))

    for lessee in books.arrivals(books.hear()):
        assert books.claim() is None
        books.enqueue(lessee)
        assert books.claim() is None
    assert books.claim() is None
    following = books.hand_on("connection") if books.take("connection") else None
    assert following is not None
    assert following.name == "first"
