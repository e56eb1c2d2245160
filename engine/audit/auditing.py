"""Audits the real stream beside the tables and an archive, while all of them go on."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from nats.aio.client import Client

from relight.engine.archive.reading import ArchiveReader
from relight.engine.audit.archived import Archived, archived_hashes, read_archived
from relight.engine.audit.copies import Again
from relight.engine.audit.holders import Holders, holders_of
from relight.engine.audit.judging import Judgement, judge
from relight.engine.audit.known import Allowed, TablesKnow, read_allowed, read_tables
from relight.engine.audit.refining import doubtful, refine
from relight.engine.audit.report import Audit, Checked, DeclaredLoss, Numbers, TailInDoubt
from relight.engine.audit.walking import Walk
from relight.engine.errors import Rewound
from relight.engine.health.limits import QUIET_S
from relight.engine.log.numbers import Ranges
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.tables.connecting import Connection
from relight.events.subjects import token

READ_BATCH = 1_000
"""Some 10 ms: how long others in this loop are kept waiting."""
ATTEMPTS = 3
"""Of reading a stream that is put back to an older copy meanwhile."""
QUIET = timedelta(seconds=QUIET_S)
NOTHING_SPOOLED: Mapping[str, tuple[int, str]] = {}

Advanced = Callable[[int, int], None]
"""Told of every batch: the stream sequence reached, and the one where it will end."""

log = logging.getLogger(__name__)


async def audit(
    client: Client,
    session: Connection,
    *,
    now: datetime,
    archive: ArchiveReader | None = None,
    spools: Mapping[str, tuple[int, str]] = NOTHING_SPOOLED,
    publisher: str | None = None,
    tenant: str | None = None,
    advanced: Advanced = lambda seq, end: None,
) -> Audit:
    """Reads only. `client` must read message ids (`Headers.MESSAGE_ID`), `session` acts as relight_projector.

    `archive`: to name exactly what was changed, and as one more who knows what has to be there. `spools`: by publisher
    a number that was acknowledged, and its event's SHA-256. `publisher`, `tenant`: only findings of these (of
    publishers of whom nothing is left, the tenant is unknown: they are always among them). Raises `Unreachable`,
    `Rewound`, `ArchiveUnreachable`, `TimeoutError`, a `nats.errors.Error`.
    """
    for attempt in range(ATTEMPTS):
        try:
            return await _audit(client, session, now, archive, spools, _Shown(publisher, tenant), advanced)
        except Rewound as error:
            if attempt == ATTEMPTS - 1:
                raise
            log.warning("%s: auditing it from the beginning", error, extra={"action": "audit_again"})
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True, slots=True)
class _Shown:
    """Whose findings are wanted."""

    publisher: str | None
    tenant: str | None

    def __call__(self, walk: Walk, name: str | None) -> bool:
        chain = walk.chains.get(name or "")
        wanted = self.tenant is None or chain is None or chain.of_tenant
        return wanted and (self.publisher is None or name == self.publisher)


async def _audit(
    client: Client,
    session: Connection,
    now: datetime,
    archive: ArchiveReader | None,
    spools: Mapping[str, tuple[int, str]],
    shown: _Shown,
    advanced: Advanced,
) -> Audit:
    # First what others know of, then how far the stream goes: so all that they know of must be on it. And what may be
    # absent is asked for last, for it grows before the stream shrinks.
    archived = await read_archived(archive) if archive is not None else Archived()
    tables = await read_tables(session)
    known = holders_of(tables, archived, spools)
    walk = Walk(
        vouched=known.vouched,
        known=known.expected,
        marks={anchor.seq: anchor.sha256 for anchor in (*tables.anchors, tables.position)},
        passing_seq=tables.position.seq,
        tenant=None if shown.tenant is None else token(shown.tenant),
    )
    async with Reader(client, BEGINNING) as reader:
        end = (await reader.state()).last_seq
        async for batch in reader.through(end, limit=READ_BATCH):
            walk.take(batch)
            advanced(walk.last_seq, end)
            await asyncio.sleep(0)
    walk.end(end)
    asked = doubtful(walk.chains.values()) if archive is not None else {}
    again = Again.of(walk.chains.values(), asked)
    if again.asked:
        async with Reader(client, BEGINNING) as reader:
            async for batch in reader.through(end, limit=READ_BATCH):
                again.take(batch)
                await asyncio.sleep(0)
    if archive is not None and asked:
        hashes = await archived_hashes(archive, asked)
        for publisher, ranges in asked.items():
            refine(walk.chains[publisher], ranges, hashes, again.seen)
    allowed = await read_allowed(session)
    holds = tables.position.seq == 0 or tables.position.seq in walk.held
    judgement = judge(walk, again, known.circumstances(allowed, archived, passed=holds))
    return _report(walk, judgement, known, tables, allowed, archived, now, holds, shown)


def _report(
    walk: Walk,
    judgement: Judgement,
    holders: Holders,
    tables: TablesKnow,
    allowed: Allowed,
    archived: Archived,
    now: datetime,
    holds: bool,
    shown: _Shown,
) -> Audit:
    def numbers(found: Mapping[str, Ranges]) -> Numbers:
        return {name: tuple(ranges) for name, ranges in found.items() if shown(walk, name)}

    trimmed_seq, lost = allowed.trimmed_seq, allowed.lost
    found = (*judgement.findings, *holders.contradictions)
    return Audit(
        findings=tuple(finding for finding in found if shown(walk, finding.publisher)),
        missing=numbers(judgement.missing),
        harmed=numbers(judgement.harmed),
        declared_lost=tuple(
            DeclaredLoss.model_validate(loss, from_attributes=True)
            for loss in allowed.losses
            if shown(walk, loss.publisher)
        ),
        only_archived=numbers(judgement.trimmed),
        tails_in_doubt=tuple(
            TailInDoubt(publisher=publisher, last_pseq=head.pseq, heard_at=head.heard_at)
            for publisher, head in tables.heads.items()
            if head.session == "open" and now - head.heard_at > QUIET and shown(walk, publisher)
            if not any(last > head.pseq for _, last in lost.get(publisher, ()))
        ),
        unvouched_events=judgement.unvouched,
        absent_sequences=sum(last - max(first - 1, trimmed_seq) for first, last in walk.absent if last > trimmed_seq),
        position_holds=holds,
        checked=Checked(
            messages=walk.messages,
            events=judgement.events,
            publishers=len(walk.chains),
            last_seq=walk.last_seq,
            position_seq=tables.position.seq,
            archived_publishers=len(archived.numbers),
            healed_copies=judgement.healed,
            repeated=judgement.repeated,
            mended=judgement.mended,
        ),
    )
