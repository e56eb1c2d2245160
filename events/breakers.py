"""Circuit breakers: calls that worked or failed, what single processes made of it, and the rulings that follow."""

from typing import Any

from relight.events.base import Control, Event
from relight.events.values import Count, JsonObject, Key, Keys, Ordinal, Text, Time


class BreakerSucceeded(Event, type="breakers.succeeded", entity="service_name"):
    """A call to the dependency worked."""

    service_name: Key
    latency_ms: Count | None = None


class BreakerFailed(Event, type="breakers.failed", entity="service_name"):
    """A call to the dependency failed."""

    service_name: Key
    error_class: Key | None = None
    details: JsonObject = {}


class BreakerTripped(Event, type="breakers.tripped", entity="service_name"):
    """One process lets no call pass before `retry_at`: its vote that the fleet should not either."""

    service_name: Key
    process: Key
    fault_domain: Key
    reason: Text
    failure_count: Count
    retry_at: Time


class BreakerReset(Event, type="breakers.reset", entity="service_name"):
    """One process lets calls pass again: it takes its vote back."""

    service_name: Key
    process: Key
    fault_domain: Key
    reason: Text


class BreakerRuling(Control, policy="breaker", entity="service_name"):
    """What every ruling on a breaker carries."""

    service_name: Key
    reason: Text


def _unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 lacked fields that may be absent."""
    return data


class BreakerOpened(BreakerRuling, type="breakers.opened", version=2, upcasts={1: _unchanged}):
    """No call passes before `next_retry_at`; `processes` in `fault_domains` had tripped.

    `openings`: this one is the how many-th since it was closed.
    """

    failure_count: Count
    next_retry_at: Time
    processes: Keys = ()
    fault_domains: Keys = ()
    openings: Ordinal | None = None


class BreakerHalfOpened(BreakerRuling, type="breakers.half_opened", version=2, upcasts={1: _unchanged}):
    """A few probes may pass: `probes` of them, by the process that `holder` names, until `lease_until`."""

    failure_count: Count
    opened_at: Time
    holder: Key | None = None
    lease_until: Time | None = None
    probes: Count | None = None
    openings: Ordinal | None = None


class BreakerClosed(BreakerRuling, type="breakers.closed"):
    """Calls pass again."""
