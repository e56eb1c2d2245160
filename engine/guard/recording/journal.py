"""Writes down what a guarded call does: taken, attempts, outcome."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from relight.engine import scope
from relight.engine.errors import RecorderError
from relight.engine.guard.facts import Answer, Attempt, Call, Failure
from relight.engine.guard.health import Guarding, JournalHealth
from relight.engine.guard.recording import events
from relight.engine.guard.recording.answers import read_answer, read_json
from relight.engine.guard.recording.content import NOTHING, Contents, Digest, Redact
from relight.engine.guard.recording.prices import Prices
from relight.engine.guard.recording.records import KEPT_BYTES, QuickCall
from relight.engine.guard.recording.weighing import Weights, hull
from relight.engine.recorder.items import Kept, Made, Part
from relight.engine.recorder.making import said
from relight.engine.recorder.recorder import Recorder
from relight.engine.settings import ContentPolicy
from relight.events.base import Event
from relight.events.errors import InvalidEvent

Ended = tuple[Call, Attempt | None]
Make = Callable[[Ended], Iterable[Made | Kept]]

FIRST_PARTY = "anthropic"
MAX_UNPRICED = 1_000
log = logging.getLogger(__name__)


class Journal:
    """Takes facts in microseconds and never blocks; events are made of them later, in the recorder's own thread.

    What is handed over belongs to the journal from then on: nobody changes it any more, but for the fields of a `Call`
    that `known` reads. Decisions belong to the call's tenant, what is said of a dependency to the recorder's. The
    attempts and the outcome are caused by `decisions.taken`, and that by what the scope says.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        content: ContentPolicy = ContentPolicy.DIGEST,
        redact: Sequence[Redact] = (),
        prices: Prices | None = None,
    ) -> None:
        self._recorder = recorder
        self._defer = recorder.defer
        self._contents = Contents(content, redact)
        self._prices = prices or Prices.listed()
        self._tenant = recorder.options.tenant
        self._waiting = 0
        self._weights = Weights()
        ended = Part(self._made_of_worked, 3)
        self.begun = recorder.deferring(self._made_of_begun, self._begun_now, then=ended)
        """A call begins."""
        self.worked = recorder.ending(ended, self._worked_now)
        """The call is over, with its first attempt."""
        self.unpriced: dict[str, int] = {}
        """How many answers of which model could not be priced."""
        self.unrecorded = 0
        """Facts that came while the recorder did not run."""
        self.let_go = 0
        """Bodies of which less was recorded than the policy says, since too much waited for the disk."""
        recorder.beside(Guarding, Guarding).journals.add(self)

    def redacting(self, redact: Sequence[Redact]) -> "Journal":
        """Another one for the same recorder, with the same policy and prices, whose contents these hooks change."""
        return Journal(self._recorder, content=self._contents.policy, redact=redact, prices=self._prices)

    @property
    def refused_contents(self) -> int:
        """Contents of which nothing was recorded, since a hook failed or they could not be read."""
        return self._contents.refused

    @property
    def stream_bytes(self) -> int:
        """Of a stream's body, what has to be kept for it: a digest is made as it passes."""
        return KEPT_BYTES if self._contents.needs_bytes else 0

    def health(self) -> JournalHealth:
        return JournalHealth(
            unrecorded=self.unrecorded,
            let_go=self.let_go,
            refused_contents=self.refused_contents,
            unpriced=dict(self.unpriced),
        )

    def taken(self, call: Call) -> None:
        """A call begins."""
        if self._waiting > self._weights.pressed_events:
            call = self._lightened(call)
        try:
            self._waiting = self._defer(self._made_of_taken, call, call.scope)
        except RecorderError as error:
            self._miss(call.decision, error)

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """An attempt failed and another one may follow."""
        self._put_attempt(self._made_of_attempted, call, attempt, 2)

    def known(self, call: Call, attempt: Attempt | None) -> None:
        """The call is over; `attempt` is its last one, None where nothing was sent."""
        self._put_attempt(self._made_of_known, call, attempt, 3)

    def depended(self, service_name: str, *, started_us: int, latency_us: int, failure: Failure | str | None) -> None:
        """A call to a dependency that is no model worked, or failed."""
        fact = (service_name, started_us, latency_us, failure)
        try:
            self._defer(self._made_of_depended, fact, scope.current(), at_once=failure is not None)
        except RecorderError as error:
            self._miss(service_name, error)

    def _put_attempt(self, make: Make, call: Call, attempt: Attempt | None, count: int) -> None:
        if self._waiting > self._weights.pressed_events:
            call = replace(self._causing(call), body=None)  # of the request, `taken` tells all there is to tell
            if attempt is not None and attempt.body is not None:
                self._lighten(attempt, attempt.body)
        try:
            failed = call.failure is not None or (attempt is not None and attempt.failure is not None)
            self._waiting = self._defer(make, (call, attempt), call.scope, count, at_once=failed)
        except RecorderError as error:
            self._miss(call.decision, error)

    def _begun_now(self, call: QuickCall) -> None:
        if self._waiting > self._weights.pressed_events:
            self.taken(call.call)
            return
        try:
            self._waiting = self._defer(self._made_of_begun, call, call.context)
        except RecorderError as error:
            self._miss(call.call.decision, error)

    def _worked_now(self, call: QuickCall) -> None:
        if self._waiting > self._weights.pressed_events:
            self.known(*call.outcome())
            return
        try:
            self._waiting = self._defer(self._made_of_worked, call, call.context, 3)
        except RecorderError as error:
            self._miss(call.call.decision, error)

    def _made_of_begun(self, call: QuickCall) -> Iterator[Made | Kept]:
        return self._made_of_taken(call.call)

    def _made_of_worked(self, call: QuickCall) -> Iterator[Made | Kept]:
        return self._made_of_known(call.outcome())

    def _made_of_taken(self, call: Call) -> Iterator[Made | Kept]:
        with _named(call):
            digest = self._weighed(self._contents.of_request(call))
            event = events.taken(call, digest.content, dropped=digest.dropped)
            if digest.kept:
                yield digest.kept
            yield Made(event, call.started_us, id=self._causing(call).taken_id, traceparent=call.traceparent)

    def _made_of_attempted(self, fact: Ended) -> Iterator[Made | Kept]:
        call, attempt = fact
        if attempt is None:
            return
        with _named(call):
            digest = self._weighed(self._contents.of_response(call.decision, attempt))
            if digest.kept:
                yield digest.kept
            ended_us = attempt.ended_us or attempt.started_us
            event = events.attempted(call, attempt, digest.content, dropped=digest.dropped)
            yield self._caused(call, event, ended_us)
            if (seen := events.depended(attempt)) is not None:
                yield self._caused(call, seen, ended_us, self._tenant)

    def _made_of_known(self, fact: Ended) -> Iterator[Made | Kept]:
        call, attempt = fact
        yield from self._made_of_attempted(fact)
        with _named(call):
            answer = _answer(call, attempt)
            event = events.known(call, attempt, answer, self._cost_microusd(call, attempt, answer))
            ended_us = call.ended_us or (attempt.ended_us if attempt else None) or call.started_us
            yield self._caused(call, event, ended_us)

    def _made_of_depended(self, fact: tuple[str, int, int, Failure | str | None]) -> Iterator[Made]:
        service_name, started_us, latency_us, failure = fact
        event = events.depended_on(service_name, latency_us=latency_us, failure=failure)
        if event is not None:
            yield Made(event, started_us + max(0, latency_us), tenant=self._tenant)

    def _caused(self, call: Call, event: Event, time_us: int, tenant: str | None = None) -> Made:
        return Made(event, time_us, tenant=tenant, causation=call.taken_id, traceparent=call.traceparent)

    def _cost_microusd(self, call: Call, attempt: Attempt | None, answer: Answer | None) -> int | None:
        """None for what nobody knows: an answer that was not read to its end, a model without a price."""
        if answer is None or answer.usage.input_tokens is None or call.failure is not None:
            return None
        served = call.served_by or (attempt.dependency if attempt else call.dependency)
        models = [served.model]
        if answer.model and served.provider == FIRST_PARTY:  # others price by what was asked for
            models.append(answer.model)
        for model in models:
            cost = self._prices.cost_microusd(model, answer.usage, served.provider, served.region)
            if cost is not None:
                return cost
        self._note_unpriced(served.model)
        return None

    def _note_unpriced(self, model: str) -> None:
        if model not in self.unpriced and len(self.unpriced) < MAX_UNPRICED:
            log.warning(
                "what model %s costs is not known: add it to RELIGHT_PRICES_FILE",
                events.key(model),
                extra={"action": "unpriced"},
            )
            self.unpriced[model] = 0
        if model in self.unpriced:
            self.unpriced[model] += 1

    def _weighed(self, digest: Digest | None) -> Digest:
        if digest is not None and digest.content is not None:
            self._weights.weighed(digest.content.size_bytes)
            self._recorder.press_at(self._weights.pressed_events)
        return digest or NOTHING

    def _lightened(self, call: Call) -> Call:
        """Its body's digest is made at once, and only the hull waits."""
        if call.body is None or call.let_go:
            return call
        self.let_go += self._contents.needs_bytes
        digest = self._contents.digest_of(call.body)
        return replace(self._causing(call), body=hull(call.body), let_go=True, request=digest)

    def _causing(self, call: Call) -> Call:
        """Before it is copied: all its events have one cause, whichever is made first."""
        call.taken_id = call.taken_id or self._recorder.clock.next_id()
        return call

    def _lighten(self, attempt: Attempt, body: bytes) -> None:
        if attempt.answer is None and attempt.failure is None:
            attempt.answer = read_answer(read_json(body))
        attempt.body_sha256, attempt.body_bytes = hashlib.sha256(body).hexdigest(), len(body)
        attempt.body = None
        self.let_go += self._contents.needs_bytes and attempt.failure is None

    def _miss(self, what: str, error: RecorderError) -> None:
        """A call is not to fail because nobody writes it down."""
        if not self.unrecorded:
            log.error("%s is not recorded, nor what follows: %s", what, error, extra={"action": "unrecorded"})
        self.unrecorded += 1


def _answer(call: Call, attempt: Attempt | None) -> Answer | None:
    """What the bytes say, which is all of it; else what somebody read out of them before."""
    if attempt is not None and attempt.failure is None and (answer := read_answer(read_json(attempt.body))):
        return answer
    return call.answer or (attempt.answer if attempt else None)


@contextmanager
def _named(call: Call) -> Iterator[None]:
    """What cannot become an event is logged with its decision, and without what it holds."""
    try:
        yield
    except Exception as error:
        raise InvalidEvent(f"decision {call.decision}: {said(error)}") from None
