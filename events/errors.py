"""What can be wrong with an event.

EventError(ValueError)
├── InvalidEvent   a value that some part of the path cannot carry; names the field
└── Undecodable    bytes that are no event of ours; carries the reason for the dead letter
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an event became a dead letter; the wire and table value."""

    NOT_AN_EVENT = "not_an_event"
    UNKNOWN_TYPE = "unknown_type"
    FUTURE_VERSION = "future_version"
    INVALID = "invalid"
    SUBJECT_MISMATCH = "subject_mismatch"
    CLOCK_AHEAD = "clock_ahead"
    PROJECTION_FAILED = "projection_failed"
    STORE_REFUSED = "store_refused"


class EventError(ValueError):
    """Root of what `relight.events` raises."""


class InvalidEvent(EventError):
    """An event, or one field of it, cannot be carried unchanged from agent to table."""


class Undecodable(EventError):
    """Bytes from the stream are no event that this version reads."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
