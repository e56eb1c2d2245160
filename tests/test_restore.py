"""Restoring: stream, contents and tables come back from an archive alone, as they were, however often it is begun."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stack
from archived import read_stream, same, seal_all
from everything import publish_everything
from folding import event_id
from stack import NOW, connected, drained, encoded, failed, nats_server, on_stream, projecting, until

from relight.engine.app.connections import ready_servers
from relight.engine.app.restoring import Restored, restore
from relight.engine.archive.closed_stream import ClosedStream
from relight.engine.archive.contents import ContentKeeper
from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.reel import Reel
from relight.engine.archive.reel_survey import survey
from relight.engine.archive.restoring import Fate, restore_stream
from relight.engine.archive.seen_contents import SeenContents
from relight.engine.archive.store import FolderStore
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import ContentErased, RestoreRefused
from relight.engine.log.chain import body_sha256
from relight.engine.log.content import fetch_content
from relight.engine.log.content_store import ContentStore
from relight.engine.log.reader import Message
from relight.engine.log.topology import RESTORING, close, connect
from relight.engine.options import recorder_options
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.engine.tables.digest import Digest, digest_memory, digest_postgres
from relight.engine.tables.positions import load_position
from relight.events.breakers import BreakerOpened
from relight.events.decisions import DecisionTaken
from relight.events.envelope import GENESIS
from relight.events.recorder import RecorderErased

TENANTS = ("acme", "-", "a.*>%")
COMMAND = [sys.executable, "-c", "from relight.engine.cli.main import main; main()", "restore"]


def nobody(stage: str, done: int, total: int | None) -> None:
    """Is told of progress."""


def chain(count: int, *, publisher: str = "p-test", first_seq: int = 1) -> list[Message]:
    prev, found = GENESIS, []
    for n in range(1, count + 1):
        subject, body = encoded(failed(n), id=event_id(n, n), time=NOW, pseq=n, prev=prev, publisher=publisher)
        found.append(Message(first_seq + n - 1, 0, subject, body, f"{publisher}-{n}"))
        prev = body_sha256(body)
    return found


def rulings(first: int, last: int, *, prev: str = GENESIS, fork: str = "") -> list[tuple[str, bytes, str]]:
    """Subject, body and SHA-256 of each."""
    found = []
    for rev in range(first, last + 1):
        event = BreakerOpened(service_name="api", failure_count=rev, next_retry_at=NOW, reason=fork)
        subject, body = encoded(event, id=event_id(rev, rev + 1_000 * len(fork)), time=NOW, prev=prev, rev=rev)
        prev = body_sha256(body)
        found.append((subject, body, prev))
    return found


async def back(nats: EmbeddedNats, folder: Path) -> tuple[Reel, dict[Fate, int]]:
    """Restores the stream alone, and opens it."""
    async with asyncio.timeout(60):
        client = await connect(nats.url, name="restore")
        try:
            reader = await ArchiveReader.open_damaged(FolderStore(folder))
            reel, counts = Reel(reader, await survey(reader)), dict.fromkeys(Fate, 0)

            def count(fate: Fate, messages: int) -> None:
                counts[fate] += messages

            stream = ClosedStream(client, reader.root.archive)
            await restore_stream(reel, stream, SeenContents(), count)
            await stream.open()
        finally:
            await close(client)
    return reel, counts


async def test_all_comes_back_when_the_data_of_nats_and_postgres_is_gone(tmp_path: Path) -> None:
    """Rulings, dead letters, contents, several tenants: before the loss, after it, and in memory the same."""
    with stack.folder() as home:
        settings = Settings(home=home, region="eu", tenant="acme")
        async with ready_servers(settings) as (servers, service):
            assert service is not None
            client = await connect(servers.nats_url, name="test")
            await publish_everything(client, tenants=TENANTS)
            for body in (b"no event", b'{"specversion": "1.0"}'):
                await client.jetstream().publish("ev.eu.breakers.acme.failed", body)
            with Recorder(recorder_options(servers, settings)) as recorder:
                held = [recorder.content(os.urandom(2_000)) for _ in range(50)]
                gone = recorder.content(b"erased")
                for content in [*held, gone]:
                    recorder.record(DecisionTaken(decision=content.sha256, decision_type="t", request=content))
                recorder.record(
                    RecorderErased(
                        erasure="e-1", of_tenant="acme", scope="s", contents=(gone.sha256,), decided_by="d", reason="r"
                    )
                )
                await drained(recorder)
            await ContentStore(client).erase("acme", gone.sha256, "e-1")
            before = await _digest(servers.database_url, client)
            messages = await read_stream(servers.nats_url)
            store, _ = await seal_all(tmp_path / "archive", messages, size=50)
            assert len((await ContentKeeper(client.jetstream(), store).keep(messages)).missing) > 0, "of the payloads"
            await close(client)
        shutil.rmtree(home / "nats")
        shutil.rmtree(home / "postgres")

        rehearsed = await restore(
            settings, str(tmp_path / "archive"), replicas=1, strict=False, dry_run=True, advanced=nobody
        )
        assert (rehearsed.restored, rehearsed.findings, rehearsed.digest) == (len(messages), (), None)
        assert not (home / "nats").exists()
        found = await restore(
            settings, str(tmp_path / "archive"), replicas=1, strict=True, dry_run=False, advanced=nobody
        )
        assert (found.restored, found.already, found.copied, found.findings) == (len(messages), 0, 0, ())
        assert (found.contents.restored, found.contents.erased, found.contents.damaged) == (50, 2, ())
        assert found.missing_contents == rehearsed.missing_contents
        assert found.digest is not None
        assert found.digest.tables == before.tables
        assert (found.digest.position, found.digest.deadletters) == (before.position, before.deadletters)
        assert before.deadletters > 0
        again = await restore(
            settings, str(tmp_path / "archive"), replicas=1, strict=False, dry_run=False, advanced=nobody
        )
        assert (again.restored, again.already, again.contents.already) == (0, len(messages), 50)
        assert again.digest is not None
        assert again.digest.tables == before.tables

        async with ready_servers(settings) as (servers, service):
            client = await connect(servers.nats_url, name="test")
            there = await read_stream(servers.nats_url)
            assert same(there[: len(messages)], messages)
            config = (await client.jetstream().stream_info("EV")).config
            assert (config.deny_delete, config.duplicate_window, config.subjects) == (True, 120, ["ev.>", "ctl.>"])
            for content in held:
                assert len(await fetch_content(client.jetstream(), "acme", content)) == 2_000
            with pytest.raises(ContentErased, match="e-1"):
                await fetch_content(client.jetstream(), "acme", gone)
            await client.jetstream().publish(*encoded(failed(1), id=event_id(1), time=NOW, publisher="later"))
            await close(client)
        with pytest.raises(RestoreRefused, match="which the archive does not have there"):
            await restore(settings, str(tmp_path / "archive"), replicas=1, strict=False, dry_run=False, advanced=nobody)


async def _digest(database: str, client: Any) -> Digest:
    """Of the live tables once all is folded; memory's is the same."""
    memory = await digest_memory(client)
    session = await connect_session(database, role=stack.ROLE)
    try:

        async def caught_up() -> bool:
            return (await load_position(session)).seq >= memory.seq

        await until(caught_up)
        live = await digest_postgres(session)
    finally:
        await session.close()
    assert live.tables == memory.tables
    return live


async def test_sequences_come_back_with_their_holes_and_a_database_that_survived_goes_on(
    tmp_path: Path, database: str
) -> None:
    archived = [message for message in chain(1_500, first_seq=101) if not 400 < message.seq < 420 and message.seq % 97]
    await seal_all(tmp_path / "archive", archived)
    async with nats_server(sync_always=False) as nats:
        _, counts = await back(nats, tmp_path / "archive")
        assert counts == {Fate.RESTORED: len(archived), Fate.ALREADY: 0, Fate.COPIED: 0}
        assert same(await read_stream(nats.url), archived)
        async with projecting(nats, database) as projected:
            await projected.caught_up()
            position, digest = await load_position(projected.session), await projected.digests_agree()
        await nats.stop()
        shutil.rmtree(nats.store)
        await nats.start()
        await back(nats, tmp_path / "archive")
        async with projecting(nats, database) as projected, connected(nats) as client:
            await client.jetstream().publish(*encoded(failed(9_999), id=event_id(9_999), time=NOW, publisher="other"))
            await projected.caught_up()
            now = await load_position(projected.session)
            assert (now.incarnation, now.seq) == (position.incarnation, position.seq + 1)
            assert (await projected.digests_agree()).rows != digest.rows


async def test_the_same_message_id_twice_in_the_archive_is_twice_on_the_stream(tmp_path: Path) -> None:
    archived = chain(50)
    twice = [*archived, *(Message(m.seq + 50, 0, m.subject, m.body, m.message_id) for m in archived[40:])]
    twice = [Message(n, 0, m.subject, m.body, m.message_id) for n, m in enumerate(twice, 1)]
    await seal_all(tmp_path / "archive", twice)
    async with nats_server(sync_always=False) as nats:
        await back(nats, tmp_path / "archive")
        assert same(await read_stream(nats.url), twice)


async def test_nobody_else_reads_or_writes_while_it_is_restored(tmp_path: Path, database: str, spools: Path) -> None:
    """Recorders keep their events, and a projector that is ahead of what is there takes it for no rewind."""
    archived = chain(900)
    await seal_all(tmp_path / "archive", archived)
    async with nats_server() as nats:
        await back(nats, tmp_path / "archive")
        async with projecting(nats, database) as projected:
            await projected.caught_up()
            await nats.stop()
            shutil.rmtree(nats.store)
            await nats.start()
            client = await connect(nats.url, name="test")
            reader = await ArchiveReader.open(FolderStore(tmp_path / "archive"))
            stream = ClosedStream(client, reader.root.archive)
            await restore_stream(Reel(reader, await survey(reader)), stream, SeenContents(), lambda fate, n: None)
            with Recorder(stack.options(nats, spools)) as recorder:
                receipt = recorder.record(failed(1_000))
                await until(lambda: recorder.health().failure is not None, "the recorder cannot publish")
                assert (await client.jetstream().stream_info("EV")).state.last_seq == 900
                assert (await load_position(projected.session)).incarnation == 1
                await stream.open()
                await close(client)
                await drained(recorder)
                assert receipt.pseq is not None
            await projected.caught_up()
            assert same((await read_stream(nats.url))[:900], archived)
            assert (await load_position(projected.session)).incarnation == 1


async def test_what_only_an_earlier_incarnation_holds_follows_as_copies(tmp_path: Path) -> None:
    """Events 1..600; put back to 400; then others came, two of the lost ones healed, and a ruling of another kind."""
    first = chain(590)
    old = rulings(1, 5)
    told = [Message(591 + n, 0, subject, body, f"r-{n + 1}") for n, (subject, body, _) in enumerate(old)]
    forked = rulings(3, 4, prev=old[1][2], fork="'")
    before = [*first[:300], *told[:2], *first[300:], *told[2:]]
    before = [Message(n, 0, m.subject, m.body, m.message_id) for n, m in enumerate(before, 1)]
    _, head = await seal_all(tmp_path / "archive", before[:400])
    _, head = await seal_all(tmp_path / "archive", before[400:], head)
    after = [
        *(Message(0, 0, m.subject, m.body, m.message_id) for m in chain(100, publisher="p-new")),
        *(Message(0, 0, m.subject, m.body, f"{m.message_id}#h1") for m in before[500:502]),
        *(Message(0, 0, subject, body, f"f-{n}") for n, (subject, body, _) in enumerate(forked)),
    ]
    after = [Message(401 + n, 0, m.subject, m.body, m.message_id) for n, m in enumerate(after)]
    await seal_all(tmp_path / "archive", after, head, incarnation=2)
    async with nats_server(sync_always=False) as nats:
        _, counts = await back(nats, tmp_path / "archive")
        found = await read_stream(nats.url)
        lost = [message for message in before[400:] if message not in before[500:502]]
        assert same(found[:504], [*before[:400], *after])
        copies = found[504:-1]
        assert [(m.subject, m.body) for m in copies] == [(m.subject, m.body) for m in lost]
        assert [m.message_id for m in copies] == [f"{m.message_id}#h1" for m in lost]
        # The last ruling is again the one that compare-and-set has to come after.
        assert (found[-1].body, found[-1].message_id) == (forked[-1][1], "f-1#h1")
        assert counts == {Fate.RESTORED: 504, Fate.ALREADY: 0, Fate.COPIED: len(lost) + 1}
        _, again = await back(nats, tmp_path / "archive")
        assert again == {Fate.RESTORED: 0, Fate.ALREADY: len(found), Fate.COPIED: 0}


async def test_rulings_that_go_on_from_the_last_one_stay_the_last(tmp_path: Path) -> None:
    told = [Message(n, 0, subject, body, f"r-{n}") for n, (subject, body, _) in enumerate(rulings(1, 6), 1)]
    _, head = await seal_all(tmp_path / "archive", told[:4], size=2)
    _, head = await seal_all(tmp_path / "archive", told[4:], head)
    other = chain(1, first_seq=5)
    await seal_all(tmp_path / "archive", other, head, incarnation=2)
    async with nats_server(sync_always=False) as nats:
        await back(nats, tmp_path / "archive")
        found = await read_stream(nats.url)
        assert [m.body for m in found] == [m.body for m in [*told[:4], *other, *told[4:]]]


@pytest.mark.parametrize("part", ["messages", "manifest"])
async def test_of_an_archive_with_a_flipped_byte_all_the_rest_is_restored(tmp_path: Path, part: str) -> None:
    archived = chain(1_200)
    store, _ = await seal_all(tmp_path / "archive", archived)
    [name] = [
        name
        for name in await store.names("segments/000000000002")
        if (".messages." in name if part == "messages" else name.endswith(".json"))
    ]
    damaged = bytearray(await store.read(name))
    damaged[len(damaged) // 2] ^= 1
    await store.replace(name, bytes(damaged))
    async with nats_server(sync_always=False) as nats:
        reel, _ = await back(nats, tmp_path / "archive")
        found = await read_stream(nats.url)
        assert found
        assert {finding.segment for finding in reel.findings} >= {2}
        left = [message for message in archived if message.seq in {m.seq for m in found}]
        assert same(found, left)
        assert {m.seq for m in archived} - {m.seq for m in found} <= set(range(301, 601))
        if part == "messages":
            named = {
                (finding.publisher, pseq)
                for finding in reel.findings
                if finding.first_pseq is not None and finding.last_pseq is not None
                for pseq in range(finding.first_pseq, finding.last_pseq + 1)
            }
            assert named == {("p-test", seq) for seq in range(1, 1_201) if seq not in {m.seq for m in found}}
    with pytest.raises(RestoreRefused, match="000000000002"):
        await restore(Settings(), str(tmp_path / "archive"), replicas=1, strict=True, dry_run=False, advanced=nobody)
    if part == "manifest":
        return
    await store.create(f"contents/acme/{'a' * 64}.zst", b"no content of that name")
    command = [*COMMAND, "--from", str(tmp_path / "archive"), "--dry-run", "--json"]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    assert told.returncode == 1
    rehearsed = Restored.model_validate_json(told.stdout)
    assert rehearsed.findings[:-1] == tuple(reel.findings)
    assert rehearsed.findings[-1].detail.startswith("contents/acme/aaaa")
    assert rehearsed.restored == len(found)


async def test_a_stream_that_holds_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    archived = chain(400)
    await seal_all(tmp_path / "archive", archived)
    await seal_all(tmp_path / "other", archived[:10])
    async with nats_server(sync_always=False) as nats, connected(nats) as client:
        js = client.jetstream()
        for message in archived[:5]:
            await js.publish(message.subject, message.body)
        with pytest.raises(RestoreRefused, match="lacks message 6"):
            await back(nats, tmp_path / "archive")
        await js.publish("ev.eu.breakers.acme.failed", b"another")
        with pytest.raises(RestoreRefused, match="holds message 6"):
            await back(nats, tmp_path / "archive")
        assert len(await on_stream(client)) == 6
        await js.delete_stream("EV")
        reader = await ArchiveReader.open(FolderStore(tmp_path / "archive"))
        await ClosedStream(client, reader.root.archive).write(archived[:7])
        with pytest.raises(RestoreRefused, match=f"half restored from archive {reader.root.archive}"):
            await back(nats, tmp_path / "other")
        await back(nats, tmp_path / "archive")
        assert same(await read_stream(nats.url), archived)


async def test_a_restore_that_is_killed_again_and_again_goes_on_and_doubles_nothing(
    tmp_path: Path, database: str
) -> None:
    archived = [message for message in chain(4_000) if message.seq % 50]
    await seal_all(tmp_path / "archive", archived)
    async with nats_server() as nats, connected(nats) as client:
        js = client.jetstream()
        await js.delete_stream("EV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
        environment |= {"RELIGHT_NATS_URL": nats.url, "RELIGHT_DATABASE_URL": database, "COLUMNS": "1000"}
        command = [*COMMAND, "--from", str(tmp_path / "archive"), "--json"]
        for kill_at in (1, 2_000):
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

            async def reached(at: int = kill_at) -> bool:
                try:
                    return (await js.stream_info("EV")).state.last_seq >= at
                except Exception:
                    return False

            await until(reached, within_s=60)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        found = Restored.model_validate_json(done.stdout)
        assert found.already > 0
        assert found.already + found.restored == len(archived)
        assert same(await read_stream(nats.url), archived)
        assert RESTORING not in ((await js.stream_info("EV")).config.metadata or {})
        assert found.digest is not None
        assert found.digest.rows["circuit_breaker_events"] == len(archived)
