"""Processes that end without stopping their recorder, or fork: what was taken is written, and every spool is freed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stack import assert_chained, bodies, connected, nats_server, numbers, on_stream, options, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.recorder.recorder import Recorder

EVENTS = 200


async def ended(nats: EmbeddedNats, spools: Path, way: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of a child that recorded `EVENTS` events and ended in this way, and what it said."""
    command = [sys.executable, str(Path(__file__).with_name("spooling_child.py")), nats.url, str(spools), way]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said, _ = await asyncio.to_thread(child.communicate, timeout=60)
    return child.returncode, [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("way", ["sys.exit", "exception", "daemon", "os._exit", "sigterm"])
async def test_what_was_taken_is_written_however_the_interpreter_ends(way: str, spools: Path) -> None:
    async with nats_server() as nats, connected(nats) as client:
        await nats.kill()  # so that all of it is on the disk alone
        code, [said] = await ended(nats, spools, way)
        assert code == {"sys.exit": 3, "exception": 1, "daemon": 0, "os._exit": 4, "sigterm": -signal.SIGTERM}[way]
        await nats.start()
        async with Recorder(options(nats, spools)) as recorder:
            assert recorder.publisher == said["publisher"]
            await until(lambda: recorder.health().exposed_events == 0, "the spool is drained")
            messages = await on_stream(client)
            assert sorted(n for n in numbers(messages) if n < EVENTS) == list(range(EVENTS))
            types = [body["type"] for body in assert_chained(messages, recorder.publisher)]
            # Who had no say could not say `closed`: the tail is in doubt, and said to be.
            assert types.count("recorder.closed") == (way not in ("os._exit", "sigterm"))


@pytest.mark.parametrize("way", ["fork", "spawn", "inherited"])
async def test_children_of_multiprocessing_record_under_identities_of_their_own_and_lose_nothing(
    way: str, spools: Path
) -> None:
    async with nats_server() as nats, connected(nats) as client:
        code, [said, child] = await ended(nats, spools, way)
        assert (code, child) == (0, {"exit": 0})
        async with Recorder(options(nats, spools)):

            async def all_there() -> bool:
                return len(numbers(await on_stream(client))) >= 2 * EVENTS

            await until(all_there, "both have recorded")
        messages = await on_stream(client)
        assert sorted(numbers(messages)) == [*range(EVENTS), *range(1_000, 1_000 + EVENTS)]
        by = {body["publisher"] for body in bodies(messages) if body["data"].get("details", {}).get("n", 0) >= 1_000}
        assert len(by) == 1
        assert said["publisher"] not in by
        for publisher in {body["publisher"] for body in bodies(messages)}:
            assert_chained(messages, publisher)


async def test_forks_while_other_threads_hold_locks_hang_neither_parent_nor_children(spools: Path) -> None:
    async with nats_server() as nats:
        code, [_, said] = await ended(nats, spools, "forking")
        assert (code, said["codes"]) == (0, [0] * 8)


async def test_a_child_that_outlives_its_parent_does_not_hold_the_parents_spool(spools: Path) -> None:
    """Found: a fork()ed child shares the lock's open file, so the dead parent's spool counted as taken."""
    async with nats_server() as nats, connected(nats) as client:
        await nats.kill()
        command = [sys.executable, str(Path(__file__).with_name("spooling_child.py")), nats.url, str(spools)]
        child = subprocess.Popen([*command, "outlived"], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = [await asyncio.to_thread(child.stdout.readline) for _ in range(2)]
        said, children = json.loads(lines[0]), json.loads(lines[1])["children"]
        try:
            assert await asyncio.to_thread(child.wait, 20) == -signal.SIGKILL
            await nats.start()
            async with Recorder(options(nats, spools)) as recorder:
                assert recorder.publisher == said["publisher"]
                await until(lambda: recorder.health().exposed_events == 0, "the spool is drained")
            assert sorted(numbers(await on_stream(client))) == list(range(EVENTS + 1))
        finally:
            child.stdout.close()
            for pid in children:
                os.kill(pid, signal.SIGKILL)
