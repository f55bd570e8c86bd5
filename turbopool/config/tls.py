"""TLS configuration, and one shared ``ssl.SSLContext`` for each that is different.

Contexts are costly (the CA bundle is parsed) and are kept for the process, up to a bound. What is negotiated by ALPN
belongs to a context in Python's ssl, not to a connection: so it is set and the connection made in one step, under the
lock of that context. A context the user made is used as it is; that one setting is all that is ever changed in it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import ssl
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from weakref import WeakKeyDictionary

VerifyTypes: TypeAlias = bool | str | os.PathLike[str] | ssl.SSLContext
"""True, False, a CA file or folder, or a context made by the user."""

PathTypes: TypeAlias = str | os.PathLike[str]

CertTypes: TypeAlias = PathTypes | tuple[PathTypes, PathTypes] | tuple[PathTypes, PathTypes, str] | None
"""A client certificate: one file, or (certificate, key), or (certificate, key, password)."""

_MAX_CONTEXTS = 64
_CERTIFICATE_AND_KEY = 2

_lock = threading.Lock()
_contexts: OrderedDict[Hashable, ssl.SSLContext] = OrderedDict()
_context_locks: WeakKeyDictionary[ssl.SSLContext, threading.Lock] = WeakKeyDictionary()
# Identities tell passwords apart without holding one.
_salt = secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How a server is verified, and who we say we are.

    Raises:
        ValueError: a path does not exist or a value is of the wrong kind; the message names verify or cert.
    """

    verify: VerifyTypes = field(default=True, compare=False)
    """True takes the system's CAs, or those of ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``."""
    cert: CertTypes = field(default=None, compare=False, repr=False)
    """The client certificate, if any."""
    identity: Hashable = field(init=False, repr=False)
    """Equal for equal configurations, and only for those: connections are shared by it. A file counts by its
    path and modification time, a user's context as itself."""

    def __post_init__(self) -> None:
        if self.cert is not None and isinstance(self.verify, ssl.SSLContext):
            msg = "cert cannot be combined with an SSLContext as verify: load the certificate into that context"
            raise ValueError(msg)
        object.__setattr__(self, "identity", (_verify_identity(self.verify), _cert_identity(self.cert)))


class TlsContext:
    """Makes TLS connections of one configuration that offer one list of protocols. Thread-safe."""

    __slots__ = ("_alpn", "_context", "_lock")

    def __init__(self, context: ssl.SSLContext, alpn: tuple[str, ...], lock: threading.Lock) -> None:
        self._context = context
        self._alpn = list(alpn)
        self._lock = lock

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, server_hostname: str) -> ssl.SSLObject:
        """Return a client's TLS layer between two buffers; the handshake is left to the caller.

        Raises:
            ValueError: ``server_hostname`` is no host name.
        """
        with self._lock:
            self._context.set_alpn_protocols(self._alpn)
            return self._context.wrap_bio(incoming, outgoing, server_hostname=server_hostname)


def context_for(options: TlsOptions, alpn: tuple[str, ...]) -> TlsContext:
    """Return the context of this configuration, made on first use; reads files then.

    Raises:
        ValueError: a file holds no certificate or key; the message names verify or cert.
    """
    with _lock:
        context = options.verify if isinstance(options.verify, ssl.SSLContext) else _shared_context(options)
        return TlsContext(context, alpn, _context_locks.setdefault(context, threading.Lock()))


def _shared_context(options: TlsOptions) -> ssl.SSLContext:
    context = _contexts.get(options.identity)
    if context is None:
        context = _contexts[options.identity] = _create(options)
        if len(_contexts) > _MAX_CONTEXTS:
            _contexts.popitem(last=False)
    _contexts.move_to_end(options.identity)
    return context


def _create(options: TlsOptions) -> ssl.SSLContext:
    try:
        context = _verifying(options.verify)
    except OSError as error:  # ssl.SSLError is one
        msg = f"verify={options.verify!r} holds no usable CA certificates: {error}"
        raise ValueError(msg) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.cert is not None:
        certificate, key, password = _cert_parts(options.cert)
        try:
            # Given no password, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(certificate, key, password or _no_password)
        except OSError as error:
            msg = f"cert={certificate!r} cannot be loaded (with its key and password): {error}"
            raise ValueError(msg) from error
    return context


def _no_password() -> str:
    return ""


def _verifying(verify: VerifyTypes) -> ssl.SSLContext:
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if isinstance(verify, str | os.PathLike):
        path = Path(verify)
        return ssl.create_default_context(
            cafile=None if path.is_dir() else str(path), capath=str(path) if path.is_dir() else None
        )
    return ssl.create_default_context()


def _verify_identity(verify: object) -> Hashable:
    if isinstance(verify, ssl.SSLContext):
        return ("context", verify)
    if verify is False:
        return ("unverified",)
    if verify is True:
        # OpenSSL ignores a path that is not there, and then trusts nobody.
        named = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        return ("system", *((path, _stamp(path)) if path else None for path in named))
    if isinstance(verify, str | os.PathLike):
        return ("path", *_file_identity("verify", verify))
    msg = f"verify must be True, False, a path or an ssl.SSLContext, not {verify!r}"
    raise ValueError(msg)


def _cert_identity(cert: CertTypes) -> Hashable:
    if cert is None:
        return None
    certificate, key, password = _cert_parts(cert)
    named = [_file_identity("cert", path) for path in (certificate, key) if path is not None]
    return (*named, password and hashlib.blake2b(password.encode(), key=_salt).hexdigest())


def _cert_parts(cert: object) -> tuple[str, str | None, str | None]:
    """Return the paths of certificate and key, and the password."""
    parts = cert if isinstance(cert, tuple) else (cert,)
    paths, rest = parts[:_CERTIFICATE_AND_KEY], parts[_CERTIFICATE_AND_KEY:]
    if not paths or len(rest) > 1 or not all(isinstance(path, str | os.PathLike) for path in paths):
        msg = "cert must be a path, (certificate, key) or (certificate, key, password)"
        raise ValueError(msg)
    if rest and not isinstance(rest[0], str | None):
        msg = "the password in cert must be text"
        raise ValueError(msg)
    return os.fspath(paths[0]), os.fspath(paths[1]) if len(paths) > 1 else None, rest[0] if rest else None


def _file_identity(option: str, path: PathTypes) -> tuple[str, object]:
    absolute = str(Path(path).absolute())
    stamp = _stamp(absolute)
    if stamp is None:
        msg = f"{option}={os.fspath(path)!r} cannot be read: no such file or folder"
        raise ValueError(msg)
    return absolute, stamp


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:  # absent, which is itself a state to be told apart
        return None
    return status.st_mtime_ns, status.st_size


def _renew_locks() -> None:
    """A lock another thread held at the moment of a fork is never released in the child."""
    global _lock  # noqa: PLW0603  # the lock belongs to the process
    _lock = threading.Lock()
    _contexts.clear()
    _context_locks.clear()


os.register_at_fork(after_in_child=_renew_locks)
