"""The pools of connections to PostgreSQL: how busy they are, and whether requests were turned away lately."""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial

from relight.engine.health.limits import EXHAUSTED_WITHIN_S
from relight.engine.health.models import Check, Kind
from relight.engine.tables.pools import Pool, PoolStatistics


class PoolWatch:
    """Remembers when each pool turned somebody away last: a count alone only grows."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = pools
        self._exhausted: dict[str, int] = {}
        self._exhausted_at: dict[str, float] = {}

    def statistics(self) -> dict[str, PoolStatistics]:
        return {name: pool.statistics() for name, pool in self._pools.items()}

    def checks(self, now: datetime) -> Iterator[Check]:
        for name, found in self.statistics().items():
            if found.exhausted > self._exhausted.get(name, 0):
                self._exhausted_at[name] = time.monotonic()
            self._exhausted[name] = found.exhausted
            at = self._exhausted_at.get(name)
            lately = at is not None and time.monotonic() - at < EXHAUSTED_WITHIN_S
            yield from _checks(name, found, now, exhausted_lately=lately)


def _checks(name: str, found: PoolStatistics, now: datetime, *, exhausted_lately: bool) -> Iterator[Check]:
    pool = partial(Check, component="pool", kind=Kind.DATASTORE, id=name, time=now)
    advice = "raise RELIGHT_POOL_SIZE, or look for slow queries"
    yield pool(
        measurement="connections",
        observed={"in_use": found.in_use, "idle": found.idle, "size": found.size, "waiting": found.waiting},
    ).warned(
        found.in_use >= found.size and found.waiting,
        f"all {found.size} connections of pool {name} are in use and {found.waiting} requests wait: {advice}",
    )
    yield pool(measurement="exhausted", observed=found.exhausted).warned(
        exhausted_lately,
        f"pool {name} had no connection free in time {found.exhausted} times, within the last minute too: {advice}",
    )
    for measurement, wait_ms in (("acquireP50", found.acquire_p50_ms), ("acquireP99", found.acquire_p99_ms)):
        if wait_ms is not None:
            yield pool(measurement=measurement, observed=round(wait_ms, 3), unit="ms")
