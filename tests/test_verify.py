"""`relight verify`: what it prints, its exit code, and what an archive adds to what it can say."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import stack
from archives import sealed
from recorded import audited, messages_of, named, put_again, reading, record_all
from stack import ROLE, nats_server, projecting
from typer.testing import CliRunner

from relight.engine.archive.reading import ArchiveReader
from relight.engine.archive.store import FolderStore
from relight.engine.audit.models import Kind
from relight.engine.audit.report import Audit
from relight.engine.cli.main import app
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.log.chain import body_sha256
from relight.engine.log.reader import Message
from relight.engine.log.topology import STREAM
from relight.engine.tables.connecting import Session, connect_session

PER_SEGMENT = 20


@dataclass
class Scene:
    """A stream that is recorded, folded and sealed in segments; nothing is at work any more."""

    nats: EmbeddedNats
    database: str
    session: Session
    messages: list[Message]
    folder: Path

    @property
    def publisher(self) -> str:
        return next(named(message)[0] for message in self.messages if ".acme." in message.subject)

    async def audited(self) -> Audit:
        archive = await ArchiveReader.open(FolderStore(self.folder))
        return await audited(self.nats, self.session, archive=archive)

    async def verify(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The command, as from a shell."""
        settings = {
            "RELIGHT_NATS_URL": self.nats.url,
            "RELIGHT_DATABASE_URL": self.database,
            "RELIGHT_HOME": str(self.folder.parent / "home"),
            "RELIGHT_ARCHIVE": str(self.folder),
        }
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "relight.engine.cli.main", "verify", *arguments],
            env={name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")} | settings,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def rewritten(self, first: int) -> list[Message]:
        """By somebody who makes all that follows fit: from that number of the publisher on."""
        prev, found = None, []
        for message in self.messages:
            publisher, pseq = named(message)
            if publisher == self.publisher and pseq >= first:
                body = message.body
                if pseq == first:
                    body = body.replace(b"relight://eu", b"relight://ev")
                else:
                    document = orjson.loads(body)
                    body = body.replace(document["prev"].encode(), prev.encode() if prev else b"")
                prev, message = body_sha256(body), replace(message, body=body)
            found.append(message)
        return found


@asynccontextmanager
async def scene(database: str) -> AsyncIterator[Scene]:
    with stack.folder() as folder:
        async with nats_server(sync_always=False) as nats:
            await record_all(nats, folder / "spool", events=60)
            async with projecting(nats, database) as projected:
                await projected.caught_up()
            messages = await messages_of(nats)
            store = FolderStore(folder / "archive")
            parts = [messages[at : at + PER_SEGMENT] for at in range(0, len(messages), PER_SEGMENT)]
            [*_, last] = await sealed(store, *parts)
            session = await connect_session(database, role=ROLE)
            try:
                await session.execute(
                    "INSERT INTO archives VALUES ($1, $2, $3, $4, 1, $5, $6, $7, now())",
                    *(last.head.archive, store.place, last.head.segment, last.head.manifest_sha256),
                    *(last.head.last_seq, last.head.last_sha256, last.manifest.key),
                )
                yield Scene(nats, database, session, messages, folder / "archive")
            finally:
                await session.close(timeout=2)


def told(found: Audit) -> list[tuple[Kind, str | None, int | None, int | None]]:
    return [(f.kind, f.publisher, f.first_pseq, f.last_pseq) for f in found.findings]


async def test_with_an_archive_a_chain_that_was_rewritten_to_fit_is_named_from_its_first_event(database: str) -> None:
    async with scene(database) as here:
        last = max(pseq for name, pseq in map(named, here.messages) if name == here.publisher)
        await put_again(here.nats, here.rewritten(9))
        alone = await audited(here.nats, here.session)
        assert told(alone) == [(Kind.ALTERED, here.publisher, last, last)], "the tables hold the last one's hash"
        assert told(await here.audited()) == [(Kind.ALTERED, here.publisher, 9, last)]


async def test_an_archive_tells_which_of_two_was_changed_and_what_nobody_else_knows_of(database: str) -> None:
    async with scene(database) as here:
        mine = [message for message in here.messages if named(message)[0] == here.publisher]
        before_last, last = mine[-2:]
        await here.session.execute("DELETE FROM publisher_heads")
        await here.session.execute("DELETE FROM projection_positions")
        body = before_last.body.replace(b"relight://eu", b"relight://ev")
        await put_again(here.nats, [replace(m, body=body) if m is before_last else m for m in here.messages])
        number = named(last)[1]
        assert told(await audited(here.nats, here.session)) == [(Kind.ALTERED, here.publisher, number - 1, number)]
        assert told(await here.audited()) == [(Kind.ALTERED, here.publisher, number - 1, number - 1)]
        await put_again(here.nats, [message for message in here.messages if message is not last])
        assert told(await audited(here.nats, here.session)) == []
        assert told(await here.audited()) == [(Kind.TRUNCATED, here.publisher, number, number)]


async def test_what_was_trimmed_is_vouched_for_by_the_archive(database: str) -> None:
    async with scene(database) as here:
        await here.session.execute("INSERT INTO stream_trims VALUES ('p', 1, 'a', 40, 'me', now())")
        async with reading(here.nats) as client:
            await client.jetstream().purge_stream(STREAM, seq=41)
        assert (await audited(here.nats, here.session)).findings
        found = await here.audited()
        assert told(found) == []
        assert sum(b - a + 1 for ranges in found.only_archived.values() for a, b in ranges) == 40


async def test_the_command_says_what_it_checked_and_what_it_cannot_know(
    database: str,
) -> None:
    async with scene(database) as here:
        clean = await here.verify()
        assert clean.returncode == 0, clean.stdout
        assert "nothing is wrong" in clean.stdout
        assert f"{len(here.messages)} messages" in clean.stdout

        mine = [message for message in here.messages if named(message)[0] == here.publisher]
        one, other = mine[3], mine[-2]
        changed = replace(one, body=one.body[:-1] + b"]")
        await put_again(here.nats, [changed if m is one else m for m in here.messages if m is not other])
        found = await here.verify()
        assert found.returncode == 1
        first = found.stdout.splitlines()[0]
        assert first.startswith(f"altered   stream {named(one)[0]} number {named(one)[1]} at sequence {one.seq}:")
        assert "2 findings" in found.stdout
        assert "unknown: whether the tables have read this very stream" in found.stdout
        filtered = await here.verify("--json", "--publisher", "nobody")
        document = orjson.loads(filtered.stdout)
        assert (filtered.returncode, document["clean"], document["findings"]) == (0, True, [])
        assert document["archive"]["events"] == len(here.messages)
        for tenant, findings in (("acme", 2), ("nobody", 0)):
            assert len((await audited(here.nats, here.session, tenant=tenant)).findings) == findings, tenant
        wrong = CliRunner().invoke(app, ["verify", "--archive", str(here.folder), "--tenant", "acme"])
        assert wrong.exit_code == 2


async def test_an_archive_is_checked_alone_and_one_that_was_cut_short_is_told_by_the_tables(
    database: str,
) -> None:
    async with scene(database) as here:
        manifests = sorted((here.folder / "segments").glob("*.json"))
        kept = here.folder.parent / "kept"
        shutil.copytree(here.folder, kept)
        for file in (here.folder / "segments").glob(f"{manifests[-1].stem}*"):
            file.unlink()
        alone = await here.verify("--archive", str(here.folder))
        assert alone.returncode == 0, "by itself an archive that was cut looks whole"
        beside = await here.verify()
        assert beside.returncode == 1
        assert "truncated archive" in beside.stdout
        assert "the table archives" in beside.stdout
        body = bytearray(next((kept / "segments").glob("*.messages.zst")).read_bytes())
        body[50] ^= 1
        next((kept / "segments").glob("*.messages.zst")).write_bytes(body)
        harmed = await here.verify("--archive", str(kept), "--json")
        assert harmed.returncode == 1
        assert orjson.loads(harmed.stdout)["findings"]
