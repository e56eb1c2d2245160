"""Cheap looks at the stream's state, and what in it is a reason to look the whole stream through."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from nats.aio.client import Client

from relight.engine.log.answers import answered
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.tables.connecting import Connection
from relight.engine.tables.positions import PROJECTOR, load_position

AUDIT_EVERY = timedelta(days=1)
"""A server that reads a damaged message passes over it without a word: only reading all of them shows that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The stream as its server tells of it, and the projection's incarnation."""

    server: str
    first_seq: int
    last_seq: int
    deleted_messages: int
    lost_bytes: int
    incarnation: int


async def look(client: Client, connection: Connection) -> tuple[Look, bool]:
    """And whether the projection's position stands there. Raises a `nats.errors.Error` or `TimeoutError`."""
    asking = client.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(STREAM)
    state = (await answered(client, asking, within_s=REQUEST_TIMEOUT_S + 1)).state
    position = await load_position(connection)
    holds = await answered(client, Reader(client, BEGINNING).holds(position.anchor), within_s=2 * REQUEST_TIMEOUT_S + 1)
    seen = Look(
        server=str(client._server_info["server_id"]),  # nats-py has no public name for it
        first_seq=state.first_seq,
        last_seq=state.last_seq,
        deleted_messages=state.num_deleted or 0,
        lost_bytes=0 if state.lost is None else state.lost.bytes or 0,
        incarnation=position.incarnation,
    )
    return seen, holds


async def audited(connection: Connection) -> tuple[Look, datetime, datetime] | None:
    """How it was at the last audit, when that was, and the time now."""
    row = await connection.fetchrow(
        "SELECT server, first_seq, last_seq, deleted_messages, lost_bytes, incarnation, audited_at, now() AS now"
        " FROM stream_audits WHERE projector = $1",
        PROJECTOR,
    )
    if row is None:
        return None
    *seen, at, now = row
    return Look(**dict(zip(Look.__slots__, seen, strict=True))), at, now


async def keep_audited(connection: Connection, seen: Look) -> None:
    await connection.execute(
        "INSERT INTO stream_audits VALUES ($1, now(), $2, $3, $4, $5, $6, $7) ON CONFLICT (projector) DO UPDATE SET"
        " audited_at = excluded.audited_at, server = excluded.server, first_seq = excluded.first_seq,"
        " last_seq = excluded.last_seq, deleted_messages = excluded.deleted_messages,"
        " lost_bytes = excluded.lost_bytes, incarnation = excluded.incarnation",
        PROJECTOR,
        seen.server,
        seen.first_seq,
        seen.last_seq,
        seen.deleted_messages,
        seen.lost_bytes,
        seen.incarnation,
    )


async def trimmed_through(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT coalesce(max(through_seq), 0) FROM stream_trims"))


def suspicion(seen: Look, before: Look | None, *, holds: bool, trimmed_through_seq: int) -> str | None:
    """What speaks for a loss since `before`; None: nothing."""
    if before is None:
        return "the stream was never looked through"
    if seen.server != before.server:
        return "its server was started anew, or is another"
    if seen.incarnation != before.incarnation or not holds:
        return "what stands at the projection's position is not what was read there"
    if seen.last_seq < before.last_seq:
        return f"its last sequence went back from {before.last_seq} to {seen.last_seq}"
    if seen.first_seq > max(before.first_seq, trimmed_through_seq + 1):
        return f"it begins at {seen.first_seq}, and was trimmed through {trimmed_through_seq} only"
    if seen.deleted_messages > before.deleted_messages:
        return f"{seen.deleted_messages - before.deleted_messages} messages more are gone from between"
    if seen.lost_bytes != before.lost_bytes:
        return f"its server lost {seen.lost_bytes} bytes of its store"
    return None
