"""Circuit breakers: calls to a dependency that worked or failed, and the rulings that follow."""

from relight.events.base import Control, Event
from relight.events.values import Count, JsonObject, Key, Text, Time


class BreakerSucceeded(Event, type="breakers.succeeded", entity="service_name"):
    """A call to the dependency worked."""

    service_name: Key
    latency_ms: Count | None = None


class BreakerFailed(Event, type="breakers.failed", entity="service_name"):
    """A call to the dependency failed."""

    service_name: Key
    error_class: Key | None = None
    details: JsonObject = {}


class BreakerRuling(Control, policy="breaker", entity="service_name"):
    """What every ruling on a breaker carries."""

    service_name: Key
    reason: Text


class BreakerOpened(BreakerRuling, type="breakers.opened"):
    """No call passes before `next_retry_at`."""

    failure_count: Count
    next_retry_at: Time


class BreakerHalfOpened(BreakerRuling, type="breakers.half_opened"):
    """A few leased probes may pass."""

    failure_count: Count
    opened_at: Time


class BreakerClosed(BreakerRuling, type="breakers.closed"):
    """Calls pass again."""
