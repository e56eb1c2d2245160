"""A guarded call from its beginning to its end: written once, for both kinds of clients, and without I/O."""

from collections.abc import Generator

from relight.engine.guard.breaker import Refused
from relight.engine.guard.classify import Fault
from relight.engine.guard.endpoints import CHAT
from relight.engine.guard.facts import Attempt, Call, Failure
from relight.engine.guard.outcomes import ended_by, fault_of, late, raised_by, read_so_far, stop_reason
from relight.engine.guard.parts import Parts
from relight.engine.guard.purse import Purse
from relight.engine.guard.steps import AnyResponse, HandOut, Pause, Release, Send, Step, Steps
from relight.engine.guard.watching import Expected
from relight.engine.guard.way import Way
from relight.engine.policies.retry import Failed, Wait, after

_US = 1_000_000
_REFUSAL = "refusal"


class Conduct:
    """Conducts one call: `steps` says what is to be done, and a driver does it."""

    __slots__ = ("_attempt", "_call", "_failed", "_parses", "_parts", "_purse", "_repeatable", "_until_us", "_way")

    def __init__(self, parts: Parts, call: Call, way: Way, *, until_us: int, parses: bool, repeatable: bool) -> None:
        self._parts = parts
        self._call = call
        self._way = way
        self._until_us = until_us
        self._parses = parses
        self._repeatable = repeatable
        self._purse: Purse | None = None
        self._attempt: Attempt | None = None
        self._failed: Send | None = None
        """The last attempt that failed and was not handed out."""

    def steps(self) -> Steps:
        """Returns the answer to hand out, of whatever status; None after a stream's end.

        Raises what the last attempt raised, `DeadlineExceeded`, `CircuitOpen` or `BudgetExceeded`. Whatever is thrown
        in ends the call, and is recorded.
        """
        parts, call, way = self._parts, self._call, self._way
        now_us, until_us = parts.clock.now_us, self._until_us
        parts.taken(call)
        try:
            if parts.budgets is not None:
                self._purse = Purse(parts, call)
            waited_s = 0.0
            while True:
                started_us = now_us()
                if started_us >= until_us:
                    raise late(call, self._failed)
                if (refused := way.permitted(started_us)) is not None:
                    waited_s += yield from self._refused(refused, started_us)
                    continue
                call.attempts += 1
                self._attempt = attempt = Attempt(
                    call.attempts, way.dependency, started_us, waited_s, fallback_reason=way.reason
                )
                if self._purse is not None and call.attempts > 1:
                    self._purse.again(started_us, self._failed)
                sent = way.send((until_us - started_us) / _US, self._parses)
                yield sent
                attempt.ended_us = now_us()
                handed_out: HandOut | None = None
                if (fault := fault_of(sent, attempt, now_us=attempt.ended_us)) is None:
                    if sent.is_whole and not (call.streams and sent.http is not None):
                        if stop_reason(sent) == _REFUSAL and way.hurries(_REFUSAL) and self._leaves(_REFUSAL, sent):
                            waited_s = 0.0
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
                if waits is None and not self._leaves(fault.failure, sent, streaming=handed_out is not None):
                    return (yield from self._give_up(sent, handed_out))
                if waits is not None:
                    self._put_aside(sent)
                if (http := sent.http) is not None:
                    yield Release(http)
                    del http
                waited_s = 0.0 if waits is None else waits.seconds
                if waits is not None:
                    yield Pause(waited_s)
        except BaseException as error:
            if call.ended_us is None:
                self._end(ended_by(error, self._attempt))
            raise

    @property
    def _expected(self) -> Expected:
        if self._call.operation != CHAT:
            return Expected.OTHER
        return Expected.EVENTS if self._call.streams else Expected.MESSAGE

    def _refused(self, refused: Refused, now_us: int) -> Generator[Step, None, float]:
        """Waits, or takes another route; returns how long it waited. Raises `CircuitOpen`."""
        wait_s = self._way.wait_s(refused, now_us, left_s=(self._until_us - now_us) / _US)
        if wait_s is None:
            raise self._way.circuit_open(now_us, self._call) from (
                None if self._failed is None else raised_by(self._failed)
            )
        if wait_s:
            yield Pause(wait_s)
        return wait_s

    def _waits(self, fault: Fault, sent: Send, attempt: Attempt) -> Wait | None:
        """How long before the same is asked again; None: it is not. Raises `DeadlineExceeded`."""
        way, ended_us = self._way, self._parts.clock.now_us()
        if sent.late or ended_us >= self._until_us:
            attempt.failure = Failure.DEADLINE
            raise late(self._call, self._failed or sent)
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
                repeatable=self._repeatable,
            ),
            chance=self._parts.waits.chance(),
        )
        return decided if isinstance(decided, Wait) else None

    def _leaves(self, failure: Failure | str, sent: Send, *, streaming: bool = False) -> bool:
        """Whether there is another route to take now."""
        if not self._repeatable or not self._parts.routes:
            return False
        attempt = self._attempt
        assert attempt is not None
        self._way.answered(attempt)
        if not self._way.leave(failure, streaming=streaming):
            return False
        self._put_aside(sent)
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
        self._way.answered(attempt)
        if self._purse is not None:
            self._purse.spent(attempt)

    def _end(self, failure: Failure | None) -> None:
        """The call is over, and is recorded."""
        call, attempt = self._call, self._attempt
        if attempt is None:
            call.ended_us = self._parts.clock.now_us()
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
