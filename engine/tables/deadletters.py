"""Dead letters: kept whole, listed, and retried; a retry is safe at any time, since changes join in any order."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from relight.engine.clock import Clock
from relight.engine.log.reader import Message
from relight.engine.tables.folding import DeadLetter, Folded
from relight.engine.tables.pools import Connection
from relight.engine.tables.store import join_tables
from relight.events.errors import Reason


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
    rows = await connection.fetch(f"{_LISTED} WHERE seq = $1", seq)
    bodies = await connection.fetch("SELECT body FROM dead_letters WHERE seq = $1", seq)
    return [(DeadLetterRow.model_validate(dict(row)), body["body"]) for row, body in zip(rows, bodies, strict=True)]


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
                letter.detail.replace("\x00", "\\0").encode(errors="replace").decode()[:2_000],
                letter.event_id,
                letter.publisher,
                letter.pseq,
            )
            for letter in letters
        ],
    )


async def retry(connection: Connection, clock: Clock, *, seq: int | None = None) -> tuple[int, int]:
    """Folds open dead letters again, those at `seq` or all; returns how many were resolved and how many stay.

    A clock that was ahead is judged by the time now: what has come to pass may be folded.
    """
    rows = await connection.fetch(
        "SELECT projection, seq, sha256, subject, body FROM dead_letters"
        " WHERE resolved_at IS NULL AND ($1::bigint IS NULL OR seq = $1) ORDER BY seq",
        seq,
    )
    resolved = 0
    for row in rows:
        message = Message(row["seq"], clock.now_us() * 1_000, row["subject"], row["body"])
        folded = Folded()
        folded.fold([message])
        if folded.dead_letters:
            await connection.execute(
                "UPDATE dead_letters SET reason = $4, detail = $5 WHERE projection = $1 AND seq = $2 AND sha256 = $3",
                row["projection"],
                row["seq"],
                row["sha256"],
                folded.dead_letters[0].reason.value,
                folded.dead_letters[0].detail[:2_000],
            )
            continue
        async with connection.transaction():
            await join_tables(connection, folded.tables)
            await connection.execute(
                "UPDATE dead_letters SET resolved_at = now() WHERE projection = $1 AND seq = $2 AND sha256 = $3",
                row["projection"],
                row["seq"],
                row["sha256"],
            )
        resolved += 1
    return resolved, len(rows) - resolved
