"""Answers how far a publisher is projected: from the tables themselves, whoever projects."""

from pydantic import BaseModel

from relight.engine.log.watermarks import announcement
from relight.engine.tables.pools import Pool

_PROJECTED = (
    # The asked number, where it was seen above a gap; else up to where none is missing.
    "SELECT CASE WHEN highest_pseq >= $2 AND NOT EXISTS ("
    " SELECT FROM publisher_gaps WHERE publisher = $1 AND $2 BETWEEN first_pseq AND last_pseq)"
    " THEN greatest(contiguous_pseq, $2) ELSE contiguous_pseq END"
    " FROM publisher_heads WHERE publisher = $1"
)
_DEAD = "SELECT pseq, reason FROM dead_letters WHERE publisher = $1 AND pseq = $2 AND resolved_at IS NULL"


class WatermarkQuestion(BaseModel):
    """Asked on `cmd.watermark`: how far is this publisher projected?"""

    publisher: str
    pseq: int


async def answer_watermark(pool: Pool, question: WatermarkQuestion) -> bytes:
    """What is committed. Raises `PoolExhausted`, `Unreachable`."""
    async with pool.transaction("relight_projector") as connection:
        projected = await connection.fetchval(_PROJECTED, question.publisher, question.pseq)
        dead = await connection.fetch(_DEAD, question.publisher, question.pseq)
    return announcement(projected or 0, {row["pseq"]: row["reason"] for row in dead})
