"""Which numbers of a publisher were used and are neither in the tables nor declared lost."""

from dataclasses import dataclass

from relight.engine.tables.connecting import Connection


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Runs of numbers; `highest_pseq` is what the tables have seen, `closed` whether its recorder ended in order."""

    missing: tuple[tuple[int, int], ...]
    highest_pseq: int
    closed: bool


async def unresolved(connection: Connection, publisher: str, known_pseq: int) -> Unresolved:
    """`known_pseq`: a number up to which all were used, as somebody else knows."""
    head = await connection.fetchrow(
        "SELECT highest_pseq, session FROM publisher_heads WHERE publisher = $1", publisher
    )
    highest = head["highest_pseq"] if head else 0
    rows = await connection.fetch(_MISSING, publisher, highest, known_pseq)
    return Unresolved(
        missing=tuple((row["first_pseq"], row["last_pseq"]) for row in rows),
        highest_pseq=highest,
        closed=head is not None and head["session"] == "closed" and known_pseq <= highest,
    )


_MISSING = """
SELECT lower(run) AS first_pseq, upper(run) - 1 AS last_pseq
FROM unnest(
    coalesce((
        SELECT range_agg(int8range(first_pseq, last_pseq, '[]')) FROM publisher_gaps WHERE publisher = $1
    ), int8multirange())
    + CASE WHEN $3::bigint > $2::bigint THEN int8multirange(int8range($2 + 1, $3, '[]')) ELSE int8multirange() END
    - coalesce((
        SELECT range_agg(int8range(first_pseq, last_pseq, '[]')) FROM recorded_losses WHERE publisher = $1
    ), int8multirange())
) AS run
ORDER BY 1
"""
