"""What a breaker says to a call, and what it needs of the process that it is in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from relight.engine.policies.fleet_breaker import State
from relight.events.base import Event


class Permit:
    """A call may pass. `epoch`: as a probe of this process; `lease`: as one of the fleet's, under that revision."""

    __slots__ = ("epoch", "lease")

    def __init__(self, epoch: int, lease: int = 0) -> None:
        self.epoch = epoch
        self.lease = lease

    @property
    def probe(self) -> bool:
        return self is not CLOSED


CLOSED = Permit(0)
"""Of every call through a closed breaker."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A call must not pass; `retry_at_us` is when to ask again, and `fleet` whether the fleet ruled so."""

    breaker: str
    reason: str
    retry_at_us: int
    fleet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerHealth:
    """A breaker that is not closed; `until` is None while probes are under way. `refused_calls`: in its whole life."""

    name: str
    state: State
    fleet: bool
    since: datetime
    until: datetime | None
    reason: str
    refused_calls: int


class Circle(Protocol):
    """What a breaker needs of the process it is in."""

    process: str
    fault_domain: str
    joined: bool
    """Rulings of the fleet are followed, or will be as soon as NATS answers."""

    def now_us(self) -> int: ...

    def join(self) -> None:
        """Sees to it that they are."""

    def ask(self, name: str) -> None:
        """There is a call to make: the fleet's probes are to be leased."""

    def record(self, event: Event) -> None: ...
