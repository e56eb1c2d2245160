"""What tests of breakers share: processes of a fleet on one NATS server, with one clock that the test moves."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import pytest_asyncio
from stack import NOW, bodies, connected, nats_server, on_stream, options, until

from relight.engine.clock import ScriptedClock
from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.guard.breakers.breaker import Breaker, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.guard.breakers.fleet import policy_version
from relight.engine.policies.breaker import BreakerPolicy
from relight.engine.policies.fleet_breaker import FleetPolicy, State, ruling_of
from relight.engine.recorder.recorder import Recorder
from relight.events.catalog import decode

FLEET = FleetPolicy(open_s=30, lease_s=20)
POLICY = BreakerPolicy(consecutive_failures=2, open_s=20, jitter=0, fleet=FLEET)
TENANTS = (f"tenant-{n}" for n in count())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats() -> AsyncIterator[EmbeddedNats]:
    async with nats_server(sync_always=False) as server:
        yield server


@dataclass
class Process:
    """One of a fleet, as far as its breakers are concerned."""

    recorder: Recorder
    breakers: Breakers
    breaker: Breaker
    clock: ScriptedClock

    def call(self, *, answered: bool) -> Permit | Refused:
        permit = self.breaker.permit(self.clock.now_us())
        if not isinstance(permit, Refused):
            self.end(permit, answered=answered)
        return permit

    def end(self, permit: Permit, *, answered: bool) -> None:
        if answered:
            self.breaker.succeeded(permit, 1_000)
        else:
            self.breaker.failed(permit, "timeout")

    def trip(self) -> None:
        for _ in range(2):
            self.call(answered=False)

    @property
    def state(self) -> State:
        """What it does with a call, and who ruled so."""
        health = self.breaker.health()
        return State.CLOSED if health is None else health.state

    def is_open_by_fleet(self) -> bool:
        health = self.breaker.health()
        return health is not None and health.fleet and health.state is State.OPEN

    async def leased(self) -> Permit:
        """Asks until the fleet's probes are this process's."""

        def ask() -> Permit | None:
            permit = self.breaker.permit(self.clock.now_us())
            return None if isinstance(permit, Refused) else permit

        permit: Permit = await until(ask, "the probes are leased")
        return permit


@dataclass
class Fleet:
    """Processes of one tenant, with one clock that the test moves."""

    clock: ScriptedClock
    processes: list[Process]

    async def knows(self, condition: Callable[[Process], bool], what: str) -> None:
        await until(lambda: all(condition(process) for process in self.processes), what)

    async def opens(self) -> None:
        """By a ruling that all of them know; each refuses calls before, while it expects the ruling."""
        before = {id(process): process.breaker.rev for process in self.processes}
        for process in self.processes[:3]:
            process.trip()
        await self.knows(Process.is_open_by_fleet, "the fleet's breaker is open for everyone")
        await self.knows(lambda process: process.breaker.rev > before[id(process)], "everyone has the ruling")


@asynccontextmanager
async def fleet(
    url_of: EmbeddedNats, tenant: str, *, domains: str = "ABAB", policy: BreakerPolicy = POLICY
) -> AsyncIterator[Fleet]:
    clock = ScriptedClock(NOW - timedelta(seconds=600))
    async with AsyncExitStack() as opened:
        processes = []
        for domain in domains:
            given = options(url_of, tenant=tenant, fault_domain=domain)
            recorder = await opened.enter_async_context(Recorder(given, clock=clock))
            breakers = Breakers(recorder, policy)
            processes.append(Process(recorder, breakers, breakers.of("crm"), clock))
        found = Fleet(clock, processes)
        await found.knows(lambda process: process.breakers.health().failure is None, "rulings arrive")
        yield found


async def events_of(nats: EmbeddedNats, tenant: str, type: str = "breakers.") -> list[dict[str, Any]]:
    async with connected(nats) as client:
        return [b for b in bodies(await on_stream(client)) if b["tenant"] == tenant and b["type"].startswith(type)]


async def assert_replayed(nats: EmbeddedNats, tenant: str) -> list[str]:
    """The decider makes the same rulings of the events on the stream; gives their types."""
    async with connected(nats) as client:
        messages = [(m.seq, decode(m.body)) for m in await on_stream(client)]
    ours = [(seq, event) for seq, event in messages if event.tenant == tenant and event.type.startswith("breakers.")]
    rulings = [event for _, event in ours if event.rev is not None]
    for ruling in rulings:
        seen = [event for seq, event in ours if seq <= (ruling.observedseq or 0)]
        assert ruling_of(seen, ruling, FLEET) == ruling.data
        assert ruling.policyversion == policy_version(FLEET)
    return [ruling.type for ruling in rulings]


async def voted(client: Any, tenant: str, votes: int) -> bool:
    found = bodies(await on_stream(client))
    return sum(body["tenant"] == tenant and body["type"] == "breakers.tripped" for body in found) == votes
