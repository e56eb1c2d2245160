"""The AsyncAPI document and its page over HTTP; the page needs nothing from anywhere else."""

from importlib.resources import files

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from relight.engine.messaging.asyncapi import SERVER, document

STATIC = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def asyncapi_routes(nats_url: str = SERVER) -> APIRouter:
    """`/asyncapi.json`, `/asyncapi` and what that loads. Needs no token: it tells no tenant's data."""
    router = APIRouter(include_in_schema=False)
    told = orjson.dumps(document(nats_url))
    static = files("relight.engine.messaging") / "static"

    @router.get("/asyncapi.json")
    async def asyncapi_document() -> Response:
        return Response(told, media_type="application/json", headers=HEADERS)

    @router.get("/asyncapi")
    async def asyncapi_page() -> Response:
        return Response((static / "page.html").read_bytes(), media_type="text/html", headers=HEADERS)

    @router.get("/asyncapi/{name}")
    async def asyncapi_asset(name: str) -> Response:
        if name not in STATIC:
            return Response(status_code=404)
        return Response((static / name).read_bytes(), media_type=STATIC[name], headers=HEADERS)

    return router
