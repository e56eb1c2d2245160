"""`/v1/events` and `/v1/event-types`: the way in for events of any language, and what may be sent there."""

from functools import cache
from math import ceil
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from relight.engine.cloudevents import BATCH, BINARY, STRUCTURED, documents
from relight.engine.errors import RequestRefused
from relight.engine.http.body import read_body
from relight.engine.http.gate import ANYBODY, PUBLISHES, Gate
from relight.engine.http.parameters import given_once
from relight.engine.http.schemas import ACK, BINARY_HEADERS, responses
from relight.engine.ingest import Accepted, Incoming, Ingest
from relight.engine.recorder.receipts import Ack
from relight.events.base import Control
from relight.events.catalog import event_types

EVENTS, TYPES = "/v1/events", "/v1/event-types"
EVENTS_PER_REQUEST = 100
"""So many events of a batch count as one request."""


class AcceptedBatch(BaseModel):
    """What became of a batch: each of its events, in order."""

    accepted: list[Accepted]


class EventType(BaseModel):
    """A type of event that may be sent, and the JSON Schema of its data."""

    type: str
    dataversion: int
    description: str
    subject: str
    data: dict[str, Any]


class EventTypes(BaseModel):
    """Every type of event that may be sent: observations; rulings are appended by policies, not sent."""

    types: list[EventType]


def event_routes(gate: Gate, ingest: Ingest, *, receive_s: float) -> APIRouter:
    """Both routes."""
    router = APIRouter(tags=["events"])

    @router.post(
        EVENTS,
        operation_id="events.publish",
        summary="Record events, as CloudEvents in structured, batched or binary mode.",
        response_model=None,
        status_code=201,
        responses=responses(201, Accepted, "the event is recorded, and as certain as asked", receipt=True)
        | {200: responses(200, AcceptedBatch, "all events of the batch are", receipt=True)[200]},
        openapi_extra={"parameters": [ACK, *BINARY_HEADERS], "requestBody": _request_body()},
    )
    async def publish(request: Request) -> Response:
        async with gate.admitted(request, PUBLISHES) as caller:
            ack = _ack(given_once(request, ("ack",)).get("ack"))
            body = await read_body(request, within_s=receive_s)
            found, batched = documents(request.headers.get("content-type"), request.headers.items(), body)
            if len(found) > EVENTS_PER_REQUEST:
                gate.charge(caller, ceil(len(found) / EVENTS_PER_REQUEST) - 1)
            accepted = await ingest.take(found, tenant=caller.token.tenant, ack=ack)
        said = [one.model_dump() for one in accepted]
        answer = {"accepted": said} if batched else said[0]
        headers = {"Relight-Receipt": accepted[-1].receipt}
        return Response(orjson.dumps(answer), 200 if batched else 201, headers, "application/json")

    @router.get(
        TYPES,
        operation_id="events.types",
        summary="Which events may be sent, and what their data looks like?",
        response_model=None,
        responses=responses(200, EventTypes, "every type that may be sent"),
    )
    async def types(request: Request) -> Response:
        async with gate.admitted(request, ANYBODY):
            given_once(request, ())
            return Response(_types(), media_type="application/json")

    return router


def _ack(text: str | None) -> Ack:
    try:
        return Ack.REPLICATED if text is None else Ack(text)
    except ValueError:
        raise RequestRefused("invalid-parameter", f"ack: one of {', '.join(Ack)}, not {text!r:.40}") from None


@cache
def _types() -> bytes:
    found = [
        EventType(
            type=name,
            dataversion=cls.VERSION,
            description=(cls.__doc__ or "").strip(),
            subject=cls.ENTITY,
            data=cls.model_json_schema(),
        )
        for name, cls in event_types().items()
        if not issubclass(cls, Control) and not name.startswith("recorder.")
    ]
    return orjson.dumps(EventTypes(types=found).model_dump())


def _request_body() -> dict[str, Any]:
    event = Incoming.model_json_schema(ref_template="#/components/schemas/{model}")
    data = {"type": "object", "description": "the event's data; its attributes are ce- headers"}
    return {
        "required": True,
        "content": {
            STRUCTURED: {"schema": event},
            BATCH: {"schema": {"type": "array", "items": event, "minItems": 1, "maxItems": 1_000}},
            BINARY: {"schema": data},
        },
    }
