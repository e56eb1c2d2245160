"""Wraps one function in what others offer for a call that may fail, each set up as its own pages show it."""

from collections.abc import Awaitable, Callable
from typing import Any

import stamina
import tenacity
from circuitbreaker import circuit
from hyx.circuitbreaker import consecutive_breaker
from hyx.retry import retry
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from purgatory import AsyncCircuitBreakerFactory, SyncCircuitBreakerFactory

ATTEMPTS = 5
THRESHOLD = 5
RETRY_AND_BREAKER = "hyx retry + breaker"
SPAN = "OpenTelemetry span"

Call = Callable[[Any], Any]
AsyncCall = Callable[[Any], Awaitable[Any]]


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def sync_peers(bare: Call) -> dict[str, Call]:
    """Of hyx there is no sync kind."""
    tracer = _tracer()

    def span(request: object) -> object:
        with tracer.start_as_current_span("chat") as current:
            current.set_attribute("gen_ai.request.model", "claude-opus-4-8")
            return bare(request)

    retries = tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )
    return {
        "circuitbreaker": circuit(failure_threshold=THRESHOLD)(_fresh(bare)),
        "purgatory": SyncCircuitBreakerFactory(default_threshold=THRESHOLD)("anthropic")(_fresh(bare)),
        "stamina": stamina.retry(on=ConnectionError, attempts=ATTEMPTS)(_fresh(bare)),
        "tenacity": retries(_fresh(bare)),
        SPAN: span,
    }


def async_peers(bare: AsyncCall) -> dict[str, AsyncCall]:
    tracer = _tracer()

    async def span(request: object) -> object:
        with tracer.start_as_current_span("chat") as current:
            current.set_attribute("gen_ai.request.model", "claude-opus-4-8")
            return await bare(request)

    retries = tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )
    hyx_retry = retry(on=ConnectionError, attempts=ATTEMPTS, backoff=1)
    hyx_breaker = consecutive_breaker(exceptions=(ConnectionError,), failure_threshold=THRESHOLD)
    return {
        RETRY_AND_BREAKER: hyx_retry(hyx_breaker(_fresh_async(bare))),
        "circuitbreaker": circuit(failure_threshold=THRESHOLD)(_fresh_async(bare)),
        "purgatory": AsyncCircuitBreakerFactory(default_threshold=THRESHOLD)("anthropic")(_fresh_async(bare)),
        "stamina": stamina.retry(on=ConnectionError, attempts=ATTEMPTS)(_fresh_async(bare)),
        "tenacity": retries(_fresh_async(bare)),
        SPAN: span,
    }


def _fresh(bare: Call) -> Call:
    """Decorators keep their state by the function's name, or on it."""

    def call(request: object) -> object:
        return bare(request)

    return call


def _fresh_async(bare: AsyncCall) -> AsyncCall:
    async def call(request: object) -> object:
        return await bare(request)

    return call


def _tracer() -> Any:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    return provider.get_tracer("bench")
