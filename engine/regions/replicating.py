"""Brings every snapshot into the region's own bucket, proves that it is there, and records that it is."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from relight.engine import scope
from relight.engine.errors import ContentErased, ContentError, RelightError
from relight.engine.log.buckets import regional_bucket
from relight.engine.log.content import meta_subject
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.backlog import BEGINNING, Backlog, Wanted
from relight.engine.regions.copying import Copying
from relight.events.base import Event
from relight.events.catalog import decode_message
from relight.events.envelope import Recorded
from relight.events.errors import Undecodable
from relight.events.intelligence import (
    IntelligenceReplicationCompleted,
    IntelligenceReplicationFailed,
    IntelligenceReplicationStarted,
    IntelligenceSnapshotTaken,
)
from relight.events.subjects import OBSERVATIONS, token

AT_ONCE = 8
RETRY_S = 0.5
LOOK_EVERY_S = 1.0
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 60.0
MAX_TRIES = 8
"""Some two minutes; then it is left alone until the part is begun anew."""
log = logging.getLogger(__name__)


class Replicator:
    """A part of a region's service: runs in the recorder's own loop.

    What is left to do is derived from the stream and from the bucket itself: snapshots that were taken, less those that
    this region both completed and still has. So nothing is skipped by a restart, and a disk that was lost is filled
    again. The latest snapshots go first.
    """

    def __init__(self, recorder: Recorder, region: str, *, tagged: bool = True) -> None:
        """`tagged`: the region's servers have the tag `region:<region>`."""
        self._recorder = recorder
        self._region = region
        self._tagged = tagged
        self._bucket = regional_bucket(region)
        self._woken = asyncio.Event()
        self._backlog = Backlog()
        self._running: dict[asyncio.Task[None], Wanted] = {}
        self._there: set[str] = set()
        """Where the bucket describes what it holds, as far as it was asked or filled."""
        self.proven = 0
        self.copied = 0
        self.failed = 0
        self.erased = 0
        self.given_up = 0
        self.failure: str | None = "not following yet"

    @property
    def waiting(self) -> int:
        """Snapshots that this region is not known to have yet."""
        return len(self._backlog)

    def waits_for(self, tenant: str, snapshot: str) -> bool:
        """Whether it was taken, and is not known to be here yet."""
        return self._backlog.get((tenant, snapshot)) is not None

    def counts(self) -> Mapping[str, int]:
        """Since this process began; `waiting` is of now."""
        return {
            "proven": self.proven,
            "copied": self.copied,
            "failed": self.failed,
            "erased": self.erased,
            "given_up": self.given_up,
            "waiting": self.waiting,
        }

    async def run(self) -> None:
        """For ever: whenever something may have been missed, it is read again."""
        self._woken = asyncio.Event()
        while True:
            try:
                await self._follow()
            except (RelightError, *TRANSIENT) as error:
                self._interrupted(error)
            except Exception as error:  # a daemon's edge: agents go on with the shared bucket, and health says why
                log.exception("snapshots are not copied", extra={"action": "replicating_failed"})
                self._interrupted(error)
            await asyncio.sleep(RETRY_S)

    def _interrupted(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self.failure:
            log.info("snapshots are not copied now: %s", said, extra={"action": "replicating_retry"})
        self.failure = said

    async def _follow(self) -> None:
        client = await self._recorder.client()
        copying = Copying(client, self._region, tagged=self._tagged)
        await copying.declare()
        there = await copying.subjects()
        if self._there - there:  # its disk was lost since
            self._backlog.since = BEGINNING
        self._there = set(there)
        own = f"{OBSERVATIONS}.{token(self._region)}.intelligence.*.replication_completed"
        subjects = [f"{OBSERVATIONS}.*.intelligence.*.snapshot_taken", own]
        try:
            async with Follower(
                client, subjects, since=self._backlog.since, arrived=self._woken.set, many=True
            ) as follower:
                while True:
                    self._woken.clear()
                    while (message := follower.take()) is not None:
                        self._fold(message)
                    self._reap()
                    if not follower.behind:
                        self.failure = None
                        self._begin_due(copying)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await self._woken.wait()
        finally:
            await self._cancel_all()

    def _fold(self, message: Message) -> None:
        try:
            event = decode_message(message.subject, message.body, message.timestamp_ms)
        except Undecodable as error:
            log.warning("message %d tells of no snapshot: %s", message.seq, error, extra={"action": "undecodable"})
            return
        self._see(event, message)
        self._backlog.read_to(message.timestamp)

    def _see(self, event: Recorded[Event], message: Message) -> None:
        match event.data:
            case IntelligenceSnapshotTaken() as taken:
                self._backlog.add(
                    Wanted(
                        key=(event.tenant, taken.snapshot),
                        content=taken.content,
                        seq=message.seq,
                        taken_at=message.timestamp,
                        event=event.id,
                        correlation=event.correlationid or event.id,
                    )
                )
            case IntelligenceReplicationCompleted() as completed if completed.target_region == self._region:
                wanted = self._backlog.get((event.tenant, completed.snapshot))
                if wanted is None or completed.verified_sha256 != wanted.content.sha256:
                    return
                wanted.completed = True
                if meta_subject(event.tenant, wanted.content.sha256, self._bucket) in self._there:
                    self._backlog.close(wanted)
            case _:
                pass

    def _begin_due(self, copying: Copying) -> None:
        now_s = asyncio.get_running_loop().time()
        for wanted in self._backlog.due(now_s, AT_ONCE - len(self._running)):
            task = asyncio.create_task(self._replicate(wanted, copying), name=f"copy of {wanted.key[1]}")
            task.add_done_callback(lambda _: self._woken.set())
            self._running[task] = wanted

    def _reap(self) -> None:
        """Raises what ended a copy, unless that was about its content."""
        for task in [task for task in self._running if task.done()]:
            wanted = self._running.pop(task)
            if task.cancelled() or task.exception() is not None:
                self._backlog.again(wanted)
            task.result()

    async def _cancel_all(self) -> None:
        running, self._running = self._running, {}
        for task in running:
            task.cancel()
        for done, wanted in zip(await asyncio.gather(*running, return_exceptions=True), running.values(), strict=True):
            if done is not None:
                self._backlog.again(wanted)

    async def _replicate(self, wanted: Wanted, copying: Copying) -> None:
        tenant, snapshot = wanted.key
        with scope.entered(tenant=tenant, correlation=wanted.correlation, causation=wanted.event):
            try:
                held = await copying.held(tenant, wanted.content)
                if held is not None and held.erased:
                    raise ContentErased(f"content {tenant}/{wanted.content.sha256} was erased: it is not copied")
                if held is not None and wanted.completed:
                    self._backlog.close(wanted)
                    return
                self._start(wanted, snapshot)
                done = await copying.copy(tenant, wanted.content)
            except ContentErased as error:
                self.erased += 1
                if wanted.started_at is not None:
                    self._fail(wanted, str(error))
                self._backlog.close(wanted)
            except ContentError as error:
                self._fail(wanted, str(error))
                self._wait(wanted)
            else:
                self._complete(wanted, snapshot, copied=done.copied)

    def _start(self, wanted: Wanted, snapshot: str) -> None:
        if wanted.started_at is None:
            wanted.started_at = self._recorder.clock.now()
            self._recorder.record(
                IntelligenceReplicationStarted(
                    snapshot=snapshot, target_region=self._region, started_at=wanted.started_at
                )
            )

    def _complete(self, wanted: Wanted, snapshot: str, *, copied: bool) -> None:
        assert wanted.started_at is not None
        self._recorder.record(
            IntelligenceReplicationCompleted(
                snapshot=snapshot,
                target_region=self._region,
                started_at=wanted.started_at,
                completed_at=self._recorder.clock.now(),
                verified_sha256=wanted.content.sha256,
            )
        )
        self.proven += 1
        self.copied += copied
        self._there.add(meta_subject(wanted.key[0], wanted.content.sha256, self._bucket))
        self._backlog.close(wanted)

    def _fail(self, wanted: Wanted, reason: str) -> None:
        """The same failure is recorded once, however often it is tried."""
        self.failed += 1
        if reason == wanted.told:
            return
        wanted.told = reason
        log.warning("%s", reason, extra={"action": "replication_failed"})
        self._recorder.record(
            IntelligenceReplicationFailed(
                snapshot=wanted.key[1],
                target_region=self._region,
                started_at=wanted.started_at,
                completed_at=self._recorder.clock.now(),
                reason=reason,
            )
        )

    def _wait(self, wanted: Wanted) -> None:
        wanted.tries += 1
        if wanted.tries >= MAX_TRIES:
            self.given_up += 1
            self._backlog.close(wanted)
            return
        wait_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** (wanted.tries - 1))
        self._backlog.put_off(wanted, asyncio.get_running_loop().time() + wait_s)
