"""Publishers' chains: two events of one number, events that do not follow, and tails of which nobody knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from relight.engine.health.limits import QUIET_S
from relight.engine.health.models import Check
from relight.engine.tables.connecting import Connection
from relight.engine.tables.positions import PROJECTOR

NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Chains:
    """`named_…` are the first few, as they are shown."""

    forks: int
    named_forks: Sequence[str]
    broken_links: int
    named_links: Sequence[str]
    doubts: int
    named_doubts: Sequence[str]


async def look_at_chains(session: Connection) -> Chains:
    """In a transaction of the caller's, as the projector's role."""
    row = await session.fetchrow(_CHAINS, PROJECTOR, QUIET_S, NAMED)
    assert row is not None
    return Chains(**dict(row))


# A tail is not in doubt where somebody declared lost what may come after it.
_CHAINS = """
WITH doubts AS (
    SELECT publisher || ' after ' || highest_pseq AS named, greatest(seen_at, heard_at) AS heard_at
    FROM publisher_heads AS head
    WHERE session = 'open' AND greatest(seen_at, heard_at) < now() - make_interval(secs => $2)
    AND EXISTS (
        SELECT FROM projection_positions WHERE projector = $1 AND listens_since < now() - make_interval(secs => $2)
    )
    AND NOT EXISTS (
        SELECT FROM recorded_losses AS loss WHERE loss.publisher = head.publisher AND loss.last_pseq > highest_pseq
    )
), links AS (
    SELECT publisher AS named, broken_links FROM publisher_heads WHERE broken_links > 0
), forks AS (
    SELECT publisher || ' ' || pseq AS named, seen_at FROM publisher_forks
)
SELECT
    (SELECT count(*) FROM forks) AS forks,
    ARRAY(SELECT named FROM forks ORDER BY seen_at DESC, named LIMIT $3) AS named_forks,
    (SELECT coalesce(sum(broken_links), 0)::bigint FROM links) AS broken_links,
    ARRAY(SELECT named FROM links ORDER BY named LIMIT $3) AS named_links,
    (SELECT count(*) FROM doubts) AS doubts,
    ARRAY(SELECT named FROM doubts ORDER BY heard_at DESC, named LIMIT $3) AS named_doubts
"""


def chain_checks(found: Chains | None, now: datetime) -> Iterator[Check]:
    """Nothing where it could not be read."""
    if found is None:
        return
    chains = partial(Check, component="chains", time=now)
    yield chains(measurement="forks", observed=found.forks).warned(
        found.forks,
        f"{found.forks} events have the number of another ({_named(found.named_forks, found.forks)}): was a spool"
        " copied? Both are in the tables; see `relight verify`",
    )
    yield chains(measurement="brokenLinks", observed=found.broken_links).warned(
        found.broken_links,
        f"{found.broken_links} events do not follow the one before them (of"
        f" {_named(found.named_links, found.broken_links)}): `relight verify` names what was changed",
    )
    yield chains(measurement="tailsInDoubt", observed=found.doubts).warned(
        found.doubts,
        f"{found.doubts} publishers ended without a word, and may have recorded more"
        f" ({_named(found.named_doubts, found.doubts)}): start a process on their machine, which drains their spools,"
        " or record what is lost with it",
    )


def _named(names: Sequence[str], of: int) -> str:
    return ", ".join(names) + (" and others" if of > len(names) else "")
