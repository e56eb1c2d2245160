"""The HTTP API as one FastAPI application, of parts that it is handed."""

from dataclasses import dataclass

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from relight.engine.health.probe import HealthProbe
from relight.engine.health.readiness import Readiness
from relight.engine.http.health import health_routes
from relight.engine.http.metrics import MeasuredRequests, RequestMetrics, metrics_routes
from relight.engine.ingest import Ingest
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.tables.pools import Pool


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """What the API answers from; nothing in it is opened or closed here."""

    pool: Pool
    ingest: Ingest
    watermarks: ProjectedWatermarks
    probe: HealthProbe
    readiness: Readiness
    registry: CollectorRegistry


def build_api(parts: ApiParts) -> FastAPI:
    """The application; pure wiring."""
    app = FastAPI(title="Relight", docs_url=None, redoc_url=None)
    app.include_router(health_routes(parts.probe, parts.readiness))
    app.include_router(metrics_routes(parts.probe, parts.registry))
    app.add_middleware(MeasuredRequests, metrics=RequestMetrics(parts.registry))
    return app
