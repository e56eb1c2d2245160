"""Plays the scripted day on servers of its own, in a folder of its own, and leaves neither behind."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter

from relight.engine.clock import Clock, ScriptedClock
from relight.engine.demo.day import storylines
from relight.engine.demo.stage import Stage
from relight.engine.demo.world import REGIONS
from relight.engine.errors import ProjectorError
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.engine.runtime import Relight
from relight.engine.servers import Servers, embedded_servers
from relight.engine.service import Service, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.tables.pools import Pool, PoolOptions, open_pool
from relight.events.decisions import DecisionCheckpointed
from relight.events.envelope import PLATFORM

PROBES = 100
CAUGHT_UP_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Day:
    """The day is over and projected; the servers still run."""

    seed: int
    stage: Stage
    servers: Servers
    service: Service
    pool: Pool
    freshness_ms: tuple[float, ...]
    """Of live events, recorded one at a time: from `record()` until they were visible; ascending."""


@asynccontextmanager
async def scripted_day(seed: int, *, progressed: Callable[[float], None] = lambda hours: None) -> AsyncIterator[Day]:
    """Yesterday, as the script has it; `progressed` is told the hours played. The user's own servers are not touched.

    Raises `EmbeddedServerError`, `ProjectorError`.
    """
    with _throwaway_home() as home:
        settings = Settings.from_environment({"RELIGHT_HOME": str(home), "RELIGHT_TENANT": PLATFORM})
        async with (
            embedded_servers(home) as servers,
            serving(servers, settings) as service,
            await open_pool(servers.database_url, PoolOptions(size=4)) as pool,
        ):
            async with _regions(seed, home, servers, pool) as stage:
                await stage.play(storylines(), progressed=progressed)
                stage.clock.move_to(max(stage.midnight + timedelta(days=1), stage.now()))
                progressed(24.0)
                freshness_ms = await _measure(stage)
            if not await caught_up(service, within_s=CAUGHT_UP_WITHIN_S):
                raise ProjectorError(f"the day was not projected within {CAUGHT_UP_WITHIN_S:g} s: run it again with -v")
            yield Day(
                seed=seed, stage=stage, servers=servers, service=service, pool=pool, freshness_ms=tuple(freshness_ms)
            )


@asynccontextmanager
async def _regions(seed: int, home: Path, servers: Servers, pool: Pool) -> AsyncIterator[Stage]:
    midnight = Clock().now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    clock = ScriptedClock(midnight)
    async with AsyncExitStack() as stack:
        recorders = [
            Recorder(
                RecorderOptions(
                    nats_url=servers.nats_url,
                    nats_monitor_urls=servers.monitors,
                    region=region,
                    tenant=PLATFORM,
                    spools=home / "spool" / region,
                ),
                clock=clock,
            )
            for region in REGIONS
        ]
        for recorder in recorders:
            await stack.enter_async_context(recorder)
        relights = {
            recorder.options.region: Relight(recorder, pool, region=recorder.options.region, tenant=PLATFORM)
            for recorder in recorders
        }
        yield Stage(seed=seed, midnight=midnight, clock=clock, relights=relights)


async def _measure(stage: Stage) -> list[float]:
    """Milliseconds from `record()` to being visible, of events that are recorded now, one at a time."""
    wall, took_ms = Clock(), []
    for number in range(PROBES):
        region = REGIONS[number % len(REGIONS)]
        stage.clock.move_to(wall.now())
        probe = DecisionCheckpointed(
            decision="freshness-probe", checkpoint_type="probe", state_snapshot={"number": number}
        )
        began = perf_counter()
        recorded = stage.record(region, probe, tenant=PLATFORM)
        assert recorded.receipt is not None
        await recorded.receipt.reached(Ack.PROJECTED)
        took_ms.append((perf_counter() - began) * 1_000)
    return sorted(took_ms)


@contextmanager
def _throwaway_home() -> Iterator[Path]:
    """Root's has to be one that PostgreSQL's user can enter."""
    as_root = os.geteuid() == 0
    home = Path(tempfile.mkdtemp(prefix="relight-demo-", dir="/tmp" if as_root else None))
    try:
        if as_root:
            home.chmod(0o755)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
