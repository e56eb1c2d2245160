"""How soon a fleet of 50 processes knows that its breaker is open, beside the same message on a plain subscription."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from measuring import Bench, Figure, percentile
from servers import connected, new_stream

from relight.engine.log.reader import BEGINNING, Message, Reader

TESTS = Path(__file__).parent.parent
PROCESSES = 50
TARGET_MS = 250.0


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    sys.path.append(str(TESTS))
    from fleet_figures import figures

    folder = bench.folder / "fleet"
    async with connected(bench) as client:
        await new_stream(client)
        arguments = (bench.nats.url, str(folder), str(PROCESSES), str(bench.count(5, 1)))
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(TESTS / "fleet_processes.py"), *arguments, stdout=subprocess.PIPE
        )
        out, _ = await child.communicate()
        assert child.returncode == 0, "the fleet's own error is printed above"
        messages: list[Message] = []
        async with Reader(client, BEGINNING) as reader:
            async for batch in reader.through((await reader.state()).last_seq, limit=10_000):
                messages += batch
        rounds = [figures(json.loads(line), messages) for line in out.splitlines()]
        await new_stream(client)
    shutil.rmtree(folder, ignore_errors=True)
    note = f"{PROCESSES} processes, from the quorum's last vote on the stream"
    told = "a plain subscription of the same clients, before it is stored"
    for title, fraction, target in (("p50", 0.5, None), ("p99", 0.99, TARGET_MS)):
        refused = [percentile(one.refused_ms, fraction) for one in rounds]
        known = [percentile(one.known_ms, fraction) for one in rounds]
        raw = [percentile(one.raw_ms, fraction) for one in rounds]
        yield Figure(name=f"quorum -> {PROCESSES} refuse, {title}", unit="ms", ours=refused, target=target, note=note)
        yield Figure(name=f"quorum -> {PROCESSES} have the ruling, {title}", unit="ms", ours=known, note=note)
        yield Figure(name=f"quorum -> {PROCESSES} have its bare message, {title}", unit="ms", ours=raw, note=told)
