"""What retention would trim, and what could still be rebuilt from where."""

from datetime import datetime

from nats.aio.client import Client
from nats.js.errors import NotFoundError
from pydantic import BaseModel

from relight.engine.errors import Unreachable
from relight.engine.log.reader import BEGINNING, TRANSIENT, Reader
from relight.engine.log.topology import STREAM
from relight.engine.tables.connecting import Session
from relight.engine.tables.keeping import Keeping, histories
from relight.engine.tables.marks import Mark, load_marks
from relight.engine.tables.positions import load_anchors, load_position


class PlannedRows(BaseModel):
    """Of one table and tenant; `due` are past the limit `below` (null: kept for good). Bytes are estimates."""

    table: str
    tenant: str
    keep_s: float | None
    below: str | None
    rows: int
    due: int
    bytes: int
    due_bytes: int
    oldest_at: datetime
    oldest_kept_at: datetime | None


class OnStream(BaseModel):
    """What a rebuild could read: of the sequences from `first_seq` on everything can be folded anew.

    `position_agrees`: the stream holds what the tables were folded from; `anchors_agree` of `anchors` earlier places.
    """

    first_seq: int
    first_at: datetime | None
    last_seq: int
    from_the_beginning: bool
    position: str
    position_agrees: bool
    anchors: int
    anchors_agree: int


class Plan(BaseModel):
    """As of `at`; `trimmed` is what earlier runs have done."""

    at: datetime
    rows: tuple[PlannedRows, ...]
    stream: OnStream
    trimmed: tuple[Mark, ...]


async def plan(session: Session, client: Client, keeping: Keeping, *, now: datetime) -> Plan:
    """Reads only. Raises `Unreachable`."""
    rows = [row for name in histories() for row in await _planned(session, name, keeping, now)]
    return Plan(
        at=now, rows=tuple(rows), stream=await _on_stream(session, client), trimmed=tuple(await load_marks(session))
    )


async def _planned(session: Session, name: str, keeping: Keeping, now: datetime) -> list[PlannedRows]:
    tenants = [row["tenant"] for row in await session.fetch(f"SELECT DISTINCT tenant FROM {name}")]
    limits = [keeping.below(name, tenant, now) for tenant in tenants]
    size = await session.fetchval(SIZE, name)
    found = await session.fetch(COUNT.format(name), tenants, limits)
    bytes_a_row = size / max(1, sum(row["rows"] for row in found))
    planned = []
    for row in found:
        keep = keeping.of(name, row["tenant"])
        planned.append(
            PlannedRows(
                table=name,
                tenant=row["tenant"],
                keep_s=None if keep is None else keep.total_seconds(),
                below=row["below"],
                rows=row["rows"],
                due=row["due"],
                bytes=round(row["rows"] * bytes_a_row),
                due_bytes=round(row["due"] * bytes_a_row),
                oldest_at=row["oldest_at"],
                oldest_kept_at=row["oldest_kept_at"],
            )
        )
    return planned


async def _on_stream(session: Session, client: Client) -> OnStream:
    position = await load_position(session)
    anchors = await load_anchors(session)
    try:
        async with Reader(client, BEGINNING) as reader:
            state = await reader.state()
            first_at = None
            if state.messages:
                first = await client.jetstream(timeout=5).get_msg(STREAM, state.first_seq)
                first_at = first.time
            return OnStream(
                first_seq=state.first_seq,
                first_at=first_at,
                last_seq=state.last_seq,
                from_the_beginning=state.first_seq <= 1,
                position=str(position),
                position_agrees=await reader.holds(position.anchor),
                anchors=len(anchors),
                anchors_agree=sum([await reader.holds(anchor) for anchor in anchors]),
            )
    except (*TRANSIENT, NotFoundError) as error:
        raise Unreachable(f"stream EV cannot be read ({error!r}): is NATS up, and did relight run there?") from error


SIZE = "SELECT sum(pg_total_relation_size(partition))::bigint FROM relight_partitions($1::text::regclass)"
COUNT = """
SELECT
    tenant, below::text, count(*) AS rows, count(*) FILTER (WHERE event_id < below) AS due,
    relight_time_of(min(event_id::text)::uuid) AT TIME ZONE 'UTC' AS oldest_at,
    relight_time_of(min(event_id::text) FILTER (WHERE below IS NULL OR event_id >= below)::uuid) AT TIME ZONE 'UTC'
        AS oldest_kept_at
FROM {} JOIN unnest($1::text[], $2::uuid[]) AS limits (tenant, below) USING (tenant)
GROUP BY tenant, below ORDER BY tenant
"""
