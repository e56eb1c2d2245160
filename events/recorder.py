"""What a recorder says about itself: when it began, when it ended cleanly, and exactly what it could not keep."""

from relight.events.base import Event
from relight.events.values import Count, Key, Sha256, Text, Time


class RecorderOpened(Event, type="recorder.opened", entity="publisher"):
    """A process writes under this identity from here on."""

    publisher: Key
    predecessor_pseq: Count
    predecessor_sha256: Sha256
    host: Text
    process_id: Count
    durable: bool


class RecorderClosed(Event, type="recorder.closed", entity="publisher"):
    """The process ended in order; whatever has no such event after its `opened` has its tail in doubt."""

    publisher: Key
    recorded_events: Count
    refused_events: Count


class RecorderGap(Event, type="recorder.gap", entity="publisher"):
    """Events were refused because a cap was reached; they were never numbered."""

    publisher: Key
    refused_events: Count
    first_refused_at: Time
    last_refused_at: Time
    cause: Text
