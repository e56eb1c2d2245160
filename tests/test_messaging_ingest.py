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
    return await service.rows("SELECT * FROM circuit_breaker_events WHERE event_type = 'failed' ORDER BY event_id")


async def test_a_structured_event_is_in_the_tables_when_projected_is_answered(service: Messaging) -> None:
    sent = event()
    told = await service.send("in.acme", sent, STRUCTURED | PROJECTED)
    [accepted] = orjson.loads(told.data)["accepted"]
    assert (accepted["id"], accepted["ack"]) == (sent["id"], "projected")
    assert accepted["receipt"].endswith(f"@{service.recorder.publisher}")
    assert (told.headers or {})["Relight-Status"] == "200"
    assert [(str(row["event_id"]), row["tenant"]) for row in await failures(service)] == [(sent["id"], "acme")]
