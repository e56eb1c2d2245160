"""FastStream's OpenTelemetry and Prometheus middlewares, told to name nothing a sender chose, tenants above all."""

from typing import Any, Final

from faststream.message import StreamMessage
from faststream.nats.response import NatsPublishCommand
from faststream.opentelemetry import TelemetryMiddleware
from faststream.prometheus import ConsumeAttrs, PrometheusMiddleware
from nats.aio.msg import Msg
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter

from relight.engine.messaging.subjects import pattern_of

SYSTEM: Final = "nats"
PREFIX: Final = "relight_nats"
_propagator = TraceContextTextMapPropagator()

Middleware = TelemetryMiddleware[NatsPublishCommand] | PrometheusMiddleware[Msg, NatsPublishCommand]


class _Spans:
    """FastStream's own settings put the subject, which holds the tenant, and ids of the sender's into spans."""

    messaging_system = SYSTEM

    def get_consume_attrs_from_message(self, msg: StreamMessage[Msg]) -> dict[str, Any]:
        return {
            "messaging.system": SYSTEM,
            "messaging.destination.name": self.get_consume_destination_name(msg),
            "messaging.message.payload_size_bytes": len(msg.body),
        }

    def get_consume_destination_name(self, msg: StreamMessage[Msg]) -> str:
        return pattern_of(msg.raw_message.subject)

    def get_publish_attrs_from_cmd(self, cmd: NatsPublishCommand) -> dict[str, Any]:
        return {"messaging.system": SYSTEM, "messaging.destination.name": self.get_publish_destination_name(cmd)}

    def get_publish_destination_name(self, cmd: NatsPublishCommand) -> str:
        return pattern_of(cmd.destination)


class _Metrics:
    messaging_system = SYSTEM

    def get_consume_attrs_from_message(self, msg: StreamMessage[Msg]) -> ConsumeAttrs:
        return {
            "message_size": len(msg.body),
            "destination_name": pattern_of(msg.raw_message.subject),
            "messages_count": 1,
        }

    def get_publish_destination_name_from_cmd(self, cmd: NatsPublishCommand) -> str:
        return pattern_of(cmd.destination)


class MessageCounts:
    """What FastStream does not count: events taken, messages refused by the kind of problem, messages never seen."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter(
            "relight_ingest_accepted_events", "Events taken over NATS, repeats among them.", registry=registry
        )
        self.refused = Counter(
            "relight_messages_refused",
            "Messages answered with a problem, or not at all where nobody waits for an answer.",
            ["subject", "problem"],
            registry=registry,
        )
        self.dropped = Counter(
            "relight_messages_dropped", "Messages that NATS' client dropped because too many waited.", registry=registry
        )


def middlewares(
    registry: CollectorRegistry, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> list[Middleware]:
    """Both of them; without a provider, the process's global one is asked, which by default records nothing."""
    return [
        TelemetryMiddleware(
            settings_provider_factory=lambda _: _Spans(),
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            include_messages_counters=True,
        ),
        PrometheusMiddleware(
            settings_provider_factory=lambda _: _Metrics(), registry=registry, app_name="relight", metrics_prefix=PREFIX
        ),
    ]


def traceparent() -> str | None:
    """Of the span that handles this message; without a tracer, the one that came with it."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")
