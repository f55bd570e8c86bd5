"""Named clients: register a name once, then take a handle of it wherever one is needed.

Handles are cheap. All handles of a name share one runtime, so one pool and one set of limits; it is torn down when
the last of them is disposed, or the factory is, and made anew when a handle is asked for again.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from turbopool.actors.hub import forget_after_fork
from turbopool.client import Client
from turbopool.config import ClientOptions
from turbopool.errors import ClientDisposed, InvalidRequest
from turbopool.runtime import Runtime, check_disposal

_log = logging.getLogger("turbopool")

DEFAULT_NAME = "default"


class ClientFactory:
    """A registry of named clients. Names are case-insensitive. Thread-safe."""

    def __init__(self) -> None:
        self._options: dict[str, ClientOptions] = {}
        self._shares: dict[str, _Share] = {}
        """The present ones, by name."""
        self._living: set[_Share] = set()
        """Those of names registered anew as well, and those whose last handle was let go of: they may still drain."""
        self._lock = threading.RLock()
        self._disposed = False
        forget_after_fork(self)

    def add(self, name: str = DEFAULT_NAME, options: ClientOptions | None = None, /, **knobs: object) -> Self:
        """Register a name, or register it anew; handles taken before keep what they have. Returns self.

        Raises:
            ValueError: the name is empty, or an option makes no sense.
        """
        key = _key(name)
        if options is None:
            options = ClientOptions.of(**knobs)
        elif knobs:
            options = options.replace(**knobs)
        with self._lock:
            self._refuse_disposed()
            self._options[key] = options
            self._shares.pop(key, None)
        return self

    def create_client(self, name: str | None = None) -> Client:
        """Return a new handle on the runtime of a name; None is the default name.

        Raises:
            InvalidRequest: the name was never added.
            ClientDisposed: the factory was disposed.
        """
        key = _key(DEFAULT_NAME if name is None else name)
        with self._lock:
            self._refuse_disposed()
            options = self._options.get(key)
            if options is None and key == DEFAULT_NAME:
                options = self._options[key] = ClientOptions()
            if options is None:
                known = ", ".join(sorted(self._options)) or "none"
                msg = f"there is no client named {name!r}"
                raise InvalidRequest(msg, known=known, advice="call add() with this name first")
            share = self._shares.get(key)
            client = None if share is None else share.handle()
            if client is None:
                share = self._shares[key] = _Share(options, self._forget)
                self._living = {one for one in self._living if not one.runtime.is_released} | {share}
                _log.info("client constructed: name=%s %s", key, options.summary())
                client = share.handle()
                assert client is not None  # noqa: S101  # nobody else knows the share yet
            return client

    @property
    def names(self) -> list[str]:
        """The names that were added."""
        with self._lock:
            return sorted(self._options)

    def dispose(self, drain_timeout: float | None = None, *, queued: Literal["finish", "fail"] = "finish") -> None:
        """Dispose the runtimes of all names; see :meth:`Client.dispose`. Idempotent."""
        check_disposal(drain_timeout, queued)
        with self._lock:
            self._disposed = True
            shares = list(self._living)
        threads = [
            threading.Thread(target=share.runtime.dispose, args=(drain_timeout, queued), daemon=True)
            for share in shares[1:]
        ]
        for thread in threads:
            thread.start()
        if shares:
            shares[0].runtime.dispose(drain_timeout, queued)
        for thread in threads:
            thread.join()

    def close(self) -> None:
        """Do what :meth:`dispose` does."""
        self.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.dispose()

    def forget(self) -> None:
        """Renew the locks in a forked child: another thread of the parent may have held them."""
        self._lock = threading.RLock()
        for share in self._living:
            share.renew_lock()

    def _forget(self, share: _Share) -> None:
        with self._lock:
            for key, known in list(self._shares.items()):
                if known is share:
                    del self._shares[key]

    def _refuse_disposed(self) -> None:
        if self._disposed:
            msg = "the client factory was disposed"
            raise ClientDisposed(msg, advice="make a new factory, or dispose later")


class _Share:
    """One runtime, and the handles that share it."""

    def __init__(self, options: ClientOptions, forget: Callable[[_Share], None]) -> None:
        self.runtime = Runtime(options)
        self._forget = forget
        self._handles = 0
        self._is_spent = False
        self._lock = threading.RLock()  # a handle may be garbage-collected anywhere, also in here

    def renew_lock(self) -> None:
        """Begin with a lock that nobody holds."""
        self._lock = threading.RLock()

    def handle(self) -> Client | None:
        """Return a new handle, or None if the last one was let go of; a garbage-collected one counts as disposed."""
        with self._lock:
            self._handles += 1
            if self._is_spent:
                return None
        client = Client._on(self.runtime, self)  # noqa: SLF001  # the factory is where handles come from
        client._finalizer = weakref.finalize(client, self._drop)  # noqa: SLF001
        client._finalizer.atexit = False  # noqa: SLF001
        return client

    def let_go(self, client: Client, drain_timeout: float | None, queued: Literal["finish", "fail"]) -> None:
        """Count a disposed handle; the last one ends the runtime."""
        if client._finalizer.detach() is not None and self._is_last():  # noqa: SLF001
            self._forget(self)
            self.runtime.dispose(drain_timeout, queued)

    def _drop(self) -> None:
        if self._is_last():
            self._forget(self)
            self.runtime.dispose_soon()

    def _is_last(self) -> bool:
        with self._lock:
            self._handles -= 1
            self._is_spent = self._is_spent or self._handles == 0
            return self._is_spent


def _key(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        msg = f"a client's name must be text that is not empty, not {name!r}"
        raise ValueError(msg)
    return name.strip().lower()
