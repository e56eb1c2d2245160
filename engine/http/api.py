"""The HTTP API as one FastAPI application, of parts that it is handed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI

from relight.engine.health import Health
from relight.engine.http.health import health_routes
from relight.engine.ingest import Ingest
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.messaging.page import asyncapi_routes
from relight.engine.tables.pools import Pool


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """What the API answers from; nothing in it is opened or closed here."""

    pool: Pool
    ingest: Ingest
    watermarks: ProjectedWatermarks
    health: Callable[[], Awaitable[Health]]


def build_api(parts: ApiParts) -> FastAPI:
    """The application; pure wiring."""
    app = FastAPI(title="Relight", docs_url=None, redoc_url=None)
    app.include_router(health_routes(parts.health))
    app.include_router(asyncapi_routes())
    return app
