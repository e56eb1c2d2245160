"""What stands on the stream and in the tables at rest: every event by id, every publisher's chain by number."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import asyncpg
import orjson
from nats.js.errors import NotFoundError

from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import BEGINNING, Reader
from relight.engine.log.topology import CONTENT_BUCKET, Headers, connect
from relight.events.envelope import GENESIS
from relight.projections.base import History
from relight.projections.catalog import tables

READ_BATCH = 10_000


@dataclass
class OnStream:
    """Every event on the stream: how often by id, the numbers of each publisher in their order, and its chain."""

    ids: Counter[str] = field(default_factory=Counter)
    numbers: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    sha256: dict[tuple[str, int], str] = field(default_factory=dict)
    """Of the event of this number, by publisher and number; the first of them."""
    named: dict[tuple[str, int], str] = field(default_factory=dict)
    """Its id."""
    prev: dict[tuple[str, int], str] = field(default_factory=dict)
    forked: list[tuple[str, int]] = field(default_factory=list)
    """Numbers that stand there with other bytes, too."""
    own: set[str] = field(default_factory=set)
    """Those that recorders say of themselves."""
    last_seq: int = 0

    def add(self, body: bytes) -> None:
        document = orjson.loads(body)
        publisher, pseq, sha256 = document["publisher"], int(document["pseq"]), body_sha256(body)
        self.ids[document["id"]] += 1
        self.numbers[publisher].append(pseq)
        if self.sha256.setdefault((publisher, pseq), sha256) != sha256:
            self.forked.append((publisher, pseq))
        self.named.setdefault((publisher, pseq), document["id"])
        if document["type"].startswith("recorder."):
            self.own.add(document["id"])
        self.prev.setdefault((publisher, pseq), document["prev"])

    @property
    def doubled(self) -> list[str]:
        """Events that stand there more than once."""
        return [id for id, times in self.ids.items() if times > 1]

    @property
    def out_of_order(self) -> list[str]:
        """Publishers whose numbers are not 1, 2, 3 …"""
        return [
            publisher
            for publisher, numbers in self.numbers.items()
            if numbers[0] != 1 or any(after != before + 1 for before, after in pairwise(numbers))
        ]

    @property
    def broken_links(self) -> list[tuple[str, int]]:
        """Numbers whose `prev` is not the hash of the event before."""
        return [
            (publisher, pseq)
            for (publisher, pseq), prev in self.prev.items()
            if prev != (GENESIS if pseq == 1 else self.sha256.get((publisher, pseq - 1), "missing"))
        ]


async def on_stream(nats_url: str) -> OnStream:
    """All that stands there now."""
    found = OnStream()
    client = await connect(nats_url, name="relight drill", headers=Headers.NONE)
    try:
        async with Reader(client, BEGINNING) as reader:
            found.last_seq = (await reader.state()).last_seq
            async for messages in reader.through(found.last_seq, limit=READ_BATCH):
                for message in messages:
                    found.add(message.body)
    finally:
        await client.close()
    return found


async def stored_contents(nats_url: str) -> dict[str, str]:
    """What the content store holds, read in one go: by `<tenant>/<sha256>` the SHA-256 of the bytes that are there.

    An object store's `get` makes a consumer each time, which the server keeps for a while, and only so many.
    """
    found, chunks = dict[str, str](), defaultdict[str, list[bytes]](list)
    client = await connect(nats_url, name="relight drill")
    try:
        js = client.jetstream(timeout=10)
        try:
            messages = (await js.stream_info(f"OBJ_{CONTENT_BUCKET}")).state.messages
        except NotFoundError:
            return found
        reading = await js.subscribe(f"$O.{CONTENT_BUCKET}.>", ordered_consumer=True)
        metas = []
        for _ in range(messages):
            message = await reading.next_msg(timeout=10)
            kind, name = message.subject.split(".", 3)[2:]
            if kind == "C":
                chunks[name].append(message.data)
            else:
                metas.append(orjson.loads(message.data))
        await reading.unsubscribe()
    finally:
        await client.close()
    for meta in metas:
        if not meta.get("deleted"):
            found[meta["name"]] = body_sha256(b"".join(chunks[meta["nuid"]]))
    return found


async def history_rows(database_url: str, ids: Iterable[str]) -> Counter[str]:
    """How many rows the history tables have for each of these events."""
    histories = [table.name for table in tables() if isinstance(table, History)]
    union = " UNION ALL ".join(f"SELECT event_id FROM {name}" for name in histories)
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            f"SELECT event_id::text AS id, count(*) AS times FROM ({union}) AS h"
            " WHERE event_id = ANY($1::text[]::uuid[]) GROUP BY event_id",
            list(ids),
        )
    finally:
        await connection.close()
    return Counter({row["id"]: row["times"] for row in rows})


def differing(some: Mapping[str, object], others: Mapping[str, object]) -> list[str]:
    """Names of the tables whose digests are not equal."""
    return sorted(name for name in some.keys() | others.keys() if some.get(name) != others.get(name))
