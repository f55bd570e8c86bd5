"""How long a request may take, as a whole and in each phase. Float seconds; None or 0 means no bound."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Protocol, TypeAlias, runtime_checkable


def check_seconds(option: str, value: object) -> None:
    """Refuse what is no duration.

    Raises:
        ValueError: ``value`` is neither None nor a finite number of at least 0; the message names ``option``.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{option} must be a number of seconds or None, not {value!r}"
        raise ValueError(msg)  # noqa: TRY004  # every option is refused with ValueError
    if not math.isfinite(value) or value < 0:
        msg = f"{option} must be a finite number of at least 0, not {value!r}; None means no limit"
        raise ValueError(msg)


@runtime_checkable
class PhaseTimeouts(Protocol):
    """The four timeouts of ``httpx.Timeout``, by duck typing."""

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None


@dataclass(frozen=True, slots=True)
class Timeout:
    """The timeouts of one request. Whichever ends first ends the request; None or 0 bounds nothing.

    Raises:
        ValueError: a value is negative, not finite or no number; the message names the field.
    """

    total: float | None = None
    """From the call to the complete response; for a streamed one, to its head."""
    _: KW_ONLY
    queue: float | None = None
    """Waiting for a connection."""
    connect: float | None = None
    """TCP and TLS handshake together."""
    read: float | None = None
    """Each wait for bytes of the response."""
    write: float | None = None
    """Each wait for the server to accept bytes of the request."""

    def __post_init__(self) -> None:
        for name in ("total", "queue", "connect", "read", "write"):
            check_seconds(f"timeout {name}", getattr(self, name))

    @classmethod
    def of(cls, value: TimeoutTypes) -> Timeout:
        """Return what ``timeout=`` means: a number is the total, None is no bound at all.

        An ``httpx.Timeout`` gives its four phases, ``pool`` being ``queue``. One made of a single number, with all
        four equal, bounds the total as well: there it stands for the request timeout of a call.

        Raises:
            ValueError: it is no timeout.
        """
        if isinstance(value, Timeout):
            return value
        if not isinstance(value, int | float) and isinstance(value, PhaseTimeouts):  # the slow check comes last
            phases = {value.connect, value.read, value.write, value.pool}
            total = value.connect if len(phases) == 1 else None
            return cls(total, queue=value.pool, connect=value.connect, read=value.read, write=value.write)
        return cls(value)


TimeoutTypes: TypeAlias = float | Timeout | PhaseTimeouts | None
"""What ``timeout=`` may be given as."""
