"""Which numbers do not stand on the stream, and which have come since."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.store import ArchiveStore
from relight.engine.audit.auditing import audit
from relight.engine.errors import ArchiveError
from relight.engine.log.links import link_of
from relight.engine.log.numbers import Missing, Numbers
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.tables.connecting import Connection

READ_BATCH = 5_000

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Standing:
    """Numbers that stand on the stream between two sequences, up to `end_seq`."""

    end_seq: int = 0
    numbers: dict[str, Numbers] = field(default_factory=lambda: defaultdict(Numbers))


async def standing(client: Client, *, after_seq: int = 0) -> Standing:
    """Reads the stream from there to its end now. Raises a `nats.errors.Error` or `TimeoutError`."""
    found = Standing()
    async with Reader(client, BEGINNING) as reader:
        found.end_seq = (await reader.state()).last_seq
        reader.begin_after(after_seq)
        async for messages in reader.through(found.end_seq, limit=READ_BATCH):
            for message in messages:
                if (link := link_of(message)) is not None:
                    found.numbers[link.publisher].add(link.pseq)
    return found


async def find_missing(
    client: Client, connection: Connection, store: ArchiveStore | None
) -> tuple[dict[str, Numbers], int]:
    """An audit: the numbers whose right bytes do not stand, and the sequence up to which the stream was read.

    What was declared lost, or trimmed, is not among them. An archive may know of what no table has seen. `client`
    reads message ids. Raises what `audit` raises.
    """
    found = await audit(
        client,
        connection,
        now=await connection.fetchval("SELECT clock_timestamp()"),
        archive=None if store is None else await _reader(store),
    )
    harmed = {publisher: Numbers(runs) for publisher, runs in found.harmed.items()}
    return harmed, found.checked.last_seq


async def _reader(store: ArchiveStore) -> ArchiveReader | None:
    try:
        return await ArchiveReader.open_damaged(store)
    except ArchiveError as error:
        log.error("looking the stream through without the archive: %s", error, extra={"action": "archive_unread"})
        return None


async def gaps(connection: Connection) -> dict[str, Numbers]:
    """What the projector saw later ones of."""
    return _by_publisher(await connection.fetch("SELECT publisher, first_pseq, last_pseq FROM publisher_gaps"))


async def declared_losses(connection: Connection) -> Missing:
    return _by_publisher(await connection.fetch("SELECT publisher, first_pseq, last_pseq FROM recorded_losses"))


def _by_publisher(rows: Iterable[Iterable[Any]]) -> dict[str, Numbers]:
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for publisher, first, last in rows:
        found[publisher].append((first, last))
    return {publisher: Numbers(runs) for publisher, runs in found.items()}
