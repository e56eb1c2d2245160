"""Follows what is voted and ruled on fault domains, and holds what that comes to for each of them."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from relight.engine.errors import RelightError
from relight.engine.log.chain import body_sha256
from relight.engine.log.control import Tail
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.policies.isolation import MAX_VOTE_S, DomainState, State, observe
from relight.engine.recorder.recorder import Recorder
from relight.events.base import Event
from relight.events.catalog import decode, decode_message, prepare
from relight.events.envelope import PLATFORM, Recorded
from relight.events.errors import Reason, Undecodable
from relight.events.faults import DomainType, FaultRuling, FaultVote
from relight.events.subjects import CONTROLS, OBSERVATIONS, control_subject, token

RETRY_S = 0.5
LOOK_EVERY_S = 0.5
CURRENT_S = 1.0
VOTES_S = 120.0
"""How old the votes are that are read again: longer than they count, and clocks may be apart."""
SWEEP_EVERY_S = 60.0
FORGET_S = 86_400.0
"""How long agents that were isolated are remembered; the stream has their rulings for whoever asks."""

log = logging.getLogger(__name__)

assert VOTES_S <= MAX_VOTE_S
assert FaultRuling.POLICY is not None
POLICY: str = FaultRuling.POLICY


@dataclass(slots=True)
class Followed:
    """One domain as the stream has it, and where the next ruling has to follow."""

    state: DomainState
    tail: Tail
    cause: Recorded[Event] | None = None
    """The last event that was folded: what a ruling follows from."""
    unread: bool = False
    """The last ruling is none that we can read: nobody of us can rule after it."""

    @classmethod
    def of(cls, kind: DomainType, identifier: str) -> "Followed":
        state = DomainState(domain_type=kind, domain_identifier=identifier)
        return cls(state, Tail(subject=control_subject(POLICY, PLATFORM, state.domain)))


class Isolations:
    """Runs in the recorder's own loop. Votes and rulings arrive apart; what they come to does not depend on that."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._domains: dict[str, Followed] = {}
        self._callbacks: list[Callable[[DomainState], None]] = []
        self._woken = asyncio.Event()
        self.position = 0
        """The highest sequence that any of it rests on."""
        self._looked_s = 0.0
        self.failure: str | None = "not following yet"
        """Why votes and rulings do not arrive now."""

    @property
    def current(self) -> bool:
        """Whether all that arrived was folded just now: not so right after the process was stopped. In the loop."""
        return self.failure is None and asyncio.get_running_loop().time() - self._looked_s < CURRENT_S

    def on_change(self, callback: Callable[[DomainState], None]) -> None:
        """Called in the recorder's loop whenever a vote or ruling changed a domain; has to be quick."""
        self._callbacks.append(callback)

    def of(self, kind: DomainType, identifier: str) -> DomainState:
        """What is ruled and voted on this domain, as far as it arrived."""
        found = self._domains.get(f"{kind.value}:{identifier}")
        return DomainState(domain_type=kind, domain_identifier=identifier) if found is None else found.state

    def followed(self, kind: DomainType, identifier: str) -> Followed:
        """As `of`, to rule on; in the recorder's loop."""
        key = f"{kind.value}:{identifier}"
        if (found := self._domains.get(key)) is None:
            found = self._domains[key] = Followed.of(kind, identifier)
        return found

    def all(self) -> list[Followed]:
        return list(self._domains.values())

    async def run(self) -> None:
        """For ever: whenever something may have been missed, all is read again."""
        self._woken = asyncio.Event()
        await asyncio.to_thread(prepare)
        while True:
            try:
                await self._follow()
            except (RelightError, *TRANSIENT) as error:
                self._interrupted(error)
            except Exception as error:  # a daemon's edge: what is known stands, and health says why
                log.exception("isolations are not followed", extra={"action": "isolations_failed"})
                self._interrupted(error)
            await asyncio.sleep(RETRY_S)

    def _interrupted(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self.failure:
            log.info("isolations are not followed now: %s", said, extra={"action": "isolations_retry"})
        self.failure = said

    async def _follow(self) -> None:
        client, woken = await self._recorder.client(), self._woken.set
        platform = token(PLATFORM)
        votes = [f"{OBSERVATIONS}.*.faults.{platform}.{fact}" for fact in ("suspected", "trusted")]
        since = self._recorder.clock.now() - timedelta(seconds=VOTES_S)
        async with (
            Follower(client, [f"{CONTROLS}.{POLICY}.{platform}.>"], since=None, arrived=woken) as rulings,
            Follower(client, votes, since=since, arrived=woken) as said,
        ):
            swept_at_s = asyncio.get_running_loop().time()
            while True:
                self._woken.clear()
                for follower in (rulings, said):
                    while (message := follower.take()) is not None:
                        self._fold(message)
                self.position = max(self.position, min(rulings.position, said.position))
                self._looked_s = now_s = asyncio.get_running_loop().time()
                if not rulings.behind and not said.behind:
                    self.failure = None
                if now_s - swept_at_s > SWEEP_EVERY_S:
                    swept_at_s = now_s
                    self._forget()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._woken.wait()

    def _fold(self, message: Message) -> None:
        try:
            event = decode_message(message.subject, message.body, message.timestamp_ms)
        except Undecodable as error:
            log.warning("message %d isolates nobody: %s", message.seq, error, extra={"action": "undecodable"})
            self._pass_over(message, error.reason)
            return
        data = event.data
        if not isinstance(data, FaultVote | FaultRuling):
            return
        followed = self.followed(data.domain_type, data.domain_identifier)
        if event.rev is not None:
            _move(followed, message, event)
        before, followed.state = followed.state, observe(followed.state, event)
        if followed.state == before:
            return
        self._recorder.clock.observe(event.id)  # so that whoever hears it after this ruling says so after it
        followed.cause = event
        self.position = max(self.position, message.seq)
        for callback in self._callbacks:
            callback(followed.state)

    def _pass_over(self, message: Message, reason: Reason) -> None:
        """A ruling that decides nothing here; where we cannot even rule after it, we do not."""
        if reason is Reason.CLOCK_AHEAD:
            event = decode(message.body)
            if event.rev is not None and isinstance(event.data, FaultRuling):
                _move(self.followed(event.data.domain_type, event.data.domain_identifier), message, event)
            return
        for followed in self._domains.values():
            followed.unread |= followed.tail.subject == message.subject

    def _forget(self) -> None:
        """Agents that are gone: each start of one may have a name of its own."""
        oldest = self._recorder.clock.now() - timedelta(seconds=FORGET_S)
        for key, followed in list(self._domains.items()):
            state = followed.state
            gone = state.state in (State.ISOLATED, State.HEALTHY) and state.domain_type is DomainType.ENGINE
            if gone and all(at < oldest for at in (state.ruled_at, *(vote.at for vote in state.votes.values())) if at):
                del self._domains[key]


def _move(followed: Followed, message: Message, event: Recorded[Event]) -> None:
    """The tail as the server has it: also where an older revision, which decides nothing, was put back on top."""
    followed.unread = False
    tail, rev = followed.tail, event.rev or 0
    if rev < tail.rev:
        followed.tail = Tail(subject=tail.subject, seq=message.seq, rev=tail.rev, sha256=tail.sha256)
        return
    followed.tail = Tail(
        subject=message.subject, seq=message.seq, rev=rev, sha256=body_sha256(message.body), event=event
    )
