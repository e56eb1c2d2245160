"""The journal: facts of guarded calls in, events on a real stream and rows of real tables out."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import pytest_asyncio
from stack import Projecting, bodies, connected, failed, nats_server, on_stream, options, projecting

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.guard.facts import Attempt, Call, Dependency
from relight.engine.guard.journal import Journal
from relight.engine.log.content import fetch_content
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope
from relight.events.values import Content

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPUS = Dependency("anthropic", "global", "claude-opus-4-8")
EU = Dependency("aws.bedrock", "eu-west-1", "eu.anthropic.claude-opus-4-8-v1")
SCOPE = Scope(tenant="acme", agent="refunds", task="t-42", correlation="run-7")
T0 = 1_790_000_000_000_000
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
    fetched: list[bytes] = field(default_factory=list)

    def journal(self, **how: Any) -> Journal:
        return Journal(self.recorder, **how)

    def call(self, **changes: Any) -> Call:
        self.calls += 1
        given = {"decision": f"d-{self.calls}", "operation": "chat", "dependency": OPUS, "scope": SCOPE, "body": BODY}
        return Call(**given | {"started_us": T0} | changes)

    async def events_of(self, call: Call) -> list[dict[str, Any]]:
        """What stands on the stream of this call, and what it caused, in order; all of it is in the tables, too."""
        await self.recorder.record(failed(0, "marker")).reached(Ack.PROJECTED)
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


async def test_a_call_is_taken_attempted_and_known_and_its_dependency_worked(scene: Scene) -> None:
    journal, call, body = scene.journal(), scene.call(traceparent=f"00-{'a' * 32}-{'b' * 16}-01"), orjson.dumps(MESSAGE)
    journal.taken(call)
    journal.known(ended(call, served_by=OPUS), attempt(request_id="req_1", body=body))
    taken, tried, worked, known = await scene.events_of(call)

    assert [taken["type"], taken["tenant"], taken["time"]] == ["decisions.taken", "acme", "2026-09-21T14:13:20.000000Z"]
    assert (taken["correlationid"], taken["traceparent"]) == ("run-7", f"00-{'a' * 32}-{'b' * 16}-01")
    canonical = orjson.dumps(BODY, option=orjson.OPT_SORT_KEYS)
    assert taken["data"] == {
        "decision": call.decision,
        "decision_type": "agent_call",
        "agent": "refunds",
        "task": "t-42",
        "provider": "anthropic",
        "model": "claude-opus-4-8",
        "request": {"sha256": sha256(canonical), "size_bytes": len(canonical)},
        "context": {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-opus-4-8",
            "gen_ai.request.max_tokens": 100,
            "gen_ai.request.temperature": 0.5,
            "anthropic.thinking.type": "enabled",
            "anthropic.thinking.budget_tokens": 2_000,
            "relight.dependency": "anthropic/global/claude-opus-4-8",
            "relight.region": "global",
            "relight.request.messages": 1,
            "relight.request.tools": 1,
            "relight.request.stop_sequences": 2,
        },
    }
    assert (tried["type"], tried["data"]) == (
        "decisions.checkpointed",
        {
            "decision": call.decision,
            "checkpoint_type": "attempt",
            "state_snapshot": {
                "number": 1,
                "dependency": OPUS.name,
                "latency_ms": 250,
                "http.response.status_code": 200,
                "anthropic.request.id": "req_1",
            },
            "content": {"sha256": sha256(body), "size_bytes": len(body)},
        },
    )
    assert (worked["type"], worked["tenant"]) == ("breakers.succeeded", "ops")
    assert worked["data"] == {"service_name": OPUS.name, "latency_ms": 250}
    assert (known["type"], known["tenant"], known["correlationid"]) == ("decisions.outcome_known", "acme", "run-7")
    assert known["data"] == {
        "decision": call.decision,
        "outcome": "success",
        "input_tokens": 3_400,
        "output_tokens": 100,
        "cost_microusd": COST,
        "latency_ms": 252,
        "request_id": "req_1",
        "attempts": 1,
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.response.id": "msg_1",
            "gen_ai.response.model": "claude-opus-4-8-20260501",
            "gen_ai.response.finish_reasons": ["end_turn"],
            "gen_ai.usage.input_tokens": 3_400,
            "gen_ai.usage.output_tokens": 100,
            "gen_ai.usage.cache_write.input_tokens": 400,
            "gen_ai.usage.cache_read.input_tokens": 2_000,
            "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 100,
            "anthropic.response.service_tier": "standard",
        },
    }
    [row] = await scene.projected.rows("SELECT * FROM autopilot_decisions WHERE decision = $1", call.decision)
    assert (row["tenant"], row["outcome"], row["cost_microusd"], row["input_tokens"]) == (
        "acme",
        "success",
        COST,
        3_400,
    )
    assert (row["provider"], row["model"], row["request_sha256"]) == ("anthropic", OPUS.model, sha256(canonical))
