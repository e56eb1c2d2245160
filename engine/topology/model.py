"""A topology: the fleet's regions, who stands in for whom, and the queues between them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from relight.engine.errors import TopologyRefused
from relight.events.failover import Manner
from relight.events.values import Name

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
COPIES: Final = 3
"""Of the stream and of contents, where there are three servers or more."""
ZONES: Final = 3
"""Servers of a zone topology, in its one region."""
UNIQUE_REGION, UNIQUE_ZONE = "region:", "zone:"
"""Prefixes of servers' tags: no two copies where the tag is the same."""


class Kind(StrEnum):
    """How the log's servers lie, which decides what its acknowledgement survives."""

    EMBEDDED = "embedded"
    """one server: the crash of every process"""
    ZONE = "zone"
    """three servers in one region: the loss of any one of them"""
    STRETCH = "stretch"
    """three or five regions with a server each: the permanent loss of any one of them"""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FleetOptions(_Frozen):
    """`name` is the scope of the routing table."""

    name: Name = "agents"
    kind: Kind
    max_failovers: int = Field(default=3, ge=1)
    """Within `window_s`; one more is refused."""
    window_s: int = Field(default=600, ge=1)
    drain_s: int = Field(default=20, ge=0)
    """How long a graceful failover waits for work in hand before it is forced."""
    suspect_phi: Positive = 8.0
    """Suspicion at which a region that is silent counts as suspected (phi accrual)."""
    heartbeat_s: Positive = 0.5


class RegionOptions(_Frozen):
    """`residency` is where a region's data has to stay: only regions of the same one, or `allowed`, stand in for it.

    `nats` and `database` are the addresses of real machines; without them servers are started on this one.
    """

    residency: Name | None = None
    allowed: tuple[Name, ...] = ()
    nats: str | None = None
    database: str | None = None


class FailoverConditions(_Frozen):
    """`suspected_by`: so many regions' services say so; null is a majority of all. `for_s`: without a break."""

    suspected_by: int | None = Field(default=None, ge=1)
    for_s: float = Field(default=2.0, ge=0, allow_inf_nan=False)


class FailoverPolicy(_Frozen):
    """Who stands in for `source`, in order of preference; `manner` is what is done without an operator."""

    name: Name
    source: Name
    fallbacks: tuple[Name, ...] = Field(min_length=1)
    conditions: FailoverConditions = FailoverConditions()
    manner: Manner = Manner.FORCED


class QueueOptions(_Frozen):
    """A federated queue: `primary` leads, `replicas` in order of preference."""

    name: Name
    primary: Name
    replicas: tuple[Name, ...] = ()


class Topology(_Frozen):
    """Sound: `load_topology` and `checked` give no other. Regions stand in the order of the file."""

    fleet: FleetOptions
    regions: Mapping[Name, RegionOptions]
    policies: tuple[FailoverPolicy, ...] = ()
    queues: tuple[QueueOptions, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.regions)

    @property
    def quorum(self) -> int:
        """A majority of the regions."""
        return len(self.regions) // 2 + 1

    @property
    def replicas(self) -> int:
        """Copies of each message on the stream."""
        return 1 if self.fleet.kind is Kind.EMBEDDED else COPIES

    @property
    def local(self) -> bool:
        """Whether its servers are started here, rather than told by their addresses."""
        return all(region.nats is None for region in self.regions.values())

    def known(self, region: str) -> str:
        """The same name. Raises `TopologyRefused` when there is no such region."""
        if region not in self.regions:
            known = ", ".join(self.regions)
            raise TopologyRefused(
                "known_regions", f"there is no region {region}: RELIGHT_REGION has to be one of {known}"
            )
        return region

    def others(self, region: str) -> tuple[str, ...]:
        return tuple(name for name in self.regions if name != region)

    def may_stand_in(self, source: str, target: str) -> bool:
        """Whether the source's data may go where the target is."""
        stays = self.regions[source].residency
        return stays is None or self.regions[target].residency == stays or target in self.regions[source].allowed
