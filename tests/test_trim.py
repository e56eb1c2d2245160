"""Trimming: only what is projected and sealed goes, rulings keep their tails, and nothing that rests on them breaks."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import stack
from archiving import Publisher, archived, archiver, sealed_once, sealed_through, stream_messages, without_holes
from everything import publish_everything
from nats.aio.client import Client
from rebuilt import rebuild
from stack import Projecting, connected, failed, nats_server, options, projecting, until
from test_lifecycle import servers_of

from relight.engine.app.archiving import trim_stream
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.store import FolderStore
from relight.engine.archive.timeline import sealed_messages, stretches
from relight.engine.archive.trimming import Record, StreamTrimmed, Trimming, TrimPlan
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import HistoryGone, TrimRefused
from relight.engine.log.control import Tail
from relight.engine.log.reader import Message
from relight.engine.log.trims import trimmed_through
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.service import Parts, serving
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import digest_memory, digest_postgres
from relight.engine.tables.keeping import Keeping
from relight.engine.tables.positions import load_position
from relight.engine.tables.projector import Projector, ProjectorState
from relight.engine.tables.retention import Retention, in_archive, on_stream
from relight.events.breakers import BreakerClosed, BreakerOpened
from relight.events.recorder import RecorderTrimmed

LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""Everything is older than this."""


@dataclass
class Scene:
    """A stream with every kind of event, a chain of rulings, and more; all of it projected, and sealed in `folder`."""

    nats: EmbeddedNats
    client: Client
    database: str
    folder: Path
    projected: Projecting
    recorder: Recorder
    tail: Tail

    async def open_archive(self) -> ArchiveReader:
        return await ArchiveReader.open(FolderStore(self.folder))

    async def seal(self) -> None:
        await sealed_once(self.nats, self.folder)

    async def record(self, archive: str, through_seq: int) -> None:
        said = RecorderTrimmed(archive=archive, through_seq=through_seq, decided_by="test")
        await self.recorder.record(said).reached(Ack.PROJECTED)

    async def rule(self, *, opens: bool) -> Tail:
        """The next ruling on one breaker."""
        ruling = (
            BreakerOpened(service_name="refunds", failure_count=3, next_retry_at=LATER, reason="test")
            if opens
            else BreakerClosed(service_name="refunds", reason="test")
        )
        after = self.tail
        appending = self.recorder.with_control(
            lambda log: log.append(ruling, after=after, tenant="acme", policy_version="1")
        )
        self.tail = await asyncio.wrap_future(self.recorder.in_loop(appending))
        return self.tail

    async def trim(self, *, older_than: datetime = LATER, record: Record | None = None) -> StreamTrimmed:
        session = await connect_session(self.database, role=stack.ROLE)
        try:
            trimming = Trimming(self.client, session, await self.open_archive(), older_than=older_than)
            return await trimming.run(record or self.record)
        finally:
            await session.close()

    async def plan(self, *, older_than: datetime = LATER) -> TrimPlan:
        session = await connect_session(self.database, role=stack.ROLE)
        try:
            return await Trimming(self.client, session, await self.open_archive(), older_than=older_than).plan()
        finally:
            await session.close()


async def tail_of(recorder: Recorder) -> Tail:
    looking = recorder.with_control(lambda log: log.tail(BreakerOpened, tenant="acme", entity="refunds"))
    return await asyncio.wrap_future(recorder.in_loop(looking))


@asynccontextmanager
async def scene(database: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with (
        nats_server() as nats,
        projecting(nats, database) as projected,
        Recorder(options(nats, tmp_path / "spool")) as recorder,
    ):
        await publish_everything(projected.client)
        tail = await tail_of(recorder)
        made = Scene(nats, projected.client, database, tmp_path / "archive", projected, recorder, tail)
        for n in range(5):
            await made.rule(opens=n % 2 == 0)
            await recorder.record(failed(n)).reached(Ack.PROJECTED)
        await recorder.record(failed(99)).reached(Ack.PROJECTED)
        await made.seal()
        yield made


async def test_what_is_sealed_goes_tails_stay_and_everything_goes_on(database: str, tmp_path: Path) -> None:
    async with scene(database, tmp_path) as at:
        before = await at.projected.digests_agree()
        on_it = await stream_messages(at.nats)
        done = await at.trim()
        through = done.plan.through_seq
        assert through == len(on_it) - 1
        assert done.plan.observations > 20
        left = await stream_messages(at.nats)
        tails = {m.subject: m.seq for m in on_it if m.subject.startswith("ctl.")}
        assert [m for m in left if m.seq <= through] == [m for m in on_it if m.seq in tails.values()]
        rulings = [m for m in on_it if m.subject.startswith("ctl.")]
        assert done.plan.rulings == len(rulings) - len(tails) >= 4
        assert await trimmed_through(at.client.jetstream()) == through
        [row] = await at.projected.rows("SELECT through_seq, decided_by FROM stream_trims WHERE decided_by = 'test'")
        assert row == {"through_seq": through, "decided_by": "test"}

        appended = await at.rule(opens=False)  # by compare-and-set after the tail that was read before the trim
        assert appended.rev == 6
        assert (await tail_of(at.recorder)).rev == 6
        await at.projected.caught_up()
        after = await digest_postgres(at.projected.session)
        memory = await digest_memory(at.client, open_archive=at.open_archive)
        assert memory.tables == after.tables
        assert before.rows.keys() == after.rows.keys()
        with pytest.raises(HistoryGone, match="RELIGHT_ARCHIVE"):
            await digest_memory(at.client)

        await at.seal()
        assert (await at.plan()).observations > 0, "the next trim goes on"
        again = await at.trim()
        assert again.plan.through_seq > through
        await at.nats.kill()
        await at.nats.start()
        await at.recorder.record(failed(100)).reached(Ack.PROJECTED)
        assert (await load_position(at.projected.session)).incarnation == 1, "a trim is no rewind"


async def test_rebuild_and_new_tables_take_what_was_trimmed_from_the_archive_or_refuse(
    database: str, shared_database: str, tmp_path: Path
) -> None:
    async with scene(database, tmp_path) as at:
        await at.trim()
        await at.projected.caught_up()
        live = await digest_postgres(at.projected.session)
        with pytest.raises(HistoryGone):
            await rebuild(at.client, database)
        assert (await rebuild(at.client, database, open_archive=at.open_archive)).differing == ()
        assert (await digest_postgres(at.projected.session)).tables == live.tables

        connect = lambda: connect_session(shared_database, role=stack.ROLE)  # noqa: E731
        empty = Projector(at.client, connect)
        async with working(empty):
            await until(lambda: empty.state is ProjectorState.FAILED)
            assert "RELIGHT_ARCHIVE" in (empty.failure or "")
        told = Projector(at.client, connect, open_archive=at.open_archive)
        async with working(told):
            await until(lambda: told.position is not None and told.position.seq >= live.seq, "it caught up")
            session = await connect()
            assert (await digest_postgres(session)).tables == live.tables
            await session.close()


@asynccontextmanager
async def working(projector: Projector) -> AsyncIterator[None]:
    task = asyncio.create_task(projector.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_nothing_goes_beyond_what_is_sealed_or_projected_or_old_enough(database: str, tmp_path: Path) -> None:
    async with scene(database, tmp_path) as at:
        sealed = len((await archived(at.folder))[1])
        for n in range(20):
            await at.recorder.record(failed(n)).reached(Ack.PROJECTED)
        plan = await at.plan()
        assert (plan.through_seq, plan.limited_by, plan.sealed_seq) == (sealed - 1, "sealed", sealed)
        assert (await at.plan(older_than=datetime(2020, 1, 1, tzinfo=UTC))).through_seq == 0
        middle = (await stream_messages(at.nats))[30]
        assert (await at.plan(older_than=middle.timestamp)).through_seq == 30
        at.projected.task.cancel()
        await asyncio.wait([at.projected.task])
        projected = (await load_position(at.projected.session)).seq
        for n in range(20):
            await at.recorder.record(failed(n)).reached(Ack.REPLICATED)
        await at.seal()
        plan = await at.plan()
        assert (plan.through_seq, plan.limited_by, plan.projected_seq) == (projected - 1, "projected", projected)


async def test_a_ruling_appended_meanwhile_is_untouched(database: str, tmp_path: Path) -> None:
    async with scene(database, tmp_path) as at:
        held = at.tail

        async def record(archive: str, through_seq: int) -> None:
            await at.record(archive, through_seq)
            await at.rule(opens=True)

        await at.trim(record=record)
        on_subject = [m.seq for m in await stream_messages(at.nats) if m.subject == held.subject]
        assert on_subject == [held.seq, at.tail.seq]
        assert (await at.rule(opens=False)).rev == 7


async def test_a_message_that_is_not_as_it_was_sealed_stops_the_trim_before_it_begins(
    database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats:
        async with connected(nats) as client:
            publisher = Publisher(client)
            made = [publisher.made() for _ in range(20)]
            for subject, body, _ in made:
                await client.jetstream().publish(subject, body)
            await sealed_once(nats, folder)
            await client.jetstream().delete_stream("EV")
        async with projecting(nats, database) as projected:
            for n, (subject, body, _) in enumerate(made):
                other = body.replace(b'"Timeout"', b'"timeout"') if n == 6 else body
                await projected.client.jetstream().publish(subject, other)
            await projected.caught_up()
            session = await connect_session(database, role=stack.ROLE)
            archive = await ArchiveReader.open(FolderStore(folder))

            async def record(archive: str, through_seq: int) -> None:
                raise AssertionError("nothing is to be recorded")

            with pytest.raises(TrimRefused, match="message 7 "):
                await Trimming(projected.client, session, archive, older_than=LATER).run(record)
            await session.close()
            assert len(await stream_messages(nats)) == 20


async def test_retention_takes_the_archive_for_a_place_that_holds_events(database: str, tmp_path: Path) -> None:
    async with scene(database, tmp_path) as at:
        await at.trim()
        session = await connect_session(database, role=stack.ROLE)
        keeping = Keeping(default=timedelta(days=1))
        kept = await Retention(session, [on_stream(at.client)], keeping, now=LATER).run()
        assert sum(rows.kept_nowhere_else for rows in kept.rows) > 0
        places = [on_stream(at.client), in_archive(at.open_archive)]
        gone = await Retention(session, places, keeping, now=LATER).run()
        assert sum(rows.kept_nowhere_else for rows in gone.rows) == 0
        await session.close()


async def test_a_stream_that_was_restored_whole_is_not_taken_for_trimmed(database: str, tmp_path: Path) -> None:
    async with scene(database, tmp_path) as at:
        await at.trim()
        await at.seal()
        _, sealed = await archived(at.folder)
        async with nats_server() as other, connected(other) as client:
            for message in sealed:
                await client.jetstream().publish(message.subject, message.body)
            assert await trimmed_through(client.jetstream()) == 0
            await digest_memory(client)


async def test_an_archiver_goes_on_after_a_trim_and_after_a_rewind_of_a_trimmed_stream(
    database: str, tmp_path: Path
) -> None:
    async with scene(database, tmp_path) as at:
        await at.trim()
        await at.seal()
        manifests, sealed = await archived(at.folder)
        assert {manifest.incarnation for manifest in manifests} == {1}
        assert without_holes(sealed)
        await at.nats.stop()
        copy = at.nats.folder / "copy"
        shutil.copytree(at.nats.store, copy)
        await at.nats.start()
        for n in range(5):
            await at.recorder.record(failed(n)).reached(Ack.PROJECTED)
        await at.seal()
        await asyncio.to_thread(at.recorder.stop)  # it would put back what the rewind takes, just as it stood
        await at.nats.kill()
        shutil.rmtree(at.nats.store)
        shutil.copytree(copy, at.nats.store)
        await at.nats.start()
        async with Recorder(options(at.nats, tmp_path / "another")) as another:
            await another.record(failed(7)).reached(Ack.REPLICATED)
        async with archiver(at.nats, at.folder) as (work, _):
            await until(lambda: work.seen().incarnation == 2)
            await sealed_through(work, len(sealed) + 1)
            assert work.seen().missing_messages == 0
        archive = await at.open_archive()
        found: list[Message] = []
        async for batch in sealed_messages(archive, await stretches(archive), through_seq=1 << 60):
            found += batch
        assert without_holes(found), "what was trimmed is still part of the whole"
        assert {m.seq: m for m in found}.items() >= {m.seq: m for m in await stream_messages(at.nats)}.items()


async def test_the_command_trims_with_a_service_at_work(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats:
        settings = Settings(
            home=tmp_path,
            nats_url=nats.url,
            database_url=database,
            nats_monitor_urls=(nats.monitor_url,),
            archive=str(folder),
            archive_seal_s=0.2,
        )
        async with serving(servers_of(nats, database), settings, Parts(listens=False)) as service:
            assert service.recorder is not None
            for n in range(30):
                await service.recorder.record(failed(n)).reached(Ack.PROJECTED)
            await until(lambda: folder.exists() and list(folder.glob("segments/*.json")))

            async def sealed() -> bool:
                checks = {check.key: check.observed for check in (await service.health()).checks}
                return bool(checks.get("archive:lag") == 0)

            await until(sealed)
            done = await trim_stream(
                settings,
                place=None,
                keep=timedelta(0),
                dry_run=False,
                decided_by="test",
                advanced=lambda seq, end: None,
            )
            assert isinstance(done, StreamTrimmed)
            assert done.plan.observations == done.messages > 0
            await service.recorder.record(failed(1)).reached(Ack.PROJECTED)
