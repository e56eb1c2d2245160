"""Trims the stream: only what is projected and sealed, and never the last message of a control subject."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Literal

from nats.aio.client import Client
from nats.js.errors import NotFoundError
from pydantic import BaseModel

from relight.engine.archive.comparing import Advanced, compare
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.segment import Head
from relight.engine.errors import Rewound, TrimRefused, Unreachable
from relight.engine.log.answers import answered
from relight.engine.log.reader import BEGINNING, OBSERVED, TRANSIENT, Anchor, Reader
from relight.engine.log.topology import STREAM
from relight.engine.tables.connecting import Session
from relight.engine.tables.exclusive import alone
from relight.engine.tables.positions import Position, load_position

STEP = 100_000
"""Sequences that one purge takes away, so that each is answered in time."""
PURGE_S = 60.0
RETRY_S = 0.2
AT_ONCE = 50
"""Purges of control subjects under way."""

Record = Callable[[str, int], Awaitable[None]]
"""Records that the stream is about to be trimmed (archive, sequence), and returns once that is projected."""


class TrimPlan(BaseModel):
    """What can go: `observations` up to `through_seq`, and of every ruling's subject what is below its last one there.

    `limited_by`: the age asked for, the tables' position, or what is sealed. All of it was compared with the archive.
    """

    archive: str
    older_than: datetime
    through_seq: int
    limited_by: Literal["age", "projected", "sealed"]
    projected_seq: int
    sealed_seq: int
    observations: int
    rulings: int
    body_bytes: int


class StreamTrimmed(BaseModel):
    """What went. `stream_bytes_*`: as the server counts them."""

    plan: TrimPlan
    messages: int
    stream_bytes_before: int
    stream_bytes_after: int
    took_s: float


class Trimming:
    """`client` reads the stream, `session` acts as the projector; both are of nobody else's use meanwhile."""

    def __init__(
        self,
        client: Client,
        session: Session,
        archive: ArchiveReader,
        *,
        older_than: datetime,
        advanced: Advanced | None = None,
    ) -> None:
        self._client = client
        self._js = client.jetstream(timeout=PURGE_S)
        self._session = session
        self._archive = archive
        self._older_than = older_than
        self._advanced = advanced
        self._below: dict[str, int] = {}

    async def plan(self) -> TrimPlan:
        """Reads all that would go, and compares it with what was sealed.

        Raises `TrimRefused`, `ArchiveDamaged`, `Unreachable`; `RebuildRefused` while a rebuild runs.
        """
        async with alone(self._session):
            return await self._planned()

    async def run(self, record: Record) -> StreamTrimmed:
        """Ended at any moment, nothing went that was not recorded as trimmed, and doing it again finishes it."""
        began = time.monotonic()
        async with alone(self._session):
            plan = await self._planned()
            before = (await self._js.stream_info(STREAM)).state
            if plan.observations or plan.rulings:
                await record(plan.archive, plan.through_seq)
                await self._purge(plan.through_seq)
            after = (await self._js.stream_info(STREAM)).state
        return StreamTrimmed(
            plan=plan,
            messages=plan.observations + plan.rulings,
            stream_bytes_before=before.bytes,
            stream_bytes_after=after.bytes,
            took_s=time.monotonic() - began,
        )

    async def _planned(self) -> TrimPlan:
        try:
            return await self._looked()
        except (*TRANSIENT, NotFoundError) as error:
            raise Unreachable(f"stream {STREAM} cannot be read ({error!r}): is NATS up?") from error
        except Rewound as error:
            raise TrimRefused(f"{error}; nothing was trimmed: run this again") from error

    async def _looked(self) -> TrimPlan:
        position = await load_position(self._session)
        segments = await self._archive.segments()
        head = (await self._archive.manifest(segments[-1]))[1] if segments else Head(archive=self._archive.root.archive)
        async with Reader(self._client, BEGINNING) as reader:
            await self._check_agreed(reader, position, head)
            # What stands at the position and at the head stays: by these a rewind is noticed.
            limit: Literal["age", "projected", "sealed"] = "projected" if position.seq <= head.last_seq else "sealed"
            bound = max(0, min(position.seq, head.last_seq) - 1)
            through = await self._last_before(bound)
            found = await compare(reader, self._archive, through, self._advanced)
        self._below = found.below
        return TrimPlan(
            archive=head.archive,
            older_than=self._older_than,
            through_seq=through,
            limited_by=limit if through == bound else "age",
            projected_seq=position.seq,
            sealed_seq=head.last_seq,
            observations=found.observations,
            rulings=found.rulings,
            body_bytes=found.body_bytes,
        )

    async def _check_agreed(self, reader: Reader, position: Position, head: Head) -> None:
        if not await reader.holds(position.anchor):
            raise TrimRefused(
                f"the stream does not hold what the tables were folded from at {position}: it was put back; let a"
                " projector read it again first"
            )
        if not await reader.holds(Anchor(head.last_seq, head.last_sha256)):
            raise TrimRefused(
                f"the stream does not hold what archive {self._archive.store.place} ends with at {head.last_seq}: it"
                " was put back; let `relight archive` go on first"
            )

    async def _last_before(self, bound: int) -> int:
        """The highest sequence up to `bound` before which everything is older than asked for."""
        low, high = 0, bound
        while low < high:
            middle = (low + high + 1) // 2
            if await self._is_old(middle, bound):
                low = middle
            else:
                high = middle - 1
        return low

    async def _is_old(self, seq: int, bound: int) -> bool:
        try:
            found = await self._js.get_msg(STREAM, seq, subject=">", next=True)
        except NotFoundError:
            return True
        if (found.seq or 0) > bound or found.time is None:
            return (found.seq or 0) > bound
        return found.time < self._older_than

    async def _purge(self, through: int) -> None:
        for end in [*range(STEP, through, STEP), through]:
            await self._purged(OBSERVED, end + 1)
        waiting = list(self._below.items())
        for first in range(0, len(waiting), AT_ONCE):
            await asyncio.gather(*(self._purged(subject, seq) for subject, seq in waiting[first : first + AT_ONCE]))

    async def _purged(self, subject: str, seq: int) -> None:
        """What stands on the subject below `seq` goes; asked again where no answer came, for it is safe to."""
        deadline = time.monotonic() + PURGE_S
        while True:
            try:
                await answered(self._client, self._js.purge_stream(STREAM, subject=subject, seq=seq), within_s=PURGE_S)
                return
            except TRANSIENT as error:
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"stream {STREAM} was not trimmed to its end ({error!r}): run this again when NATS is up"
                    ) from error
            await asyncio.sleep(RETRY_S)
