"""Wraps one function in what others offer for a call that may fail, each set up as its own pages show it."""

from collections.abc import Awaitable, Callable
from types import FunctionType
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
NOTHING = "a middleware that does nothing"
STAMINA_CIRCUIT = "stamina + circuitbreaker"
TENACITY_PURGATORY = "tenacity + purgatory"

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
    stamina_retries = stamina.retry(on=ConnectionError, attempts=ATTEMPTS)

    def nothing(request: object, call_next: Call) -> object:
        return call_next(request)

    return {
        "circuitbreaker": circuit(failure_threshold=THRESHOLD)(_fresh(bare)),
        "purgatory": SyncCircuitBreakerFactory(default_threshold=THRESHOLD)("anthropic")(_fresh(bare)),
        "stamina": stamina_retries(_fresh(bare)),
        "tenacity": retries(_fresh(bare)),
        STAMINA_CIRCUIT: stamina_retries(circuit(failure_threshold=THRESHOLD)(_fresh(bare))),
        TENACITY_PURGATORY: retries(SyncCircuitBreakerFactory(default_threshold=THRESHOLD)("anthropic")(_fresh(bare))),
        NOTHING: lambda request: nothing(request, bare),
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
    stamina_retries = stamina.retry(on=ConnectionError, attempts=ATTEMPTS)

    async def nothing(request: object, call_next: AsyncCall) -> object:
        return await call_next(request)

    hyx_retry = retry(on=ConnectionError, attempts=ATTEMPTS, backoff=1)
    hyx_breaker = consecutive_breaker(exceptions=(ConnectionError,), failure_threshold=THRESHOLD)
    return {
        RETRY_AND_BREAKER: hyx_retry(hyx_breaker(_fresh(bare))),
        "circuitbreaker": circuit(failure_threshold=THRESHOLD)(_fresh(bare)),
        "purgatory": AsyncCircuitBreakerFactory(default_threshold=THRESHOLD)("anthropic")(_fresh(bare)),
        "stamina": stamina_retries(_fresh(bare)),
        "tenacity": retries(_fresh(bare)),
        STAMINA_CIRCUIT: stamina_retries(circuit(failure_threshold=THRESHOLD)(_fresh(bare))),
        TENACITY_PURGATORY: retries(AsyncCircuitBreakerFactory(default_threshold=THRESHOLD)("anthropic")(_fresh(bare))),
        NOTHING: lambda request: nothing(request, bare),
        SPAN: span,
    }


def _fresh(bare: Any) -> Any:
    """The same function once more, and no frame around it: decorators keep their state by the function, or on it."""
    return FunctionType(bare.__code__, bare.__globals__, bare.__name__, bare.__defaults__, bare.__closure__)


def _tracer() -> Any:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    return provider.get_tracer("bench")
