"""`/health`, `/livez`, `/readyz` and `/startupz`, with GET and HEAD.

No token is needed: of tenants nothing is told but which breakers of the service's own one are open.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from relight.engine.health.document import MEDIA_TYPE, document
from relight.engine.health.probe import HealthProbe
from relight.engine.health.readiness import Readiness
from relight.engine.health.ready import Answer, live, ready, started

NO_STORE = {"Cache-Control": "no-store"}
Endpoint = Callable[..., Coroutine[Any, Any, Response]]


def health_routes(probe: HealthProbe, readiness: Readiness) -> APIRouter:
    """200 when healthy or degraded, 503 when unhealthy; of the others 200 or 503, with `?verbose` each check a line."""
    router = APIRouter(tags=["health"])

    @get_and_head(router, "/health")
    async def health() -> Response:
        """Every check, in the shape of an IETF draft (draft-inadarei-api-health-check-06)."""
        found = await probe.check()
        return Response(document(found), status_code=found.status.http_status, media_type=MEDIA_TYPE, headers=NO_STORE)

    @get_and_head(router, "/livez", response_class=PlainTextResponse)
    async def livez(request: Request) -> Response:
        """Whether this process should go on; 503 calls for a restart."""
        return _answer("livez", live(probe), request)

    @get_and_head(router, "/readyz", response_class=PlainTextResponse)
    async def readyz(request: Request) -> Response:
        """Whether requests should be sent here."""
        return _answer("readyz", ready(probe, readiness), request)

    @get_and_head(router, "/startupz", response_class=PlainTextResponse)
    async def startupz(request: Request) -> Response:
        """Whether this process has come up."""
        return _answer("startupz", started(readiness), request)

    return router


def get_and_head(
    router: APIRouter, path: str, *, response_class: type[Response] = Response
) -> Callable[[Endpoint], Endpoint]:
    """Both methods, of which the API's document tells GET: HEAD is that without a body."""

    def add(endpoint: Endpoint) -> Endpoint:
        name = path.removeprefix("/")
        router.add_api_route(path, endpoint, methods=["GET"], operation_id=name, response_class=response_class)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        return endpoint

    return add


def _answer(name: str, answers: Sequence[Answer], request: Request) -> Response:
    """As Kubernetes' own endpoints answer: `ok`, and each check a line on request or when one fails."""
    fine = all(answer.fault is None for answer in answers)
    lines = [f"[-]{a.name} failed: {a.fault}" if a.fault is not None else f"[+]{a.name} ok" for a in answers]
    text = "\n".join([*lines, f"{name} check {'passed' if fine else 'failed'}\n"])
    if fine and "verbose" not in request.query_params:
        text = "ok"
    return PlainTextResponse(text, status_code=200 if fine else 503, headers=NO_STORE)
