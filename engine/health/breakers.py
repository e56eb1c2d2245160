"""The fleet's breakers that are not closed: which, since when, and when they are tried again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import asyncpg

from relight.engine.health.models import Check
from relight.engine.tables.connecting import Session
from relight.events.envelope import PLATFORM

MAX_NAMED: Final = 20
"""Those that opened last: each is a row of `relight status` and a series of `/metrics`."""


@dataclass(frozen=True, kw_only=True)
class NotClosed:
    """`retry_at` is None while probes are under way."""

    service_name: str
    state: str
    since: datetime | None
    retry_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class FleetBreakers:
    """How many there are of all tenants, and the names of those of one tenant and the platform."""

    open: int
    half_open: int
    named: Sequence[NotClosed]


async def look_at_breakers(session: Session, tenant: str) -> FleetBreakers:
    """Reads an index that holds nothing else, in a transaction of whoever calls."""
    counted = await session.fetchrow(_COUNTS)
    assert counted is not None
    named: list[asyncpg.Record] = await session.fetch(_NAMED, [tenant, PLATFORM], MAX_NAMED)
    return FleetBreakers(**dict(counted), named=[NotClosed(**dict(row)) for row in named])


_COUNTS = """
SELECT count(*) FILTER (WHERE state = 'open') AS open, count(*) FILTER (WHERE state = 'half_open') AS half_open
FROM circuit_breaker_states
WHERE state IN ('open', 'half_open')
"""
_NAMED = """
SELECT service_name, state, opened_at AS since, next_retry_at AS retry_at
FROM circuit_breaker_states
WHERE tenant = ANY($1::text[]) AND state IN ('open', 'half_open')
ORDER BY opened_at DESC NULLS LAST, service_name
LIMIT $2
"""


def breaker_checks(found: FleetBreakers | None, now: datetime) -> Iterator[Check]:
    """They all pass.

    An open breaker is a dependency's fault and relight's work. Were it to degrade health, each brownout of a model
    would be an alarm about all of relight's processes, and hide what else is wrong with them.
    """
    if found is None:
        return
    check = partial(Check, component="breakers", time=now)
    yield check(measurement="open", observed=found.open)
    yield check(measurement="halfOpen", observed=found.half_open)
    for breaker in found.named:
        told = {"state": breaker.state, "since": _said(breaker.since), "retry_at": _said(breaker.retry_at)}
        yield check(
            measurement="ruling",
            id=breaker.service_name,
            observed={name: value for name, value in told.items() if value is not None},
        )


def _said(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
