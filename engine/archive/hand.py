"""What the archiver has read and not yet sealed: at most one segment of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from relight.engine.log.reader import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class SealLimits:
    """A segment is sealed at whichever comes first; `seal_s` counts from when its oldest message came."""

    events: int = 20_000
    size_bytes: int = 64 << 20
    seal_s: float = 60.0


@dataclass(slots=True)
class Hand:
    limits: SealLimits
    messages: list[Message] = field(default_factory=list)
    size_bytes: int = 0
    since: float = 0.0

    @property
    def room(self) -> int:
        """Events that still fit."""
        return self.limits.events - len(self.messages)

    @property
    def oldest(self) -> datetime | None:
        return self.messages[0].timestamp if self.messages else None

    def take(self, messages: Sequence[Message]) -> None:
        if messages and not self.messages:
            self.since = time.monotonic()
        self.messages += messages
        self.size_bytes += sum(len(message.body) for message in messages)

    @property
    def due_s(self) -> float:
        """How long until it is to be sealed; 0 where that is now."""
        if not self.messages:
            return self.limits.seal_s
        if self.room <= 0 or self.size_bytes >= self.limits.size_bytes:
            return 0.0
        return max(0.0, self.since + self.limits.seal_s - time.monotonic())

    def clear(self) -> None:
        self.messages, self.size_bytes = [], 0
