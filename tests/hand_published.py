"""A publisher whose chain a test writes by hand, and what of its events was projected."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from folding import event_id
from nats.aio.client import Client
from stack import Projecting, encoded

from relight.engine.log.chain import body_sha256
from relight.events.envelope import GENESIS

NOW = datetime.now(UTC)


def id_now(ordinal: int, *, ahead_s: float = 0) -> str:
    return event_id(int((NOW + timedelta(seconds=ahead_s)).timestamp() * 1_000), ordinal)


class Publisher:
    """Writes a chain of its own by hand, straight to the stream."""

    def __init__(self, client: Client, name: str = "p-test") -> None:
        self.client = client
        self.name = name
        self.pseq = 0
        self.prev = GENESIS

    def next(self, data: Any, /, **changes: Any) -> tuple[str, bytes]:
        self.pseq += 1
        id = changes.pop("id", id_now(self.pseq))
        subject, body = encoded(data, id=id, time=NOW, pseq=self.pseq, prev=self.prev, publisher=self.name)
        if changes:
            document = orjson.loads(body) | changes
            body = orjson.dumps({name: value for name, value in document.items() if value is not None})
        self.prev = body_sha256(body)
        return subject, body

    async def publish(self, data: Any, /, **changes: Any) -> int:
        subject, body = self.next(data, **changes)
        return await self.send(subject, body)

    async def send(self, subject: str, body: bytes) -> int:
        return (await self.client.jetstream().publish(subject, body)).seq


async def services(projected: Projecting) -> list[str]:
    rows = await projected.rows("SELECT details FROM circuit_breaker_events ORDER BY event_id")
    return [orjson.loads(row["details"])["n"] for row in rows]
