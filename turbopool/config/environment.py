"""The environment variables that change defaults. An explicit argument always wins over them.

Read whenever options are built, never at import, so that a process may set them first. A variable that is empty
counts as not set; ``none`` stands for None.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeAlias

from turbopool.config.timeouts import check_seconds

Number: TypeAlias = float | None

VARIABLES = {
    "max_conns_per_host": "TURBOPOOL_MAX_CONNS_PER_HOST",
    "idle_timeout": "TURBOPOOL_IDLE_TIMEOUT",
    "connect_timeout": "TURBOPOOL_CONNECT_TIMEOUT",
    "request_timeout": "TURBOPOOL_REQUEST_TIMEOUT",
    "connection_lifetime": "TURBOPOOL_CONNECTION_MAX_AGE",
}
"""Which variable sets the default of which option."""

_COUNTS = frozenset({"max_conns_per_host"})


def read_environment(environ: Mapping[str, str] | None = None) -> dict[str, Number]:
    """Return the options that are set in ``environ`` (default: the process's own).

    Raises:
        ValueError: a variable holds nonsense; the message names it and the option.
    """
    found = os.environ if environ is None else environ
    return {option: _parse(option, text) for option, name in VARIABLES.items() if (text := found.get(name, "").strip())}


def seconds_or(option: str, default: Number) -> Number:
    """Return the seconds set for ``option``, else ``default``."""
    return _option(option, default)


def count_or(option: str, default: int | None) -> int | None:
    """Return the count set for ``option``, else ``default``."""
    value = _option(option, default)
    return None if value is None else int(value)


def _option(option: str, default: Number) -> Number:
    text = os.environ.get(VARIABLES[option], "").strip()
    return _parse(option, text) if text else default


def _parse(option: str, text: str) -> Number:
    if text.lower() == "none":
        return None
    kind = int if option in _COUNTS else float
    try:
        value = kind(text)
        check_seconds(option, value)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number of seconds"
        msg = f"{VARIABLES[option]}={text!r} (option {option}) must be {wanted} of at least 0, or 'none'"
        raise ValueError(msg) from error
    return value
