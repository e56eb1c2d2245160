"""Sealed heads: per publisher an unbroken, linked chain, in whatever order events come; and the tables follow."""

import random
from pathlib import Path

import asyncpg
import stack
from archiving import Publisher, archiver, sealed_once, sealed_through
from hypothesis import given, settings
from hypothesis import strategies as st
from stack import connected, nats_server, until

from relight.engine.archive.chains import SealedChains, SealedHead
from relight.engine.archive.checkpoint import CHECKPOINTS, save_checkpoint
from relight.engine.archive.following import read_sealed
from relight.engine.archive.keys import kept_key
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.sealed import Sealed
from relight.engine.archive.store import FolderStore
from relight.engine.embedded.postgres import EmbeddedPostgres
from relight.engine.log.links import Link
from relight.engine.log.reader import Message
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.migrate import migrate
from relight.events.envelope import GENESIS

NOTHING = Message(1, 0, "", b"")


def link(pseq: int, *, publisher: str = "p", prev: str | None = None, sha256: str | None = None) -> Link:
    """Of a chain in which event n has the hash `n`, unless it is told otherwise."""
    before = prev or (GENESIS if pseq == 1 else f"{pseq - 1}")
    return Link(publisher, pseq, before, sha256 or f"{pseq}", NOTHING, None)


@given(st.permutations(range(1, 13)), st.integers(0, 12), st.randoms())
@settings(max_examples=300, deadline=None)
def test_in_any_order_and_repeated_the_head_is_what_has_come_without_a_hole(
    order: list[int], come: int, chance: random.Random
) -> None:
    chains, there = SealedChains(), set[int]()
    for pseq in [*order[:come], *chance.sample(order[:come], come // 2)]:
        chains.add([link(pseq)])
        there.add(pseq)
        head = next(n for n in range(13) if n + 1 not in there)
        assert chains.heads.get("p", SealedHead()).pseq == head
        above = sorted(n for n in there if n > head)
        assert sum(run.last_pseq - run.first_pseq + 1 for run in chains.runs.get("p", [])) == len(above)
        holes = [n for n in range(head + 1, max(above, default=head)) if n not in there]
        assert [n for _, first, last in chains.missing() for n in range(first, last + 1)] == holes
    assert chains.forks == 0


def test_a_fork_is_counted_and_the_head_goes_no_further_than_its_own_chain() -> None:
    chains = SealedChains()
    assert chains.add([link(1), link(2)]) == {"p": SealedHead(2, "2")}
    assert chains.add([link(2, sha256="other")]) == {}
    assert chains.forks == 1
    assert chains.add([link(3, prev="other", sha256="3 of other"), link(4, prev="3 of other")]) == {}
    assert (chains.forks, chains.heads["p"].pseq) == (2, 2)
    assert chains.add([link(3)]) == {"p": SealedHead(3, "3")}, "its own chain goes on"
    assert chains.holes == 1


def test_a_chain_that_was_altered_above_a_hole_is_not_joined() -> None:
    chains = SealedChains()
    chains.add([link(1), link(3, prev="another 2"), link(4)])
    assert chains.add([link(2)]) == {"p": SealedHead(2, "2")}
    assert chains.forks == 1


async def test_tables_follow_the_archive_and_catch_up_when_postgresql_comes_late(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        first, second = Publisher(client, "p-one"), Publisher(client, "p-two")
        await first.publish(120)
        await second.publish(3)
        second.made()  # numbered, and never published
        await second.publish(2)
        await sealed_once(nats, folder)  # without PostgreSQL
        session = await connect_session(database)
        assert await session.fetchval("SELECT count(*) FROM archives") == 0
        async with archiver(nats, folder, database=database) as (work, _):
            rows = await until(lambda: session.fetch("SELECT publisher, pseq, sha256 FROM sealed_heads ORDER BY 1"))
            assert tuple(rows[0]) == ("p-one", 120, first.prev)
            assert [tuple(row)[:2] for row in rows] == [("p-one", 120), ("p-two", 3)]
            await first.publish(1)
            await sealed_through(work, 126)
            assert work.seen().holes == 1
            row = await until(lambda: session.fetchrow("SELECT * FROM archives WHERE last_seq = 126"))
            assert (row["segment"], row["incarnation"], row["place"]) == (work.seen().segment, 1, str(folder))
        assert await session.fetchval("SELECT pseq FROM sealed_heads WHERE publisher = 'p-one'") == 121
        await session.close()


async def test_an_archive_that_was_cut_short_is_not_gone_on_with(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await publisher.publish(250)
        async with archiver(nats, folder, database=database) as (work, _):
            await sealed_through(work, 250)
            session = await connect_session(database)
            await until(lambda: session.fetchrow("SELECT 1 FROM archives WHERE last_seq = 250"))
        (folder / "segments/000000000003.json").unlink()
        async with archiver(nats, folder, database=database) as (work, _):
            await until(lambda: work.seen().failure, "it is noticed")
            assert "segment 3" in (work.seen().failure or "")
            assert await session.fetchval("SELECT segment FROM archives") == 3
            await session.execute("DELETE FROM archives")
            await sealed_through(work, 250)
        await session.close()


async def known(folder: Path) -> tuple[ArchiveReader, Sealed, int]:
    reader = await ArchiveReader.open(FolderStore(folder))
    return reader, *await read_sealed(reader)


async def test_a_checkpoint_says_what_reading_all_segments_says_and_a_wrong_one_is_not_believed(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        first, second = Publisher(client, "p-one"), Publisher(client, "p-two")
        await first.publish(130)
        second.made()
        await second.publish(20)
        await sealed_once(nats, folder)
        reader, read, checkpoint = await known(folder)
        assert checkpoint == 0
        await save_checkpoint(reader, kept_key(tmp_path / "key.pem"), read)
        await first.publish(10)
        await sealed_once(nats, folder)
        _, loaded, checkpoint = await known(folder)
        assert checkpoint == read.head.segment == 2
        (name,) = await reader.store.names(CHECKPOINTS)
        kept = await reader.store.read(name)
        await reader.store.replace(name, kept[:200] + bytes([kept[200] ^ 1]) + kept[201:])
        _, recomputed, checkpoint = await known(folder)
        assert checkpoint == 0
        assert (loaded.chains.heads, loaded.chains.runs) == (recomputed.chains.heads, recomputed.chains.runs)
        assert (loaded.messages, loaded.size_bytes, loaded.head) == (
            recomputed.messages,
            recomputed.size_bytes,
            recomputed.head,
        )
        await save_checkpoint(reader, kept_key(tmp_path / "another.pem"), read)
        assert (await known(folder))[2] == 0, "a stranger signed it"


async def test_a_damaged_segment_is_left_out_and_counted_and_sealing_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await publisher.publish(300)
        await sealed_once(nats, folder)
        (path,) = folder.glob("segments/000000000002-*.messages.zst")
        whole = path.read_bytes()
        path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        await publisher.publish(10)
        work = await sealed_once(nats, folder)
        assert (work.seen().unread, work.seen().sealed_seq, work.seen().holes) == ((2,), 310, 1)
        assert (await known(folder))[1].chains.heads["p-test"].pseq == 100
        path.write_bytes(whole)
        assert (await known(folder))[1].chains.heads["p-test"].pseq == 310


async def test_while_postgresql_is_away_sealing_goes_on_and_the_tables_follow_after(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    with stack.folder() as home:
        async with nats_server() as nats, connected(nats) as client, EmbeddedPostgres(home, durable=False) as postgres:
            connection = await asyncpg.connect(postgres.url)
            await migrate(connection)
            await connection.close()
            publisher = Publisher(client)
            await publisher.publish(20)
            async with archiver(nats, folder, database=postgres.url) as (work, _):
                await until(lambda: _row(postgres.url, 20), "the tables know of it")
                await postgres.stop()
                await publisher.publish(150)
                await sealed_through(work, 170)
                await until(lambda: work.seen().tables_failure)
                await postgres.start()
                row = await until(lambda: _row(postgres.url, 170), "the tables follow")
                assert tuple(row) == (170, publisher.prev)


async def _row(url: str, last_seq: int) -> asyncpg.Record | None:
    try:
        connection = await asyncpg.connect(url)
    except (OSError, asyncpg.PostgresError):
        return None
    try:
        return await connection.fetchrow(
            "SELECT pseq, sha256 FROM sealed_heads JOIN archives USING (archive) WHERE last_seq = $1", last_seq
        )
    finally:
        await connection.close()
