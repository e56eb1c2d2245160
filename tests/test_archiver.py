"""The archiver: all that is published is sealed as it stands on the stream, whatever ends, goes away or comes twice."""

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from archiving import Publisher, archived, archiver, sealed_once, sealed_through, stream_messages, without_holes
from observing import found, probing
from stack import connected, nats_server, until

from relight.engine.archive import standby
from relight.engine.archive.contents import Kept
from relight.engine.archive.hand import SealLimits
from relight.engine.archive.look import ArchiverState
from relight.engine.errors import ArchiveUnreachable
from relight.engine.health.models import CheckStatus
from relight.engine.log.reader import Message

SEED = 20_261_124
KILLS = 5


async def test_what_is_published_is_sealed_byte_for_byte(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await publisher.publish(230)
        async with archiver(nats, folder) as (work, _):
            await sealed_through(work, 230)
            await publisher.publish(40)
            await sealed_through(work, 270)
            await publisher.publish(5)
        manifests, messages = await archived(folder)
        assert messages == await stream_messages(nats)
        assert len(messages) == 275, "what was in hand was sealed when it was stopped"
        assert without_holes(messages)
        assert all(message.message_id for message in messages)
        assert [manifest.messages for manifest in manifests][:2] == [100, 100]
        assert work.seen().missing_messages == 0


async def test_once_seals_what_is_there_and_ends_and_the_next_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        assert (await sealed_once(nats, folder)).seen().segment == 0
        await publisher.publish(30)
        assert (await sealed_once(nats, folder)).seen().sealed_seq == 30
        await publisher.publish(30)
        work = await sealed_once(nats, folder, limits=SealLimits(events=25))
        _, messages = await archived(folder)
        assert messages == await stream_messages(nats)
        assert (work.seen().segment, work.seen().sealed_seq, work.seen().messages) == (3, 60, 60)


async def test_killed_again_and_again_it_leaves_neither_hole_nor_doublet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, folder = random.Random(SEED), tmp_path / "archive"
    async with nats_server(sync_always=False) as nats, connected(nats) as client:
        publisher = Publisher(client)
        await publisher.publish(20)
        await sealed_once(nats, folder)
        killed_at = []
        for kill in range(KILLS):
            child = subprocess.Popen([sys.executable, Path(__file__).with_name("archiving_child.py"), nats.url, folder])
            try:
                await publisher.publish(80)
                goal = 20 + 80 * kill + chance.randrange(80)
                await until(lambda seq=goal: _sealed_seq(folder) >= seq)
                await asyncio.sleep(chance.uniform(0, 0.01))
            finally:
                child.kill()
                await asyncio.to_thread(child.wait)
            killed_at.append(_sealed_seq(folder))
            _, messages = await archived(folder)
            assert without_holes(messages)
        with capsys.disabled():
            print(f"\n  seed {SEED}: killed when sealed through {killed_at} of {20 + 80 * KILLS}")
        (folder / f"segments/000000000001-{16 * '0'}.messages.zst").write_bytes(b"left by one that was killed")
        for _ in range(2):  # what the last kill left can be told apart only once its number is sealed
            await sealed_once(nats, folder)
        _, messages = await archived(folder)
        assert messages == await stream_messages(nats)
        assert len(list(folder.glob("segments/*.zst"))) == 2 * len(list(folder.glob("segments/*.json")))


def _sealed_seq(folder: Path) -> int:
    """By the last manifest there, read as it lies."""
    names = sorted(folder.glob("segments/*.json"))
    return int(orjson.loads(names[-1].read_bytes().partition(b"\n")[0])["last_seq"]) if names else 0


@pytest.mark.parametrize("with_postgresql", [False, True])
async def test_of_two_archivers_one_seals_and_the_other_takes_over(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_postgresql: bool
) -> None:
    monkeypatch.setattr(standby, "TAKES_OVER_S", 1.0)
    monkeypatch.setattr(standby, "LOOK_EVERY_S", 0.05)
    folder, url = tmp_path / "archive", database if with_postgresql else None
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await publisher.publish(50)
        async with (
            archiver(nats, folder, database=url) as one,
            archiver(nats, folder, database=url) as two,
        ):
            await publisher.publish(300)
            both = [one, two]
            await until(lambda: all(work.seen().sealed_seq == 350 for work, _ in both), "both know of all segments")
            await until(lambda: [work.seen().state for work, _ in both].count(ArchiverState.STANDBY) == 1)
            both.sort(key=lambda work: work[0].seen().state is ArchiverState.STANDBY)
            (at_work, task), (stands_by, _) = both
            at_work.stop()
            await asyncio.wait([task])
            await publisher.publish(60)
            await sealed_through(stands_by, 410)
        _, messages = await archived(folder)
        assert messages == await stream_messages(nats)
        assert without_holes(messages)


async def test_a_stream_that_was_put_back_is_sealed_anew_from_where_it_still_agrees(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server(sync_always=False) as nats:
        async with connected(nats) as client:
            await Publisher(client, "p-before").publish(250)
        await nats.stop()
        copy = nats.folder / "copy"
        shutil.copytree(nats.store, copy)
        await nats.start()
        async with connected(nats) as client:
            await Publisher(client, "p-lost").publish(120)
            async with archiver(nats, folder) as (work, _):
                await sealed_through(work, 370)
                await nats.kill()
                shutil.rmtree(nats.store)
                shutil.copytree(copy, nats.store)
                await nats.start()
                await until(lambda: client.is_connected)
                await Publisher(client, "p-after").publish(30)
                await until(lambda: work.seen().incarnation == 2, "the rewind is noticed")
                await sealed_through(work, 280)
        manifests, messages = await archived(folder)
        again = [manifest for manifest in manifests if manifest.incarnation == 2]
        assert again[0].first_seq == 201, "from the latest segment that still stands"
        before = [m for m in messages if m.seq <= 200][:200]
        anew = messages[sum(m.messages for m in manifests if m.incarnation == 1) :]
        assert before + anew == await stream_messages(nats)
        assert work.seen().missing_messages == 0
        sealed = await sealed_once(nats, folder)
        assert (sealed.seen().incarnation, sealed.seen().segment) == (2, len(manifests)), "a restart is no rewind"


async def test_nats_away_is_waited_for_and_what_is_in_hand_is_sealed_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        publisher = Publisher(client)
        await publisher.publish(30)
        async with archiver(nats, folder, limits=SealLimits(events=100, seal_s=1)) as (work, _):
            await until(lambda: work.seen().in_hand == 30)
            await nats.kill()
            await sealed_through(work, 30)
            await nats.start()
            await until(lambda: client.is_connected)
            await publisher.publish(30)
            await sealed_through(work, 60)
        assert (await archived(folder))[1] == await stream_messages(nats)


async def test_while_the_archives_place_is_away_it_waits_and_says_since_when(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client, probing(nats, database, client=client) as probe:
        publisher = Publisher(client)
        async with archiver(nats, folder) as (work, _):
            probe.archiver = work.seen
            await publisher.publish(120)
            await sealed_through(work, 120)
            (folder / "segments").rename(folder / "away")
            (folder / "segments").write_text("a file where the folder was")
            await publisher.publish(250)
            await until(lambda: work.seen().state is ArchiverState.FAILED)
            assert work.seen().in_hand == 100, "no more than one segment is held"
            health = await probe.check()
            check = found(health, "archive:state")
            assert (check.status, health.figures.last_seq) == (CheckStatus.WARN, 370)
            assert "250 events" in (check.output or "")
            assert found(health, "archive:lag").observed == 250
            assert isinstance(seconds := found(health, "archive:lagTime").observed, float)
            assert seconds >= 0
            (folder / "segments").unlink()
            (folder / "away").rename(folder / "segments")
            await sealed_through(work, 370)
            await asyncio.sleep(0.3)  # the last look is no longer fresh
            health = await probe.check()
            assert found(health, "archive:state").observed == "live"
            assert all(check.status is CheckStatus.PASS for check in health.checks if check.component == "archive")
        assert (await archived(folder))[1] == await stream_messages(nats)


async def test_what_went_from_the_stream_before_it_was_sealed_is_said(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client, probing(nats, database, client=client) as probe:
        publisher = Publisher(client)
        await publisher.publish(100)
        await sealed_once(nats, folder)
        await publisher.publish(100)
        await client.jetstream().purge_stream("EV", seq=151)
        work = await sealed_once(nats, folder)
        assert work.missing == [(101, 150)]
        assert work.seen().holes == 1
        again = await sealed_once(nats, folder)
        assert (again.missing, again.seen().missing_messages) == ([], 50)
        probe.archiver = again.seen
        check = found(await probe.check(), "archive:missingMessages")
        assert (check.status, check.observed) == (CheckStatus.WARN, 50)
        assert "101-150" in (check.output or "")


async def test_what_messages_refer_to_is_kept_before_they_are_sealed(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    async with nats_server() as nats, connected(nats) as client:
        await Publisher(client).publish(250)
        kept: list[int] = []

        async def keep(messages: Sequence[Message]) -> Kept:
            if not kept:
                kept.append(0)
                raise ArchiveUnreachable("the first time it is away")
            assert not list(folder.glob(f"segments/{len(kept):012d}.json"))
            kept.append(len(messages))
            return Kept(copied=1)

        async with archiver(nats, folder, keep=keep) as (work, _):
            await sealed_through(work, 250)
        assert kept == [0, 100, 100, 50]
        assert work.seen().contents == 3
