"""Who writes which spool: slots, copies, forks."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from stack import (
    assert_chained,
    bodies,
    connected,
    drained,
    failed,
    holds_of,
    nats_server,
    numbers,
    on_stream,
    options,
    service_answers,
    until,
)

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import RecorderError
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.locks import acquire, announce, nonces, release
from relight.engine.spool.spool import Spool


async def test_slots_are_shared_out_among_the_living_and_reused_after_them(spools: Path) -> None:
    async with nats_server() as nats:
        async with Recorder(options(nats, spools)) as first, Recorder(options(nats, spools)) as second:
            assert first.publisher != second.publisher
            known = {first.publisher, second.publisher}
        async with Recorder(options(nats, spools)) as third:
            assert third.publisher in known


async def test_a_copied_spool_is_drained_under_its_identity_but_never_written_under_it(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        await nats.kill()
        recorder = Recorder(options(nats, spools))
        recorder.start()
        await recorder.record(failed(1)).reached(Ack.SPOOLED)
        original = recorder.publisher
        recorder.stop(deadline_s=0.1)
        slot = spools / "slot-0.db"
        shutil.copy(slot, spools / "copy")
        (spools / "copy").rename(slot)
        await nats.start()
        async with Recorder(options(nats, spools)) as clone:
            assert clone.publisher != original
            await clone.record(failed(2)).reached(Ack.REPLICATED)
            await until(lambda: holds_of(client, original, 3), "the old identity's events are drained")
        messages = await on_stream(client)
        assert [b["type"] for b in assert_chained(messages, original)][1:] == ["breakers.failed", "recorder.closed"]
        assert len(assert_chained(messages, clone.publisher)) == 3


async def test_a_forked_child_records_under_an_identity_of_its_own(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        async with Recorder(options(nats, spools)) as recorder:
            mine = recorder.record(failed(1))
            await mine.reached(Ack.REPLICATED)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    receipt = recorder.record(failed(2))
                    receipt.wait(Ack.REPLICATED, timeout_s=10)
                    try:
                        mine.wait(Ack.PROJECTED, timeout_s=1)
                    except RecorderError as error:
                        status = 0 if "forked from" in str(error) else 2
                    recorder.stop()
                finally:
                    os._exit(status)
            await recorder.record(failed(3)).reached(Ack.REPLICATED)
            assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 0
            await recorder.record(failed(4)).reached(Ack.REPLICATED)
        messages = await on_stream(client)
        publishers = {body["publisher"] for body in bodies(messages)}
        assert len(publishers) == 2
        assert sorted(len(assert_chained(messages, publisher)) for publisher in publishers) == [3, 5]
        assert sorted(numbers(messages)) == [1, 2, 3, 4]


async def unsent(nats: EmbeddedNats, spools: Path, n: int) -> str:
    """A spool whose events no server has; gives its publisher."""
    recorder = Recorder(options(nats, spools))
    recorder.start()
    await recorder.record(failed(n)).reached(Ack.SPOOLED)
    await asyncio.to_thread(recorder.stop, deadline_s=0.1)
    return recorder.publisher


@pytest.mark.parametrize("way", ["copied over", "hard link", "reflink", "an older one over a newer"])
async def test_a_file_that_is_not_where_it_was_written_or_older_never_lends_its_identity(
    way: str, spools: Path
) -> None:
    async with nats_server() as nats, connected(nats) as client:
        await nats.kill()
        original = await unsent(nats, spools, 1)
        slot, kept = spools / "slot-0.db", spools / "kept"
        match way:
            case "hard link":
                os.link(slot, spools.parent / "also.db")
            case "reflink":
                subprocess.run(["cp", "--reflink=auto", slot, kept], check=True)
                kept.rename(slot)
            case "copied over":
                shutil.copy(slot, kept)
                await unsent(nats, spools, 2)
                slot.write_bytes(kept.read_bytes())  # the same inode, as `cp` and `rsync --inplace` have it
            case _:
                shutil.copy(slot, kept)
                assert await unsent(nats, spools, 2) == original
                slot.unlink()
                kept.rename(slot)
        await nats.start()
        async with Recorder(options(nats, spools)) as recorder:
            assert recorder.publisher != original
            await recorder.record(failed(3)).reached(Ack.REPLICATED)
            await until(lambda: holds_of(client, original, 3), "what the file holds is drained")
        messages = await on_stream(client)
        assert_chained(messages, original)
        assert_chained(messages, recorder.publisher)


async def test_an_opening_that_died_halfway_costs_no_identity(spools: Path) -> None:
    async with nats_server() as nats:
        original = await unsent(nats, spools, 1)
        lock = acquire(spools / "slot-0.db")
        assert lock is not None
        announce(lock, ["0" * 32, *nonces(lock)])  # what is written first, and then nothing more
        release(lock)
        assert await unsent(nats, spools, 2) == original
        assert len(nonces_of(spools)) == 1


def nonces_of(spools: Path) -> list[str]:
    return (spools / "slot-0.lock").read_text().split()


async def test_of_two_machines_with_one_disk_image_one_takes_another_identity_once_it_sees_the_other(
    spools: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same machine id, inode and nonce: nothing on the machine tells, but what stands in the tables does."""
    monkeypatch.setattr("relight.engine.recorder.upkeep.EVICT_EVERY_S", 0.2)
    async with nats_server() as nats, service_answers(nats, database) as projected:
        original = await unsent(nats, spools, 0)
        image = {path.name: path.read_bytes() for path in spools.iterdir()}
        async with Recorder(options(nats, spools)) as first:
            assert first.publisher == original
            for n in range(1, 20):
                first.record(failed(n))
            await drained(first)
        for name, body in image.items():
            (spools / name).write_bytes(body)
        async with Recorder(options(nats, spools)) as second:
            assert second.publisher == original
            await until(lambda: second.publisher != original, "it sees that it is not alone")
            await second.record(failed(100)).reached(Ack.REPLICATED)
            adopted = [path for path in spools.glob("adopted-*.db")]
            assert len(adopted) == 1
        assert set(numbers(await on_stream(projected.client))) == {*range(20), 100}


async def test_a_spool_whose_acknowledgement_was_lost_long_ago_is_not_sent_again_by_whoever_adopts_it(
    spools: Path, database: str
) -> None:
    async with nats_server() as nats, service_answers(nats, database) as projected:
        async with Recorder(options(nats, spools)), Recorder(options(nats, spools)) as second:
            for n in range(30):
                second.record(failed(n))
            await drained(second)
        await projected.caught_up()
        edited = sqlite3.connect(spools / "slot-1.db")
        edited.execute("DELETE FROM acks")  # as if it had died right before
        edited.execute("UPDATE events SET recorded_ms = recorded_ms - 600000")
        edited.commit()
        edited.close()
        js = projected.client.jetstream()
        config = (await js.stream_info("EV")).config
        config.duplicate_window = 0.1
        await js.update_stream(config=config)
        async with Recorder(options(nats, spools)):
            left = Spool(spools / "slot-1.db", read_only=True)
            await until(lambda: left.exposure().events == 0, "it is drained")
            left.close()
        assert numbers(await on_stream(projected.client)) == list(range(30))
