"""A fleet of processes against one dependency that fails: all know soon, probes are few, and a faulty one is alone."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fleet_figures import figures, percentile
from fleet_processes import FLEET
from stack import connected, folder, nats_server, on_stream

from relight.engine.policies.fleet_breaker import ruling_of
from relight.events.breakers import BreakerHalfOpened, BreakerOpened

PROCESSES = 20
"""`make bench` takes 50."""
WITHIN_MS = 250.0
ROOM = 10.0
"""Times the bare message's delay in the same run, or that many times `WITHIN_MS`: only `make bench` measures."""
TEST_S = 400.0
"""More than all steps of the fleet may take, each of which says what it waited for."""
CHILD = Path(__file__).with_name("fleet_processes.py")


async def told(child: asyncio.subprocess.Process, errors: Path) -> dict[str, Any]:
    """The next line that the fleet prints; where there is none, its own error is the test's."""
    assert child.stdout is not None
    if not (line := await child.stdout.readline()):
        pytest.fail(f"the fleet ended with exit code {await child.wait()}:\n{errors.read_text()}")
    found: dict[str, Any] = json.loads(line)
    return found


async def test_a_quorum_stops_the_whole_fleet_and_few_probes_find_out_when_to_go_on() -> None:
    async with nats_server(sync_always=False) as nats:  # a busy disk would be measured: `make bench` does
        with folder() as path:
            errors = path / "errors"
            with errors.open("wb") as file:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, str(CHILD), nats.url, str(path), str(PROCESSES), "1", "--until-told"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    limit=1 << 20,
                )
            assert child.stdin is not None
            try:
                async with asyncio.timeout(TEST_S):
                    said = await told(child, errors)
                    async with connected(nats) as client:
                        found = figures(said, await on_stream(client))
                    await nats.kill()
                    child.stdin.close()
                    alone = await told(child, errors)
                    assert await child.wait() == 0, errors.read_text()
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()

    assert said["faulty_alone"], "one faulty process opened only itself"
    leases = [ruling for ruling in found.rulings if isinstance(ruling.data, BreakerHalfOpened)]
    opened, reopened, *_, closed = [ruling for ruling in found.rulings if ruling not in leases]
    assert isinstance(opened.data, BreakerOpened)
    assert len(opened.data.processes) >= FLEET.quorum_processes
    assert len(opened.data.fault_domains) >= FLEET.quorum_fault_domains
    assert (reopened.type, closed.type) == ("breakers.opened", "breakers.closed")
    assert [ruling.type for ruling in found.rulings[:2]] == ["breakers.opened", "breakers.half_opened"]
    calls = sum(process["after_trip"] for process in said["children"])
    assert 2 <= calls <= len(leases) * FLEET.probes, "calls after the trip stay within the probe budget"

    for ruling in found.rulings:
        seen = [event for seq, event in found.events if seq <= (ruling.observedseq or 0)]
        assert ruling_of(seen, ruling, FLEET) == ruling.data, "the events give every ruling again"

    refused, raw = percentile(found.refused_ms, 0.99), percentile(found.raw_ms, 0.99)
    print(
        f"{PROCESSES} processes refuse calls {refused:.0f} ms (p99) after quorum and have the ruling after"
        f" {percentile(found.known_ms, 0.99):.0f} ms; the bare message, not yet stored, took {raw:.0f} ms"
    )
    assert refused <= ROOM * max(WITHIN_MS, raw)
    assert alone["tripped"] == PROCESSES, "with NATS gone every process breaks for itself"
