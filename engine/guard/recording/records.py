"""What a guard needs of a journal."""

from typing import Protocol

from relight.engine.guard.facts import Attempt, Call
from relight.engine.recorder.items import Part
from relight.engine.scope import Scope

KEPT_BYTES = 1 << 20
"""Of a stream's body, where bytes are wanted at all; of a longer one there is the digest."""


class Records(Protocol):
    """Takes facts in microseconds and never blocks. What is handed over is its own from then on."""

    def taken(self, call: Call) -> None:
        """A call begins."""

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """An attempt failed and another one follows, or may follow."""

    def known(self, call: Call, attempt: Attempt | None) -> None:
        """The call is over; `attempt` is its last one, None where there was none since the last `attempted`."""


class QuickCall(Protocol):
    """A call as it begins, and as nearly all end: what is to be said of it is put together by whoever asks."""

    part: Part
    begins_in: object

    @property
    def context(self) -> Scope:
        """The caller's."""

    @property
    def call(self) -> Call:
        """From any thread, and always the same."""

    def outcome(self) -> tuple[Call, Attempt]:
        """Once its first attempt worked."""


class QuickRecords(Records, Protocol):
    """A journal that puts them together itself, and not on the caller's time."""

    @property
    def stream_bytes(self) -> int:
        """Of a stream's body, what it needs to have: nothing where a digest is all that is recorded."""

    def begun(self, call: QuickCall) -> None:
        """A call begins."""

    def worked(self, call: QuickCall) -> None:
        """The call is over, with its first attempt."""


class Quickened:
    """A journal of the plain kind."""

    def __init__(self, records: Records) -> None:
        self.taken = records.taken
        self.attempted = records.attempted
        self.known = records.known
        self.stream_bytes = KEPT_BYTES

    def begun(self, call: QuickCall) -> None:
        self.taken(call.call)

    def worked(self, call: QuickCall) -> None:
        self.known(*call.outcome())
