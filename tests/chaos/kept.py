"""Whether what publishers were told holds: everything spooled is on the stream and in the tables exactly once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from ledger import Told
from publishers import TENANT
from standing import OnStream, differing, history_rows, on_stream, stored_contents

from relight.engine.log.topology import Headers, connect
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres
from relight.engine.tables.pools import PROJECTOR_ROLE

EXAMPLES = 3


@dataclass
class Kept:
    """Counts of what was compared, and everything that was not as told, by the promise it breaks."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def lacks(self, promise: str, found: Iterable[object]) -> None:
        self.broken[promise] += [str(one) for one in found]

    def add(self, other: "Kept") -> None:
        """Another scene's."""
        self.counts.update(other.counts)
        for promise, found in other.broken.items():
            self.broken[promise] += found

    def examples(self, promise: str) -> str:
        found = self.broken[promise]
        more = f" and {len(found) - EXAMPLES:,} more" if len(found) > EXAMPLES else ""
        return ", ".join(found[:EXAMPLES]) + more


SPOOLED = "told SPOOLED: on the stream, once, under its number"
REPLICATED = "told REPLICATED or PROJECTED: on the stream"
NOTHING_ELSE = "on the stream: only what was recorded, each once"
CHAINS = "chains whose numbers run 1, 2, 3 … with every hash right, none twice with other bytes"
RULINGS = "appends told won: on their subject, under their revision; one winner a revision"
SUPERSEDED = "appends told superseded: not on the stream"
CONTENTS = "contents of events told SPOOLED: in the store, byte for byte"
HISTORY = "told SPOOLED: a row in the history tables, exactly one"
HEADS = "heads in the tables: all numbers seen, no gap, fork or broken link"
DIGESTS = "tables with equal digests in PostgreSQL and in memory; no dead letter"
REFUSED = "events refused"
SERVERS = "restarts of NATS and PostgreSQL that lost nothing acknowledged"
PROMISES = (
    SPOOLED,
    REPLICATED,
    NOTHING_ELSE,
    CHAINS,
    RULINGS,
    SUPERSEDED,
    CONTENTS,
    HISTORY,
    HEADS,
    DIGESTS,
    REFUSED,
    SERVERS,
)


def judge(told: Told, stream: OnStream) -> Kept:
    """What can be seen on the stream alone."""
    kept = Kept()
    counts = kept.counts
    counts[SPOOLED] = len(told.spooled)
    kept.lacks(
        SPOOLED,
        (id for id, number in told.spooled.items() if stream.ids[id] != 1 or stream.named.get(number) != id),
    )
    counts[REPLICATED] = len(told.replicated | told.projected)
    kept.lacks(REPLICATED, (id for id in told.replicated | told.projected if not stream.ids[id]))
    counts[NOTHING_ELSE] = len(stream.ids)
    kept.lacks(NOTHING_ELSE, stream.doubled)
    kept.lacks(NOTHING_ELSE, (id for id in stream.ids if id not in told.asked and id not in stream.own))
    counts[CHAINS] = len(stream.numbers)
    kept.lacks(CHAINS, (f"{publisher} out of order" for publisher in stream.out_of_order))
    kept.lacks(CHAINS, (f"{publisher} {pseq} broken link" for publisher, pseq in stream.broken_links))
    kept.lacks(CHAINS, (f"{publisher} {pseq} forked" for publisher, pseq in stream.forked))
    counts[RULINGS] = len(told.won)
    revisions = Counter(told.won.values())
    kept.lacks(RULINGS, (f"two winners of {number}" for number, winners in revisions.items() if winners > 1))
    kept.lacks(RULINGS, (f"{id} of {number}" for id, number in told.won.items() if stream.named.get(number) != id))
    counts[SUPERSEDED] = len(told.superseded)
    kept.lacks(SUPERSEDED, (id for id in told.superseded if stream.ids[id]))
    counts[REFUSED] = len(told.refused)
    kept.lacks(REFUSED, told.refused)
    return kept


async def look(told: Told, *, nats_url: str, database_url: str) -> Kept:
    """At rest: stream, content store, tables."""
    stream = await on_stream(nats_url)
    kept = judge(told, stream)
    kept.counts["events"] = stream.last_seq
    await _contents(kept, told, nats_url)
    rows = await history_rows(database_url, told.spooled)
    kept.counts[HISTORY] = len(told.spooled)
    kept.lacks(HISTORY, (id for id in told.spooled if rows[id] != 1))
    await _heads(kept, stream, nats_url, database_url)
    await _digests(kept, nats_url, database_url)
    return kept


async def _contents(kept: Kept, told: Told, nats_url: str) -> None:
    wanted = {id: sha256 for id, sha256 in told.contents.items() if id in told.spooled}
    stored = await stored_contents(nats_url) if wanted else {}
    kept.counts[CONTENTS] = len(wanted)
    for id, sha256 in wanted.items():
        if (held := stored.get(f"{TENANT}/{sha256}")) != sha256:
            kept.lacks(CONTENTS, [f"of {id}: {sha256} is {'not there' if held is None else f'{held} there'}"])


async def _heads(kept: Kept, stream: OnStream, nats_url: str, database_url: str) -> None:
    """A process that is up says so, at rest or not: so heads may be beyond what the stream held when it was read."""
    connection = await asyncpg.connect(database_url)
    try:
        rows: Mapping[str, Any] = {r["publisher"]: r for r in await connection.fetch("SELECT * FROM publisher_heads")}
        gaps = await connection.fetch("SELECT * FROM publisher_gaps")
    finally:
        await connection.close()
    kept.counts[HEADS] = len(stream.numbers)
    kept.lacks(HEADS, (f"gap {dict(gap)}" for gap in gaps))
    now = await on_stream(nats_url)
    for publisher, numbers in stream.numbers.items():
        head, last = rows.get(publisher), max(numbers)
        if head is None or head["highest_pseq"] < last or head["broken_links"]:
            kept.lacks(HEADS, [f"{publisher}: {None if head is None else dict(head)}, {last} on the stream"])
        elif head["highest_sha256"] != now.sha256.get((publisher, head["highest_pseq"])):
            kept.lacks(HEADS, [f"{publisher}: {head['highest_pseq']} is not on the stream with that hash"])


async def _digests(kept: Kept, nats_url: str, database_url: str) -> None:
    client = await connect(nats_url, name="relight chaos", headers=Headers.NONE)
    session = await connect_session(database_url, role=PROJECTOR_ROLE)
    try:
        memory, postgres = await digest_memory(client), await digest_postgres(session)
    finally:
        await session.close(timeout=2)
        await client.close()
    kept.counts[DIGESTS] = len(memory.tables)
    kept.lacks(DIGESTS, differing(postgres.tables, memory.tables))
    if postgres.deadletters:
        kept.lacks(DIGESTS, [f"{postgres.deadletters} dead letters"])
