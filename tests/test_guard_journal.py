"""The journal: facts of guarded calls in, events on a real stream and rows of real tables out."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from stack import Projecting, bodies, connected, failed, nats_server, on_stream, options, projecting

from relight.engine.embedded.nats import EmbeddedNats
from relight.engine.errors import ContentError
from relight.engine.guard.facts import Answer, Attempt, Call, Dependency, Failure, Usage
from relight.engine.guard.recording import weighing
from relight.engine.guard.recording.journal import Journal
from relight.engine.log.content import fetch_content
from relight.engine.recorder.receipts import Ack
from relight.engine.recorder.recorder import Recorder
from relight.engine.scope import Scope
from relight.engine.settings import ContentPolicy
from relight.engine.tables.pools import PoolOptions, open_pool
from relight.engine.tables.queries import find, run
from relight.events.values import Content

pytestmark = pytest.mark.asyncio(loop_scope="module")

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

    @contextmanager
    def hanging_disk(self) -> Iterator[None]:
        """The writer's thread is held up meanwhile."""
        reached, on = threading.Event(), threading.Event()

        def hangs() -> None:
            reached.set()
            on.wait(20)

        assert self.recorder._session is not None
        self.recorder._session.writer.put(hangs)
        try:
            assert reached.wait(20)
            yield
        finally:
            on.set()

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


async def test_a_digest_is_none_where_the_policy_is_and_the_bytes_are_kept_under_full(scene: Scene) -> None:
    body = orjson.dumps(MESSAGE)
    for policy in ContentPolicy:
        journal, call = scene.journal(content=policy), scene.call(body=BODY | {"metadata": {"user_id": policy.value}})
        journal.taken(call)
        journal.known(ended(call), attempt(body=body))
        taken, tried, *_ = await scene.events_of(call)
        if policy is ContentPolicy.NONE:
            assert "request" not in taken["data"]
            assert "content" not in tried["data"]
            continue
        request, response = taken["data"]["request"], tried["data"]["content"]
        if policy is ContentPolicy.DIGEST:
            with pytest.raises(ContentError):
                await scene.content(request)
        else:
            assert orjson.loads(await scene.content(request)) == call.body
            assert await scene.content(response) == body
            with pytest.raises(ContentError):
                await scene.content(response, tenant="ops")


async def test_hooks_redact_in_order_what_is_kept_and_what_is_digested(scene: Scene) -> None:
    def blank(kind: str, document: Any) -> Any:
        text = orjson.dumps(document).replace(b"secret", b"[hidden]")
        return {"kind": kind, "document": orjson.loads(text)}

    def sign(_: str, document: Any) -> Any:
        return document | {"signed": True}

    for policy in (ContentPolicy.DIGEST, ContentPolicy.FULL):
        journal, call = scene.journal(content=policy, redact=(blank, sign)), scene.call()
        journal.taken(call)
        journal.known(ended(call), attempt(body=orjson.dumps(MESSAGE)))
        taken, tried, *_, known = await scene.events_of(call)
        wanted = {"document": orjson.loads(orjson.dumps(BODY).replace(b"secret", b"[hidden]")), "kind": "request"}
        expected = orjson.dumps(wanted | {"signed": True}, option=orjson.OPT_SORT_KEYS)
        assert taken["data"]["request"]["sha256"] == sha256(expected)
        assert known["data"]["output_tokens"] == 100
    assert await scene.content(taken["data"]["request"]) == expected
    assert b"the [hidden] answer" in await scene.content(tried["data"]["content"])
    assert call.body == BODY


@pytest.mark.parametrize("kind", ["raises", "gives nothing", "gives no JSON"])
async def test_where_a_hook_fails_the_content_is_not_recorded_and_that_is_counted(
    scene: Scene, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(_: str, document: Any) -> Any:
        if kind == "raises":
            raise RuntimeError(f"cannot redact {document}")
        return None if kind == "gives nothing" else {"a set": {1, 2}}

    journal, call = scene.journal(content=ContentPolicy.FULL, redact=(hook,)), scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body=orjson.dumps(MESSAGE)))
    taken, tried, *_, known = await scene.events_of(call)
    assert "request" not in taken["data"]
    assert "content" not in tried["data"]
    assert known["data"]["cost_microusd"] == COST
    assert journal.refused_contents == 2
    said = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "content_refused"]
    assert len(said) == 2
    assert call.decision in said[0]
    assert "secret" not in "".join(said)


def streamed(*texts: str) -> bytes:
    start = MESSAGE | {"content": [], "stop_reason": None, "usage": {"input_tokens": 5, "output_tokens": 1}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "refund", "input": {}},
        },
        *(
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": part}}
            for part in ('{"card"', ': "4111 1111"}')
        ),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), orjson.dumps(e)) for e in events)


async def test_hooks_see_a_streamed_answer_as_the_message_that_it_is(scene: Scene) -> None:
    def blank(kind: str, document: Any) -> Any:
        return orjson.loads(orjson.dumps(document).replace(b"secret", b"[hidden]").replace(b"4111 1111", b"[card]"))

    body = streamed("the se", "cret ans", "wer")
    journal, call = scene.journal(content=ContentPolicy.FULL, redact=(blank,)), scene.call(streams=True)
    journal.taken(call)
    answer = Answer("msg_1", OPUS.model, "tool_use", Usage(5, 7))
    journal.known(ended(call), attempt(body=body, body_sha256=sha256(body), body_bytes=len(body), answer=answer))
    _, tried, *_, known = await scene.events_of(call)
    kept = orjson.loads(await scene.content(tried["data"]["content"]))
    assert kept["content"] == [
        {"type": "text", "text": "the [hidden] answer"},
        {"type": "tool_use", "id": "t", "name": "refund", "input": {"card": "[card]"}},
    ]
    assert (kept["stop_reason"], kept["usage"]) == ("tool_use", {"input_tokens": 5, "output_tokens": 7})
    assert known["data"]["cost_microusd"] == 5 * 5 + 7 * 25


async def test_what_cannot_be_put_together_is_not_recorded_where_there_are_hooks(scene: Scene) -> None:
    journal = scene.journal(content=ContentPolicy.FULL, redact=(lambda _, document: document,))
    bodies_ = (b"<html>the secret", streamed("a") + b'event: error\ndata: {"type":"error"}\n\n', b"\0" * 40, b"")
    for body in bodies_:
        call = scene.call()
        journal.taken(call)
        journal.known(ended(call), attempt(body=body))
        assert "content" not in (await scene.events_of(call))[1]["data"]
    assert journal.refused_contents == len(bodies_)
    call = scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body_sha256=SHA, body_bytes=9))
    assert "content" not in (await scene.events_of(call))[1]["data"]


async def test_a_stream_whose_bytes_nobody_kept_has_the_digest_that_was_made_as_it_passed(scene: Scene) -> None:
    journal, call = scene.journal(), scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body_sha256=SHA, body_bytes=9))
    assert (await scene.events_of(call))[1]["data"]["content"] == {"sha256": SHA, "size_bytes": 9}


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


def pressed(scene: Scene, monkeypatch: pytest.MonkeyPatch, **how: Any) -> Journal:
    """A journal to which nothing waiting is too much already."""
    monkeypatch.setattr(weighing, "FEWEST_EVENTS", -1)
    monkeypatch.setattr(weighing, "MOST_EVENTS", -1)
    return scene.journal(**how)


@pytest.mark.parametrize(("policy", "lost"), [(ContentPolicy.DIGEST, 0), (ContentPolicy.FULL, 2)])
async def test_where_too_much_waits_bodies_are_let_go_and_all_else_is_recorded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, policy: ContentPolicy, lost: int
) -> None:
    usual, call, body = scene.journal(), scene.call(), orjson.dumps(MESSAGE)
    usual.taken(call)
    [full] = await scene.events_of(call)
    journal, call = pressed(scene, monkeypatch, content=policy), scene.call()
    journal.taken(call)
    last = attempt(body=body)
    journal.known(ended(call), last)
    assert last.body is None
    taken, tried, _, known = await scene.events_of(call)
    dropped = {"relight.content.dropped": True} if lost else {}
    assert taken["data"]["request"] == full["data"]["request"], "the digest stays"
    assert taken["data"]["context"] == full["data"]["context"] | dropped
    assert tried["data"]["content"] == {"sha256": sha256(body), "size_bytes": len(body)}
    assert tried["data"]["state_snapshot"].items() >= dropped.items()
    assert (tried["causationid"], known["causationid"]) == (taken["id"], taken["id"])
    assert known["data"]["cost_microusd"] == COST
    assert journal.let_go == lost


async def test_what_hooks_would_leave_of_a_body_that_is_let_go_is_not_known(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def hook(kind: str, document: Any) -> Any:
        asked.append(kind)
        return document

    journal, call = pressed(scene, monkeypatch, redact=[hook]), scene.call()
    journal.taken(call)
    journal.known(ended(call), attempt(body=orjson.dumps(MESSAGE)))
    taken, tried, *_ = await scene.events_of(call)
    assert ("request" in taken["data"], "content" in tried["data"], asked) == (False, False, [])
    assert taken["data"]["context"]["relight.content.dropped"] is True
    assert journal.let_go == 2


async def test_bodies_that_wait_for_a_disk_are_limited_by_their_weight(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = BODY | {"messages": [{"role": "user", "content": "x" * 100_000}]}
    monkeypatch.setattr(weighing, "PRESSED_BYTES", 2 << 20)
    monkeypatch.setattr(weighing, "FEWEST_EVENTS", 0)
    journal = scene.journal(content=ContentPolicy.FULL)
    for _ in range(20):  # what is written tells what bodies weigh
        journal.taken(scene.call(body=heavy))
    await scene.recorder.mark().reached(Ack.SPOOLED)
    with scene.hanging_disk():
        calls = [scene.call(body=heavy) for _ in range(100)]
        for call in calls:
            journal.taken(call)
    kept = 100 - journal.let_go
    assert 10 < kept <= (2 << 20) / 90_000 * weighing.EVENTS_OF_A_BODY + 1
    [taken] = await scene.events_of(calls[-1])
    assert taken["data"]["request"]["size_bytes"] > 100_000


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
