"""One breaker as the stream has it: what votes and rulings come to, and where the next ruling has to follow."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from relight.engine.log.chain import body_sha256
from relight.engine.log.control import Tail
from relight.engine.log.reader import Message
from relight.engine.policies.fleet_breaker import MAX_VOTE_S, FleetState, observe
from relight.events.base import Event
from relight.events.breakers import BreakerOpened
from relight.events.envelope import Recorded
from relight.events.subjects import control_subject

CLOCKS_S = 60.0
"""How far clocks may be apart."""


@dataclass(slots=True)
class Followed:
    """Folded in the stream's order. `recent` are the events that the state rests on, until all are known."""

    state: FleetState
    tail: Tail
    recent: deque[tuple[int, Recorded[Event]]] = field(default_factory=deque)
    known: bool = False
    unread: bool = False
    """The last ruling is none that we can read: nobody of us can rule after it."""
    cause: Recorded[Event] | None = None
    """The last event that was folded: what a ruling follows from."""
    due_at: float | None = None
    """When this process rules, if nobody has by then; of the loop's clock."""
    ruling: "asyncio.Task[None] | None" = None
    quiet_until: float = 0.0
    """A ruling of ours or another's is on its way."""

    @classmethod
    def of(cls, tenant: str, name: str) -> Self:
        assert BreakerOpened.POLICY is not None
        return cls(FleetState(service_name=name), Tail(subject=control_subject(BreakerOpened.POLICY, tenant, name)))

    def fold(self, message: Message, event: Recorded[Event]) -> bool:
        """Whether the breaker has to be told."""
        if event.rev is not None:
            self._move(message, event)
        before, self.state = self.state, observe(self.state, event)
        self.cause = event
        if self.known:
            return self.state.rev != before.rev or self.state.answer != before.answer
        oldest = event.time - timedelta(seconds=MAX_VOTE_S + CLOCKS_S)
        self.recent.append((message.seq, event))
        while self.recent[0][1].time < oldest:
            self.recent.popleft()
        return False

    def pass_over(self, message: Message, event: Recorded[Event]) -> None:
        """A ruling from ahead of the stream's clock decides nothing, but the next one has to follow it."""
        self._move(message, event)

    def know(self, tail: Tail | None, *, now: datetime) -> None:
        """All of the stream that matters was folded; `tail` is the last ruling, if that may be older."""
        if tail is not None and tail.event is not None and tail.rev > self.tail.rev:
            self.tail = tail
            if tail.event.time <= now + timedelta(seconds=CLOCKS_S):
                self.recent.append((tail.seq, tail.event))
        self.state = FleetState(service_name=self.state.service_name)
        for _, event in sorted(self.recent, key=lambda one: one[0]):
            self.state = observe(self.state, event)
            self.cause = event
        self.recent.clear()
        self.known = True

    def _move(self, message: Message, event: Recorded[Event]) -> None:
        """The tail as the server has it: also where an older revision, which decides nothing, was put back on top."""
        self.unread = False
        tail, rev = self.tail, event.rev or 0
        if rev < tail.rev:
            self.tail = Tail(subject=tail.subject, seq=message.seq, rev=tail.rev, sha256=tail.sha256)
            return
        self.tail = Tail(
            subject=message.subject, seq=message.seq, rev=rev, sha256=body_sha256(message.body), event=event
        )
        self.due_at, self.quiet_until = None, 0.0
