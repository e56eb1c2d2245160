"""`/v1/changes`: what happens to the tables, as Server-Sent Events."""

import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from relight.engine.errors import RequestRefused
from relight.engine.http.draining import KEY, Draining
from relight.engine.http.feed import Feed, Place, place
from relight.engine.http.gate import READS, Gate
from relight.engine.http.parameters import first, given_once
from relight.engine.http.schemas import LAST_EVENT_ID, SUBSYSTEM, TENANT, change_responses
from relight.projections.catalog import projections

PATH = "/v1/changes"
MEDIA_TYPE = "text/event-stream"


class ChangeData(BaseModel):
    """`data` of an event; its `event` is the type, its `id` the position `incarnation.seq` that shows it.

    An event named `gap` has `from` and `to` instead, positions between which changes may have been missed: ask the
    queries again. Comments are heartbeats.
    """

    seq: int
    id: str
    type: str
    subject: str
    tenant: str
    region: str
    time: str = Field(json_schema_extra={"format": "date-time"})
    subsystem: str


class EventStream(StreamingResponse):
    """Closes its generator whatever ends it: one that is left to the garbage collector would follow on."""

    media_type = MEDIA_TYPE

    def __init__(self, content: AsyncGenerator[bytes, None], held: ExitStack) -> None:
        super().__init__(content, headers={"X-Accel-Buffering": "no"})
        self._content = content
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with aclosing(self._content):
                await super().__call__(scope, receive, send)


def change_routes(gate: Gate, feed: Feed, *, heartbeat_s: float) -> APIRouter:
    """The route. A follower's token is looked at again with every heartbeat: revoked or expired, the stream ends."""
    router = APIRouter(tags=["changes"])

    @router.get(
        PATH,
        operation_id="changes.follow",
        summary="Follow what happens to the tables, as Server-Sent Events.",
        response_model=None,
        responses=change_responses(ChangeData, MEDIA_TYPE),
        openapi_extra={"parameters": [TENANT, SUBSYSTEM, LAST_EVENT_ID]},
    )
    async def follow(request: Request) -> Response:
        caller = await gate.caller(request, READS, tenant=first(request, "tenant"))
        given = given_once(request, ("tenant", "subsystem"))
        subsystem = _subsystem(given.get("subsystem"))
        after = _after(request.headers.get("last-event-id"))
        draining: Draining = request.scope.get(KEY) or Draining()
        held = ExitStack()
        held.enter_context(gate.streaming(caller))

        async def sent() -> AsyncGenerator[bytes, None]:
            checked_at = time.monotonic()
            following = feed.follow(
                tenant=caller.tenant, subsystem=subsystem, after=after, heartbeat_s=heartbeat_s, ends=draining
            )
            async with aclosing(following):
                async for chunk in following:
                    if time.monotonic() - checked_at >= heartbeat_s / 2:
                        checked_at = time.monotonic()
                        if not await gate.still_good(caller):
                            return
                    yield chunk

        return EventStream(sent(), held)

    return router


def _subsystem(text: str | None) -> str | None:
    names = [projection.name for projection in projections()]
    if text is not None and text not in names:
        raise RequestRefused("invalid-parameter", f"subsystem: one of {', '.join(names)}, not {text[:40]!r}")
    return text


def _after(text: str | None) -> Place | None:
    if not text:
        return None
    found = place(text)
    if found is None:
        raise RequestRefused("invalid-parameter", "Last-Event-ID: none of ours; it looks like 1.42")
    return found
