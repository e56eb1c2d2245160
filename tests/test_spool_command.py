"""`relight spool list`, `drain` and `retire`: real processes on real servers."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import stack
from stack import Projecting, drained, failed, nats_server, numbers, on_stream, options, service_answers

from relight.engine.app.spools import Retired, drain_spools, retire_spools, spools_here
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import Settings
from relight.engine.spool.aside import asides
from relight.engine.spool.listing import ListedSpool, State
from relight.engine.spool.retiring import RetireRefused


class Home:
    """A home, and the command run in it."""

    def __init__(self, path: Path, nats: EmbeddedNats, database: str, projected: Projecting) -> None:
        self.spools, self.nats, self.projected = path / "spool", nats, projected
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RELIGHT_")}
        self.environment = plain | {
            "RELIGHT_HOME": str(path),
            "RELIGHT_NATS_URL": nats.url,
            "RELIGHT_NATS_MONITOR_URLS": nats.monitor_url,
            "RELIGHT_DATABASE_URL": database,
        }

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "relight.engine.cli.main", *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, env=self.environment, capture_output=True, text=True, timeout=90, check=False
        )

    def listed(self) -> list[ListedSpool]:
        return spools_here(self.settings)

    async def drain(self) -> list[ListedSpool]:
        return await drain_spools(self.settings, advanced=lambda events: None)

    async def retire(self, wanted: str, reason: str = "r", decided_by: str = "me") -> Retired:
        return await retire_spools(
            self.settings, wanted, reason=reason, decided_by=decided_by, advanced=lambda events: None
        )


@asynccontextmanager
async def a_home(database: str) -> AsyncIterator[Home]:
    async with nats_server() as nats, service_answers(nats, database) as projected:
        with stack.folder() as path:
            yield Home(path, nats, database, projected)


def flip(path: Path, *numbers: int) -> None:
    """One byte of each of these events."""
    body = bytearray(path.read_bytes())
    for n in numbers:
        body[body.index(b'"n":%d}' % n) + 4] ^= 1
    path.write_bytes(body)


async def left_behind(home: Home, events: int) -> str:
    await home.nats.kill()
    recorder = Recorder(options(home.nats, home.spools))
    recorder.start()
    for n in range(events):
        recorder.record(failed(n))
    await recorder.record(failed(events)).reached(Ack.SPOOLED)
    await asyncio.to_thread(recorder.stop, deadline_s=0.1)
    await home.nats.start()
    return recorder.publisher


async def test_the_command_lists_drains_and_retires_and_its_exit_code_says_whether_something_is_left(
    database: str,
) -> None:
    async with a_home(database) as home:
        publisher = await left_behind(home, 20)
        flip(home.spools / "slot-0.db", 10, 11)
        done = await home.run("spool", "drain", "--json")
        assert done.returncode == 1
        assert "still hold something" in done.stderr
        [aside] = json.loads(done.stdout)
        assert (aside["state"], aside["unreadable"]) == ("aside", [[12, 13]])
        shown = await home.run("spool", "list")
        assert shown.returncode == 0
        assert "12-13" in shown.stdout
        assert "event 12 is not as it was written" in " ".join(shown.stdout.split())
        done = await home.run("spool", "retire", aside["file"], "--reason", "two bytes flipped", "--decided-by", "ops")
        assert done.returncode == 0, done.stderr
        said = " ".join(done.stdout.split())
        assert f"recorded as lost: 12-13 of {publisher}" in said
        assert str(home.spools / "retired" / "aside-corrupt-slot-0-") in said
        gone = await home.run("spool", "retire", aside["file"], "--reason", "r", "--decided-by", "ops")
        assert gone.returncode == 1
        assert "there is no spool" in gone.stderr


async def test_a_spool_left_behind_is_listed_drained_and_retired(database: str) -> None:
    async with a_home(database) as home:
        assert home.listed() == []
        publisher = await left_behind(home, 20)
        [listed] = home.listed()
        assert (listed.file, listed.state, listed.publisher) == ("slot-0.db", "left behind", publisher)
        assert listed.events == 23
        assert listed.disk_bytes >= listed.bytes > 23 * 300
        assert listed.oldest is not None
        assert listed.newest is not None
        assert listed.oldest <= listed.newest
        assert await home.drain() == []
        assert numbers(await on_stream(home.projected.client)) == list(range(21))
        [listed] = home.listed()
        assert (listed.events, listed.bytes, listed.oldest) == (0, 0, None)
        async with Recorder(options(home.nats, home.spools)):
            [listed] = home.listed()
            assert listed.state == "live"
            with pytest.raises(RetireRefused, match="live process"):
                await home.retire("slot-0.db")
        before = (home.spools / "slot-0.db").read_bytes()
        retired = await home.retire(publisher)
        assert (retired.lost, retired.tail_in_doubt_after) == ({}, {})
        [file] = map(Path, retired.files)
        assert file.read_bytes() == before
        assert file.parent == home.spools / "retired"
        assert home.listed() == []


async def test_retiring_a_damaged_spool_records_exactly_what_is_nowhere_as_lost(database: str) -> None:
    async with a_home(database) as home:
        publisher = await left_behind(home, 40)
        flip(home.spools / "slot-0.db", 10, 11, 30)
        [aside] = await home.drain()
        assert {spool.state for spool in home.listed()} == {State.ASIDE, State.SALVAGED}
        retired = await home.retire(aside.file, "three bytes flipped", "ops")
        assert retired.lost == {publisher: [(12, 13), (32, 32)]}
        assert retired.tail_in_doubt_after == {}
        assert len(retired.files) == 2
        await home.projected.caught_up()
        losses = await home.projected.rows(
            "SELECT publisher, first_pseq, last_pseq, decided_by, reason FROM recorded_losses ORDER BY first_pseq"
        )
        assert [tuple(row.values()) for row in losses] == [
            (publisher, 12, 13, "ops", "three bytes flipped"),
            (publisher, 32, 32, "ops", "three bytes flipped"),
        ]
        [own] = home.listed()
        assert (own.state, own.events) == (State.LEFT, 0)  # of the command's own recorder


async def test_a_tail_that_may_be_lost_is_said_to_be_in_doubt_and_no_number_is_invented(database: str) -> None:
    async with a_home(database) as home:
        publisher = await left_behind(home, 40)
        slot = home.spools / "slot-0.db"
        os.truncate(slot, slot.stat().st_size - 2 * 4_096)
        with pytest.raises(RetireRefused, match="aside-corrupt-slot-0-"):  # it shows only now
            await home.retire("slot-0.db")
        retired = await home.retire(publisher)
        last = max(numbers(await on_stream(home.projected.client))) + 2
        assert retired.tail_in_doubt_after == {publisher: last}
        assert retired.lost == {}
        assert asides(home.spools) == []


async def test_retiring_the_whole_spool_of_a_killed_process_ends_the_doubt_about_its_tail(database: str) -> None:
    async with a_home(database) as home:
        command = [sys.executable, str(Path(__file__).with_name("recording_child.py")), home.nats.url, str(home.spools)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            publisher = (await asyncio.to_thread(child.stdout.readline)).split()[1]
            await asyncio.to_thread(child.stdout.readline)
            child.kill()
        retired = await home.retire(publisher)
        assert (retired.lost, retired.tail_in_doubt_after) == ({}, {})
        await home.projected.caught_up()
        session = await home.projected.rows("SELECT session FROM publisher_heads WHERE publisher = $1", publisher)
        assert session == [{"session": "closed"}]


async def test_what_the_stream_lost_and_a_spool_still_holds_is_not_declared_lost(database: str) -> None:
    async with a_home(database) as home:
        async with Recorder(options(home.nats, home.spools)) as recorder:
            for n in range(10):
                recorder.record(failed(n))
            await drained(recorder)
        await home.projected.caught_up()
        await home.projected.session.execute("INSERT INTO publisher_gaps VALUES ($1, 4, 5, now())", recorder.publisher)
        with pytest.raises(RetireRefused, match=r"can be read in slot-0\.db \(2 events\)"):
            await home.retire(recorder.publisher)
        assert (home.spools / "slot-0.db").exists()


async def test_status_shows_what_waits_here_while_nats_is_away(database: str) -> None:
    async with a_home(database) as home:
        await left_behind(home, 5)
        await home.nats.kill()
        done = await home.run("status", "--json")
        assert done.returncode == 1
        assert "does not answer" in done.stderr
        said = json.loads(done.stdout)
        assert said["exposed"]["events"] == 8
        assert said["exposed"]["oldest_s"] > 0
        await home.nats.start()
