"""What `relight drill` runs, in a home of its own that goes with it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from relight.engine.app.failing_over import opened_fleet
from relight.engine.app.topologies import apply_topology
from relight.engine.drill.plan import Plan
from relight.engine.drill.playing import Report, play
from relight.engine.drill.scene import Means, Step
from relight.engine.log.topology import connect
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.pools import PROJECTOR_ROLE
from relight.events.catalog import prepare

BY = "relight drill"


async def run_drill(plan: Plan, step: Step, *, keep: Path | None = None) -> Report:
    """`keep`: an empty folder for all that the drill leaves; else it is deleted. Otherwise as `play`."""
    prepare()
    with _home(keep) as home:
        return await play(plan, home, means(), step)


def means() -> Means:
    """What a scene needs of this process."""
    return Means(
        connect=partial(connect, name=BY),
        session=partial(connect_session, role=PROJECTOR_ROLE, name=BY),
        apply=_apply,
        back=_back,
    )


async def _apply(home: Path, file: Path, region: str) -> None:
    await apply_topology(_settings(home, file, region), str(file), by=BY)


async def _back(home: Path, file: Path, near: str, region: str) -> None:
    async with opened_fleet(_settings(home, file, near), None) as fleet:
        await fleet.commands.back(region, ordered_by=BY, reason="the drill's round is over")


def _settings(home: Path, file: Path, region: str) -> Settings:
    return Settings(home=home, topology=str(file), region=region, spool=False)


@contextmanager
def _home(keep: Path | None) -> Iterator[Path]:
    """Root's has to be one that PostgreSQL's user can enter."""
    as_root = os.geteuid() == 0
    home = keep or Path(tempfile.mkdtemp(prefix="relight-drill-", dir="/tmp" if as_root else None))
    home.mkdir(parents=True, exist_ok=True)
    try:
        if as_root:
            home.chmod(0o755)
        yield home
    finally:
        if keep is None:
            shutil.rmtree(home, ignore_errors=True)
