"""Nothing secret is recorded: real calls with secrets in odd places, then a search of all that was written of them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from anthropic import Anthropic, AsyncAnthropic
from stack import Projecting, bodies, connected, drained, failed, nats_server, on_stream, options, projecting

from relight.engine import scope
from relight.engine.fake.server import FakeAnthropic
from relight.engine.fake.steps import Fault, Step
from relight.engine.guard.calls.waits import Waits
from relight.engine.guard.guard import Guard
from relight.engine.guard.policy import GuardPolicy
from relight.engine.guard.recording.journal import Journal
from relight.engine.log.content import BUCKET_STREAM
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import ContentPolicy

SECRETS = {
    name: f"zq7{name}7qz"
    for name in (
        *("apikey", "authtoken", "header", "query", "user", "password", "metadata", "prompt", "system", "answer"),
        *("thought", "toolinput", "toolname", "tooltext", "image", "errortext", "stop", "extra", "proxypage"),
    )
}
S = SECRETS
ASK: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "max_tokens": 100,
    "system": [{"type": "text", "text": S["system"]}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": S["prompt"]}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": S["thought"], "signature": S["thought"]},
                {"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {"iban": S["toolinput"]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": S["tooltext"]},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": S["image"]}},
            ],
        },
    ],
    "tools": [{"name": S["toolname"], "description": S["tooltext"], "input_schema": {"type": "object"}}],
    "metadata": {"user_id": S["metadata"]},
    "stop_sequences": [S["stop"]],
    "extra_headers": {"x-internal-token": S["header"], "authorization": f"Bearer {S['authtoken']}"},
    "extra_query": {"signature": S["query"]},
    "extra_body": {"x_internal": S["extra"]},
}
ECHO = f"messages.0: {S['prompt']} is not allowed {S['errortext']}"
SCRIPT = [
    Step(text=S["answer"]),
    Step(status=400, error_message=ECHO),
    Step(status=529, error_message=ECHO),
    Step(text=S["answer"]),
    Step(status=401, error_message=f"invalid x-api-key {S['apikey']}"),
    Step(body=f"<html>{S['proxypage']} {S['prompt']}", headers={"content-type": "text/html"}),
    Step(text=S["answer"]),
    Step(body=f'{{"{S["answer"]}', headers={"content-type": "application/json"}),
    Step(text=S["answer"]),
]
STREAMS = [
    Step(text=S["answer"]),
    Step(fault=Fault.ERROR_EVENT, error_type="overloaded_error", error_message=ECHO),
    Step(text=S["answer"]),
    Step(text=S["answer"], fault=Fault.ERROR_EVENT, error_message=ECHO, after_deltas=1),
    Step(text=S["answer"], fault=Fault.RESET_IN_BODY, after_deltas=1),
    Step(text=S["answer"] * 20),
]


class NoWaits(Waits):
    def sleep(self, seconds: float) -> None:
        pass

    async def sleep_async(self, seconds: float) -> None:
        pass


class Scene:
    """Everything that is written anywhere of what a recorder is given."""

    def __init__(self, recorder: Recorder, projected: Projecting, spools: Path) -> None:
        self.recorder = recorder
        self.projected = projected
        self.spools = spools

    def on_disk(self) -> bytes:
        """Whatever lies in the folder of the spools, WAL and free pages included."""
        return b"".join(path.read_bytes() for path in sorted(self.spools.rglob("*")) if path.is_file())

    async def on_stream(self) -> bytes:
        return b"".join(message.subject.encode() + message.body for message in await on_stream(self.projected.client))

    async def in_store(self) -> bytes:
        """Every message of the content store's own stream, and their number in front."""
        js = self.projected.client.jetstream()
        with suppress(Exception):
            last = (await js.stream_info(BUCKET_STREAM)).state.last_seq
            found = []
            for seq in range(1, last + 1):
                message = await js.get_msg(BUCKET_STREAM, seq)
                found.append((message.subject or "").encode() + (message.data or b""))
            return b"".join(found)
        return b""

    async def in_tables(self) -> bytes:
        tables = await self.projected.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        texts = []
        for table in tables:
            name = table["tablename"]
            with suppress(Exception):  # the projector may not read the tables of tokens
                texts += [row["text"] for row in await self.projected.rows(f"SELECT t::text AS text FROM {name} AS t")]
        return "\n".join(texts).encode()


@asynccontextmanager
async def scene_of(database: str, spools: Path) -> AsyncIterator[tuple[Scene, Any]]:
    async with nats_server() as nats, connected(nats), projecting(nats, database) as projected:
        async with Recorder(options(nats, spools)) as recorder:
            await drained(recorder)
            yield Scene(recorder, projected, spools), nats


def found_in(haystack: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret.encode() in haystack]


def guarded(recorder: Recorder, client: Any, **how: Any) -> Any:
    guard = Guard(recorder, GuardPolicy(breaker=None), waits=NoWaits(), journal=Journal(recorder, **how))
    return client.with_options(max_retries=0, middleware=[guard])


async def calls(recorder: Recorder, fake: FakeAnthropic, **how: Any) -> int:
    """Plain and streamed calls, of both kinds of clients, good and bad in many ways; how many there were."""
    url = fake.url.replace("://", f"://{S['user']}:{S['password']}@")
    client = guarded(recorder, AsyncAnthropic(base_url=url, api_key=S["apikey"]), **how)
    other = guarded(recorder, Anthropic(base_url=url, auth_token=S["authtoken"], api_key=None), **how)
    count = 0

    async def call(ask: Any) -> None:
        nonlocal count
        count += 1
        with suppress(anthropic.AnthropicError, httpx2.HTTPError, ValueError):
            await ask()

    async def reads() -> None:
        async with client.messages.stream(**ASK) as stream:
            async for _ in stream:
                pass

    async def leaves() -> None:
        async with client.messages.stream(**ASK) as stream:
            async for _ in stream:
                return

    def reads_sync() -> None:
        with other.messages.stream(**ASK) as stream:
            stream.get_final_message()

    for ask in (
        lambda: client.messages.create(**ASK),
        lambda: asyncio.to_thread(lambda: other.messages.create(**ASK)),
        lambda: client.messages.with_raw_response.create(**ASK),
        lambda: client.messages.count_tokens(**{k: ASK[k] for k in ("model", "messages", "system", "extra_query")}),
    ):
        fake.play(SCRIPT)
        for _ in range(6):
            await call(ask)
    for ask in (reads, leaves, lambda: asyncio.to_thread(reads_sync)):
        fake.play(STREAMS)
        for _ in range(4):
            await call(ask)
    fake.play([Step(fault=Fault.SILENT)])
    waiting = asyncio.create_task(client.messages.create(**ASK))
    while not fake.requests:
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    count += 1
    gone = AsyncAnthropic(base_url=f"http://{S['user']}:{S['password']}@127.0.0.1:1", api_key=S["apikey"])
    await call(lambda: guarded(recorder, gone, **how).messages.create(**ASK))
    await recorder.record(failed(0)).reached(Ack.SPOOLED)
    return count


@pytest.fixture
def our_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="relight")
    return caplog


def said(log: pytest.LogCaptureFixture) -> bytes:
    """All that relight's own loggers said, tracebacks included."""
    format_ = logging.Formatter("%(message)s").format
    return "\n".join(format_(record) for record in log.records if record.name.startswith("relight")).encode()


@pytest.mark.parametrize("policy", [ContentPolicy.DIGEST, ContentPolicy.NONE])
async def test_neither_keys_nor_headers_nor_content_are_written_anywhere(
    policy: ContentPolicy, database: str, spools: Path, our_log: pytest.LogCaptureFixture
) -> None:
    async with scene_of(database, spools) as (scene, nats), FakeAnthropic() as fake:
        await nats.kill()  # so that all of it lies in the spool at the same time
        with scope.entered(agent="refunds", task="t-42"):
            count = await calls(scene.recorder, fake, content=policy)
        assert any(S["prompt"].encode() in seen.body for seen in fake.requests), "they were sent"
        before = scene.on_disk()
        assert before.count(b'"decisions.taken"') >= count
        await nats.start()
        await drained(scene.recorder)
        await scene.projected.caught_up()
        places = [before, scene.on_disk(), await scene.on_stream(), await scene.in_store(), await scene.in_tables()]
        assert [found_in(place) for place in (*places, said(our_log))] == [[]] * 6
        taken = [b for b in bodies(await on_stream(scene.projected.client)) if b["type"] == "decisions.taken"]
        assert len(taken) == count
        assert taken[0]["data"]["decision"].encode() in places[4], "one would find what is there"
        assert [("request" in body["data"]) for body in taken].count(policy is ContentPolicy.DIGEST) >= count - 1


async def test_under_full_what_hooks_take_out_is_written_nowhere_and_the_rest_is_kept(
    database: str, spools: Path, our_log: pytest.LogCaptureFixture
) -> None:
    def blank(_: str, document: Any) -> Any:
        text = orjson.dumps(document).decode()
        for secret in SECRETS.values():
            text = text.replace(secret, "[hidden]")
        return orjson.loads(text)

    async with scene_of(database, spools) as (scene, nats), FakeAnthropic() as fake:
        await nats.kill()
        await calls(scene.recorder, fake, content=ContentPolicy.FULL, redact=(blank,))
        before = scene.on_disk()
        await nats.start()
        await drained(scene.recorder)
        await scene.projected.caught_up()
        store = await scene.in_store()
        places = [before, scene.on_disk(), await scene.on_stream(), store, await scene.in_tables(), said(our_log)]
        assert [found_in(place) for place in places] == [[]] * 6
        assert store.count(b"[hidden]") > 20


async def test_under_full_without_hooks_content_is_in_the_store_alone_and_no_key_or_address_anywhere(
    database: str, spools: Path, our_log: pytest.LogCaptureFixture
) -> None:
    async with scene_of(database, spools) as (scene, _), FakeAnthropic() as fake:
        await calls(scene.recorder, fake, content=ContentPolicy.FULL)
        await drained(scene.recorder)
        await scene.projected.caught_up()
        places = [await scene.on_stream(), await scene.in_tables(), said(our_log)]
        assert [found_in(place) for place in places] == [[]] * 3
        store = found_in(await scene.in_store())
        assert {"prompt", "answer", "toolinput", "metadata"} <= set(store), "a search would find what is there"
        assert not {"apikey", "authtoken", "header", "query", "user", "password", "errortext", "proxypage"} & set(store)
