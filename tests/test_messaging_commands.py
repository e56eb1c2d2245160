"""Commands on `cmd.>`: watermarks, health, queries and rulings by request and reply."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest_asyncio
import stack
from messaging_stack import Messaging, messaging

from relight.engine.clock import Clock
from relight.engine.health.document import Flat
from relight.engine.log.watermarks import push_subject

CLOCK = Clock()
PROJECTED = {"Relight-Ack": "projected"}


@pytest_asyncio.fixture
async def service(database: str, spools: Path) -> AsyncIterator[Messaging]:
    async with stack.nats_server() as nats, messaging(nats, database, spools) as running:
        yield running


def ruling(after: int, service_name: str = "api", **changes: Any) -> dict[str, Any]:
    document = {
        "specversion": "1.0",
        "id": CLOCK.next_id(),
        "source": "urn:test",
        "type": "breakers.opened",
        "after": after,
        "policyversion": "1",
        "data": {
            "service_name": service_name,
            "reason": "5 of 8 failed",
            "failure_count": 5,
            "next_retry_at": "2026-01-01T00:00:00Z",
        },
    }
    return document | changes


def observation(n: int = 1) -> dict[str, Any]:
    data = {"service_name": "api", "error_class": "Timeout", "details": {"n": n}}
    return {
        "specversion": "1.0",
        "id": CLOCK.next_id(),
        "source": "urn:test",
        "type": "breakers.failed",
        "data": data,
    }


async def test_a_watermark_is_told_in_the_form_that_recorders_know(service: Messaging) -> None:
    told = await service.told("in.acme", observation(), PROJECTED)
    pseq = int(told["accepted"][0]["receipt"].partition("@")[0])
    publisher = service.recorder.publisher
    assert await service.told("cmd.watermark", {"publisher": publisher, "pseq": pseq}) == {"pseq": pseq, "dead": {}}
    asked = {"publisher": publisher, "pseq": 1, "others": [pseq, 10_000]}
    assert await service.told("cmd.watermark", asked) == {"pseq": pseq, "dead": {}, "reached": [1, pseq]}
    assert await service.told("cmd.watermark", {"publisher": "nobody", "pseq": 1}) == {"pseq": 0, "dead": {}}


async def test_health_is_told(service: Messaging) -> None:
    health = Flat.model_validate_json((await service.send("cmd.status", b"")).data)
    assert health.projector is not None


async def test_a_query_gives_rows_and_how_far_they_are_projected(service: Messaging) -> None:
    told = await service.told("in.acme", observation())
    receipt = told["accepted"][0]["receipt"]
    asked = {"name": "breakers.history", "arguments": {"service": "api"}, "wait": receipt}
    answer = await service.told("cmd.query.acme", asked)
    assert [row["details"]["n"] for row in answer["rows"]] == [1]
    assert answer["position"]["seq"] >= 1
    assert (await service.told("cmd.query.globex", asked))["rows"] == []


BAD_COMMANDS: list[tuple[str, object, int, str]] = [
    ("cmd.query.acme", {"name": "no.such"}, 422, "invalid-parameter"),
    ("cmd.query.acme", {"name": "breakers.history", "arguments": {"service": {"a": 1}}}, 422, "invalid-parameter"),
    ("cmd.query.acme", {"name": "breakers.history", "arguments": {"nothing": 1}}, 422, "invalid-parameter"),
    ("cmd.query.acme", {"name": "breakers.open_now", "limit": 0}, 422, "invalid-parameter"),
    ("cmd.query.acme", {"name": "breakers.open_now", "wait": "soon"}, 422, "invalid-parameter"),
    ("cmd.query.acme", {"name": "breakers.open_now", "sql": "DROP TABLE x"}, 400, "malformed"),
    ("cmd.query.acme", b"\xff", 400, "malformed"),
    ("cmd.query.a.b", {"name": "breakers.open_now"}, 400, "no-tenant"),
    ("cmd.query", {"name": "breakers.open_now"}, 400, "no-tenant"),
    ("cmd.watermark", b"{}", 400, "malformed"),
    ("cmd.watermark", {"publisher": "p\x00", "pseq": 1}, 400, "malformed"),
    ("cmd.watermark", {"publisher": "p", "pseq": 2**60}, 400, "malformed"),
    ("cmd.watermark.acme", {"publisher": "p", "pseq": 1}, 404, "not-found"),
    ("cmd.shutdown", b"", 404, "not-found"),
    ("cmd.rule.acme", [ruling(0)], 422, "invalid-event"),
    ("cmd.rule.acme", ruling(0, tenant="globex"), 422, "invalid-event"),
    ("cmd.rule.acme", observation() | {"after": 0, "policyversion": "1"}, 422, "invalid-event"),
    ("cmd.rule.acme", {k: v for k, v in ruling(0).items() if k != "after"}, 422, "invalid-event"),
    ("cmd.rule.acme", ruling(-1), 422, "invalid-event"),
]


async def test_what_cannot_be_done_is_answered_with_a_problem(service: Messaging) -> None:
    for subject, body, status, kind in BAD_COMMANDS:
        problem = await service.told(subject, body)
        assert (problem.get("status"), problem.get("type")) == (status, f"/v1/problems/{kind}"), (subject, body)


async def test_a_wait_that_is_not_met_in_time_is_a_problem(service: Messaging) -> None:
    asked = {"name": "breakers.open_now", "wait": f"1000@{service.recorder.publisher}"}
    problem = await service.told("cmd.query.acme", asked, {"Relight-Timeout-S": "0.1"})
    assert (problem["status"], problem["type"]) == (504, "/v1/problems/not-in-time")


async def test_a_ruling_is_appended_after_the_revision_it_names(service: Messaging) -> None:
    first = await service.told("cmd.rule.acme", ruling(0), PROJECTED)
    assert (first["rev"], first["receipt"]) == (1, "1@ctl.breaker.acme.api")
    closed = ruling(1, type="breakers.closed", data={"service_name": "api", "reason": "3 probes worked"})
    second = await service.told("cmd.rule.acme", closed, PROJECTED)
    assert second["rev"] == 2
    asked = {"name": "breakers.history", "arguments": {"service": "api"}, "wait": second["receipt"]}
    answer = await service.told("cmd.query.acme", asked)
    assert sorted(row["event_type"] for row in answer["rows"]) == ["closed", "opened"]


async def test_a_ruling_after_an_older_revision_is_superseded(service: Messaging) -> None:
    assert (await service.told("cmd.rule.acme", ruling(0)))["rev"] == 1
    for after in (0, 2):
        problem = await service.told("cmd.rule.acme", ruling(after))
        assert (problem["status"], problem["type"]) == (409, "/v1/problems/superseded")
        assert "is at revision 1" in problem["detail"]


async def test_a_ruling_that_is_sent_again_has_won_already(service: Messaging) -> None:
    sent = ruling(0)
    first, second = [await service.told("cmd.rule.acme", sent) for _ in range(2)]
    assert first == second


async def test_of_racing_rulings_one_wins(service: Messaging) -> None:
    told = await asyncio.gather(*(service.told("cmd.rule.acme", ruling(0)) for _ in range(10)))
    assert sorted(answer.get("status", 200) for answer in told) == [200] + [409] * 9


async def test_the_senders_trace_is_the_rulings(service: Messaging) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    told = await service.told("cmd.rule.acme", ruling(0), {"traceparent": trace})
    [found] = [body for body in stack.bodies(await stack.on_stream(service.client)) if body["id"] == told["id"]]
    assert (found["traceparent"], found["policyversion"]) == (trace, "1")


async def test_an_answer_that_nats_would_not_carry_is_a_problem_that_says_what_to_do(service: Messaging) -> None:
    text = "x" * 60_000
    batch = [observation(n) | {"data": {**observation()["data"], "details": {"t": text}}} for n in range(20)]
    for document in batch:
        await service.told("in.acme", document, PROJECTED)
    asked = {"name": "breakers.history", "arguments": {"service": "api"}}
    problem = await service.told("cmd.query.acme", asked)
    assert (problem["status"], problem["type"]) == (413, "/v1/problems/answer-too-large")
    assert len((await service.told("cmd.query.acme", asked | {"limit": 5}))["rows"]) == 5


async def test_slow_queries_of_one_tenant_leave_connections_to_the_others(service: Messaging) -> None:
    async with service.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE circuit_breaker_events IN ACCESS EXCLUSIVE MODE")
        asked = {"name": "breakers.history", "arguments": {"service": "api"}}
        slow = [asyncio.create_task(service.told("cmd.query.acme", asked)) for _ in range(20)]
        await stack.until(lambda: service.pool.statistics().in_use >= 4, "the slow ones have their share")
        quick = await service.told("cmd.query.globex", {"name": "breakers.open_now"})
        assert quick["rows"] == []
        assert not any(task.done() for task in slow)
    assert all("rows" in answer for answer in await asyncio.gather(*slow))


async def test_progress_is_pushed_by_the_replica_that_projects_whichever_is_asked(database: str, spools: Path) -> None:
    async with stack.nats_server() as nats, messaging(nats, database, spools) as one:
        async with messaging(nats, database, spools) as other:
            pushed: list[bytes] = []

            async def on_push(message: Any) -> None:
                pushed.append(message.data)

            await one.client.subscribe(push_subject(one.recorder.publisher), cb=on_push)
            for _ in range(5):  # either replica may be the one to answer
                await one.told("cmd.watermark", {"publisher": one.recorder.publisher, "pseq": 1})
            one.recorder.record(stack.failed(1))
            await stack.until(lambda: pushed, "the progress is pushed")
            assert other.projector is not one.projector
            assert orjson.loads(pushed[0])["pseq"] >= 1
