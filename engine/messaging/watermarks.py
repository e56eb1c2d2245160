"""Answers how far a publisher is projected: from the tables themselves, whoever projects."""

from typing import Annotated

from pydantic import BaseModel, Field

from relight.engine.log.watermarks import MAX_ASKED, Sealed, announcement
from relight.engine.tables.pools import Pool
from relight.events.envelope import GENESIS, Number, PublisherId

_REACHED = (
    "SELECT contiguous_pseq, highest_pseq, highest_sha256,"
    " ARRAY(SELECT n FROM unnest($2::bigint[]) AS n WHERE n <= highest_pseq AND NOT EXISTS ("
    " SELECT FROM publisher_gaps AS g WHERE g.publisher = $1 AND n BETWEEN g.first_pseq AND g.last_pseq)) AS reached"
    " FROM publisher_heads WHERE publisher = $1"
)
_DEAD = (
    "SELECT pseq, reason FROM dead_letters WHERE publisher = $1 AND pseq = ANY($2::bigint[]) AND resolved_at IS NULL"
)
_ARCHIVES = (
    "SELECT a.archive, a.last_seq, coalesce(s.pseq, 0) AS pseq, coalesce(s.sha256, $2) AS sha256 FROM archives AS a"
    " LEFT JOIN sealed_heads AS s ON s.archive = a.archive AND s.publisher = $1 ORDER BY a.archive"
)


class WatermarkQuestion(BaseModel):
    """Asked on `cmd.watermark`: how far is this publisher projected, and are these numbers of it?

    With `archives`, also what its highest number in the tables is, and how far each archive has sealed it.
    """

    publisher: PublisherId
    pseq: Number
    others: Annotated[list[Number], Field(max_length=MAX_ASKED)] = []
    archives: bool = False


async def answer_watermark(pool: Pool, question: WatermarkQuestion) -> bytes:
    """What is committed. Raises `PoolExhausted`, `Unreachable`.

    A number counts where it was seen above a gap, too; else it is up to where none is missing.
    """
    asked = [question.pseq, *question.others]
    async with pool.transaction("relight_projector") as connection:
        head = await connection.fetchrow(_REACHED, question.publisher, asked)
        dead = await connection.fetch(_DEAD, question.publisher, asked)
        sealed = await connection.fetch(_ARCHIVES, question.publisher, GENESIS) if question.archives else None
    contiguous, reached = (head["contiguous_pseq"], head["reached"]) if head else (0, [])
    projected = max(contiguous, question.pseq) if question.pseq in reached else contiguous
    told = reached if question.others else None
    return announcement(
        projected,
        {row["pseq"]: row["reason"] for row in dead},
        told,
        head=(head["highest_pseq"], head["highest_sha256"]) if head and question.archives else None,
        archives=None if sealed is None else [Sealed(**dict(row)) for row in sealed],
    )
