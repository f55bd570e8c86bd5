"""Channels over a socket pair: in clear, and TLS between two memory buffers."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.certs import Authority, Kind
from turbopool.config.tls import TlsOptions, context_for
from turbopool.transport.channel import TcpChannel, TlsChannel
from turbopool.transport.interfaces import RECEIVE_BYTES


class TlsPeer:
    """The server's end of a TLS connection, all in the test's thread: nothing here blocks."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake(self) -> bool:
        """Go on with the handshake; return whether it is complete."""
        self._pull()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.flush()
        return True

    def read(self) -> bytes:
        """Return the plaintext that has arrived; empty after close_notify, and if there is none."""
        self._pull()
        pieces = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self.tls.read(1 << 20):
                pieces.append(piece)
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """Return the records of `data` instead of sending them."""
        self.tls.write(data)
        return self._outgoing.read()

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        self.tls.write(data)
        self.flush()

    def close_notify(self) -> None:
        """Say that no more will come."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def flush(self) -> None:
        """Send what was encrypted."""
        self.sock.sendall(self._outgoing.read())

    def _pull(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(1 << 20):
                self._incoming.write(data)
            self._incoming.write_eof()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets, ours and the peer's, both non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            ours.settimeout(0)
            theirs.settimeout(0)
            theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def _arrived(sock: socket.socket) -> None:
    """Wait until something can be read from `sock`: loopback is fast, but not instant."""
    sock.settimeout(5)
    sock.recv(1, socket.MSG_PEEK)
    sock.settimeout(0)


def _tls(ends: Ends, authority: Authority, *, alpn: tuple[str, ...] = ("http/1.1",)) -> tuple[TlsChannel, TlsPeer]:
    """A channel and its peer before the handshake."""
    context = context_for(TlsOptions(verify=authority.ca_file), alpn)
    return TlsChannel(ends[0], context, "127.0.0.1"), TlsPeer(ends[1], authority.server_context())


def _shaken(ends: Ends, authority: Authority) -> tuple[TlsChannel, TlsPeer]:
    """A channel and its peer after the handshake, session tickets unread."""
    channel, peer = _tls(ends, authority)
    while not channel.handshake():
        _arrived(ends[1])
        peer.shake()
        _arrived(ends[0])
    _arrived(ends[1])
    assert peer.shake()
    return channel, peer


# -- in clear --------------------------------------------------------------------------------------------


def test_a_channel_tells_nothing_from_something_from_the_end(ends: Ends) -> None:
    channel = TcpChannel(ends[0])
    assert channel.receive() is None
    assert channel.is_quiet()

    ends[1].send(b"hello")
    _arrived(ends[0])
    assert not channel.is_quiet()
    assert channel.receive() == b"hello"
    assert channel.is_quiet()

    ends[1].shutdown(socket.SHUT_WR)
    _arrived(ends[0])
    assert not channel.is_quiet()
    assert channel.receive() == b""
    assert not channel.truncated


def test_a_full_send_buffer_takes_what_it_can_and_no_more(ends: Ends) -> None:
    """FLT-N16: a partial send, and EAGAIN."""
    channel, data = TcpChannel(ends[0]), memoryview(bytes(range(256)) * 100_000)
    sent = 0
    while taken := channel.send(data[sent:]):
        sent += taken

    assert 0 < sent < len(data)
    assert channel.flush()

    received = bytearray()
    while len(received) < len(data):
        with contextlib.suppress(BlockingIOError):
            received += ends[1].recv(1 << 20)
        sent += channel.send(data[sent:]) if sent < len(data) else 0
    assert received == data


def test_a_reset_is_an_error_and_never_quiet(ends: Ends) -> None:
    """FLT-N8."""
    channel = TcpChannel(ends[0])
    ends[1].send(b"unread by us")
    ends[0].send(b"unread by them")
    _arrived(ends[1])

    ends[1].close()  # with bytes unread: a RST

    _arrived(ends[0])
    assert not channel.is_quiet()
    assert channel.receive() == b"unread by us"
    with pytest.raises(ConnectionResetError):
        channel.receive()
    assert not channel.is_quiet()


def test_a_reset_while_idle_is_not_quiet(ends: Ends) -> None:
    """FLT-N8."""
    channel = TcpChannel(ends[0])
    ends[0].send(b"unread by them")
    _arrived(ends[1])
    ends[1].close()
    select.select([ends[0]], [], [], 5)

    assert not channel.is_quiet()


def test_a_reset_while_idle_is_not_quiet_over_tls(ends: Ends, authority: Authority) -> None:
    """FLT-N8."""
    channel, _ = _shaken(ends, authority)
    channel.receive()
    channel.send(b"unread by them")
    _arrived(ends[1])
    ends[1].close()
    select.select([ends[0]], [], [], 5)

    assert not channel.is_quiet()


def test_a_fast_peer_is_read_in_bounded_steps(ends: Ends) -> None:
    channel = TcpChannel(ends[0])
    with contextlib.suppress(BlockingIOError):
        while True:
            ends[1].send(bytes(1 << 20))
    _arrived(ends[0])

    sizes = [len(channel.receive() or b"") for _ in range(5)]

    assert 0 < max(sizes) <= RECEIVE_BYTES


# -- TLS -------------------------------------------------------------------------------------------------


def test_the_handshake_agrees_on_a_protocol_and_completes_on_both_sides(ends: Ends, authority: Authority) -> None:
    """FLT-T4: the server is not left waiting for our first request."""
    channel, peer = _shaken(ends, authority)

    assert channel.version == peer.tls.selected_alpn_protocol() == "http/1.1"
    assert not channel.wants_write
    _, _, certificate = authority.server_file().read_text().partition("-----BEGIN CERTIFICATE-----")
    assert channel.peer_certificate == ssl.PEM_cert_to_DER_cert(
        "-----BEGIN CERTIFICATE-----" + certificate.partition("-----END")[0] + "-----END CERTIFICATE-----"
    )


def test_the_first_flight_is_sent_at_once(ends: Ends, authority: Authority) -> None:
    channel, _ = _tls(ends, authority)

    assert not channel.handshake()

    assert not channel.wants_write
    _arrived(ends[1])


def test_plaintext_passes_both_ways(ends: Ends, authority: Authority) -> None:
    channel, peer = _shaken(ends, authority)

    assert channel.send(b"question") == 8
    _arrived(ends[1])
    assert peer.read() == b"question"
    peer.write(b"answer")
    _arrived(ends[0])
    assert channel.receive() == b"answer"
    assert channel.receive() is None


def test_nothing_more_is_taken_while_ciphertext_waits(ends: Ends, authority: Authority) -> None:
    """FLT-N16: a partial send inside a record loses and repeats nothing."""
    channel, peer = _shaken(ends, authority)
    data = memoryview(bytes(range(256)) * 100_000)
    sent = 0
    while taken := channel.send(data[sent:]):
        sent += taken

    assert 0 < sent < len(data)
    assert channel.wants_write

    received = bytearray()
    while len(received) < len(data):
        received += peer.read()
        if sent < len(data):
            sent += channel.send(data[sent:])
        else:
            channel.flush()
    assert received == data
    assert not channel.wants_write


class Breaking(socket.socket):
    """Takes so many more bytes, and then breaks."""

    left = 1 << 20

    def send(self, data: Any, flags: int = 0, /) -> int:  # noqa: ANN401 - as the standard library has it
        """Take a part, or break."""
        if not self.left:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        taken = super().send(data[: self.left], flags)
        self.left -= taken
        return taken


@pytest.mark.parametrize("left", [0, 1, 20_000])
def test_bytes_that_went_out_before_a_break_count_as_sent(ends: Ends, authority: Authority, left: int) -> None:
    """I11, row 1 of the replay rule: a POST of which a byte was handed to the kernel is never sent again."""
    with Breaking(fileno=ends[0].detach()) as ours:
        ours.settimeout(0)
        channel, _ = _shaken((ours, ends[1]), authority)
        ours.left = left

        if left:
            assert channel.send(bytes(50_000)) > 0
        with pytest.raises(ConnectionResetError):
            channel.send(bytes(50_000))


def test_a_memoryview_is_sent_like_bytes(ends: Ends, authority: Authority) -> None:
    channel, peer = _shaken(ends, authority)

    channel.send(memoryview(b"question")[:5])

    _arrived(ends[1])
    assert peer.read() == b"quest"


def test_records_may_come_in_single_bytes(ends: Ends, authority: Authority) -> None:
    """FLT-N16."""
    channel, peer = _shaken(ends, authority)
    assert channel.receive() is None  # the session tickets
    record = peer.encrypt(b"answer")

    for byte in record[:-1]:
        ends[1].send(bytes([byte]))
        _arrived(ends[0])
        assert channel.receive() is None
        assert channel.buffered
    ends[1].send(record[-1:])
    _arrived(ends[0])

    assert channel.receive() == b"answer"
    assert not channel.buffered


def test_many_records_are_read_in_one_step(ends: Ends, authority: Authority) -> None:
    """Epoll does not report bytes that are inside the TLS layer: none may stay there."""
    channel, peer = _shaken(ends, authority)
    ends[1].send(b"".join(peer.encrypt(b"%d," % n) for n in range(100)))
    _arrived(ends[0])

    assert channel.receive() == b"".join(b"%d," % n for n in range(100))
    assert not channel.buffered


def test_session_tickets_are_no_bytes_on_an_idle_connection(ends: Ends, authority: Authority) -> None:
    """DESIGN 4, reuse rule: the raw socket is readable, the connection is quiet."""
    channel, peer = _shaken(ends, authority)
    _arrived(ends[0])

    assert not TcpChannel(ends[0]).is_quiet()
    assert channel.is_quiet()
    assert not channel.buffered

    peer.write(b"HTTP/1.1 408 Request Timeout")
    _arrived(ends[0])
    assert not channel.is_quiet()


def test_half_a_record_on_an_idle_connection_is_seen(ends: Ends, authority: Authority) -> None:
    """FLT-H5: nothing can be read yet, but something came."""
    channel, peer = _shaken(ends, authority)
    channel.receive()

    record = peer.encrypt(b"late")
    for piece in (record[:3], record[3:7]):
        ends[1].send(piece)
        _arrived(ends[0])
        assert not channel.is_quiet()
        assert channel.buffered
    ends[1].send(record[7:])
    _arrived(ends[0])
    assert not channel.is_quiet()
    assert not channel.buffered


def test_close_notify_is_an_end_that_can_be_trusted(ends: Ends, authority: Authority) -> None:
    """FLT-H3, T5: also when it comes with the last bytes."""
    channel, peer = _shaken(ends, authority)
    peer.write(b"last words")
    peer.close_notify()
    _arrived(ends[0])

    assert channel.receive() == b"last words"
    assert channel.ended
    assert not channel.truncated
    assert channel.receive() == b""
    assert not channel.is_quiet()


def test_an_end_without_close_notify_is_a_truncation(ends: Ends, authority: Authority) -> None:
    """FLT-T5, M9."""
    channel, peer = _shaken(ends, authority)
    peer.write(b"last words")
    _arrived(ends[0])
    assert channel.receive() == b"last words"
    assert not channel.ended

    ends[1].shutdown(socket.SHUT_WR)
    _arrived(ends[0])

    assert channel.receive() == b""
    assert channel.ended
    assert channel.truncated
    assert not channel.is_quiet()


def test_an_end_within_a_record_is_a_truncation(ends: Ends, authority: Authority) -> None:
    """FLT-T5."""
    channel, peer = _shaken(ends, authority)
    ends[1].send(peer.encrypt(b"never whole")[:-1])
    ends[1].shutdown(socket.SHUT_WR)
    _arrived(ends[0])

    while not channel.ended:
        assert not channel.receive()

    assert channel.truncated


def test_bytes_that_are_no_record_are_an_error(ends: Ends, authority: Authority) -> None:
    channel, _ = _shaken(ends, authority)
    channel.receive()
    ends[1].send(b"HTTP/1.1 200 OK\r\n")
    _arrived(ends[0])

    with pytest.raises(ssl.SSLError):
        channel.receive()


def test_closing_says_close_notify(ends: Ends, authority: Authority) -> None:
    channel, peer = _shaken(ends, authority)
    channel.receive()

    channel.close()

    _arrived(ends[1])
    assert peer.read() == b""  # and no SSLEOFError
    assert ends[0].fileno() == -1


def test_a_forked_copy_is_closed_without_a_word(ends: Ends, authority: Authority) -> None:
    channel, peer = _shaken(ends, authority)
    channel.receive()
    with ends[0].dup() as parents:
        channel.abandon()

        assert ends[0].fileno() == -1
        with pytest.raises(BlockingIOError):
            ends[1].recv(1)
        del parents
    with pytest.raises(ssl.SSLEOFError):
        _read_after_end(ends, peer)


def _read_after_end(ends: Ends, peer: TlsPeer) -> None:
    _arrived(ends[1])
    peer.read()


@pytest.mark.parametrize("kind", ["unknown_ca", "wrong_host", "expired"])
def test_a_bad_certificate_fails_the_handshake_and_the_server_is_told(
    ends: Ends, authority: Authority, kind: Kind
) -> None:
    """FLT-T1."""
    channel, _ = _tls(ends, authority)
    peer = TlsPeer(ends[1], authority.server_context(kind))
    channel.handshake()
    _arrived(ends[1])
    peer.shake()
    _arrived(ends[0])

    with pytest.raises(ssl.SSLCertVerificationError):
        channel.handshake()

    _arrived(ends[1])
    with pytest.raises(ssl.SSLError, match="ALERT"):
        peer.shake()
    channel.close()


def test_an_end_in_the_handshake_is_an_error(ends: Ends, authority: Authority) -> None:
    """FLT-T3."""
    channel, _ = _tls(ends, authority)
    channel.handshake()
    ends[1].shutdown(socket.SHUT_WR)
    _arrived(ends[0])

    with pytest.raises(OSError, match="EOF"):
        channel.handshake()


def test_without_a_common_protocol_there_is_none(ends: Ends, authority: Authority) -> None:
    """FLT-T4."""
    channel, _ = _tls(ends, authority, alpn=("http/1.1",))
    peer = TlsPeer(ends[1], authority.server_context(alpn=()))
    while not channel.handshake():
        _arrived(ends[1])
        peer.shake()
        _arrived(ends[0])

    assert channel.version is None
