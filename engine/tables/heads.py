"""What has been seen of every publisher, kept in PostgreSQL and at hand: heads, the gaps below them, and forks."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from relight.engine.log.chain import PublisherHead
from relight.engine.log.links import Link
from relight.engine.tables.connecting import Connection
from relight.engine.tables.recent import Hashes, RecentHashes
from relight.events.recorder import RecorderClosed, RecorderDrained, RecorderGap, RecorderOpened

CACHED_PUBLISHERS = 50_000


class Heads:
    """The heads as of the last commit; `advance` writes new ones in the caller's transaction, `keep` adopts them."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, PublisherHead] = OrderedDict()
        self._recent = RecentHashes()
        self._new: Hashes = {}

    async def advance(self, connection: Connection, links: Iterable[Link]) -> dict[str, PublisherHead]:
        """The heads after these links, written but not yet adopted: the transaction may still fail."""
        by_publisher: dict[str, list[Link]] = defaultdict(list)
        for link in links:
            by_publisher[link.publisher].append(link)
        await self._load(connection, [publisher for publisher in by_publisher if publisher not in self._held])
        moved = {
            publisher: replace(self._held[publisher], missing=list(self._held[publisher].missing))
            for publisher in by_publisher
        }
        seen_at: dict[str, datetime] = {}
        forks: list[Link] = []
        hashes: Hashes = {}
        for publisher, chain in by_publisher.items():
            head, seen = moved[publisher], hashes.setdefault(publisher, {})
            for link in chain:
                if link.pseq > head.highest_pseq:
                    seen[link.pseq] = link.sha256
                elif link.sha256 != (self._known(head, link, seen) or link.sha256):
                    forks.append(link)
                _take(head, link)
            seen_at[publisher] = chain[-1].message.timestamp
        for link in [link for chain in by_publisher.values() for link in chain if link.own is not None]:
            await self._drained(connection, link, moved, seen_at)
        await self._write(connection, moved, seen_at)
        await _write_forks(connection, forks)
        self._new = hashes
        return moved

    def keep(self, moved: dict[str, PublisherHead]) -> None:
        """Adopts what `advance` wrote, once it is committed."""
        for publisher, head in moved.items():
            self._held[publisher] = head
            self._held.move_to_end(publisher)
        while len(self._held) > CACHED_PUBLISHERS:
            self._held.popitem(last=False)
        self._recent.add(self._new)

    def _known(self, head: PublisherHead, link: Link, seen: dict[int, str]) -> str | None:
        """The hash of the event that had this number before, if it is at hand."""
        if link.pseq == head.highest_pseq:
            return head.highest_sha256
        found = seen.get(link.pseq) or self._recent.of(link.publisher, link.pseq)
        if found is None:
            seen[link.pseq] = link.sha256
        return found

    async def _drained(
        self, connection: Connection, link: Link, moved: dict[str, PublisherHead], seen_at: dict[str, datetime]
    ) -> None:
        """Nothing comes after the head of a spool that was drained to its end."""
        if not isinstance(link.own, RecorderDrained):
            return
        publisher = link.own.publisher
        if publisher not in moved and publisher not in self._held:
            await self._load(connection, [publisher])
        head = moved.get(publisher) or self._held[publisher]
        if head.highest_pseq == link.own.last_pseq > 0:
            moved[publisher] = replace(head, missing=list(head.missing), session="closed")
            seen_at.setdefault(publisher, link.message.timestamp)

    async def _load(self, connection: Connection, publishers: list[str]) -> None:
        if not publishers:
            return
        loaded = {publisher: PublisherHead() for publisher in publishers}
        rows = await connection.fetch("SELECT * FROM publisher_heads WHERE publisher = ANY($1)", publishers)
        for row in rows:
            loaded[row["publisher"]] = PublisherHead(
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
            loaded[gap["publisher"]].missing.append((gap["first_pseq"], gap["last_pseq"]))
        self._held.update(loaded)

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
        await self._write_gaps(connection, moved, seen_at)

    async def _write_gaps(
        self, connection: Connection, moved: dict[str, PublisherHead], seen_at: dict[str, datetime]
    ) -> None:
        """Only what changed: many numbers may be missing. What is left of a gap was noticed when the gap was."""
        opened, mended = [], []
        for publisher, head in moved.items():
            now, before = head.missing, self._held[publisher].missing
            if now != before:
                known, firsts = set(before), {first for first, _ in now}
                opened += [(publisher, *gap, seen_at[publisher]) for gap in now if gap not in known]
                mended += [(publisher, first) for first, _ in before if first not in firsts]
        if opened:
            await connection.execute(
                "INSERT INTO publisher_gaps SELECT publisher, first_pseq, last_pseq, coalesce((SELECT noticed_at"
                " FROM publisher_gaps AS wider WHERE wider.publisher = still.publisher"
                " AND still.first_pseq BETWEEN wider.first_pseq AND wider.last_pseq LIMIT 1), seen_at)"
                " FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::timestamptz[])"
                " AS still (publisher, first_pseq, last_pseq, seen_at)"
                " ON CONFLICT (publisher, first_pseq) DO UPDATE SET last_pseq = excluded.last_pseq",
                *map(list, zip(*opened, strict=True)),
            )
        if mended:
            await connection.execute(
                "DELETE FROM publisher_gaps WHERE (publisher, first_pseq) IN"
                " (SELECT * FROM unnest($1::text[], $2::bigint[]))",
                *map(list, zip(*mended, strict=True)),
            )


async def _write_forks(connection: Connection, forks: list[Link]) -> None:
    if forks:
        await connection.executemany(
            "INSERT INTO publisher_forks VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            [(link.publisher, link.pseq, link.sha256, link.message.timestamp) for link in forks],
        )


def _take(head: PublisherHead, link: Link) -> None:
    is_highest = link.pseq > head.highest_pseq
    if not head.see(link.pseq, link.prev, link.sha256) or link.own is None:
        return
    match link.own:
        case RecorderOpened() if is_highest:
            head.session = "open"
        case RecorderClosed() if is_highest:
            head.session = "closed"
        case RecorderGap(refused_events=refused):
            head.refused_events += refused
