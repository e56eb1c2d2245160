"""What `record()` costs its caller, beside what callers already pay for a span and a line in a log file."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice

from measuring import Bench, Figure, alternate, percentile
from servers import connected, new_stream
from workload import observations

from relight.engine.recorder.recorder import Recorder, RecorderOptions
from relight.events.base import Event
from relight.events.breakers import BreakerSucceeded

BURST = 100
PAUSE_S = 0.02
"""After each burst: 5,000 calls a second, so that the recorder's threads work meanwhile as they would."""


async def measure(bench: Bench) -> AsyncIterator[Figure]:
    count = bench.count(10_000, 2_000)
    rounds = bench.count(5, 3)
    facts = list(observations(count))
    async with connected(bench) as client:
        await new_stream(client)
    span, span_name = _span()
    log, handler = _log(bench)
    options = RecorderOptions(
        nats_url=bench.nats.url,
        nats_monitor_urls=[bench.nats.monitor_url],
        region="eu",
        tenant="acme",
        spools=bench.folder / "record-call",
    )
    calls: dict[str, list[float]] = {}

    async with Recorder(options) as recorder:

        def record(event: Event) -> None:
            recorder.record(event)

        def make_and_record(_: Event) -> None:
            recorder.record(BreakerSucceeded(service_name="anthropic/claude/eu", latency_ms=812))

        def side(name: str, function: Callable[[Event], None]) -> Callable[[], object]:
            async def one_round() -> float:
                calls[name] = await asyncio.to_thread(_microseconds, function, facts)
                p99s.setdefault(name, []).append(percentile(calls[name], 0.99))
                return percentile(calls[name], 0.5)

            return one_round

        p99s: dict[str, list[float]] = {}
        sides = {"record": record, "both": make_and_record, "span": span, "log": log}
        p50s = await alternate(rounds, **{name: side(name, function) for name, function in sides.items()})  # type: ignore[arg-type]
    handler.close()
    for title, taken in (("p50", p50s), ("p99", p99s)):
        yield Figure(name=f"record(), {title}", unit="us", ours=taken["record"], against=span_name, limit=taken["span"])
        for against, limit in ((span_name, "span"), ("logging to a file", "log")):
            name = f"make and record an event, {title}"
            yield Figure(name=name, unit="us", ours=taken["both"], against=against, limit=taken[limit])


def _microseconds(function: Callable[[Event], None], facts: Iterable[Event]) -> list[float]:
    taken, events = [], iter(facts)
    while burst := list(islice(events, BURST)):
        for event in burst:
            started = time.perf_counter_ns()
            function(event)
            taken.append((time.perf_counter_ns() - started) / 1e3)
        time.sleep(PAUSE_S)
    return taken


def _span() -> tuple[Callable[[Event], None], str]:
    """A span with its attributes started and ended, exported in batches to nowhere."""
    from opentelemetry import trace

    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    except ImportError:
        tracer, name = trace.get_tracer("bench"), "OpenTelemetry span (API alone: records nothing)"
    else:

        class Nowhere(SpanExporter):
            def export(self, spans: object) -> SpanExportResult:
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        tracer, name = provider.get_tracer("bench"), "OpenTelemetry span (SDK, batch processor)"

    def span(event: Event) -> None:
        with tracer.start_as_current_span("call") as current:
            current.set_attribute("service", "anthropic/claude/eu")
            current.set_attribute("latency_ms", 812)

    return span, name


def _log(bench: Bench) -> tuple[Callable[[Event], None], logging.Handler]:
    logger = logging.getLogger("relight-bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(bench.folder / "calls.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)

    def log(event: Event) -> None:
        logger.info("call of %s took %d ms", "anthropic/claude/eu", 812)

    return log, handler
