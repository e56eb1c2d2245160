"""What tests of the journal share: a recorder before a real stream and a projector behind it, and a call's facts."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from stack import Projecting, bodies, connected, nats_server, on_stream, options, projecting

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.guard.facts import Attempt, Call, Dependency
from relight.engine.guard.recording.journal import Journal
from relight.engine.log.content import fetch_content
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope
from relight.events.values import Content

OPUS = Dependency("anthropic", "global", "claude-opus-4-8")
EU = Dependency("aws.bedrock", "eu-west-1", "eu.anthropic.claude-opus-4-8-v1")
SCOPE = Scope(tenant="acme", agent="refunds", task="t-42", correlation="run-7")
T0 = 1_790_000_000_000_000
SHA = "a" * 64
BODY: dict[str, Any] = {
    "model": OPUS.model,
    "max_tokens": 100,
    "temperature": 0.5,
    "stop_sequences": ["stop here", "or here"],
    "thinking": {"type": "enabled", "budget_tokens": 2_000},
    "messages": [{"role": "user", "content": "the secret question"}],
    "tools": [{"name": "refund", "input_schema": {"type": "object"}}],
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-opus-4-8-20260501",
    "content": [{"type": "text", "text": "the secret answer"}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 1_000,
        "output_tokens": 100,
        "cache_creation_input_tokens": 400,
        "cache_read_input_tokens": 2_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 100},
        "service_tier": "standard",
    },
}
COST = 1_000 * 5 + 100 * 25 + 300 * 25 // 4 + 100 * 10 + 2_000 // 2


@dataclass
class Scene:
    """A recorder in front of a real stream, a projector behind it, and journals in between."""

    nats: EmbeddedNats
    projected: Projecting
    recorder: Recorder
    calls: int = 0

    def journal(self, **how: Any) -> Journal:
        return Journal(self.recorder, **how)

    def call(self, **changes: Any) -> Call:
        self.calls += 1
        given = {"decision": f"d-{self.calls}", "operation": "chat", "dependency": OPUS, "scope": SCOPE, "body": BODY}
        return Call(**given | {"started_us": T0} | changes)

    async def events_of(self, call: Call) -> list[dict[str, Any]]:
        """What stands on the stream of this call, and what it caused, in order; all of it is in the tables, too."""
        await self.recorder.mark().reached(Ack.PROJECTED)
        found = bodies(await on_stream(self.projected.client))
        [taken] = [
            body["id"] for body in found if body["type"] == "decisions.taken" and body["subject"] == call.decision
        ]
        return [body for body in found if body["id"] == taken or body.get("causationid") == taken]

    async def content(self, content: dict[str, Any], tenant: str = "acme") -> bytes:
        """Out of the content store."""
        wanted = Content.model_validate(content)
        return await asyncio.wrap_future(
            self.recorder.in_loop(self.recorder.with_jetstream(lambda js: fetch_content(js, tenant, wanted)))
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with nats_server() as nats, connected(nats), projecting(nats, shared_database) as projected:
        spools = tmp_path_factory.mktemp("spools") / "spool"
        async with Recorder(options(nats, spools, tenant="ops")) as recorder:
            yield Scene(nats, projected, recorder)


def attempt(number: int = 1, **changes: Any) -> Attempt:
    given: dict[str, Any] = {"dependency": OPUS, "started_us": T0 + 1_000, "ended_us": T0 + 251_000, "status": 200}
    return Attempt(number, **given | changes)


def ended(call: Call, **changes: Any) -> Call:
    for name, value in ({"ended_us": T0 + 252_000, "attempts": 1} | changes).items():
        setattr(call, name, value)
    return call


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
