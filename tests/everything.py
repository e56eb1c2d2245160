"""One event of every kind there is, from the payloads kept for ever: together they write to all twenty tables."""

from pathlib import Path
from typing import Any

import orjson
from folding import event_id
from nats.aio.client import Client

from relight.events.catalog import decode, id_ms
from relight.events.subjects import control_subject

PAYLOADS = Path(__file__).parent / "payloads"
MONTH_MS = 31 * 86_400_000


def everything(tenant: str = "acme", *, months_ago: int = 0, copy: int = 0) -> list[tuple[str, bytes]]:
    """Subjects and bodies, of March 2026 or so many months before; copies have ids and entities of their own."""
    found = []
    for n, path in enumerate(sorted(PAYLOADS.glob("*.json"))):
        document: dict[str, Any] = orjson.loads(path.read_bytes())
        ms = id_ms(document["id"]) - months_ago * MONTH_MS
        document |= {"id": event_id(ms, copy * 1_000 + n), "tenant": tenant}
        if "policy" in document:
            document["publisher"] = control_subject(document["policy"], tenant, document["subject"])
        body = orjson.dumps(document)
        found.append((decode(body).nats_subject, body))
    return found


async def publish_everything(client: Client, *, tenants: tuple[str, ...] = ("acme",), months: int = 1) -> int:
    """Publishes it for these tenants and months; how many events that is."""
    told = [event for tenant in tenants for ago in range(months) for event in everything(tenant, months_ago=ago)]
    js = client.jetstream(timeout=10)
    for subject, body in told:
        await js.publish(subject, body)
    return len(told)
