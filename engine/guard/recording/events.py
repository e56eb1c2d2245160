"""Makes events of the facts of guarded calls; pure: no clock, no I/O, and never a word of content."""

import math
import re
from collections.abc import Mapping

from pydantic import JsonValue

from relight.engine.guard.facts import Answer, Attempt, Call, Dependency, Failure, Usage
from relight.events.breakers import BreakerFailed, BreakerSucceeded
from relight.events.decisions import DecisionCheckpointed, DecisionOutcomeKnown, DecisionTaken, Outcome
from relight.events.values import MAX_INTEGER, MAX_KEY_LENGTH, Content

AGENT_CALL = "agent_call"
ATTEMPT = "attempt"
UNKNOWN_OUTCOMES = {Failure.CANCELLED, Failure.ABANDONED}
"""Nobody knows how the call would have come out, as with a decision that is cancelled."""
AGAINST_THE_DEPENDENCY = {
    Failure.OVERLOADED,
    Failure.SERVER_ERROR,
    Failure.TIMEOUT,
    Failure.NAME_RESOLUTION,
    Failure.TLS,
    Failure.CONNECTION,
    Failure.TRUNCATED,
    Failure.MALFORMED,
}
"""What counts against a breaker; every other failure is the caller's affair, and counts neither way."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

Attributes = dict[str, JsonValue]


def taken(call: Call, request: Content | None, *, dropped: bool = False) -> DecisionTaken:
    """`dropped`: what was to be kept of the request is not."""
    return DecisionTaken(
        decision=call.decision,
        decision_type=AGENT_CALL,
        agent=call.scope.agent,
        task=call.scope.task,
        context=_request_attributes(call) | _dropped(dropped),
        provider=key(call.dependency.provider),
        model=key(call.dependency.model),
        request=request,
    )


def attempted(call: Call, attempt: Attempt, response: Content | None, *, dropped: bool = False) -> DecisionCheckpointed:
    """`latency_ms` and `first_token_ms` count from when the attempt was sent, `waited_s` is before that."""
    state = _known(
        {
            "number": attempt.number,
            "dependency": key(attempt.dependency.name),
            "fallback_reason": key(attempt.fallback_reason),
            "waited_s": _number(attempt.waited_s) or None,
            "latency_ms": _ms(attempt.started_us, attempt.ended_us),
            "first_token_ms": _ms(attempt.started_us, attempt.first_token_us),
            "http.response.status_code": attempt.status,
            "error.type": attempt.failure.value if attempt.failure else None,
            "anthropic.request.id": key(attempt.request_id),
            "retry_after_s": _number(attempt.retry_after_s),
        }
    ) | _dropped(dropped)
    return DecisionCheckpointed(decision=call.decision, checkpoint_type=ATTEMPT, state_snapshot=state, content=response)


def known(
    call: Call, attempt: Attempt | None, answer: Answer | None, cost_microusd: int | None
) -> DecisionOutcomeKnown:
    """`input_tokens` are all that the model read, from the cache too; the attributes tell them apart."""
    failure = call.failure
    usage = answer.usage if answer else Usage()
    return DecisionOutcomeKnown(
        decision=call.decision,
        outcome=_outcome(failure),
        error_class=failure.value if failure else None,
        input_tokens=_count(input_tokens(usage)),
        output_tokens=_count(usage.output_tokens),
        cost_microusd=_count(cost_microusd),
        latency_ms=_ms(call.started_us, call.ended_us),
        request_id=key(attempt.request_id) if attempt else None,
        first_token_ms=_ms(call.started_us, call.first_token_us),
        attempts=call.attempts or (attempt.number if attempt else 0),
        attributes=_answer_attributes(call, attempt, answer),
    )


def depended(attempt: Attempt) -> BreakerSucceeded | BreakerFailed | None:
    """What the attempt says of its dependency; None where it says nothing, as the breaker takes it."""
    details = _known({"http.response.status_code": attempt.status})
    latency_us = max(0, (attempt.ended_us or attempt.started_us) - attempt.started_us)
    return depended_on(attempt.dependency.name, latency_us=latency_us, failure=attempt.failure, details=details)


def depended_on(
    service_name: str, *, latency_us: int, failure: Failure | str | None, details: Attributes | None = None
) -> BreakerSucceeded | BreakerFailed | None:
    name = key(service_name) or "-"
    if failure is None:
        return BreakerSucceeded(service_name=name, latency_ms=max(0, latency_us) // 1_000)
    if isinstance(failure, Failure) and failure not in AGAINST_THE_DEPENDENCY:
        return None
    return BreakerFailed(service_name=name, error_class=key(str(failure)), details=details or {})


def input_tokens(usage: Usage) -> int | None:
    """With those that the cache wrote and had, as OpenTelemetry counts them."""
    if usage.input_tokens is None:
        return None
    return usage.input_tokens + (usage.cache_write_tokens or 0) + (usage.cache_read_tokens or 0)


def key(value: str | None) -> str | None:
    """Cut to what a key can hold; None where nothing is left."""
    if not value:
        return None
    cut = _UNPRINTABLE.sub("", value)[:MAX_KEY_LENGTH]
    return cut.encode()[:MAX_KEY_LENGTH].decode(errors="ignore") or None


def _outcome(failure: Failure | None) -> Outcome:
    if failure is None:
        return Outcome.SUCCESS
    return Outcome.UNKNOWN if failure in UNKNOWN_OUTCOMES else Outcome.FAILURE


def _request_attributes(call: Call) -> Attributes:
    body, dependency = call.body or {}, call.dependency
    thinking, output = _mapping(body.get("thinking")), _mapping(body.get("output_config"))
    return _known(
        {
            "gen_ai.operation.name": key(call.operation),
            "gen_ai.provider.name": key(dependency.provider),
            "gen_ai.request.model": key(dependency.model),
            "gen_ai.request.max_tokens": _count(body.get("max_tokens")),
            "gen_ai.request.temperature": _number(body.get("temperature")),
            "gen_ai.request.top_p": _number(body.get("top_p")),
            "gen_ai.request.top_k": _count(body.get("top_k")),
            "gen_ai.request.stream": True if call.streams else None,
            "gen_ai.request.reasoning.level": _word(output.get("effort")),
            "anthropic.request.service_tier": _word(body.get("service_tier")),
            "anthropic.thinking.type": _word(thinking.get("type")),
            "anthropic.thinking.budget_tokens": _count(thinking.get("budget_tokens")),
            "relight.dependency": key(dependency.name),
            "relight.region": key(dependency.region),
            "relight.request.messages": _length(body.get("messages")),
            "relight.request.tools": _length(body.get("tools")),
            "relight.request.stop_sequences": _length(body.get("stop_sequences")),
            "relight.client.max_retries": call.client_max_retries or None,
        }
    )


def _answer_attributes(call: Call, attempt: Attempt | None, answer: Answer | None) -> Attributes:
    served = call.served_by or (attempt.dependency if attempt else None)
    attributes: dict[str, JsonValue] = {"gen_ai.operation.name": key(call.operation)}
    if served is not None and served != call.dependency:
        attributes |= _served(served)
    if attempt is not None and call.failure is not None:
        attributes["http.response.status_code"] = attempt.status
    if answer is not None:
        usage = answer.usage
        attributes |= {
            "gen_ai.response.id": _word(answer.response_id),
            "gen_ai.response.model": _word(answer.model),
            "gen_ai.response.finish_reasons": [reason] if (reason := _word(answer.stop_reason)) else None,
            "gen_ai.usage.input_tokens": _count(input_tokens(usage)),
            "gen_ai.usage.output_tokens": _count(usage.output_tokens),
            "gen_ai.usage.cache_write.input_tokens": _count(usage.cache_write_tokens),
            "gen_ai.usage.cache_read.input_tokens": _count(usage.cache_read_tokens),
            "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": _count(usage.cache_write_1h_tokens) or None,
            "anthropic.response.service_tier": _word(usage.service_tier),
        }
    return _known(attributes)


def _served(dependency: Dependency) -> Attributes:
    return {
        "relight.dependency": key(dependency.name),
        "gen_ai.provider.name": key(dependency.provider),
        "gen_ai.request.model": key(dependency.model),
    }


def _dropped(dropped: bool) -> Attributes:
    return {"relight.content.dropped": True} if dropped else {}


def _known(attributes: Mapping[str, JsonValue]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


_WORD = re.compile(r"[\w.:/@+-]{1,200}", re.ASCII)


def _word(value: object) -> str | None:
    """A name out of a body; what looks like a sentence is none."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER else None


def _number(value: object) -> float | None:
    """Finite, of a size that any reader of JSON holds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value if abs(value) <= MAX_INTEGER else None


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, list | tuple) else None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _ms(since_us: int, until_us: int | None) -> int | None:
    return None if until_us is None else max(0, until_us - since_us) // 1_000
