"""FLT-S17, N14: deadlines and read timeouts of one request among many, wherever it is."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from tests.faults.stream_stage import KEY2, StreamStage, known
from turbopool import DeadlineExceeded, ReadTimeout

CANCEL = ErrorCodes.CANCEL


# -- deadlines, wherever a request is --------------------------------------------------------------------


def test_a_deadline_in_the_queue_takes_nothing_from_anybody() -> None:
    """FLT-S17, FLT-S11: at the stream limit; the one it waited for is answered."""
    stage, peer = StreamStage.proven(streams=1, limit=1)
    running, queued = stage.asked(), stage.asked(timeout=1.0)
    assert stage.figures == (1, 1, 1)
    stage.advance(1.1)

    known(queued, DeadlineExceeded, "no", may_retry=True, phase="queue")
    assert (peer.resets, peer.pings, stage.figures) == ([], 0, (1, 1, 0))
    peer.respond(3)
    stage.settle()
    assert running.response.status_code == 200
    stage.close()


@pytest.mark.parametrize("phase", ["sending", "waiting", "reading"])
def test_a_deadline_under_way_gives_the_place_back_and_keeps_the_connection(phase: str) -> None:
    """FLT-S17: the error says how far it was; the server is told; the next one gets the place."""
    stage, peer = StreamStage.proven(streams=1, limit=1)
    call = stage.asked(method="PUT", timeout=1.0, body=bytes(200_000) if phase == "sending" else b"small")
    following = stage.asked()
    if phase == "reading":
        peer.send_headers(3, [(":status", "200")])
        peer.send_data(3, b"part")
    stage.advance(1.1)

    processed = "yes" if phase == "reading" else "maybe"
    known(call, DeadlineExceeded, processed, may_retry=True,
           phase={"sending": "send", "waiting": "wait", "reading": "recv"}[phase])  # fmt: skip
    assert peer.resets == [(3, CANCEL)]
    assert stage.figures == (1, 1, 0)
    peer.respond(5)
    stage.settle()
    assert following.response.status_code == 200
    assert len(stage.channels) == 1
    stage.close()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_server_that_stops_in_the_middle_meets_the_read_timeout(has_begun: bool) -> None:  # noqa: FBT001
    """FLT-N14, FLT-S17: each wait for bytes is bounded; bytes that come begin it anew."""
    stage, peer = StreamStage.proven()
    call, sibling = stage.asked(read=1.0), stage.asked()
    if has_begun:
        peer.send_headers(3, [(":status", "200")])
        for _ in range(5):
            stage.advance(0.8)
            peer.send_data(3, b"x")
            stage.settle()
        assert not call.future.done()
    stage.advance(1.1)

    known(call, ReadTimeout, "yes" if has_begun else "maybe", may_retry=True, phase="recv" if has_begun else "wait")
    assert peer.resets == [(3, CANCEL)]
    peer.respond(5)
    stage.settle()
    assert sibling.response.status_code == 200
    stage.close()


def test_a_reader_whose_server_stops_meets_the_read_timeout_and_gives_the_place_back() -> None:
    """FLT-S17, FLT-N14: a streamed body; the others succeed, the next one gets the place."""
    stage, peer = StreamStage.proven(streams=2, limit=1)
    sibling, streamed, following = stage.asked(), stage.asked(stream=True, read=0.05), stage.asked()
    peer.send_headers(5, [(":status", "200")])
    peer.send_data(5, b"part")
    stage.settle()
    pieces = streamed.response.iter_bytes()
    assert next(pieces) == b"part"
    with pytest.raises(ReadTimeout) as caught:
        next(pieces)
    assert (caught.value.processed, caught.value.phase) == ("yes", "recv")
    stage.settle()

    assert peer.resets == [(5, CANCEL)]
    assert stage.figures == (1, 2, 0)
    peer.respond(3)
    peer.respond(7)
    stage.settle()
    assert [sibling.response.status_code, following.response.status_code] == [200, 200]
    assert len(stage.channels) == 1
    stage.close()


def test_a_deadline_while_the_connection_is_made_leaves_that_to_others() -> None:
    """FLT-S17, FLT-N2: nothing was sent; the connection comes, and stands idle."""
    stage = StreamStage()
    call = stage.asked(timeout=1.0)
    stage.advance(1.1)
    known(call, DeadlineExceeded, "no", may_retry=True, phase="queue")
    peer = stage.serve()
    assert (stage.figures, stage.stats(KEY2).idle, len(peer.requests)) == ((0, 0, 0), 1, 0)
    stage.close()
