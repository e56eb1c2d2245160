"""The healer: one at a time; has what is missing published again, round by round, and says what came of it."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from nats.aio.client import Client

from relight.engine.archive.store import ArchiveStore
from relight.engine.errors import ArchiveError
from relight.engine.healing.archived import put_back_archived
from relight.engine.healing.asking import Asking
from relight.engine.healing.known import (
    Loss,
    asked,
    keep_losses,
    load_losses,
    missing_of,
    noticed,
    of_those,
)
from relight.engine.healing.missing import declared_losses, find_missing, gaps, standing
from relight.engine.healing.signs import Look, keep_audited, look
from relight.engine.log.numbers import Missing, both, count, less
from relight.engine.tables.connecting import Session
from relight.events.base import Event
from relight.events.recorder import RecorderHealed

PATIENT_ROUNDS = 3
"""So often a control event waits for those that belong before it, which another recorder may have."""
LOST_AFTER = timedelta(minutes=10)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a round found and what came of it. `left`: late ones, and those that nobody has."""

    missing: Sequence[Loss]
    healed: Sequence[RecorderHealed]
    left: Sequence[Loss]
    archive_failure: str | None = None


class Healer:
    """Works with one session, which acts as relight_projector. `say` records events durably.

    Known losses are kept before anybody is asked: one that is killed in between, the next one finds healed.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        asking: Asking,
        *,
        store: ArchiveStore | None,
        say: Callable[[Sequence[Event]], Awaitable[None]],
        lost_after: timedelta = LOST_AFTER,
    ) -> None:
        self._client = client
        self._session = session
        self._asking = asking
        self._store = store
        self._say = say
        self._lost_after = lost_after
        self._read_to = 0
        self._failure: str | None = None

    async def audit(self) -> tuple[list[Loss], Look]:
        """Everything that is missing now, and how the stream was just before."""
        seen, _ = await look(self._client, self._session)
        missing, self._read_to = await find_missing(self._client, self._session, self._store)
        return noticed(await load_losses(self._session), missing, await self._now()), seen

    async def heal_all(self) -> Round:
        """A round after an audit."""
        before = await load_losses(self._session)
        losses, seen = await self.audit()
        # What was known and is not missing any more was healed meanwhile, or declared lost.
        declared = await declared_losses(self._session)
        gone = of_those(before, less(missing_of(before), both(missing_of(losses), declared)))
        done = await self._round(losses, healed=gone)
        await keep_audited(self._session, seen)
        return done

    async def heal_known(self) -> Round:
        """A round for what is known, and for what the projector saw later ones of."""
        known = await load_losses(self._session)
        declared = await declared_losses(self._session)
        missing = less(both(missing_of(known), await gaps(self._session)), declared)
        if not self._read_to and missing:
            return await self.heal_all()
        return await self._round(noticed(known, missing, await self._now()), healed=())

    async def _round(self, losses: Sequence[Loss], *, healed: Sequence[Loss]) -> Round:
        facts = _facts(healed)
        await keep_losses(self._session, losses)
        left: Sequence[Loss] = losses
        if losses:
            log.warning("%d events are missing", count(missing_of(losses)), extra={"action": "healing"})
            patient = any(loss.asked < PATIENT_ROUNDS for loss in losses)
            await self._asking.ask(missing_of(losses), patient=patient)
            left, from_spools = await self._without_standing(left)
            facts += _facts(from_spools)
            if left and self._store is not None:
                left, from_archive = await self._from_archive(self._store, left, patient=patient)
                facts += _facts(from_archive)
        if facts:
            await self._say(facts)
        everywhere = self._failure is None
        left = asked(left, await self._now(), everywhere=everywhere, lost_after=self._lost_after)
        await keep_losses(self._session, left)
        return Round(missing=losses, healed=facts, left=left, archive_failure=self._failure)

    async def _from_archive(
        self, store: ArchiveStore, losses: Sequence[Loss], *, patient: bool
    ) -> tuple[list[Loss], list[Loss]]:
        await keep_losses(self._session, [replace(loss, from_archive=True) for loss in losses])
        sealed: Missing = {}
        try:
            sealed = await put_back_archived(self._client, store, missing_of(losses), patient=patient)
            self._failure = None
        except ArchiveError as error:
            self._failure = str(error)
            log.error("nothing is healed from the archive: %s", error, extra={"action": "archive_unread"})
        left, healed = await self._without_standing(losses)
        late = [replace(loss, from_archive=True) for loss in of_those(healed, sealed)]
        return left, late + of_those(healed, less(missing_of(healed), sealed))

    async def _without_standing(self, losses: Sequence[Loss]) -> tuple[list[Loss], list[Loss]]:
        """Those that still do not stand, and those that do."""
        there = await standing(self._client, after_seq=self._read_to)
        self._read_to = there.end_seq
        missing = missing_of(losses)
        left = less(missing, there.numbers)
        return of_those(losses, left), of_those(losses, less(missing, left))

    async def _now(self) -> datetime:
        now: datetime = await self._session.fetchval("SELECT clock_timestamp()")
        return now


def _facts(healed: Sequence[Loss]) -> list[RecorderHealed]:
    facts = []
    for from_archive in (False, True):
        found: Missing = missing_of(loss for loss in healed if loss.from_archive is from_archive)
        facts += [
            RecorderHealed(
                publisher=publisher,
                first_pseq=first,
                events=last - first + 1,
                source="archive" if from_archive else "spool",
            )
            for publisher, numbers in found.items()
            for first, last in numbers
        ]
    return facts
