"""What must hold at rest, whatever happened before: nothing lost, nothing doubled, both stores alike."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import asyncpg
import orjson
from scene import Scene
from traffic import IN_HISTORY
from verdict import Report

from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.log.topology import Headers, connect
from relight.projections.base import History
from relight.projections.catalog import tables

READ_BATCH = 10_000


@dataclass
class OnStream:
    """Every event that stands on the stream: how often by id, and the numbers of each publisher in their order."""

    ids: Counter[str] = field(default_factory=Counter)
    numbers: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def out_of_order(self) -> list[str]:
        """Publishers whose numbers are not 1, 2, 3 …"""
        return [
            publisher
            for publisher, numbers in self.numbers.items()
            if numbers[0] != 1 or any(after != before + 1 for before, after in pairwise(numbers))
        ]


async def check(scene: Scene, report: Report, phase: str) -> None:
    """At rest: `Scene.at_rest` was awaited."""
    stream = await _on_stream(scene)
    published = [line.split() for line in scene.ids.read_text().splitlines()]
    ids = [id for id, _ in published]
    lost = [id for id in ids if not stream.ids[id]]
    doubled = [id for id, times in stream.ids.items() if times > 1]
    report.promise(
        phase,
        "published events on the stream, each once",
        f"{len(ids) - len(lost):,} of {len(ids):,}, {len(doubled):,} doubled",
        asked="all",
        kept=not lost and not doubled,
        detail=f"lost {lost[:3]}, doubled {doubled[:3]}",
    )
    report.promise(
        phase,
        "publishers whose numbers run without a hole",
        f"{len(stream.numbers) - len(stream.out_of_order)} of {len(stream.numbers)}",
        asked="all",
        kept=not stream.out_of_order,
        detail=str(stream.out_of_order[:3]),
    )
    wanted = [id for id, type in published if type.startswith(IN_HISTORY)]
    rows = await _history_rows(scene, wanted)
    report.promise(
        phase,
        "published events in the history tables, each once",
        f"{len(rows):,} of {len(wanted):,}, {rows.total() - len(rows):,} doubled",
        asked="all",
        kept=len(rows) == len(wanted) == rows.total(),
        detail=str([id for id in wanted if id not in rows][:3]),
    )
    await _compare_digests(scene, report, phase)


async def _compare_digests(scene: Scene, report: Report, phase: str) -> None:
    live = await scene.fleet.command("digest")
    memory = await scene.fleet.command("digest", "--store", "memory")
    of_live, of_memory = live["tables"], memory["tables"]
    assert isinstance(of_live, dict)
    assert isinstance(of_memory, dict)
    differing = sorted(name for name in of_memory if of_live.get(name) != of_memory[name])
    report.promise(
        phase,
        "tables whose digests are equal, live and folded anew from the stream",
        f"{len(of_memory) - len(differing)} of {len(of_memory)}",
        asked="all",
        kept=not differing and live["seq"] == memory["seq"],
        detail=f"{differing}, at {live['seq']} and {memory['seq']}",
    )
    report.promise(
        phase, "dead letters", str(live["deadletters"]), asked="0", kept=live["deadletters"] == 0, detail="see above"
    )


async def _on_stream(scene: Scene) -> OnStream:
    found = OnStream()
    client = await connect(scene.nats.url, name="relight drill", headers=Headers.NONE)
    try:
        async with Reader(client, BEGINNING) as reader:
            end = (await reader.state()).last_seq
            async for messages in reader.through(end, limit=READ_BATCH):
                for message in messages:
                    body = orjson.loads(message.body)
                    found.ids[body["id"]] += 1
                    found.numbers[body["publisher"]].append(int(body["pseq"]))
    finally:
        await client.close()
    return found


async def _history_rows(scene: Scene, ids: list[str]) -> Counter[str]:
    """How many rows the history tables have for each of these events."""
    histories = [table.name for table in tables() if isinstance(table, History)]
    union = " UNION ALL ".join(f"SELECT event_id FROM {name}" for name in histories)
    connection = await asyncpg.connect(scene.postgres.url)
    try:
        rows = await connection.fetch(
            f"SELECT event_id::text AS id, count(*) AS times FROM ({union}) AS h"
            " WHERE event_id = ANY($1::text[]::uuid[]) GROUP BY event_id",
            ids,
        )
    finally:
        await connection.close()
    return Counter({row["id"]: row["times"] for row in rows})
