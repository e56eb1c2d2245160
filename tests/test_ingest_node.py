"""A program in JavaScript, with its own CloudEvents SDK and NATS client, sends events that are then in the tables."""

import asyncio
from pathlib import Path

import orjson
import stack
from messaging_stack import messaging
from nodejs import installed, node


async def test_node_sends_in_both_modes_and_sending_again_adds_nothing(database: str, spools: Path) -> None:
    await asyncio.to_thread(installed)
    async with stack.nats_server() as nats, messaging(nats, database, spools) as service:
        told = [orjson.loads(line) for line in await asyncio.to_thread(node, "publish.mjs", nats.url, "acme")]
        rows = await service.rows(
            "SELECT event_id::text AS id, tenant, service_name, occurred_at, details FROM circuit_breaker_events"
        )
        bodies = {body["id"]: body for body in stack.bodies(await stack.on_stream(service.client))}
    *answers, garbage = told
    assert [(answer["mode"], answer["status"]) for answer in answers] == [("structured", "200"), ("binary", "200")] * 2
    ids = [answer["accepted"][0]["id"] for answer in answers]
    assert ids[:2] == ids[2:]
    assert sorted(row["id"] for row in rows) == sorted(ids[:2])
    assert {row["details"]["mode"] for row in rows} == {"structured", "binary"}
    assert {(row["tenant"], row["service_name"], row["occurred_at"].isoformat()) for row in rows} == {
        ("acme", "payments/eu", "2026-01-02T03:04:05.678000+00:00")
    }
    assert [bodies[id]["correlationid"] for id in ids[:2]] == ["order 0 é", "order 1 é"]
    assert (garbage["status"], garbage["type"]) == (400, "/v1/problems/malformed")
