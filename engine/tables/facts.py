"""Keeps what events say of the recording itself: losses, heals, trims and erasures; each once, in any order."""

from collections import defaultdict
from collections.abc import Iterable

from relight.engine.log.links import Link
from relight.engine.tables.connecting import Connection
from relight.events.base import Event
from relight.events.recorder import RecorderErased, RecorderHealed, RecorderLost, RecorderTrimmed

Row = tuple[object, ...]


async def keep_facts(connection: Connection, links: Iterable[Link]) -> None:
    """In the caller's transaction; nothing is asked of PostgreSQL where there is no such event."""
    found: dict[str, list[Row]] = defaultdict(list)
    for link in links:
        if link.own is not None:
            for statement, row in _rows(link, link.own):
                found[statement].append(row)
    for statement, rows in found.items():
        await connection.executemany(statement, rows)


def _rows(link: Link, own: Event) -> Iterable[tuple[str, Row]]:
    said = (link.publisher, link.pseq)
    at = link.message.timestamp
    match own:
        case RecorderLost():
            yield (
                LOSS,
                (*said, own.publisher, own.first_pseq, own.first_pseq + own.events - 1, own.decided_by, own.reason, at),
            )
        case RecorderHealed():
            yield HEAL, (*said, own.publisher, own.first_pseq, own.first_pseq + own.events - 1, own.source, at)
        case RecorderTrimmed():
            yield TRIM, (*said, own.archive, own.through_seq, own.decided_by, at)
        case RecorderErased():
            for sha256 in own.contents:
                yield ERASURE, (own.of_tenant, sha256, own.erasure, own.scope, own.decided_by, own.reason, at)


LOSS = "INSERT INTO recorded_losses VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"
HEAL = "INSERT INTO recorded_heals VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"
TRIM = "INSERT INTO stream_trims VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
ERASURE = "INSERT INTO content_erasures VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING"
