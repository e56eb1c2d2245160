"""Metrics and spans of the application: what they tell, and that nothing a sender chose stands in them."""

from pathlib import Path

import orjson
import stack
from messaging_stack import messaging
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from test_messaging_commands import observation, ruling

SECRET = "tenant-zebra"
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


async def test_no_label_and_no_span_names_a_tenant_or_anything_a_sender_chose(database: str, spools: Path) -> None:
    exporter = InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    async with stack.nats_server() as nats, messaging(nats, database, spools, tracer_provider=tracing) as service:
        chosen = {"correlation_id": SECRET, "message_id": SECRET, "baggage": f"who={SECRET}"}
        await service.told(f"in.{SECRET}", observation(), {"Relight-Ack": "projected"} | chosen)
        await service.told(f"in.{SECRET}", observation(), {"traceparent": TRACE})
        await service.told(f"in.{SECRET}", observation() | {"type": SECRET})
        await service.told(f"in.{SECRET}.{SECRET}", observation())
        await service.told(f"cmd.query.{SECRET}", {"name": "breakers.open_now"})
        await service.told(f"cmd.query.{SECRET}", {"name": SECRET})
        await service.told(f"cmd.rule.{SECRET}", ruling(0, SECRET))
        await service.told(f"cmd.{SECRET}", {})
        await service.told("cmd.status", b"")
        metrics = service.metrics()
    spans = exporter.get_finished_spans()
    assert SECRET not in metrics
    assert SECRET not in "".join(span.to_json() for span in spans)
    handled = {span.name for span in spans if span.name.endswith(" process")}
    assert handled == {
        f"{name} process" for name in ("in", "cmd", "cmd.query", "cmd.rule", "cmd.status", "cmd.watermark")
    }
    for handler, messages in (("in", 4), ("cmd.query", 2), ("cmd.rule", 1), ("cmd", 1), ("cmd.status", 1)):
        told = f'relight_nats_received_messages_total{{app_name="relight",broker="nats",handler="{handler}"}}'
        assert f"{told} {messages:.1f}" in metrics
    assert 'relight_messages_refused_total{problem="invalid-parameter",subject="cmd.query"} 1.0' in metrics
    assert "relight_ingest_accepted_events_total 2.0" in metrics


async def test_an_event_names_the_span_that_took_it_as_part_of_its_senders_trace(database: str, spools: Path) -> None:
    exporter = InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    async with stack.nats_server() as nats, messaging(nats, database, spools, tracer_provider=tracing) as service:
        told = await service.told("in.acme", observation(), {"traceparent": TRACE})
        bodies = [orjson.loads(message.body) for message in await stack.on_stream(service.client)]
    [stored] = [body for body in bodies if body["id"] == told["accepted"][0]["id"]]
    [took] = [span for span in exporter.get_finished_spans() if span.name == "in process"]
    assert took.parent is not None
    assert took.parent.span_id == int("b" * 16, 16)
    assert stored["traceparent"] == f"00-{'a' * 32}-{took.context.span_id:016x}-01"
