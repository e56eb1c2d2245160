"""One SHA-256 a table, equal for equal rows in whichever store, and stated with the position it holds for."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import orjson
from nats.aio.client import Client
from pydantic import BaseModel

from relight.engine.archive.history import OpenArchive, history_reader
from relight.engine.errors import Rewound, Unreachable
from relight.engine.log.reader import BEGINNING, TRANSIENT, Message
from relight.engine.tables.connecting import Session
from relight.engine.tables.deadletters import count_open
from relight.engine.tables.folding import Folded
from relight.engine.tables.marks import Mark, load_marks
from relight.engine.tables.positions import PROJECTOR, load_position
from relight.engine.tables.store import read_rows
from relight.projections.base import History, State, Value
from relight.projections.catalog import projections, tables

READ_BATCH = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Digest(BaseModel):
    """What it holds for: position, stream sequence, projections' versions and open dead letters; and the hashes."""

    store: str
    position: str
    seq: int
    projections: dict[str, int]
    deadletters: int
    rows: dict[str, int]
    tables: dict[str, str]
    trimmed: tuple[Mark, ...] = ()
    """What retention has trimmed of these tables: memory's, folded from the stream alone, have those rows too."""


class TableHash:
    """The SHA-256 of a table's rows, in the order of its primary key's bytes."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.rows = 0

    def add(self, row: tuple[Value, ...]) -> None:
        self._sha256.update(
            orjson.dumps(row, default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME)
        )
        self._sha256.update(b"\n")
        self.rows += 1

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    raise TypeError(f"a table holds no {type(value).__name__}")


async def digest_postgres(session: Session) -> Digest:
    """Of the live tables, in one REPEATABLE READ snapshot; `session` acts as relight_projector."""
    await load_position(session)
    async with session.transaction(isolation="repeatable_read", readonly=True):
        await lock_for_reading(session, tables())
        position = await _held_position(session)
        hashes = await hash_tables(session, tables())
        open_letters, marks = await count_open(session), await load_marks(session)
    return _digest("postgres", position[0], position[1], open_letters, hashes, marks)


async def lock_for_reading(session: Session, tables: Iterable[State | History]) -> None:
    """Before the snapshot is taken: a table swapped in later would show it only the rows that are older than it."""
    await session.execute(f"LOCK TABLE {', '.join(table.name for table in tables)} IN ACCESS SHARE MODE")


async def hash_tables(session: Session, tables: Iterable[State | History]) -> dict[str, TableHash]:
    """Of all rows of these tables; inside a transaction of the caller's, which decides which tables these are."""
    hashes = {}
    for table in tables:
        hashes[table.name] = table_hash = TableHash()
        async for row in read_rows(session, table):
            table_hash.add(row)
    return hashes


async def _held_position(session: Session) -> tuple[str, int]:
    row = await session.fetchrow(
        "SELECT incarnation, seq, sha256 FROM projection_positions WHERE projector = $1", PROJECTOR
    )
    assert row is not None
    return f"{row['incarnation']}:{row['seq']}:{row['sha256'][:12] or '-'}", row["seq"]


async def digest_memory(
    client: Client, *, up_to_seq: int | None = None, open_archive: OpenArchive | None = None
) -> Digest:
    """Of tables folded in memory from the stream alone, up to its end now or to `up_to_seq`; needs no database.

    What it was trimmed of comes from the archive. Raises `HistoryGone` where there is none, `Unreachable`.
    """
    folded, position = await fold_stream(client, up_to_seq=up_to_seq, open_archive=open_archive)
    hashes = {table.name: TableHash() for table in tables()}
    for table in tables():
        _add_all(hashes[table.name], folded.tables.rows(table))
    return _digest("memory", position[0], position[1], len(folded.dead_letters), hashes)


async def fold_stream(
    client: Client, *, up_to_seq: int | None = None, open_archive: OpenArchive | None = None
) -> tuple[Folded, tuple[str, int]]:
    """Everything that the stream says, and the position it was read to. Raises `HistoryGone`, `Unreachable`."""
    while True:
        try:
            return await _folded(client, up_to_seq, open_archive)
        except Rewound:
            continue  # what was folded stands no more: once again, from the beginning
        except TRANSIENT as error:
            raise Unreachable(
                f"stream EV cannot be read ({error!r}): is NATS up, and did relight run there?"
            ) from error


async def _folded(
    client: Client, up_to_seq: int | None, open_archive: OpenArchive | None
) -> tuple[Folded, tuple[str, int]]:
    folded = Folded()
    async with await history_reader(client, BEGINNING, open_archive=open_archive) as reader:
        end = min((await reader.state()).last_seq, up_to_seq or 1 << 62)
        last: Message | None = None
        async for messages in reader.through(end, limit=READ_BATCH):
            folded.fold(messages)
            folded.links.clear()
            last = messages[-1] if messages else last
        return folded, (f"-:{end}:{last.sha256[:12] if last else '-'}", end)


def _add_all(table_hash: TableHash, rows: Iterable[tuple[Value, ...]]) -> None:
    for row in rows:
        table_hash.add(row)


def _digest(
    store: str, position: str, seq: int, deadletters: int, hashes: dict[str, TableHash], marks: Sequence[Mark] = ()
) -> Digest:
    return Digest(
        store=store,
        position=position,
        seq=seq,
        projections={projection.name: projection.version for projection in projections()},
        deadletters=deadletters,
        rows={name: table_hash.rows for name, table_hash in hashes.items()},
        tables={name: table_hash.hexdigest() for name, table_hash in hashes.items()},
        trimmed=tuple(marks),
    )
