"""I27 over HTTP/2: what an error says of its request holds, though frames wait to be sent together."""

from __future__ import annotations

import pytest

from tests.faults.stream_stage import StreamStage, known
from turbopool import DeadlineExceeded, ReadTimeout


@pytest.mark.parametrize(
    ("limits", "error"), [({"timeout": 1.0}, DeadlineExceeded), ({"timeout": 60.0, "read": 1.0}, ReadTimeout)]
)
def test_request_whose_time_is_up_before_the_socket_took_it_may_still_arrive(
    limits: dict[str, float], error: type[DeadlineExceeded | ReadTimeout]
) -> None:
    """FLT-S17, I27: its frames stand in the line already, and go out before its reset does."""
    stage, peer = StreamStage.proven()
    peer.channel.room = 0
    call = stage.asked(method="POST", body=b"body", **limits)  # type: ignore[arg-type]  # names of times, all of them

    stage.advance(1.5)
    known(call, error, "maybe", may_retry=False)
    peer.channel.room = None
    stage.settle()

    request = peer.request(3)
    assert request is not None
    assert request.body == b"body"
    assert [stream_id for stream_id, _ in peer.resets] == [3]
    stage.close()


def test_request_that_waits_for_a_stream_has_not_been_sent() -> None:
    """FLT-S11, I27: the queue is ours, and nothing of it stands in any line."""
    stage, peer = StreamStage.proven(streams=1, limit=1)
    first = stage.asked()
    call = stage.asked(method="POST", body=b"body", timeout=1.0)

    stage.advance(1.5)
    known(call, DeadlineExceeded, "no", may_retry=True, phase="queue")
    peer.respond(3)
    stage.settle()

    assert first.response.status_code == 200
    assert peer.request(5) is None
    stage.close()
