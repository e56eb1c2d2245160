"""The projector: one reader, one position, and every batch in one transaction that moves the position first."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum

import asyncpg
from nats.aio.client import Client

from relight.engine.archive.history import OpenArchive, history_reader
from relight.engine.errors import ArchiveError, Fenced, HistoryGone, Rewound, Unreachable
from relight.engine.log.answers import answered
from relight.engine.log.chain import PublisherHead
from relight.engine.log.reader import TRANSIENT, Anchor, Message, Reader
from relight.engine.log.topology import STREAM
from relight.engine.log.trims import trimmed_through
from relight.engine.log.watermarks import announcement, push_subject
from relight.engine.tables.connecting import Session
from relight.engine.tables.deadletters import bury
from relight.engine.tables.facts import keep_facts
from relight.engine.tables.folding import DeadLetter, Folded
from relight.engine.tables.heads import Heads
from relight.engine.tables.leading import try_to_lead
from relight.engine.tables.partitions import Partitions
from relight.engine.tables.positions import Position, load_anchors, load_position, move_position, rewind_position
from relight.engine.tables.signs import SignsOfLife
from relight.engine.tables.store import REFUSED, join_tables
from relight.events.errors import Reason, Undecodable

LINGER_S = 0.02
BATCH_EVENTS = 10_000
IDLE_S = 0.5
RETRY_S = 0.5
LOOK_EVERY_S = 0.1
"""How often one that stands by asks for the lock."""
STANDBY_S = 3.0
"""How long a holder's position may stand still, with more on the stream, before another goes on without the lock."""
FENCED_S = 1.0
"""What one that was fenced leaves to the other, which may have no lock yet, to take it."""
WATCHED_S = 60.0
FOLDED_AT_ONCE = 50
"""Events, about 1 ms: how long NATS, and PostgreSQL that waits for the next statement, are kept waiting."""
COMMIT_S = 120.0
"""A commit that takes longer waits for a server that hangs: a new connection is made."""

DATABASE_AWAY = (
    OSError,
    TimeoutError,
    Unreachable,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # "cannot switch to state …": the server was killed in the middle of an answer
)

KNOWN_TRIM = "SELECT EXISTS (SELECT FROM stream_trims WHERE through_seq >= $1)"

log = logging.getLogger(__name__)


class ProjectorState(StrEnum):
    """What the projector is doing."""

    STARTING = "starting"
    LIVE = "live"
    STANDBY = "standby"
    """another projector is at work"""
    FAILED = "failed"


class Projector:
    """Folds the stream into PostgreSQL until it is cancelled; then finishes the batch in hand.

    `connect` opens a session that acts as relight_projector. Servers that are away are waited for. Of several, the one
    whose session holds a lock is at work, and the others stand by; but what keeps the tables right is that the position
    moves by compare-and-set, whoever holds the lock.
    """

    def __init__(
        self,
        client: Client,
        connect: Callable[[], Awaitable[Session]],
        *,
        batch_events: int = BATCH_EVENTS,
        open_archive: OpenArchive | None = None,
    ) -> None:
        self._client = client
        self._connect = connect
        self._batch_events = batch_events
        self._open_archive = open_archive
        self._watched: dict[str, float] = {}
        self._heads = Heads()
        self._signs = SignsOfLife()
        self._leads = False
        self._at_work: Session | None = None
        self._partitions = Partitions()
        self.state = ProjectorState.STARTING
        self.failure: str | None = None
        self.position: Position | None = None
        self.last_seq = 0
        self.moved_at = time.monotonic()
        self.on_commit: Callable[[int, float], None] | None = None
        """Told of every batch that was committed: its events, and the seconds that PostgreSQL took."""

    @property
    def lag_events(self) -> int:
        """Messages on the stream beyond the position, as far as is known."""
        return max(0, self.last_seq - (self.position.seq if self.position else 0))

    def watch(self, publisher: str) -> None:
        """Somebody waits for this publisher: announce its progress for the next minute."""
        self._watched[publisher] = time.monotonic() + WATCHED_S
        self._signs.heard(publisher)

    def abort(self) -> None:
        """Cuts the session: what is being written is rolled back. For one that was cancelled and does not end."""
        if self._at_work is not None:
            self._at_work.terminate()

    async def run(self, *, stand_by: bool = True) -> None:
        """Until cancelled. Where another projector is at work, waits for its end, or raises `Fenced`."""
        while True:
            try:
                async with self._session() as session:
                    await self._take_lead(session, stand_by=stand_by)
                    await self._follow(session)
            except Fenced as error:
                self._stands_by(str(error))
                if not stand_by:
                    raise
                await asyncio.sleep(FENCED_S)
            except (*DATABASE_AWAY, HistoryGone, ArchiveError) as error:
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
        self._at_work = session = await self._connect()
        try:
            yield session
        finally:
            self._at_work = None
            # An error of closing must not take the place of what ended the session, a cancellation above all.
            try:
                await session.close(timeout=2)
            except DATABASE_AWAY:
                session.terminate()

    async def _take_lead(self, session: Session, *, stand_by: bool) -> None:
        """Returns once this session holds the lock, or whoever holds it is found to hang."""
        behind_since = looked_at = time.monotonic()
        while True:
            look = await try_to_lead(session)
            self._leads = look.leads
            if look.leads:
                return
            if not stand_by:
                raise Fenced("another projector is at work: this one steps back, nothing was written")
            self._stands_by("another projector is at work")
            now = time.monotonic()
            if look.position != self.position:
                self.position, self.moved_at, behind_since = look.position, now, now
            if now - looked_at >= STANDBY_S / 6:
                looked_at = now
                if not await self._more_on_the_stream():
                    behind_since = now
                elif now - behind_since >= STANDBY_S:
                    said = f"the projector at work has stood still for {STANDBY_S:g} s: going on in its place"
                    log.warning("%s", said, extra={"action": "took_over"})
                    return
            await asyncio.sleep(LOOK_EVERY_S)

    def _stands_by(self, why: str) -> None:
        if self.state is not ProjectorState.STANDBY:
            log.info("standing by: %s", why, extra={"action": "standby"})
        self.state, self.failure = ProjectorState.STANDBY, why

    async def _more_on_the_stream(self) -> bool:
        asking = self._client.jetstream(timeout=STANDBY_S).stream_info(STREAM)
        try:
            self.last_seq = (await answered(self._client, asking, within_s=STANDBY_S)).state.last_seq
        except TRANSIENT:
            return False  # then the one at work cannot read on either
        return self.lag_events > 0

    async def _follow(self, session: Session) -> None:
        self._heads = Heads()
        self.position = await load_position(session)
        await self._signs.begin(session)
        self.state, self.failure = ProjectorState.LIVE, None
        async with await self._reader(session, self.position) as reader:
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
                    await self._signs.write(session)
                    if not self._leads:  # whoever held the lock is fenced by now, or will be
                        self._leads = (await try_to_lead(session)).leads
                    if rewound:
                        self.position = await self._rewind(session, reader)
                    elif messages:
                        writing = asyncio.create_task(self._write(session, self.position, messages, folded))
            finally:
                if writing is not None:
                    await asyncio.wait([writing])
                    if not writing.cancelled() and writing.exception() is None:
                        self.position = writing.result()

    async def _reader(self, session: Session, position: Position) -> Reader:
        """Raises `HistoryGone` where the stream was trimmed of what these tables lack, and no archive has it."""
        while True:
            try:
                asking = trimmed_through(self._client.jetstream(timeout=STANDBY_S))
                through = await answered(self._client, asking, within_s=2 * STANDBY_S)
                break
            except TRANSIENT:
                await asyncio.sleep(RETRY_S)
        # Tables that know of the trim were folded beyond it, wherever a rewind has put their position since.
        if through > position.seq and await session.fetchval(KNOWN_TRIM, through):
            return Reader(self._client, position.anchor)
        return await history_reader(self._client, position.anchor, open_archive=self._open_archive, through=through)

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
        began = time.monotonic()
        async with asyncio.timeout(COMMIT_S):
            await self._partitions.ensure(session, folded.tables)
        async with asyncio.timeout(COMMIT_S), session.transaction():
            moved = await move_position(session, held, Anchor(last.seq, last.sha256))
            await join_tables(session, folded.tables)
            heads = await self._heads.advance(session, folded.links)
            await keep_facts(session, folded.links)
            if folded.dead_letters:
                await bury(session, folded.dead_letters)
        self._heads.keep(heads)
        self.position, self.moved_at = moved, time.monotonic()
        if self.on_commit is not None:
            self.on_commit(len(folded.links), self.moved_at - began)
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


async def _folded(messages: Sequence[Message]) -> Folded:
    """Folds in small steps, so that the batch before is written and the next one read meanwhile."""
    folded = Folded()
    for first in range(0, len(messages), FOLDED_AT_ONCE):
        folded.fold(messages[first : first + FOLDED_AT_ONCE])
        await asyncio.sleep(0)
    return folded
