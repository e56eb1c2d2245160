"""`/health` over HTTP: GET and HEAD; 200 when healthy or degraded, 503 when unhealthy."""

from collections.abc import Awaitable, Callable

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from relight.engine.health.probe import Health


def health_routes(check: Callable[[], Awaitable[Health]]) -> APIRouter:
    """Needs no token: it tells no tenant's data."""
    router = APIRouter(tags=["health"])

    @router.api_route("/health", methods=["GET", "HEAD"], operation_id="health")
    async def health() -> Response:
        found = await check()
        return Response(
            orjson.dumps(found.model_dump(mode="json")),
            status_code=found.status.http_status,
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return router
