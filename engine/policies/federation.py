"""Which region leads a queue: the one that it is declared to be led by, or whoever stands in for that one."""

from dataclasses import dataclass

from relight.engine.policies.routing import moved, region_of
from relight.events.base import Event
from relight.events.envelope import Recorded
from relight.events.failover import Routing
from relight.events.queues import QueueFailedOver, QueueHandover, QueueRecovered, QueueRuling


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """A queue as its last ruling leaves it."""

    rev: int
    event_id: str
    ruling: QueueRuling

    @property
    def home(self) -> str:
        """Who leads it where nothing is the matter."""
        match self.ruling:
            case QueueHandover(home_region=str(home)):
                return home
            case QueueFailedOver():
                return self.ruling.from_region
            case _:
                return self.ruling.primary_region


def observe_queue(state: QueueState | None, event: Recorded[Event]) -> QueueState | None:
    """The state after a ruling on this queue; one that is not newer leaves it as it is."""
    if not isinstance(event.data, QueueRuling) or (state is not None and (event.rev or 0) <= state.rev):
        return state
    return QueueState(rev=event.rev or 0, event_id=event.id, ruling=event.data)


def leader(state: QueueState, routing: Routing) -> str:
    """Who has to lead the queue under this routing."""
    return moved(routing, state.home) if region_of(routing, state.home) is not None else state.ruling.primary_region


def due_handover(state: QueueState, routing: Routing, task_count: int | None) -> QueueHandover | None:
    """The ruling that gives a queue to whoever has to lead it; None where he does."""
    ruling, wanted = state.ruling, leader(state, routing)
    if not ruling.is_active or wanted == ruling.primary_region:
        return None
    members = {ruling.primary_region, *ruling.replica_regions}
    order = [region.name for region in routing.regions]
    replicas = sorted(members - {wanted}, key=lambda name: order.index(name) if name in order else len(order))
    recovers = wanted == state.home
    kind: type[QueueHandover] = QueueRecovered if recovers else QueueFailedOver
    return kind(
        queue_name=ruling.queue_name,
        primary_region=wanted,
        replica_regions=tuple(replicas),
        is_active=True,
        reason=f"{wanted} takes its traffic again" if recovers else f"{wanted} stands in for {state.home}",
        from_region=ruling.primary_region,
        task_count=task_count,
        home_region=state.home,
    )
