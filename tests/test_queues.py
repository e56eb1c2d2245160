"""Queues: the routing is what the highest revision says; copies are only remembered."""

from folding import fact, given, moment

from relight.events.queues import QueueDeclared, QueueFailedOver, QueueRecovered, QueueReplicated
from relight.projections.queues import EVENTS, QUEUES

DECLARED = QueueDeclared(
    queue_name="refunds", primary_region="eu", replica_regions=("us", "ap"), is_active=True, reason="new"
)
FAILED_OVER = QueueFailedOver(
    queue_name="refunds",
    primary_region="us",
    replica_regions=("ap",),
    is_active=True,
    reason="eu is lost",
    from_region="eu",
    task_count=17,
)
RECOVERED = QueueRecovered(
    queue_name="refunds",
    primary_region="eu",
    replica_regions=("us", "ap"),
    is_active=True,
    reason="eu is back",
    from_region="us",
)
REPLICATED = QueueReplicated(queue_name="refunds", from_region="eu", to_region="us", task_count=5, lag_ms=40)


def test_a_queue_fails_over_and_recovers_with_its_whole_routing() -> None:
    [over] = given(DECLARED, FAILED_OVER).when(times=2).then(QUEUES)
    assert (over["primary_region"], over["replica_regions"], over["routed_at"]) == ("us", ("ap",), moment(2))
    [back] = given(DECLARED, FAILED_OVER, RECOVERED).when(times=2).then(QUEUES)
    assert (back["primary_region"], back["replica_regions"], back["reason"]) == ("eu", ("us", "ap"), "eu is back")


def test_a_failover_of_a_lower_revision_that_arrives_after_the_recovery_changes_nothing() -> None:
    [row] = given(fact(RECOVERED, rev=3, tick=1), fact(FAILED_OVER, rev=2, tick=9)).when(times=2).then(QUEUES)
    assert (row["primary_region"], row["routing_rev"]) == ("eu", 3)


def test_copies_and_handovers_are_in_the_history() -> None:
    rows = given(DECLARED, REPLICATED, FAILED_OVER, RECOVERED).when(times=2).then(EVENTS)
    assert [(r["event_type"], r["from_region"], r["to_region"], r["task_count"]) for r in rows] == [
        ("replication", "eu", "us", 5),
        ("failover", "eu", "us", 17),
        ("recovered", "us", "eu", None),
    ]


def test_a_copy_alone_makes_no_queue() -> None:
    assert given(REPLICATED).when(times=2).then(QUEUES) == []
