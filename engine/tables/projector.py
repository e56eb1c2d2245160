"""The projector: one reader, one position, and every batch in one transaction that moves the position first."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum

import asyncpg
from nats.aio.client import Client

from relight.engine.errors import Fenced, Rewound, Unreachable
from relight.engine.log.chain import PublisherHead
from relight.engine.log.reader import TRANSIENT, Anchor, Message, Reader
from relight.engine.log.watermarks import announcement, push_subject
from relight.engine.tables.connecting import Session
from relight.engine.tables.deadletters import bury
from relight.engine.tables.folding import DeadLetter, Folded
from relight.engine.tables.heads import Heads
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.positions import Position, load_anchors, load_position, move_position, rewind_position
from relight.engine.tables.store import REFUSED, join_tables
from relight.events.errors import Reason, Undecodable

LINGER_S = 0.02
BATCH_EVENTS = 10_000
IDLE_S = 0.5
RETRY_S = 0.5
STANDBY_S = 3.0
"""After being fenced: how long the other's position must stand still before this projector tries again."""
WATCHED_S = 60.0
FOLDED_AT_ONCE = 50
"""Events, about 1 ms: how long NATS, and PostgreSQL that waits for the next statement, are kept waiting."""
COMMIT_S = 120.0
"""A commit that takes longer waits for a server that hangs: a new connection is made."""

DATABASE_AWAY = (OSError, TimeoutError, Unreachable, asyncpg.PostgresError, asyncpg.InterfaceError)

log = logging.getLogger(__name__)


class ProjectorState(StrEnum):
    """What the projector is doing."""

    STARTING = "starting"
    LIVE = "live"
    STANDBY = "standby"
    """fenced: another projector moves the position"""
    FAILED = "failed"


class Projector:
    """Folds the stream into PostgreSQL until it is cancelled; then finishes the batch in hand.

    `connect` opens a session that acts as relight_projector. Servers that are away are waited for.
    """

    def __init__(
        self, client: Client, connect: Callable[[], Awaitable[Session]], *, batch_events: int = BATCH_EVENTS
    ) -> None:
        self._client = client
        self._connect = connect
        self._batch_events = batch_events
        self._watched: dict[str, float] = {}
        self._heads = Heads()
        self._partitions = Partitions()
        self.state = ProjectorState.STARTING
        self.failure: str | None = None
        self.position: Position | None = None
        self.last_seq = 0
        self.moved_at = time.monotonic()

    @property
    def lag_events(self) -> int:
        """Messages on the stream beyond the position, as far as is known."""
        return max(0, self.last_seq - (self.position.seq if self.position else 0))

    def watch(self, publisher: str) -> None:
        """Somebody waits for this publisher: announce its progress for the next minute."""
        self._watched[publisher] = time.monotonic() + WATCHED_S

    async def run(self, *, stand_by: bool = True) -> None:
        """Until cancelled. When fenced, waits for the other projector to stand still, or raises `Fenced`."""
        while True:
            try:
                async with self._session() as session:
                    await self._follow(session)
            except Fenced as error:
                self.state, self.failure = ProjectorState.STANDBY, str(error)
                log.warning("%s", error, extra={"action": "fenced"})
                if not stand_by:
                    raise
                await self._stand_by()
            except DATABASE_AWAY as error:
                await self._failed(error)
            except Exception as error:  # the daemon's edge: whatever it is, health shows it and the next try may do
                log.exception("projector failed, retrying", extra={"action": "projector_failed"})
                await self._failed(error)

    async def _failed(self, error: Exception) -> None:
        if self.state is not ProjectorState.FAILED:
            log.warning("projector stopped, retrying: %r", error, extra={"action": "projector_retry"})
        self.state, self.failure = ProjectorState.FAILED, str(error) or type(error).__name__
        await asyncio.sleep(RETRY_S)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        session = await self._connect()
        try:
            yield session
        finally:
            # An error of closing must not take the place of what ended the session, a cancellation above all.
            try:
                await session.close(timeout=2)
            except DATABASE_AWAY:
                session.terminate()

    async def _follow(self, session: Session) -> None:
        self._heads = Heads()
        self.position = await load_position(session)
        async with Reader(self._client, self.position.anchor) as reader:
            writing: asyncio.Task[Position] | None = None
            try:
                while True:
                    messages, rewound = await self._read(reader)
                    folded = await _folded(messages)
                    # While PostgreSQL wrote the last batch, this one was read and folded.
                    if writing is not None:
                        await asyncio.wait([writing])  # awaiting the task itself would hand on a cancellation to it
                        written, writing = writing, None
                        self.position = written.result()
                    self._live(reader)
                    if rewound:
                        self.position = await self._rewind(session, reader)
                    elif messages:
                        writing = asyncio.create_task(self._write(session, self.position, messages, folded))
            finally:
                if writing is not None:
                    await asyncio.wait([writing])
                    if not writing.cancelled() and writing.exception() is None:
                        self.position = writing.result()

    async def _read(self, reader: Reader) -> tuple[Sequence[Message], bool]:
        try:
            batch = await reader.batch(limit=self._batch_events, linger_s=LINGER_S, timeout_s=IDLE_S)
        except Rewound as error:
            log.error("%s: reading again from where it still agrees", error, extra={"action": "rewound"})
            return (), True
        return batch, False

    def _live(self, reader: Reader) -> None:
        self.state, self.failure = ProjectorState.LIVE, None
        self.last_seq = reader.last_seq

    async def _rewind(self, session: Session, reader: Reader) -> Position:
        assert self.position is not None
        for anchor in await load_anchors(session):
            while True:
                try:
                    still_stands = await reader.holds(anchor)
                    break
                except TRANSIENT:
                    await asyncio.sleep(RETRY_S)
            if still_stands:
                moved = await rewind_position(session, self.position, anchor)
                reader.move_to(anchor)
                return moved
        raise AssertionError("the stream's beginning always stands")

    async def _write(self, session: Session, held: Position, messages: Sequence[Message], folded: Folded) -> Position:
        """Commits the batch; bisects it where the store refuses a value, down to the one dead letter."""
        try:
            return await self._commit(session, held, messages[-1], folded)
        except REFUSED as error:
            if len(messages) == 1:
                detail = f"{type(error).__name__}: {error}"
                buried = Folded()
                buried.fold(messages, refused=Undecodable(Reason.STORE_REFUSED, detail))
                return await self._commit(session, held, messages[-1], buried)
            for half in (messages[: len(messages) // 2], messages[len(messages) // 2 :]):
                refolded = Folded()
                refolded.fold(half)
                held = await self._write(session, held, half, refolded)
            return held

    async def _commit(self, session: Session, held: Position, last: Message, folded: Folded) -> Position:
        try:
            return await self._commit_once(session, held, last, folded)
        except asyncpg.CheckViolationError as error:
            if error.constraint_name is not None:
                raise
            self._partitions.forget()  # no partition: retention dropped an empty one that is needed after all
            return await self._commit_once(session, held, last, folded)

    async def _commit_once(self, session: Session, held: Position, last: Message, folded: Folded) -> Position:
        async with asyncio.timeout(COMMIT_S):
            await self._partitions.ensure(session, folded.tables)
        async with asyncio.timeout(COMMIT_S), session.transaction():
            moved = await move_position(session, held, Anchor(last.seq, last.sha256))
            await join_tables(session, folded.tables)
            heads = await self._heads.advance(session, folded.links)
            if folded.dead_letters:
                await bury(session, folded.dead_letters)
        self._heads.keep(heads)
        self.position, self.moved_at = moved, time.monotonic()
        await self._announce(heads, folded.dead_letters)
        return moved

    async def _announce(self, heads: Mapping[str, PublisherHead], dead_letters: Sequence[DeadLetter]) -> None:
        now = time.monotonic()
        self._watched = {publisher: until for publisher, until in self._watched.items() if until > now}
        for publisher in self._watched.keys() & heads.keys():
            dead = {d.pseq: d.reason.value for d in dead_letters if d.publisher == publisher and d.pseq is not None}
            try:
                said = announcement(heads[publisher].contiguous_pseq, dead)
                await self._client.publish(push_subject(publisher), said)
            except Exception as error:  # committed all the same; whoever waits asks again
                log.debug("progress not announced: %r", error, extra={"action": "announce_failed"})
                return

    async def _stand_by(self) -> None:
        """Returns once the other's position has not moved for a while."""
        seen: Position | None = None
        still_since = time.monotonic()
        while time.monotonic() - still_since < STANDBY_S:
            await asyncio.sleep(STANDBY_S / 6)
            try:
                async with self._session() as session:
                    self.position = await load_position(session)
            except DATABASE_AWAY:
                continue
            if self.position != seen:
                seen, still_since = self.position, time.monotonic()


async def _folded(messages: Sequence[Message]) -> Folded:
    """Folds in small steps, so that the batch before is written and the next one read meanwhile."""
    folded = Folded()
    for first in range(0, len(messages), FOLDED_AT_ONCE):
        folded.fold(messages[first : first + FOLDED_AT_ONCE])
        await asyncio.sleep(0)
    return folded
