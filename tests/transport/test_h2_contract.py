"""What `turbopool.transport.http2*` takes for granted of h2 and hpack beyond their documented interface.

When this fails, one of them has changed inside; look at the module named before widening the pin.
"""

from __future__ import annotations

import inspect

import h2.config
import h2.connection
import h2.events
import hpack.table
from hpack import Decoder, Encoder

from turbopool.config import Http2Options
from turbopool.transport.head import Limits
from turbopool.transport.http2 import Http2Codec
from turbopool.transport.http2_fields import CountedTable, FieldReader, FieldWriter


def test_h2_has_the_attributes_that_are_replaced_or_read() -> None:
    """`http2`: the codec's own reader and writer, settings and streams take their places."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration())

    assert isinstance(connection.decoder, Decoder)
    assert isinstance(connection.encoder, Encoder)
    assert connection.streams == {}
    assert connection.local_settings.max_frame_size == connection.remote_settings.max_frame_size == 16_384
    assert connection.state_machine.state is h2.connection.ConnectionState.IDLE
    assert connection.max_outbound_frame_size == 16_384
    assert isinstance(inspect.getattr_static(h2.connection.H2Connection, "open_outbound_streams"), property)


def test_h2_asks_the_codecs_reader_and_writer_for_every_block() -> None:
    """`http2_fields`: a request goes out as the block that was laid ready, a response comes in as the status read."""
    codec = Http2Codec(Limits(), Http2Options(), 0.0)
    connection = codec._h2  # noqa: SLF001 - what it takes for granted is to be shown

    assert isinstance(connection.encoder, FieldWriter)
    assert isinstance(connection.decoder, FieldReader)
    assert connection.encoder.encode([(b"never", b"written")]) == b""
    connection.decoder.read(bytes.fromhex("89"))  # its whole block: a status from the static table
    assert connection.decoder.decode(b"never read") == [(b":status", b"204")]


def test_h2_ends_a_connection_on_goaway_which_is_why_it_never_sees_one() -> None:
    """`http2`: should this change, GOAWAY can be left to h2 (python-hyper/h2#1181)."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    connection.receive_data(bytes.fromhex("000008 07 00 00000000 7fffffff 00000000"))

    assert connection.state_machine.state is h2.connection.ConnectionState.CLOSED


def test_hpacks_table_has_what_the_counted_one_overrides() -> None:
    """`http2_fields`: insertions and resizes pass `add` and `maxsize`, and nothing else changes a table."""
    table = CountedTable()
    assert vars(table).keys() == {"_maxsize", "_current_size", "resized", "dynamic_entries"}

    table.add(b"name", b"value")
    table.maxsize = 0
    assert table.changes == 2
    table.add(b"name", b"into a table that holds none")
    assert table.changes == 2
    assert hpack.table.table_entry_size(b"name", b"value") == 41
