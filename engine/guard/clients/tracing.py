"""The span that a call belongs to: the SDK's own, for the guard makes none."""

from contextvars import ContextVar

from opentelemetry import context, trace

_variable = getattr(getattr(context, "_RUNTIME_CONTEXT", None), "_current_context", None)
tracing_context = _variable.get if isinstance(_variable, ContextVar) else context.get_current
"""What OpenTelemetry has as current: read where it keeps that, which costs a tenth of asking for it."""


def traceparent_in(current: context.Context) -> str | None:
    """W3C trace context of the span that is current there; None where there is none. From any thread."""
    span = trace.get_current_span(current)
    if span is trace.INVALID_SPAN:
        return None
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
