"""Rebuild: tables are folded anew from the whole stream beside the live ones, compared with them, and swapped in."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from nats.aio.client import Client
from pydantic import BaseModel

from relight.engine.archive.history import OpenArchive, history_reader
from relight.engine.clock import Clock
from relight.engine.errors import RebuildRefused, Rewound, Unreachable
from relight.engine.log.reader import BEGINNING, TRANSIENT, Anchor
from relight.engine.tables.connecting import Session
from relight.engine.tables.deadletters import retry
from relight.engine.tables.digest import hash_tables, lock_for_reading
from relight.engine.tables.exclusive import alone
from relight.engine.tables.folding import NO_PROJECTION
from relight.engine.tables.joining import Target
from relight.engine.tables.marks import Mark, Marks, load_marks
from relight.engine.tables.positions import PROJECTOR, Position, load_position
from relight.engine.tables.refolding import Advanced, Refolding
from relight.engine.tables.shadow import (
    OWNER,
    PROJECTOR_ROLE,
    Sets,
    acting,
    become,
    build_indexes,
    drop_all,
    find_sets,
    make_shadow,
    refuse_dependents,
)
from relight.engine.tables.swapping import Swap, Swapped
from relight.engine.tables.workers import Connect, Job, how_many, workers
from relight.projections.base import History, Projection

STARTS = 10
"""A live projector finds a rewound stream within seconds."""
AGAIN_S = 2.0
EVENTS_NEARLY_ALL = 10_000
WORTH_WORKERS = 100_000
"""Events; starting them takes as long as folding some ten thousand."""


class Rebuilt(BaseModel):
    """What was done. `tables` are the digests at `compared_at`; `differing` were swapped in all the same."""

    projections: tuple[str, ...]
    position: str
    generation: int
    events: int
    load_s: float
    events_per_s: float
    compared_at: str
    tables: dict[str, str]
    differing: tuple[str, ...]
    dead_letters: int
    dead_letters_resolved: int
    writes_waited_s: float
    reads_waited_s: float
    took_s: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """At which position, when, and what came of it."""

    position: Position
    at: datetime
    digests: dict[str, str]
    differing: tuple[str, ...]


class Rebuild:
    """`keeper` holds the lock and reads the live tables, `builder` makes the others; both act as the projector.

    With `connect`, a long stream is folded by several processes where there are processors for them; what it was
    trimmed of is folded from the archive.
    """

    def __init__(
        self,
        client: Client,
        keeper: Session,
        builder: Session,
        projections: Collection[Projection],
        *,
        clock: Clock,
        connect: Connect | None = None,
        open_archive: OpenArchive | None = None,
        accept_difference: bool = False,
        advanced: Advanced | None = None,
    ) -> None:
        self._client = client
        self._keeper = keeper
        self._builder = builder
        self._projections = sorted(projections, key=lambda projection: projection.name)
        self._tables = sorted((table for p in projections for table in p.tables), key=lambda table: table.name)
        self._clock = clock
        self._connect = connect
        self._open_archive = open_archive
        self._accept_difference = accept_difference
        self._advanced = advanced

    async def run(self) -> Rebuilt:
        """Reads and writes of the live tables go on, but for the moment of the swap.

        Raises `RebuildRefused`: another one runs, or the tables differ although their projection does not;
        `HistoryGone`: the stream was trimmed, and there is no archive. Whatever
        is raised, and however the process ends: the live tables are as they were, and the next one begins anew.
        """
        sets = await find_sets(self._keeper)
        async with alone(self._keeper):
            await refuse_dependents(self._keeper, sets, self._tables)
            # What a crash of the server loses is built anew in any case; the swap itself is flushed, and all before it.
            await self._builder.execute("SET synchronous_commit = off")
            for _ in range(STARTS):
                try:
                    return await self._once(sets)
                except Rewound:
                    await asyncio.sleep(AGAIN_S)
                except TRANSIENT as error:
                    raise Unreachable(f"stream EV cannot be read ({error!r}): is NATS up?") from error
        raise RebuildRefused(
            "the stream is not the one that the live tables were folded from, and no projector reads it again:"
            " run one (`relight up`), then this"
        )

    async def _once(self, sets: Sets) -> Rebuilt:
        began = time.monotonic()
        live = await load_position(self._keeper)
        marks = await load_marks(self._keeper)
        await make_shadow(self._builder, sets, self._tables)
        async with await history_reader(self._client, BEGINNING, open_archive=self._open_archive) as reader:
            target = Target(sets=sets, schema=sets.shadow, projections=frozenset(self._projections))
            refolding = Refolding(self._builder, reader, target, Marks(marks))
            loading = time.monotonic()
            await self._load(refolding, marks, live.seq)
            load_s, events = time.monotonic() - loading, refolding.events
            await self._catch_up(refolding)
            resolved, _ = await retry(
                self._keeper, self._clock, projections=[NO_PROJECTION, *(p.name for p in self._projections)]
            )
            compared = await self._compare(refolding, Marks(marks), live.incarnation)
            await self._refuse_difference(sets, compared)
            async with acting(self._builder, OWNER, sets.live):
                await drop_all(self._builder, sets.previous)
                await self._builder.execute("DELETE FROM retired_tables")
            swapped = await self._swap(refolding, live.incarnation, compared)
        return Rebuilt(
            projections=tuple(projection.name for projection in self._projections),
            position=str(swapped.position),
            generation=swapped.generation,
            events=events,
            load_s=load_s,
            events_per_s=events / load_s,
            compared_at=str(compared.position),
            tables=compared.digests,
            differing=compared.differing,
            dead_letters=len(refolding.letters),
            dead_letters_resolved=resolved,
            writes_waited_s=swapped.writes_waited_s,
            reads_waited_s=swapped.reads_waited_s,
            took_s=time.monotonic() - began,
        )

    async def _load(self, refolding: Refolding, marks: Sequence[Mark], end: int) -> None:
        count = how_many()
        if self._connect is None or end < WORTH_WORKERS or not count:
            await refolding.through(end, self._advanced)
        else:
            job = Job(
                connect=self._connect,
                sets=refolding.target.sets,
                schema=refolding.target.schema,
                projections=tuple(projection.name for projection in self._projections),
                marks=tuple(marks),
            )
            async with workers(job, count) as working:
                await refolding.through_workers(end, working, self._advanced)
        await build_indexes((self._builder, self._keeper), refolding.target.sets, self._tables)

    async def _catch_up(self, refolding: Refolding) -> None:
        """What came while the tables were loaded, and what came while that was folded."""
        while True:
            live = await load_position(self._keeper)
            behind = live.seq - refolding.position.seq
            await refolding.through(live.seq, self._advanced)
            if behind < EVENTS_NEARLY_ALL:
                return

    async def _compare(self, refolding: Refolding, marks: Marks, incarnation: int) -> Compared:
        """Both sets at one position: the live one in a snapshot, the other folded to just there."""
        async with self._keeper.transaction(isolation="repeatable_read", readonly=True):
            await lock_for_reading(self._keeper, self._tables)
            row = await self._keeper.fetchrow(
                "SELECT incarnation, seq, sha256, now() AS at, pg_export_snapshot() AS snapshot"
                " FROM projection_positions WHERE projector = $1",
                PROJECTOR,
            )
            assert row is not None
            position = Position(row["incarnation"], Anchor(row["seq"], row["sha256"]))
            if position.incarnation != incarnation or position.seq < refolding.position.seq:
                raise Rewound
            await refolding.through(position.seq)
            if not await refolding.holds(position.anchor):
                raise Rewound
            await self._take_over_trimmed(refolding, marks, row["snapshot"])
            letters = await self._keeper.fetch(RESOLVED, position.seq)
            async with self._builder.transaction():
                await refolding.settle(letters, self._clock)
            refolding.take_all()
            live = await hash_tables(self._keeper, self._tables)
        async with acting(self._builder, PROJECTOR_ROLE, refolding.target.schema):
            rebuilt = await hash_tables(self._builder, self._tables)
        digests = {name: table_hash.hexdigest() for name, table_hash in rebuilt.items()}
        differing = tuple(name for name, digest in digests.items() if digest != live[name].hexdigest())
        return Compared(position=position, at=row["at"], digests=digests, differing=differing)

    async def _take_over_trimmed(self, refolding: Refolding, marks: Marks, snapshot: str) -> None:
        """Below a mark the live table is right: what stands there may be nowhere else, what is gone was trimmed."""
        sets = refolding.target.sets
        for table in self._tables:
            for tenant, below in marks.of(table).items() if isinstance(table, History) else ():
                live, shadow, columns = f"{sets.live}.{table.name}", f"{sets.shadow}.{table.name}", table.columns()
                months = await self._keeper.fetchval(MONTHS.format(live), tenant, below)
                async with acting(self._builder, OWNER, sets.live):
                    await self._builder.execute("SELECT relight_add_partitions($1::text::regclass, $2)", shadow, months)
                async with self._builder.transaction(isolation="repeatable_read"):
                    await self._builder.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                    await become(self._builder, PROJECTOR_ROLE, sets.live)
                    await self._builder.execute(
                        f"INSERT INTO {shadow} ({', '.join(columns)}) SELECT {', '.join(columns)} FROM {live}"
                        " WHERE tenant = $1 AND event_id < $2",
                        tenant,
                        below,
                    )

    async def _refuse_difference(self, sets: Sets, compared: Compared) -> None:
        if not compared.differing or self._accept_difference:
            return
        rows = await self._keeper.fetch("SELECT projection, version FROM projection_versions")
        built = {row["projection"]: row["version"] for row in rows}
        unexplained = sorted(
            table.name
            for projection in self._projections
            for table in projection.tables
            if table.name in compared.differing and built.get(projection.name, 1) == projection.version
        )
        if unexplained:
            raise RebuildRefused(
                f"folded anew, {', '.join(unexplained)} differ from the live tables at position {compared.position},"
                f" although the projection's version is the same: nothing was swapped. Those folded anew stand in"
                f" {sets.shadow} until the next rebuild: look why, then run it again, or with --accept-difference"
            )

    async def _swap(self, refolding: Refolding, incarnation: int, compared: Compared) -> Swapped:
        return await Swap(
            refolding,
            incarnation=incarnation,
            versions={projection.name: projection.version for projection in self._projections},
            resolved_since=compared.at,
            clock=self._clock,
        ).run()


RESOLVED = "SELECT seq, subject, body FROM dead_letters WHERE resolved_at IS NOT NULL AND seq <= $1 ORDER BY seq"
MONTHS = """
SELECT array_agg(DISTINCT relight_first_id(date_trunc('month', relight_time_of(event_id))))
FROM {} WHERE tenant = $1 AND event_id < $2
"""
