"""The HTTP API as one FastAPI application, of parts that it is handed."""

from dataclasses import dataclass, field
from functools import partial

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from relight.engine.clock import Clock
from relight.engine.health.probe import HealthProbe
from relight.engine.health.readiness import Readiness
from relight.engine.http.changes import change_routes
from relight.engine.http.edge import Edge
from relight.engine.http.events import event_routes
from relight.engine.http.feed import Feed
from relight.engine.http.gate import Gate
from relight.engine.http.health import health_routes
from relight.engine.http.limits import HttpLimits, Turns
from relight.engine.http.metrics import MeasuredRequests, RequestMetrics, metrics_routes
from relight.engine.http.openapi import describe
from relight.engine.http.problems import HANDLERS, problem_routes
from relight.engine.http.queries import Sources, query_routes
from relight.engine.http.verifier import Verifier
from relight.engine.ingest import Ingest
from relight.engine.log.watermarks import ProjectedWatermarks
from relight.engine.messaging.page import asyncapi_routes
from relight.engine.tables import tokens
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
    feed: Feed
    limits: HttpLimits = field(default_factory=HttpLimits)
    receive_s: float = 20
    heartbeat_s: float = 15
    clock: Clock = field(default_factory=Clock)


def build_api(parts: ApiParts) -> FastAPI:
    """The application; pure wiring."""
    app = FastAPI(
        title="Relight",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=HANDLERS,
    )
    gate = Gate(Verifier(partial(tokens.load, parts.pool), parts.clock), parts.limits)
    # One connection stays for what is not a query: tokens, health, watermarks.
    turns = Turns(max(1, parts.pool.statistics().size - 1), timeout_s=parts.limits.turn_timeout_s)
    app.include_router(query_routes(gate, Sources(pool=parts.pool, turns=turns, watermarks=parts.watermarks)))
    if parts.ingest is not None:
        app.include_router(event_routes(gate, parts.ingest, receive_s=parts.receive_s))
    app.include_router(change_routes(gate, parts.feed, heartbeat_s=parts.heartbeat_s))
    app.include_router(problem_routes())
    app.include_router(asyncapi_routes())
    app.add_middleware(Edge)
    _observe(app, parts.observed)
    describe(app)
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
