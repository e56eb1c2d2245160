"""The healer at work by itself: it notices, takes turns, is killed, and what nobody has stays named."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import stack
from damage import cut, flip, forget_index
from healing_scene import (
    Links,
    assert_whole,
    healed_until_whole,
    healing,
    numbers_of,
    read_links,
    record_some,
    scene,
    seal_all,
    tables_of,
    watching,
)
from observing import found, probing
from stack import connected, drained, options, projecting, until

from relight.engine.archive.folder import FolderStore
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.healing.asking import Asking
from relight.engine.healing.known import Loss, load_losses, missing_of
from relight.engine.health.models import CheckStatus
from relight.engine.log.numbers import Numbers
from relight.engine.log.topology import STREAM
from relight.engine.recorder.heal_messages import MISSING
from relight.engine.recorder.recorder import Recorder
from relight.engine.servers import Servers
from relight.engine.service import Parts, caught_up, serving
from relight.engine.settings import Settings
from relight.engine.tables.connecting import connect_session
from relight.events.recorder import RecorderLost, RecorderTrimmed

CHILD = Path(__file__).parent / "healing_child.py"


async def losses(projected: stack.Projecting) -> list[Loss]:
    return await load_losses(projected.session)


async def heals(projected: stack.Projecting) -> dict[str, Numbers]:
    runs: dict[str, list[tuple[int, int]]] = {}
    for row in await projected.rows("SELECT publisher, first_pseq, last_pseq FROM recorded_heals"):
        runs.setdefault(row["publisher"], []).append((row["first_pseq"], row["last_pseq"]))
    return {publisher: Numbers(found) for publisher, found in runs.items()}


async def test_purges_and_silent_damage_are_noticed_and_healed_by_itself(database: str) -> None:
    """A purge leaves the ids within the server's duplicate window: it calls what is published again a duplicate."""
    async with scene(database) as here, projecting(here.nats, database) as projected:
        await projected.caught_up()
        links, _ = await read_links(projected.client)
        undisturbed = await tables_of(projected.client)
        js = projected.client.jetstream()
        async with watching(here):
            await until(lambda: _audited(projected), "it looked the stream through")
            harmed: dict[str, Numbers] = {}
            for purge in ({"subject": "ctl.breaker.acme.db"}, {"seq": max(links) // 2}, {}):
                now, _ = await read_links(projected.client)
                await js.purge_stream(STREAM, **purge)
                left, _ = await read_links(projected.client)
                gone = numbers_of(now, now.keys() - left.keys())
                harmed = {
                    publisher: harmed.get(publisher, Numbers()).union(gone.get(publisher, Numbers()))
                    for publisher in harmed.keys() | gone.keys()
                }
                await until(lambda harmed=harmed: _said(projected, harmed), f"{purge} is healed", within_s=30)
                await assert_whole(here, projected, undisturbed, links)
            await here.nats.stop()
            flip(here.nats, {max(links) + 3, max(links) + 40})
            await here.restart()
            await until(lambda: _whole(projected, links), "what was damaged in silence is healed")
        await assert_whole(here, projected, undisturbed, links)


async def _audited(projected: stack.Projecting) -> bool:
    return bool(await projected.rows("SELECT * FROM stream_audits"))


async def _said(projected: stack.Projecting, harmed: dict[str, Numbers]) -> bool:
    return await heals(projected) == harmed and not await losses(projected)


async def _whole(projected: stack.Projecting, links: Links) -> bool:
    now, _ = await read_links(projected.client)
    return set(links.values()) <= set(now.values()) and not await losses(projected)


async def test_a_healer_killed_in_the_middle_is_followed_by_one_that_ends_its_work(
    database: str, tmp_path: Path
) -> None:
    async with scene(database, events=120, sync_always=True) as here, projecting(here.nats, database) as projected:
        await here.close_recorders()
        shutil.rmtree(here.spools)
        await projected.caught_up()
        async with connected(here.nats) as client:
            links, messages = await read_links(client)
        await seal_all(messages, tmp_path)
        undisturbed = await tables_of(projected.client)
        await here.nats.stop()
        gone = {seq for seq in links if seq % 2 and seq > 30}
        flip(here.nats, gone)
        harmed = numbers_of(links, gone)
        await here.nats.start()
        last = max(links)
        child = subprocess.Popen(
            [sys.executable, CHILD, here.nats.url, database, str(tmp_path / "archive")],
            stdout=subprocess.DEVNULL,
        )
        try:
            await until(lambda: _last_seq(projected, last + 20), "it has put back some")
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert missing_of(await losses(projected)) == harmed
        async with connected(here.nats) as client:
            now, _ = await read_links(client)
            assert len(set(now.values())) < len(set(links.values())), "it was killed before it ended"
            store = FolderStore(tmp_path / "archive")
            async with healing(here, store) as mender:
                await healed_until_whole(mender)
        said = {fact.publisher: Numbers() for fact in here.said}  # type: ignore[attr-defined]
        for fact in here.said:
            run = Numbers([(fact.first_pseq, fact.first_pseq + fact.events - 1)])  # type: ignore[attr-defined]
            said[fact.publisher] = said[fact.publisher].union(run)  # type: ignore[attr-defined]
        assert said == harmed
        await assert_whole(here, projected, undisturbed, links)


async def _last_seq(projected: stack.Projecting, seq: int) -> bool:
    return projected.client.is_connected and bool(
        (await projected.client.jetstream().stream_info(STREAM)).state.last_seq >= seq
    )


async def test_losses_heal_as_late_events_while_more_are_recorded(database: str) -> None:
    async with scene(database) as here, projecting(here.nats, database) as projected:
        await projected.caught_up()
        links, _ = await read_links(projected.client)
        await here.nats.stop()
        flip(here.nats, {max(links) // 2})
        forget_index(here.nats)
        await here.restart()
        recorded = 0

        async def record_on() -> None:
            nonlocal recorded
            while True:
                for recorder in here.recorders:
                    record_some(recorder, range(10_000 + recorded, 10_000 + recorded + 5))
                recorded += 5
                await asyncio.sleep(0.01)

        recording = asyncio.create_task(record_on())
        async with watching(here):
            await until(lambda: _whole(projected, links), "all is there again, and more")
            recording.cancel()
            await here.drained()
        assert recorded > 50
        await projected.digests_agree()
        now, _ = await read_links(projected.client)
        assert set(links.values()) <= set(now.values())
        for publisher in {publisher for publisher, _ in now.values()}:
            numbers = Numbers((pseq, pseq) for name, pseq in now.values() if name == publisher)
            assert list(numbers) == [(1, numbers.highest)]


async def test_what_nobody_has_is_late_then_lost_by_name_until_it_is_declared(database: str, tmp_path: Path) -> None:
    async with scene(database) as here, projecting(here.nats, database) as projected:
        await here.close_recorders()
        away = tmp_path / "spool"
        shutil.move(here.spools, away)
        await projected.caught_up()
        links, _ = await read_links(projected.client)
        undisturbed = await tables_of(projected.client)
        await here.nats.stop()
        gone = {3, 4, max(links) - 10}
        flip(here.nats, gone)
        harmed = numbers_of(links, gone)
        await here.nats.start()
        async with (
            connected(here.nats) as client,
            healing(here) as mender,
            probing(here.nats, database, client=client) as probe,
        ):
            for asked in range(1, 6):
                done = await mender.heal_all()
                assert not done.healed
                assert missing_of(done.left) == harmed
                assert all(loss.asked == asked and loss.lost is (asked == 5) for loss in done.left)
                if asked == 1:
                    check = found(await probe.check(), "healing:lateEvents")
                    assert (check.status, check.observed) == (CheckStatus.WARN, 3)
            check = found(await probe.check(), "healing:lostEvents")
            assert (check.status, check.observed) == (CheckStatus.WARN, 3)
            publisher, numbers = next(iter(harmed.items()))
            assert f"{publisher} {next(iter(numbers))[0]}" in (check.output or "")

            # The machine that recorded them was only off.
            shutil.move(away, here.spools)
            async with Recorder(options(here.nats, here.spools)) as recorder:
                await healed_until_whole(mender)
                await drained(recorder)
            await assert_whole(here, projected, undisturbed, links)

            # Once more, and this time it is gone for good: somebody says so.
            shutil.rmtree(here.spools)
            await here.nats.stop()
            flip(here.nats, {seq for seq, link in (await _stored(here.nats)).items() if link == links[3]})
            await here.nats.start()
            await until(lambda: client.is_connected)
            done = await mender.heal_all()
            [loss] = done.left
            assert (loss.publisher, loss.first_pseq, loss.events) == (*links[3], 1)
            async with Recorder(options(here.nats, here.spools)) as recorder:
                recorder.record(
                    RecorderLost(
                        publisher=loss.publisher,
                        first_pseq=loss.first_pseq,
                        events=1,
                        decided_by="ops",
                        reason="its disk is gone",
                    )
                )
                await drained(recorder)
            await projected.caught_up()
            done = await mender.heal_all()
            assert not done.left
            assert not done.healed
            check = found(await probe.check(), "healing:lostEvents")
            assert (check.status, check.observed) == (CheckStatus.PASS, 0)


async def _stored(nats: EmbeddedNats) -> dict[int, tuple[str, int]]:
    """Read from the blocks of a stopped server."""
    await nats.start()
    try:
        async with connected(nats) as client:
            return (await read_links(client))[0]
    finally:
        await nats.stop()


async def test_a_machine_that_was_off_heals_as_soon_as_it_is_back(database: str, tmp_path: Path) -> None:
    async with scene(database) as here, projecting(here.nats, database) as projected:
        await here.close_recorders()
        away = tmp_path / "spool"
        shutil.move(here.spools, away)
        await projected.caught_up()
        links, _ = await read_links(projected.client)
        undisturbed = await tables_of(projected.client)
        await projected.client.jetstream().purge_stream(STREAM, seq=50)
        async with watching(here):
            await until(lambda: _asked(projected, 3), "it was asked for in vain, and is asked for ever less often")
            shutil.move(away, here.spools)
            async with Recorder(options(here.nats, here.spools)) as recorder:
                await until(lambda: _whole(projected, links), "it heals", within_s=5)
                await drained(recorder)
        await assert_whole(here, projected, undisturbed, links)


async def _asked(projected: stack.Projecting, times: int) -> bool:
    return any(loss.asked >= times for loss in await losses(projected))


async def test_what_no_table_has_seen_is_healed_by_those_who_recorded_it(database: str) -> None:
    async with scene(database) as here:
        async with connected(here.nats) as client:
            links, _ = await read_links(client)
            undisturbed = await tables_of(client)
        await here.nats.stop()
        flip(here.nats, {20, 21, max(links) - 40})
        cut(here.nats, max(links) - 12, None)
        await here.restart()
        async with projecting(here.nats, database) as projected, watching(here):
            await until(lambda: _whole(projected, links), "it is whole")
            await assert_whole(here, projected, undisturbed, links)


async def test_who_asks_can_have_nothing_published_but_what_is_lost(database: str) -> None:
    async with scene(database) as here, connected(here.nats) as client:
        before, _ = await read_links(client)
        everything = {publisher: Numbers([(1, 1 << 60)]) for publisher, _ in before.values()}
        async with Asking(client) as asking:
            await client.publish(MISSING, b"no request")
            await client.publish(MISSING, b'{"missing": [{"publisher": "p", "runs": [[-1, 9e99]]}]}')
            await asking.ask(everything | {"p-stranger": Numbers([(1, 9)])}, patient=False)
        after, _ = await read_links(client)
        assert after == before


async def test_what_was_trimmed_on_purpose_is_not_put_back_by_those_who_recorded_it(database: str) -> None:
    async with scene(database) as here, connected(here.nats) as client:
        first, other = here.recorders
        await asyncio.to_thread(other.stop)
        here.recorders.remove(other)
        links, _ = await read_links(client)
        first.record(RecorderTrimmed(archive="a" * 32, through_seq=max(links), decided_by="ops"))
        await drained(first)
        js = client.jetstream()
        for subject in ("ev.eu.breakers.acme.failed", "ev.eu.decisions.acme.*", "ev.eu.recorder.-.closed"):
            await js.purge_stream(STREAM, subject=subject)
        left, _ = await read_links(client)
        await here.nats.stop()
        await here.restart()
        await until(lambda: client.is_connected)
        async with Asking(client) as asking:  # whoever answers has looked after its tails before
            await asking.ask({first.publisher: Numbers([(1, 1)])}, patient=True)
        assert (await read_links(client))[0] == left


async def test_the_service_heals_and_records_it_and_relight_heal_says_what_is_left(
    database: str, tmp_path: Path
) -> None:
    async with scene(database) as here, connected(here.nats) as client:
        links, _ = await read_links(client)
        servers = Servers(nats=here.nats.url, monitors=(here.nats.monitor_url,), database=database, ours=False)
        settings = Settings(home=tmp_path, nats_url=here.nats.url, database_url=database)
        async with serving(servers, settings, Parts(listens=False, api=False)) as service:
            assert await caught_up(service, within_s=20)
            await client.jetstream().purge_stream(STREAM, seq=30)
            session = await connect_session(database, role=stack.ROLE)
            assert service.recorder is not None
            said_by = service.recorder.publisher

            async def recorded() -> bool:
                return bool(await session.fetchval("SELECT count(*) FROM recorded_heals WHERE said_by = $1", said_by))

            await until(recorded, "it is healed, and recorded")
            assert set((await read_links(client))[0].values()) >= set(links.values())
        await here.close_recorders()
        shutil.rmtree(here.spools)
        await here.nats.stop()
        flip(here.nats, {40})
        await here.nats.start()
        await until(lambda: client.is_connected)
        for arguments, healed in ((["--dry-run"], 0), ([], 0)):
            ended = await _relight(
                "heal", "--json", *arguments, home=tmp_path / "other", nats=here.nats, database=database
            )
            assert ended.returncode == 1, ended.stderr
            told = json.loads(ended.stdout)
            assert len(told["healed"]) == healed
            [left] = told["left"]
            assert (left["publisher"], left["first_pseq"]) == links[40]
        assert await session.fetchval("SELECT asked FROM stream_losses") == 1
        await session.close()


async def _relight(
    *arguments: str, home: Path, nats: EmbeddedNats, database: str
) -> "subprocess.CompletedProcess[str]":
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
    given = {"RELIGHT_HOME": str(home), "RELIGHT_NATS_URL": nats.url, "RELIGHT_DATABASE_URL": database}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "relight.engine.cli.main", *arguments],
        env=plain | given,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
