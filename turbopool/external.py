"""Bring your own client: ``http_client=`` hands every request to a client of another library, as it is.

None of our options apply, nothing of it is closed by us, and the results are that library's own response objects.
``send`` calls it in the calling thread, ``send_async`` on a worker thread of ours.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

from turbopool.actors.hub import forget_after_fork
from turbopool.transport.workers import Workers

MAX_THREADS = 64
"""Calls of ``send_async`` at once; further ones wait."""


class HttpClient(Protocol):
    """What is called of it: ``request`` of ``httpx.Client``, ``httpx2.Client`` and ``requests.Session``."""

    def request(self, method: str, url: Any, **parts: Any) -> Any:  # noqa: ANN401  # whatever it is
        """Send a request and return the response."""
        ...


class ExternalClient:
    """Sends through somebody else's client.

    Args:
        client: has a ``request`` method.

    Raises:
        ValueError: it has none.
    """

    def __init__(self, client: object) -> None:
        if not callable(getattr(client, "request", None)):
            msg = f"http_client must have a request() method, and {type(client).__name__} has none"
            raise ValueError(msg)  # noqa: TRY004  # every option is refused with ValueError
        self._client = cast("HttpClient", client)
        self._workers = Workers("turbopool-http-client", MAX_THREADS)
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()
        weakref.finalize(self, self._workers.close, 0.0).atexit = False
        forget_after_fork(self)

    def forget(self) -> None:
        """Begin anew in a forked child: another thread of the parent may have held the lock."""
        self._pending = set()
        self._lock = threading.Lock()

    def send(self, method: str, url: object, parts: Mapping[str, object]) -> Any:  # noqa: ANN401  # its own response
        """Call the client in this thread."""
        return self._client.request(method, url, **parts)

    def send_async(self, method: str, url: object, parts: Mapping[str, object]) -> Future[Any]:
        """Call the client on a worker thread; cancelling works until it has begun."""
        future: Future[Any] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = self._client.request(method, url, **parts)
            except BaseException as error:  # noqa: BLE001  # whatever it is belongs to the future
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            self._pending.add(future)
        future.add_done_callback(self._forget)
        self._workers.submit(call)
        return future

    def stream(self, method: str, url: object, parts: Mapping[str, object]) -> AbstractContextManager[Any]:
        """Let the client stream, in its own way."""
        own: Callable[..., AbstractContextManager[Any]] | None = getattr(self._client, "stream", None)
        return own(method, url, **parts) if callable(own) else self._closing(method, url, parts)

    def cancel_pending(self) -> None:
        """Cancel what has not begun."""
        with self._lock:
            pending = list(self._pending)
        for future in pending:
            future.cancel()

    def close(self, drain_timeout: float | None, queued: str) -> None:
        """Let what is under way and queued end, and our threads go; the client itself is its owner's.

        Args:
            drain_timeout: seconds until what has not begun is cancelled, and what has is left alone; None: no limit.
            queued: ``"fail"`` cancels at once what has not begun.
        """
        if queued == "fail":
            self.cancel_pending()
        with self._lock:
            pending = list(self._pending)
        wait(pending, drain_timeout)
        self.cancel_pending()
        self._workers.close()

    @contextmanager
    def _closing(self, method: str, url: object, parts: Mapping[str, object]) -> Generator[Any, None, None]:
        response = self._client.request(method, url, stream=True, **parts)
        try:
            yield response
        finally:
            response.close()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._pending.discard(future)
