"""What processes agree on about a dependency: who opens it, who probes it, and what each of them follows."""

import asyncio
from datetime import timedelta
from typing import Any

import breaking
import pytest
from breaking import POLICY, TENANTS, Process, assert_replayed, events_of, fleet, voted
from stack import connected, options, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.guard.breakers.breaker import CLOSED, Permit, Refused
from relight.engine.guard.breakers.breakers import Breakers
from relight.engine.recorder.recorder import Recorder

nats = breaking.nats


async def test_a_quorum_opens_it_for_everyone_and_an_answered_probe_closes_it_for_everyone(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        bystander = all_.processes[3]
        await all_.opens()
        refused = bystander.call(answered=True)
        assert isinstance(refused, Refused)
        assert refused.fleet
        assert refused.reason == "3 processes in 2 fault domains tripped"

        all_.clock.advance(31)
        probe = await bystander.leased()
        others = [process.call(answered=True) for process in all_.processes]
        assert all(isinstance(answer, Refused) for answer in others), "its one probe is out"
        bystander.end(probe, answered=True)
        await all_.knows(lambda process: process.call(answered=True) is CLOSED, "calls pass everywhere")
        voters = {process.breakers.process for process in all_.processes[:3]}
    opened, half_opened, closed = [e for e in await events_of(nats, tenant) if e.get("rev")]
    assert set(opened["data"]["processes"]) == voters
    assert opened["data"]["fault_domains"] == ["A", "B"]
    assert half_opened["data"]["holder"] == bystander.breakers.process
    assert closed["type"] == "breakers.closed"
    votes = {event["id"] for event in await events_of(nats, tenant, "breakers.tripped")}
    assert opened["causationid"] in votes
    resets = [event["data"]["process"] for event in await events_of(nats, tenant, "breakers.reset")]
    assert sorted(resets) == sorted([bystander.breakers.process, *voters])
    assert await assert_replayed(nats, tenant) == ["breakers.opened", "breakers.half_opened", "breakers.closed"]


async def test_a_probe_that_fails_opens_it_for_longer(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        await all_.opens()
        for lasts_s in (60, 120):
            all_.clock.advance(lasts_s / 2 + 1)
            holder = all_.processes[3] if lasts_s == 60 else all_.processes[0]
            holder.end(await holder.leased(), answered=False)
            until_ = all_.clock.now() + timedelta(seconds=lasts_s)

            def is_open_again(process: Process, until_: Any = until_) -> bool:
                health = process.breaker.health()
                return process.is_open_by_fleet() and health is not None and health.until == until_

            await all_.knows(is_open_again, f"open for {lasts_s} s")
    rulings = await assert_replayed(nats, tenant)
    assert rulings == ["breakers.opened", *["breakers.half_opened", "breakers.opened"] * 2]


async def test_of_many_that_would_probe_one_gets_the_lease_and_an_expired_one_is_taken_over(
    nats: EmbeddedNats,
) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        await all_.opens()
        all_.clock.advance(31)
        permits: list[tuple[Process, Permit]] = []

        def ask_all() -> None:
            for process in all_.processes:
                permit = process.breaker.permit(all_.clock.now_us())
                if isinstance(permit, Permit):
                    permits.append((process, permit))

        def one_asked() -> bool:
            ask_all()
            return bool(permits)

        await until(one_asked, "one of them got the probe")
        for _ in range(20):
            ask_all()
            await asyncio.sleep(0.01)
        assert len(permits) == 1
        [(silent, first)] = permits

        all_.clock.advance(21)
        others = [process for process in all_.processes if process is not silent]
        second = await others[0].leased()
        silent.end(first, answered=False)  # its lease is over: it answers for nothing but itself
        others[0].end(second, answered=True)
        await all_.knows(lambda process: process.breaker.health() is None or process is silent, "closed")
    assert await assert_replayed(nats, tenant) == [
        "breakers.opened",
        "breakers.half_opened",
        "breakers.half_opened",
        "breakers.closed",
    ]


@pytest.mark.parametrize("domains", ["ABCD", "AAAA"])
async def test_a_faulty_process_or_a_faulty_domain_opens_only_itself(nats: EmbeddedNats, domains: str) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant, domains=domains + "B") as all_:
        faulty = all_.processes[:1] if domains == "ABCD" else all_.processes[:4]
        sound = [process for process in all_.processes if process not in faulty]
        for process in faulty:
            process.trip()
        for process in all_.processes:  # what anybody would have ruled, all would have seen before this
            process.recorder.health()
        async with connected(nats) as client:
            await until(lambda: voted(client, tenant, len(faulty)), "the votes stand on the stream")
        for _ in range(3):
            all_.clock.advance(5)
            assert all(process.call(answered=True) is CLOSED for process in sound)
            assert all(isinstance(process.call(answered=True), Refused) for process in faulty)
            await asyncio.sleep(0.1)  # longer than others leave a ruling to whom it follows from
    assert [event for event in await events_of(nats, tenant) if event.get("rev")] == []


async def test_a_newcomer_learns_what_holds(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant) as all_:
        await all_.opens()
        given = options(nats, tenant=tenant, fault_domain="C")
        async with Recorder(given, clock=all_.clock) as recorder:
            breakers = Breakers(recorder, POLICY)
            newcomer = Process(recorder, breakers, breakers.of("crm"), all_.clock)
            await until(newcomer.is_open_by_fleet, "it is open for who came later")
            other = breakers.of("erp")
            await until(lambda: other.permit(all_.clock.now_us()) is CLOSED, "others are not")


async def test_votes_that_came_before_a_process_count_with_it(nats: EmbeddedNats) -> None:
    tenant = next(TENANTS)
    async with fleet(nats, tenant, domains="AB") as two:
        for process in two.processes:
            process.trip()
        given = options(nats, tenant=tenant, fault_domain="C")
        async with connected(nats) as client, Recorder(given, clock=two.clock) as recorder:
            await until(lambda: voted(client, tenant, 2), "both stand on the stream")
            breakers = Breakers(recorder, POLICY)
            third = Process(recorder, breakers, breakers.of("crm"), two.clock)
            third.trip()
            await until(third.is_open_by_fleet, "three make a quorum")
            await until(lambda: third.breaker.rev == 1, "the ruling stands on the stream")
    assert await assert_replayed(nats, tenant) == ["breakers.opened"]


async def test_a_breaker_of_one_process_only_neither_follows_nor_binds_a_fleet(nats: EmbeddedNats) -> None:
    policy = POLICY.model_copy(update={"fleet": None})
    tenant = next(TENANTS)
    async with fleet(nats, tenant, policy=policy) as all_:
        for process in all_.processes[:3]:
            process.trip()
        async with connected(nats) as client:
            await until(lambda: voted(client, tenant, 3), "the votes stand on the stream")
        await asyncio.sleep(0.3)
        assert all_.processes[3].call(answered=True) is CLOSED
    assert [event for event in await events_of(nats, tenant) if event.get("rev")] == []
