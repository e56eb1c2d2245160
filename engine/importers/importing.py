"""Importing a file: the same rows give the same events, bytes and publisher, so that importing again adds nothing."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from pydantic import BaseModel

from relight.engine import scope
from relight.engine.clock import Clock
from relight.engine.errors import ImportRefused, Unreachable
from relight.engine.health.asking import STATUS
from relight.engine.importers.identity import Entry, Identity, Malformed
from relight.engine.importers.ruling import append_rulings
from relight.engine.importers.scanning import Scan
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.recorder.receipts import Ack, Receipt
from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.base import Control

CHUNK_ROWS = 2_000
"""Recorded at a time; the one before has to be projected by then, so that memory stays bounded."""
PROJECTED_WITHIN_S = 120.0
SPOOL_RETENTION_S = 0.2
"""A source that can be read again is not kept for healing."""
POLL_S = 0.05


class ImportedFile(BaseModel):
    """What became of a file: of its `rows`, `already` stood on the stream before and `imported` came now.

    `key` names the file's entity where that is one; where it is, `malformed_lines` is 1 for the file.
    """

    file: str
    rows: int
    imported: int
    already: int
    malformed_lines: int
    malformed: list[Malformed]
    key: str | None


async def import_file(
    found: Scan, *, client: Client, options: RecorderOptions, clock: Clock, advanced: Callable[[int], None]
) -> ImportedFile:
    """Records what does not yet stand on the stream, and returns once all of it is projected.

    `options` lead to the servers; `advanced` is told how many more rows are done. An import that was killed goes on
    where it ended. Raises `ImportRefused` when the file changed since it was scanned, `Unreachable`, `AckTimeout`.
    """
    await wait_until_projected(client)
    published = await ProjectedWatermarks(client).ask(found.identity.publisher) if found.events else 0
    already = found.rows
    if published >= found.events:
        advanced(found.rows)
    else:
        already = await _record(found, published, options, clock, advanced)
    if found.rulings:
        ruled = await append_rulings(found, client, clock, within_s=PROJECTED_WITHIN_S)
        already -= sum(row < already for row in ruled)
    return ImportedFile(
        file=str(found.path),
        rows=found.rows,
        imported=found.rows - already,
        already=already,
        malformed_lines=found.malformed_rows,
        malformed=found.malformed,
        key=found.key,
    )


async def wait_until_projected(client: Client, *, within_s: float = PROJECTED_WITHIN_S) -> None:
    """Waits until all that stands on the stream now is in the tables. Raises `Unreachable`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    try:
        state = (await client.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(STREAM)).state
        while True:
            answer = await client.request(STATUS, b"", timeout=REQUEST_TIMEOUT_S)
            if (orjson.loads(answer.data)["seq"] or 0) >= state.last_seq:
                return
            if loop.time() > deadline:
                raise Unreachable(f"the projector is behind for {within_s:g} s: look at `relight status`")
            await asyncio.sleep(POLL_S)
    except (NatsError, NotFoundError, TimeoutError) as error:
        raise Unreachable(f"no projector answers ({error!r}): start one with `relight up`") from error


async def _record(
    found: Scan, published: int, options: RecorderOptions, clock: Clock, advanced: Callable[[int], None]
) -> int:
    """Records all rows; returns how many of them, the first ones, were published whole before."""
    identity = Identity(found.identity.format, found.identity.owner)
    options = replace(
        options,
        tenant=identity.owner.tenant,
        region=identity.owner.region,
        spools=None,
        publisher=found.identity.publisher,
        published_pseq=published,
        # Refused events would become a `recorder.gap` in the chain; the chunks keep memory bounded.
        spool_max_bytes=sys.maxsize,
        memory_max_events=sys.maxsize,
        spool_retention_s=SPOOL_RETENTION_S,
    )
    async with Recorder(options, clock=clock) as recorder:
        recording = Recording(recorder, identity, found.entries(clock), published)
        before: Receipt | None = None
        while rows := await asyncio.to_thread(recording.next_chunk):
            if before is not None:
                await before.reached(Ack.PROJECTED, timeout_s=PROJECTED_WITHIN_S)
            before = recording.receipt
            advanced(rows)
        if before is not None:
            await before.reached(Ack.PROJECTED, timeout_s=PROJECTED_WITHIN_S)
    if identity.publisher != found.identity.publisher:
        raise ImportRefused(f"{found.path} was changed while it was imported: import it again")
    return recording.already


class Recording:
    """Records rows chunk by chunk; of events up to number `published` nothing is sent again, nor is their content."""

    def __init__(self, recorder: Recorder, identity: Identity, entries: Iterator[Entry], published: int) -> None:
        self._recorder = recorder
        self._identity = identity
        self._entries = entries
        self._published = published
        self._events = 0
        self.already = 0
        """Rows whose every event was published before."""
        self.receipt: Receipt | None = None
        """Of the last event."""

    def next_chunk(self) -> int:
        """The number of rows recorded; 0 at the end."""
        rows = 0
        for rows, entry in enumerate(islice(self._entries, CHUNK_ROWS), 1):  # noqa: B007  # the last number is wanted
            self._identity.add(entry)
            self._record(entry)
            self.already += self._events <= self._published
        return rows

    def _record(self, entry: Entry) -> None:
        ids: list[str] = []
        for event_id, fact in self._identity.facts(entry):
            ids.append(event_id)
            if isinstance(fact.event, Control):
                continue
            self._events += 1
            if fact.content is not None and self._events > self._published:
                self._recorder.content(fact.content)
            cause = None if fact.cause is None else ids[fact.cause]
            with scope.entered(correlation=fact.correlation, causation=cause):
                self.receipt = self._recorder.record(fact.event, id=event_id, time=fact.time)
