"""Retention: trims history rows that are older than their limit, and only those whose event is held elsewhere."""

import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime

import asyncpg
from nats.aio.client import Client
from pydantic import BaseModel

from relight.engine.archive.history import OpenArchive
from relight.engine.errors import RelightError, Rewound, Unreachable
from relight.engine.log.reader import BEGINNING, TRANSIENT, Message, Reader
from relight.engine.tables.connecting import Session
from relight.engine.tables.exclusive import alone
from relight.engine.tables.folding import Folded
from relight.engine.tables.keeping import Keeping, first_id, histories
from relight.engine.tables.positions import next_generation
from relight.engine.tables.refolding import Advanced
from relight.engine.tables.shadow import OWNER, PROJECTOR_ROLE, Sets, acting, become, find_sets
from relight.projections.base import History
from relight.projections.catalog import projections

READ_BATCH = 10_000
LOCK_TRIES = 5
LOCK_MS = 200

Key = tuple[str, str]
"""Table and tenant."""
Elsewhere = Callable[[], AsyncGenerator[tuple[Sequence[Message], int], None]]
"""A place that holds events, read from its beginning to the sequence given beside each batch.

The stream is one, an archive another.
"""


class TrimmedRows(BaseModel):
    """Of one table and tenant: rows past the limit, those trimmed, and those kept since they are nowhere else."""

    table: str
    tenant: str
    below: str
    due: int
    trimmed: int
    kept_nowhere_else: int


class Trimmed(BaseModel):
    """What was done."""

    rows: tuple[TrimmedRows, ...]
    dropped_partitions: tuple[str, ...]
    messages: int
    took_s: float


class Retention:
    """`session` acts as the projector; `elsewhere` are looked through in turn until nothing is due any more."""

    def __init__(
        self,
        session: Session,
        elsewhere: Iterable[Elsewhere],
        keeping: Keeping,
        *,
        now: datetime,
        advanced: Advanced | None = None,
    ) -> None:
        self._session = session
        self._elsewhere = elsewhere
        self._keeping = keeping
        self._now = now
        self._advanced = advanced
        self._tables = histories()

    async def run(self) -> Trimmed:
        """A row goes only when its event, by tenant and id, was just seen elsewhere.

        Trims in small transactions, each with its mark: ended at any moment, what is trimmed is marked. Raises
        `RebuildRefused` while a rebuild or another retention runs.
        """
        began, messages = time.monotonic(), 0
        sets = await find_sets(self._session)
        async with alone(self._session):
            below = {key: limit for key in await self._keys() if (limit := self._keeping.below(*key, self._now))}
            due = await self._count(below)
            trimmed: Counter[Key] = Counter()
            for place in self._elsewhere:
                async with aclosing(place()) as batches:
                    async for batch, end in batches:
                        if sum(trimmed.values()) >= sum(due.values()):
                            break
                        messages += len(batch)
                        trimmed.update(await self._trim(sets, _rows_of(batch, below), below))
                        if self._advanced is not None:
                            self._advanced(batch[-1].seq, end)
            left = await self._count(below)
            dropped = [name for table in self._tables.values() for name in await self._drop_partitions(sets, table)]
        return Trimmed(
            rows=tuple(
                TrimmedRows(
                    table=table,
                    tenant=tenant,
                    below=limit,
                    due=due[table, tenant],
                    trimmed=trimmed[table, tenant],
                    kept_nowhere_else=left[table, tenant],
                )
                for (table, tenant), limit in sorted(below.items())
            ),
            dropped_partitions=tuple(dropped),
            messages=messages,
            took_s=time.monotonic() - began,
        )

    async def _keys(self) -> list[Key]:
        found = []
        for name in self._tables:
            rows = await self._session.fetch(f"SELECT DISTINCT tenant FROM {name}")
            found += [(name, row["tenant"]) for row in rows]
        return found

    async def _count(self, below: dict[Key, str]) -> Counter[Key]:
        """Rows past their limit."""
        counted: Counter[Key] = Counter()
        for (name, tenant), limit in below.items():
            counted[name, tenant] = await self._session.fetchval(
                f"SELECT count(*) FROM {name} WHERE tenant = $1 AND event_id < $2", tenant, limit
            )
        return counted

    async def _trim(self, sets: Sets, found: dict[Key, list[str]], below: dict[Key, str]) -> Counter[Key]:
        trimmed: Counter[Key] = Counter()
        if not found:
            return trimmed
        async with acting(self._session, OWNER, sets.live):
            for (name, tenant), event_ids in found.items():
                # Row-level security shows the owner the one tenant that it names here, so that it can trim.
                await self._session.execute("SELECT set_config('relight.trimming', $1, true)", tenant)
                status = await self._session.execute(
                    f"DELETE FROM {name} WHERE tenant = $1 AND event_id = ANY($2)", tenant, event_ids
                )
                if rows := int(status.removeprefix("DELETE ")):
                    trimmed[name, tenant] = rows
                    await self._session.execute(MARK, name, tenant, below[name, tenant], rows)
            if trimmed:
                await next_generation(self._session)
        return trimmed

    async def _drop_partitions(self, sets: Sets, table: History) -> list[str]:
        """Months wholly past everybody's limit in which nothing is left; a busy table keeps them until next time."""
        longest = self._keeping.longest(table.name)
        if longest is None:
            return []
        rows = await self._session.fetch(
            "SELECT partition::text AS name, low::text, high::text FROM relight_partitions($1::text::regclass)"
            " WHERE low IS NOT NULL AND high <= $2",
            table.name,
            first_id(self._now - longest),
        )
        return [row["name"] for row in rows if await self._drop(sets, table, row)]

    async def _drop(self, sets: Sets, table: History, partition: asyncpg.Record) -> bool:
        for _ in range(LOCK_TRIES):
            try:
                async with acting(self._session, OWNER, sets.live):
                    # Whoever waits here keeps all readers waiting: briefly, then others first.
                    await self._session.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
                    await self._session.execute(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
                    await become(self._session, PROJECTOR_ROLE, sets.live)  # the owner would see no row
                    if await self._session.fetchval(
                        f"SELECT EXISTS (SELECT FROM {table.name} WHERE event_id >= $1 AND event_id < $2)",
                        partition["low"],
                        partition["high"],
                    ):
                        return False
                    await become(self._session, OWNER, sets.live)
                    await self._session.execute(f"DROP TABLE {partition['name']}")
                    return True
            except asyncpg.LockNotAvailableError:
                continue
        return False


def on_stream(client: Client) -> Elsewhere:
    """Every message that the stream holds now, in order. Raises `Unreachable`."""

    async def messages() -> AsyncGenerator[tuple[Sequence[Message], int], None]:
        try:
            async with Reader(client, BEGINNING) as reader:
                end = (await reader.state()).last_seq
                async for batch in reader.through(end, limit=READ_BATCH):
                    if batch:
                        yield batch, end
        except Rewound as error:
            raise RelightError(
                "the stream was put back to an older copy while it was read: what was trimmed until then is marked;"
                " run this again when the projector has caught up"
            ) from error
        except TRANSIENT as error:
            raise Unreachable(f"stream EV cannot be read ({error!r}): is NATS up?") from error

    return messages


def in_archive(open_archive: OpenArchive) -> Elsewhere:
    """Every message that was ever sealed, those included that a rewind replaced. Raises `ArchiveError`."""

    async def messages() -> AsyncGenerator[tuple[Sequence[Message], int], None]:
        archive = await open_archive()
        last = 0
        async for manifest, _ in archive.manifests():
            last = max(last, manifest.last_seq)
            yield await archive.messages(manifest), last

    return messages


def _rows_of(batch: Sequence[Message], below: dict[Key, str]) -> dict[Key, list[str]]:
    """Ids of the rows past their limit that these events made."""
    folded, found = Folded(frozenset(projections())), defaultdict(list)
    folded.fold(batch)
    for table, rows in folded.tables.histories.items():
        for tenant, event_id in rows:
            if event_id < below.get((table.name, tenant), ""):
                found[table.name, tenant].append(event_id)
    return found


MARK = """
INSERT INTO retention_marks AS held (table_name, tenant, below, trimmed_rows, trimmed_by, trimmed_at)
VALUES ($1, $2, $3, $4, session_user, now())
ON CONFLICT (table_name, tenant, below) DO UPDATE SET
    trimmed_rows = held.trimmed_rows + excluded.trimmed_rows, trimmed_by = excluded.trimmed_by,
    trimmed_at = excluded.trimmed_at
"""
