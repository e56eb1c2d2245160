"""`/metrics`, and how long requests take: by route template, method and class of status, not by what was sent."""

import time

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relight.engine.health.probe import HealthProbe
from relight.engine.http.health import get_and_head

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.08, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "unmatched"
OTHER = "other"
LOOK_S = 2.0


class RequestMetrics:
    """The families of one registry; made once for it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = Histogram(
            "relight_http_request_duration_seconds",
            "From a request's arrival to its last byte; of a stream of events, to its first.",
            ["route", "method", "status"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.in_progress = Gauge(
            "relight_http_requests_in_progress", "Requests being answered, streams included.", registry=registry
        )


class MeasuredRequests:
    """ASGI middleware; the outermost, so that it sees what all others answer."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status, streams, taken_s = 500, False, 0.0

        async def watched(message: Message) -> None:
            nonlocal status, streams, taken_s
            if message["type"] == "http.response.start":
                status, taken_s = message["status"], time.monotonic() - began
                headers = dict(message.get("headers") or ())
                streams = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            await send(message)

        with self._metrics.in_progress.track_inprogress():
            try:
                await self._app(scope, receive, watched)
            finally:
                seconds = taken_s if streams else time.monotonic() - began
                self._metrics.seconds.labels(
                    route=_template(scope),
                    method=scope["method"] if scope["method"] in METHODS else OTHER,
                    status=f"{status // 100}xx",
                ).observe(seconds)


def _template(scope: Scope) -> str:
    """As the router left it in the scope: paths that clients make up would each be a series of their own.

    FastAPI keeps the template with its router's prefix apart; should it rename that, the prefix is lost.
    """
    selected = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    path = getattr(selected, "path", None)
    return path if isinstance(path, str) and path else UNMATCHED


def metrics_routes(probe: HealthProbe, registry: CollectorRegistry) -> APIRouter:
    """Needs no token: no label names a tenant."""
    router = APIRouter(tags=["health"])

    @get_and_head(router, "/metrics")
    async def metrics(request: Request) -> Response:
        """Prometheus' text, or OpenMetrics' where that is accepted."""
        await probe.refresh(within_s=LOOK_S)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return router
