"""How long HTTP/2 connections live, what they count against, and the end of an idle key's manager."""

from __future__ import annotations

import pytest

from tests.actors.streams import OTHER_TWO, TWO, StageOf
from tests.servers.h2send import LAST_ID
from turbopool.actors.messages import EvictIdle, WarmUp
from turbopool.errors import ConnectError, DeadlineExceeded, RemoteProtocolError

ONE_ONE = TWO._replace(version="1.1")


# -- idle timeout ------------------------------------------------------------------------


def test_idle_connection_is_closed_exactly_at_its_timeout_since_its_last_stream(streams_of: StageOf) -> None:
    """BEH-P6, BEH-P36, I23: it says good-bye."""
    stage = streams_of()
    peer = stage.rested()
    stage.advance(54.9)
    call = stage.send()
    stage.advance(3.0)
    stage.reply(call)

    stage.advance(54.999)
    assert not peer.channel.closed
    stage.advance(0.001)

    assert peer.channel.closed
    assert peer.has_goodbye
    assert stage.stats().closed == 1


def test_connection_with_a_stream_is_never_evicted(streams_of: StageOf) -> None:
    """BEH-P36, I23: whatever is told, and however long the stream takes."""
    stage = streams_of(idle_timeout=10.0)
    (short, long), peer = stage.served(2)
    stage.reply(short)

    stage.advance(10_000.0)
    stage.tell(EvictIdle(everything=True), TWO)

    assert not peer.channel.closed
    stage.reply(long)
    assert long.response.status_code == 200


def test_each_idle_connection_has_its_own_timeout(streams_of: StageOf) -> None:
    """BEH-P7."""
    stage = streams_of(limit=2)
    (a,), first = stage.served(1, max_concurrent_streams=1)
    b = stage.send()
    second = stage.serve()
    stage.reply(a)
    stage.advance(30.0)
    stage.reply(b)

    stage.advance(25.0)
    assert (first.channel.closed, second.channel.closed) == (True, False)
    stage.advance(30.0)

    assert second.channel.closed


@pytest.mark.parametrize("idle_timeout", [0.0, None])
def test_idle_timeout_of_nothing_never_evicts(streams_of: StageOf, idle_timeout: float | None) -> None:
    """BEH-P10: nor does an idle connection ask for signs of life."""
    stage = streams_of(idle_timeout=idle_timeout)
    peer = stage.rested()

    stage.advance(1e6)

    assert not peer.channel.closed
    assert stage.send().is_running


# -- lifetime ----------------------------------------------------------------------------


def test_connection_beyond_its_lifetime_finishes_its_streams_and_takes_no_more(streams_of: StageOf) -> None:
    """BEH-M12, I23: the next request opens another, within a limit of one."""
    stage = streams_of(lifetime=100.0, limit=1)
    (old_call,), old = stage.served(1)
    stage.advance(101.0)

    new_call = stage.send()
    new = stage.serve()

    assert (len(old.requests), len(new.requests)) == (1, 1)
    assert stage.figures() == (2, 2, 0, 0)
    stage.reply(old_call)
    assert (old.channel.closed, new.channel.closed) == (True, False)
    stage.reply(new_call)


def test_idle_connection_is_closed_at_the_end_of_its_lifetime(streams_of: StageOf) -> None:
    """I23: between 90 and 100 % of it."""
    stage = streams_of(lifetime=30.0, idle_timeout=None)
    peer = stage.rested()

    stage.advance(26.9)
    assert not peer.channel.closed
    stage.advance(3.2)

    assert peer.channel.closed


def test_connection_whose_last_stream_ends_after_its_lifetime_is_closed_then(streams_of: StageOf) -> None:
    """I23."""
    stage = streams_of(lifetime=10.0)
    (call,), peer = stage.served(1)
    stage.advance(20.0)

    stage.reply(call)

    assert peer.channel.closed
    assert stage.figures() == (0, 0, 0, 0)


def test_lifetime_of_nothing_is_one_request_a_connection(streams_of: StageOf) -> None:
    """BEH-P32: a burst of three is three connections, one after the other, whatever each could carry."""
    stage = streams_of(lifetime=0.0, limit=2)
    calls = stage.send_many(3)
    peers = [stage.serve()]
    while stage.dialer.pending:
        peers.append(stage.serve())

    assert [peer.paths for peer in peers] == [["/0"], ["/1"], ["/2"]]
    stage.reply(*calls)
    assert all(peer.channel.closed for peer in peers)
    assert stage.figures() == (0, 0, 0, 0)


def test_connection_for_one_request_is_used_though_its_server_last_took_none(streams_of: StageOf) -> None:
    """FLT-S11: it would be closed unused, and dialed again, over and over."""
    stage = streams_of(lifetime=0.0)
    (first,), _ = stage.served(1, max_concurrent_streams=0)
    stage.reply(first)
    second = stage.send()

    peer = stage.serve(greets=False)

    assert peer.paths == ["/1"]
    assert len(stage.dialer.dials) == 2
    peer.send_settings()
    stage.reply(second)


# -- warm-up -----------------------------------------------------------------------------


def test_warm_up_opens_so_many_connections_and_requests_fill_one_of_them(streams_of: StageOf) -> None:
    """BEH-P32: SETTINGS are exchanged while they stand idle."""
    stage = streams_of(limit=3)
    stage.supervisor.tell(WarmUp(TWO, 2, None))
    stage.settle()
    peers = [stage.serve(max_concurrent_streams=2), stage.serve(max_concurrent_streams=2)]
    assert stage.figures() == (0, 0, 2, 0)

    stage.send_many(3)

    assert sorted(len(peer.active) for peer in peers) == [1, 2]
    assert len(stage.dialer.dials) == 2


def test_warm_up_opens_no_more_than_the_limit(streams_of: StageOf) -> None:
    """BEH-P35, I1."""
    stage = streams_of(limit=2)

    stage.supervisor.tell(WarmUp(TWO, 9, None))
    stage.settle()

    assert len(stage.dialer.pending) == 2
    stage.serve()
    stage.serve()


# -- bounds over all keys ----------------------------------------------------------------


def test_idle_connection_of_another_key_makes_room(streams_of: StageOf) -> None:
    """BEH-P35: max_total_connections."""
    stage = streams_of(total=1)
    peer = stage.rested()

    call = stage.send(OTHER_TWO)

    assert peer.channel.closed
    stage.serve()
    assert call.is_running


def test_retired_connection_counts_in_the_bound_over_all_keys_until_it_is_closed(streams_of: StageOf) -> None:
    """BEH-P35, I1: there is no second one while it finishes."""
    stage = streams_of(total=1)
    (a,), peer = stage.served(1)
    peer.leave(LAST_ID)
    stage.settle()
    b = stage.send()
    assert not stage.dialer.pending

    stage.reply(a)

    assert peer.channel.closed
    stage.serve()
    stage.reply(b)


def test_bound_of_a_host_counts_its_versions_together(streams_of: StageOf) -> None:
    """BEH-P35: max_conns_per_host."""
    stage = streams_of(per_host=1)
    (call,), _ = stage.served(1)
    old = stage.send(ONE_ONE)
    assert not stage.dialer.pending

    stage.reply(call)

    assert [dial.key for dial in stage.dialer.pending] == [ONE_ONE]
    stage.connect()
    stage.answer(old)


def test_busy_key_gives_a_connection_up_to_a_key_that_has_waited_longer(streams_of: StageOf) -> None:
    """BEH-P35, I25: it always carries something, and would never go idle."""
    stage = streams_of(total=1)
    (first,), busy = stage.served(1)
    stage.advance(1.0)
    other = stage.send(OTHER_TWO)
    stage.advance(1.0)

    second = stage.send()
    assert second.is_waiting
    stage.reply(first)
    assert busy.channel.closed
    assert [dial.key for dial in stage.dialer.pending] == [OTHER_TWO]
    stage.serve()
    stage.reply(other)

    stage.serve()
    stage.reply(second)
    assert other.response.status_code == second.response.status_code == 200


def test_key_gives_up_one_connection_at_a_time(streams_of: StageOf) -> None:
    """BEH-P35: two are open, one is enough for the other key, and the other one goes on taking requests."""
    stage = streams_of(total=2, limit=2)
    (a,), first = stage.served(1, max_concurrent_streams=1)
    b = stage.send()
    second = stage.serve(max_concurrent_streams=3)
    stage.advance(1.0)
    other = stage.send(OTHER_TWO)
    stage.advance(1.0)

    late = stage.send_many(2)

    assert all(call.is_running for call in late)
    assert len(second.active) == 3
    stage.reply(a)
    assert (first.channel.closed, second.channel.closed) == (True, False)
    stage.serve()
    stage.reply(b, other, *late)


# -- reconnecting ------------------------------------------------------------------------


def test_key_that_answered_waits_and_comes_back_by_the_same_steps_as_http_1(streams_of: StageOf) -> None:
    """BEH-R1, I22: 1, 2, 4 s, one attempt at a time; the queue waits, and goes on in order."""
    stage = streams_of()
    peer = stage.rested()
    calls = stage.send_many(2)
    stage.lose(peer)
    assert stage.stats().state == "reconnecting"

    for pause in (1.0, 2.0, 4.0):
        stage.refuse()
        assert not stage.dialer.pending
        stage.advance(pause - 0.001)
        assert not stage.dialer.pending
        stage.advance(0.001)

    assert stage.serve().paths == ["/1", "/2"]
    stage.reply(*calls)
    assert stage.stats().state == "open"


def test_key_that_never_answered_shares_the_failure_of_its_dial(streams_of: StageOf) -> None:
    """BEH-P20: one dial, all who wait."""
    stage = streams_of()
    calls = stage.send_many(3)

    stage.refuse()

    errors = [stage.error(call, ConnectError) for call in calls]
    assert len({id(error) for error in errors}) == 3
    assert stage.figures() == (0, 0, 0, 0)


def test_server_that_says_farewell_to_every_new_connection_meets_backoff_and_no_hot_loop(streams_of: StageOf) -> None:
    """FLT-S2, I22: GOAWAY(0) at once, over and over; the request gives up in time, with its proof."""
    stage = streams_of()
    stage.rested()
    next(iter(stage.peers.values())).leave(1)
    stage.settle()
    call = stage.send(timeout=30.0)
    for _ in range(100):
        if call.future.done():
            break
        while stage.dialer.pending:
            stage.serve().leave(0)
            stage.settle()
        stage.advance(0.5)

    assert isinstance(call.error, RemoteProtocolError | DeadlineExceeded)
    assert len(stage.dialer.dials) <= 1 + 1 + 3 + 5


# -- the end of a key --------------------------------------------------------------------


def test_manager_without_connections_and_requests_retires_and_comes_back_when_asked(streams_of: StageOf) -> None:
    """BEH-P43: 60 s after its last connection was closed."""
    stage = streams_of()
    stage.rested()
    stage.advance(55.0)

    stage.advance(59.9)
    assert TWO in stage.pools
    stage.advance(0.1)
    assert TWO not in stage.pools

    (call,), _ = stage.served(1)
    stage.reply(call)
    assert call.response.status_code == 200


def test_timers_and_descriptors_are_those_of_what_lives(streams_of: StageOf) -> None:
    """I3, I24: after a hundred requests, cancels and deadlines nothing is left but the idle connection."""
    stage = streams_of(limit=1, streams=10)
    peer = stage.rested()
    for _ in range(5):
        calls = stage.send_many(20, timeout=30.0)
        stage.cancel(calls[3])
        stage.cancel(calls[15])
        stage.advance(1.0)
        while peer.active:
            peer.respond(peer.active[0].stream_id)
            stage.settle()
        assert all(call.future.done() for call in calls)

    watched, timers = stage.dispatcher.census()
    assert watched == 1
    assert timers <= 3
    stage.advance(55.0)
    assert stage.dispatcher.census() == (0, 1), "that of the manager's retirement"


def test_suspect_connection_takes_no_more_until_it_has_answered(streams_of: StageOf) -> None:
    """FLT-S11, I13: after a timeout it is asked; meanwhile another one is opened."""
    stage = streams_of(limit=2)
    peer = stage.rested()
    peer.answers_pings = False
    late = stage.send(timeout=0.5)
    stage.advance(0.5)
    assert isinstance(late.error, DeadlineExceeded)

    call = stage.send()
    assert call.is_waiting
    peer.answer_pings()
    stage.settle()

    assert call.is_running
    assert peer.paths[-1] == "/2"
    stage.serve()
    stage.reply(call)
