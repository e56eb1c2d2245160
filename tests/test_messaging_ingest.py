"""Events on `in.<tenant>`: what is taken in which form, what is refused, and that nobody is harmed by another's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import stack
from messaging_stack import Messaging, messaging

from relight.engine.clock import Clock
from relight.engine.errors import RequestRefused
from relight.engine.messaging.contents import documents_of
from relight.events.subjects import token

CLOCK = Clock()
STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
PROJECTED = {"Relight-Ack": "projected"}


def event(n: int = 1, **changes: Any) -> dict[str, Any]:
    document = {
        "specversion": "1.0",
        "id": CLOCK.next_id(),
        "source": "urn:test",
        "type": "breakers.failed",
        "data": {"service_name": "api", "error_class": "Timeout", "details": {"n": n}},
    }
    return {name: value for name, value in (document | changes).items() if value is not None}


@pytest_asyncio.fixture
async def service(database: str, spools: Path) -> AsyncIterator[Messaging]:
    async with stack.nats_server() as nats, messaging(nats, database, spools) as running:
        yield running


async def failures(service: Messaging) -> list[dict[str, Any]]:
    return await service.rows("SELECT * FROM circuit_breaker_events WHERE event_type = 'failure' ORDER BY event_id")


async def test_a_structured_event_is_in_the_tables_when_projected_is_answered(service: Messaging) -> None:
    sent = event()
    told = await service.send("in.acme", sent, STRUCTURED | PROJECTED)
    [accepted] = orjson.loads(told.data)["accepted"]
    assert (accepted["id"], accepted["ack"]) == (sent["id"], "projected")
    assert accepted["receipt"].endswith(f"@{service.recorder.publisher}")
    assert (told.headers or {})["Relight-Status"] == "200"
    assert [(str(row["event_id"]), row["tenant"]) for row in await failures(service)] == [(sent["id"], "acme")]


async def test_binary_mode_is_taken_with_its_attributes_percent_encoded(service: Messaging) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "order-1",
        "ce-source": "urn:test",
        "ce-type": "breakers.failed",
        "ce-time": "2026-01-01T00:00:00Z",
        "CE-correlationid": "r%C3%BCn%20%25",
        "content-type": "application/json; charset=utf-8",
    }
    told = await service.told("in.acme", event()["data"], headers | PROJECTED)
    [row] = await failures(service)
    assert str(row["event_id"]) == told["accepted"][0]["id"]
    [stored] = [
        body for body in stack.bodies(await stack.on_stream(service.client)) if body["id"] == str(row["event_id"])
    ]
    assert stored["correlationid"] == "rün %"


async def test_a_batch_is_taken_whole_and_in_order(service: Messaging) -> None:
    batch = [event(n) for n in range(200)]
    told = await service.told("in.acme", batch, BATCH | PROJECTED)
    assert [accepted["id"] for accepted in told["accepted"]] == [document["id"] for document in batch]
    assert stack.numbers(await stack.on_stream(service.client)) == list(range(200))
    assert len(await failures(service)) == 200


async def test_of_a_batch_with_one_bad_event_nothing_is_recorded(service: Messaging) -> None:
    told = await service.told("in.acme", [event(0), event(1, type="breakers.imagined"), event(2)], BATCH)
    assert (told["status"], told["type"]) == (422, "/v1/problems/invalid-event")
    assert told["detail"].startswith("event 1: type: 'breakers.imagined'")
    assert stack.numbers(await stack.on_stream(service.client)) == []


@pytest.mark.parametrize("changes", [{}, {"id": "any text", "time": "2026-01-01T00:00:00Z"}])
async def test_an_event_that_is_sent_again_adds_nothing(service: Messaging, changes: dict[str, str]) -> None:
    sent = event(**changes)
    first = await service.told("in.acme", sent, PROJECTED)
    before = await failures(service)
    second = await service.told("in.acme", sent, PROJECTED)
    assert second["accepted"][0]["id"] == first["accepted"][0]["id"]
    assert await failures(service) == before
    assert len(before) == 1


async def test_the_same_id_of_two_tenants_is_two_events(service: Messaging) -> None:
    sent = event()
    for tenant in ("acme", "globex"):
        await service.told(f"in.{tenant}", sent, PROJECTED)
    assert sorted(row["tenant"] for row in await failures(service)) == ["acme", "globex"]


async def test_a_tenant_of_any_name_is_escaped_in_the_subject(service: Messaging) -> None:
    tenants = ["a.b", "sp ace", "stern*", ">", "ümlaut", "per%cent", "'; DROP TABLE x; --", "x" * 64]
    for tenant in tenants:
        await service.told(f"in.{token(tenant)}", event(tenant=tenant), PROJECTED)
    assert [row["tenant"] for row in await failures(service)] == tenants


async def test_a_subject_that_is_no_tenants_is_refused(service: Messaging) -> None:
    for escaped in ("a.b", "a%2eb", "%61cme", "%00", "%ff", "a%", "x" * 65, "a%0d%0ab", "ümlaut", "a%3e"):
        told = await service.told(f"in.{escaped}", event())
        assert (told.get("status"), told.get("type")) == (400, "/v1/problems/no-tenant"), escaped


BAD_MESSAGES: list[tuple[int, str, dict[str, str], object]] = [
    (400, "malformed", STRUCTURED, b"not JSON"),
    (400, "malformed", {}, b""),
    (400, "malformed", {}, b"\xff\xfe"),
    (400, "malformed", {}, b"[" * 100_000),
    (400, "malformed", BATCH, event()),
    (400, "malformed", {"ce-id": "%ff"}, {}),
    (400, "malformed", {"ce-data": "x"}, {}),
    (422, "invalid-event", {"ce-id": "x" * 3_000}, {}),
    (400, "malformed", {"Relight-Ack": "everywhere"}, event()),
    (400, "malformed", {"Relight-Timeout-S": "nan"}, event()),
    (400, "malformed", {"Relight-Timeout-S": "-1"}, event()),
    (400, "malformed", {"Relight-Timeout-S": "9e9"}, event()),
    (415, "wrong-content-type", {"content-type": "text/html"}, event()),
    (415, "wrong-content-type", {"content-type": "application/cloudevents+avro"}, event()),
    (415, "wrong-content-type", {"content-type": "application/json; charset=latin-1"}, event()),
    (422, "invalid-event", {}, [event()]),
    (422, "invalid-event", {}, None),
    (422, "invalid-event", BATCH, []),
    (422, "invalid-event", BATCH, [event()] * 1_001),
    (422, "invalid-event", {}, event(tenant="globex")),
    (422, "invalid-event", {}, event(region="mars")),
    (422, "invalid-event", {}, event(subject="another")),
    (422, "invalid-event", {}, event(specversion="0.3")),
    (422, "invalid-event", {}, event(type="breakers.opened")),
    (422, "invalid-event", {}, event(type="recorder.opened")),
    (422, "invalid-event", {}, event(id="no uuid")),
    (422, "invalid-event", {}, event(id="x", time="1960-01-01T00:00:00Z")),
    (422, "invalid-event", {}, event(time="9999-01-01T00:00:00Z")),
    (422, "invalid-event", {}, event(id="ffffffff-ffff-7fff-bfff-ffffffffffff")),
    (422, "invalid-event", {}, event(dataversion=99)),
    (422, "invalid-event", {}, event(secret="hunter2")),
    (422, "invalid-event", {}, event(data={"service_name": "api\x00", "error_class": "x"})),
    (422, "invalid-event", {}, event(data={"service_name": "api", "error_class": "x", "details": {"n": 2**60}})),
    (422, "invalid-event", {}, event(data="text")),
]


async def test_what_cannot_be_taken_is_answered_with_a_problem_and_the_next_is_taken(service: Messaging) -> None:
    for status, kind, headers, body in BAD_MESSAGES:
        told = await service.send("in.acme", body, headers)
        problem = orjson.loads(told.data)
        assert (problem.get("status"), problem.get("type")) == (status, f"/v1/problems/{kind}"), (headers, body)
        assert problem["title"]
        assert "hunter2" not in problem["detail"]
        assert told.headers is not None
        assert (told.headers["content-type"], told.headers["Relight-Status"]) == (
            "application/problem+json",
            str(status),
        )
    assert stack.numbers(await stack.on_stream(service.client)) == []
    assert (await service.told("in.acme", event(), PROJECTED))["accepted"]


async def test_a_body_beyond_a_mebibyte_is_refused_where_nats_would_let_it_through(
    service: Messaging, spools: Path
) -> None:
    with pytest.raises(RequestRefused, match="the body has 1048577 bytes"):
        documents_of({}, b" " * ((1 << 20) + 1))
    big = event(data={"service_name": "api", "error_class": "x", "details": {"text": "x" * 600_000}})
    told = await service.told("in.acme", big)
    assert (told["status"], told["type"]) == (422, "/v1/problems/invalid-event")
    assert "put the bulk into content" in told["detail"]


async def test_a_message_nobody_waits_for_is_recorded_and_a_refused_one_counted_and_logged_without_content(
    service: Messaging, caplog: pytest.LogCaptureFixture
) -> None:
    await service.client.publish("in.acme", orjson.dumps(event(7)))
    await service.client.publish("in.acme", orjson.dumps(event(8, secret="hunter2")))
    refused = 'relight_messages_refused_total{problem="invalid-event",subject="in"} 1.0'
    await stack.until(lambda: refused in service.metrics(), "the refused one is counted")
    await stack.until(lambda: "relight_ingest_accepted_events_total 1.0" in service.metrics())
    assert "message on in refused: invalid-event" in caplog.text
    assert "hunter2" not in caplog.text
    assert "acme" not in caplog.text
    await stack.until(lambda: failures(service), "the other one is projected")


async def test_the_senders_trace_is_the_events_unless_that_names_its_own(service: Messaging) -> None:
    trace, own = (f"00-{digit * 32}-{digit * 16}-01" for digit in "ab")
    await service.told("in.acme", event(1), {"traceparent": trace})
    await service.told("in.acme", event(2, traceparent=own), {"traceparent": trace})
    await service.told("in.acme", event(3), {"traceparent": "nonsense"})
    found = [body for body in stack.bodies(await stack.on_stream(service.client)) if body["type"] == "breakers.failed"]
    assert [body.get("traceparent") for body in found] == [trace, own, None]


async def test_what_the_recorder_has_no_space_for_is_refused_as_unavailable(database: str, spools: Path) -> None:
    async with stack.nats_server() as nats, messaging(nats, database, spools, spool_max_bytes=1 << 20) as service:
        js = service.client.jetstream()
        await js.purge_stream("EV")
        config = (await js.stream_info("EV")).config
        config.max_bytes = 1_024  # the stream is full: nothing leaves the spool
        await js.update_stream(config)
        text = {"service_name": "api", "error_class": "x", "details": {"text": "x" * 400_000}}
        told = [await service.told("in.acme", event(data=text), {"Relight-Ack": "spooled"}) for _ in range(4)]
        assert "accepted" in told[0]
        assert (told[-1]["status"], told[-1]["type"]) == (503, "/v1/problems/no-space")


async def test_a_level_that_is_not_reached_in_time_is_told_and_the_event_stays_recorded(
    service: Messaging,
) -> None:
    async with service.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE projection_positions IN EXCLUSIVE MODE")
        told = await service.told("in.acme", event(), PROJECTED | {"Relight-Timeout-S": "0.3"})
        assert (told["status"], told["type"], told["recorded"]) == (504, "/v1/problems/not-in-time", True)
    await stack.until(lambda: failures(service))


async def test_senders_who_wait_keep_nobody_else_waiting_and_a_flood_is_refused(service: Messaging) -> None:
    async with service.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE projection_positions IN EXCLUSIVE MODE")
        patient = PROJECTED | {"Relight-Timeout-S": "4"}
        flood = [asyncio.create_task(service.told("in.acme", event(n), patient)) for n in range(600)]
        refused = [task for task in flood if (await asyncio.wait([task], timeout=0))[0]]
        await stack.until(
            lambda: 'problem="too-many-at-once",subject="in"} 100.0' in service.metrics(), "a flood is refused"
        )
        told = await service.told("in.globex", event(), {"Relight-Ack": "replicated"})
        assert told["accepted"]
        assert not refused
    answers = await asyncio.gather(*flood)
    assert sorted({answer.get("status", 200) for answer in answers}) == [200, 429]
    assert sum("accepted" in answer for answer in answers) == 500


async def test_of_two_replicas_one_takes_each_message(database: str, spools: Path) -> None:
    async with stack.nats_server() as nats:
        async with messaging(nats, database, spools) as one, messaging(nats, database, spools) as other:
            told = await asyncio.gather(*(one.told("in.acme", event(n), PROJECTED) for n in range(40)))
            publishers = [answer["accepted"][0]["receipt"].partition("@")[2] for answer in told]
            assert set(publishers) == {one.recorder.publisher, other.recorder.publisher}
            assert sorted(stack.numbers(await stack.on_stream(one.client))) == list(range(40))


async def test_a_replica_that_stops_leaves_no_message_unanswered(database: str, spools: Path) -> None:
    async with stack.nats_server() as nats, messaging(nats, database, spools) as stays:
        stop, answers = asyncio.Event(), []

        async def keep_sending() -> None:
            while not stop.is_set():
                answers.append(await stays.told("in.acme", event(len(answers))))

        senders = [asyncio.create_task(keep_sending()) for _ in range(8)]
        for _ in range(3):
            async with messaging(nats, database, spools) as leaves:
                seen = len(answers)
                await stack.until(lambda leaves=leaves: "accepted_events_total 0.0" not in leaves.metrics())
                await stack.until(lambda seen=seen: len(answers) > seen + 20)
        stop.set()
        await asyncio.gather(*senders)
        assert [answer for answer in answers if "accepted" not in answer] == []
