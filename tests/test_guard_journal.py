"""The journal: facts of guarded calls in, events on a real stream and rows of real tables out."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import journaling
import orjson
import pytest
from journaling import BODY, COST, EU, MESSAGE, OPUS, SCOPE, T0, Scene, attempt, ended, sha256
from stack import failed, nats_server, options

from relight.engine.guard.facts import Answer, Call, Dependency, Failure, Usage
from relight.engine.guard.recording.journal import Journal
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.queries import find, run

pytestmark = pytest.mark.asyncio(loop_scope="module")
scene = journaling.scene


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


async def test_every_attempt_is_a_checkpoint_and_only_what_the_dependency_did_counts_against_it(scene: Scene) -> None:
    journal, call = scene.journal(), scene.call()
    journal.taken(call)
    failures = [Failure.RATE_LIMITED, Failure.OVERLOADED, Failure.INVALID_REQUEST, Failure.TIMEOUT, Failure.CANCELLED]
    for number, failure in enumerate(failures, 1):
        journal.attempted(call, attempt(number, failure=failure, status=None, waited_s=1.5, retry_after_s=3))
    served = {"dependency": EU, "fallback_reason": "region", "first_token_us": T0 + 9_000}
    journal.known(ended(call, served_by=EU, attempts=6, first_token_us=T0 + 9_000), attempt(6, **served))
    found = await scene.events_of(call)
    attempts = [body["data"]["state_snapshot"] for body in found if body["type"] == "decisions.checkpointed"]
    assert [(state["number"], state.get("error.type")) for state in attempts] == [
        *enumerate([failure.value for failure in failures], 1),
        (6, None),
    ]
    assert attempts[0] == {
        "number": 1,
        "dependency": OPUS.name,
        "waited_s": 1.5,
        "latency_ms": 250,
        "error.type": "rate_limited",
        "retry_after_s": 3,
    }
    assert attempts[5] == {
        "number": 6,
        "dependency": EU.name,
        "fallback_reason": "region",
        "latency_ms": 250,
        "first_token_ms": 8,
        "http.response.status_code": 200,
    }
    seen = [(body["type"], body["data"]) for body in found if body["type"].startswith("breakers.")]
    assert seen == [
        ("breakers.failed", {"service_name": OPUS.name, "error_class": "overloaded", "details": {}}),
        ("breakers.failed", {"service_name": OPUS.name, "error_class": "timeout", "details": {}}),
        ("breakers.succeeded", {"service_name": EU.name, "latency_ms": 250}),
    ]
    known = found[-1]["data"]
    assert (known["attempts"], known["first_token_ms"]) == (6, 9)
    assert known["attributes"] == {
        "gen_ai.operation.name": "chat",
        "relight.dependency": EU.name,
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.request.model": EU.model,
    }


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Failure.CANCELLED, "unknown"),
        (Failure.ABANDONED, "unknown"),
        (Failure.DEADLINE, "failure"),
        (Failure.CIRCUIT_OPEN, "failure"),
        (Failure.OVERLOADED, "failure"),
    ],
)
async def test_how_a_call_came_out_has_its_class_and_no_cost_where_nobody_knows_it(
    scene: Scene, failure: Failure, outcome: str
) -> None:
    journal, call = scene.journal(), scene.call(streams=True)
    journal.taken(call)
    answer = Answer("msg_1", OPUS.model, None, Usage(10, 1))
    last = None if failure is Failure.CIRCUIT_OPEN else attempt(failure=failure, answer=answer)
    journal.known(ended(call, failure=failure, attempts=0 if last is None else 1), last)
    known = (await scene.events_of(call))[-1]["data"]
    assert (known["outcome"], known["error_class"]) == (outcome, failure.value)
    assert known["attempts"] == (0 if last is None else 1)
    assert known.get("output_tokens") == (None if last is None else 1)
    assert "cost_microusd" not in known


async def test_a_model_without_a_price_has_no_cost_and_is_named(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    journal = scene.journal()
    for dependency in (Dependency("anthropic", "global", "claude-next"), Dependency("x", "-", "some-model")):
        for _ in range(2):
            call = scene.call(dependency=dependency)
            journal.taken(call)
            last = attempt(dependency=dependency, body=orjson.dumps(MESSAGE | {"model": dependency.model}))
            journal.known(ended(call, served_by=dependency), last)
            assert "cost_microusd" not in (await scene.events_of(call))[-1]["data"]
    assert journal.unpriced == {"claude-next": 2, "some-model": 2}
    said = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "unpriced"]
    assert len(said) == 2
    assert "claude-next" in said[0]


async def test_counting_tokens_costs_nothing_and_uses_none(scene: Scene) -> None:
    journal, call = scene.journal(), scene.call(operation="count_tokens")
    journal.taken(call)
    journal.known(ended(call), attempt(body=b'{"input_tokens": 12}'))
    known = (await scene.events_of(call))[-1]["data"]
    assert known == {
        "decision": call.decision,
        "outcome": "success",
        "latency_ms": 252,
        "attempts": 1,
        "attributes": {"gen_ai.operation.name": "count_tokens"},
    }
    assert journal.unpriced == {}


async def test_odd_names_and_numbers_are_cut_to_what_an_event_holds(scene: Scene) -> None:
    odd = Dependency("anthropic", "global", "m\x00\n\ud800" + "ö" * 300)
    body = {"max_tokens": 2**60, "temperature": float("nan"), "top_p": True, "messages": 7, "thinking": "on"}
    journal, call = scene.journal(), scene.call(dependency=odd, body=body)
    journal.taken(call)
    message = MESSAGE | {"id": "a sentence with a secret", "stop_reason": 7, "usage": {"input_tokens": -1}}
    journal.known(ended(call), attempt(dependency=odd, request_id="r\x07" * 300, body=orjson.dumps(message)))
    taken, _, worked, known = await scene.events_of(call)
    assert taken["data"]["model"] == "m" + "ö" * 99
    assert {name for name in taken["data"]["context"] if name.startswith("gen_ai.request")} == {"gen_ai.request.model"}
    assert worked["data"]["service_name"].startswith("anthropic/global/m")
    assert known["data"]["request_id"] == "r" * 200
    assert known["data"]["attributes"].keys() == {"gen_ai.operation.name", "gen_ai.response.model"}


async def test_a_tool_that_works_or_fails_is_seen_by_the_recorders_own_tenant(scene: Scene) -> None:
    journal = scene.journal()
    journal.depended("crm-api", started_us=T0, latency_us=7_900, failure=None)
    journal.depended("crm-api", started_us=T0, latency_us=7_900, failure="ValueError")
    await scene.recorder.record(failed(0, "marker")).reached(Ack.PROJECTED)
    rows = await scene.projected.rows(
        "SELECT tenant, event_type FROM circuit_breaker_events WHERE service_name = 'crm-api' ORDER BY event_id"
    )
    assert rows == [{"tenant": "ops", "event_type": "success"}, {"tenant": "ops", "event_type": "failure"}]


async def test_a_recorder_that_is_closed_fails_no_call(spools: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with nats_server() as nats:
        with Recorder(options(nats, spools)) as recorder:
            journal = Journal(recorder)
        call = Call("d-closed", "chat", OPUS, SCOPE, T0)
        journal.taken(call)
        journal.known(ended(call), attempt())
        journal.depended("crm-api", started_us=T0, latency_us=1, failure=None)
        assert journal.unrecorded == 3
        assert [record.getMessage() for record in caplog.records if "d-closed" in record.getMessage()] != []


async def test_calls_and_what_they_cost_are_asked_for_by_people(scene: Scene, shared_database: str) -> None:
    journal, body = scene.journal(), orjson.dumps(MESSAGE)
    here = Scope(tenant="asked", agent="a", task="t")
    since = datetime.now(UTC) - timedelta(minutes=1)
    for model in (OPUS, OPUS, Dependency("anthropic", "global", "claude-next")):
        call = scene.call(scope=here, dependency=model)
        journal.taken(call)
        last = attempt(
            dependency=model, request_id="req_1", body=body.replace(b"claude-opus-4-8", model.model.encode())
        )
        journal.known(ended(call, served_by=model, first_token_us=T0 + 5_000), last)
    journal.taken(scene.call(scope=here))
    await scene.events_of(call)
    async with await open_pool(shared_database, PoolOptions(size=1)) as pool:
        rows = await run(pool, find("decisions.calls"), tenant="asked", arguments={"model": OPUS.model})
        told = [(row.outcome, row.attempts, row.cost_microusd, row.first_token_ms) for row in rows]  # type: ignore[attr-defined]
        assert told == [("pending", None, None, None), *[("success", 1, COST, 5)] * 2]
        rows = await run(pool, find("decisions.cost"), tenant="asked", arguments={"since": since})
        told = [(row.agent, row.model, row.calls, row.cost_microusd, row.unpriced) for row in rows]  # type: ignore[attr-defined]
        assert told == [("a", OPUS.model, 2, 2 * COST, 0), ("a", "claude-next", 1, None, 1)]
