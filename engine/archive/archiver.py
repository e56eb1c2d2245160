"""The archiver: reads the stream from where the archive ends and seals segment after segment, whatever is away."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from relight.engine.archive.chains import SealedHead
from relight.engine.archive.checkpoint import save_checkpoint
from relight.engine.archive.clearing import clear_unfinished
from relight.engine.archive.coverage import named
from relight.engine.archive.following import Advanced, read_sealed
from relight.engine.archive.hand import Hand, SealLimits
from relight.engine.archive.keys import SigningKey
from relight.engine.archive.look import ArchiverLook, ArchiverState
from relight.engine.archive.orphans import clear_orphans
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.rewinding import standing_anchor
from relight.engine.archive.sealed import Sealed
from relight.engine.archive.sealer import Keep, Sealer
from relight.engine.archive.sealing import found_archive
from relight.engine.archive.standby import Standby
from relight.engine.archive.store import ArchiveStore
from relight.engine.clock import Clock
from relight.engine.errors import (
    ArchiveConflict,
    ArchiveError,
    ArchiveUnreachable,
    RelightError,
    Rewound,
    Unreachable,
)
from relight.engine.log.reader import TRANSIENT, Anchor, Message, Reader
from relight.engine.log.topology import STREAM
from relight.engine.tables.sealed import SealedTables, Standing

LINGER_S = 0.2
IDLE_S = 0.5
READ_BATCH = 5_000
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
GIVE_UP_S = 30.0
WRITTEN_S = 5.0
CHECKPOINT_MESSAGES = 100_000
CHECKPOINT_AT_END_MESSAGES = 10_000
PER_PUBLISHER = 4
"""A checkpoint names every publisher: with many of them it is written after so many messages for each."""

log = logging.getLogger(__name__)


class Archiver:
    """Of one archive, until `stop`; then seals what is in hand. It may be killed at any moment.

    `client` reads message ids; `key` is asked before each segment, since it may be rotated. Of several archivers one is
    at work and the others stand by; what keeps the archive right is that a manifest is never replaced: whoever comes
    second gets `ArchiveConflict`.
    """

    def __init__(
        self,
        client: Client,
        store: ArchiveStore,
        key: Callable[[], SigningKey],
        *,
        limits: SealLimits,
        clock: Clock,
        tables: SealedTables | None = None,
        keep: Keep | None = None,
        advanced: Advanced | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._key = key
        self._clock = clock
        self._tables = tables
        self._keep = keep
        self._advanced = advanced
        self._hand = Hand(limits)
        self._standby = Standby(tables, seal_s=limits.seal_s)
        self._stopping = asyncio.Event()
        self._archive: ArchiveReader | None = None
        self._sealed: Sealed | None = None
        self._incarnation = 1
        self._checkpointed = 0
        self._retry_s = FIRST_RETRY_S
        self._state = ArchiverState.STARTING
        self._failure: str | None = None
        self._failing_since = 0.0
        self._read_seq = 0
        self._end: int | None = None
        self._contents = self._contents_missing = 0
        self.missing: list[tuple[int, int]] = []
        """Sequences that this one found gone before they were sealed."""

    def stop(self) -> None:
        """Seal what is in hand, once, and end."""
        self._stopping.set()

    @property
    def unsealed(self) -> int:
        """Messages in hand; after the end, those that could not be sealed. The stream has them."""
        return len(self._hand.messages)

    def seen(self) -> ArchiverLook:
        """How it is."""
        found = ArchiverLook(
            place=self._store.place,
            state=self._state,
            seal_s=self._hand.limits.seal_s,
            failure=self._failure,
            failing_for_s=None if self._failure is None else time.monotonic() - self._failing_since,
            read_seq=self._read_seq,
            in_hand=self.unsealed,
            oldest_in_hand=self._hand.oldest,
            missing_now=tuple(self.missing),
            contents=self._contents,
            contents_missing=self._contents_missing,
            tables_failure=None if self._tables is None else self._tables.failure,
        )
        return found if self._sealed is None else self._sealed.told(found)

    async def run(self, *, once: bool = False) -> None:
        """Until `stop`, or with `once` until all that is on the stream now is sealed.

        Whatever is away is waited for; with `once` it is raised.
        """
        writing = None if self._tables is None else asyncio.create_task(self._tables.run(), name="sealed heads")
        try:
            if once:
                self._end = await self._last_seq()
            while not self._stopping.is_set() and not await self._tried():
                pass
            if self._tables is not None:
                await self._tables.written(within_s=WRITTEN_S)
        finally:
            if writing is not None:
                writing.cancel()
                await asyncio.wait([writing])

    async def _tried(self) -> bool:
        """Whether it ended as it should."""
        try:
            archive, sealed = await self._opened()
            await self._standby.agree(archive, sealed)
            if await self._standby.turn(
                archive,
                sealed,
                last_seq=self._last_seq,
                pause=self._pause,
                stands_by=lambda: self._is(ArchiverState.STANDBY),
                end=self._end,
            ):
                await self._follow(archive, sealed)
            return True
        except ArchiveConflict as error:
            log.info("%s", error, extra={"action": "archive_conflict"})
            self._standby.contended = True
            self._hand.clear()
        except (RelightError, *TRANSIENT) as error:
            await self._failed(error)
        except Exception as error:  # the daemon's edge: health shows it, and the next try may do
            log.exception("archiver failed, retrying", extra={"action": "archiver_failed"})
            await self._failed(error)
        return False

    async def _failed(self, error: Exception) -> None:
        """Tells of it and pauses, longer each time; raises it where somebody waits for an end."""
        if self._end is not None:
            raise error
        # What is wrong with the archive somebody may put right meanwhile: it is read anew.
        if isinstance(error, ArchiveError) and not isinstance(error, ArchiveUnreachable):
            self._archive = self._sealed = None
        if self._state is not ArchiverState.FAILED:
            log.warning("archiver waits: %s", error, extra={"action": "archiver_waits"})
            self._failing_since = time.monotonic()
        self._state, self._failure = ArchiverState.FAILED, str(error) or type(error).__name__
        await self._pause(self._retry_s)
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)

    def _is(self, state: ArchiverState) -> None:
        self._state, self._failure, self._retry_s = state, None, FIRST_RETRY_S

    async def _pause(self, seconds: float) -> bool:
        """Whether it was stopped meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _last_seq(self) -> int:
        try:
            return (await self._client.jetstream(timeout=5).stream_info(STREAM)).state.last_seq
        except (*TRANSIENT, NotFoundError) as error:
            raise Unreachable(f"stream {STREAM} cannot be read ({error!r}): is NATS up?") from error

    async def _opened(self) -> tuple[ArchiveReader, Sealed]:
        if self._archive is None or self._sealed is None:
            archive = await found_archive(self._store, self._key(), now=self._clock.now())
            sealed, self._checkpointed = await read_sealed(archive, self._advanced)
            unfinished = await clear_unfinished(self._store, now=self._clock.now())
            for name in [*unfinished, *await clear_orphans(archive, sealed.head.segment)]:
                log.info("cleared %s, which no segment names", name, extra={"action": "orphan_cleared"})
            self._archive, self._sealed = archive, sealed
        return self._archive, self._sealed

    async def _follow(self, archive: ArchiveReader, sealed: Sealed) -> None:
        """Reads and seals until it is stopped, or comes to the end. Raises `ArchiveConflict`."""
        hand = self._hand
        hand.clear()
        self._incarnation = sealed.head.incarnation
        self._note(sealed, sealed.chains.heads)
        self._is(ArchiverState.LIVE)
        async with Reader(self._client, Anchor(sealed.head.last_seq, sealed.head.last_sha256)) as reader:
            heard_at, ends = time.monotonic(), False
            while not ends:
                batch, rewound = await self._read(reader)
                hand.take(batch)
                self._read_seq = reader.position.seq
                if batch or rewound:
                    heard_at = time.monotonic()
                ends = self._stopping.is_set() or (not rewound and await self._is_at_end(reader, heard_at))
                # After a rewind, what is in hand may stand nowhere else.
                if hand.messages and (ends or rewound or not hand.due_s):
                    await self._seal(archive, sealed)
                if rewound:
                    anchor = await standing_anchor(reader, archive, sealed.head, sealed_seq=sealed.coverage.highest_seq)
                    self._incarnation = sealed.head.incarnation + 1
                    reader.move_to(anchor)
                await self._standby.agree(archive, sealed)
        if sealed.messages - self._checkpointed >= CHECKPOINT_AT_END_MESSAGES:
            await self._checkpoint(archive, sealed)

    async def _read(self, reader: Reader) -> tuple[Sequence[Message], bool]:
        timeout_s = min(IDLE_S, max(0.01, self._hand.due_s))
        try:
            limit = min(READ_BATCH, self._hand.room)
            return await reader.batch(limit=limit, linger_s=LINGER_S, timeout_s=timeout_s), False
        except Rewound as error:
            log.error("%s: sealing again from where it still agrees", error, extra={"action": "rewound"})
            return (), True

    async def _is_at_end(self, reader: Reader, heard_at: float) -> bool:
        if self._end is None or reader.position.seq >= self._end:
            return self._end is not None
        silent_s = time.monotonic() - heard_at
        if silent_s > GIVE_UP_S:
            raise Unreachable(f"stream {STREAM} cannot be read: nothing came for {GIVE_UP_S:g} s; is NATS up?")
        return silent_s > IDLE_S and await reader.is_at_end()

    async def _seal(self, archive: ArchiveReader, sealed: Sealed) -> None:
        """What is in hand, tried until it is sealed or the archiver is stopped. Raises `ArchiveConflict`."""
        hand = self._hand
        sealer = Sealer(
            archive,
            self._key,
            self._clock,
            self._keep,
            hand.messages,
            after=sealed.head,
            incarnation=self._incarnation,
        )
        while True:
            try:
                made = await sealer.run()
                break
            except (ArchiveUnreachable, Unreachable, *TRANSIENT) as error:
                await self._failed(error)
                if self._stopping.is_set():
                    return
        segment = made.segment
        moved, missing = sealed.take(segment.manifest, segment.head, made.seqs, made.links)
        hand.clear()
        self._is(ArchiverState.LIVE)
        self._contents += made.kept.copied
        self._contents_missing += len(made.kept.missing)
        if missing:
            self.missing += missing
            log.error(
                "messages %s went from the stream before they were sealed",
                named(missing),
                extra={"action": "never_sealed"},
            )
        self._note(sealed, moved)
        due = max(CHECKPOINT_MESSAGES, PER_PUBLISHER * len(sealed.chains.heads))
        if sealed.messages - self._checkpointed >= due:
            await self._checkpoint(archive, sealed)

    async def _checkpoint(self, archive: ArchiveReader, sealed: Sealed) -> None:
        try:
            await save_checkpoint(archive, self._key(), sealed)
        except ArchiveError as error:  # nothing rests on it: the next one will do
            log.warning("no checkpoint: %s", error, extra={"action": "no_checkpoint"})
        self._checkpointed = sealed.messages

    def _note(self, sealed: Sealed, moved: Mapping[str, SealedHead]) -> None:
        if self._tables is not None and sealed.sealed_at is not None:
            standing = Standing(head=sealed.head, place=self._store.place, key=sealed.key, sealed_at=sealed.sealed_at)
            self._tables.note(standing, moved)
