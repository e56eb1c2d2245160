"""The span that a call belongs to: the SDK's own, for the guard makes none."""

from contextvars import Context

from opentelemetry import trace


def traceparent_in(context: Context) -> str | None:
    """W3C trace context of the span that was current where the context was copied; None where there was none.

    From any thread: the copy is copied again, for one context cannot be entered twice at once.
    """
    return context.copy().run(_traceparent)


def _traceparent() -> str | None:
    span = trace.get_current_span()
    if span is trace.INVALID_SPAN:
        return None
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
