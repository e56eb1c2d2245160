"""Follows what a fleet's processes vote on its breakers, and rules where the policy says so: by compare-and-set."""

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

from nats.aio.client import Client
from nats.aio.msg import Msg

from relight.engine import scope
from relight.engine.errors import ControlError, RelightError, Superseded
from relight.engine.guard.breakers.breaker import Breaker
from relight.engine.guard.breakers.followed import CLOCKS_S, Followed
from relight.engine.guard.breakers.stream_clock import StreamClock
from relight.engine.log.control import ControlLog
from relight.engine.log.following import Follower
from relight.engine.log.reader import TRANSIENT, Message
from relight.engine.policies.fleet_breaker import MAX_VOTE_S, FleetPolicy, Ruled, decide, expecting, observe
from relight.engine.recorder.recorder import Recorder
from relight.events.base import Event
from relight.events.breakers import BreakerOpened, BreakerReset, BreakerTripped
from relight.events.catalog import CLOCK_TOLERANCE_MS, decode, decode_message, id_ms, prepare
from relight.events.envelope import Recorded
from relight.events.errors import Reason, Undecodable
from relight.events.subjects import CONTROLS, OBSERVATIONS, token

POLICY = "breaker-1"
ANNOUNCED = "announced.breaker"
"""Where whoever ruled says so over core NATS: consumers of a stream that is busy fsyncing hear of it a while later."""
RETRY_S = 0.5
LOOK_EVERY_S = 0.5
GRACE_S = 0.1
"""How long others leave a ruling to the process whose vote it follows from."""
SPREAD_S = 0.01
"""Times the voters that are known: over so long those who would rule the same ask one after the other."""
MAX_SPREAD_S = 1.0
RULING_S = 5.0

log = logging.getLogger(__name__)


class Fleet:
    """Runs in the recorder's loop, for as long as that does; `ask` and `wake` are for any thread.

    `breakers` are those in use: they are told the state, and only on them this process rules.
    """

    def __init__(self, recorder: Recorder, *, process: str, breakers: Mapping[str, Breaker]) -> None:
        self._recorder = recorder
        self._process = process
        self._breakers = breakers
        self._tenant = recorder.options.tenant
        self._followed: dict[str, Followed] = {}
        self._wanted: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self.failure: str | None = "not following yet"
        """Why rulings do not arrive now."""

    def ask(self, name: str) -> None:
        """This process has a call to make, and would hold the probes."""
        self._wanted.add(name)
        self.wake()

    def wake(self) -> None:
        if (loop := self._loop) is not None:
            with suppress(RuntimeError):  # it ended: so did all that there is to wake
                loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """For ever: whenever something may have been missed, all is read again."""
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        await asyncio.to_thread(prepare)
        while True:
            try:
                await self._follow()
            except (RelightError, *TRANSIENT) as error:
                self._interrupted(error)
            except Exception as error:  # a daemon's edge: local breakers go on, and health says why
                log.exception("breakers cannot follow the fleet", extra={"action": "fleet_failed"})
                self._interrupted(error)
            await asyncio.sleep(RETRY_S)

    def _interrupted(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self.failure:
            log.info("breakers do not follow the fleet now: %s", said, extra={"action": "fleet_retry"})
        for followed in self._followed.values():
            if followed.ruling is not None:
                followed.ruling.cancel()
        for name, breaker in list(self._breakers.items()):
            if (found := self._followed.get(name)) is not None and found.known:
                breaker.told(found.state)  # of what was only expected nobody tells now
            breaker.link(False)
        self.failure = said  # other threads read it: not before breakers act accordingly

    async def _follow(self) -> None:
        client, control = await self._recorder.client(), await self._recorder.with_control(_itself)
        tenant = token(self._tenant)
        votes = [f"{OBSERVATIONS}.*.breakers.{tenant}.{fact}" for fact in ("tripped", "reset")]
        since = self._recorder.clock.now() - timedelta(seconds=MAX_VOTE_S + CLOCKS_S)
        subjects = [f"{CONTROLS}.{BreakerOpened.POLICY}.{tenant}.>", *votes]
        async with (
            Follower(client, subjects, since=since, arrived=self._woken.set) as follower,
            self._announcements(client),
        ):
            self._followed = {}
            clock = await StreamClock.compared(client, self._recorder.clock)
            while True:
                self._woken.clear()
                clock.check()
                while (message := follower.take()) is not None:
                    self._fold(message)
                if not follower.behind:
                    shared = [(name, one) for name, one in self._breakers.items() if one.policy.fleet is not None]
                    for name, breaker in shared:
                        if not self._of(name).known:
                            await self._know(name, breaker, control, follower.position)
                    if all(self._of(name).known for name, _ in shared):
                        self.failure = None
                    self._rule(client, control, follower.position)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._woken.wait()

    @asynccontextmanager
    async def _announcements(self, client: Client) -> AsyncIterator[None]:
        """Breakers are told of rulings at once; what this process rules rests on nothing but what the stream says.

        Who ruled may have died before it said so: the stream has every ruling.
        """

        async def on_announcement(message: Msg) -> None:
            with suppress(Undecodable):
                event = decode(message.data)
                if id_ms(event.id) > self._recorder.clock.now_us() // 1_000 + CLOCK_TOLERANCE_MS:
                    return  # the stream's readers pass over it, too
                followed, breaker = self._followed.get(event.subject), self._breakers.get(event.subject)
                if event.tenant == self._tenant and followed is not None and followed.known and breaker is not None:
                    breaker.told(observe(followed.state, event))

        subscription = await client.subscribe(f"{ANNOUNCED}.{token(self._tenant)}", cb=on_announcement)
        try:
            yield
        finally:
            if client.is_connected:
                with suppress(*TRANSIENT):
                    await subscription.unsubscribe()

    def _of(self, name: str) -> Followed:
        if (found := self._followed.get(name)) is None:
            found = self._followed[name] = Followed.of(self._tenant, name)
        return found

    def _fold(self, message: Message) -> None:
        try:
            event = decode_message(message.subject, message.body, message.timestamp_ms)
        except Undecodable as error:
            log.warning("message %d tells breakers nothing: %s", message.seq, error, extra={"action": "undecodable"})
            self._pass_over(message, error.reason)
            return
        followed, breaker = self._of(event.subject), self._breakers.get(event.subject)
        if followed.fold(message, event) and breaker is not None:
            breaker.told(followed.state)
            if followed.known and not breaker.linked:
                breaker.link(not followed.unread)
        if followed.known and breaker is not None:
            self._see_due(followed, breaker, own=self._is_own(event))

    def _pass_over(self, message: Message, reason: Reason) -> None:
        """A ruling that decides nothing here: where we cannot even rule after it, we do without the fleet."""
        if reason is Reason.CLOCK_AHEAD:
            if (event := decode(message.body)).rev is not None:
                self._of(event.subject).pass_over(message, event)
            return
        for name, followed in self._followed.items():
            if followed.tail.subject == message.subject:
                followed.unread = True
                if (breaker := self._breakers.get(name)) is not None:
                    breaker.link(False)

    async def _know(self, name: str, breaker: Breaker, control: ControlLog, position: int) -> None:
        """Its last ruling, where that is older than what is read."""
        followed, tail = self._of(name), None
        try:
            tail = await control.tail(BreakerOpened, tenant=self._tenant, entity=name, timeout_s=RULING_S)
        except ControlError as error:
            log.warning("%s", error, extra={"action": "unreadable_ruling"})
            followed.unread = True
        if tail is not None and tail.seq > position:
            return  # it arrives at once, and wakes: until then nothing else is taken for the last ruling
        followed.know(tail, now=self._now())
        breaker.told(followed.state, anew=True)
        breaker.link(not followed.unread)
        cause = followed.cause
        self._see_due(followed, breaker, own=cause is not None and self._is_own(cause))

    def _is_own(self, event: Recorded[Event]) -> bool:
        return isinstance(event.data, BreakerTripped | BreakerReset) and event.data.process == self._process

    def _see_due(self, followed: Followed, breaker: Breaker, *, own: bool) -> None:
        policy, now = breaker.policy.fleet, self._now()
        if policy is None or followed.due_at is not None:
            return
        for ruling in decide(followed.state, now, policy):
            followed.due_at = self._time() + (0 if own else GRACE_S + self._spread_s(followed))
            breaker.told(expecting(followed.state, ruling, now))

    def _rule(self, client: Client, control: ControlLog, position: int) -> None:
        """Appends what is due."""
        now, time_s = self._now(), self._time()
        for name, followed in self._followed.items():
            breaker = self._breakers.get(name)
            policy = None if breaker is None else breaker.policy.fleet
            if (
                breaker is None
                or policy is None
                or not followed.known
                or followed.unread
                or followed.ruling is not None
            ):
                continue
            if name in self._wanted and followed.due_at is None:
                if decide(followed.state, now, policy, caller=self._process):
                    followed.due_at = time_s + self._spread_s(followed)
                else:
                    self._wanted.discard(name)
            if followed.due_at is None or time_s < max(followed.due_at, followed.quiet_until):
                continue
            caller = self._process if name in self._wanted else None
            for ruling in decide(followed.state, now, policy, caller=caller):
                appending = self._append(ruling, followed, client, control, position, now, policy)
                followed.ruling = asyncio.create_task(appending, name=f"ruling on {name}")
            if followed.ruling is None:
                followed.due_at = None
                self._wanted.discard(name)
                breaker.told(followed.state)  # what was expected will not come: votes were withdrawn, or expired

    async def _append(
        self,
        ruling: Ruled,
        followed: Followed,
        client: Client,
        control: ControlLog,
        position: int,
        now: datetime,
        policy: FleetPolicy,
    ) -> None:
        cause, after = followed.cause, followed.tail
        try:
            with scope.entered(
                correlation=cause.correlationid if cause else None, causation=cause.id if cause else None
            ):
                tail = await control.append(
                    ruling,
                    after=after,
                    tenant=self._tenant,
                    policy_version=policy_version(policy),
                    observed_seq=position,
                    decided_at=now,
                    timeout_s=RULING_S,
                )
            assert tail.event is not None
            announcement = tail.event.model_dump_json(exclude_none=True).encode()
            await client.publish(f"{ANNOUNCED}.{token(self._tenant)}", announcement)
        except Superseded as error:
            log.debug("%s", error, extra={"action": "ruling_superseded"})
        except (RelightError, *TRANSIENT) as error:
            log.info("%s of %s: %s", ruling.TYPE, ruling.entity, error, extra={"action": "ruling_failed"})
        finally:
            # Whoever won, the winner arrives as any other does: folded in the stream's order, so that a ruling rests on
            # all that stands before it.
            followed.ruling = None
            if followed.tail is after:
                followed.quiet_until = self._time() + RETRY_S
            self._woken.set()

    def _pause_s(self) -> float:
        now = self._time()
        due = [
            max(followed.due_at, followed.quiet_until) - now
            for followed in self._followed.values()
            if followed.due_at is not None and followed.ruling is None and not followed.unread
        ]
        return max(0.0, min([LOOK_EVERY_S, *due]))

    def _spread_s(self, followed: Followed) -> float:
        return random.uniform(0, min(SPREAD_S * len(followed.state.votes), MAX_SPREAD_S))

    def _now(self) -> datetime:
        return self._recorder.clock.now()

    def _time(self) -> float:
        return asyncio.get_running_loop().time()


def policy_version(policy: FleetPolicy) -> str:
    """Says whether two rulings were decided by the same figures."""
    return f"{POLICY}-{hashlib.sha256(policy.model_dump_json().encode()).hexdigest()[:12]}"


async def _itself(control: ControlLog) -> ControlLog:
    return control
