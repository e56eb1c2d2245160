"""The API's own document: what FastAPI says of the routes, and what it cannot know of them."""

from functools import cache
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from relight.engine.problems import Problem

PATH = "/openapi.json"
UNPROTECTED = ("/health", "/livez", "/readyz", "/startupz", "/metrics", "/v1/problems", "/openapi", "/asyncapi")
DESCRIPTION = """\
Queries over the tables of Relight, the changes as they come, and the way in for events.

A token is sent as `Authorization: Bearer rlt_…`. Every error is a problem document (RFC 9457) whose detail says what
to do. An answer's `ETag` is the position up to which the stream was folded: as long as that does not move, asking again
with `If-None-Match` costs no query. The RateLimit headers are those of a draft of the IETF, and may change with it.
"""


def describe(app: FastAPI) -> None:
    """Makes `app.openapi()` complete, and serves it encoded once: FastAPI's own route would do so for each request."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    @cache
    def encoded() -> bytes:
        return orjson.dumps(app.openapi())

    @app.get(PATH, include_in_schema=False)
    async def served() -> Response:
        return Response(encoded(), media_type="application/json")

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas[Problem.__name__] = Problem.model_json_schema()
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "rlt_<id>_<secret>"}}
    for path, item in found["paths"].items():
        if not path.startswith(UNPROTECTED):
            for operation in item.values():
                operation["security"] = [{"token": []}]
    return found
