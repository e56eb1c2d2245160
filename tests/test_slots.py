"""Who writes which spool: slots, copies, forks."""

import asyncio
import os
import shutil
from pathlib import Path

from stack import (
    assert_chained,
    bodies,
    connected,
    failed,
    holds_of,
    nats_server,
    numbers,
    on_stream,
    options,
    until,
)

from relight.engine.errors import RecorderError
from relight.engine.log.receipts import Ack
from relight.engine.log.recorder import Recorder


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
