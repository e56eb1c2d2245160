"""Importing a file: the same rows give the same events, bytes and publisher, so that importing again adds nothing."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from pydantic import BaseModel

from relight.engine.clock import Clock
from relight.engine.errors import ImportRefused, Unreachable
from relight.engine.importers.identity import Format, Identity, Malformed, Owner
from relight.engine.log.receipts import Ack, Receipt
from relight.engine.log.recorder import Recorder, RecorderOptions
from relight.engine.log.topology import REQUEST_TIMEOUT_S, STREAM
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.service import STATUS

CHUNK_ROWS = 2_000
"""Recorded at a time; the one before has to be projected by then, so that memory stays bounded."""
PROJECTED_WITHIN_S = 120.0
SPOOL_RETENTION_S = 0.2
"""A source that can be read again is not kept for healing."""
POLL_S = 0.05
MAX_LISTED = 1_000
"""Malformed lines listed of a file; all of them are counted."""


class ImportedFile(BaseModel):
    """What became of a file: of its `rows`, `already` stood on the stream before and `imported` came now."""

    file: str
    rows: int
    imported: int
    already: int
    malformed_lines: int
    malformed: list[Malformed]


@dataclass(kw_only=True)
class Scan:
    """What the first reading of a file found."""

    path: Path
    identity: Identity
    rows: int = 0
    events: int = 0
    malformed_lines: int = 0
    malformed: list[Malformed] = field(default_factory=list)


def scan(path: Path, format: Format, owner: Owner, *, clock: Clock) -> Scan:
    """Reads the file once and records nothing. Raises `ImportRefused`."""
    found = Scan(path=path, identity=Identity(format, owner))
    for entry in format.read(path, clock.now()):
        if isinstance(entry, Malformed):
            found.malformed_lines += 1
            if len(found.malformed) < MAX_LISTED:
                found.malformed.append(entry)
        else:
            found.rows += 1
            found.events += len(entry.events(""))
            found.identity.add(entry)
    return found


async def import_file(
    found: Scan, *, client: Client, options: RecorderOptions, clock: Clock, advanced: Callable[[int], None]
) -> ImportedFile:
    """Records what does not yet stand on the stream, and returns once all of it is projected.

    `options` lead to the servers; `advanced` is told how many more rows are done. An import that was killed goes on
    where it ended. Raises `ImportRefused` when the file changed since it was scanned, `Unreachable`, `AckTimeout`.
    """
    await wait_until_projected(client)
    publisher = found.identity.publisher
    published = await ProjectedWatermarks(client).ask(publisher) if found.events else 0
    already = found.rows
    if published >= found.events:
        advanced(found.rows)
    else:
        options = replace(
            options,
            tenant=found.identity.owner.tenant,
            region=found.identity.owner.region,
            spools=None,
            publisher=publisher,
            published_pseq=published,
            # Refused events would become a `recorder.gap` in the chain; the chunks keep memory bounded.
            spool_max_bytes=sys.maxsize,
            memory_max_events=sys.maxsize,
            spool_retention_s=SPOOL_RETENTION_S,
        )
        async with Recorder(options, clock=clock) as recorder:
            already = await _record(found, recorder, published, clock, advanced)
    return ImportedFile(
        file=str(found.path),
        rows=found.rows,
        imported=found.rows - already,
        already=already,
        malformed_lines=found.malformed_lines,
        malformed=found.malformed,
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
    found: Scan, recorder: Recorder, published: int, clock: Clock, advanced: Callable[[int], None]
) -> int:
    """Records all rows; returns how many of them were published whole before."""
    identity = Identity(found.identity.format, found.identity.owner)
    entries = (e for e in identity.format.read(found.path, clock.now()) if not isinstance(e, Malformed))
    events = already = 0
    before: Receipt | None = None

    def record_chunk() -> tuple[int, Receipt | None]:
        nonlocal events, already
        rows, receipt = 0, None
        for rows, entry in enumerate(islice(entries, CHUNK_ROWS), 1):  # noqa: B007  # the last number is wanted
            identity.add(entry)
            for event_id, event in identity.events(entry):
                receipt = recorder.record(event, id=event_id, time=entry.time)
                events += 1
            already += events <= published
        return rows, receipt

    while True:
        rows, receipt = await asyncio.to_thread(record_chunk)
        if before is not None:
            await before.reached(Ack.PROJECTED, timeout_s=PROJECTED_WITHIN_S)
        advanced(rows)
        if receipt is None:
            break
        before = receipt
    if identity.publisher != found.identity.publisher:
        raise ImportRefused(f"{found.path} was changed while it was imported: import it again")
    return already
