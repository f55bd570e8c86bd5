"""Header fields: case-insensitive, several of one name, in the order they were given.

What a caller puts in is checked here, once (RFC 9110 section 5.5): a name is a token, a value holds no control
character, so nothing can end a line early. What a parser puts in through :meth:`Headers.from_raw` was checked by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import Self, TypeAlias, TypeVar, overload

from turbopool.errors import InvalidRequest, shorten

D = TypeVar("D")

Text: TypeAlias = str | bytes

HeaderTypes: TypeAlias = (
    Mapping[str, str] | Mapping[str, bytes] | Mapping[bytes, str] | Mapping[bytes, bytes] | Iterable[tuple[Text, Text]]
)
"""What header fields may be given as; :class:`Headers` is one of them."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SECRET = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})


class Headers(MutableMapping[str, str]):
    """A mapping from names to values that remembers every field as it was written.

    Looking up a name joins its values with ``", "``; setting one replaces all of them; :meth:`add` keeps them.
    Iterating yields each name once, in lower case. Not for concurrent change; reading from many threads is fine.

    Raises:
        InvalidRequest: a name or value cannot be sent.
    """

    __slots__ = ("_index", "_raw")

    def __init__(self, headers: HeaderTypes | None = None) -> None:
        self._index: dict[str, list[str]] | None = None
        self._raw: list[tuple[bytes, bytes]] = []
        if isinstance(headers, Headers):
            self._raw = list(headers._raw)  # noqa: SLF001  # of the same class
        elif headers is not None:
            self._raw = _encode_all(headers)

    @classmethod
    def from_raw(cls, raw: list[tuple[bytes, bytes]]) -> Self:
        """Wrap fields as a parser delivers them: nothing is copied, checked or indexed before the first look-up."""
        headers = cls()
        headers._raw = raw
        return headers

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """The fields as they go over the wire, in the caller's own spelling; a list of the reader's own."""
        return list(self._raw)

    @property
    def snapshot(self) -> list[tuple[bytes, bytes]]:
        """The same, not to be changed: each change of the fields makes another list, and this one stands for these."""
        return self._raw

    def get_list(self, name: str) -> list[str]:
        """Return the values of all fields of that name, in order; empty if there is none."""
        return list(self._lookup().get(name.lower(), ()))

    def multi_items(self) -> list[tuple[str, str]]:
        """Return all fields, names in lower case, in order."""
        return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self._raw]

    def add(self, name: Text, value: Text) -> None:
        """Append a field, keeping others of that name."""
        self._raw = [*self._raw, encode_field(name, value)]
        self._index = None

    def copy(self) -> Self:
        """Return an independent copy."""
        return type(self).from_raw(list(self._raw))

    __copy__ = copy

    def update(self, headers: HeaderTypes | None = None, /, **named: str) -> None:  # type: ignore[override]
        """Replace every name that ``headers`` holds by all its fields there; keep the other names."""
        new = Headers(headers)
        for name, value in named.items():
            new[name] = value
        replaced = new._lookup()
        self._raw = [field for field in self._raw if _lower(field[0]) not in replaced] + new._raw
        self._index = None

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._lookup()[name.lower()])

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...
    @overload
    def get(self, name: str, default: str | D) -> str | D: ...

    def get(self, name: str, default: object = None) -> object:
        """Return the values of a name, joined, or ``default``. A single question does not pay for an index."""
        if self._index is not None or not name.isascii():
            values = self._lookup().get(name.lower())
        else:
            wanted = name.lower().encode()
            size = len(wanted)
            values = [value.decode("latin-1") for own, value in self._raw if len(own) == size and own.lower() == wanted]
        return ", ".join(values) if values else default

    def __setitem__(self, name: Text, value: Text) -> None:
        """Put the field where the first of that name stood, else last, and drop the others."""
        field = encode_field(name, value)
        lower = _lower(field[0])
        place = next((at for at, old in enumerate(self._raw) if _lower(old[0]) == lower), len(self._raw))
        rest = [old for old in self._raw[place:] if _lower(old[0]) != lower]
        self._raw = [*self._raw[:place], field, *rest]
        self._index = None

    def __delitem__(self, name: str) -> None:
        lower = name.lower()
        if lower not in self._lookup():
            raise KeyError(name)
        self._raw = [field for field in self._raw if _lower(field[0]) != lower]
        self._index = None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lookup()

    def __iter__(self) -> Iterator[str]:
        return iter(self._lookup())

    def __len__(self) -> int:
        return len(self._lookup())

    def __bool__(self) -> bool:
        return bool(self._raw)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            fields = (other if isinstance(other, Headers) else Headers(other)).multi_items()
        except InvalidRequest:  # what cannot be a header equals none
            return False
        return sorted(self.multi_items()) == sorted(fields)

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        shown = [(name, "[redacted]" if name in _SECRET else value) for name, value in self.multi_items()]
        return f"Headers({shown!r})"

    def _lookup(self) -> dict[str, list[str]]:
        """The index, built by the first look-up after a change; two threads at worst build it twice."""
        index = self._index
        if index is None:
            index = {}
            for name, value in self._raw:
                index.setdefault(_lower(name), []).append(value.decode("latin-1"))
            self._index = index
        return index


def encode_fields(headers: HeaderTypes) -> list[tuple[bytes, bytes]]:
    """Return all fields as they go over the wire.

    Raises:
        InvalidRequest: a name or value cannot be sent, or these are no fields.
    """
    return headers.raw if isinstance(headers, Headers) else _encode_all(headers)


def _encode_all(headers: HeaderTypes) -> list[tuple[bytes, bytes]]:
    pairs: Iterable[tuple[Text, Text]]
    pairs = headers.items() if type(headers) is dict or isinstance(headers, Mapping) else headers
    try:
        return [encode_field(name, value) for name, value in pairs]
    except InvalidRequest:
        raise
    except (TypeError, ValueError) as error:
        msg = f"headers of type {type(headers).__name__} are no mapping and no pairs"
        raise InvalidRequest(msg, advice="pass a mapping or a list of (name, value)") from error


def encode_field(name: Text, value: Text) -> tuple[bytes, bytes]:
    """Return a field as it goes over the wire.

    Raises:
        InvalidRequest: the name is no token, or the value holds a control character, or text beyond latin-1.
    """
    raw_name = encode_name(name)
    if type(value) is str and value.isascii() and value.isprintable():  # nothing that is looked for below
        return raw_name, value.strip(" ").encode()
    if isinstance(value, str):
        try:
            value = value.encode("latin-1")
        except UnicodeEncodeError:
            msg = f"the value of header {_show(raw_name)} is not latin-1 text"
            # From None, here and elsewhere: such a cause shows the text, which may be a secret.
            raise InvalidRequest(msg, advice="encode it to bytes yourself, or percent-encode it") from None
    elif not isinstance(value, bytes):
        msg = f"the value of header {_show(raw_name)} is of type {type(value).__name__}"
        raise InvalidRequest(msg, advice="pass str or bytes")
    # The value itself may be a secret and is not shown.
    if found := _CONTROL.search(value):
        msg = f"the value of header {_show(raw_name)} holds the control character {found[0]!r}"
        raise InvalidRequest(msg, advice="remove it: it would end the header early")
    return raw_name, value.strip(b" \t")


def encode_name(name: Text) -> bytes:
    """Return a field name as it goes over the wire.

    Raises:
        InvalidRequest: it is no token.
    """
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    elif not isinstance(name, str):
        raise InvalidRequest(f"a header name is of type {type(name).__name__}", advice="pass str or bytes")
    return _encode_token(name)


@lru_cache(maxsize=1024)
def _encode_token(name: str) -> bytes:
    """Cached, because the same names come again and again."""
    raw = name.encode("utf-8", "backslashreplace")
    if not _TOKEN.fullmatch(raw):
        raise InvalidRequest(f"the header name '{_show(raw)}' is not a token", advice="use letters, digits and hyphens")
    return raw


def _show(name: bytes) -> str:
    return shorten(name, 40)


@lru_cache(maxsize=1024)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()
