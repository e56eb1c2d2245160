"""One prober proves that acknowledged events are on disks; each thing that takes the proof away is named."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attesting import NAME, agent_of, is_refused, proving, refusal, refused_by
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig
from stack import failed, nats_server, until

from relight.engine.log.topology import connect, stream_config
from relight.engine.proving.asking import Attestations
from relight.engine.proving.models import Attestation, Facts
from relight.engine.proving.prober import Prober
from relight.engine.proving.questions import QUESTION, Answer, Question
from relight.engine.proving.system import SystemAccount
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder


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
            await until(lambda: is_refused(recorder), "the attestation expires")
            said = await refusal(recorder)
            assert f"the attestation of {NAME} expired" in said
            assert "no prober answers: is a relight service running" in said
        await client.close()


async def _known_for(recorder: Recorder, s: float) -> bool:
    found = await recorder.attestation()
    return found.proven and found.unchanged_s > s


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
