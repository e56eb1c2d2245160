"""What a topology asks for and what runs: each difference is applied, or named for whoever configures the servers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import BaseModel, ConfigDict

from relight.engine.log.content import BUCKET_STREAM
from relight.engine.log.control import ControlLog
from relight.engine.log.topology import STREAM
from relight.engine.policies.failover import says_nothing_new
from relight.engine.policies.failover_commands import Declare
from relight.engine.policies.federation import QueueState, observe_queue
from relight.engine.policies.routing import RoutingState
from relight.engine.topology.model import FailoverPolicy, QueueOptions, Topology
from relight.engine.topology.servers_seen import SeenServer
from relight.events.envelope import PLATFORM
from relight.events.failover import FleetRegion, StandBy
from relight.events.queues import QueueDeclared


class Subject(StrEnum):
    """What a difference is about."""

    STREAM = "stream"
    CONTENT = "content"
    SERVER = "server"
    FLEET = "fleet"
    QUEUE = "queue"


class Difference(BaseModel):
    """`applies` is false for what `relight topology apply` cannot change: a server's own configuration."""

    model_config = ConfigDict(frozen=True)

    about: Subject
    name: str
    found: str
    wanted: str
    applies: bool = True


@dataclass(frozen=True, kw_only=True)
class Found:
    """What runs now; `stream` and `content` are numbers of copies, None where it is not declared."""

    stream: int | None
    content: int | None
    servers: Sequence[SeenServer]
    routing: RoutingState
    queues: dict[str, QueueState | None]


async def copies_of(js: JetStreamContext, stream: str) -> int | None:
    """How many copies it is declared with; None where it is not."""
    try:
        return (await js.stream_info(stream)).config.num_replicas or 1
    except NotFoundError:
        return None


async def queues_of(control: ControlLog, names: Sequence[str]) -> dict[str, QueueState | None]:
    """As their last rulings leave them."""
    tails = await asyncio.gather(*(control.tail(QueueDeclared, tenant=PLATFORM, entity=name) for name in names))
    return {
        name: None if tail.event is None else observe_queue(None, tail.event)
        for name, tail in zip(names, tails, strict=True)
    }


def differences(topology: Topology, found: Found) -> list[Difference]:
    """In the order in which they are applied; empty: it is all as the topology says."""
    copies = [(Subject.STREAM, STREAM, found.stream), (Subject.CONTENT, BUCKET_STREAM, found.content)]
    return [
        *(
            Difference(about=about, name=name, found=_copies(number), wanted=_copies(topology.replicas))
            for about, name, number in copies
            if number != topology.replicas
        ),
        *(difference for server in found.servers for difference in _server(server)),
        *_fleet(topology, found.routing),
        *(
            Difference(
                about=Subject.QUEUE, name=queue.name, found=_led(found.queues[queue.name]), wanted=_wanted(queue)
            )
            for queue in topology.queues
            if not is_declared(queue, found.queues[queue.name])
        ),
    ]


def declared_fleet(topology: Topology, ordered_by: str | None = None) -> Declare:
    """The command that makes a fleet's routing what the topology says."""
    fleet = topology.fleet
    return Declare(
        regions=tuple(
            FleetRegion(name=name, residency=region.residency, allowed=region.allowed)
            for name, region in topology.regions.items()
        ),
        policies=tuple(_stand_by(policy, topology.quorum) for policy in topology.policies),
        max_failovers=fleet.max_failovers,
        window_s=fleet.window_s,
        drain_s=fleet.drain_s,
        ordered_by=ordered_by,
    )


def is_declared(queue: QueueOptions, state: QueueState | None) -> bool:
    """Whether a queue is as its options say; one that another region leads for the while is, too."""
    if state is None or not state.ruling.is_active:
        return False
    members = {state.ruling.primary_region, *state.ruling.replica_regions}
    return state.home == queue.primary and members == {queue.primary, *queue.replicas}


def _stand_by(policy: FailoverPolicy, quorum: int) -> StandBy:
    conditions = policy.conditions
    return StandBy(
        policy_name=policy.name,
        source_region=policy.source,
        fallback_regions=policy.fallbacks,
        conditions={"suspected_by": conditions.suspected_by or quorum, "for_s": conditions.for_s},
        manner=policy.manner,
    )


def _server(server: SeenServer) -> list[Difference]:
    lacks = []
    if not server.answers:
        return [
            Difference(about=Subject.SERVER, name=server.name, found="does not answer", wanted="runs", applies=False)
        ]
    if server.tag not in server.tags:
        lacks.append(("tags " + (", ".join(server.tags) or "none"), f"tag {server.tag}"))
    if not server.sync_always:
        lacks.append(("acknowledges before it fsyncs", "sync_interval: always"))
    return [
        Difference(about=Subject.SERVER, name=server.name, found=found, wanted=wanted, applies=False)
        for found, wanted in lacks
    ]


def _fleet(topology: Topology, state: RoutingState) -> list[Difference]:
    wanted = declared_fleet(topology)
    if says_nothing_new(state, wanted):
        return []
    routing = state.routing
    found = (
        "not declared"
        if routing is None
        else _said([region.name for region in routing.regions], [policy.policy_name for policy in routing.policies])
    )
    said = _said(topology.names, [policy.name for policy in topology.policies])
    return [
        Difference(
            about=Subject.FLEET,
            name=topology.fleet.name,
            found=found,
            wanted=said if said != found else f"{said}, with other conditions or limits",
        )
    ]


def _said(regions: Sequence[str], policies: Sequence[str]) -> str:
    return f"regions {', '.join(regions)}; policies {', '.join(policies) or 'none'}"


def _copies(number: int | None) -> str:
    return "not declared" if number is None else "1 copy" if number == 1 else f"{number} copies"


def _led(state: QueueState | None) -> str:
    if state is None:
        return "not declared"
    if not state.ruling.is_active:
        return "withdrawn"
    others = ", ".join(
        name for name in (state.ruling.primary_region, *state.ruling.replica_regions) if name != state.home
    )
    return f"led by {state.home}, then {others or 'nobody'}"


def _wanted(queue: QueueOptions) -> str:
    return f"led by {queue.primary}, then {', '.join(queue.replicas) or 'nobody'}"
