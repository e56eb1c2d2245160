"""Each fault script, by both clients: attempts, waits, what the caller gets, and what was recorded are exact."""

from collections.abc import Iterator

import anthropic
import pytest
import stack
from faults import CASES, Case, Where
from faulty import Result, Scene

from relight.engine.errors import DeadlineExceeded
from relight.engine.fake import answers

LATE_S = 0.25
"""What a busy machine may add to a deadline of real time."""


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with stack.folder() as spools, Scene(spools) as made:
        yield made


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_guarded_call_meets(scene: Scene, case: Case, kind: str) -> None:
    result = scene.run(case, kind)
    assert result.waits_s == list(case.waits_s)
    _sent(case, result)
    _given(case, kind, result)
    _within_the_deadline(case, result)
    _recorded(case, kind, result)


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
    if isinstance(raised, DeadlineExceeded) and case.raises.cause is not None:
        assert type(raised.__cause__) is case.raises.cause
    assert len(result.deltas) == (case.deltas or 0)


def _within_the_deadline(case: Case, result: Result) -> None:
    deadline_s = case.deadline_s or case.policy.get("deadline_s", 600)
    assert result.took_s <= deadline_s + (LATE_S if case.really else 0)


def _recorded(case: Case, kind: str, result: Result) -> None:
    print([(e["type"], e["data"]) for e in result.events])
