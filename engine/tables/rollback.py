"""Rollback: the tables that a rebuild replaced take their place again, with all that they missed folded in."""

import time
from collections.abc import Sequence

from asyncpg import Record
from nats.aio.client import Client
from pydantic import BaseModel

from relight.engine.clock import Clock
from relight.engine.errors import RebuildRefused, Rewound, Unreachable
from relight.engine.log.reader import BEGINNING, TRANSIENT, Anchor, Reader
from relight.engine.tables.connecting import Session
from relight.engine.tables.exclusive import alone
from relight.engine.tables.joining import Target
from relight.engine.tables.marks import load_marks
from relight.engine.tables.positions import load_position
from relight.engine.tables.refolding import Advanced, Refolding
from relight.engine.tables.shadow import OWNER, acting, drop_all, find_sets, refuse_unlike
from relight.engine.tables.swapping import Swap, Swapped
from relight.projections.catalog import projections


class RolledBack(BaseModel):
    """Which tables are back, as of which position; and how many events they had missed."""

    projections: tuple[str, ...]
    position: str
    generation: int
    events: int
    writes_waited_s: float
    reads_waited_s: float
    took_s: float


async def roll_back(
    client: Client, keeper: Session, builder: Session, *, clock: Clock, advanced: Advanced | None = None
) -> RolledBack:
    """Those that are replaced now are kept in turn: another rollback undoes it.

    Raises `RebuildRefused`: there is no previous set, a migration has changed the live one since, or a rebuild runs.
    """
    began, sets = time.monotonic(), await find_sets(keeper)
    async with alone(keeper):
        retired = await keeper.fetch("SELECT projection, version, seq, sha256, retired_at FROM retired_tables")
        if not retired:
            raise RebuildRefused("there is nothing to roll back to: no rebuild has kept the tables that it replaced")
        names = {row["projection"] for row in retired}
        chosen = [projection for projection in projections() if projection.name in names]
        await refuse_unlike(keeper, sets, sets.previous, [table for p in chosen for table in p.tables])
        try:
            async with Reader(client, BEGINNING) as reader:
                left_at = Anchor(retired[0]["seq"], retired[0]["sha256"])
                reader.move_to(left_at if await reader.holds(left_at) else BEGINNING)
                target = Target(sets=sets, schema=sets.previous, projections=frozenset(chosen))
                refolding = Refolding(builder, reader, target)
                live = await load_position(keeper)
                await refolding.through(live.seq, advanced)
                await _trim(builder, refolding)
                swapped = await _swap(refolding, live.incarnation, retired, clock)
        except Rewound as error:
            raise RebuildRefused(
                "the stream was put back to an older copy meanwhile: run this again when the projector has noticed"
            ) from error
        except TRANSIENT as error:
            raise Unreachable(f"stream EV cannot be read ({error!r}): is NATS up?") from error
    return RolledBack(
        projections=tuple(sorted(names)),
        position=str(swapped.position),
        generation=swapped.generation,
        events=refolding.events,
        writes_waited_s=swapped.writes_waited_s,
        reads_waited_s=swapped.reads_waited_s,
        took_s=time.monotonic() - began,
    )


async def drop_previous(keeper: Session) -> int:
    """Gives back the space of the replaced tables; says how many. Raises `RebuildRefused` while a rebuild runs."""
    sets = await find_sets(keeper)
    async with alone(keeper), acting(keeper, OWNER, sets.live):
        await drop_all(keeper, sets.previous)
        return len(await keeper.fetch("DELETE FROM retired_tables RETURNING table_name"))


async def _swap(refolding: Refolding, incarnation: int, retired: Sequence[Record], clock: Clock) -> Swapped:
    return await Swap(
        refolding,
        incarnation=incarnation,
        versions={row["projection"]: row["version"] for row in retired},
        resolved_since=retired[0]["retired_at"],
        clock=clock,
    ).run()


async def _trim(builder: Session, refolding: Refolding) -> None:
    """What retention has trimmed of the live tables since; a row that it kept is kept."""
    sets, names = refolding.target.sets, {table.name for table in refolding.tables}
    for mark in await load_marks(builder):
        if mark.table in names:
            async with acting(builder, OWNER, sets.live):
                await builder.execute("SELECT set_config('relight.trimming', $1, true)", mark.tenant)
                await builder.execute(
                    f"DELETE FROM {sets.previous}.{mark.table} AS old WHERE tenant = $1 AND event_id < $2"
                    f" AND NOT EXISTS (SELECT FROM {sets.live}.{mark.table} AS held"
                    " WHERE held.tenant = old.tenant AND held.event_id = old.event_id)",
                    mark.tenant,
                    mark.below,
                )
