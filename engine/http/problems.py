"""Problems (RFC 9457): every error as a document, its status in one table."""

import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relight.engine.errors import (
    AckNotProven,
    AckTimeout,
    DeadLettered,
    IngestRefused,
    NotAllowed,
    QueryError,
    QueryFailed,
    RecorderError,
    RelightError,
    RequestRefused,
    TokenRefused,
    Unreachable,
)
from relight.events.errors import InvalidEvent

MEDIA_TYPE = "application/problem+json"
PATH = "/v1/problems"
RETRY_S = "1"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a type URI means."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "malformed": Kind(400, "The request cannot be read"),
    "token-refused": Kind(401, "The bearer token is missing or refused"),
    "not-allowed": Kind(403, "The token does not allow this"),
    "not-found": Kind(404, "There is no such thing"),
    "too-slow": Kind(408, "The request took too long to arrive"),
    "too-large": Kind(413, "The body is too large"),
    "uri-too-long": Kind(414, "The address is too long"),
    "wrong-content-type": Kind(415, "The content type is not taken here"),
    "invalid-parameter": Kind(422, "A parameter is missing or invalid"),
    "invalid-event": Kind(422, "An event is invalid"),
    "dead-letter": Kind(422, "The event was recorded, but the projector refused it"),
    "rate-limited": Kind(429, "Asked too often"),
    "too-many-at-once": Kind(429, "Too many requests at the same time"),
    "headers-too-large": Kind(431, "The headers are too large"),
    "internal": Kind(500, "An error of ours"),
    "unavailable": Kind(503, "Not available now"),
    "not-in-time": Kind(504, "Not reached in time"),
}
"""By the last part of the type URI."""

STATUSES: tuple[tuple[type[Exception], str], ...] = (
    (NotAllowed, "not-allowed"),
    (TokenRefused, "token-refused"),
    (Unreachable, "unavailable"),
    (QueryFailed, "unavailable"),
    (QueryError, "invalid-parameter"),
    (IngestRefused, "invalid-event"),
    (InvalidEvent, "invalid-event"),
    (DeadLettered, "dead-letter"),
    (AckTimeout, "not-in-time"),
    (AckNotProven, "unavailable"),
    (RecorderError, "unavailable"),
)
"""The first that fits; any other error is ours."""


class Problem(BaseModel):
    """A problem document of RFC 9457."""

    type: str = Field(description="about:blank, or the path of its description")
    title: str
    status: int
    detail: str = Field(description="what is wrong with this request, and what to do")
    instance: str | None = Field(default=None, description="by which our log names this occurrence")


def document(kind: str, detail: str, *, instance: str | None = None) -> dict[str, Any]:
    """The members of a problem of this kind."""
    found = {"type": f"{PATH}/{kind}", "title": KINDS[kind].title, "status": KINDS[kind].status, "detail": detail}
    return found | ({"instance": instance} if instance else {})


def response(kind: str, detail: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """A problem of this kind, as an answer."""
    said = dict(headers or {})
    if kind == "unavailable":
        said.setdefault("Retry-After", RETRY_S)
    return Response(orjson.dumps(document(kind, detail)), KINDS[kind].status, said, MEDIA_TYPE)


def response_to(error: Exception) -> Response:
    """What is answered to any error; one that is not foreseen is logged, and only the log says what it was."""
    match error:
        case RequestRefused():
            return response(error.problem, str(error), headers=error.headers)
        case HTTPException():
            return _of_framework(error)
        case RequestValidationError():
            return response("invalid-parameter", _first_fault(error))
    for kind, name in STATUSES:
        if isinstance(error, kind):
            return response(name, str(error), headers=_challenge(name, str(error)))
    return _internal(error)


async def handle(_: Request, error: Exception) -> Response:
    """`response_to` as FastAPI takes it."""
    return response_to(error)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    kind: handle for kind in (HTTPException, RequestValidationError, RelightError, InvalidEvent)
}


def _challenge(kind: str, said: str) -> dict[str, str]:
    """RFC 6750, section 3."""
    code = {"token-refused": "invalid_token", "not-allowed": "insufficient_scope"}.get(kind)
    if code is None:
        return {}
    quoted = said.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
    return {"WWW-Authenticate": f'Bearer realm="relight", error="{code}", error_description="{quoted}"'}


def _of_framework(error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    what_to_do = {
        404: "nothing is served here: see /openapi.json",
        405: "this method is not served here: see the Allow header",
    }
    found = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": what_to_do.get(status.value, str(error.detail)),
    }
    return Response(orjson.dumps(found), status.value, error.headers, MEDIA_TYPE)


def _first_fault(error: RequestValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'request'}: {fault['msg']}"


def _internal(error: Exception) -> Response:
    instance = f"urn:relight:error:{secrets.token_hex(8)}"
    log.error("%s: %r", instance, error, exc_info=error, extra={"action": "http_error", "error_id": instance})
    detail = f"it is not your request's fault: give {instance} to whoever runs this service, whose log says more"
    return Response(orjson.dumps(document("internal", detail, instance=instance)), 500, None, MEDIA_TYPE)


def problem_routes() -> APIRouter:
    """What each type of problem means, under its type URI; needs no token."""
    router = APIRouter(tags=["problems"])

    @router.get(
        f"{PATH}/{{kind}}",
        operation_id="problems.describe",
        summary="What does this type of problem mean?",
        response_model=None,
        responses={200: {"model": Description}, 404: {"description": "There is no such type", "content": _CONTENT}},
    )
    async def describe(kind: Annotated[str, Path(json_schema_extra={"enum": list(KINDS)})]) -> Response:
        found = KINDS.get(kind)
        if found is None:
            raise RequestRefused("not-found", f"there is no problem of this type; there is {', '.join(KINDS)}")
        described = Description(type=f"{PATH}/{kind}", title=found.title, status=found.status)
        return Response(described.model_dump_json(), media_type="application/json")

    return router


class Description(BaseModel):
    """A type of problem."""

    type: str
    title: str
    status: int


_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
