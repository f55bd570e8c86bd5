"""What `turbopool.actors.base` takes for granted of Pykka: every private name, and what it does.

When this fails, Pykka has changed inside; look at base.py before widening the pin.
"""

from __future__ import annotations

import ast
import inspect
import threading
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

import turbopool
from turbopool.actors import base

_PRIVATE = {
    "pykka._envelope": {"Envelope"},
    "pykka.messages": {"_ActorStop"},
    "Actor": {
        "_create_actor_inbox",
        "_create_future",
        "_handle_failure",
        "_handle_receive",
        "_start_actor_loop",
        "_stop",
    },
    "ActorRegistry": {"_actor_refs", "_actor_refs_lock"},
}
"""Every private name of Pykka that base.py uses, and where it is."""


def private_names_used() -> set[str]:
    """The private names in base.py that are not its own."""
    tree = ast.parse(inspect.getsource(base))
    used, own = set(), {"_BEGIN", "_Begin"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pykka"):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.FunctionDef):
            used.add(node.name)
    own |= {f"_{name}" for name in ("actor", "dispatcher", "hand", "queue", "answer_late")}
    return {name for name in used if (name.startswith("_") and not name.startswith("__")) or name == "Envelope"} - own


def test_private_names_of_pykka_that_are_used_are_those_listed_here() -> None:
    assert private_names_used() == set.union(*_PRIVATE.values())


def test_no_other_file_knows_pykkas_inside() -> None:
    package = Path(turbopool.__file__).parent

    for path in package.rglob("*.py"):
        if path.name != "base.py":
            text = path.read_text()
            assert "pykka._" not in text, path
            assert "_actor_refs" not in text, path


def test_pin_allows_this_version_and_no_next_major_one() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (pin,) = (line for line in project["project"]["dependencies"] if line.startswith("pykka"))
    major, minor = (int(part) for part in version("pykka").split(".")[:2])

    assert {">=4.5", "<5"} == set(pin.removeprefix("pykka").split(","))
    assert (major, minor) >= (4, 5)
    assert major < 5


def test_private_names_exist_where_they_are_expected() -> None:
    for name in _PRIVATE["Actor"]:
        assert callable(getattr(pykka.Actor, name))
    for name in _PRIVATE["ActorRegistry"]:
        assert hasattr(pykka.ActorRegistry, name)


def test_kind_of_an_actor_is_these_three_hooks() -> None:
    assert pykka.Actor.__abstractmethods__ == {"_create_actor_inbox", "_create_future", "_start_actor_loop"}


def test_envelope_is_a_message_and_whom_to_reply_to() -> None:
    envelope = Envelope("message")
    assert (envelope.message, envelope.reply_to) == ("message", None)

    future: pykka.Future[Any] = pykka.ThreadingFuture()
    assert Envelope("message", reply_to=future).reply_to is future


class Recording(pykka.Actor):
    """An actor of a kind of its own, that does nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[object] = []
        assert isinstance(self.actor_inbox, _Inbox)
        self.actor_inbox.owner = self  # refs are weak, but they hold the inbox

    @staticmethod
    def _create_actor_inbox() -> Any:  # noqa: ANN401 - as Pykka has it
        return _Inbox()

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return pykka.ThreadingFuture()

    def _start_actor_loop(self) -> None:
        self.log.append("loop")

    def on_stop(self) -> None:
        self.log.append("stopped")


class _Inbox:
    """The three methods that Pykka asks of an inbox."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope[Any]] = []
        self.owner: object = None

    def put(self, envelope: Envelope[Any], /) -> None:
        self.envelopes.append(envelope)

    def get(self) -> Envelope[Any]:
        return self.envelopes.pop(0)

    def empty(self) -> bool:
        return not self.envelopes


@pytest.fixture
def actor() -> Iterator[Recording]:
    ref = Recording.start()
    actor = ref._actor_weakref()  # noqa: SLF001 - the only way to the instance
    assert isinstance(actor, Recording)
    yield actor
    pykka.ActorRegistry.unregister(ref)


def test_start_registers_the_actor_and_then_starts_its_loop(actor: Recording) -> None:
    assert actor.log == ["loop"]
    assert pykka.ActorRegistry.get_by_urn(actor.actor_urn) is actor.actor_ref


def test_tell_puts_an_envelope_without_a_reply_into_the_inbox(actor: Recording) -> None:
    actor.actor_ref.tell("message")

    (envelope,) = actor.actor_inbox.envelopes  # type: ignore[attr-defined]
    assert (envelope.message, envelope.reply_to) == ("message", None)


def test_ask_puts_an_envelope_with_a_future_of_the_actors_kind(actor: Recording) -> None:
    future = actor.actor_ref.ask("message", block=False)

    assert actor.actor_inbox.get().reply_to is future


def test_stop_is_a_message(actor: Recording) -> None:
    actor.stop()
    actor.actor_ref.stop(block=False)

    messages = [envelope.message for envelope in actor.actor_inbox.envelopes]  # type: ignore[attr-defined]
    assert [type(message) for message in messages[:1]] == [_ActorStop]


def test_handling_the_stop_message_unregisters_marks_and_calls_on_stop(actor: Recording) -> None:
    actor._handle_receive(_ActorStop())  # noqa: SLF001 - the contract

    assert actor.log == ["loop", "stopped"]
    assert actor.actor_stopped.is_set()
    assert pykka.ActorRegistry.get_by_urn(actor.actor_urn) is None


def test_failure_unregisters_and_marks_but_does_not_call_on_stop(actor: Recording) -> None:
    error = ValueError("scripted")
    actor._handle_failure(type(error), error, None)  # noqa: SLF001 - the contract

    assert actor.log == ["loop"]
    assert actor.actor_stopped.is_set()
    assert pykka.ActorRegistry.get_by_urn(actor.actor_urn) is None


def test_telling_a_stopped_actor_raises(actor: Recording) -> None:
    actor.actor_stopped.set()

    with pytest.raises(pykka.ActorDeadError):
        actor.actor_ref.tell("message")


def test_registry_is_a_list_under_a_lock() -> None:
    registry = pykka.ActorRegistry

    assert isinstance(registry._actor_refs, list)  # noqa: SLF001 - the contract
    assert isinstance(registry._actor_refs_lock, type(threading.RLock()))  # noqa: SLF001 - the contract


def test_future_takes_a_value_or_the_three_parts_of_an_exception() -> None:
    good: pykka.Future[int] = pykka.ThreadingFuture()
    good.set(1)
    bad: pykka.Future[int] = pykka.ThreadingFuture()
    error = KeyError("scripted")
    bad.set_exception((KeyError, error, None))

    assert good.get(timeout=20) == 1
    with pytest.raises(KeyError):
        bad.get(timeout=20)
