"""Rebuild: nothing is lost by it, and what it cannot vouch for it does not swap in."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import stack
from everything import everything, publish_everything
from rebuilt import PUBLIC, generation, rebuild, rolled_back, sessions, set_size
from stack import connected, nats_server, projecting, until

from relight.engine.clock import Clock
from relight.engine.errors import RebuildRefused
from relight.engine.tables import rebuild as rebuild_module
from relight.engine.tables.deadletters import count_open, list_dead_letters
from relight.engine.tables.rebuild import Rebuild, Rebuilt
from relight.engine.tables.rollback import drop_previous, roll_back
from relight.projections import breakers
from relight.projections.base import Projection
from relight.projections.catalog import projections


async def test_tables_that_differ_are_not_swapped_in_unless_that_is_asked_for_or_their_projection_changed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await asyncpg.connect(database)
    spoil = "UPDATE circuit_breaker_events SET region = 'spoilt'"
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client)
        right = await projected.digests_agree()
        await admin.execute(spoil)
        with pytest.raises(RebuildRefused, match=r"circuit_breaker_events differ .*nothing was swapped.*--accept-diff"):
            await rebuild(projected.client, database)
        assert (await generation(projected), await set_size(projected, "previous")) == (1, 0)
        assert await rebuild(projected.client, database, *[p for p in projections() if p != breakers.projection])
        done = await rebuild(projected.client, database, breakers.projection, accept_difference=True)
        assert (done.differing, done.generation) == (("circuit_breaker_events",), 3)
        assert (await projected.digests_agree()).tables == right.tables
        await admin.execute(spoil)
        newer = Projection(name="breakers", version=2, tables=breakers.projection.tables)
        newer.handlers.update(breakers.projection.handlers)
        monkeypatch.setattr("relight.engine.tables.folding.projection_of", lambda type: newer)
        assert (await rebuild(projected.client, database, newer)).differing == ("circuit_breaker_events",)
        assert await projected.rows("SELECT version FROM projection_versions WHERE projection = 'breakers'") == [
            {"version": 2}
        ]
        monkeypatch.undo()
        await projected.digests_agree()
    await admin.close()


async def test_a_second_rebuild_or_rollback_is_refused_and_told_who_runs_the_first(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as projected:
        await publish_everything(projected.client)
        await projected.caught_up()
        with pytest.raises(RebuildRefused, match="nothing to roll back to"):
            await rolled_back(projected.client, database)
        refused: list[str] = []

        async def refuse() -> None:
            async with sessions(database) as (keeper, builder):
                for second in (
                    Rebuild(projected.client, keeper, builder, projections(), clock=Clock()).run(),
                    roll_back(projected.client, keeper, builder, clock=Clock()),
                    drop_previous(keeper),
                ):
                    with pytest.raises(RebuildRefused) as raised:
                        await second
                    refused.append(str(raised.value))

        async with sessions(database) as (keeper, builder):
            first = Rebuild(projected.client, keeper, builder, projections(), clock=Clock())
            once, first._once = first._once, None  # type: ignore[method-assign,assignment]

            async def interrupted(sets: Any) -> Rebuilt:
                await refuse()
                return await once(sets)

            first._once = interrupted  # type: ignore[method-assign]
            await first.run()
        assert len(refused) == 3
        assert all("rebuild of the test, one" in said for said in refused)
        async with sessions(database) as (keeper, _):
            assert await drop_previous(keeper) == 20
        assert await set_size(projected, "previous") == 0


async def test_a_rebuild_that_is_killed_leaves_the_live_tables_and_the_next_one_begins_anew(database: str) -> None:
    async with nats_server(sync_always=False) as nats, projecting(nats, database) as projected:
        for copy in range(6):
            for subject, body in everything(copy=copy):
                await projected.client.jetstream().publish(subject, body)
        before = await projected.digests_agree()
        oids = await projected.rows(PUBLIC)
        command = [sys.executable, str(Path(__file__).with_name("rebuilding_child.py")), nats.url, database, "20"]
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(5):
            assert await child.stdout.readline(), "it folds"
        workers = psutil.Process(child.pid).children(recursive=True)
        assert len(workers) >= 2
        child.kill()
        await child.wait()
        await until(lambda: not any(worker.is_running() for worker in workers), "its processes end with it")
        assert await set_size(projected, "shadow") > 20
        assert await projected.rows(PUBLIC) == oids
        assert (await projected.digests_agree()).tables == before.tables

        async def again() -> Rebuilt | None:
            try:
                return await rebuild(projected.client, database)
            except RebuildRefused:
                return None  # the killed one's last statement has still to end

        done = await until(again)
        assert (done.differing, done.generation, done.events) == ((), 2, before.seq)
        assert await set_size(projected, "shadow") == 0
        assert (await projected.digests_agree()).tables == before.tables


async def test_dead_letters_that_fold_now_are_resolved_and_those_met_are_kept(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(event: Any) -> Any:
        raise ZeroDivisionError("bug")

    async with nats_server() as nats, projecting(nats, database) as projected:
        with monkeypatch.context() as patched:
            patched.setitem(breakers.projection.handlers, "breakers.failed", raises)
            await publish_everything(projected.client)
            await projected.client.jetstream().publish("ev.eu.breakers.acme.failed", b"no event")
            await projected.caught_up()
            assert await count_open(projected.session) == 2
        done = await rebuild(projected.client, database)
        assert (done.differing, done.dead_letters_resolved, done.dead_letters) == ((), 1, 1)
        [left] = await list_dead_letters(projected.session)
        assert left.reason.value == "not_an_event"
        await projected.digests_agree()
        with monkeypatch.context() as patched:  # what folded once and does not now is a difference
            patched.setitem(breakers.projection.handlers, "breakers.failed", raises)
            with pytest.raises(RebuildRefused, match="circuit_breaker_events, circuit_breaker_states differ"):
                await rebuild(projected.client, database)
            await rebuild(projected.client, database, accept_difference=True)
            assert {letter.reason.value for letter in await list_dead_letters(projected.session)} == {"not_an_event"}


async def test_a_stream_put_back_to_an_older_copy_is_read_again_once_the_projector_has_noticed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "AGAIN_S", 0.1)
    async with nats_server(sync_always=False) as nats:
        async with connected(nats) as client:
            await publish_everything(client)
        await nats.stop()
        copy = nats.folder / "copy"
        shutil.copytree(nats.store, copy)
        await nats.start()
        async with projecting(nats, database) as projected:
            await publish_everything(projected.client, tenants=("lost",))
            await projected.caught_up()
        await nats.kill()
        shutil.rmtree(nats.store)
        shutil.copytree(copy, nats.store)
        await nats.start()
        async with connected(nats) as client:
            await publish_everything(client, tenants=("new",))
            monkeypatch.setattr(rebuild_module, "STARTS", 2)
            with pytest.raises(RebuildRefused, match="no projector reads it again"):
                await rebuild(client, database)
            monkeypatch.setattr(rebuild_module, "STARTS", 100)
            rebuilding = asyncio.create_task(rebuild(client, database, accept_difference=True))
            async with projecting(nats, database) as projected:
                done = await rebuilding
                assert len(done.differing) == 20  # what was lost was projected before: only the old tables have it
                await projected.digests_agree()


def test_the_commands_report_and_refuse() -> None:
    with stack.folder() as home:

        def relight(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "relight.engine.cli.main", *arguments],
                env={"PATH": "", "RELIGHT_HOME": str(home), "RELIGHT_TENANT": "acme"} | settings,
                capture_output=True,
                text=True,
                timeout=90,
            )

        nothing = relight("rebuild", "--rollback")
        assert (nothing.returncode, nothing.stdout) == (1, "")
        assert "there is nothing to roll back to" in nothing.stderr
        assert relight("rebuild", "nothing_like_it").returncode == 2
        assert relight("rebuild", "breakers", "--rollback").returncode == 2
        done = json.loads(relight("rebuild", "--json").stdout)
        assert (len(done["projections"]), len(done["tables"]), done["differing"]) == (10, 20, [])
        assert "in the swap writes waited" in relight("rebuild", "--rollback").stdout
        assert "give --keep 90d, or a policy in RELIGHT_RETENTION_FILE" in relight("retention", "plan").stderr
        planned = json.loads(relight("retention", "plan", "--keep", "90d", "--json").stdout)
        assert planned["rows"] == []
        applied = relight("retention", "apply", "--keep", "90d")
        assert "trimmed 0 rows" in applied.stdout
        assert relight("retention", "apply", "--keep", "90d", "--table", "circuit_breaker_states").returncode == 2
