"""A guarded call from its beginning to its end: written once, for both kinds of clients, and without I/O."""

from collections.abc import Generator

from relight.engine.guard.breakers.breaker import CLOSED, Permit, Refused
from relight.engine.guard.budgets.purse import Purse
from relight.engine.guard.calls.classify import Fault
from relight.engine.guard.calls.first import First
from relight.engine.guard.calls.outcomes import ended_by, fault_of, late, raised_by, read_so_far, stop_reason
from relight.engine.guard.calls.parts import Parts
from relight.engine.guard.calls.requests import is_repeatable
from relight.engine.guard.calls.steps import AnyResponse, HandOut, Pause, Release, Send, Step, Steps
from relight.engine.guard.calls.way import Way
from relight.engine.guard.clients.endpoints import CHAT
from relight.engine.guard.facts import Attempt, Failure
from relight.engine.guard.streams.watching import Expected
from relight.engine.policies.retry import Failed, Wait, after

_US = 1_000_000
_REFUSAL = "refusal"


class Conduct:
    """Conducts one call from its first attempt on: `steps` says what is to be done, and a driver does it."""

    __slots__ = (
        "_asynchronous",
        "_attempt",
        "_breaker",
        "_call",
        "_call_next",
        "_failed",
        "_first",
        "_parses",
        "_parts",
        "_permit",
        "_purse",
        "_request",
        "_until_us",
        "_way",
    )

    def __init__(self, parts: Parts, first: First, *, asynchronous: bool) -> None:
        self._parts = parts
        self._call = call = first.call
        self._request = first.request
        self._call_next = first.call_next
        self._until_us = first.until_us
        self._parses = first.parses
        self._asynchronous = asynchronous
        self._breaker = first.breaker
        self._first: Send | None = None
        """Until it is looked at."""
        self._permit: Permit | None = None
        """Given, and not answered yet."""
        if first.sent:
            self._first, call.attempts = first, 1
            self._permit = CLOSED
        self._attempt: Attempt | None = None
        """At hand, or the last one."""
        self._failed: Send | None = None
        """The last attempt that another one followed."""
        self._way: Way | None = None
        self._purse: Purse | None = None

    def steps(self) -> Steps:
        """Returns the answer to hand out, of whatever status; None after a stream's end.

        Raises what the last attempt raised, `DeadlineExceeded`, `CircuitOpen` or `BudgetExceeded`. Whatever is thrown
        in ends the call, and is recorded.
        """
        parts, call, until_us = self._parts, self._call, self._until_us
        now_us = parts.clock.now_us
        waited_s = 0.0
        try:
            if parts.budgets is not None:
                self._purse = Purse(parts, call)
            started_us = call.started_us
            while True:
                sent, self._first = self._first, None
                if sent is not None:
                    self._attempt = attempt = Attempt(1, call.dependency, started_us)
                else:
                    if started_us >= until_us:
                        raise late(call, self._failed)
                    if (refused := self._asks(started_us)) is not None:
                        waited_s += yield from self._wait_or_turn(refused, started_us)
                        started_us = now_us()
                        continue
                    attempt, sent = self._begin(started_us, waited_s)
                    yield sent
                attempt.ended_us = now_us()
                handed_out: HandOut | None = None
                if (fault := fault_of(sent, attempt, now_us=attempt.ended_us)) is None:
                    if sent.whole and not (call.streams and sent.http is not None):
                        if parts.falls_back and stop_reason(sent) == _REFUSAL and self._leaves_refusal(sent):
                            waited_s, started_us = 0.0, now_us()
                            continue
                        self._end(None)
                        return sent.response
                    yield (handed_out := HandOut(sent, self._expected))
                    fault = read_so_far(attempt, handed_out)
                    if handed_out.over or fault is None:
                        self._end(attempt.failure)
                        return None
                attempt.failure = fault.failure
                waits = self._waits(fault, sent, attempt)
                if waits is not None:
                    self._put_aside(sent)
                elif not self._leaves(fault.failure, sent, streaming=handed_out is not None):
                    return (yield from self._give_up(sent, handed_out))
                if sent.http is not None:
                    yield Release(sent.http)
                waited_s = 0.0
                if waits is not None and not self._refused_past(waits.seconds):
                    waited_s = waits.seconds
                    yield Pause(waited_s)
                started_us = now_us()
        except BaseException as error:
            if call.ended_us is None:
                self._end(ended_by(error, self._attempt))
            raise

    @property
    def _expected(self) -> Expected:
        if self._call.operation != CHAT:
            return Expected.OTHER
        return Expected.EVENTS if self._call.streams else Expected.MESSAGE

    def _begin(self, started_us: int, waited_s: float) -> tuple[Attempt, Send]:
        """Another attempt. Raises `BudgetExceeded`."""
        call, way = self._call, self._way
        if self._purse is not None and call.attempts:
            self._purse.again(started_us, self._failed)
        call.attempts = number = call.attempts + 1
        if way is None:
            self._attempt = attempt = Attempt(number, call.dependency, started_us, waited_s)
            return attempt, Send(self._request, self._call_next, started_us, self._until_us, parses=self._parses)
        way.attempts += 1
        route = way.route
        self._attempt = attempt = Attempt(number, route.dependency, started_us, waited_s, fallback_reason=route.reason)
        return attempt, Send(route.adapt(self._request), route.send, started_us, self._until_us, parses=self._parses)

    def _asks(self, now_us: int) -> Refused | None:
        """The breaker, for leave."""
        if self._breaker is None:
            return None
        answer = self._parts.asked(self._breaker, now_us)
        if isinstance(answer, Refused):
            return answer
        self._permit = answer
        return None

    def _wait_or_turn(self, refused: Refused, now_us: int) -> Generator[Step, None, float]:
        """Waits, or takes another route; returns how long it waited. Raises `CircuitOpen`."""
        way = self._on_the_way()
        wait_s = way.refused(refused, now_us, left_s=(self._until_us - now_us) / _US)
        if wait_s is None:
            cause = None if self._failed is None else raised_by(self._failed)
            raise way.circuit_open(now_us, self._call) from cause
        if wait_s and self._breaker is not None:
            self._breaker.waited_for()
        self._breaker = self._parts.breaker(way.route.dependency)
        if wait_s:
            yield Pause(wait_s)
        return wait_s

    def _waits(self, fault: Fault, sent: Send, attempt: Attempt) -> Wait | None:
        """How long before the same is asked again; None: it is not. Raises `DeadlineExceeded`."""
        ended_us = self._parts.clock.now_us()
        if sent.fired or ended_us >= self._until_us:
            attempt.failure = Failure.DEADLINE
            raise late(self._call, self._failed or sent)
        way = self._on_the_way()
        attempt.retry_after_s = fault.asked_s
        way.overloads += fault.failure is Failure.OVERLOADED
        if way.hurries(fault.failure):
            return None
        decided = after(
            way.retry,
            Failed(
                failure=fault.failure,
                attempts=way.attempts,
                overloads=way.overloads,
                asked_s=fault.asked_s,
                should_retry=fault.should_retry,
                left_s=(self._until_us - ended_us) / _US,
                repeatable=is_repeatable(self._request.options),
            ),
            chance=self._parts.waits.chance(),
        )
        return decided if isinstance(decided, Wait) else None

    def _on_the_way(self) -> Way:
        if self._way is None:
            self._way = Way(
                self._parts,
                self._request,
                self._call_next,
                self._call.dependency,
                asynchronous=self._asynchronous,
            )
            self._way.attempts = self._call.attempts
        return self._way

    def _leaves_refusal(self, sent: Send) -> bool:
        return self._on_the_way().hurries(_REFUSAL) and self._leaves(_REFUSAL, sent)

    def _refused_past(self, wait_s: float) -> bool:
        """Whether the breaker, which this attempt may have tripped, lets no call pass even after the wait."""
        breaker = self._breaker
        if breaker is None:
            return False
        now_us = self._parts.clock.now_us()
        answer = self._parts.asked(breaker, now_us)
        if isinstance(answer, Refused):
            breaker.waited_for()
            return answer.retry_at_us > now_us + wait_s * _US
        if answer is not None:
            breaker.released(answer)
        return False

    def _leaves(self, failure: Failure | str, sent: Send, *, streaming: bool = False) -> bool:
        """Whether there is another route, which is taken then."""
        way = self._on_the_way()
        if (
            not self._parts.routes
            or not is_repeatable(self._request.options)
            or not way.leave(failure, streaming=streaming)
        ):
            return False
        self._put_aside(sent)
        self._breaker = self._parts.breaker(way.route.dependency)
        return True

    def _put_aside(self, sent: Send) -> None:
        """Another attempt follows this one."""
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        self._failed = sent
        self._settle(attempt)
        self._parts.attempted(self._call, attempt)

    def _give_up(self, sent: Send, handed_out: HandOut | None) -> Generator[Step, None, AnyResponse | None]:
        attempt = self._attempt
        assert attempt is not None
        if handed_out is not None:
            # What is held of the stream, and its error, are handed out: only then it is known how it ended.
            yield (handed_out := HandOut(sent, handed_out.expects, nothing=True))
            read_so_far(attempt, handed_out)
            self._end(attempt.failure)
            return None
        self._end(attempt.failure)
        if sent.error is not None:
            raise sent.error
        return sent.response

    def _settle(self, attempt: Attempt) -> None:
        """Says to the breaker and the budgets what came of an attempt."""
        permit, self._permit = self._permit, None
        if permit is not None and self._breaker is not None:
            self._parts.answered(self._breaker, permit, attempt)
        if self._purse is not None:
            self._purse.spent(attempt)

    def _end(self, failure: Failure | None) -> None:
        """The call is over, and is recorded."""
        call, attempt = self._call, self._attempt
        if attempt is None:
            call.ended_us = self._parts.clock.now_us()
            if self._permit is not None and self._breaker is not None:
                self._breaker.released(self._permit)  # it let the call pass, and then the budget did not
        else:
            if attempt.ended_us is None:
                attempt.ended_us = self._parts.clock.now_us()
            call.ended_us = attempt.ended_us
            call.first_token_us = attempt.first_token_us
            attempt.failure = failure
            self._settle(attempt)
            if failure is None:
                call.served_by = attempt.dependency
                call.answer = attempt.answer
        call.failure = failure
        if self._purse is not None:
            self._purse.close()
        self._parts.known(call, attempt)
