"""A process's breaker of one dependency: calls pass where neither its own failures nor the fleet's ruling forbid it."""

import random
import threading
from datetime import UTC, datetime, timedelta

from relight.engine.guard.breakers.permits import CLOSED as CLOSED
from relight.engine.guard.breakers.permits import BreakerHealth as BreakerHealth
from relight.engine.guard.breakers.permits import Circle
from relight.engine.guard.breakers.permits import Permit as Permit
from relight.engine.guard.breakers.permits import Refused as Refused
from relight.engine.guard.facts import Failure
from relight.engine.policies.breaker import BreakerPolicy, LocalBreaker
from relight.engine.policies.fleet_breaker import FleetState, State
from relight.events.breakers import BreakerReset, BreakerTripped

LEASE_ANSWER_US = 20_000
"""When to come again where the fleet is being asked for its probes."""
PROBING_US = 1_000_000
"""When to come again where probes are under way; they may be answered at any time."""
OFF_US = 1_000_000
"""When to come again where what it guards lies in a region that is switched off."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Breaker:
    """Safe to use from any thread, with and without a loop. Times are Unix microseconds.

    While NATS is away the fleet's last ruling holds until its deadline, and then the process probes by itself.
    """

    __slots__ = (
        "_alone_rev",
        "_answers",
        "_circle",
        "_counts_answers",
        "_fleet",
        "_lease_left",
        "_lease_successes",
        "_linked",
        "_local",
        "_lock",
        "_off",
        "name",
        "passes",
        "policy",
        "refused_calls",
    )

    def __init__(self, name: str, policy: BreakerPolicy, circle: Circle) -> None:
        self.name = name
        self.policy = policy
        self._circle = circle
        self.refused_calls = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Knows of nothing, as in a fork()ed child, where the lock may have been held by a thread that is not there."""
        self._lock = threading.RLock()  # a stream that is dropped may say so from within the garbage collector
        self._local = LocalBreaker(self.policy, random.random)
        self._counts_answers = self.policy.slow_rate is None
        self._answers = 0
        """That `_local` was not told of yet. Added to without the lock: should one get lost, then out of many."""
        self._fleet = FleetState(service_name=self.name)
        self._linked = False
        self._alone_rev = 0
        self._lease_left = self._lease_successes = 0
        self._off: tuple[str, int] | None = None
        self.passes = False

    def permit(self, now_us: int) -> Permit | Refused:
        """Whether a call may pass now; say afterwards what came of it, once."""
        # One attribute, which is only ever replaced under the lock: a closed breaker costs its callers nothing else.
        return CLOSED if self.passes else self._ask(now_us)

    def succeeded(self, permit: Permit, latency_us: int, now_us: int | None = None) -> None:
        """The dependency answered."""
        if now_us is None:
            now_us = self._circle.now_us()
        # What a failure is to be measured by is put together when there is one, or when the window turns.
        if permit is CLOSED and self.passes and self._counts_answers and now_us < self._local.turns_at_us:
            self._answers += 1
            return
        with self._lock:
            self._tell_answers()
            if permit is not CLOSED:
                self._answered(permit, now_us, latency_us)
            elif self._local.state is State.CLOSED and self._local.succeeded(now_us, latency_us):
                self._vote()

    def failed(self, permit: Permit, failure: Failure | str | None = None) -> None:
        """It did not, or not with what can be used."""
        now_us = self._circle.now_us()
        with self._lock:
            self._tell_answers()
            if permit is not CLOSED:
                self._unanswered(permit, now_us)
            elif self._local.state is State.CLOSED and self._local.failed(now_us):
                self._vote()

    def released(self, permit: Permit) -> None:
        """The call tells nothing of the dependency: it was cancelled, or its caller's fault."""
        if permit is CLOSED:
            return
        with self._lock:
            self._local.probe_released(permit.epoch)
            if self._holds(permit):
                self._lease_left += 1

    def waited_for(self) -> None:
        """Whoever was refused just now waits instead of giving up: then it was not refused."""
        with self._lock:
            self.refused_calls -= 1

    def told(self, state: FleetState, *, anew: bool = False) -> None:
        """What rulings and votes come to by now; `anew`: whatever was told before."""
        with self._lock:
            before = self._fleet
            if state.rev < before.rev and not anew:
                return
            self._fleet = state
            if state.rev != before.rev:
                self._lease_left = state.probes if state.holder == self._circle.process else 0
                self._lease_successes = 0
                if state.state is State.CLOSED and before.state is not State.CLOSED:
                    self._close_with_fleet()
            self._settle()

    @property
    def linked(self) -> bool:
        """Rulings of the fleet arrive, and the last one is known."""
        return self._linked

    @property
    def rev(self) -> int:
        """Of the fleet's last ruling that is known here; a ruling that is only expected has none yet."""
        return self._fleet.rev

    def link(self, linked: bool) -> None:
        """Whether rulings of the fleet arrive."""
        with self._lock:
            self._linked = linked
            if linked:
                self._alone_rev = 0  # the last ruling holds again
            self._settle()

    def switch_off(self, reason: str | None) -> None:
        """No call is to go where its dependency lies; None: calls may again."""
        with self._lock:
            if reason is None:
                self._off = None
            elif self._off is None or self._off[0] != reason:
                self._off = reason, self._circle.now_us()
            self._settle()

    def settle(self) -> None:
        """The circle was joined or left."""
        with self._lock:
            self._settle()

    def health(self) -> BreakerHealth | None:
        """None while it is closed."""
        with self._lock:
            local, fleet = self._local, self._fleet
            if self._off is not None:
                reason, since_us = self._off
                return BreakerHealth(
                    name=self.name,
                    state=State.OPEN,
                    fleet=True,
                    since=_moment(since_us),
                    until=None,
                    reason=reason,
                    refused_calls=self.refused_calls,
                )
            by_fleet = fleet.state is not State.CLOSED and not self._is_alone()
            if not by_fleet and local.state is State.CLOSED:
                return None
            until = _moment(local.retry_at_us) if local.state is State.OPEN else None
            return BreakerHealth(
                name=self.name,
                state=fleet.state if by_fleet else local.state,
                fleet=by_fleet,
                since=(fleet.since or _EPOCH) if by_fleet else _moment(local.since_us),
                until=fleet.next_retry_at or fleet.lease_until if by_fleet else until,
                reason=fleet.reason if by_fleet else local.reason,
                refused_calls=self.refused_calls,
            )

    def _ask(self, now_us: int) -> Permit | Refused:
        self._circle.join()
        with self._lock:
            answer = self._answer(now_us)
            if isinstance(answer, Refused):
                self.refused_calls += 1
            self._settle()
        return answer

    def _answer(self, now_us: int) -> Permit | Refused:
        fleet, local = self._fleet, self._local
        if self._off is not None:
            return self._refused(self._off[0], now_us + OFF_US, fleet=True)
        if fleet.state is State.CLOSED or self._is_left_alone(now_us):
            return self._local_answer(now_us)
        if fleet.state is State.OPEN and now_us < (retry_at_us := _us(fleet.next_retry_at)):
            return self._refused(fleet.reason, retry_at_us, fleet=True)
        if fleet.state is State.HALF_OPEN and now_us < (until_us := _us(fleet.lease_until)) and not self._lease_left:
            return self._refused("probes are under way", min(until_us, now_us + PROBING_US), fleet=True)
        if not local.ready(now_us):
            return self._local_answer(now_us)
        if self._lease_left:
            # Until another one takes the lease over it is ours, whatever its deadline: its calls may come rarely.
            self._lease_left -= 1
            return Permit(local.permit(now_us) or 0, fleet.rev)
        self._circle.ask(self.name)
        return self._refused("its time to retry has come: probes are asked for", now_us + LEASE_ANSWER_US, fleet=True)

    def _local_answer(self, now_us: int) -> Permit | Refused:
        local = self._local
        epoch = local.permit(now_us)
        if epoch is None:
            if local.state is State.OPEN:
                return self._refused(local.reason, local.retry_at_us, fleet=False)
            retry_at_us = min(local.retry_at_us, now_us + PROBING_US)
            return self._refused("probes are under way", retry_at_us, fleet=False)
        return Permit(epoch) if epoch else CLOSED

    def _refused(self, reason: str, retry_at_us: int, *, fleet: bool) -> Refused:
        return Refused(self.name, reason, retry_at_us, fleet)

    def _answered(self, permit: Permit, now_us: int, latency_us: int) -> None:
        local = self._local
        holds, changed = self._holds(permit), local.probe_succeeded(permit.epoch, now_us, latency_us)
        if changed and local.state is State.OPEN:
            self._vote()
        elif holds:
            self._lease_successes += 1
            if self.policy.fleet is not None and self._lease_successes >= self.policy.fleet.successes:
                self._lease_left = self._lease_successes = 0
                self._withdraw("its probe was answered")
        elif changed:
            self._withdraw(local.reason)
        self._settle()

    def _unanswered(self, permit: Permit, now_us: int) -> None:
        local = self._local
        changed = local.probe_failed(permit.epoch, now_us)
        if self._holds(permit) and local.state is not State.OPEN:
            local.trip(now_us, "the fleet's probe failed")
            changed = True
        if changed:
            self._lease_left = 0
            self._vote()
        self._settle()

    def _tell_answers(self) -> None:
        """Before anything else of the same kind, and before the window turns."""
        if answers := self._answers:
            self._answers -= answers
            if self._local.state is State.CLOSED:
                self._local.answered(answers)

    def _holds(self, permit: Permit) -> bool:
        """The permit is of the lease that this process holds now."""
        fleet = self._fleet
        return permit.lease != 0 and permit.lease == fleet.rev and fleet.answer is None

    def _close_with_fleet(self) -> None:
        if self._local.state is not State.CLOSED:
            self._local.close(self._circle.now_us(), "the fleet closed it")
            self._withdraw(self._local.reason)

    def _is_left_alone(self, now_us: int) -> bool:
        """NATS is away, and the fleet's last ruling has had its time."""
        if self._linked or self._is_alone():
            return not self._linked
        fleet = self._fleet
        if now_us < _us(fleet.next_retry_at or fleet.lease_until):
            return False
        self._alone_rev = fleet.rev
        if self._local.state is State.CLOSED:
            self._local.half_open(now_us)
        return True

    def _is_alone(self) -> bool:
        return not self._linked and self._alone_rev != 0 and self._alone_rev == self._fleet.rev

    def _vote(self) -> None:
        local = self._local
        self.passes = False
        self._circle.record(
            BreakerTripped(
                service_name=self.name,
                process=self._circle.process,
                fault_domain=self._circle.fault_domain,
                reason=local.reason,
                failure_count=local.tripped_failures,
                retry_at=_moment(local.retry_at_us),
            )
        )

    def _withdraw(self, reason: str) -> None:
        self._circle.record(
            BreakerReset(
                service_name=self.name,
                process=self._circle.process,
                fault_domain=self._circle.fault_domain,
                reason=reason,
            )
        )

    def _settle(self) -> None:
        self._tell_answers()
        allowed = self._off is None and (self._fleet.state is State.CLOSED or self._is_alone())
        self.passes = allowed and self._local.state is State.CLOSED and self._circle.joined


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _us(moment: datetime | None) -> int:
    return 0 if moment is None else (moment - _EPOCH) // _MICROSECOND
