"""The span that a call belongs to: the SDK's own, for the guard makes none."""

from opentelemetry import trace


def traceparent() -> str | None:
    """W3C trace context of the current span; None where there is none."""
    span = trace.get_current_span()
    if span is trace.INVALID_SPAN:
        return None
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
