"""The changes of all tables as they become visible: one reader of the stream for everybody who follows."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import orjson
from fastapi.sse import format_sse_event
from nats.aio.client import Client

from relight.engine.errors import Rewound, Unreachable
from relight.engine.http.draining import Draining
from relight.engine.log.events import StoredEvent, stored
from relight.engine.log.reader import BEGINNING, Message, Reader
from relight.engine.tables.connecting import GONE
from relight.engine.tables.paging import PagePosition, read_position
from relight.engine.tables.pools import Pool
from relight.events.envelope import PLATFORM, rfc3339
from relight.projections.catalog import projection_of

RING_CHANGES = 10_000
"""So many of the latest changes can be gone back to."""
BATCH_CHANGES = 500
READ_S = 0.25
LOOK_EVERY_S = 0.03
RETRY_S = 0.5
MAX_UNSEEN = 2_000
"""Messages held that are not in the tables yet; more wait at the server."""
RETRY = b"retry: 1000\n\n"
"""How soon a client comes back, in milliseconds."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """One event that is in the tables, and how it is sent."""

    seq: int
    tenant: str
    subsystem: str
    text: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody is on the stream, as `id:` says it."""

    incarnation: int
    seq: int

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.seq}"


def place(text: str) -> Place | None:
    """The place in a `Last-Event-ID`; None for what is none of ours."""
    incarnation, dot, seq = text.partition(".")
    if not (dot and text.isascii() and incarnation.isdecimal() and seq.isdecimal() and len(text) <= 40):
        return None
    return Place(int(incarnation), int(seq))


@dataclass(slots=True, eq=False)
class Follower:
    """Somebody who follows: what of, where he is (None: not yet known), and whether he waits for more."""

    tenant: str
    subsystem: str | None
    here: Place | None
    wake: asyncio.Event
    waits: bool = False

    def wants(self, change: Change) -> bool:
        return change.tenant in (self.tenant, PLATFORM) and self.subsystem in (None, change.subsystem)


class Feed:
    """Reads only while somebody follows; safe to follow before and after NATS or PostgreSQL were away."""

    def __init__(self, client: Client, pool: Pool, *, ring_changes: int = RING_CHANGES) -> None:
        self._client = client
        self._pool = pool
        self._ring: deque[Change] = deque(maxlen=ring_changes)
        self._ring_changes = ring_changes
        self._followers: set[Follower] = set()
        self._running: asyncio.Task[None] | None = None
        self._begin_at: Place | None = None
        self._floor = 0
        self._now: Place | None = None

    async def follow(
        self, *, tenant: str, subsystem: str | None, after: Place | None, heartbeat_s: float, ends: Draining
    ) -> AsyncGenerator[bytes, None]:
        """What is sent to one follower, until `ends` began: changes, gaps, and a heartbeat whenever there is nothing.

        Its changes are the tenant's and the platform's. Who is too slow for the ring is told of the gap.
        """
        me = Follower(tenant, subsystem, after, asyncio.Event())
        ends.then(me.wake.set)
        self._followers.add(me)
        if self._running is None:
            self._begin_at = after
            self._running = asyncio.create_task(self._run(), name="feed")
        loop = asyncio.get_running_loop()
        next_heartbeat = loop.time() + heartbeat_s
        try:
            yield RETRY
            while not ends.began:
                me.wake.clear()
                began, (gap, changes) = me.here is None, self._since(me)
                if gap or changes:
                    next_heartbeat = loop.time() + heartbeat_s
                    yield gap + b"".join(changes)
                elif (began and me.here is not None) or loop.time() >= next_heartbeat:
                    next_heartbeat = loop.time() + heartbeat_s
                    yield _heartbeat(me.here)
                else:
                    me.waits = True
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(next_heartbeat):
                            await me.wake.wait()
                    me.waits = False
        finally:
            self._leave(me)

    def _leave(self, follower: Follower) -> None:
        self._followers.discard(follower)
        if not self._followers and self._running is not None:
            self._running.cancel()
            self._running = self._now = None
            self._ring.clear()

    def _since(self, me: Follower) -> tuple[bytes, list[bytes]]:
        """What the follower has not had, at most a batch; moves it on."""
        now, here = self._now, me.here
        if now is None:
            return b"", []
        if here is None:
            me.here = now
            return b"", []
        ahead = here.seq - now.seq
        if here.incarnation != now.incarnation or here.seq < self._floor or ahead > self._ring_changes:
            me.here = now
            return _gap(here, now), []
        if ahead >= 0:  # what it saw elsewhere has not come here yet
            return b"", []
        found: list[bytes] = []
        me.here = now
        for change in self._after(here.seq):
            if me.wants(change):
                found.append(change.text)
                if len(found) == BATCH_CHANGES:
                    me.here = Place(now.incarnation, change.seq)
                    break
        return b"", found

    def _after(self, seq: int) -> list[Change]:
        """The changes beyond `seq`, looked for from the end: followers are near it."""
        found = []
        for change in reversed(self._ring):
            if change.seq <= seq:
                break
            found.append(change)
        return found[::-1]

    async def _run(self) -> None:
        """Until cancelled, which is when the last follower goes."""
        while True:
            try:
                await self._read()
            except Rewound:
                log.warning("the stream was rewound: followers go on from the new place", extra={"action": "rewound"})
            except (Unreachable, asyncpg.PostgresError, *GONE) as error:
                log.info("changes cannot be read yet: %r", error, extra={"action": "feed_retry"})
            except Exception:  # the daemon's edge: followers keep their heartbeats, and the next try may do
                log.exception("the feed failed, retrying", extra={"action": "feed_failed"})
            await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        """Returns when the projector found the stream rewound: then it is read anew, from where that is."""
        position = await self._position()
        begin = self._beginning(position)
        async with Reader(self._client, BEGINNING) as reader:
            reader.begin_after(begin)
            self._show(Place(position.incarnation, begin), [], floor=begin)
            unseen: deque[Message] = deque()
            while True:
                if len(unseen) < MAX_UNSEEN:
                    timeout_s = LOOK_EVERY_S if unseen else READ_S
                    unseen += await reader.batch(limit=BATCH_CHANGES, linger_s=0, timeout_s=timeout_s)
                else:
                    await asyncio.sleep(LOOK_EVERY_S)
                position = await self._position()
                assert self._now is not None
                if position.incarnation != self._now.incarnation:
                    return
                changes: list[Change] = []
                while unseen and unseen[0].seq <= position.seq:
                    changes += self._changes(stored(unseen.popleft()), position.incarnation)
                seq = min(position.seq, unseen[0].seq - 1 if unseen else reader.position.seq)
                if seq > self._now.seq:
                    self._show(Place(position.incarnation, seq), changes)

    def _beginning(self, position: PagePosition) -> int:
        """Where the first follower wants to go on, if the ring could hold what has come since; else here and now."""
        wanted, self._begin_at = self._begin_at, None
        if self._now is not None and self._now.incarnation == position.incarnation:
            wanted = self._now  # after an error: go on
        if wanted is None or wanted.incarnation != position.incarnation or wanted.seq > position.seq:
            return position.seq
        return wanted.seq if position.seq - wanted.seq <= self._ring_changes else position.seq

    async def _position(self) -> PagePosition:
        async with self._pool.transaction("relight_reader") as connection:
            return await read_position(connection)

    def _changes(self, found: StoredEvent, incarnation: int) -> list[Change]:
        event = found.event
        if event is None or projection_of(event.type) is None:
            return []  # a dead letter, or a recorder's word about itself: no table shows it
        subsystem = event.type.partition(".")[0]
        data = {
            "seq": found.message.seq,
            "id": event.id,
            "type": event.type,
            "subject": event.subject,
            "tenant": event.tenant,
            "region": event.region,
            "time": rfc3339(event.time),
            "subsystem": subsystem,
        }
        id = str(Place(incarnation, found.message.seq))
        text = format_sse_event(data_str=orjson.dumps(data).decode(), event=event.type, id=id)
        return [Change(found.message.seq, event.tenant, subsystem, text)]

    def _show(self, now: Place, changes: Sequence[Change], *, floor: int | None = None) -> None:
        """The tables are at `now`. Wakes whom it concerns; who waits and is not concerned is there, too."""
        if floor is not None and self._now != now:
            self._ring.clear()
            self._floor = floor
        dropped = len(self._ring) + len(changes) - self._ring_changes
        if dropped > 0:
            kept = len(self._ring)
            self._floor = (self._ring[dropped - 1] if dropped <= kept else changes[dropped - kept - 1]).seq
        self._ring.extend(changes)
        before, self._now = self._now, now
        for follower in self._followers:
            if floor is None and follower.waits and follower.here == before and not any(map(follower.wants, changes)):
                follower.here = now
            else:
                follower.wake.set()


def _gap(here: Place, now: Place) -> bytes:
    data = orjson.dumps({"from": str(here), "to": str(now)}).decode()
    return format_sse_event(data_str=data, event="gap", id=str(now))


def _heartbeat(here: Place | None) -> bytes:
    """A comment; with an id, so that who reconnects goes on from here and not from the last change it was sent."""
    return format_sse_event(comment="heartbeat", id=None if here is None else str(here))
