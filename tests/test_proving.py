"""One prober proves that acknowledged events are on disks; each thing that takes the proof away is named."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clusters import STRONG, WEAK, Member, cluster, declare, joined, leader, settled
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig
from stack import NOW, failed, nats_server, until

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import AckNotProven
from relight.engine.health.models import Check, CheckStatus
from relight.engine.health.proof import proof_checks
from relight.engine.log.receipts import Ack
from relight.engine.log.recorder import Recorder, RecorderOptions
from relight.engine.log.topology import connect, stream_config
from relight.engine.proving.answering import answering
from relight.engine.proving.asking import Attestations
from relight.engine.proving.building import polling_prober
from relight.engine.proving.models import Attestation, Facts
from relight.engine.proving.prober import Prober
from relight.engine.proving.questions import QUESTION, Answer, Question
from relight.engine.proving.system import SystemAccount
from relight.engine.servers import Servers

NAME = "relight:eu:here:1"


def servers(**addresses: Any) -> Servers:
    return Servers(**{"nats": None, "monitors": (), "database": None, "ours": False} | addresses)


def agent_of(url: str, spools: Path, **changes: Any) -> Recorder:
    """One that knows nothing but its own login."""
    given: dict[str, Any] = {"region": "eu", "tenant": "acme", "spools": spools, "ack_timeout_s": 20}
    return Recorder(RecorderOptions(nats_url=url, **given | changes))


@asynccontextmanager
async def proving(client: Client, ttl_s: float = 60, settle_s: float = 4, **addresses: Any) -> AsyncIterator[Prober]:
    """A prober at work, as in the service."""
    prober = polling_prober(client, servers(**addresses), ttl_s=ttl_s, name=NAME, settle_s=settle_s)
    assert prober is not None
    async with answering(client, prober):
        yield prober


async def refusal(recorder: Recorder, n: int = 1) -> str:
    with pytest.raises(AckNotProven) as refused:
        await recorder.record(failed(n)).reached(Ack.REPLICATED)
    return str(refused.value)


async def refused_by(nats: EmbeddedNats, spools: Path, config: StreamConfig | None = None, **addresses: Any) -> str:
    """What an agent is told whose stream is declared so, and whose prober asks there."""
    async with AsyncExitStack() as held:
        client = await connect(nats.url, name="test")
        held.push_async_callback(client.close)
        await client.jetstream().add_stream(config=config or stream_config())
        await held.enter_async_context(proving(client, settle_s=0.5, **addresses or {"system": nats.system_url}))
        return await refusal(await held.enter_async_context(agent_of(nats.agent_url, spools)))


async def test_agents_that_know_no_system_account_are_told_what_is_proven_by_whom(spools: Path) -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")
        async with agent_of(nats.agent_url, spools) as recorder, proving(client, system=nats.system_url):
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            found = await recorder.attestation()
            [server] = found.servers
            assert (found.prober, found.source, server.name) == (NAME, "system account", "relight")
            assert server.started.startswith("20")
            assert 0 < found.valid_s <= 60
        await client.close()


async def test_monitoring_addresses_serve_where_there_is_no_system_account(spools: Path) -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")
        async with agent_of(nats.agent_url, spools) as recorder, proving(client, monitors=(nats.monitor_url,)):
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            assert (await recorder.attestation()).source == "monitoring addresses"
        await client.close()


async def test_a_server_as_it_is_configured_by_default_is_refused(spools: Path) -> None:
    async with nats_server(sync_always=False) as nats:
        assert "server relight does not fsync before it acknowledges" in await refused_by(nats, spools)


def _changed(change: Callable[[StreamConfig], None]) -> StreamConfig:
    config = stream_config()
    change(config)
    return config


def _asynchronous(config: StreamConfig) -> None:
    config.persist_mode, config.allow_atomic = PersistMode.ASYNC, False


def _in_memory(config: StreamConfig) -> None:
    config.storage = StorageType.MEMORY


def _work_queue(config: StreamConfig) -> None:
    config.retention = RetentionPolicy.WORK_QUEUE


def _forgetful(config: StreamConfig) -> None:
    config.discard, config.deny_delete, config.duplicate_window = DiscardPolicy.OLD, False, 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_asynchronous, ["persist_mode async acknowledges before it writes"]),
        (_in_memory, ["it is stored in memory, not in files"]),
        (_work_queue, ["retention is not limits"]),
        (_forgetful, ["discard is not new", "deny_delete is off", "duplicate_window is below"]),
    ],
)
async def test_a_stream_that_breaks_a_guarantee_is_refused(
    change: Callable[[StreamConfig], None], told: list[str], spools: Path
) -> None:
    async with nats_server() as nats:
        said = await refused_by(nats, spools, _changed(change))
        assert [fault for fault in told if fault not in said] == []


async def test_what_cannot_be_asked_is_refused_each_with_its_own_words(spools: Path) -> None:
    async with nats_server() as nats:
        wrong = nats.system_url.replace("system:", "system:wrong")
        assert "the system account refuses the login" in await refused_by(nats, spools, system=wrong)
        assert "none of the system account" in await refused_by(nats, spools / "2", system=nats.url)
        nowhere = "nats://system:p@127.0.0.1:1"
        assert "the system account cannot be asked" in await refused_by(nats, spools / "3", system=nowhere)
        lost = ("http://127.0.0.1:1",)
        assert "monitoring address http://127.0.0.1:1 does not" in await refused_by(nats, spools / "4", monitors=lost)


async def test_the_system_account_of_other_servers_proves_nothing(spools: Path) -> None:
    async with nats_server() as nats, nats_server() as other:
        assert "none of the system account's" in await refused_by(nats, spools, system=other.system_url)


async def test_an_attestation_expires_and_nobody_renews_it(spools: Path) -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")
        async with agent_of(nats.agent_url, spools) as recorder:
            async with proving(client, ttl_s=0.5, system=nats.system_url):
                await until(lambda: _known_for(recorder, 0.3), "what the prober pushed has come")
            await until(lambda: _is_refused(recorder), "the attestation expires")
            said = await refusal(recorder)
            assert f"the attestation of {NAME} expired" in said
            assert "no prober answers: is a relight service running" in said
        await client.close()


async def _known_for(recorder: Recorder, s: float) -> bool:
    found = await recorder.attestation()
    return found.proven and found.unchanged_s > s


async def _is_refused(recorder: Recorder) -> bool:
    return not (await recorder.attestation()).proven


async def test_a_service_that_is_restarted_is_waited_for(spools: Path) -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")
        async with agent_of(nats.agent_url, spools) as recorder:
            async with proving(client, ttl_s=0.3, system=nats.system_url):
                await recorder.record(failed(1)).reached(Ack.REPLICATED)
            await asyncio.sleep(0.4)
            waiting = asyncio.ensure_future(recorder.record(failed(2)).reached(Ack.REPLICATED))
            await asyncio.wait([waiting], timeout=0.5)
            assert not waiting.done()
            async with proving(client, system=nats.system_url):
                await waiting
        await client.close()


async def test_without_a_prober_it_says_what_to_start(spools: Path) -> None:
    async with nats_server() as nats, agent_of(nats.agent_url, spools) as recorder:
        assert "no prober answers: is a relight service running with RELIGHT_NATS_SYSTEM_URL" in await refusal(recorder)


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
            await until(lambda: _is_replicated(recorder, 4), "the server is corrected")
            await receipt.reached(Ack.REPLICATED)


async def _is_replicated(recorder: Recorder, n: int) -> bool:
    try:
        await recorder.record(failed(n)).reached(Ack.REPLICATED)
    except AckNotProven:
        return False
    return True


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
            before = await leader(client)
            await client.request("$JS.API.STREAM.LEADER.STEPDOWN.EV", b"", timeout=2)
            await until(lambda: _led_by_another(client, before), "another server leads")
            await until(lambda: _asked_within(prober, asked[-1]), "it is asked again")
            await recorder.record(failed(2)).reached(Ack.REPLICATED)


async def _led_by_another(client: Client, before: str) -> bool:
    return await leader(client) != before


async def _asked_within(prober: Prober, before: Attestation) -> bool:
    return (await prober.attest()).asked_s_ago < before.asked_s_ago


async def test_no_event_is_called_replicated_that_was_recorded_after_a_replica_came_back_weaker(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        await settled(client)
        follower = await _follower(members, client)
        witness = await connect(members[0].system, name="witness")
        async with proving(client, system=members[0].system), agent_of(members[0].agent, spools) as recorder:
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            follower.stop()
            follower.start(WEAK)
            await until(lambda: _present(witness, follower), "the cluster has it again")
            for n in range(2, 12):
                assert f"server {follower.name} does not fsync" in await refusal(recorder, n)
        await witness.close()


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
        follower = await _follower(members, client)
        async with proving(client, system=members[0].system), agent_of(members[0].agent, spools) as recorder:
            await recorder.record(failed(1)).reached(Ack.REPLICATED)
            follower.stop()
            await recorder.record(failed(2)).reached(Ack.REPLICATED)
            found = await recorder.attestation()
            assert found.absent == (follower.name,)
            assert len(found.servers) == 2
            follower.start()
            await until(lambda: _complete(recorder), "the third is proven anew")


async def _follower(members: list[Member], client: Client) -> Member:
    """One that does not lead, and whose clients are not the test's."""
    leading = await leader(client)
    return next(member for member in members[1:] if member.name != leading)


async def _complete(recorder: Recorder) -> bool:
    found = await recorder.attestation()
    return found.proven and not found.absent


async def test_a_replica_whose_monitoring_address_does_not_answer_or_is_not_known_is_refused(spools: Path) -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        known = tuple(member.monitor_url for member in members)
        async with proving(client, monitors=known[:2]), agent_of(members[0].agent, spools) as recorder:
            assert "no monitoring address of server n2 is known" in await refusal(recorder)
        follower = await _follower(members, client)
        async with proving(client, settle_s=0.5, monitors=known), agent_of(members[0].agent, spools) as recorder:
            await until(lambda: _is_replicated(recorder, 1), "all three are proven")
            follower.stop()
            assert f"monitoring address {follower.monitor_url} does not answer" in await refusal(recorder)


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
            await until(lambda: _is_replicated(recorder, 1), "where no replica is, nothing has to be proven")
            removed = next(name for name in inside if name not in (info.cluster.leader, beside.name))
            body = f'{{"peer": "{removed}"}}'.encode()
            await until(lambda: _moved(client, body, outside.name), "the replica is moved")
            await until(lambda: _is_refused(recorder), "the move is noticed")
            assert f"server {outside.name} does not fsync" in await refusal(recorder)


async def _moved(client: Client, body: bytes, to: str) -> bool:
    """While the servers elect a leader, requests are lost."""
    try:
        await client.request("$JS.API.STREAM.PEER.REMOVE.EV", body, timeout=0.5)
        cluster = (await client.jetstream(timeout=0.5).stream_info("EV")).cluster
    except (NatsError, TimeoutError):
        return False
    return cluster is not None and to in {cluster.leader, *(peer.name for peer in cluster.replicas or ())}


async def test_an_agents_login_cannot_answer_in_a_probers_place(spools: Path) -> None:
    async with nats_server() as nats:
        liar = await connect(nats.agent_url, name="liar")
        heard: list[str] = []

        async def lie(message: Msg) -> None:
            heard.append(message.subject)
            if message.subject == QUESTION:
                question = Question.model_validate_json(message.data)
                said = Answer(nonce=question.nonce, attestation=Attestation(prober="liar", valid_s=60))
                await message.respond(said.model_dump_json().encode())

        await liar.subscribe(QUESTION, cb=lie)
        await liar.subscribe(">", cb=lie)
        await until(lambda: liar.last_error, "the server refuses the first of them")
        assert "permissions violation" in str(liar.last_error).lower()
        async with agent_of(nats.agent_url, spools) as recorder:
            assert "no prober answers" in await refusal(recorder)
        assert QUESTION not in heard
        await liar.close()


async def test_an_answer_to_a_question_that_was_not_seen_is_not_believed() -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")

        async def blind(message: Msg) -> None:
            said = Answer(nonce="guessed", attestation=Attestation(prober="liar", valid_s=60))
            await message.respond(said.model_dump_json().encode())

        await client.subscribe(QUESTION, cb=blind)
        found = await Attestations(client, ttl_s=60).attest()
        assert "somebody answered in the prober's place" in found.faults[0]
        await client.close()


async def test_health_shows_what_is_proven_by_whom_since_when_and_what_is_not() -> None:
    async with cluster(STRONG, STRONG, STRONG) as members, joined(members[0]) as client:
        await declare(client)
        await settled(client)
        gone = await _follower(members, client)
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


class Counted(SystemAccount):
    """How often it asked."""

    asked = 0

    async def ask(self) -> Facts:
        self.asked += 1
        return await super().ask()


async def test_many_who_ask_are_few_questions_to_the_servers() -> None:
    async with nats_server() as nats:
        client = await connect(nats.url, name="test")
        await client.jetstream().add_stream(config=stream_config())
        source = Counted(client, lambda: connect(nats.system_url, name="system"))
        prober = Prober(client, source, ttl_s=60)
        await asyncio.gather(*(prober.attest(fresh=True) for _ in range(50)))
        assert source.asked == 2, "the first may have been asked before the others came"
        await asyncio.gather(*(prober.attest() for _ in range(50)))
        assert source.asked == 2
        await prober.close()
        await client.close()


def test_passwords_are_the_owners_alone_and_others_are_told_agents_login_only(tmp_path: Path) -> None:
    async def started() -> None:
        async with nats_server() as nats:
            files = {path.name for path in nats.folder.iterdir() if path.name.endswith("password")}
            assert files == {"password", "agent-password", "system-password"}
            assert {os.stat(nats.folder / name).st_mode & 0o777 for name in files} == {0o600}
            assert len({nats.url, nats.agent_url, nats.system_url}) == 3

    asyncio.run(started())
