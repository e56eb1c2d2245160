"""Spools on disks that are full and in places that cannot be written: recording goes on, and that is said."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from left_spools import EVENTS, left_behind
from stack import bodies, connected, failed, folder, nats_server, numbers, on_stream, options, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import AckNotProven
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.spool.aside import Note, asides


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """A file system of its own, which can be filled."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    with folder() as there:
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(there)]
        if subprocess.run(mounting, check=False, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            yield there
        finally:
            subprocess.run(["umount", "-l", str(there)], check=True)


def fill(disk: Path) -> Path:
    """Leaves nothing free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(b"0")
        except OSError:
            pass
    return ballast


async def test_on_a_disk_that_is_full_at_opening_recording_goes_on_in_memory_and_then_on_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relight.engine.recorder.watchdog.BACK_S", 0.2)
    with small_disk(32) as disk:
        async with nats_server() as nats, connected(nats) as client:
            (disk / "spool").mkdir()
            ballast = fill(disk)
            async with Recorder(options(nats, disk / "spool", memory_max_events=500)) as recorder:
                assert "full" in (recorder.health().spool_fault or "")
                with pytest.raises(AckNotProven, match="no spool on disk"):
                    await recorder.record(failed(0)).reached(Ack.SPOOLED)
                await recorder.record(failed(1)).reached(Ack.REPLICATED)
                in_memory = recorder.publisher
                await nats.kill()
                receipts = [recorder.record(failed(n)) for n in range(2, 1_002)]
                refused = [receipt for receipt in receipts if receipt.refused]
                assert 450 < len(refused) < 550
                assert "RELIGHT_MEMORY_MAX_EVENTS" in (refused[0].refused or "")
                ballast.unlink()
                await until(lambda: recorder.publisher != in_memory, "there is a spool on disk again")
                assert recorder.health().spool_fault is None
                await recorder.record(failed(5_000)).reached(Ack.SPOOLED)
                await nats.start()
                kept = {0, 1, 5_000, *(n for n, receipt in enumerate(receipts, 2) if not receipt.refused)}

                async def all_there() -> bool:
                    return set(numbers(await on_stream(client))) == kept

                await until(all_there, "what was taken is there")
                assert recorder.health().refused_events == len(refused)
            gaps = [b["data"]["refused_events"] for b in bodies(await on_stream(client)) if b["type"] == "recorder.gap"]
            assert sum(gaps) == len(refused)


async def test_on_a_disk_that_becomes_full_recording_goes_on_in_memory_and_nothing_taken_is_lost_or_doubled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relight.engine.recorder.watchdog.FAILING_S", 0.5)
    monkeypatch.setattr("relight.engine.recorder.watchdog.BACK_S", 0.2)
    with small_disk(32) as disk:
        async with nats_server() as nats, connected(nats) as client:
            async with Recorder(options(nats, disk / "spool")) as recorder:
                on_disk = recorder.publisher
                await recorder.record(failed(0)).reached(Ack.REPLICATED)
                await nats.kill()
                for n in range(1, 100):
                    recorder.record(failed(n))
                await recorder.record(failed(100)).reached(Ack.SPOOLED)
                ballast = fill(disk)
                total = 101
                while recorder.publisher == on_disk:
                    recorder.record(failed(total))
                    total += 1
                    await asyncio.sleep(0.001)
                assert "full" in (recorder.health().spool_fault or "")
                await nats.start()
                await recorder.record(failed(total)).reached(Ack.REPLICATED)  # straight from memory
                total += 1
                ballast.unlink()
                await until(lambda: recorder.health().spool_fault is None, "there is room again")
                receipt = recorder.record(failed(total))
                await receipt.reached(Ack.SPOOLED)

                async def all_there() -> bool:
                    return sorted(numbers(await on_stream(client))) == list(range(total + 1))

                await until(all_there, "each is there once")


def hemmed_in(command: list[str]) -> list[str]:
    """Root heeds no permissions unless its capability to override them is taken away."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed here, and root heeds no permissions")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *command]


def told(nats: EmbeddedNats, spools: Path) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).with_name("spooling_child.py")), nats.url, str(spools), "told"]
    done = subprocess.run(hemmed_in(command), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return {"stderr": done.stderr, **json.loads(done.stdout)}


async def test_in_a_folder_that_cannot_be_written_events_are_held_in_memory_and_that_is_said(spools: Path) -> None:
    spools.mkdir()
    spools.chmod(0o555)
    async with nats_server() as nats, connected(nats) as client:
        said = await asyncio.to_thread(told, nats, spools)
        assert "Permission denied" in said["spool_fault"]
        assert str(spools) in said["stderr"]
        assert numbers(await on_stream(client)) == [0]
    spools.chmod(0o755)
    assert list(spools.iterdir()) == []


async def test_a_file_that_cannot_be_written_is_put_aside_and_drained_with_what_was_acknowledged(spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        old = await left_behind(nats, spools)
        (spools / "slot-0.db").chmod(0o444)
        before = (spools / "slot-0.db").read_bytes()
        said = await asyncio.to_thread(told, nats, spools)
        assert said["publisher"] != old
        assert said["spool_fault"] is None
        [aside] = asides(spools)
        assert aside.name.startswith("aside-readonly-slot-0-")
        assert aside.read_bytes() == before
        async with Recorder(options(nats, spools)):
            await until(lambda: Note.of(aside).salvaged, "it is salvaged")

            async def all_there() -> bool:
                return len([b for b in bodies(await on_stream(client)) if b["publisher"] == old]) == EVENTS + 3

            await until(all_there, "it is drained")
