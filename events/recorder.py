"""What is said of the recording itself: its beginning and end, what was refused, lost, healed, trimmed and erased."""

from typing import Literal

from relight.events.base import Event
from relight.events.values import Count, Key, Name, Ordinal, Sha256, Sha256s, Text, Time


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


class RecorderDrained(Event, type="recorder.drained", entity="publisher"):
    """Another process published what one that ended without a word had left in its spool: nothing comes after this."""

    publisher: Key
    last_pseq: Count
    last_sha256: Sha256


class RecorderGap(Event, type="recorder.gap", entity="publisher"):
    """Events were refused because a cap was reached; they were never numbered."""

    publisher: Key
    refused_events: Count
    first_refused_at: Time
    last_refused_at: Time
    cause: Text


class RecorderLost(Event, type="recorder.lost", entity="publisher"):
    """Somebody decided that these numbers of a publisher will not come any more: a loss, known and named.

    They are `events` numbers from `first_pseq` on. Should they come all the same, they are folded as ever.
    """

    publisher: Key
    first_pseq: Ordinal
    events: Ordinal
    decided_by: Key
    reason: Text


class RecorderHealed(Event, type="recorder.healed", entity="publisher"):
    """`events` numbers from `first_pseq` on were missing on the stream: published again, the same bytes, a fresh id."""

    publisher: Key
    first_pseq: Ordinal
    events: Ordinal
    source: Literal["spool", "archive"]


class RecorderTrimmed(Event, type="recorder.trimmed", entity="archive"):
    """Observations up to this stream sequence are about to be taken off the stream: projected, and sealed there."""

    archive: Key
    through_seq: Ordinal
    decided_by: Key


class RecorderErased(Event, type="recorder.erased", entity="erasure"):
    """Content of a person or tenant was deleted on demand; the events that refer to it stay, and so do the chains.

    An erasure of many contents is several events of one `erasure`.
    """

    erasure: Key
    of_tenant: Name
    scope: Text
    contents: Sha256s
    decided_by: Key
    reason: Text
