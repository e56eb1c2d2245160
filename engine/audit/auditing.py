"""Audits the real stream beside the tables and an archive, while all of them go on."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from nats.aio.client import Client

from relight.engine.audit.copies import Again
from relight.engine.audit.judging import Circumstances, Expected, Judgement, judge
from relight.engine.audit.known import Allowed, TablesHead, TablesKnow, read_allowed, read_tables
from relight.engine.audit.ranges import Ranges
from relight.engine.audit.report import Audit, Checked, DeclaredLoss, Numbers, TailInDoubt
from relight.engine.audit.walking import Walk
from relight.engine.errors import Rewound
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.tables.connecting import Connection

READ_BATCH = 1_000
"""Some 10 ms: how long others in this loop are kept waiting."""
ATTEMPTS = 3
"""Of reading a stream that is put back to an older copy meanwhile."""
QUIET = timedelta(minutes=10)
"""A publisher that was not heard of for so long, and did not say that it ended, may have ended otherwise."""
TABLES = "the tables"

Advanced = Callable[[int, int], None]
"""Told of every batch: the stream sequence reached, and the one where it will end."""

log = logging.getLogger(__name__)


async def audit(
    client: Client,
    session: Connection,
    *,
    now: datetime,
    publisher: str | None = None,
    tenant: str | None = None,
    advanced: Advanced = lambda seq, end: None,
) -> Audit:
    """Reads only. `client` must read message ids (`Headers.MESSAGE_ID`), `session` acts as relight_projector.

    `publisher`, `tenant`: only findings of these (of publishers of whom nothing is left, the tenant is unknown: they
    are always among them). Raises `Unreachable`, `Rewound`, `TimeoutError`, a `nats.errors.Error`.
    """
    for attempt in range(ATTEMPTS):
        try:
            return await _audit(client, session, now, publisher, tenant, advanced)
        except Rewound as error:
            if attempt == ATTEMPTS - 1:
                raise
            log.warning("%s: auditing it from the beginning", error, extra={"action": "audit_again"})
    raise AssertionError("the last attempt returns or raises")


async def _audit(
    client: Client, session: Connection, now: datetime, publisher: str | None, tenant: str | None, advanced: Advanced
) -> Audit:
    # First what the tables have folded, then how far the stream goes: so all that they know of must be on it. And what
    # may be absent is asked for last, for it grows before the stream shrinks.
    tables = await read_tables(session)
    walk = Walk(
        vouched=_vouched(tables),
        known=tables.heads,
        marks={anchor.seq: anchor.sha256 for anchor in (*tables.anchors, tables.position)},
        passing_seq=tables.position.seq,
        tenant=tenant,
    )
    async with Reader(client, BEGINNING) as reader:
        end = (await reader.state()).last_seq
        async for batch in reader.through(end, limit=READ_BATCH):
            walk.take(batch)
            advanced(walk.last_seq, end)
            await asyncio.sleep(0)
    walk.end(end)
    again = Again.of(walk.chains.values())
    if again.asked:
        async with Reader(client, BEGINNING) as reader:
            async for batch in reader.through(end, limit=READ_BATCH):
                again.take(batch)
                await asyncio.sleep(0)
    allowed = await read_allowed(session)
    holds = tables.position.seq == 0 or tables.position.seq in walk.held
    judgement = judge(walk, again, _circumstances(tables, allowed, holds))
    return _report(walk, judgement, tables, allowed, now, holds, publisher, tenant)


def _vouched(tables: TablesKnow) -> dict[str, dict[int, tuple[str, str]]]:
    found = {publisher: {head.pseq: (head.sha256, TABLES)} for publisher, head in tables.heads.items()}
    for publisher, sealed in tables.sealed:
        found.setdefault(publisher, {}).setdefault(sealed.pseq, (sealed.sha256, f"archive {sealed.archive}"))
    return found


def _circumstances(tables: TablesKnow, allowed: Allowed, holds: bool) -> Circumstances:
    expected = {publisher: Expected(head.pseq, head.sha256, TABLES) for publisher, head in tables.heads.items()}
    for publisher, sealed in tables.sealed:
        known = expected.get(publisher)
        if known is None or known.highest < sealed.pseq:
            expected[publisher] = Expected(sealed.pseq, sealed.sha256, f"archive {sealed.archive}")
    return Circumstances(
        expected=expected,
        passed={publisher: head.pseq for publisher, head in tables.heads.items()} if holds else None,
        lost=allowed.lost,
        sealed=allowed.sealed_numbers,
        trimmed_seq=allowed.trimmed_seq,
    )


def _report(
    walk: Walk,
    judgement: Judgement,
    tables: TablesKnow,
    allowed: Allowed,
    now: datetime,
    holds: bool,
    publisher: str | None,
    tenant: str | None,
) -> Audit:
    def shown(name: str | None) -> bool:
        chain = walk.chains.get(name or "")
        return (publisher is None or name == publisher) and (tenant is None or chain is None or chain.of_tenant)

    def numbers(found: Mapping[str, Ranges]) -> Numbers:
        return {name: tuple(ranges) for name, ranges in found.items() if shown(name)}

    return Audit(
        findings=tuple(finding for finding in judgement.findings if shown(finding.publisher)),
        missing=numbers(judgement.missing),
        harmed=numbers(judgement.harmed),
        declared_lost=tuple(
            DeclaredLoss(
                publisher=loss.publisher,
                first_pseq=loss.first_pseq,
                last_pseq=loss.last_pseq,
                decided_by=loss.decided_by,
                reason=loss.reason,
            )
            for loss in allowed.losses
            if shown(loss.publisher)
        ),
        only_archived=numbers(judgement.trimmed),
        tails_in_doubt=tuple(_doubts(tables.heads, now, shown)),
        unvouched_events=judgement.unvouched,
        absent_sequences=sum(
            last - max(first - 1, allowed.trimmed_seq) for first, last in walk.absent if last > allowed.trimmed_seq
        ),
        position_holds=holds,
        checked=Checked(
            messages=walk.messages,
            events=judgement.events,
            publishers=len(walk.chains),
            last_seq=walk.last_seq,
            position_seq=tables.position.seq,
            healed_copies=judgement.healed,
            repeated=judgement.repeated,
            mended=judgement.mended,
        ),
    )


def _doubts(heads: Mapping[str, TablesHead], now: datetime, shown: Callable[[str], bool]) -> list[TailInDoubt]:
    return [
        TailInDoubt(publisher=publisher, last_pseq=head.pseq, seen_at=head.seen_at)
        for publisher, head in heads.items()
        if head.session == "open" and now - head.seen_at > QUIET and shown(publisher)
    ]
