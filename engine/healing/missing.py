"""Which numbers are used and do not stand on the stream."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client

from relight.engine.log.links import link_of
from relight.engine.log.numbers import Missing, Numbers, without
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.tables.connecting import Connection

READ_BATCH = 5_000


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


async def find_missing(client: Client, connection: Connection) -> tuple[dict[str, Numbers], int]:
    """By publisher, and the sequence up to which the stream was read. What was declared lost is not missing."""
    heads = await connection.fetch("SELECT publisher, highest_pseq FROM publisher_heads")
    declared, trimmed = await declared_losses(connection), await _trimmed(connection)
    there = await standing(client)
    used = {publisher: numbers.highest for publisher, numbers in there.numbers.items()}
    for publisher, highest in heads:
        used[publisher] = max(highest, used.get(publisher, 0))
    missing = {}
    for publisher, highest in used.items():
        stands = there.numbers.get(publisher, Numbers())
        sealed = min(trimmed.get(publisher, 0), next((first for first, _ in stands), highest + 1) - 1)
        if numbers := Numbers([(sealed + 1, highest)] if sealed < highest else []).minus(stands):
            missing[publisher] = numbers
    return without(missing, declared), there.end_seq


async def gaps(connection: Connection) -> dict[str, Numbers]:
    """What the projector saw later ones of."""
    return _by_publisher(await connection.fetch("SELECT publisher, first_pseq, last_pseq FROM publisher_gaps"))


async def declared_losses(connection: Connection) -> Missing:
    return _by_publisher(await connection.fetch("SELECT publisher, first_pseq, last_pseq FROM recorded_losses"))


async def _trimmed(connection: Connection) -> dict[str, int]:
    """Up to which number of a publisher's a trim may have taken them, where there was one."""
    rows = await connection.fetch(
        "SELECT publisher, max(pseq) FROM sealed_heads WHERE EXISTS (SELECT FROM stream_trims) GROUP BY publisher"
    )
    return {row[0]: row[1] for row in rows}


def _by_publisher(rows: Iterable[Iterable[Any]]) -> dict[str, Numbers]:
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for publisher, first, last in rows:
        found[publisher].append((first, last))
    return {publisher: Numbers(runs) for publisher, runs in found.items()}
