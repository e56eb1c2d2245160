"""Three regions on a real cluster: who is killed or stopped is voted on and ruled, who is slow is not."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clusters
import orjson
import pytest
import pytest_asyncio
import stack
from nats.aio.client import Client
from region_child import EVERY_S, REGIONS

from relight.engine.regions.heartbeats import SERVICE, WORKER, heartbeat_subject
from relight.events.base import Event
from relight.events.catalog import decode_message
from relight.events.envelope import Recorded
from relight.events.faults import FaultRuling, FaultVote

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Child:
    """A process of a region, and what it said."""

    process: "subprocess.Popen[bytes]"
    said: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, url: str, region: str, kind: str, id: str) -> "Child":
        script = str(Path(__file__).with_name("region_child.py"))
        command = [sys.executable, script, url, region, kind, id]
        child = cls(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        threading.Thread(target=child._read, daemon=True).start()
        return child

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def signal(self, how: signal.Signals) -> None:
        self.process.send_signal(how)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def standings(self, name: str) -> list[str]:
        return [one["standing"] for one in self.said if one.get("name") == name]

    async def says(self, key: str, value: object) -> None:
        await stack.until(lambda: any(one.get(key) == value for one in self.said), f"{key} {value}")


@dataclass
class Fleet:
    members: dict[str, clusters.Member]
    services: dict[str, Child]
    client: Client

    async def events(self) -> list[Recorded[Event]]:
        found = [decode_message(one.subject, one.body, one.timestamp_ms) for one in await stack.on_stream(self.client)]
        return [event for event in found if isinstance(event.data, FaultRuling | FaultVote)]

    async def rulings(self, domain: str) -> list[str]:
        return [
            event.type.partition(".")[2]
            for event in await self.events()
            if isinstance(event.data, FaultRuling) and event.data.domain == domain
        ]

    async def is_ruled(self, domain: str, *rulings: str) -> None:
        """The last rulings on this domain are these."""

        async def ruled() -> bool:
            return (await self.rulings(domain))[-len(rulings) :] == list(rulings)

        await stack.until(ruled, f"{domain} is {rulings[-1]}")

    async def all_see(self, name: str, standing: str, *but: str) -> None:
        for region, child in self.services.items():
            if region not in (name, *but):
                await stack.until(lambda c=child: c.standings(name)[-1:] == [standing], f"{region}: {name} {standing}")


async def slow(client: Client, id: str) -> None:
    """A worker whose heartbeats are late by up to two intervals, in any order, and a fifth of them are lost."""
    chance, waiting = random.Random(1), set()

    async def send(seq: int) -> None:
        await asyncio.sleep(chance.uniform(0, 2 * EVERY_S))
        said = {"id": id, "region": "eu", "kind": WORKER, "generation": 1, "seq": seq, "sent_at_us": 0}
        await client.publish(heartbeat_subject("eu", WORKER, id), orjson.dumps(said))

    seq = 0
    while True:
        seq += 1
        if chance.random() > 0.2:
            waiting.add(task := asyncio.create_task(send(seq)))
            task.add_done_callback(waiting.discard)
        await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def running_fleet() -> AsyncIterator[Fleet]:
    async with clusters.cluster(*[clusters.STRONG] * 3) as members, clusters.joined(members[0]) as client:
        await clusters.declare(client)
        leading = await clusters.leader(client)
        # The region that is lost is neither the test's own nor the stream's leader's: that has an election of its own.
        lost = next(member for member in members[1:] if member.name != leading)
        others = [member for member in members if member is not lost]
        where = dict(zip(REGIONS, [*others, lost], strict=True))
        services = {region: Child.start(member.url, region, SERVICE, region) for region, member in where.items()}
        late = asyncio.create_task(slow(client, "slow"))
        fleet = Fleet(where, services, client)
        try:
            for region in REGIONS:
                await fleet.all_see(region, "alive")
            yield fleet
        finally:
            late.cancel()
            for child in fleet.services.values():
                child.end()
            with suppress(asyncio.CancelledError):
                await late


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    async with running_fleet() as running:
        yield running


async def test_stopped_processes_are_isolated_and_trusted_again_when_they_go_on(fleet: Fleet) -> None:
    worker = Child.start(fleet.members["ap"].url, "ap", WORKER, "w-1")
    try:
        await fleet.all_see("w-1", "alive")
        service = fleet.services["us"]
        service.ask("know us")
        await stack.until(lambda: any("known" in one for one in service.said))
        for process in (worker, service):
            process.signal(signal.SIGSTOP)
        await fleet.is_ruled("engine:w-1", "detected", "isolated")
        await fleet.is_ruled("region:us", "detected", "isolated")
        await fleet.all_see("us", "isolated")
        await fleet.all_see("w-1", "isolated", "us")
        service.ask("append us")  # it reads that when it goes on: with what it knew before

        for process in (worker, service):
            process.signal(signal.SIGCONT)
        await service.says("append", "Superseded")
        await fleet.is_ruled("region:us", "detected", "isolated", "recovering", "recovered")
        await fleet.is_ruled("engine:w-1", "detected", "isolated", "recovering", "recovered")
        await fleet.all_see("us", "alive")
        assert await fleet.rulings("region:eu") == []
        assert await fleet.rulings("region:ap") == [], "who was stopped suspects nobody for it"
    finally:
        worker.end()


async def test_who_is_slow_and_loses_heartbeats_is_isolated_by_nobody(fleet: Fleet) -> None:
    await fleet.all_see("slow", "alive")
    assert await fleet.rulings("engine:slow") == []


async def test_a_region_that_is_killed_with_its_server_is_isolated_by_the_two_others(fleet: Fleet) -> None:
    fleet.services["us"].signal(signal.SIGKILL)
    fleet.members["us"].stop()
    await fleet.all_see("us", "isolated")
    await fleet.is_ruled("region:us", "detected", "isolated")
    ruling = [event.data for event in await fleet.events() if event.data.entity == "region:us"][-1]
    assert isinstance(ruling, FaultRuling)
    assert (ruling.voters, ruling.voter_regions, ruling.confidence) == (("ap", "eu"), ("ap", "eu"), 1.0)
    assert ruling.phi is not None
    assert ruling.phi >= 8
