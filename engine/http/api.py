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
from relight.engine.messaging.page import asyncapi_routes
from relight.engine.tables.pools import Pool


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What tells how this process is, to whoever watches over it."""

    probe: HealthProbe
    readiness: Readiness
    registry: CollectorRegistry


@dataclass(frozen=True, kw_only=True)
class ApiParts:
    """What the API answers from; nothing in it is opened or closed here."""

    pool: Pool
    ingest: Ingest | None
    """None: this process takes no events."""
    watermarks: ProjectedWatermarks
    observed: Observed


def build_api(parts: ApiParts) -> FastAPI:
    """The application; pure wiring."""
    app = FastAPI(title="Relight", docs_url=None, redoc_url=None)
    _observe(app, parts.observed)
    app.include_router(asyncapi_routes())
    return app


def build_probes(observed: Observed) -> FastAPI:
    """What a process without the API serves: how it is, for whoever watches over it."""
    app = FastAPI(title="Relight", docs_url=None, redoc_url=None, openapi_url=None)
    _observe(app, observed)
    return app


def _observe(app: FastAPI, observed: Observed) -> None:
    app.include_router(health_routes(observed.probe, observed.readiness))
    app.include_router(metrics_routes(observed.probe, observed.registry))
    app.add_middleware(MeasuredRequests, metrics=RequestMetrics(observed.registry))
