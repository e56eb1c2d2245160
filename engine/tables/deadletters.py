"""Dead letters: kept whole, listed, and retried; a retry is safe at any time, since changes join in any order."""

from collections.abc import Collection, Sequence
from datetime import datetime

from asyncpg import Record
from pydantic import BaseModel

from relight.engine.clock import Clock
from relight.engine.log.reader import Message
from relight.engine.tables.connecting import Connection, Session
from relight.engine.tables.folding import DeadLetter, Folded
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.positions import next_generation
from relight.engine.tables.store import REFUSED, join_tables
from relight.events.errors import Reason

RETRIED_AT_ONCE = 500


class DeadLetterRow(BaseModel):
    """A dead letter as listed; `body` is left to `show`."""

    projection: str
    seq: int
    sha256: str
    subject: str
    reason: Reason
    detail: str
    event_id: str | None
    publisher: str | None
    pseq: int | None
    stream_timestamp: datetime
    resolved_at: datetime | None
    body_bytes: int


_LISTED = (
    "SELECT projection, seq, sha256, subject, reason, detail, event_id, publisher, pseq, stream_timestamp,"
    " resolved_at, length(body) AS body_bytes FROM dead_letters"
)


async def list_dead_letters(connection: Connection, *, resolved: bool = False, limit: int = 100) -> list[DeadLetterRow]:
    """Those still open, or those resolved; the latest first."""
    state = "NOT NULL" if resolved else "NULL"
    rows = await connection.fetch(f"{_LISTED} WHERE resolved_at IS {state} ORDER BY seq DESC LIMIT $1", limit)
    return [DeadLetterRow.model_validate(dict(row)) for row in rows]


async def dead_letters_at(connection: Connection, seq: int) -> list[tuple[DeadLetterRow, bytes]]:
    """What is dead of the message at `seq`, with its exact bytes."""
    rows = await connection.fetch(f"{_LISTED.replace(' FROM', ', body FROM')} WHERE seq = $1 ORDER BY projection", seq)
    return [(DeadLetterRow.model_validate(dict(row)), row["body"]) for row in rows]


async def count_open(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL"))


async def bury(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Keeps them; one that is kept already stays as it is, resolved or not."""
    await connection.executemany(
        "INSERT INTO dead_letters (projection, seq, sha256, subject, body, stream_timestamp, reason, detail, event_id,"
        " publisher, pseq) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        [
            (
                letter.projection,
                letter.message.seq,
                letter.message.sha256,
                letter.message.subject.replace("\x00", ""),
                letter.message.body,
                letter.message.timestamp,
                letter.reason.value,
                _storable(letter.detail),
                letter.event_id,
                letter.publisher,
                letter.pseq,
            )
            for letter in letters
        ],
    )


async def retry(
    connection: Session, clock: Clock, *, seq: int | None = None, projections: Collection[str] | None = None
) -> tuple[int, int]:
    """Folds open dead letters again, those at `seq`, of these projections, or all; how many were resolved and stay.

    A clock that was ahead is judged by the time now: what has come to pass may be folded.
    """
    resolved, stayed, after = 0, 0, (-1, "", "")
    while True:
        rows = await connection.fetch(
            "SELECT projection, seq, sha256, subject, body FROM dead_letters"
            " WHERE resolved_at IS NULL AND ($1::bigint IS NULL OR seq = $1)"
            " AND (seq, projection, sha256) > ($2, $3, $4) AND ($5::text[] IS NULL OR projection = ANY($5))"
            " ORDER BY seq, projection, sha256 LIMIT $6",
            seq,
            *after,
            projections,
            RETRIED_AT_ONCE,
        )
        for row in rows:
            after = row["seq"], row["projection"], row["sha256"]
            if await _retry_one(connection, clock, row):
                resolved += 1
            else:
                stayed += 1
        if len(rows) < RETRIED_AT_ONCE:
            return resolved, stayed


async def _retry_one(connection: Session, clock: Clock, row: Record) -> bool:
    key = row["projection"], row["seq"], row["sha256"]
    folded = Folded()
    folded.fold([Message(row["seq"], clock.now_us() * 1_000, row["subject"], row["body"])])
    if folded.dead_letters:
        reason, detail = folded.dead_letters[0].reason, folded.dead_letters[0].detail
    else:
        try:
            await Partitions().ensure(connection, folded.tables)
            async with connection.transaction():
                await join_tables(connection, folded.tables)
                await connection.execute(
                    "UPDATE dead_letters SET resolved_at = now() WHERE projection = $1 AND seq = $2 AND sha256 = $3",
                    *key,
                )
                await next_generation(connection)
            return True
        except REFUSED as error:
            reason, detail = Reason.STORE_REFUSED, f"{type(error).__name__}: {error}"
    await connection.execute(
        "UPDATE dead_letters SET reason = $4, detail = $5 WHERE projection = $1 AND seq = $2 AND sha256 = $3",
        *key,
        reason.value,
        _storable(detail),
    )
    return False


def _storable(detail: str) -> str:
    return detail.replace("\x00", "\\0").encode(errors="replace").decode()[:2_000]
