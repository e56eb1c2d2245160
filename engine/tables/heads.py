"""What has been seen of every publisher, kept in PostgreSQL and at hand: heads, and the gaps below them."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime

from relight.engine.log.chain import PublisherHead
from relight.engine.tables.folding import Link
from relight.engine.tables.pools import Connection
from relight.events.recorder import RecorderClosed, RecorderGap, RecorderOpened

CACHED_PUBLISHERS = 50_000


class Heads:
    """The heads as of the last commit; `advance` writes new ones in the caller's transaction, `keep` adopts them."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, PublisherHead] = OrderedDict()

    async def advance(self, connection: Connection, links: Iterable[Link]) -> dict[str, PublisherHead]:
        """The heads after these links, written but not yet adopted: the transaction may still fail."""
        by_publisher: dict[str, list[Link]] = defaultdict(list)
        for link in links:
            by_publisher[link.publisher].append(link)
        await self._load(connection, [publisher for publisher in by_publisher if publisher not in self._held])
        moved = {publisher: deepcopy(self._held[publisher]) for publisher in by_publisher}
        seen_at: dict[str, datetime] = {}
        for publisher, chain in by_publisher.items():
            for link in chain:
                _take(moved[publisher], link)
            seen_at[publisher] = chain[-1].message.timestamp
        await self._write(connection, moved, seen_at)
        return moved

    def keep(self, moved: dict[str, PublisherHead]) -> None:
        """Adopts what `advance` wrote, once it is committed."""
        for publisher, head in moved.items():
            self._held[publisher] = head
            self._held.move_to_end(publisher)
        while len(self._held) > CACHED_PUBLISHERS:
            self._held.popitem(last=False)

    def forget(self) -> None:
        """What is at hand may be stale: another projector wrote."""
        self._held.clear()

    async def contiguous_pseq(self, connection: Connection, publisher: str) -> int:
        """Every number of this publisher up to it is folded or a dead letter."""
        await self._load(connection, [] if publisher in self._held else [publisher])
        return self._held[publisher].contiguous_pseq

    async def _load(self, connection: Connection, publishers: list[str]) -> None:
        if not publishers:
            return
        for publisher in publishers:
            self._held[publisher] = PublisherHead()
        rows = await connection.fetch("SELECT * FROM publisher_heads WHERE publisher = ANY($1)", publishers)
        for row in rows:
            self._held[row["publisher"]] = PublisherHead(
                highest_pseq=row["highest_pseq"],
                highest_sha256=row["highest_sha256"],
                session=row["session"],
                refused_events=row["refused_events"],
                broken_links=row["broken_links"],
            )
        gaps = await connection.fetch(
            "SELECT * FROM publisher_gaps WHERE publisher = ANY($1) ORDER BY first_pseq", publishers
        )
        for gap in gaps:
            self._held[gap["publisher"]].missing.append((gap["first_pseq"], gap["last_pseq"]))

    async def _write(
        self, connection: Connection, moved: dict[str, PublisherHead], seen_at: dict[str, datetime]
    ) -> None:
        await connection.execute(
            "INSERT INTO publisher_heads (publisher, highest_pseq, highest_sha256, contiguous_pseq, session,"
            " refused_events, broken_links, seen_at)"
            " SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],"
            " $7::bigint[], $8::timestamptz[])"
            " ON CONFLICT (publisher) DO UPDATE SET highest_pseq = excluded.highest_pseq,"
            " highest_sha256 = excluded.highest_sha256, contiguous_pseq = excluded.contiguous_pseq,"
            " session = excluded.session, refused_events = excluded.refused_events,"
            " broken_links = excluded.broken_links, seen_at = excluded.seen_at",
            list(moved),
            [head.highest_pseq for head in moved.values()],
            [head.highest_sha256 for head in moved.values()],
            [head.contiguous_pseq for head in moved.values()],
            [head.session for head in moved.values()],
            [head.refused_events for head in moved.values()],
            [head.broken_links for head in moved.values()],
            [seen_at[publisher] for publisher in moved],
        )
        changed = [publisher for publisher, head in moved.items() if head.missing != self._held[publisher].missing]
        if not changed:
            return
        gaps = [(publisher, *gap, seen_at[publisher]) for publisher in changed for gap in moved[publisher].missing]
        await connection.execute(
            "DELETE FROM publisher_gaps AS held WHERE publisher = ANY($1) AND NOT EXISTS ("
            " SELECT FROM unnest($2::text[], $3::bigint[], $4::bigint[]) AS still (publisher, first_pseq, last_pseq)"
            " WHERE still.publisher = held.publisher AND still.first_pseq = held.first_pseq"
            " AND still.last_pseq = held.last_pseq)",
            changed,
            [gap[0] for gap in gaps],
            [gap[1] for gap in gaps],
            [gap[2] for gap in gaps],
        )
        await connection.executemany(
            "INSERT INTO publisher_gaps VALUES ($1, $2, $3, $4) ON CONFLICT (publisher, first_pseq) DO NOTHING", gaps
        )


def _take(head: PublisherHead, link: Link) -> None:
    is_new = link.pseq > head.highest_pseq
    head.see(link.pseq, link.prev, link.sha256)
    if link.event is None or not is_new:
        return
    match link.event.data:
        case RecorderOpened():
            head.session = "open"
        case RecorderClosed():
            head.session = "closed"
        case RecorderGap(refused_events=refused):
            head.refused_events += refused
