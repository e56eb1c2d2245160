"""Problems as answers over HTTP: whatever is wrong becomes a document, the framework's own errors too."""

import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relight.engine.errors import RelightError, RequestRefused
from relight.engine.problems import INTERNAL, KINDS, MEDIA_TYPE, PATH, Problem, document, kind_of
from relight.events.errors import InvalidEvent

RETRY_S = "1"

log = logging.getLogger(__name__)


def response(kind: str, detail: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """A problem of this kind, as an answer."""
    said = dict(headers or {})
    if KINDS[kind].status == 503:
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
    kind = kind_of(error)
    return _internal(error) if kind == INTERNAL else response(kind, str(error), headers=_challenge(kind, str(error)))


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
    return Response(orjson.dumps(document(INTERNAL, detail, instance=instance)), 500, None, MEDIA_TYPE)


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
