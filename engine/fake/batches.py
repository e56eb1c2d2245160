"""Message batches: worked off at once, and kept as long as the fake runs."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from relight.engine.fake import answers
from relight.engine.fake.asked import Api, Asked, Operation
from relight.engine.fake.steps import Step

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When every batch was made: the same request has the same answer."""
JSON_LINES = "application/x-jsonl"


@dataclass(frozen=True, slots=True)
class _Batch:
    document: dict[str, Any]
    results: bytes


class Batches:
    def __init__(self) -> None:
        self._batches: dict[str, _Batch] = {}

    def answer(self, asked: Asked, base_url: str) -> tuple[bytes, str] | None:
        """Body and content type; None where there is no such batch."""
        if asked.operation is Operation.CREATE_BATCH:
            batch = self._created(asked, base_url)
            self._batches[batch.document["id"]] = batch
            return orjson.dumps(batch.document), "application/json"
        if asked.operation is Operation.LIST_BATCHES:
            listed = [batch.document for batch in self._batches.values()]
            first, last = (listed[0]["id"], listed[-1]["id"]) if listed else (None, None)
            page = {"data": listed, "has_more": False, "first_id": first, "last_id": last}
            return orjson.dumps(page), "application/json"
        found = self._batches.get(asked.batch)
        if found is None:
            return None
        if asked.operation is Operation.BATCH_RESULTS:
            return found.results, JSON_LINES
        return orjson.dumps(found.document), "application/json"

    def _created(self, asked: Asked, base_url: str) -> _Batch:
        name = f"msgbatch_fake_{len(self._batches) + 1:06d}"
        requests = asked.body["requests"]
        document = {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {"processing": 0, "succeeded": len(requests), "errored": 0, "canceled": 0, "expired": 0},
            "created_at": _text(EPOCH),
            "ended_at": _text(EPOCH),
            "expires_at": _text(EPOCH + timedelta(days=1)),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{base_url}/v1/messages/batches/{name}/results",
        }
        return _Batch(document, b"".join(_result(request) for request in requests))


def _result(request: dict[str, Any]) -> bytes:
    params = request.get("params") or {}
    asked = Asked(Api.ANTHROPIC, Operation.MESSAGE, body=params, model=str(params.get("model") or ""))
    result = {"type": "succeeded", "message": answers.message(asked, Step())}
    return orjson.dumps({"custom_id": request.get("custom_id"), "result": result}) + b"\n"


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
