"""Which region leads a queue, whatever was failed over before."""

import pytest
from folding import id_at, moment

from relight.engine.policies.federation import QueueState, due_handover
from relight.events.failover import FleetRegion, Phase, Routing, StandIn
from relight.events.queues import QueueDeclared, QueueFailedOver, QueueRecovered, QueueRuling

REGIONS = tuple(FleetRegion(name=name) for name in ("eu", "us", "ap"))


def routing(**moves: str) -> Routing:
    standing = tuple(
        StandIn(
            failover=id_at(1),
            source_region=source,
            target_region=target,
            phase=Phase.COMPLETED,
            begun_at=moment(1),
            since=moment(1),
        )
        for source, target in moves.items()
    )
    active = tuple(region.name for region in REGIONS if region.name not in moves)
    return Routing(regions=REGIONS, active=active, standing=standing)


def queue(ruling: QueueRuling) -> QueueState:
    return QueueState(rev=1, event_id=id_at(1), ruling=ruling)


def declared(primary: str = "eu", *, is_active: bool = True) -> QueueState:
    return queue(
        QueueDeclared(
            queue_name="refunds", primary_region=primary, replica_regions=("us",), is_active=is_active, reason="so"
        )
    )


def test_a_queue_goes_where_the_traffic_of_its_home_goes_and_home_again() -> None:
    first = due_handover(declared(), routing(eu="us"), 3)
    assert isinstance(first, QueueFailedOver)
    assert (first.primary_region, first.from_region, first.home_region, first.task_count) == ("us", "eu", "eu", 3)
    second = due_handover(queue(first), routing(eu="us", us="ap"), None)
    assert isinstance(second, QueueFailedOver)
    assert (second.primary_region, second.from_region, second.home_region) == ("ap", "us", "eu")
    home = due_handover(queue(second), routing(us="ap"), 0)
    assert isinstance(home, QueueRecovered)
    assert (home.primary_region, home.from_region) == ("eu", "ap")
    assert due_handover(queue(home), routing(us="ap"), 0) is None


@pytest.mark.parametrize("state", [declared("us"), declared("elsewhere"), declared(is_active=False)])
def test_a_queue_that_is_led_from_where_traffic_goes_or_takes_no_tasks_stays(state: QueueState) -> None:
    assert due_handover(state, routing(eu="us"), None) is None


def test_a_queue_that_the_release_before_failed_over_comes_home() -> None:
    old = QueueFailedOver(
        queue_name="refunds",
        primary_region="us",
        replica_regions=("ap",),
        is_active=True,
        reason="eu is lost",
        from_region="eu",
    )
    assert old.written_version == 1
    found = due_handover(queue(old), routing(), None)
    assert isinstance(found, QueueRecovered)
    assert found.primary_region == "eu"
