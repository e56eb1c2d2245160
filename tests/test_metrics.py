"""Metrics: valid exposition from the same look as health, and nothing in a label that a client or tenant chose."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import stack
from fastapi import APIRouter, FastAPI
from observing import frozen, probing
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from stack import nats_server, projecting, until
from starlette.responses import StreamingResponse

from relight.engine import scope
from relight.engine.health.metrics import register_metrics
from relight.engine.http.metrics import MeasuredRequests, RequestMetrics, metrics_routes
from relight.engine.http.server import http_server
from relight.engine.tables.pools import PoolOptions, open_pool

UNITS = ("_seconds", "_bytes", "_events", "_ratio", "_total")
SECRETS = ("tenant-zebra", "agent-quagga", "service-okapi")


def _get(url: str, method: str = "GET", accept: str = "text/plain") -> tuple[str, str]:
    request = urllib.request.Request(url, method=method, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.headers["content-type"], response.read().decode()


@asynccontextmanager
async def measured(probe: Any) -> AsyncIterator[str]:
    """A service with two routes of its own and `/metrics`; gives its URL."""
    registry = CollectorRegistry()
    register_metrics(registry, probe)
    router = APIRouter()

    @router.get("/things/{name}")
    async def thing(name: str) -> str:
        return name

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await asyncio.sleep(0.3)

        return StreamingResponse(events(), media_type="text/event-stream")

    app = FastAPI()
    app.include_router(router, prefix="/v1")
    app.include_router(metrics_routes(probe, registry))
    app.add_middleware(MeasuredRequests, metrics=RequestMetrics(registry))
    async with http_server(app, host="127.0.0.1", port=0) as served:
        yield served.url


async def get(url: str, **options: str) -> str:
    return (await asyncio.to_thread(_get, url, **options))[1]


def samples(text: str) -> dict[str, dict[str, float]]:
    """By name, then by the labels' values joined with commas."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    return found


def _ours(families: Iterator[Metric]) -> list[Metric]:
    return [family for family in families if family.name.startswith("relight_")]


async def test_a_scrape_tells_what_health_found_in_valid_exposition_and_names_no_tenant(
    database: str, spools: Path
) -> None:
    async with nats_server() as nats, projecting(nats, database) as work:
        async with await open_pool(database, PoolOptions(size=3)) as pool:
            parts = {"client": work.client, "projector": work.projector, "pool": pool, "home": spools.parent}
            async with probing(nats, database, **parts) as probe, measured(probe) as url:
                async with stack.Recorder(stack.options(nats, spools)) as recorder:
                    probe.recorder = recorder.health
                    with scope.entered(tenant=SECRETS[0], agent=SECRETS[1]):
                        for n in range(20):
                            recorder.record(stack.failed(n, SECRETS[2]))
                    await stack.drained(recorder)
                    await work.caught_up()
                    text = await get(f"{url}/metrics")
                    for strange in (*SECRETS, recorder.publisher):
                        assert strange not in text

                found = samples(text)
                assert found["relight_health"] == {"healthy": 1, "degraded": 0, "unhealthy": 0}
                assert found["relight_projection_lag_events"] == found["relight_projection_lag_seconds"] == {"": 0}
                assert found["relight_projection_sequence"] == found["relight_stream_last_sequence"]
                assert found["relight_recorder_recorded_events_total"] == {"": 21}
                assert found["relight_projector_batch_events_sum"][""] >= 21
                assert found["relight_projector_commit_seconds_count"][""] >= 1
                assert found["relight_projector_state"]["live"] == 1
                assert found["relight_pool_size"] == {"requests": 3}
                assert found["relight_server_reachable"] == {"postgres": 1, "nats": 1}
                assert found["relight_fsync_proven"] == {"": 1}
                assert found["process_resident_memory_bytes"][""] > 1_000_000

                families = _ours(text_string_to_metric_families(text))
                names = [family.name for family in families]
                assert len(names) == len(set(names))
                assert all(family.documentation.endswith(".") for family in families if family.type != "unknown")
                assert all("_ms" not in name and not name.endswith("_s") for name in names)
                labels = {label for family in families for sample in family.samples for label in sample.labels}
                assert labels <= {
                    *("status", "check", "id", "state", "server", "pool", "le", "route", "method", "spool", "breaker")
                }

                kind, openmetrics = await asyncio.to_thread(
                    _get, f"{url}/metrics", accept="application/openmetrics-text; version=1.0.0"
                )
                assert kind.startswith("application/openmetrics-text")
                assert {family.name for family in _ours(openmetrics_families(openmetrics))} >= {
                    "relight_http_request_duration_seconds",
                    "relight_recorder_recorded_events",
                }


async def test_a_scrape_answers_while_nats_hangs(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as work:
        async with probing(nats, database, client=work.client) as probe, measured(probe) as url:
            with frozen(nats.pid):

                async def away() -> bool:
                    return samples(await get(f"{url}/metrics"))["relight_server_reachable"]["nats"] == 0

                await until(away)
                found = samples(await get(f"{url}/metrics"))
                assert found["relight_server_reachable"] == {"postgres": 1, "nats": 0}
                assert found["relight_health"]["unhealthy"] == 1
                assert "relight_stream_last_sequence" not in found, "what is not known has no sample"


async def test_requests_are_measured_by_template_and_never_by_what_was_sent(database: str) -> None:
    async with nats_server() as nats, projecting(nats, database) as work:
        async with probing(nats, database, client=work.client) as probe, measured(probe) as url:
            for path in ("/v1/things/a", "/v1/things/b", "/v1/stream"):
                await get(url + path)
            for path, method in (("/made/up/1", "GET"), ("/made/up/2", "PROPFIND"), ("/v1/things/a", "DELETE")):
                with pytest.raises(urllib.error.HTTPError):
                    await get(url + path, method=method)
            found = samples(await get(f"{url}/metrics"))
            assert found["relight_http_request_duration_seconds_count"] == {
                "GET,/v1/things/{name},2xx": 2,
                "GET,/v1/stream,2xx": 1,
                "GET,unmatched,4xx": 1,
                "other,unmatched,4xx": 1,
                "DELETE,/v1/things/{name},4xx": 1,
            }
            streamed_s = found["relight_http_request_duration_seconds_sum"]["GET,/v1/stream,2xx"]
            assert streamed_s < 0.2, "of a stream of events, until its first byte"
            assert found["relight_http_requests_in_progress"] == {"": 1}
