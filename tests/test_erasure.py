"""Erasure: what a demand means is gone everywhere, whoever else has the same content keeps it, and it is on record."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from archived import read_stream, seal_all
from nats.aio.client import Client
from stack import Projecting, connected, drained, nats_server, options, projecting, until

from relight.engine import scope
from relight.engine.app.erasing import Erasure, erase
from relight.engine.archive.contents import ContentKeeper, Reference, read_archived
from relight.engine.archive.seen_contents import SeenContents, missing_contents, unerased_contents
from relight.engine.archive.store import ArchiveStore
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.erasure.demand import Demand
from relight.engine.errors import ContentErased
from relight.engine.log.content import fetch_content
from relight.engine.log.content_store import ContentStore
from relight.engine.log.reader import Message
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import Settings
from relight.engine.spool.spool import Spool, SpooledContent
from relight.events.decisions import DecisionBegun, DecisionCheckpointed, DecisionTaken
from relight.events.values import Content

COMMAND = [sys.executable, "-c", "from relight.engine.cli.main import main; main()", "erase"]
WHY = ("--reason", "asked for it", "--decided-by", "dpo")


@dataclass
class World:
    nats: EmbeddedNats
    database: str
    client: Client
    projected: Projecting
    home: Path

    @property
    def archive(self) -> Path:
        return self.home / "archive"

    def settings(self) -> Settings:
        return Settings(
            home=self.home,
            nats_url=self.nats.url,
            nats_monitor_urls=(self.nats.monitor_url,),
            database_url=self.database,
            archive=str(self.archive),
        )

    async def records(self, told: Iterable[tuple[str, Any, bytes | None]]) -> dict[bytes, Content]:
        """(Correlation, event made of a content or None, content), each by the same recorder."""
        held: dict[bytes, Content] = {}
        with Recorder(options(self.nats, self.home / "spool")) as recorder:
            for correlation, make, body in told:
                tenant, _, correlation = correlation.rpartition("/")
                with scope.entered(tenant=tenant or "acme", correlation=correlation):
                    content = None if body is None else recorder.content(body)
                    if content is not None and body is not None:
                        held[body] = content
                    recorder.record(make(content))
            await drained(recorder)
        return held

    async def archived(self) -> tuple[ArchiveStore, list[Message]]:
        messages = await read_stream(self.nats.url)
        store, _ = await seal_all(self.archive, messages)
        await ContentKeeper(self.client.jetstream(timeout=5), store).keep(messages)
        return store, messages

    async def erases(self, **demand: Any) -> Erasure:
        given = {"tenant": "acme", "reason": "asked for it", "decided_by": "dpo"} | demand
        dry_run = given.pop("dry_run", False)
        return await erase(
            self.settings(),
            Demand(**given),
            archives=(),
            dry_run=dry_run,
            told=lambda found: None,
            advanced=lambda stage, done, total: None,
        )

    def on_disk(self, text: bytes) -> int:
        """In all files of server, archive and spools."""
        return sum(path.read_bytes().count(text) for path in self.home.rglob("*") if path.is_file()) + sum(
            path.read_bytes().count(text) for path in self.nats.store.rglob("*.blk")
        )

    def environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
        return environment | {
            "RELIGHT_NATS_URL": self.nats.url,
            "RELIGHT_NATS_MONITOR_URLS": self.nats.monitor_url,
            "RELIGHT_DATABASE_URL": self.database,
            "RELIGHT_HOME": str(self.home),
            "RELIGHT_ARCHIVE": str(self.archive),
            "COLUMNS": "1000",
        }


@asynccontextmanager
async def world(spools: Path, database: str) -> AsyncIterator[World]:
    async with nats_server() as nats, projecting(nats, database) as projected, connected(nats) as client:
        yield World(nats, database, client, projected, spools.parent)


def taken(content: Content | None) -> DecisionTaken:
    return DecisionTaken(decision="d", decision_type="t", request=content)


def of_agent(decision: str, agent: str) -> Any:
    return lambda content: DecisionTaken(decision=decision, decision_type="t", agent=agent, request=content)


def checkpoint(decision: str) -> Any:
    return lambda content: DecisionCheckpointed(decision=decision, checkpoint_type="c", content=content)


async def test_content_of_a_run_is_gone_everywhere_and_the_events_are_untouched(spools: Path, database: str) -> None:
    secret, shared, other = b"ALICE-SECRET" * 50, b"SHARED-TEXT" * 50, b"OTHER-TEXT" * 50
    async with world(spools, database) as here:
        held = await here.records(
            [
                ("run-1", taken, secret),
                ("run-1", taken, shared),
                ("run-2", taken, shared),
                ("run-2", taken, other),
                ("umbrella/run-1", taken, secret),
            ]
        )
        store, messages = await here.archived()
        planned = await here.erases(correlation="run-1", dry_run=True)
        assert planned.erased is None
        assert here.on_disk(secret) > 0
        by_digest = {one.sha256: one for one in planned.found.contents}
        assert by_digest.keys() == {held[secret].sha256, held[shared].sha256}
        assert (by_digest[held[shared].sha256].events, by_digest[held[shared].sha256].other_events) == (1, 1)
        assert by_digest[held[secret].sha256].size_bytes == len(secret)

        done = await here.erases(correlation="run-1")
        assert done.erased is not None
        assert (done.erased.stored_bytes, done.erased.archived, done.erased.recorded) == (
            len(secret) + len(shared),
            2,
            2,
        )
        assert done.projected
        js = here.client.jetstream()
        for body in (secret, shared):
            with pytest.raises(ContentErased, match=f"erased by erasure {done.found.erasure}"):
                await fetch_content(js, "acme", held[body])
            assert await read_archived(store, Reference("acme", held[body].sha256)) is None
        assert here.on_disk(shared) == 0
        # The wrong tenant's equal content, under its own name.
        assert await fetch_content(js, "umbrella", held[secret]) == secret
        assert await read_archived(store, Reference("umbrella", held[secret].sha256)) == secret
        assert await fetch_content(js, "acme", held[other]) == other
        now = await read_stream(here.nats.url)
        assert now[: len(messages)] == messages
        rows = await here.projected.rows("SELECT * FROM content_erasures ORDER BY sha256")
        assert [(row["tenant"], row["sha256"], row["erasure"]) for row in rows] == [
            ("acme", sha256, done.found.erasure) for sha256 in sorted(by_digest)
        ]
        assert {(row["scope"], row["decided_by"], row["reason"]) for row in rows} == {
            ("correlation run-1", "dpo", "asked for it")
        }
        # Once more: nothing more is erased or recorded; recorded anew, it does not come back.
        again = await here.erases(correlation="run-1")
        assert again.erased is not None
        assert (again.erased.stored_bytes, again.erased.archived, again.erased.recorded) == (0, 0, 2)
        await here.records([("run-3", taken, secret)])
        with pytest.raises(ContentErased):
            await fetch_content(js, "acme", held[secret])
        said = [orjson.loads(message.body) for message in await read_stream(here.nats.url)]
        assert sum(document["type"] == "recorder.erased" for document in said) == 1

        seen = SeenContents()
        seen.see(await read_stream(here.nats.url))
        assert await missing_contents(store, seen) == []
        assert await unerased_contents(store, seen) == []
        await store.delete(Reference("acme", held[other].sha256).name)
        assert await missing_contents(store, seen) == [Reference("acme", held[other].sha256)]
        await store.create(Reference("acme", held[secret].sha256).name, b"x")
        assert await unerased_contents(store, seen) == [Reference("acme", held[secret].sha256)]


async def test_an_agents_content_is_that_of_its_decisions_from_the_first_event_to_the_last(
    spools: Path, database: str
) -> None:
    async with world(spools, database) as here:
        held = await here.records(
            [
                ("r", checkpoint("before"), b"a checkpoint that comes before"),
                ("r", lambda _: DecisionBegun(decision="before", decision_type="t", agent="alice"), None),
                ("r", of_agent("d-1", "alice"), b"alice asks"),
                ("r", checkpoint("d-1"), b"alice thinks"),
                ("q", checkpoint("d-1"), b"alice thinks in another run"),
                ("r", of_agent("d-2", "bob"), b"bob asks"),
                ("r", checkpoint("d-2"), b"bob thinks"),
            ]
        )
        await here.archived()
        found = (await here.erases(agent="alice", correlation="r", dry_run=True)).found
        wanted = (b"a checkpoint that comes before", b"alice asks", b"alice thinks")
        assert {one.sha256 for one in found.contents} == {held[body].sha256 for body in wanted}
        found = (await here.erases(entity="d-2", dry_run=True)).found
        assert {one.sha256 for one in found.contents} == {held[b"bob asks"].sha256, held[b"bob thinks"].sha256}


async def test_everything_of_a_tenant_includes_what_no_event_refers_to_and_what_waits_in_spools(
    spools: Path, database: str
) -> None:
    async with world(spools, database) as here:
        await here.records([("r", taken, b"REFERRED"), ("umbrella/r", taken, b"REFERRED")])
        store, _ = await here.archived()
        body = b"NOBODY-REFERS"
        waiting = SpooledContent("acme", "5" * 64, b"WAITS-IN-SPOOL" * 100, 0)
        await ContentStore(here.client).put([SpooledContent("acme", "e" * 64, body, 0)])
        await store.create(Reference("acme", "a" * 64).name, b"x")
        await store.create(Reference("umbrella", "a" * 64).name, b"x")
        spool = Spool(spools / "slot-7.db")
        spool.commit([], [waiting, waiting._replace(tenant="umbrella")])
        spool.close()
        (spools / "slot-8.db").write_bytes(b"no database" * 100)

        done = await here.erases()
        assert done.found.scope == "everything of the tenant"
        assert {one.sha256 for one in done.found.contents} >= {"5" * 64, "e" * 64, "a" * 64}
        assert len(done.found.contents) == 4
        assert done.erased is not None
        assert (done.erased.archived, done.erased.spooled) == (2, 1)
        [unreadable] = done.erased.unreadable_spools  # a recorder may have put it aside by now
        assert "slot-8" in unreadable
        with closing(sqlite3.connect(spools / "slot-7.db")) as db:
            assert db.execute("SELECT tenant FROM contents").fetchall() == [("umbrella",)]
        assert here.on_disk(waiting.body) == 1, "the other tenant's"
        assert here.on_disk(body) == 0
        assert [name.split("/")[1] for name in await store.names("contents/")] == ["umbrella", "umbrella"]


async def test_an_erasure_that_is_killed_is_completed_by_the_same_command(spools: Path, database: str) -> None:
    bodies = [b"KILLED-%06d" % n * 20 for n in range(1_200)]
    async with world(spools, database) as here:
        held = await here.records([("r", taken, body) for body in bodies])
        store, _ = await here.archived()
        command = [*COMMAND, "--tenant", "acme", "--correlation", "r", *WHY, "--json"]
        process = subprocess.Popen(
            command, env=here.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        async def some_are_gone() -> bool:
            return len(await store.names("contents/")) < 1_100

        await until(some_are_gone, within_s=60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert await store.names("contents/"), "it was killed too late"
        assert not await here.projected.rows("SELECT 1 FROM content_erasures")
        done = await asyncio.to_thread(
            subprocess.run, command, env=here.environment(), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        found = Erasure.model_validate_json(done.stdout)
        assert len(found.found.contents) == 1_200
        assert await store.names("contents/") == []
        assert here.on_disk(b"KILLED-") == 0
        [rows] = await here.projected.rows("SELECT count(*), count(DISTINCT erasure) AS erasures FROM content_erasures")
        assert rows == {"count": 1_200, "erasures": 1}
        with pytest.raises(ContentErased, match=found.found.erasure):
            await fetch_content(here.client.jetstream(), "acme", held[bodies[0]])


async def test_of_a_damaged_archive_what_its_readable_events_refer_to_is_erased(spools: Path, database: str) -> None:
    async with world(spools, database) as here:
        held = await here.records([("r", taken, b"content %d" % n) for n in range(900)])
        store, _ = await here.archived()
        [name] = [name for name in await store.names("segments/000000000002-") if ".messages." in name]
        damaged = bytearray(await store.read(name))
        damaged[-30] ^= 1
        await store.replace(name, bytes(damaged))
        await here.client.jetstream().purge_stream("EV")
        found = await here.erases(correlation="r", contents=(held[b"content 0"].sha256,), dry_run=True)
        assert found.found.damaged_segments == 1
        assert found.found.scope == "correlation r and 1 contents by digest"
        assert 500 < len(found.found.contents) <= 900
