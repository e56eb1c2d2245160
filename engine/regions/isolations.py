"""Follows what is voted and ruled on fault domains, and holds what that comes to for each of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from nats.aio.msg import Msg

from relight.engine.errors import ControlError, RelightError, Unreachable
from relight.engine.log.chain import body_sha256
from relight.engine.log.control import ControlLog, Tail
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.policies.isolation import MAX_VOTE_S, DomainState, State, observe
from relight.engine.recorder.recorder import Recorder
from relight.events.base import Event
from relight.events.catalog import CLOCK_TOLERANCE_MS, decode, decode_message, id_ms, prepare
from relight.events.envelope import PLATFORM, Recorded
from relight.events.errors import Reason, Undecodable
from relight.events.faults import DomainType, FaultRuling, FaultVote
from relight.events.subjects import CONTROLS, OBSERVATIONS, control_subject, token

RETRY_S = 0.5
LOOK_EVERY_S = 0.5
CURRENT_S = 1.0
READ_S = 1.0
VOTES_S = 120.0
"""How old the votes are that are read again: longer than they count, and clocks may be apart."""
SWEEP_EVERY_S = 60.0
FORGET_S = 86_400.0
"""How long agents that were isolated are remembered; the stream has their rulings for whoever asks."""

log = logging.getLogger(__name__)

assert VOTES_S <= MAX_VOTE_S
assert FaultRuling.POLICY is not None
POLICY: str = FaultRuling.POLICY
RULINGS = f"{CONTROLS}.{POLICY}.{token(PLATFORM)}.>"
VOTES = [f"{OBSERVATIONS}.*.faults.{token(PLATFORM)}.{fact}" for fact in ("suspected", "trusted")]
ANNOUNCED = "announced.isolation"
"""Where whoever ruled names the domain over core NATS; what was ruled is read on the stream."""


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
    """Runs in the recorder's own loop. Votes and rulings arrive apart; what they come to does not depend on that.

    They are followed on the stream. The consumers of a server that is lost are silent for seconds, and new ones need
    an election: so votes are heard on their way to the stream, too, and the last rulings are read one by one, on the
    `regions` and on whoever is announced.
    """

    def __init__(self, recorder: Recorder, regions: Iterable[str] = ()) -> None:
        self._recorder = recorder
        self._regions = tuple(regions)
        self._domains: dict[str, Followed] = {}
        self._callbacks: list[Callable[[DomainState], None]] = []
        self._woken = asyncio.Event()
        self._announced = asyncio.Event()
        self._to_read: set[tuple[DomainType, str]] = set()
        self._looked_s = 0.0
        self._known = False
        self.position = 0
        """The highest sequence that any of it rests on."""
        self.failure: str | None = "not following yet"
        """Why votes and rulings do not arrive from the stream now."""

    @property
    def current(self) -> bool:
        """Whether what arrived was folded just now: not so right after the process was stopped. In the loop."""
        return self._known and asyncio.get_running_loop().time() - self._looked_s < CURRENT_S

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
        self._woken, self._announced = asyncio.Event(), asyncio.Event()
        await asyncio.to_thread(prepare)
        async with asyncio.TaskGroup() as tasks:
            for part in (self._follow, self._listen, self._read):
                tasks.create_task(self._again_and_again(part))

    async def _again_and_again(self, part: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await part()
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
        since = self._recorder.clock.now() - timedelta(seconds=VOTES_S)
        async with (
            Follower(client, [RULINGS], since=None, arrived=woken) as rulings,
            Follower(client, VOTES, since=since, arrived=woken) as said,
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
                    self.failure, self._known = None, True
                if now_s - swept_at_s > SWEEP_EVERY_S:
                    swept_at_s = now_s
                    self._forget()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._woken.wait()

    async def _listen(self) -> None:
        """Votes on their way to the stream, and who was ruled on."""
        client = await self._recorder.client()

        async def on_vote(message: Msg) -> None:
            with suppress(Undecodable):
                event = decode_message(message.subject, message.data, self._recorder.clock.now_us() // 1_000)
                if isinstance(event.data, FaultVote):
                    self._observe(self.followed(event.data.domain_type, event.data.domain_identifier), event)

        async def on_announcement(message: Msg) -> None:
            with suppress(ValueError):
                kind, _, name = message.data.decode().partition(":")
                self._to_read.add((DomainType(kind), name))
                self._announced.set()

        subscriptions = [await client.subscribe(subject, cb=on_vote) for subject in VOTES]
        subscriptions.append(await client.subscribe(ANNOUNCED, cb=on_announcement))
        try:
            while not client.is_closed:  # noqa: ASYNC110  # nats-py tells of it only in a callback given when connecting
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            if client.is_connected:
                for subscription in subscriptions:
                    await subscription.unsubscribe()
        raise Unreachable("the connection to NATS was closed: another one is waited for")

    async def _read(self) -> None:
        """The last rulings of whom was announced; while the stream is not followed, of all regions."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._announced.wait()
            self._announced.clear()
            wanted, self._to_read = self._to_read, set()
            if self._known and self.failure is not None:
                wanted |= {(DomainType.REGION, region) for region in self._regions}
            for kind, name in wanted:
                await self._read_one(self.followed(kind, name))
            if wanted and self.failure is not None:
                self._looked_s = asyncio.get_running_loop().time()

    async def _read_one(self, followed: Followed) -> None:
        async def read(control: ControlLog) -> Tail:
            return await control.tail(FaultRuling, tenant=PLATFORM, entity=followed.state.domain, timeout_s=READ_S)

        try:
            tail = await self._recorder.with_control(read)
        except ControlError as error:
            log.warning("%s", error, extra={"action": "unreadable_ruling"})
            followed.unread = True
            return
        if tail.event is None or tail.rev <= followed.tail.rev:
            return
        followed.tail, followed.unread = tail, False
        if id_ms(tail.event.id) <= self._recorder.clock.now_us() // 1_000 + CLOCK_TOLERANCE_MS:
            self.position = max(self.position, tail.seq)
            self._observe(followed, tail.event)

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
        self.position = max(self.position, message.seq)
        self._observe(followed, event)

    def _observe(self, followed: Followed, event: Recorded[Event]) -> None:
        before, followed.state = followed.state, observe(followed.state, event)
        if followed.state == before:
            return
        self._recorder.clock.observe(event.id)  # so that whoever hears it after this ruling says so after it
        followed.cause = event
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
