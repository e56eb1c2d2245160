"""Servers that restart weaker, leave, lead by turns, or take a replica over: what is proven follows them."""

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path

from attesting import NAME, agent_of, is_refused, is_replicated, proving, refusal
from clusters import STRONG, WEAK, Member, cluster, declare, follower, joined, leader, settled
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from stack import NOW, failed, until

from relight.engine.health.models import Check, CheckStatus
from relight.engine.health.proof import proof_checks
from relight.engine.log.topology import connect, stream_config
from relight.engine.proving.models import Attestation
from relight.engine.proving.prober import SETTLE_S, Prober
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder


async def test_a_server_that_came_back_weaker_is_refused_from_its_first_acknowledgement_on(spools: Path) -> None:
    async with cluster(STRONG) as [only], joined(only) as client:
        await declare(client, stream_config())
        async with proving(client, system=only.system), agent_of(only.agent, spools) as recorder:
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            only.stop()
            only.start(WEAK)
            assert "server n0 does not fsync" in await refusal(recorder, 2)
            only.stop(signal.SIGTERM)
            only.start(STRONG)
            receipt = recorder.record(failed(3))
            await until(lambda: is_replicated(recorder, 4), "the server is corrected")
            await receipt.reached(Ack.REPLICATED)


async def test_a_weak_one_of_three_is_refused_and_named(spools: Path) -> None:
    async with cluster(STRONG, WEAK, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        async with proving(client, system=members[2].system), agent_of(members[0].agent, spools) as recorder:
            said = await refusal(recorder)
            assert "server n1 does not fsync" in said
            assert "n0" not in said


async def test_three_are_proven_and_asked_again_when_another_leads(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        asked: list[Attestation] = []
        async with proving(client, system=members[1].system) as prober, agent_of(members[2].agent, spools) as recorder:
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            assert {server.name for server in (await recorder.attestation()).servers} == {"n0", "n1", "n2"}

            async def quiet() -> bool:
                asked.append(await prober.attest())
                return asked[-1].asked_s_ago > 1.5  # polled since, and found the same

            await until(quiet, "it is not asked again without a reason")
            quiet_at = time.monotonic()
            before = await leader(client)
            await until(lambda: _led_by_another(client, before), "another server leads")
            await until(lambda: _asked_after(prober, quiet_at), "it is asked again")
            await recorder.record(failed(2)).reached(Ack.REPLICATED)


async def _led_by_another(client: Client, before: str) -> bool:
    if await leader(client) == before:
        with suppress(NatsError, TimeoutError):  # lost while the servers elect
            await client.request("$JS.API.STREAM.LEADER.STEPDOWN.EV", b"", timeout=2)
    return await leader(client) != before


async def _asked_after(prober: Prober, moment: float) -> bool:
    return time.monotonic() - (await prober.attest()).asked_s_ago > moment


async def test_no_event_is_called_replicated_that_was_recorded_after_a_replica_came_back_weaker(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        await settled(client)
        leaving = await follower(members, client)
        witness = await connect(members[0].system, name="witness")
        async with proving(client, system=members[0].system), agent_of(members[0].agent, spools) as recorder:
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            leaving.stop()
            leaving.start(WEAK)
            await until(lambda: _present(witness, leaving), "the cluster has it again")
            for n in range(2, 12):
                await refusal(recorder, n)
            await until(lambda: _blamed(recorder, leaving), "it is named")
        await witness.close()


async def test_a_replica_that_was_away_and_comes_back_weaker_is_refused_from_then_on(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        await settled(client)
        leaving = await follower(members, client)
        witness = await connect(members[0].system, name="witness")
        async with proving(client, system=members[0].system), agent_of(members[0].agent, spools) as recorder:
            leaving.stop(signal.SIGTERM)
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            await until(lambda: _without(recorder, leaving), "the one that is away is named")
            leaving.start(WEAK)
            await until(lambda: _present(witness, leaving), "the cluster has it again")
            for n in range(2, 12):
                await refusal(recorder, n)
            await until(lambda: _blamed(recorder, leaving), "it is named")
        await witness.close()


async def _without(recorder: Recorder, member: Member) -> bool:
    return (await recorder.attestation()).absent == (member.name,)


async def _blamed(recorder: Recorder, member: Member) -> bool:
    return f"server {member.name} does not fsync" in "; ".join((await recorder.attestation()).faults)


async def _present(witness: Client, member: Member) -> bool:
    """Whether it takes part: its process answers across the cluster."""
    heard: list[bytes] = []

    async def on_answer(message: Msg) -> None:
        heard.append(message.data)

    inbox = witness.new_inbox()
    listening = await witness.subscribe(inbox, cb=on_answer)
    await witness.publish("$SYS.REQ.SERVER.PING.IDZ", b"", reply=inbox)
    await asyncio.sleep(0.005)
    await listening.unsubscribe()
    return any(f'"{member.name}"'.encode() in answer for answer in heard)


async def test_a_replica_that_is_away_is_named_and_the_others_go_on(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        await settled(client)
        leaving = await follower(members, client)
        async with proving(client, system=members[0].system), agent_of(members[0].agent, spools) as recorder:
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            leaving.stop()
            await recorder.record(failed(2)).reached(Ack.REPLICATED)
            await until(lambda: _without(recorder, leaving), "the one that is away is named")
            await recorder.record(failed(3)).reached(Ack.REPLICATED)
            assert len((await recorder.attestation()).servers) == 2
            leaving.start()
            await until(lambda: _complete(recorder), "the third is proven anew")


async def test_a_leader_that_is_lost_is_named_by_the_next_one_and_the_others_go_on(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        await settled(client)
        leading = await leader(client)
        leaving = next(member for member in members if member.name == leading)
        other = next(member for member in members if member.name != leading)
        async with (
            joined(other) as left,
            proving(left, settle_s=SETTLE_S, system=other.system),
            agent_of(other.agent, spools) as recorder,
        ):
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            leaving.stop()
            await recorder.record(failed(2)).reached(Ack.REPLICATED)
            await until(lambda: _without(recorder, leaving), "the one that led is named")


async def _complete(recorder: Recorder) -> bool:
    found = await recorder.attestation()
    return found.proven and not found.absent


async def test_a_replica_whose_monitoring_address_does_not_answer_or_is_not_known_is_refused(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        known = tuple(member.monitor_url for member in members)
        async with proving(client, monitors=known[:2]), agent_of(members[0].agent, spools) as recorder:
            assert "no monitoring address of server n2 is known" in await refusal(recorder)
        leaving = await follower(members, client)
        async with proving(client, settle_s=0.5, monitors=known), agent_of(members[0].agent, spools) as recorder:
            await until(lambda: is_replicated(recorder, 1), "all three are proven")
            leaving.stop()
            assert f"monitoring address {leaving.monitor_url} does not answer" in await refusal(recorder)


async def test_a_replica_that_moved_to_a_weak_server_is_refused(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        info = await client.jetstream().stream_info("EV")
        assert info.cluster is not None
        inside = {info.cluster.leader, *(peer.name for peer in info.cluster.replicas or ())}
        [outside] = [member for member in members if member.name not in inside]
        beside = next(member for member in members if member is not outside)
        outside.stop()
        outside.start(WEAK)
        async with proving(client, system=beside.system), agent_of(beside.agent, spools) as recorder:
            await until(lambda: is_replicated(recorder, 1), "where no replica is, nothing has to be proven")
            removed = next(name for name in inside if name not in (info.cluster.leader, beside.name))
            body = f'{{"peer": "{removed}"}}'.encode()
            await until(lambda: _moved(client, body, outside.name), "the replica is moved")
            await until(lambda: is_refused(recorder), "the move is noticed")
            assert f"server {outside.name} does not fsync" in await refusal(recorder)


async def _moved(client: Client, body: bytes, to: str) -> bool:
    """While the servers elect a leader, requests are lost."""
    try:
        await client.request("$JS.API.STREAM.PEER.REMOVE.EV", body, timeout=0.5)
        cluster = (await client.jetstream(timeout=0.5).stream_info("EV")).cluster
    except (NatsError, TimeoutError):
        return False
    return cluster is not None and to in {cluster.leader, *(peer.name for peer in cluster.replicas or ())}


async def test_health_shows_what_is_proven_by_whom_since_when_and_what_is_not() -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        await settled(client)
        gone = await follower(members, client)
        async with proving(client, system=members[0].system) as prober:

            async def shown() -> dict[str, Check]:
                return {check.measurement: check for check in proof_checks(await prober.attest(), NOW)}

            async def proven() -> bool:
                return (await prober.attest()).proven

            await until(proven, "all three are proven")
            found = await shown()
            assert {check.status for check in found.values()} == {CheckStatus.PASS}
            assert sorted(str(found["provenServers"].observed).split("'")[1::2])[0].startswith("n0 (2.")
            assert (found["prober"].observed, found["source"].observed) == (NAME, "system account")
            since, asked, until_when = (str(found[name].observed) for name in ("since", "askedAt", "validUntil"))
            assert since <= asked <= NOW.isoformat() < until_when
            gone.stop(signal.SIGTERM)

            async def named() -> str | None:
                return (await shown())["absentServers"].output

            assert gone.name in await until(named, "the one that is away is named")
            gone.start(WEAK)
            await until(lambda: _weak(prober), "the weak one is found")
            found = await shown()
            assert found["proof"].status is CheckStatus.WARN
            assert f"server {gone.name} does not fsync" in str(found["proof"].output)


async def _weak(prober: Prober) -> bool:
    found = await prober.attest()
    return not found.proven and found.settled
