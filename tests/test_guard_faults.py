"""Each fault script, by both clients: attempts, waits, what the caller gets, and what was recorded are exact."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import anthropic
import pytest
import stack
from fault_table import CASES
from faults import CANCELLED, Case, Tried, Where
from faulty import KEY, MODEL, OURS, THEIRS, Result, Scene

from relight.engine.fake import answers
from relight.engine.fake.replies import HTML
from relight.engine.guard.facts import Usage
from relight.engine.guard.recording.prices import Prices

PRICES = Prices.load()
AGAINST_THE_DEPENDENCY = {
    "overloaded",
    "server_error",
    "timeout",
    "name_resolution",
    "tls",
    "connection",
    "truncated",
    "malformed_response",
}
"""Any other failure is the caller's, or a limit: the dependency answered."""
RANDOM = ("decision", "request", "content", "context", "process", "fault_domain")
LATE_S = 0.25
"""What a busy machine may add to a deadline of real time."""


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[tuple[str, str], Result]:
    """Of the cases that are asked for, run one after the other: what they record is waited for once, not 170 times."""
    wanted = [item.callspec.params for item in request.session.items if "results" in getattr(item, "fixturenames", ())]
    with stack.folder() as spools, Scene(spools) as scene:
        ran = {(asked["case"].name, asked["kind"]): scene.run(asked["case"], asked["kind"]) for asked in wanted}
        scene.read_back(ran.values())
    return ran


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_guarded_call_meets(results: dict[tuple[str, str], Result], case: Case, kind: str) -> None:
    result = results[case.name, kind]
    assert result.waits_s == list(case.waits_s)
    _sent(case, result)
    _given(case, kind, result)
    _within_the_deadline(case, result)
    _recorded(case, result)


def _sent(case: Case, result: Result) -> None:
    """On the wire: just so many requests, and all of them the same."""
    if case.where in (Where.FAKE,):
        assert len(result.requests) == len(case.tried)
        assert len({seen.body for seen in result.requests}) == 1
    elif case.where is Where.NO_TLS:
        assert (result.requests, result.connections) == ([], len(case.tried))


def _given(case: Case, kind: str, result: Result) -> None:
    """What the caller gets."""
    if case.stops is not None:
        assert type(result.raised).__name__ == ("KeyboardInterrupt" if kind == "sync" else "CancelledError")
        return
    if case.raises is None:
        assert result.raised is None, result.raised
        if case.recorded_error is not None:
            assert result.got == HTML
            return
        if case.counts:
            assert result.got.input_tokens == answers.input_tokens(result.requests[-1].json)
            return
        whole = answers.message(result.requests[-1].asked, result.requests[-1].step)
        assert result.got.model_dump(exclude_none=True)["content"] == whole["content"]
        assert (result.got.stop_reason, result.got.id) == (case.stop_reason, whole["id"])
        assert result.got.usage.output_tokens == whole["usage"]["output_tokens"]
        if case.streams:
            assert "".join(result.deltas) == "".join(block["text"] for block in whole["content"])
        return
    raised = result.raised
    assert type(raised) is case.raises.type, repr(raised)
    if case.raises.status is not None:
        assert isinstance(raised, anthropic.APIStatusError)
        assert raised.status_code == case.raises.status
        assert raised.request_id == result.requests[-1].request_id
        if case.raises.error_type is not None:
            assert raised.type == case.raises.error_type
    if case.raises.cause is not None:
        assert type(raised.__cause__) is case.raises.cause
    assert len(result.deltas) == (case.deltas or 0)


def _within_the_deadline(case: Case, result: Result) -> None:
    deadline_s = case.deadline_s or case.policy.get("deadline_s", 600)
    assert result.took_s <= deadline_s + (LATE_S if case.really else 0)


def _recorded(case: Case, result: Result) -> None:
    """Read back from the stream: taken, each attempt and what it says of its dependency, and the outcome."""
    [opening, *_] = result.events
    assert opening["data"]["request"]["size_bytes"] > 0
    assert KEY not in str(result.events)
    for event in result.events:
        ours = event["type"].startswith("breakers.")
        assert (event["tenant"], event.get("causationid", opening["id"])) == (OURS if ours else THEIRS, opening["id"])
    assert [(event["type"], _comparable(event["data"])) for event in result.events] == list(_expected(case, result))


def _comparable(data: dict[str, Any]) -> dict[str, Any]:
    """Without names made at random, digests, times of what took time, and all that only describes the request."""
    left = {name: value for name, value in data.items() if name not in RANDOM}
    if "state_snapshot" in left:
        left["state_snapshot"] = {k: v for k, v in left["state_snapshot"].items() if k != "latency_ms"}
    left.pop("latency_ms", None)
    return left


def _expected(case: Case, result: Result) -> Iterator[tuple[str, dict[str, Any]]]:
    yield (
        "decisions.taken",
        {
            "decision_type": "agent_call",
            "agent": "tester",
            "task": case.name,
            "provider": "anthropic",
            "model": MODEL,
        },
    )
    for number, tried in enumerate(case.tried, start=1):
        if number in case.trips:
            yield "breakers.tripped", _tripped(case, result, number)
        yield "decisions.checkpointed", {"checkpoint_type": "attempt", "state_snapshot": _attempt(case, result, number)}
        yield from _seen_of_dependency(tried, result.dependency)
    yield "decisions.outcome_known", _outcome(case, result)


def _attempt(case: Case, result: Result, number: int) -> dict[str, Any]:
    tried, waited_s = case.tried[number - 1], (0.0, *case.waits_s)[number - 1]
    known = {
        "number": number,
        "dependency": result.dependency,
        "waited_s": waited_s or None,
        "first_token_ms": 0 if case.had_delta(number) else None,
        "http.response.status_code": tried.status,
        "error.type": tried.failure,
        "anthropic.request.id": None if tried.status is None else f"req_fake_{number - 1:06d}",
        "retry_after_s": tried.asked_s,
    }
    return {name: value for name, value in known.items() if value is not None}


def _tripped(case: Case, result: Result, number: int) -> dict[str, Any]:
    """Open for 30 s at first, and for twice as long after each probe that fails."""
    assert result.began is not None
    openings = case.trips.index(number)
    retry_at = result.began + timedelta(seconds=sum(case.waits_s[: number - 1]) + 30 * 2**openings)
    return {
        "service_name": result.dependency,
        "reason": "the probe failed" if openings else f"{number} failures in a row",
        "failure_count": number,
        "retry_at": retry_at.isoformat().replace("+00:00", "Z"),
    }


def _seen_of_dependency(tried: Tried, dependency: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if tried.failure is None:
        yield "breakers.succeeded", {"service_name": dependency}
    elif tried.failure in AGAINST_THE_DEPENDENCY:
        details = {} if tried.status is None else {"http.response.status_code": tried.status}
        yield "breakers.failed", {"service_name": dependency, "error_class": tried.failure, "details": details}


def _outcome(case: Case, result: Result) -> dict[str, Any]:
    last = len(case.tried)
    error, status = case.recorded_error, case.tried[-1].status
    ended_in_attempt = case.error_class is None
    known: dict[str, Any] = {
        "outcome": "unknown" if error == CANCELLED else "failure" if error else "success",
        "error_class": error,
        "attempts": last,
        "request_id": f"req_fake_{last - 1:06d}" if status is not None and ended_in_attempt else None,
        "first_token_ms": round(sum(case.waits_s) * 1_000) if case.had_delta(last) else None,
    }
    attributes: dict[str, Any] = {"gen_ai.operation.name": "count_tokens" if case.counts else "chat"}
    if error is not None and ended_in_attempt:
        attributes["http.response.status_code"] = status
    if (told := _told(case, result)) is not None:
        usage = told["usage"]
        known |= {"input_tokens": usage["input_tokens"], "output_tokens": usage["output_tokens"]}
        known["cost_microusd"] = None if error else _cost_microusd(usage)
        attributes |= {
            "gen_ai.response.id": told["id"],
            "gen_ai.response.model": MODEL,
            "gen_ai.response.finish_reasons": [case.stop_reason] if error is None else None,
            "gen_ai.usage.input_tokens": usage["input_tokens"],
            "gen_ai.usage.output_tokens": usage["output_tokens"],
            "gen_ai.usage.cache_write.input_tokens": 0,
            "gen_ai.usage.cache_read.input_tokens": 0,
            "anthropic.response.service_tier": "standard",
        }
    known["attributes"] = {name: value for name, value in attributes.items() if value is not None}
    return {name: value for name, value in known.items() if value is not None}


def _told(case: Case, result: Result) -> dict[str, Any] | None:
    """What the last answer said of itself: all of it, or the beginning of a stream."""
    if case.counts or case.tried[-1].status != 200 or (case.recorded_error is not None and not case.streams):
        return None
    seen = result.requests[-1]
    whole = answers.message(seen.asked, seen.step)
    if case.recorded_error is None:
        return whole
    if case.really:
        return None  # too slow for even the beginning
    return {**whole, "usage": {**whole["usage"], "output_tokens": 1}}


def _cost_microusd(usage: dict[str, Any]) -> int | None:
    return PRICES.cost_microusd(MODEL, Usage(usage["input_tokens"], usage["output_tokens"]), "anthropic")
