"""Votes on who is gone, and rules on it where a quorum of regions says so: by compare-and-set."""

import asyncio
import hashlib
import logging
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from relight.engine import scope
from relight.engine.errors import RelightError, Superseded
from relight.engine.guard.breakers.stream_clock import StreamClock
from relight.engine.log.control import ControlLog
from relight.engine.log.reader import TRANSIENT
from relight.engine.policies.isolation import DomainState, IsolationPolicy, Ruled, State, decide
from relight.engine.recorder.recorder import Recorder
from relight.engine.regions.heard import Heard
from relight.engine.regions.isolations import ANNOUNCED, Followed, Isolations
from relight.engine.regions.voting import Voting
from relight.events.envelope import PLATFORM
from relight.events.faults import DomainType

POLICY = "isolation-1"
LOOK_EVERY_S = 0.1
RETRY_S = 0.5
SPREAD_S = 0.1
"""Over so long the services that would rule the same ask one after the other."""
RULING_S = 5.0
MAX_AT_ONCE = 100

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Due:
    """A ruling that has to be made, and whether this process is making it."""

    at_s: float
    task: "asyncio.Task[None] | None" = None


class Detector:
    """Of a region's service; runs in the recorder's own loop. `observer` names it among the services of its region."""

    def __init__(
        self,
        recorder: Recorder,
        heard: Heard,
        isolations: Isolations,
        policy: IsolationPolicy,
        *,
        observer: str | None = None,
    ) -> None:
        self._recorder = recorder
        self._heard = heard
        self._isolations = isolations
        self._policy = policy
        self._policy_version = policy_version(policy)
        self._region = recorder.options.region
        self._due: dict[str, Due] = {}
        self._woken = asyncio.Event()
        self._stream_clock: StreamClock | None = None
        self._ruling_failure: str | None = None
        self.voting = Voting(recorder, heard, isolations, policy, observer=observer or self._region)
        self.rulings = 0
        isolations.on_change(lambda _: self._woken.set())

    @property
    def failure(self) -> str | None:
        """Why nobody would be detected now."""
        cut_off = "nobody of another region is heard: this one is cut off, and suspects nobody for it"
        return (
            self._heard.failure
            or (None if self._isolations.current else self._isolations.failure)
            or (cut_off if self.voting.cut_off else None)
            or self._ruling_failure
        )

    async def run(self) -> None:
        """For ever."""
        self._woken = asyncio.Event()
        while True:
            try:
                self._woken.clear()
                self.voting.look()
                if self._isolations.current and not self.voting.cut_off:
                    self._rule()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._woken.wait()
            except Exception as error:  # a daemon's edge: health says why
                log.exception("nobody is detected", extra={"action": "detector_failed"})
                self._ruling_failure = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_S)

    def _rule(self) -> None:
        now, time_s = self._recorder.clock.now(), asyncio.get_running_loop().time()
        if not self._due:
            self._ruling_failure = None
        at_once = sum(due.task is not None for due in self._due.values())
        for followed in self._isolations.all():
            state, key = followed.state, followed.state.domain
            if followed.unread or self._is_own(state) or (state.state is State.HEALTHY and not state.votes):
                continue
            rulings = decide(state, now, self._policy)
            if not rulings:
                if (due := self._due.get(key)) is not None and due.task is None:
                    del self._due[key]
                continue
            if (due := self._due.get(key)) is None:
                due = self._due[key] = Due(time_s + random.uniform(0, SPREAD_S))
            if due.task is None and time_s >= due.at_s and at_once < MAX_AT_ONCE:
                at_once += 1
                due.task = asyncio.create_task(self._append(rulings[0], followed, now), name=f"ruling on {key}")

    def _is_own(self, state: DomainState) -> bool:
        """On its own region it does not rule: others see better."""
        return state.domain_type is DomainType.REGION and state.domain_identifier == self._region

    async def _append(self, ruling: Ruled, followed: Followed, now: datetime) -> None:
        after, cause, key = followed.tail, followed.cause, followed.state.domain
        quiet_s = 0.0
        try:
            await self._check_clock()
            with scope.entered(
                correlation=cause.correlationid if cause else None, causation=cause.id if cause else None
            ):

                async def append(control: ControlLog) -> None:
                    await control.append(
                        ruling,
                        after=after,
                        tenant=PLATFORM,
                        policy_version=self._policy_version,
                        observed_seq=self._isolations.position,
                        decided_at=now,
                        timeout_s=RULING_S,
                    )

                await self._recorder.with_control(append)
            await (await self._recorder.client()).publish(ANNOUNCED, key.encode())
            self.rulings += 1
            self._ruling_failure = None
            log.warning("%s of %s: %s", ruling.TYPE, key, ruling.cause, extra={"action": "ruled"})
        except Superseded as error:
            log.debug("%s", error, extra={"action": "ruling_superseded"})
        except (RelightError, *TRANSIENT) as error:
            log.info("%s of %s: %s", ruling.TYPE, key, error, extra={"action": "ruling_failed"})
            self._ruling_failure = str(error) or type(error).__name__
        finally:
            # Whoever won, the ruling arrives as any other does; until then nothing is ruled after the old one.
            if followed.tail is after:
                quiet_s = RETRY_S
            self._due[key] = Due(asyncio.get_running_loop().time() + quiet_s)
            self._woken.set()

    async def _check_clock(self) -> None:
        """Raises `ControlError` where the own clock is far ahead, so that all votes seem old and all waits over."""
        if self._stream_clock is None:
            self._stream_clock = await StreamClock.compared(await self._recorder.client(), self._recorder.clock)
        self._stream_clock.check()


def policy_version(policy: IsolationPolicy) -> str:
    """Says whether two rulings were decided by the same figures."""
    return f"{POLICY}-{hashlib.sha256(policy.model_dump_json().encode()).hexdigest()[:12]}"
