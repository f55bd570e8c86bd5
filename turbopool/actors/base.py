"""Actors that a :class:`Dispatcher` runs. Pykka's quirks begin and end in this file.

Pykka gives a new kind of actor three hooks (``_create_actor_inbox``, ``_create_future``, ``_start_actor_loop``) and an
inbox of three methods. What it does not give is supervision; and two things of its own loop must not happen here: a
``BaseException`` in a handler stopping every actor of the process, and messages told to a stopped actor vanishing.

The private names used are pinned by a contract test (``tests/actors/test_pykka_contract.py``).
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from turbopool.actors.dispatcher import Dispatcher


class _Begin:
    """The first message of every actor: run ``on_start`` on the dispatcher."""


_BEGIN = _Begin()


class Inbox:
    """A queue of envelopes that schedules a step for each."""

    __slots__ = ("_actor", "_dispatcher", "_hand", "_queue")

    def __init__(self) -> None:
        self._queue: deque[Envelope[Any]] = deque()
        self._hand: Envelope[Any] | None = None
        self._actor: DispatchedActor
        self._dispatcher: Dispatcher

    def bind(self, actor: DispatchedActor, dispatcher: Dispatcher) -> None:
        """Learn whose inbox it is."""
        self._actor = actor
        self._dispatcher = dispatcher

    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue an envelope. Any thread."""
        try:
            self._queue.append(envelope)
            self._dispatcher.schedule(self)
        except BaseException:  # an interrupt within would leave the actor one message behind for ever
            self._dispatcher.schedule(self)
            raise

    def get(self) -> Envelope[Any]:
        """Take the oldest envelope."""
        return self._queue.popleft()

    def unread(self) -> list[Any]:
        """Return the messages that were not handled yet. Any thread."""
        return [envelope.message for envelope in self._queue.copy()]

    def in_hand(self) -> list[Any]:
        """Return the message that is being handled, if one is. Any thread."""
        hand = self._hand
        return [] if hand is None else [hand.message]

    def handle_now(self, message: object) -> None:
        """Let the actor handle a message before those in the queue. Dispatcher's thread."""
        self._actor.handle(Envelope(message))

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._queue

    def __len__(self) -> int:
        return len(self._queue)

    def step(self) -> None:
        """Let the actor handle one message. Dispatcher's thread."""
        if self._queue:
            self._hand = self._queue.popleft()
            self._actor.handle(self._hand)
            self._hand = None


class DispatchedActor(pykka.Actor):
    """An actor on a dispatcher's thread. It never blocks; it is only ever told, never asked.

    Subclasses implement ``on_receive``, and may implement ``on_crash`` (after a bug) and ``undelivered`` (for each
    message that reaches a stopped actor). Both run on the dispatcher's thread.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self._dispatcher = dispatcher
        inbox = self.actor_inbox
        assert isinstance(inbox, Inbox)  # noqa: S101  # made below
        inbox.bind(self, dispatcher)

    def on_crash(self, error: BaseException) -> None:
        """Clean up after an exception that a handler let out; the actor is stopped."""

    def undelivered(self, message: object) -> None:
        """Deal with a message that came too late; the default drops it."""

    def dropped(self, message: object, error: BaseException) -> None:
        """Deal with the message whose handling was fatal; the default drops it."""

    def crash(self, error: BaseException) -> None:
        """Stop because of ``error``, as if the present handler had raised it."""
        if not self.actor_stopped.is_set():
            self._handle_failure(type(error), error, error.__traceback__)
            self.on_failure(type(error), error, error.__traceback__)
            self.on_crash(error)

    def handle(self, envelope: Envelope[Any]) -> None:
        """Handle one message, whatever happens."""
        message, reply_to = envelope.message, envelope.reply_to
        if self.actor_stopped.is_set():
            self._answer_late(envelope)
            return
        try:
            if message is _BEGIN:
                self.on_start()
                return
            answer = self._handle_receive(message)
            if reply_to is not None:
                reply_to.set(answer)
        except BaseException as error:  # noqa: BLE001  # a bug: the supervisor is told, the thread goes on
            failure = sys.exc_info()
            try:
                self.crash(error)
                self.dropped(message, error)
            finally:
                if reply_to is not None:  # last: whoever hears of it finds the actor stopped
                    reply_to.set_exception(failure)

    def _answer_late(self, envelope: Envelope[Any]) -> None:
        if envelope.reply_to is None:
            self.undelivered(envelope.message)
        elif isinstance(envelope.message, _ActorStop):
            envelope.reply_to.set(None)
        else:
            error = pykka.ActorDeadError(f"{self.actor_ref} stopped before handling the message")
            envelope.reply_to.set_exception((type(error), error, None))

    def _handle_receive(self, message: Any) -> Any:  # noqa: ANN401  # as Pykka has it
        """Leave out Pykka's proxies: ours are only told messages of their own, and this is once a request."""
        return self._stop() if isinstance(message, _ActorStop) else self.on_receive(message)

    # -- what Pykka asks of a kind of actor -------------------------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()

    @staticmethod
    def _create_future() -> pykka.Future[Any]:
        return pykka.ThreadingFuture()

    def _start_actor_loop(self) -> None:
        self.actor_inbox.put(Envelope(_BEGIN))


def tell(ref: pykka.ActorRef[Any], message: object) -> bool:
    """Tell an actor, and return whether it lives to hear it. Any thread."""
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        return False
    return True


def stop(ref: pykka.ActorRef[Any]) -> bool:
    """Have an actor stop when it has handled what it was told before, and return whether it lives to. Any thread."""
    return tell(ref, _ActorStop())


def leave(ref: pykka.ActorRef[Any], message: object) -> None:
    """Tell an actor that may have stopped; then ``undelivered`` answers. Any thread."""
    ref.actor_inbox.put(Envelope(message))


def hand(ref: pykka.ActorRef[Any], message: object) -> bool:
    """Let an actor handle a message here and now, and return whether it lives to do so. Dispatcher's thread.

    For what is forwarded: told, it would fall behind messages that came later but went straight to the actor.
    """
    inbox = ref.actor_inbox
    assert isinstance(inbox, Inbox)  # noqa: S101  # one of ours
    if ref.actor_stopped.is_set():
        return False
    inbox.handle_now(message)
    return True


def unread(refs: Iterable[pykka.ActorRef[Any]]) -> list[Any]:
    """Return the messages that these actors, all of them ours, did not handle yet. Any thread."""
    return [message for ref in refs if isinstance(inbox := ref.actor_inbox, Inbox) for message in inbox.unread()]


def in_hand(refs: Iterable[pykka.ActorRef[Any]]) -> list[Any]:
    """Return the messages that these actors, all of them ours, are in the midst of handling. Any thread."""
    return [message for ref in refs if isinstance(inbox := ref.actor_inbox, Inbox) for message in inbox.in_hand()]


def bury(*refs: pykka.ActorRef[Any] | None) -> None:
    """Count actors as stopped whose dispatcher is lost: they will never read that they are to stop."""
    for ref in refs:
        if ref is not None:
            ref.actor_stopped.set()
            pykka.ActorRegistry.unregister(ref)


def renew_registry_after_fork() -> None:
    """Take our actors out of a forked child's registry, whose lock another thread of the parent may have held."""
    registry = pykka.ActorRegistry
    registry._actor_refs_lock = threading.RLock()  # noqa: SLF001
    refs = registry._actor_refs  # noqa: SLF001
    refs[:] = [ref for ref in refs if not issubclass(ref.actor_class, DispatchedActor)]
