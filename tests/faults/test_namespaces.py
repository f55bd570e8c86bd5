"""FLT-N3, N12, N18: what only a network of one's own can do; the scenes are in apart.py."""

from __future__ import annotations

from tests.servers.namespace import needs_namespace, run_apart

pytestmark = needs_namespace


def test_what_the_kernel_has_no_way_to_is_an_error_at_once_and_the_next_address_is_tried() -> None:
    """FLT-N3: unreachable, prohibited, blackholed, and without a route."""
    run_apart("tests.faults.apart", "routes")


def test_without_a_port_for_a_further_connection_its_request_fails_and_nobody_else() -> None:
    """FLT-N18: EADDRNOTAVAIL for real; an error of resources, at once, without a loop, not charged to the host."""
    run_apart("tests.faults.apart", "ports")


def test_a_peer_that_is_gone_without_a_word_is_noticed_and_costs_no_idempotent_request() -> None:
    """FLT-N12: keep-alive probes end what stands idle and what waits; the request that waited is sent again."""
    run_apart("tests.faults.apart", "silence")
