"""Which declared queries clients ask, how often, and about what."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from plan import ROWS
from traffic import AGENTS, REGION, decision, incident, service

from relight.engine.tables.queries import Argument, find, parse, statement

Choose = Callable[[Random, int], dict[str, str]]
"""Arguments, given the lot and a call of the tenant that is asked about."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query with its arguments, for HTTP by name and for the bare pool as SQL."""

    name: str
    arguments: dict[str, str]

    @property
    def sql(self) -> str:
        return _SQL[self.name]

    def values(self, tenant: str) -> list[Argument | int]:
        return [tenant, ROWS, *parse(find(self.name), self.arguments).values()]


def _nothing(lot: Random, call: int) -> dict[str, str]:
    return {}


MIX: dict[str, tuple[int, Choose]] = {
    "decisions.audit": (25, lambda lot, call: {"decision": decision(call)}),
    "decisions.by_outcome": (20, lambda lot, call: {"outcome": lot.choice(("failure", "success"))}),
    "breakers.open_now": (12, _nothing),
    "breakers.history": (10, lambda lot, call: {"service": service(call)}),
    "incidents.open_now": (10, _nothing),
    "incidents.timeline": (5, lambda lot, call: {"incident": incident(call)}),
    "faults.not_healthy": (4, _nothing),
    "failover.routing": (3, lambda lot, call: {"fleet": "fleet"}),
    "governor.not_normal": (3, _nothing),
    "tasks.held_in": (3, lambda lot, call: {"region": REGION}),
    "queues.led_by": (2, lambda lot, call: {"region": REGION}),
    "intelligence.latest": (2, lambda lot, call: {"task": "task-1"}),
    "certification.results": (1, lambda lot, call: {"certification": "cert-1"}),
}
"""Weights in percent. `decisions.counts` is not among them: it reads all of a tenant's decisions, which is a report."""

_SQL = {name: statement(find(name)) for name in MIX}
_NAMES, _WEIGHTS = list(MIX), [weight for weight, _ in MIX.values()]
KNOWN_CALLS = AGENTS * 20


def question(lot: Random, tenant_number: int, tenants: int) -> Question:
    """The next one of a client of this tenant; of calls the first thousand are asked about."""
    [name] = lot.choices(_NAMES, _WEIGHTS)
    call = lot.randrange(KNOWN_CALLS // tenants) * tenants + tenant_number
    return Question(name, MIX[name][1](lot, call))
